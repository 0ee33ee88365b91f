"""A made-up shop in the format of WebShop's three official files: something to train and test on
without the download.

    python -m envs.webshop --make out/shop --products 300

Names, attributes, options and prices are drawn from short lists; the same number of products and
seed write the same files. As in the real files, some products have no price, a range of prices, no
options, a null option or a text where a list is usual, and some records are to be skipped.
"""
import json
import os
import random

COLORS = "Black, White, Navy Blue, Wine Red, Grey, Black / White"
SIZES = "X-Small, Small, Medium, Large, X-Large"
KINDS = [  # category, query, shelves below the first, thing, attributes, options, dollars
    ("fashion", "Women's Pumps", "Women › Shoes › Pumps", "pumps",
     "rubber sole, high heel, ankle strap, open toe, memory foam, arch support",
     {"Color": COLORS, "Size": "5, 6, 7, 8, 9 Wide"}, (18, 90)),
    ("fashion", "Men's T-Shirts", "Men › Clothing › Shirts", "t-shirt",
     "machine wash, slim fit, long sleeve, short sleeve, moisture wicking, crew neck",
     {"Color": COLORS, "Size": SIZES}, (8, 40)),
    ("fashion", "Women's Pants", "Women › Clothing › Pants", "yoga pants",
     "high waist, tummy control, wide leg, butt lifting, quick drying, elastic waistband",
     {"Color": COLORS, "Size": SIZES}, (12, 45)),
    ("garden", "Console Tables", "Furniture › Living Room Furniture › Console Tables",
     "console table",
     "solid wood, easy assemble, steel frame, storage space, easy clean, metal legs",
     {"Color": "Walnut, White, Espresso"}, (80, 900)),
    ("garden", "Area Rugs", "Home Décor Products › Area Rugs", "area rug",
     "spot clean, non slip, machine washable, stain resistant, hand tufted, low pile",
     {"Color": "Turquoise, Grey, Ivory / Blue", "Shape": "Round, Square",
      "Size": "5 ft, 7 ft, 8 ft 0 x 8 ft 0"}, (30, 250)),
    ("garden", "Curtains", "Window Treatments › Curtains", "blackout curtains",
     "energy saving, noise reducing, super soft, thermal insulated, printing technology",
     {"Color": COLORS}, (15, 60)),
    ("beauty", "Shampoo & Conditioner", "Hair Care › Shampoo & Conditioner", "shampoo",
     "sulfate free, paraben free, damaged hair, tea tree, cruelty free, argan oil",
     {"Size": "8 Fl Oz, 13.5 Fl Oz, 8 Fl Oz (Pack of 2)"}, (7, 40)),
    ("beauty", "Makeup Brushes", "Tools & Accessories › Makeup Brushes", "makeup brush set",
     "high quality, synthetic hair, travel size, eye shadow, soft bristles",
     {"Color": COLORS}, (6, 30)),
    ("electronics", "Headphones", "Headphones › Over-Ear Headphones", "headphones",
     "noise cancelling, wireless bluetooth, fast charging, stereo sound, long lasting",
     {"Color": COLORS}, (20, 300)),
    ("electronics", "Mounts", "Television & Video › TV Mounts", "tv stand",
     "height adjustable, tempered glass, easy install, heavy duty, carbon steel",
     {"Size": "32 inch, 55 inch, 65 inch"}, (25, 120)),
    ("grocery", "Breakfast Foods", "Breakfast Foods › Cereals", "breakfast cereal",
     "gluten free, certified organic, low sugar, high protein, dietary fiber, non gmo",
     {"Flavor Name": "Honey, Apple Cinnamon, Cocoa",
      "Size": "10 Ounce (Pack of 1), 10 Ounce (Pack of 6)"}, (4, 35)),
    ("grocery", "Coffee", "Beverages › Coffee", "ground coffee",
     "fair trade, rich flavor, dark roast, usda organic, single origin, caffeine free",
     {}, (6, 40))]
FIRST = {  # category -> the first shelf
    "fashion": "Clothing, Shoes & Jewelry", "garden": "Home & Kitchen",
    "beauty": "Beauty & Personal Care", "electronics": "Electronics",
    "grocery": "Grocery & Gourmet Food"}
BRANDS = ("Vhomes Hswosa Fitueyes Arya Lumora Kestrel Bondi Tamber Orlinda Quillo Semper Waveny "
          "Yarrow Dunmore Calista Pentro").split()
FEATURES = ["Made with care for every day", "A fine gift for family and friends",
            "Our service answers within a day"]
