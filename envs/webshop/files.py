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
import json
import os
import random
import re
from collections import namedtuple

PRODUCTS, ATTRIBUTES = "items_shuffle*.json", "items_ins_v2*.json"
INSTRUCTIONS = "items_human_ins*.json"
WHERE = ("download items_shuffle_1000.json, items_ins_v2_1000.json and items_human_ins.json "
         "(see github.com/princeton-nlp/WebShop, setup.sh) into one folder and pass --data FOLDER, "
         "or set WEBSHOP_DATA")
NO_CEILING = 1_000_000  # dollars, where the price leaves none to draw

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
    (path, records), (_, attributes) = load(folder, PRODUCTS, list), load(folder, ATTRIBUTES, dict)
    products = {}
    for number, record in enumerate(records, 1):
        try:
            asin = record["asin"]
            if asin != "nan" and len(asin) <= 10 and asin not in products:
                products[asin] = product(record, attributes.get(asin, {}))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{path}, product {number}: {named(error)}") from None
    goals = []
    if wanted != "synthetic" and (wanted or glob.glob(os.path.join(folder, INSTRUCTIONS))):
        goals = human_goals(products, *load(folder, INSTRUCTIONS, dict))
    if not goals and wanted != "human":
        goals = synthetic_goals(products)
    if not goals:
        raise ValueError(f"webshop: {folder} has {len(products)} products, "
                         "and no instruction that is about one of them")
    return list(products.values()), goals


def named(error):
    return f"no field {error}" if isinstance(error, KeyError) else error


def load(folder, pattern, kind):
    """The one file of that name -> its path, what it holds"""
    found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    if not found:
        raise ValueError(f"webshop: no {pattern} in {folder}; {WHERE}")
    if len(found) > 1:
        names = " and ".join(map(os.path.basename, found))
        raise ValueError(f"webshop: {folder} holds {names}; leave one of them there")
    try:
        with open(found[0], encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{found[0]}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(content, kind):
        what = "list of products" if kind is list else "object with an entry for each asin"
        raise ValueError(f"{found[0]}: holds no {what}")
    return found[0], content


def product(record, about):
    """A record as scraped, what the attribute file says about it -> Product"""
    bullets = record.get("small_description") or []
    prices, tag = read_price(record.get("pricing"))
    price = prices[0]
    if len(prices) > 1:
        price = random.Random(f"webshop price {record['asin']}").uniform(*prices)
    options = {}
    for name, values in (record.get("customization_options") or {}).items():
        if values is not None:
            texts = [value["value"].strip() for value in values]
            options[name.lower()] = [text.replace("/", " | ").lower() for text in texts]
    texts = [record[name] for name in ("name", "query", "category", "product_category")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("name, query, category and product_category are texts")
    name, query, *categories = texts
    return Product(
        record["asin"], name, query.lower().strip(), *categories,
        record.get("full_description") or "", bullets if isinstance(bullets, list) else [bullets],
        price, tag, options, about.get("attributes", ["DUMMY_ATTR"]),
        (about.get("instruction"), about.get("instruction_attributes") or []))


def read_price(text):
    """"$12.99" -> [12.99], "$12.99"; "$9.50 - $12.99" -> [9.5, 12.99], "$9.5 to $12.99"; "" ->
    [100.0], "$100.0" """
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (text or "").split("$")[1:]]
    prices = prices[:2] or [100.0]
    return prices, " to ".join(f"${price}" for price in prices)


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
        for number, said in enumerate(instructions.get(product.asin, ())):
            try:
                highest, about_it = ceiling(product, number)
                attributes, options = said["instruction_attributes"], said["instruction_options"]
                if attributes:
                    text = said["instruction"].strip(".") + about_it
                    goals.append(goal(product, text, attributes, options, highest))
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}, {product.asin}: {named(error)}") from None
    return goals


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
