"""TextWorld through its real package: games are made once a session in a folder of their own, a
level-1 game in about three seconds."""
import copy
import os
import random
import re
import subprocess
import sys

import pytest

pytest.importorskip("textworld", reason="pip install 'textworld>=1.7'")

import envs  # noqa: E402
from conftest import REPO  # noqa: E402
from contract import NASTY, check_batch_agrees_with_single, check_shape, play  # noqa: E402
from contract import check_garbage_earns_nothing, check_splits_are_disjoint  # noqa: E402
from envs import one_line, textworld as adapter  # noqa: E402
from envs.textworld import check  # noqa: E402
from envs.textworld.games import rename, renaming  # noqa: E402
from envs.textworld.text import MAX_WORDS, PREDICATES, parse, readable, shorten, tidy  # noqa: E402

KITCHEN = """

-= Kitchen =-
You are in a kitchen. An ordinary one.

If you haven't noticed it already, there seems to be something there by the wall, it's a fridge.
Empty! What kind of nightmare TextWorld is this? You can see a closed oven. Oh, great. Here's a
table. The table is massive. On the table you can make out a knife and a sliced raw pork chop. You
scan the room for a counter, and you find a counter. The counter is vast. But oh no! there's nothing
on this piece of trash. Look over there! a stove. You see a cookbook and some milk on the stove, so
there's that.

There is an open plain door leading north. You need an exit without a door? You should try going
south. There is a diced grilled red hot pepper on the floor.



>                                                                    -= Kitchen =-0/3"""
IN_THE_KITCHEN = {
    ("at", "player", "kitchen"), ("at", "fridge", "kitchen"), ("open", "fridge"),
    ("at", "oven", "kitchen"), ("closed", "oven"),
    ("at", "table", "kitchen"), ("on", "knife", "table"), ("on", "pork chop", "table"),
    ("sliced", "pork chop"), ("needs_cooking", "pork chop"),
    ("at", "counter", "kitchen"), ("at", "stove", "kitchen"), ("on", "cookbook", "stove"),
    ("on", "milk", "stove"), ("exit", "kitchen", "north"),
    ("door", "kitchen", "north", "plain door"), ("open", "plain door"),
    ("exit", "kitchen", "south"), ("at", "red hot pepper", "kitchen"),
    ("diced", "red hot pepper"), ("grilled", "red hot pepper")}
RECIPE = """
You open the copy of "Cooking: A Modern Approach (3rd Ed.)" and start reading:

Recipe #1
---------
Gather all following ingredients and follow the directions to prepare this tasty meal.

Ingredients:
  carrot
  red potato

Directions:
  chop the carrot
  fry the red potato
  dice the red potato
  prepare meal


>"""


