"""WebShop: its pages, search, games and demonstrations, on a generated shop (made.py). Files and
goals: test_webshop_files.py. The reward: test_webshop_reward.py."""
import copy
import json
import random
import subprocess
import sys

import pytest

# Fixtures. They come first: where a package is missing all of this file is skipped.
from shop import env, folder, the_same_nouns_everywhere  # noqa: F401
import envs
from conftest import REPO, errors
from contract import NASTY, check_env, play
from envs.webshop import files
from envs.webshop.__main__ import main
from envs.webshop.engine import Page, Shop, clickables, follow, parse, read, read_short
from envs.webshop.made import TABLE
from envs.webshop.player import words


@pytest.fixture(scope="module")
def shop(folder):
    return Shop(files.read(folder)[0])


def walk(shop, texts, page=Page("search")):
    for text in texts:
        page = follow(shop, page, text)
        assert page is not None, text
    return page


# ---- the environment ----

@pytest.mark.parametrize("level", [1, 2])
def test_it_keeps_the_contract(folder, level):
    check_env("webshop", data=folder, level=level)


def test_a_game_by_hand(env):
    task = next(task for task in range(env.tasks("train")) if env.reset(task, "train")
                and env.goal.options)
    first = env.reset(task, "train")
    assert first == f"WebShop [SEP] Instruction: [SEP] {env.goal.text} [SEP] Search"
    assert env.actions() == ["search[...]"]
    expert = env.demo(random.Random(0), "expert")
    assert expert == env.demo(random.Random(1), "senior") and expert[0].startswith("search[")
    assert expert[-1] == "click[buy now]"
    for text in expert[:-1]:
        step = env.step(text)
        assert not step.done and step.reward == 0
        head = f"Instruction: [SEP] {env.goal.text} [SEP] Back to Search"
        assert step.observation.startswith(head)
    assert "click[buy now]" in env.actions() and "click[< prev]" in env.actions()
    step = env.step("Click[Buy Now]")
    assert step.done and step.reward == step.info["score"] == 1 and step.info["success"]
    assert not step.info["truncated"] and step.observation == ""
    assert step.info["family"] == env.goal.category
    assert {"r_type", "r_att", "r_option", "r_price"} <= step.info.keys()


def test_fifteen_turns_without_a_purchase_end_it_unpaid(env):
    env.reset(0, "train")
    total, step, turns = play(env, ["search[pumps]", "click[back to search]"] * 10)
    assert (total, turns, step.done, step.info["truncated"],
            step.info["success"]) == (0, 15, True, True, False)


def test_fewer_turns_are_an_option_and_no_demonstration_is_longer(folder):
    env = envs.make("webshop", data=folder, turns=3)
    found = [env.reset(task, "train") and env.demo(random.Random(task), skill) for task in range(40)
             for skill in ("expert", "careless")]
    assert env.max_turns == 3 and None in found
    assert {len(texts) for texts in found if texts} <= {2, 3}


def test_the_careless_player_mostly_loses(env):
    won = 0
    for task in range(60):
        env.reset(task, "train")
        texts = env.demo(random.Random(task), "careless")
        assert texts == env.demo(random.Random(task), "careless")
        total, step, _ = play(env, texts)
        assert step.done and not step.info["truncated"]
        won += step.info["success"]
    assert 0 < won < 30


def test_a_demonstration_wins_from_the_middle_of_a_game(env):
    env.reset(1, "train")
    texts = env.demo(random.Random(0), "expert")
    play(env, [*texts[:2], "click[description]"])
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]


def test_the_expert_asks_in_words_of_the_instruction(env):
    for task in range(60):
        env.reset(task, "train")
        query = words(parse(env.demo(random.Random(0), "expert")[0])[1])
        assert set(query) <= set(words(env.goal.text)) and 0 < len(query) <= 8


def test_copies_play_games_of_their_own(env):
    env.reset(0, "train")
    other = copy.copy(env)
    env.step("search[pumps]")
    assert other.page == Page("search") and other.shop is env.shop and other.plans is env.plans
    other.reset(1, "train")
    assert env.goal != other.goal and env.page.kind == "results"


def garbage(rng):
    """Random commands: nasty texts as they are, in brackets, cut and glued."""
    verbs = ["search[", "click[", "Search [", "click", "[", "search[[", "buy now", "click[buy now"]
    ends = ["]", "", "]]", "] or 1=1; --", "]\n", ") {"]
    html = ["<b onclick=alert(1)>", "'; DROP TABLE products; --", "$(rm -rf /)", "`id`", "{{7*7}}",
            "[[[[", "]]]]", "click[click[", "\ud800"]
    while True:
        text = rng.choice(NASTY + html)
        yield rng.choice([text, rng.choice(verbs) + text + rng.choice(ends),
                          text[:rng.randrange(1 + len(text))] + rng.choice(html)])


