"""WebShop's files and goals: generated ones in the official format (made.py), and real ones where
WEBSHOP_DATA names a folder of them: whole files, or samples of them beside human_goals.json and
expel_webshop.fixed100.json."""
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Fixtures. They come first: where a package is missing all of this file is skipped.
from shop import env, folder, the_same_nouns_everywhere  # noqa: F401
import envs
from conftest import REPO
from contract import play
from envs.webshop import files, made
from envs.webshop.files import Goal, read_price
from envs.webshop.engine import Page, Shop, read
from envs.webshop.made import TABLE
from envs.webshop.player import ABOUT_PRICE, query_of, words
from envs.webshop.reward import reward


# ---- files and goals ----

def test_products_are_read_as_scraped(folder):
    products, _ = files.read(folder)
    records, attributes, _ = made.make(150)
    assert [p.asin for p in products] == list(dict.fromkeys(r["asin"] for r in records[:-2]))
    assert len(products) == 150
    by_asin = {p.asin: p for p in products}
    for record in records[:-2]:
        found = by_asin[record["asin"]]
        assert found.attributes == attributes[found.asin]["attributes"]
        assert found.query == record["query"].lower()
        assert isinstance(found.bullets, list) and "pattern" not in found.options
        assert all(value == value.lower() for values in found.options.values() for value in values)
    assert files.product(TABLE, {}).attributes == ["DUMMY_ATTR"]
    assert 1250 <= files.product(TABLE, {}).price <= 1300.5


@pytest.mark.parametrize("text, prices, tag", [
    ("$34.00", [34.0], "$34.0"), ("$877.80", [877.8], "$877.8"), ("$1,112.00", [1112.0], "$1112.0"),
    ("", [100.0], "$100.0"),
    (None, [100.0], "$100.0"), ("$9.50 - $12.99", [9.5, 12.99], "$9.5 to $12.99"),
    ("$1.00 $2.00 $3.00", [1.0, 2.0], "$1.0 to $2.0"),
    ("free", [100.0], "$100.0"),
    # without a $, with a remark, half a range, no number, a sentence's full stop
    ("12.99", [12.99], "$12.99"), ("1,112", [1112.0], "$1112.0"), ("12.99 USD", [12.99], "$12.99"),
    ("€12.99", [12.99], "$12.99"), ("9.99 - 12.99", [9.99, 12.99], "$9.99 to $12.99"),
    ("$12.99 (Save 10%)", [12.99], "$12.99"), ("$12.99 (12 Count)", [12.99], "$12.99"),
    ("$12.99 ($0.81 / Ounce)", [12.99], "$12.99"), ("$12.99 -10%", [12.99], "$12.99"),
    ("Save 10% $12.99", [12.99], "$12.99"), ("$12.99 2-pack", [12.99], "$12.99"),
    ("$9.99 - 12.99", [9.99, 12.99], "$9.99 to $12.99"), ("$9.99–$12.99", [9.99, 12.99],
                                                          "$9.99 to $12.99"),
    ("$9.99 to $12.99", [9.99, 12.99], "$9.99 to $12.99"), ("$ 12.99", [12.99], "$12.99"),
    ("$9.99 to 12.99", [9.99, 12.99], "$9.99 to $12.99"), ("$.99", [0.99], "$0.99"),
    ("$", [100.0], "$100.0"), ("$ -", [100.0], "$100.0"), ("-", [100.0], "$100.0"),
    ("$12.99.", [12.99], "$12.99"), ("$12.", [12.0], "$12.0"), ("$1,112.00,", [1112.0], "$1112.0"),
    ("  ", [100.0], "$100.0"), ("$12.99\n", [12.99], "$12.99"), ("N/A", [100.0], "$100.0")])
def test_prices(text, prices, tag):
    assert read_price(text) == (prices, tag)


@pytest.mark.parametrize("text", ["$12,99", "$1.2.3", "$1,2", "$..1", "$" + "9" * 400, "1.2.3"])
def test_digits_that_are_no_price_are_refused(text):
    with pytest.raises(ValueError, match="is no price"):
        read_price(text)


@pytest.mark.parametrize("price, ceilings",
                         [("$45.00", {60, 70, 80}), ("$50.00", {70, 80, 90}),
                          ("$3.99", {20, 30, 40}), ("$965.00", {980, 990}),
                                             ("$970.00", {990}), ("$985.00", {10**6}),
                                             ("$2,000.00", {10**6})])
def test_a_ceiling_is_the_higher_of_two_of_the_next_four_tens(price, ceilings):
    product = files.product({**TABLE, "pricing": price}, {})
    found = [files.ceiling(product, number) for number in range(60)]
    assert {highest for highest, _ in found} == ceilings
    assert found == [files.ceiling(product, number) for number in range(60)]
    assert {text for _, text in found} == {f", and price lower than {c:.2f} dollars"
                                           if c < 10**6 else "" for c in ceilings}


