"""ScienceWorld through its own package: gold paths win, garbage earns nothing, an engine that dies
loses one episode and nothing else."""
import copy
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

import envs
from conftest import REPO
from contract import NASTY, play
from envs import one_line
from envs.scienceworld import ScienceWorld, engine
from envs.scienceworld.text import parse, squeeze, tree_facts

PACKAGE = importlib.util.find_spec("scienceworld") is not None
JAVA = shutil.which("java") is not None
needs_package = pytest.mark.skipif(not PACKAGE,
                                   reason="needs the package: pip install 'scienceworld>=1.2'")
needs_engine = pytest.mark.skipif(
    not (PACKAGE and JAVA), reason="needs pip install 'scienceworld>=1.2' and Java 11 or newer")

KITCHEN = """This room is called the kitchen. In it, you see: 
\tthe agent
\ta substance called air
\ta wood cup (containing red paint)
\ta counter. On the counter is: a bowl (containing a red apple, a banana), a drawer.
\ta fridge. The fridge door is open. In the fridge is: a glass cup (containing nothing).
\ta oven, which is turned off. The oven door is closed. 
\ta bed. On the bed is: a mattress. On the mattress is: a white pillow..
\ta pea plant in the adult stage with a tall height
\ta thermometer, currently reading a temperature of 10 degrees celsius
You also see:
\tA door to the hallway (that is open)
"""
LINE = ("kitchen: bed (mattress (white pillow)); counter (bowl (red apple, banana), drawer); "
        "fridge open (glass cup); oven off closed; pea plant in the adult stage with a tall "
        "height; thermometer at 10 C; wood cup (red paint); door to hallway open")
FACTS = {("at", "kitchen"), ("open", "fridge"), ("shut", "oven"), ("off", "oven"),
         *(("in", *pair) for pair in (
    ("bed", "kitchen"), ("mattress", "bed"), ("pillow", "mattress"), ("counter", "kitchen"),
    ("bowl", "counter"), ("apple", "bowl"),
    ("banana", "bowl"), ("drawer", "counter"), ("fridge", "kitchen"), ("glass cup", "fridge"),
    ("oven", "kitchen"), ("pea", "kitchen"),
    ("thermometer", "kitchen"), ("wood cup", "kitchen"), ("red paint", "wood cup")))}


@pytest.fixture(scope="module")
def env():
    env = envs.make("scienceworld")
    yield env
    env.engine.world = None


def pid(env):
    return env.engine.world._gateway.java_process.pid