def test_ten_thousand_random_commands_raise_nothing_and_nonsense_changes_nothing(env):
    env.reset(0, "train")
    texts, pages = garbage(random.Random(0)), [Page("search")]
    pages += [walk(env.shop, ["search[pumps]", *more]) for more in ([], ["click[next >]"])]
    first = env.shop.search("pumps")[0].lower()
    pages += [walk(env.shop, ["search[pumps]", f"click[{first}]", *more])
              for more in ([], ["click[features]"])]
    searches = 0
    for i in range(10_000):
        env.page, env.turn = pages[i % len(pages)], 0
        text = next(texts)
        step = env.step(text)
        assert (step.reward, step.done) == (0, False)
        if parse(text)[0] == "search":
            searches += 1
            assert env.page.kind == "results" and len(env.page.query) <= 1000
        else:
            assert env.page is pages[i % len(pages)], text
    assert 0 < searches < 5000
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]


# ---- the shop ----

@pytest.mark.parametrize("text, found", [
    ("search[red shoes]", ("search", "red shoes")), ("Click[Buy Now]", ("click", "buy now")),
    ("click[< Prev] please", ("click", "< prev")),
    ("search[a] then", ("search", "a")), ("search[ ]", ("search", " ")), ("search[]", ("", "")),
    ("search[a [b]]", ("", "")),
    ("search[[a]", ("", "")), ("search [a]", ("", "")), (" search[a]", ("", "")),
    ("buy[a]", ("", "")), ("search[a", ("", "")),
    ("]search[", ("", "")), ("", ("", "")),
    ("search[a\nb]", ("", "")), ("click[x]\nclick[y]", ("click", "x")), ("[a]", ("", "")),
    ("]", ("", ""))])
def test_what_is_an_action(text, found):
    assert parse(text) == found


def test_pages_read_as_published():
    """The order and the words of the pages that papers on WebShop print."""
    shop = Shop([files.product(TABLE, {})])
    search = read(shop, Page("search"), "a table")
    assert search == "WebShop [SEP] Instruction: [SEP] a table [SEP] Search"
    top = "Instruction: [SEP] a table [SEP] Back to Search [SEP] "
    price, title = "$1250.0 to $1300.5", "Walnut Sofa Table"
    results = read(shop, walk(shop, ["search[sofa]"]), "a table")
    assert results == (f"{top}Page 1 (Total results: 1) [SEP] Next > [SEP] B000000001 [SEP] "
                       f"{title} [SEP] {price}")
    item = walk(shop, ["search[sofa]", "click[b000000001]"])
    shown = (f'{top}< Prev [SEP] color [SEP] black | white [SEP] oak [SEP] size [SEP] 60" [SEP] '
             f"{title} [SEP] Price: {price} [SEP] Rating: N.A. [SEP] Description [SEP] "
             "Features [SEP] Reviews [SEP] Buy Now")
    assert read(shop, item, "a table") == shown
    for sub, text in (("features", "Sturdy legs [SEP] Easy clean"),
                      ("description", "No Description"), ("reviews", "No reviews found")):
        page = walk(shop, [f"click[{sub}]"], item)
        assert read(shop, page, "a table") == f"{top}< Prev [SEP] {text}"
    chosen = walk(shop, ["click[oak]"], item)
    assert chosen.options == {"color": "oak"} and read(shop, chosen, "a table") == shown
    assert clickables(shop, item) == ["back to search", "< prev", "description", "features",
                                      "reviews", "buy now", "black | white", "oak", '60"']


def test_a_value_that_two_options_have_is_the_last_one_s():
    options = {name: [{"value": "One Size"}] for name in ("Band", "Cup")}
    shop = Shop([files.product({**TABLE, "customization_options": options}, {})])
    page = walk(shop, ["search[sofa]", "click[b000000001]", "click[one size]"])
    assert page.options == {"cup": "one size"}


def test_pages_in_few_words():
    name = "One two three four five six seven eight nine ten"
    shop = Shop([files.product({**TABLE, "name": name}, {})])
    item = walk(shop, ["search[seven]", "click[b000000001]"])
    assert read_short(shop, Page("search"), "a table") == "a table"
    results = read_short(shop, item._replace(kind="results"), "a table")
    title = "one two three four five six seven eight; $1250.0 to $1300.5"
    assert results == f"page 1; b000000001; {title}"
    shown = read_short(shop, item, "a table")
    assert shown == f'color; black | white; oak; size; 60"; {title}'
    assert read_short(shop, walk(shop, ["click[oak]"], item), "a table") == 'color; oak; size; 60"'
    features = walk(shop, ["click[features]"], item)
    assert read_short(shop, features, "a table") == "sturdy legs; easy clean"