WANTS = ["i need {}", "i'm looking for {}", "i want to buy {}", "find me {}"]
EMPTY = [  # fields that nothing here reads
    "brand_url", "list_price", "total_reviews", "total_answered_questions", "seller_id",
    "seller_name", "fulfilled_by_amazon", "fast_track_message", "aplus_present",
    "small_description_old"]

# A record for tests by hand:
TABLE = {
    "name": "Walnut Sofa Table ", "asin": "B000000001", "query": "Console tables",
    "category": "garden", "product_category": "Home › Tables", "full_description": "",
    "pricing": "$1,250.00 - $1,300.50", "small_description": ["Sturdy legs ", "Easy clean"],
    "customization_options": {
        "Color": [{"value": " Black/White "}, {"value": "Oak"}], "Fabric": None,
        "Size": [{"value": "60\""}]}}


def product(rng, number):
    """-> a record as scraped, its attributes, what it is"""
    category, query, shelves, thing, known, options, dollars = KINDS[number % len(KINDS)]
    attributes, brand = rng.sample(known.split(", "), 3), rng.choice(BRANDS)
    price = rng.uniform(*dollars)
    asin = "B0" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", k=8))
    offered = {}
    for name, text in options.items():
        values = text.split(", ")
        values = rng.sample(values, max(2, len(values) - 1))
        offered[name] = [{"value": value, "image": None} for value in values]
    features = [f"{attributes[2].title()}: {rng.choice(FEATURES)} ", f"{rng.choice(FEATURES)} "]
    pricing = f"${price:,.2f}"
    if number % 17 == 5:
        pricing = ""
    elif number % 11 == 3:
        pricing = f"${price:,.2f} - ${price * 1.2:,.2f}"
    name = (f"{brand} {attributes[0].title()} {thing.title()}, {attributes[1].title()}, "
            f"Model {rng.randrange(100, 1000)}")
    record = {
        "name": name, "pricing": pricing, "product_information": {"ASIN": asin},
        "brand": f"Brand: {brand}", "average_rating": 4.5,
        "full_description": f"{rng.choice(FEATURES)}.",
        "small_description": features[0] if number % 13 == 7 else features,
        "availability_status": "In Stock.", "images": ["https://example.com/image.jpg"],
        "asin": asin, "category": category, "query": query,
        "product_category": f"{FIRST[category]} › {shelves}", "page": 1,
        "customization_options": {**offered, "Pattern": None} if number % 7 == 2 else offered or ""}
    return {**record, **dict.fromkeys(EMPTY, "")}, attributes, thing


def chosen(rng, record):
    """-> {name: value}, options in the shop's words that somebody asks for: all of them, or all but
    one"""
    options = {}
    for name, values in (record["customization_options"] or {}).items():
        if values:
            value = rng.choice(values)["value"]
            options[name.lower()] = value.replace("/", " | ").lower()
    if not options:
        return {}
    n = max(1, len(options) - rng.randrange(2))
    return dict(rng.sample(sorted(options.items()), n))


def human(rng, record, attributes, thing):
    """What somebody asks for who wants this product."""
    wanted, options = rng.sample(attributes, rng.randint(1, 2)), chosen(rng, record)
    about = "".join(f" in {value}" if name == "color" else f", {name} {value}"
                    for name, value in sorted(options.items()))
    said = f"{wanted[0]} {thing}" + (f" with {wanted[1]}" if wanted[1:] else "")
    return {
        "asin": record["asin"], "instruction": rng.choice(WANTS).format(said + about) + ".",
        "attributes": attributes,
        "options": [f"{name}: {value}" for name, value in options.items()] or [""],
        "instruction_attributes": wanted, "instruction_options": list(options.values()),
        "assignment_id": "", "worker_id": ""}


def make(products, seed=0):
    """-> what the three files hold"""
    rng = random.Random(f"webshop files {seed}")
    records, attributes, instructions = [], {}, {}
    for number in range(products):
        record, mine, thing = product(rng, number)
        records.append(record)
        attributes[record["asin"]] = {
            "attributes": mine, "instruction": f"Find me {mine[0]}, {mine[2]} {thing}",
            "instruction_attributes": [mine[0], mine[2]]}
        instructions[record["asin"]] = [
            human(rng, record, mine, thing) for _ in range(1 + number % 2)]
    records.insert(products // 2, records[0])  # scraped twice
    records += [{**records[0], "asin": "nan"}, {**records[0], "asin": "B0TOOLONG11"}]
    return records, attributes, instructions


def write(folder, products=300, seed=0, people=True):
    """people: with the human instructions"""
    os.makedirs(folder, exist_ok=True)
    names = ("items_shuffle_1000", "items_ins_v2_1000", "items_human_ins")
    for name, content in zip(names, make(products, seed)):
        if people or name != "items_human_ins":
            path = os.path.join(folder, f"{name}.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
