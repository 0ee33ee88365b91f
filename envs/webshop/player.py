"""A player of WebShop for demonstrations: it knows what the goal's product is called, and what a
purchase will earn."""
import re

from envs.webshop.reward import alike, normal, reward

ABOUT_PRICE = re.compile(r", and price lower than [\d.]+ dollars$")
FAR, MANY, TITLE = 3, 8, 12  # pages of results it looks at; words of a query, and of a title


def words(text):
    return re.findall(r"[^\W_]+", text.lower())


def query_of(goal):
    """Words of the instruction that the goal's product has too: what a reader may think of.
    "i need a red wool rug" -> "red wool rug\""""
    texts = [goal.name, goal.query, *goal.attributes, *map(normal, goal.options)]
    known = set(words(" ".join(texts)))
    said = dict.fromkeys(words(ABOUT_PRICE.sub("", goal.text)))
    said = [word for word in said if word in known and len(word) > 2]
    return " ".join(said[:MANY]) or goal.query


def title_of(goal):
    return " ".join(words(goal.name)[:TITLE])


def path(shop, goal, query, size):
    """-> the turns that buy the first product of that search which earns 1; None where there is
    none in FAR pages of that size"""
    for rank, asin in enumerate(shop.search(query)[:FAR * size]):
        product = shop.products[asin]
        chosen = choose(product, goal)
        if reward(product, goal, chosen)[0] == 1:
            turned = ["click[next >]"] * (rank // size)
            options = [f"click[{value}]" for value in chosen.values()]
            found = f"click[{asin.lower()}]"
            return [f"search[{query}]", *turned, found, *options, "click[buy now]"]
    return None


def choose(product, goal):
    """-> {name: value}, options of a product that the goal asks for: what is worded alike before
    what only counts as like it"""
    chosen = {}
    for wanted in goal.options:
        value = (wanted if isinstance(wanted, str) else wanted[1]).lower()
        offers = [(name, offer) for name, values in product.options.items()
                  if name not in chosen for offer in values]
        same = [x for x in offers if x[1] == value]
        like = [x for x in offers if alike(normal(x[1]), normal(wanted))] if not same else []
        chosen.update((same or like)[:1])
    return chosen


def careless(shop, texts, rng):
    """The same without its options; half of the time without a look at what is bought, too."""
    query = texts[0]
    opened = next(i for i, text in enumerate(texts) if i and text != "click[next >]")
    if rng.random() < 0.5:
        return [*texts[:opened + 1], "click[buy now]"]
    return [query, f"click[{shop.search(query[len('search['):-1])[0].lower()}]", "click[buy now]"]