def test_the_way_through_the_pages(shop):
    results = walk(shop, ["search[pumps t-shirt yoga rug curtains shampoo]"])
    assert len(shop.search(results.query)) == 50
    assert [len(clickables(shop, results._replace(number=n)))
            for n in (1, 2, 5, 6)] == [12, 13, 13, 3]
    assert follow(shop, results, "click[< prev]") is None
    second = walk(shop, ["click[next >]"], results)
    assert not set(clickables(shop, results)[2:]) & set(clickables(shop, second)[3:])
    assert walk(shop, ["click[< prev]"], second) == results
    assert walk(shop, ["click[back to search]"], second) == Page("search")
    asin = next(a for a in shop.search(results.query)[10:20] if shop.products[a].options)
    item = walk(shop, [f"click[{asin}]"], second)
    name, (value, *_, other) = next(iter(shop.products[asin].options.items()))
    chosen = walk(shop, [f"click[{value}]", f"click[{other}]"], item)
    assert chosen.options == {name: other} and item.options == {}, "the last one said counts"
    assert walk(shop, ["click[reviews]", "click[< prev]"],
                chosen) == chosen, "a sub-page forgets nothing"
    assert walk(shop, ["click[< prev]"], chosen) == second
    assert walk(shop, ["search[rug]"], chosen) == Page("results", "rug", 1)
    assert walk(shop, ["click[buy now]"], chosen).kind == "bought"
    assert follow(shop, results, f"click[{asin}]") is None
    assert follow(shop, Page("search"), "click[search]") is None


def test_search_ranks_by_words_in_title_description_first_feature_and_options(shop):
    for product in list(shop.products.values())[:40]:
        assert shop.search(product.name)[0] == product.asin
    product = files.product(TABLE, {})
    assert [asin for query in ("walnuts", "STURDY", "oak colour", "clean", "fabric", "zzz", "",
                               "the of", "\ud800")
            for asin in Shop([product]).search(query)] == ["B000000001"] * 3
    same = Shop([product._replace(asin=f"B{i}") for i in range(60)])
    assert same.search("walnut") == [f"B{i}" for i in range(50)]


# ---- the command line ----

@pytest.mark.parametrize("method", ["atod", "grpo"])
def test_it_trains(command, folder, method):
    code, out, err = command("--method", method, "--env", "webshop", "--data", folder,
                             *"--level 1 --turns 4 --max-new 8 --steps 1".split())
    assert (code, errors(err)) == (0, [])
    assert "success" in out


ODD = [
    "red [matte]", "[red", "red]", "][", "a] b [c", "click[red]", "x\ny", "x\r\ny", "cafe\u0301",
    "\u0130stanbul", "\u2028z", "STRASSE \u00df", "\u039f\u0394\u039f\u03a3", "7/8", "search[7]",
    "\ud83d"]


@pytest.mark.parametrize("value", ODD)
def test_every_option_that_is_listed_can_be_clicked(value, folder, tmp_path):
    table = {**TABLE, "customization_options": {"Color": [{"value": value}, {"value": " "}],
                                                "Size": [{"value": "7"}]}}
    about = {"attributes": ["wood"], "instruction": "Find", "instruction_attributes": ["wood"]}
    (tmp_path / "items_shuffle_1.json").write_text(json.dumps([table]))
    (tmp_path / "items_ins_v2_1.json").write_text(json.dumps({table["asin"]: about}))
    (product,), goals = files.read(str(tmp_path))
    page, shop = Page("item", "x", 1, table["asin"]), Shop([product])
    (shown,) = product.options["color"]
    for said in (shown, shown.upper(), value.split("\n")[0] if "\n" not in value else shown):
        if "/" not in said and len(said.lower()) == len(shown):
            assert follow(shop, page, f"click[{said}]").options == {"color": shown}
    listed = clickables(shop, page)
    assert shown in listed and "" not in listed and "\n" not in shown
    assert all(follow(shop, page, f"click[{what}]") for what in listed)
    assert shown in read(shop, page, "")
    assert dict(goals[0].options) == {"color": shown, "size": "7"}


def test_stop_words_and_names_without_spaces_are_found():
    names = ["It", "The The", "東京都庁舎の模型", "山田太郎作品集", "ภาษาไทยสวัสดี", "Walnut table"]
    shop = Shop([files.product({**TABLE, "name": name, "asin": f"B{i}"})
                 for i, name in enumerate(names)])
    for query, first in (("東京", "B2"), ("山田太郎", "B3"), ("太郎", "B3"), ("สวัสดี", "B4"),
                         ("it", "B0"), ("the", "B1"), ("walnut", "B5")):
        assert shop.search(query)[0] == first or query == "walnut"
        assert follow(shop, Page("search"), f"search[{query}]").query == query
    assert shop.search("?!") == [] and shop.search("") == []


def test_it_is_played_by_hand(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["webshop", "--data", folder, "--level", "1"])
    lines = iter(["search[pumps]", "?", "nonsense", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    main()
    told = capsys.readouterr().out.split("\n")
    assert told[1].startswith("page 1; b0")
    assert told[2].startswith("click[back to search], click[next >], click[b0")
    assert told[3] == told[1]


def test_the_generator_is_a_command_and_writes_the_same_twice(tmp_path):
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-m", "envs.webshop", "--make", str(tmp_path / name),
                        "--products", "20"], cwd=REPO, check=True)
    found = {name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
             for name in ("one", "two")}
    assert found["one"] == found["two"]
    assert sorted(found["one"]) == ["items_human_ins.json", "items_ins_v2_1000.json",
                                    "items_shuffle_1000.json"]
