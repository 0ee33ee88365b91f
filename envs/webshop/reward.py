"""What a purchase in WebShop earns, by the formula of its released code
(github.com/princeton-nlp/WebShop; arXiv 2207.01206, section 3).

    reward = r_type * (n_attributes + n_options + [price <= ceiling]) / (attributes + options + 1)

An attribute of the goal counts when it is like one of the product's (token_set_ratio above 85), or
stands in title, features or description. An option counts when it is like one that was chosen;
whatever names a colour is that colour. r_type is 1 for the kind of thing that was asked for, else
0.5; a title that has next to nothing in common with the goal's takes it down to 0.1, and nothing at
all to 0.

Whether titles have something in common is asked of their nouns. The original finds them by spaCy's
model en_core_web_sm: so does this file where that is there (pip install spacy; python -m spacy
download en_core_web_sm). Otherwise every word of a title that is all letters passes for a noun,
unless it is one of LITTLE: adjectives and verbs count too, so that the share of common nouns comes
out a little lower or higher, and r_type differs where it is near 0.1 or 0.2 and nothing else
(query, category) decides. Capitals do not matter to it, as they do to spaCy. The original's fuzzy
matching is thefuzz's; rapidfuzz computes the same, rounded as there.
"""
import functools
import re

# The colours of the original, in its order.
COLORS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown
burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac
copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite
grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light
lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural
navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire
seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet
walnut wheat white wine yellow
""".split()
LITTLE = set(
    "a an the and or of for with without in on at to from by as is are be it its this that your "
    "our my up off out over per not no".split())
LATIN = dict.fromkeys(range(128, 256))  # characters that thefuzz leaves out


def alike(a, b):
    """Do these two say the same, give or take? Case, order and words that only one of them has
    hardly matter."""
    from rapidfuzz import fuzz, utils
    a, b = (utils.default_process(text.translate(LATIN)) for text in (a, b))
    return round(fuzz.token_set_ratio(a, b)) > 85


def normal(option):
    """The first of COLORS that an option holds, else the option. Of a (name, value) pair, which a
    synthetic goal has, a colour must be the whole value, and both count where none is: that is what
    the original comes to."""
    color = next((color for color in COLORS if color in option), None)
    return color or (option if isinstance(option, str) else " ".join(option))


@functools.cache
def tagger():
    """spaCy's small English model; None where it is not installed."""
    try:
        import spacy
        return spacy.load("en_core_web_sm")
    except (ImportError, OSError):
        return None


@functools.lru_cache(100_000)
def nouns(title):
    """-> the nouns of a title in lower case, as often as they stand there."""
    tag = tagger()
    if tag:
        return [token.text.lower() for token in tag(title) if token.pos_ in ("NOUN", "PROPN")]
    return [word for word in re.findall(r"\b[^\W\d_]+\b", title.lower()) if word not in LITTLE]


def kind(product, goal):
    """Is it the kind of thing that was asked for? -> r_type (0, 0.1, 0.5 or 1), the share of the
    goal's nouns that its title has"""
    wanted = nouns(goal.name)
    shared = len(set(nouns(product.name)) & set(wanted)) / len(wanted) if wanted else 0.2
    shelves = [{part.strip() for part in x.product_category.split("›")} for x in (product, goal)]
    same = product.query == goal.query or len(shelves[0] & shelves[1]) >= 2 or shared > 0.2
    return 0.0 if shared == 0 else 0.1 if shared < 0.1 else 1.0 if same else 0.5, shared


def has(product, attribute):
    """An attribute with a capital letter is in no text, as texts are looked at in lower case: so it
    is in the original."""
    texts = product.name, " ".join(product.bullets), product.description
    if any(alike(mine, attribute) for mine in product.attributes):
        return True
    return any(attribute in text.lower() for text in texts)


def reward(product, goal, options):
    """What this product earns when bought with these options, {name: value}. -> reward in [0, 1],
    its parts as the original names them"""
    r_type, shared = kind(product, goal)
    n_att = sum(has(product, attribute) for attribute in goal.attributes)
    chosen = [normal(value) for value in options.values()]
    n_option = sum(any(alike(mine, normal(wanted)) for mine in chosen) for wanted in goal.options)
    r_price = product.price <= goal.price_upper
    parts = {"r_type": r_type, "r_att": n_att / len(goal.attributes), "r_price": float(r_price),
             "title_score": shared}
    if goal.options:
        parts["r_option"] = n_option / len(goal.options)
    wishes = len(goal.attributes) + len(goal.options) + 1
    return r_type * (n_att + n_option + r_price) / wishes, parts
