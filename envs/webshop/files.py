"""WebShop's official files -> products and goals.

    items_shuffle*.json    products as scraped: a list of records
    items_ins_v2*.json     {asin: {"attributes": [...], "instruction": ...,
                           "instruction_attributes": [...]}}
    items_human_ins*.json  {asin: [{"instruction": ..., "instruction_attributes": [...],
                           "instruction_options": [...]}]}; may be absent

Read as the original reads them (web_agent_site/engine: engine.py, goal.py), except that every draw
is seeded here: a product of two prices costs something between them; the ceiling of a goal is the
higher of two draws from the next four multiples of $10 above the price, up to 990. The 1.18 million
products take several GB; items_shuffle_1000.json has the first thousand.
"""
import glob
import itertools
import math
import os
import random
import re
from collections import namedtuple

from envs.lib.text import expect, field, optional, read_json, texts

PRODUCTS, ATTRIBUTES = "items_shuffle*.json", "items_ins_v2*.json"
INSTRUCTIONS = "items_human_ins*.json"
WHERE = ("download items_shuffle_1000.json, items_ins_v2_1000.json and items_human_ins.json "
         "(see github.com/princeton-nlp/WebShop, setup.sh) into one folder and pass --data FOLDER, "
         "or set WEBSHOP_DATA")
NO_CEILING = 1_000_000  # dollars, where the price leaves none to draw
NO_PRICE = 100.0  # dollars, the original's price of a product without one
REMARK = re.compile(r"\([^()]*\)|[0-9.,]+\s*%")  # in a price, such as "(Save 10%)"
AMOUNT = r"\s*([0-9.,]*[0-9][0-9.,]*)"

Product = namedtuple(
    "Product", "asin name query category product_category description bullets price tag options "
    "attributes synthetic")
Goal = namedtuple(
    "Goal", "asin name query category product_category text attributes options price_upper")


def read(folder, wanted=""):
    """-> [Product], [Goal]. wanted: "human" or "synthetic" goals; "": human ones, and synthetic
    ones where there are none. ValueError in one line."""
    if not os.path.isdir(folder):
        why = f"there is no folder {folder}" if folder else "needs its files"
        raise ValueError(f"webshop: {why}; {WHERE}")
    (path, records), (about_path, about) = load(folder, PRODUCTS, list), load(folder, ATTRIBUTES)
    products = {}
    for number, record in enumerate(records, 1):
        where = f"{path}, product {number}"
        try:
            asin = field(record, "asin")
            if asin != "nan" and len(asin) <= 10 and asin not in products:
                found = product(record)
                where = f"{about_path}, {asin}"
                products[asin] = described(found, about.get(asin, {}))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    goals = []
    said = glob.glob(os.path.join(glob.escape(folder), INSTRUCTIONS))
    if wanted != "synthetic" and (wanted or said):
        goals = human_goals(products, *load(folder, INSTRUCTIONS))
    if not goals and wanted != "human":
        goals = synthetic_goals(products)
    if not goals:
        raise ValueError(f"webshop: {folder} has {len(products)} products, "
                         "and no instruction that is about one of them")
    return list(products.values()), goals


def paths(folder):
    """The official files of a folder."""
    return sorted(path for pattern in (PRODUCTS, ATTRIBUTES, INSTRUCTIONS)
                  for path in glob.glob(os.path.join(glob.escape(folder), pattern)))


def load(folder, pattern, kind=dict):
    """The one file of that name -> its path, what it holds"""
    found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    if not found:
        raise ValueError(f"webshop: no {pattern} in {folder}; {WHERE}")
    if len(found) > 1:
        names = " and ".join(map(os.path.basename, found))
        raise ValueError(f"webshop: {folder} holds {names}; leave one of them there")
    try:
        content = read_json(found[0])
    except ValueError as error:
        raise ValueError(f"{found[0]}: {error}") from None
    if not isinstance(content, kind):
        what = "list of products" if kind is list else "object with an entry for each asin"
        raise ValueError(f"{found[0]}: holds no {what}")
    return found[0], content