def is_running(number):
    """A zombie is not."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- without Java ----

def test_a_look_around_by_hand():
    assert squeeze(KITCHEN, 1000) == LINE and squeeze(KITCHEN, 20) == LINE[:20]
    assert parse(LINE) == FACTS and parse(f"Your task is to boil water. {LINE}") == FACTS
    lines = KITCHEN.split("\n")
    # The order in which things are told does not matter.
    assert squeeze("\n".join([*lines[:3], lines[4], lines[3], *lines[5:]]), 1000) == LINE


def test_other_texts_by_hand():
    inventory = ("In your inventory, you see:\n\tan orange\n"
                 "\ta glass cup (containing a substance called water)\n")
    assert parse(squeeze(inventory, 99)) == {
        ("hold", "orange"), ("hold", "glass cup"), ("in", "water", "glass cup")}
    assert squeeze("You move to the kitchen.", 99) == "You move to the kitchen"
    assert parse("You move to the kitchen") == frozenset()


def test_facts_of_a_tree_by_hand():
    def node(name, *contents, shut=None, life=None):
        box = None if shut is None else {"isClosable": True, "isOpen": not shut}
        return {"name": name, "propContainer": box, "propDevice": None, "propLife": life,
                "contents": dict(enumerate(contents))}
    tree = node("universe", node("kitchen", node("air"),
                                 node("agent", node("inventory", node("orange"))),
                                 node("fridge", node("cup"), shut=True)),
                node("hallway", node("plant", node("terminal 1"), life={"lifeformType": "pea"})))
    here = {("at", "kitchen"), ("in", "fridge", "kitchen"), ("shut", "fridge")}
    assert tree_facts(tree, here=True) == here
    assert tree_facts(tree) == here | {("in", "cup", "fridge"), ("in", "pea", "hallway"),
                                       ("hold", "orange")}


def test_a_command_is_a_short_line_of_printable_ascii():
    for text in NASTY:
        assert len(one_line(text)) <= 100 and "".join(one_line(text).split(" ")).isascii()
        assert (one_line(text) == "" or one_line(text).isprintable())
        assert isinstance(parse(text), frozenset)
        assert isinstance(parse(f"kitchen: {text}"), frozenset)
    assert one_line(" go \n to\tkitchen\x00 ") == "go to kitchen"


def test_the_return_is_the_last_score_and_below_zero_counts_nothing():
    class Replies(engine.Engine):
        def check(self): pass

        def reply(self, place, attempts=1):
            turn = len(place[2])
            return "o", [0, 8, 25, -100][turn], turn == 3
    env = object.__new__(ScienceWorld)
    env.engine = Replies("")
    env.engines, env.memory, env.max_turns, env.pairs = [env.engine], {}, 9, {"train": [("boil", 1)]}
    assert env.reset(0, "train") == "o"
    steps = [env.step("x") for _ in range(3)]
    assert [round(s.reward, 9) for s in steps] == [0.08, 0.17, -0.25]
    assert [s.done for s in steps] == [False, False, True]
    assert steps[-1].info == {"success": False, "score": -100, "truncated": False, "family": "boil",
                              "engine_failed": False}


def test_a_game_has_an_engine_to_itself_until_it_is_over(monkeypatch):
    monkeypatch.setattr("envs.scienceworld.MOST_ENGINES", 3)
    asked = []

    class Counted(engine.Engine):
        def check(self): pass

        def reply(self, place, attempts=1):
            asked.append(self)
            return "o", 0, False
    monkeypatch.setattr("envs.scienceworld.Engine", Counted)
    first = object.__new__(ScienceWorld)
    first.engine = Counted("")
    first.engines, first.memory = [first.engine], {}
    first.max_turns, first.pairs = 2, {"train": [("boil", 1)]}
    games = [copy.copy(first) for _ in range(4)]
    for game in games:
        game.reset(0, "train")
    assert asked and all(one.game() is None for one in first.engines)  # who waits holds none
    asked.clear()
    for game in games[:3]:
        game.step("x")
    assert len(set(asked)) == 3 == len(first.engines)  # none is shared while there are enough
    own = list(asked)
    games[3].step("x")
    assert asked[3] is own[2]  # the fourth shares that of the game that took one last
    games[0].step("x")  # its second turn: over
    assert asked[4] is own[0]
    games[2].step("x")
    assert asked[5] is own[0]  # it has its own again, that of the game that is over
    del games[1]  # as if it had been forgotten: its engine is nobody's
    games[0].reset(0, "train")
    games[0].step("x")
    assert asked[-1] in own and len(first.engines) == 3


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scienceworld", None)
    with pytest.raises(ValueError, match=r"pip install 'scienceworld>=1.2'") as error:
        envs.make("scienceworld")
    assert "\n" not in str(error.value)


@needs_package
@pytest.mark.parametrize("java", [None, "#!/bin/sh\nexit 1\n"])
def test_java_missing_or_broken_is_one_line(monkeypatch, tmp_path, java):
    if java:
        (tmp_path / "java").write_text(java)
        (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="install Java 11 or newer") as error:
        envs.make("scienceworld")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options, complaint",
                         [({"data": "x"}, "--data"), ({"level": 7}, "levels 1 to 3")])
def test_options_that_do_not_exist_are_one_line(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        envs.make("scienceworld", **options)


# ---- with Java ----

@needs_engine
def test_splits_are_disjoint(env):
    pairs = {split: set(env.pairs[split]) for split in envs.SPLITS}
    assert all(len(pairs[split]) == env.tasks(split) == 18 for split in envs.SPLITS)
    assert len(set.union(*pairs.values())) == 54


@needs_engine
def test_gold_paths_win_and_another_engine_agrees(env):
    other = copy.copy(env)
    other.memory = {}  # it has to play
    other.engine = engine.Engine(env.engine.simplifications)
    other.engines = [other.engine]
    for task, split in ((0, "train"), (7, "valid"), (13, "test")):
        text = env.reset(task, split)
        answers = env.demo(random.Random(0), "expert")
        assert answers == env.demo(random.Random(1), "oracle")
        assert other.reset(task, split) == text  # the same task is the same text
        for game in (env, other):
            total, step, turns = play(game, answers)
            assert total == pytest.approx(1) and step.done and step.info["success"]
            assert turns == len(answers)
    assert pid(env) != pid(other)


@needs_engine
def test_the_gold_path_goes_on_from_where_it_was_followed(env):
    env.reset(0, "train")
    gold = env.demo(random.Random(0), "expert")
    env.step(gold[0])
    assert env.demo(random.Random(0), "expert") == gold[1:]
    env.step("look around" if gold[1] != "look around" else "inventory")
    assert env.demo(random.Random(0), "expert") is None


@needs_engine
def test_a_careless_player_takes_a_detour_and_wins(env):
    env.reset(0, "train")
    gold = env.demo(random.Random(0), "expert")
    answers = next(filter(None, (env.demo(random.Random(i), "careless") for i in range(9))))
    assert len(answers) == len(gold) + 2 and play(env, answers)[0] == pytest.approx(1)


@needs_engine
def test_garbage_raises_nothing_and_earns_nothing(env):
    # Game 3 begins where it asks the player to go, and pays for that at the first command.
    rng, done = random.Random(0), True
    for text in NASTY + [rng.choice(NASTY) for _ in range(200 - len(NASTY))]:
        if done:
            env.reset(3, "train")
        step = env.step(text)
        done = step.done
        assert not step.info["engine_failed"] and not step.info["success"]
        assert step.reward == step.info["score"] == 0, text
    env.reset(3, "train")
    assert env.step("look around").reward > 0


@needs_engine
def test_facts_and_actions_are_those_of_the_moment(env):
    env.reset(13, "train")
    first = parse(env.reset(13, "train"))
    assert first & env.facts(here=True) >= {fact for fact in env.facts() if fact[0] == "at"}
    env.step("go to kitchen"), env.step("teleport to kitchen")
    assert ("at", "kitchen") in env.facts() and ("shut", "fridge") in env.facts()
    assert "open fridge" in env.actions()
    env.step("open fridge")
    assert ("open", "fridge") in env.facts(here=True) and "close fridge" in env.actions()


@needs_engine
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_that_dies_or_hangs_loses_its_episode_and_nothing_else(
        env, blow, monkeypatch, capsys):
    text, other = env.reset(5, "train"), copy.copy(env)
    other.reset(5, "train")
    assert env.step("look around").observation == other.step("look around").observation
    if blow == signal.SIGSTOP:
        monkeypatch.setattr(engine, "PATIENCE", 1)
    os.kill(pid(env), blow)
    step = env.step("look around")
    assert step.done and step.info["engine_failed"] and not step.info["success"]
    assert step.reward == 0
    monkeypatch.undo()
    assert not other.step("look around").info["engine_failed"]
    assert env.reset(5, "train") == text and not env.step("look around").info["engine_failed"]
    assert len(capsys.readouterr().err.splitlines()) == 1


@needs_engine
def test_no_java_is_left_when_its_process_is_killed():
    code = ("import time; from envs.scienceworld.engine import Engine; "
            "engine = Engine(''); engine.start(); "
            "print(engine.world._gateway.java_process.pid, flush=True); time.sleep(600)")
    game = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE,
                            text=True)
    java = int(game.stdout.readline())
    assert is_running(java)
    game.kill()
    game.wait()
    ended = time.time() + 60
    while is_running(java) and time.time() < ended:
        time.sleep(0.1)
    assert not is_running(java)


@needs_engine
@pytest.mark.parametrize("variation", [225, 226, 230])
def test_a_reply_that_is_no_command_earns_nothing(variation):
    """These have .08 for any first reply; the first command gets them."""
    env = envs.make("scienceworld", level=3, tasks="find-non-living-thing")
    task = env.pairs["test"].index(("find-non-living-thing", variation))
    games = [(["", "xyzzy", "\n", "9", "look at"], "look around"), ([], "look around")]
    if variation == 225:  # there are several
        games.append((["pick up wood cup"], "0"))
    for texts, command in games:
        env.reset(task, "test")
        for text in texts:
            step = env.step(text)
            assert (step.reward, step.info["score"], step.done) == (0, 0, False), text
        assert env.step(command).reward == pytest.approx(.08)
        step = env.step("xyzzy")
        assert (step.reward, step.info["score"]) == (0, 8)