def test_human_goals_say_what_people_said(folder):
    products, goals = files.read(folder)
    _, _, instructions = made.make(150)
    assert len(goals) == sum(map(len, instructions.values()))
    for goal in goals[:50]:
        said = [i for i in instructions[goal.asin]
                if ABOUT_PRICE.sub("", goal.text) + "." == i["instruction"]]
        assert goal.attributes in [i["instruction_attributes"] for i in said]
        assert goal.options in [i["instruction_options"] for i in said]
    entry = {"instruction": ".a. b..", "instruction_attributes": [], "instruction_options": []}
    product = files.product(TABLE, {})
    assert files.human_goals({"B000000001": product}, "",
                             {"B000000001": [entry], "other": [{}]}) == []
    entry = {**entry, "instruction_attributes": ["easy clean"]}
    (goal,) = files.human_goals({"B000000001": product}, "", {"B000000001": [entry]})
    assert goal == Goal("B000000001", TABLE["name"], "console tables", "garden", "Home › Tables",
                        "a. b", ["easy clean"], [], 10**6)


def test_synthetic_goals_ask_for_every_combination(folder, tmp_path):
    about = {"attributes": ["easy clean"], "instruction": "Find me a table",
             "instruction_attributes": ["easy clean"]}
    product = files.product({**TABLE, "pricing": "$970.00"}, about)
    goals = files.synthetic_goals({"B000000001": product})
    assert [goal.text for goal in goals] == [
        f'Find me a table with color: {color}, and size: 60", and price lower than 990.00 dollars'
        for color in ("black | white", "oak")]
    assert goals[1].options == [("color", "oak"), ("size", '60"')]
    product = files.product(TABLE, {**about, "instruction_attributes": []})
    assert files.synthetic_goals({"": product}) == []
    made.write(tmp_path, 12, people=False)
    env = envs.make("webshop", data=str(tmp_path))
    assert env.reset(0, "train").split(" [SEP] ")[2].startswith("Find me ")
    assert play(env, env.demo(random.Random(0), "expert"))[0] == 1
    assert envs.make("webshop", data=folder,
                     goals="synthetic").reset(0, "train").split(" [SEP] ")[2].startswith("Find me ")


def test_the_name_of_a_folder_does_not_change_the_goals(tmp_path):
    made.write(tmp_path / "shop[1]", 30)
    made.write(tmp_path / "plain", 30)
    assert files.read(str(tmp_path / "shop[1]")) == files.read(str(tmp_path / "plain"))


def test_too_few_human_goals_for_three_splits_give_way_to_synthetic_ones(tmp_path, capsys):
    made.write(tmp_path, 40)
    path = tmp_path / "items_human_ins.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(dict(list(said.items())[:1])))
    env = envs.make("webshop", data=str(tmp_path))
    assert env.reset(0, "train").split(" [SEP] ")[2].startswith("Find me ")
    assert "1 human instructions are too few" in capsys.readouterr().err
    with pytest.raises(ValueError, match="too few goals"):
        envs.make("webshop", data=str(tmp_path), goals="human")


def test_the_official_splits_where_there_are_goals_enough(tmp_path):
    made.write(tmp_path, 1100)
    env, goals = envs.make("webshop", data=str(tmp_path)), files.read(str(tmp_path))[1]
    assert [env.tasks(split) for split in ("test", "valid",
                                           "train")] == [500, 1000, len(goals) - 1500]
    assert len(goals) == 1650
    random.seed(233)  # as the original does
    random.shuffle(goals)
    assert env.goals["test"] + env.goals["valid"] + env.goals["train"] == goals


def test_fewer_goals_are_split_by_their_text(env):
    assert sum(env.tasks(split) for split in envs.SPLITS) == 225
    assert all(envs.split_of(goal.text) == split for split in envs.SPLITS
               for goal in env.goals[split])


# ---- what is missing or broken ----