@pytest.fixture(scope="module", autouse=True)
def games(tmp_path_factory):
    """One folder of games for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTWORLD_GAMES", str(tmp_path_factory.mktemp("games")))
        yield os.environ["TEXTWORLD_GAMES"]


@pytest.fixture
def env(games):
    return envs.make("textworld", games=4)


# ---- games ----

def test_the_expert_and_the_senior_win_every_game(env):
    for skill in env.targets:
        for split, n in (("train", 4), ("valid", 1), ("test", 1)):
            for task in range(n):
                env.reset(task, split)
                total, step, turns = play(env, env.demo(random.Random(0), skill))
                assert step.info["success"] and step.info["score"] == 1 and abs(total - 1) < 1e-9
                assert turns <= env.max_turns


def test_the_senior_reads_the_recipe_first_and_the_careless_player_strays(env):
    env.reset(0, "train")
    expert, senior = (env.demo(random.Random(0), skill) for skill in ("expert", "senior"))
    assert senior == ["examine cookbook", *expert]
    assert any(env.demo(random.Random(seed), "careless") != expert for seed in range(6))
    assert env.demo(random.Random(3), "careless") == env.demo(random.Random(3), "careless")


def test_a_plan_is_made_from_where_the_game_stands_and_none_when_it_is_lost(env):
    env.reset(0, "train")
    expert = env.demo(random.Random(0), "expert")
    env.step(expert[0])
    assert env.demo(random.Random(0), "expert") == expert[1:]
    cook = next(command for command in expert if command.startswith("cook"))
    for command in expert[:expert.index(cook) + 1]:
        env.step(command)
    step = env.step(cook)  # twice is burned
    assert step.done and not step.info["success"] and not step.info["truncated"]
    assert env.demo(random.Random(0), "expert") is None


def test_it_keeps_the_contract(env):
    check_shape(env)
    check_splits_are_disjoint(env)
    check_garbage_earns_nothing(env)
    check_batch_agrees_with_single(env, "textworld", {"games": 4})


def test_same_task_same_text_after_play_and_on_a_fresh_object(env):
    texts = {key: env.reset(*key) for key in ((0, "train"), (1, "train"), (0, "valid"))}
    fresh = envs.make("textworld", games=4)
    for key in reversed(texts):
        env.step("open fridge")
        assert env.reset(*key) == fresh.reset(*key) == texts[key]
    assert all(text.startswith("You are hungry!") and "-= Kitchen =-" in text and "$$" not in text
               and "\n" not in text for text in texts.values())


def test_two_hundred_nasty_commands_raise_nothing_and_change_nothing(env):
    nasty = NASTY + ["undo", "restart", "quit", "restore", "save", "tw-trace-actions", "look. undo",
                     "verbose", "take", "take all", "again"]
    nasty += [f"{verb} {text}" for verb in ("take", "go", "open", "eat", "examine")
              for text in NASTY]
    env.reset(0, "train")
    env.max_turns, before = 10**6, env.facts()
    for text in nasty[:200]:
        step = env.step(text)
        assert (step.reward, step.done) == (0, False) and "\n" not in step.observation
        assert len(step.observation) < 500
    assert env.facts() == before
    env.max_turns = env.turn + 20
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]


def test_copies_play_games_of_their_own(env):
    env.reset(0, "train")
    expert = env.demo(random.Random(0), "expert")
    env.step(expert[0])
    other = copy.copy(env)
    assert other.facts() == env.facts() and other.actions() == env.actions()
    for command in expert[1:]:
        step = other.step(command)
    assert step.info["success"] and not env.step("look").info["success"]
    assert env.reset(1, "train") != other.reset(0, "train")


def test_the_engine_says_what_is_true_only_to_those_who_ask(env):
    """It would take twice as long."""
    env = copy.copy(env)
    env.reset(0, "train")
    env.step("inventory")
    assert not env.player.infos
    played = env.observation()
    assert env.facts() and env.player.infos and env.observation() == played
    assert not copy.copy(env).player.infos


def test_a_dead_engine_ends_its_episode_and_the_next_game_runs(env, monkeypatch):
    env.reset(0, "train")

    class Dead:
        def play(self, path, said):
            raise RuntimeError("the interpreter is gone")
    env.player = Dead()
    step = env.step("insert stove into knife")  # nothing that was played before
    assert step.done and step.reward == 0 and step.info["engine_failed"]
    assert not step.info["success"] and not step.info["truncated"]
    env.reset(0, "train")
    assert not env.step("inventory").info["engine_failed"] and env.facts()


def test_a_game_is_made_once(env, games, monkeypatch):
    env.reset(0, "train")
    files = {name: os.path.getmtime(os.path.join(games, name)) for name in os.listdir(games)}
    monkeypatch.setattr("envs.textworld.games.maker", None)  # whoever calls it fails
    assert envs.make("textworld", games=4).reset(0, "train") == env.reset(0, "train")
    assert files == {name: os.path.getmtime(os.path.join(games, name))
                     for name in os.listdir(games)}
    assert all(re.fullmatch(r"(cooking|quest)-[0-9a-f]{16}\.(z8|json)", name)
               for name in files), files


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TEXTWORLD_GAMES", str(tmp_path / "file" / "games"))
    with pytest.raises(OSError, match="made no game") as error:
        envs.make("textworld").reset(0, "train")
    assert "\n" not in str(error.value)


def test_training_games_come_with_their_foods_renamed(env):
    assert env.tasks("train") == 4 * adapter.RENAMED and env.tasks("test") == 1
    plain, seen = env.reset(0, "train"), []
    told, plan = [plain], env.demo(random.Random(0), "senior")
    told += [env.step(command).observation for command in plan[:-1]]
    for task in (4, 8, 12):  # the same game
        names = renaming(task // 4)
        assert sorted(names) == sorted(names.values()) and len(names) == 38
        assert {names[food] for food in names} == set(names)
        text = env.reset(task, "train")
        assert text == rename(plain, names) and rename(text, names, back=True) == plain
        assert env.visible() & env.facts()
        assert {fact[:2] for fact in env.visible() if fact[0] == "needs_cooking"} <= env.facts()
        renamed = env.demo(random.Random(0), "senior")
        assert renamed == [rename(command, names) for command in plan]
        assert set(renamed) <= set(env.commands()) and renamed[0] in env.actions()
        steps = [env.step(command) for command in renamed]
        heard = [step.observation for step in steps[:-1]]
        assert heard == [rename(text, names) for text in told[1:]]
        assert steps[-1].info["success"]
        seen.append(" ".join(renamed))
    assert len({" ".join(plan), *seen}) == 4
    command = "take red potato"
    assert rename(command, renaming(1)) != command == rename(command, renaming(0))


def test_a_quest_is_a_game_too(games):
    env = envs.make("textworld", game="quest", games=1)
    assert "$$" not in env.reset(0, "train")
    total, step, _ = play(env, env.demo(random.Random(0), "expert"))
    assert step.info["success"] and abs(total - 1) < 1e-9 and step.info["family"] == "quest"


def test_what_is_missing_or_impossible_is_one_line():
    code = "import sys; sys.modules['textworld'] = None; import envs; envs.make('textworld')"
    other = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    last = other.stderr.strip().split("\n")[-1]
    assert last == "ValueError: TextWorld is not installed: pip install 'textworld>=1.7'"
    for options in ({"data": "x"}, {"level": 5}, {"game": "chess"}):
        with pytest.raises(ValueError) as error:
            envs.make("textworld", **options)
        assert "\n" not in str(error.value)


# ---- text ----

def test_a_room_by_hand():
    whole = tidy(KITCHEN)
    assert parse(whole) == IN_THE_KITCHEN
    short = shorten(whole)
    assert parse(short) == IN_THE_KITCHEN and shorten(short) == short and len(short) < len(whole)
    assert short.startswith("-= Kitchen =- If you haven't noticed it already")
    assert "vast" not in short and ">" not in short


@pytest.mark.parametrize("text, facts", [
    ("You are carrying: a knife and a chopped fried yellow potato.",
     {("in", "knife", "inventory"), ("in", "yellow potato", "inventory"),
      ("chopped", "yellow potato"), ("fried", "yellow potato")}),
    ("You are carrying nothing.", set()),
    ("You open the fridge, revealing a carrot and a raw red tuna.",
     {("open", "fridge"), ("in", "carrot", "fridge"), ("in", "red tuna", "fridge"),
      ("needs_cooking", "red tuna")}),
    ("You open plain door.", {("open", "plain door")}),
    ("You close the oven.", {("closed", "oven")}),
    ("You take the pork chop from the fridge.", {("in", "pork chop", "inventory")}),
    ("You put the cookbook on the table.", {("on", "cookbook", "table")}),
    ("You put the knife into the fridge.", {("in", "knife", "fridge")}),
    ("You fried the red potato.", {("fried", "red potato")}),
    ("You dice the carrot.", {("diced", "carrot")}),
    ("You eat the carrot. Not bad.", {("consumed", "carrot")}),
    ("Adding the meal to your inventory.", {("in", "meal", "inventory")}),
    ("The fridge looks hefty. It is closed.", {("closed", "fridge")}),
    ("You drop the tomato on the ground.", set()), ("You can't see any such thing.", set()),
    ("", set()), ("-= =-", set())])
def test_answers_by_hand(text, facts):
    assert parse(text) == facts and shorten(text) == text


def test_a_recipe_by_hand():
    text = tidy(RECIPE)
    assert text == ("Ingredients: carrot, red potato. Directions: chop the carrot, fry the red "
                    "potato, dice the red potato, prepare meal.")
    assert parse(text) == {("base", "carrot", "ingredient_0"), ("chopped", "ingredient_0"),
                           ("raw", "ingredient_0"),
                           ("base", "red potato", "ingredient_1"), ("fried", "ingredient_1"),
                           ("diced", "ingredient_1")}


def test_no_text_makes_the_parser_raise():
    rng, words = random.Random(0), sorted(set(re.findall(r"\S+", KITCHEN + RECIPE)))
    for text in NASTY + [lead + " ".join(rng.choices(words, k=30))
                         for lead in ("", "-= Kitchen =- ") for _ in range(200)]:
        for fact in parse(tidy(text)) | parse(shorten(text)):
            assert len(fact) == PREDICATES[fact[0]] + 1


@pytest.mark.parametrize("text, line", [
    ("take knife from table", "take knife from table"), ("  open \n fridge\t", "open fridge"),
    ("go\x00east", "go east"), ("é", ""), ("", ""),
    ("x" * 10_000, "x" * 100)])
def test_any_text_becomes_one_line(text, line):
    assert one_line(text) == line


def test_parsed_facts_are_true_and_what_can_be_read_is_parsed(env):
    """A whole game of the expert's with a look and an inventory in between, held against the
    simulator."""
    for task in range(3):
        env.reset(task, "train")
        env.max_turns = 100
        for command in env.demo(random.Random(0), "expert")[:-1]:
            for view, said in (("", command), ("room", "look"), ("inventory", "inventory")):
                env.step(said)
                assert env.visible() <= env.facts()
                assert not view or readable(env.facts(), view) <= env.visible()
        for predicate, *arguments in env.facts():
            assert len(arguments) == PREDICATES[predicate]
            assert all(len(argument.split()) <= MAX_WORDS for argument in arguments)


def test_what_can_be_done_is_among_the_commands_that_can_be_said(env):
    env.reset(0, "train")
    for command in env.demo(random.Random(0), "expert")[:-1]:
        assert set(env.actions()) <= set(env.commands()) and command in env.actions()
        env.step(command)


def test_check_and_parser_are_commands(env, capsys, monkeypatch):
    check.check([env], 2)
    check.score([env], 60)
    told = capsys.readouterr().out
    assert "wins 2 of 2 games" in told
    precision, recall = map(float,
                            re.search(r"precision ([\d.]+) of \d+ facts; recall ([\d.]+) of \d+",
                                      told).groups())
    assert precision > 0.98 and recall > 0.95
    assert adapter.NOTHING not in told
