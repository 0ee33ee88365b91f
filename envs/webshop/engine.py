"""The shop of WebShop's text mode: its pages as text, what can be clicked there, where that leads,
and its search.

    search page -> results, ten a page -> item (options, Buy Now) -> description, features, reviews

A page is a tuple that nothing changes; follow() makes the next one, or says that there is none.
Pages read as the original's templates do in its "text" mode. As there, a search works from every
page, [Next >] is on every page of results, even behind the last, an item page does not show what
was chosen, and going back to the results forgets it. Left out: reviews and ratings, for which no
file was published ("N.A."), the Attributes page, which the original hides by default, and the
searches that begin with <r>, <a>, <c> and <q>.

Search: the original asks Lucene (Pyserini) for 50 products by BM25 over title, description, first
feature and options. So does envs/lib/bm25.py. Rankings may differ: k1 and b are 1.2 and 0.75
(Pyserini's 0.9 and 0.4), so that repeated words and short texts count a little more; the stemmer is
Snowball's English one (Porter's first), words split at hyphens and apostrophes, and what would find
nothing does: a query of stop words, a name in a script without spaces. Of equals the one that
stands first in the file comes first, in both.
"""
import functools
from collections import namedtuple

from envs.lib import bm25
from envs.lib.text import clean

MOST, SIZE = 50, 10  # results of a search, and on a page
SUBPAGES = ("description", "features", "reviews")
LONGEST = bm25.MAX_QUERY  # characters of a query that a page keeps

# kind: search, results, item, sub or bought
Page = namedtuple("Page", "kind query number asin options sub", defaults=("", 0, "", {}, ""))


class Shop:
    """The products, and what searches found. Shared by all games; the index is made at the first
    search."""

    def __init__(self, products):
        self.products, self.found = {product.asin: product for product in products}, {}

    @functools.cached_property
    def index(self):
        return bm25.in_memory(contents(product) for product in self.products.values())

    @functools.cached_property
    def asins(self):
        return list(self.products)

    def search(self, query):
        """-> asins of at most 50 products, best first"""
        if query not in self.found:
            if len(self.found) >= 20_000:
                self.found.clear()
            hits = bm25.search(self.index, query, MOST)
            self.found[query] = [self.asins[number] for number, *_ in hits]
        return self.found[query]


# ---- search ----

def contents(product):
    """What of a product is searched."""
    options = [f"{name}: {', '.join(values)}" for name, values in product.options.items()]
    options = ", and ".join(options)
    return " ".join([product.name, product.description, *product.bullets[:1], options])


# ---- pages ----

def parse(text):
    """"click[Buy Now]" -> ("click", "buy now"); anything else -> ("", ""). Case never matters. As
    the original's pattern (.+)\\[(.+)\\] would, but for options that hold brackets themselves."""
    line = clean(text).split("\n")[0].lower()
    verb, _, rest = line.partition("[")
    what = rest.rpartition("]")[0]
    if not what or verb not in ("search", "click") or (verb == "search" and "[" in what):
        return "", ""
    return verb, what


def on_page(shop, page, size):
    """The products of a page of results."""
    first = (page.number - 1) * size
    return [shop.products[asin] for asin in shop.search(page.query)[first:first + size]]


def clickables(shop, page, size=SIZE):
    """What can be clicked, as it would be said: lower case."""
    if page.kind == "results":
        products = [product.asin.lower() for product in on_page(shop, page, size)]
        return ["back to search", *["< prev"][:page.number - 1], "next >", *products]
    if page.kind == "item":
        options = shop.products[page.asin].options
        values = [value for values in options.values() for value in values]
        return ["back to search", "< prev", *SUBPAGES, "buy now", *values]
    return ["back to search", "< prev"] if page.kind == "sub" else []


def follow(shop, page, text, size=SIZE):
    """Where that leads -> Page; None for what means nothing here."""
    verb, what = parse(text)
    if verb == "search":
        return Page("results", what[:LONGEST], 1)
    if verb != "click" or what not in clickables(shop, page, size):
        return None
    if what == "back to search":
        return Page("search")
    if what == "buy now":
        return page._replace(kind="bought")
    if what in ("next >", "< prev") and page.kind == "results":
        return page._replace(number=page.number + (1 if what == "next >" else -1))
    if what == "< prev" and page.kind == "sub":
        return page._replace(kind="item", sub="")
    if what == "< prev":
        return Page("results", page.query, page.number)
    if page.kind == "results":
        shown = on_page(shop, page, size)
        asin = next(product.asin for product in shown if product.asin.lower() == what)
        return page._replace(kind="item", asin=asin)
    if what in SUBPAGES:
        return page._replace(kind="sub", sub=what)
    options = shop.products[page.asin].options
    name = [name for name, values in options.items() if what in values][-1]
    return page._replace(options={**page.options, name: what})


def read(shop, page, instruction):
    """A page as the original shows it in text mode."""
    if page.kind == "search":
        texts = ["WebShop", "Instruction:", instruction, "Search"]
    else:
        texts = ["Instruction:", instruction, "Back to Search"]
    if page.kind == "results":
        texts += [f"Page {page.number} (Total results: {len(shop.search(page.query))})"]
        texts += [*["< Prev"][:page.number - 1], "Next >"]
        for product in on_page(shop, page, SIZE):
            texts += [product.asin, product.name, product.tag]
    elif page.kind == "item":
        product = shop.products[page.asin]
        texts.append("< Prev")
        for name, values in product.options.items():
            texts += [name, *values]
        texts += [product.name, f"Price: {product.tag}", "Rating: N.A.", "Description", "Features",
                  "Reviews", "Buy Now"]
    elif page.kind == "sub":
        texts += ["< Prev", *about(shop.products[page.asin], page.sub)]
    return " [SEP] ".join(text.strip() for text in texts if text.strip())


def about(product, sub):
    """The texts of a sub-page."""
    if sub == "features":
        return product.bullets
    if sub == "description":
        return [product.description or "No Description"]
    return ["No reviews found"]


# ---- the same, short ----

# Results a page; words of a title and of another text; values of an option.
SHORT_SIZE, SHORT_TITLE, SHORT_TEXT, SHORT_VALUES = 3, 8, 20, 6


def read_short(shop, page, instruction):
    """A page in few words, for small models: the instruction stands on the search page only,
    buttons nowhere; three results a page, titles cut to eight words, other texts to twenty; of an
    option the first six values or, when it is chosen, that one, and then no title and price any
    more. What is not shown can be clicked all the same."""
    if page.kind == "search":
        texts = [instruction]
    elif page.kind == "results":
        texts = [f"page {page.number}"]
        for product in on_page(shop, page, SHORT_SIZE):
            texts += [product.asin.lower(), cut(product.name, SHORT_TITLE), product.tag]
    elif page.kind == "item":
        product = shop.products[page.asin]
        texts = []
        for name, values in product.options.items():
            chosen = [page.options[name]] if name in page.options else values[:SHORT_VALUES]
            texts += [name, *chosen]
        if not page.options:
            texts += [cut(product.name, SHORT_TITLE), product.tag]
    elif page.kind == "sub":
        texts = [cut(text, SHORT_TEXT) for text in about(shop.products[page.asin], page.sub)]
    else:
        texts = []
    return "; ".join(text.strip() for text in texts if text.strip())


def cut(text, n):
    return " ".join(text.split()[:n]).lower()