def complaint(**options):
    with pytest.raises(ValueError) as error:
        envs.make("webshop", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_files_say_what_to_download_and_where_to_put_it(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    for found in (complaint(), complaint(data=str(tmp_path / "none")),
                  complaint(data=str(tmp_path))):
        assert "github.com/princeton-nlp/WebShop, setup.sh" in found
        assert "items_shuffle_1000.json" in found and "--data FOLDER" in found
    shutil.copytree(folder, tmp_path / "half")
    os.remove(tmp_path / "half/items_ins_v2_1000.json")
    assert "no items_ins_v2*.json in" in complaint(data=str(tmp_path / "half"))
    monkeypatch.setenv("WEBSHOP_DATA", folder)
    assert envs.make("webshop").tasks("train") > 0
    assert "levels" in complaint(level=3) and "synthetic" in complaint(goals="all")


@pytest.mark.parametrize("package", ["rapidfuzz", "tantivy"])
def test_a_missing_package_is_one_line(package, folder):
    code = (f"import sys; sys.modules[{package!r}] = None; "
            f"import envs; envs.make('webshop', data={folder!r})")
    other = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    last = other.stderr.strip().split("\n")[-1]
    assert last == (f"ValueError: webshop needs {package}: "
                    "pip install 'rapidfuzz>=3' 'tantivy>=0.27'")


PRODUCTS = "items_shuffle_1000"


@pytest.mark.parametrize("name, content, told", [
    (PRODUCTS, "{", "items_shuffle_1000.json: "), (PRODUCTS, "{}", "no list of products"),
    (PRODUCTS, "[7]", "product 1: "),
    (PRODUCTS, "\x00", "items_shuffle_1000.json: "),
    (PRODUCTS, json.dumps([{**TABLE, "pricing": "$..1"}]), "product 1: "),
    (PRODUCTS, '[{"asin": "B1"}]', "product 1: no field 'name'"),
    (PRODUCTS, json.dumps([{**TABLE, "name": 7}]), "product 1: "),
    (PRODUCTS, json.dumps([{**TABLE, "customization_options": {"Color": ["red"]}}]), "product 1: "),
    (PRODUCTS, json.dumps([{**TABLE, "small_description": 7}]), "no instruction"),
    (PRODUCTS, json.dumps([TABLE]), "1 products, and no instruction"),
    ("items_ins_v2_1000", "[]", "no object"), ("items_human_ins", "null", "no object"),
    ("items_shuffle_2000", "[]", "leave one of them there")])
def test_a_broken_file_is_named(folder, tmp_path, name, content, told):
    shutil.copytree(folder, tmp_path / "shop")
    (tmp_path / f"shop/{name}.json").write_text(content)
    assert told in complaint(data=str(tmp_path / "shop"))


def test_an_instruction_without_options_names_its_product(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "shop")
    asin = made.make(150)[0][0]["asin"]
    path = tmp_path / "shop/items_human_ins.json"
    path.write_text(json.dumps({asin: [{"instruction": "a", "instruction_attributes": ["b"]}]}))
    told = f"items_human_ins.json, {asin}: no field 'instruction_options'"
    assert told in complaint(data=str(tmp_path / "shop"))


# ---- real files ----

@pytest.fixture
def real():
    """The folder of real files, or of samples of them."""
    path = Path(os.environ.get("WEBSHOP_DATA") or "none")
    if not list(path.glob(files.PRODUCTS)):
        pytest.skip("no real WebShop files: set WEBSHOP_DATA to a folder that holds "
                    "items_shuffle*.json")
    return path


def test_real_products_are_read_shown_found_and_bought(real):
    _, records = files.load(str(real), files.PRODUCTS, list)
    _, about = files.load(str(real), files.ATTRIBUTES, dict)
    shop = Shop([files.product(record, about.get(record["asin"], {}))
                 for record in records[:2000] if len(record["asin"]) <= 10])
    assert all(set(about[asin]) >= {"attributes", "instruction", "instruction_attributes"}
               for asin in list(about)[:2000])
    for product in list(shop.products.values())[:100]:
        assert product.asin in shop.search(product.name)
        item = Page("item", "x", 1, product.asin)
        assert product.name.strip() in read(shop, item, "")
        assert f"Price: {product.tag}" in read(shop, item, "")
        asked = Goal(product.asin, product.name, product.query, product.category,
                     product.product_category, "", product.attributes, [], 10**6)
        assert reward(product, asked, {})[0] == 1


def test_real_instructions_are_read(real):
    _, instructions = files.load(str(real), files.INSTRUCTIONS, dict)
    for asin, entries in list(instructions.items())[:5000]:
        product = files.product({**TABLE, "asin": asin}, {})
        goals = files.human_goals({asin: product}, "", {asin: entries})
        assert len(goals) == sum(bool(entry["instruction_attributes"]) for entry in entries)
        assert all(isinstance(option, str) for goal in goals for option in goal.options)


def test_real_goals_are_read(real):
    """12,087 instructions as the released code words them, and 100 goals of ExpeL's with the
    product's title."""
    for name, source in (("human_goals.json", "WebShop, baseline_models/data"),
                         ("expel_webshop.fixed100.json", "ExpeL, data/webshop")):
        if not (real / name).exists():
            pytest.skip(f"{name} ({source}) is not there")
    said = json.loads((real / "human_goals.json").read_text())
    assert len(said) == 12_087 and not any(ABOUT_PRICE.search(text) for text in said)
    shares = [sum(envs.split_of(text) == split for text in said) / len(said)
              for split in envs.SPLITS]
    assert all(abs(share - wanted) < 0.02 for share, wanted in zip(shares, (0.8, 0.1, 0.1)))
    priced = 0
    for goal in json.loads((real / "expel_webshop.fixed100.json").read_text()):
        text, key = goal["task"].removesuffix(" \n[Search]\n"), goal["key"]
        asked = Goal(key["asin"], key["name"], key["query"], "", "", text, ["x"],
                     key["goal_options"], 0)
        priced += ABOUT_PRICE.search(text) is not None
        query = query_of(asked)
        assert query and "price" not in query.split() and "\n" not in query
        assert not set(query.split()) - set(words(f"{text} {key['query']}"))
    assert priced > 90