def product(record, about={}):
    """A record as scraped, what the attribute file says about it -> Product. ValueError when it is
    none."""
    asin, name, query, *categories = (field(record, name) for name in (
        "asin", "name", "query", "category", "product_category"))
    prices, tag = read_price(optional(record, "pricing"))
    price = prices[0]
    if len(prices) > 1:
        price = random.Random(f"webshop price {asin}").uniform(*prices)
    bullets = record.get("small_description") or []
    bullets = bullets if isinstance(bullets, list) else [bullets]
    bullets = [str(bullet) if isinstance(bullet, (int, float)) else bullet for bullet in bullets]
    options = {}
    for option, values in optional(record, "customization_options", dict).items():
        if values is not None:
            said = [field(value, "value") for value in expect(values, list, option)]
            options[option.lower()] = [option_text(text) for text in said if text.strip()]
    found = Product(
        asin, name, query.lower().strip(), *categories, optional(record, "full_description"),
        texts(bullets, "small_description"), price, tag, options, ["DUMMY_ATTR"], (None, []))
    return described(found, about)


def option_text(text):
    """As it is shown and clicked: on one line, whatever the file has."""
    lines = (line.strip() for line in text.strip().splitlines())
    return " ".join(lines).replace("/", " | ").lower()


def described(product, about):
    """The product with what the attribute file says about it. ValueError when that is no
    description."""
    expect(about, dict, "it")
    attributes = product.attributes
    if "attributes" in about:
        attributes = texts(about["attributes"], "attributes")
    asked = texts(optional(about, "instruction_attributes", list), "instruction_attributes")
    return product._replace(attributes=attributes,
                            synthetic=(optional(about, "instruction") or None, asked))


def read_price(text):
    """"$12.99" -> [12.99], "$12.99"; "$9.50 - $12.99" -> [9.5, 12.99], "$9.5 to $12.99"; "" ->
    [100.0], "$100.0". Where there is a $, amounts are what follows one or the mark of a range.
    ValueError for digits that are no amount."""
    text = REMARK.sub(" ", text or "")
    found = re.findall(rf"(?:\$|[-–—]|\bto\b){AMOUNT}" if "$" in text else AMOUNT, text)
    prices = [amount(digits) for digits in found[:2]] or [NO_PRICE]
    return prices, " to ".join(f"${price}" for price in prices)


def amount(digits):
    """"1,112.00" -> 1112.0; a full stop or comma at its end is the sentence's."""
    digits = digits.rstrip(".,")
    plain = re.fullmatch(r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?", digits)
    price = float(digits.replace(",", "")) if plain else math.inf
    if math.isinf(price):
        raise ValueError(f"{digits[:40]!r} is no price")
    return price


def ceiling(product, number):
    """A price that the product's is below, drawn for its goal of that number -> dollars, what the
    instruction says about it"""
    above = [10.0 * i for i in range(1, 100) if 10.0 * i > product.price][:4]
    if len(above) < 2:
        return NO_CEILING, ""
    highest = max(random.Random(f"webshop ceiling {product.asin} {number}").sample(above, 2))
    return highest, f", and price lower than {highest:.2f} dollars"


def goal(product, text, attributes, options, price_upper):
    return Goal(product.asin, product.name, product.query, product.category,
                product.product_category, text, attributes, options, price_upper)


def human_goals(products, path, instructions):
    """What people asked for; an instruction without attributes is left out, as in the original."""
    goals = []
    for product in products.values():
        try:
            asked = expect(instructions.get(product.asin, []), list, "it")
            for number, said in enumerate(asked):
                goals += human_goal(product, number, said)
        except ValueError as error:
            raise ValueError(f"{path}, {product.asin}: {error}") from None
    return goals


def human_goal(product, number, said):
    """[the goal], [] for an instruction without attributes"""
    attributes, options = (
        texts(field(said, name, list), name)
        for name in ("instruction_attributes", "instruction_options"))
    if not attributes:
        return []
    highest, about_it = ceiling(product, number)
    text = field(said, "instruction").strip(".") + about_it
    return [goal(product, text, attributes, options, highest)]


def synthetic_goals(products):
    """A goal for every combination of a product's options, in the words of the attribute file."""
    goals = []
    for product in products.values():
        text, attributes = product.synthetic
        highest, about_it = ceiling(product, 0)
        if not text or not attributes:
            continue
        names = sorted(product.options)
        for values in itertools.product(*(product.options[name] for name in names)):
            chosen = list(zip(names, values))
            wishes = ", and ".join(f"{name}: {value}" for name, value in chosen)
            asked = f"{text} with {wishes}{about_it}" if chosen else f"{text}{about_it}"
            goals.append(goal(product, asked, attributes, chosen, highest))
    return goals
