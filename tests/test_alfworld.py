"""ALFWorld through TextWorld's PDDL engine: small rooms of our own in the official format, and real games where ALFWORLD_DATA says where they are."""
import copy
import json
import os
import random
import re
import subprocess
import sys

import pytest

pytest.importorskip("textworld", reason="pip install textworld; pip install --no-deps alfworld fast-downward-textworld")
pytest.importorskip("fast_downward", reason="pip install --no-deps fast-downward-textworld: the planner, it compiles")

import alfworld_rooms  # noqa: E402
import envs  # noqa: E402
from conftest import REPO  # noqa: E402
from env_contract import NASTY, check_batch_agrees_with_single, check_demonstrations_win, check_shape, play  # noqa: E402
from envs import alfworld as adapter, alfworld_check, alfworld_files as files  # noqa: E402
from envs.alfworld_games import Game, compute, demangle, read_problem  # noqa: E402

if not alfworld_rooms.installed():
    pytest.skip("pip install --no-deps alfworld: the official domain and grammar of the games made here", allow_module_level=True)

REAL = os.environ.get("ALFWORLD_DATA")
real = pytest.mark.skipif(not REAL, reason="set ALFWORLD_DATA to the folder with json_2.1.1 of alfworld-download")


@pytest.fixture(scope="module", autouse=True)
def rooms(tmp_path_factory):
    """-> a folder with twelve games in the current format, walkthroughs by the planner; whatever is translated here is kept beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALFWORLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ALFWORLD_DATA", raising=False)
        folder = tmp_path_factory.mktemp("rooms")
        yield alfworld_rooms.write_games(folder, plan=lambda path: Game(path).plan(()), train=6, valid_seen=5, valid_unseen=2)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The same in the original format: other verbs, no walkthrough."""
    return alfworld_rooms.write_games(tmp_path_factory.mktemp("old"), old=True, train=6, valid_seen=1, valid_unseen=1)


@pytest.fixture
def env(rooms):
    return envs.make("alfworld", data=rooms)


def solve(env, task, split, skill="expert"):
    env.reset(task, split)
    return play(env, env.demo(random.Random(0), skill))[1]


# ---- games ----

def test_the_expert_wins_every_family_in_both_formats(rooms, old):
    for data, verb in ((rooms, "move"), (old, "put")):
        env = envs.make("alfworld", data=data)
        assert {env.data["train"][task].family for task in range(6)} == set(files.FAMILIES.values())
        for task in range(6):
            step = solve(env, task, "train")
            assert step.done and step.reward == 1 and step.info == {
                "success": True, "score": 1.0, "truncated": False, "family": env.data["train"][task].family, "engine_failed": False}
            assert {command.split()[0] for command in env.said} & {"move", "put"} <= {verb}


def test_it_keeps_the_contract(rooms):
    env = envs.make("alfworld", data=rooms)
    check_shape(env)
    check_demonstrations_win(env)
    env.max_turns = 12
    check_batch_agrees_with_single(env, "alfworld", {"data": rooms, "turns": 12})


def test_same_task_same_text_in_another_process_with_other_hashes(env, rooms):
    env.reset(1, "train")
    said = env.demo(random.Random(0), "expert")
    texts = [env.reset(1, "train"), *(env.step(command).observation for command in said)]
    code = (f"import envs; env = envs.make('alfworld', data={rooms!r}); "
            f"print(ascii([env.reset(1, 'train'), *(env.step(c).observation for c in {said!r})]))")
    other = subprocess.run([sys.executable, "-c", code], cwd=REPO, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True)
    assert other.stdout.strip() == ascii(texts), other.stderr


def test_two_hundred_nasty_commands_raise_nothing_and_change_nothing(env):
    env.reset(0, "train")
    nasty = [*NASTY, "<script>alert(1)</script>", "$(rm -rf /)", "; ls", "{o.name}", "#look.feedback#", "look\nlook", "go to", "take apple 9"]
    nasty += [f"{verb} {text}" for verb in ("go to", "take", "open", "heat") for text in NASTY if text.strip(" \t\r\n\x00")]
    env.max_turns, before = 10**6, (env.actions(), env.game().facts(env.said))
    for text in nasty[:200]:
        step = env.step(text)
        assert (step.observation, step.reward, step.done) == (adapter.NOTHING, 0, False) and not step.info["engine_failed"], text[:50]
    assert len(nasty) >= 200 and (env.actions(), env.game().facts(env.said)) == before and env.said == ()
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]


def test_any_way_through_a_game_agrees_with_the_package(env, old, tmp_path):
    """Text, what can be done and whether it is won, against TextWorld and ALFWorld's own code, at each of 12 random commands."""
    paths = [env.data["train"][1].path, env.data["train"][3].path, envs.make("alfworld", data=old).data["train"][2].path]
    check_against_package(paths, 12, tmp_path)


PACKAGE = """import json, random, sys
import textworld, textworld.envs.pddl
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
told, (paths, turns) = [], json.loads(sys.argv[1])
for path in paths:
    env = textworld.start(path, textworld.EnvInfos(won=True, admissible_commands=True), wrappers=[AlfredDemangler(shuffle=False)])
    state, rng, said = env.reset(), random.Random(0), None
    for _ in range(turns):
        told.append((said, state.feedback, state.admissible_commands, state.won))
        changing = [c for c in state.admissible_commands if c.split()[0] in ("take", "open", "heat", "cool", "clean", "use", "move", "put")]
        said = rng.choice(changing if changing and rng.random() < 0.6 else state.admissible_commands)
        state = env.step(said)[0]
print(json.dumps(told))"""


def check_against_package(paths, turns, folder):
    """The package in a process of its own, as it is: what is remembered here is patched into it."""
    theirs = subprocess.run([sys.executable, "-c", PACKAGE, json.dumps([paths, turns])], capture_output=True, text=True,
                            env={**os.environ, "ALFWORLD_DATA": str(folder)})
    told = json.loads(theirs.stdout or theirs.stderr)
    games = iter(paths)
    for said, text, commands, won in told:
        game, so_far = (Game(next(games)), ()) if said is None else (game, (*so_far, said))
        text = " ".join((text if said else re.sub("-=.*?=-", "", text)).split())
        assert game.after(so_far) == (text, won, commands), so_far
    assert len(told) == len(paths) * turns


def test_what_is_done_elsewhere_in_the_same_engine_leaves_an_episode_alone(env):
    """Two episodes of a game share an engine: their commands in turn, and one of them alone, come to the same."""
    env.reset(0, "train")
    plan, other = env.demo(random.Random(0), "expert"), copy.copy(env)
    heard = []
    for command in plan[:-1]:
        heard.append(env.step(command).observation)
        other.step("look")
        assert other.actions() != env.actions() or other.said
    assert env.step(plan[-1]).info["success"] and not other.won and other.games is env.games
    env.memo.clear()
    env.reset(0, "train")
    assert heard == [env.step(command).observation for command in plan[:-1]]


def test_a_plan_is_made_from_where_the_game_stands(env):
    env.reset(0, "train")
    plan = env.demo(random.Random(0), "oracle")
    for command in ("look", "inventory", plan[0], "no such thing", "look"):
        env.step(command)
    assert env.demo(random.Random(0), "oracle") == plan[1:]   # nothing done that the walkthrough would mind
    env.step(next(c for c in env.actions() if c.startswith("go to ") and c not in plan))
    step = play(env, env.demo(random.Random(0), "oracle"))[1]  # the planner's
    assert step.info["success"] and env.demo(random.Random(0), "oracle") is None


def test_the_expert_looks_for_what_he_is_to_take_and_the_oracle_knows(env):
    ways = set()
    for task in range(6):
        env.reset(task, "train")
        plan = env.demo(random.Random(0), "oracle")
        thing, _, place = next(command for command in plan if command.startswith("take ")).partition(" from ")
        for dice in range(12):
            found = env.demo(random.Random(dice), "expert")
            at = found.index(plan[0])
            looked, rest = found[:at], found[at:]
            assert rest[:3] == plan[:3] and f"go to {place}" not in looked
            assert all(command.startswith("go to ") or command == looked[i - 1].replace("go to", "open") for i, command in enumerate(looked))
            shut = [command.split()[2] in adapter.CLOSED for command in looked if command.startswith("go to ")]
            assert shut == sorted(shut) and not (any(shut) and place.split()[0] not in adapter.CLOSED)  # open places first, and closed ones only in need
            other = copy.copy(env)
            assert adapter.NOTHING not in [other.step(command).observation for command in found] and other.won
            ways.add((task, *looked))
    assert len(ways) > 20


def test_the_expert_wins_from_the_middle_of_a_game_too(env, old):
    for env in (env, envs.make("alfworld", data=old)):
        for task in range(6):
            env.reset(task, "train")
            for command in env.demo(random.Random(0), "oracle")[:-1]:
                env.step(command)
                other = copy.copy(env)
                other.max_turns = 99
                assert play(other, other.demo(random.Random(task), "expert"))[1].info["success"], env.said


def test_a_training_game_comes_with_its_things_numbered_in_other_ways(env, rooms):
    n = len(env.data["train"])
    plain, texts = env.reset(0, "train"), {env.reset(k * n, "train") for k in range(20)}
    assert env.tasks("train") == n * adapter.RENAMED and env.tasks("valid") == len(env.data["valid"])
    assert all(re.sub(r"\d+", "N", text) == re.sub(r"\d+", "N", plain) for text in texts) and len(texts) > 1
    mugs = {"mug 1": "mug 3", "mug 2": "mug 1", "mug 3": "mug 2"}
    assert adapter.rename("take mug 1 from desk 1, mug 10", mugs) == "take mug 3 from desk 1, mug 10"
    assert adapter.rename(adapter.rename("mug 1, mug 2, mug 3", mugs), mugs, back=True) == "mug 1, mug 2, mug 3"
    names = [f"{kind} {i}" for kind in ("mug", "desk") for i in range(1, 6)] + ["agent1"]
    found = adapter.renaming(names, 7)
    assert found == adapter.renaming(names, 7) != adapter.renaming(names, 8) and sorted(found) == sorted(found.values()) == sorted(names[:-1])
    assert all(new.split()[0] == old.split()[0] for old, new in found.items()) and all(old == new for old, new in adapter.renaming(names, 0).items())
    number = next(k for k in range(1, 20) if env.reset(k * n, "train") != plain)  # what is said in the other numbers is understood
    assert adapter.NOTHING not in [copy.copy(env).step(command).observation for command in env.actions()] and env.actions() == sorted(env.actions())
    said = env.demo(random.Random(0), "expert")
    alone = [env.step(command) for command in said]
    assert alone[-1].info["success"] and number * n < env.tasks("train")
    batch = envs.Batch("alfworld", data=rooms)
    batch.reset_many([number * n, 0], "train")
    assert [batch.step_many([0], [command])[0] for command in said] == alone


def test_the_careless_player_mostly_fails_and_has_the_dice_s_habits(env):
    won = [solve(env, task, "train", "careless").info["success"] for task in range(6)]
    assert sum(won) <= 2
    for task in range(6):
        env.reset(task, "train")
        expert, careless = env.demo(random.Random(1), "expert"), env.demo(random.Random(1), "careless")
        assert careless == env.demo(random.Random(1), "careless")
        assert all(a == b or b.startswith("go to ") for a, b in zip(expert, careless)) and len(expert) == len(careless)


def test_an_episode_ends_after_its_turns(rooms):
    env = envs.make("alfworld", data=rooms, turns=3)
    env.reset(0, "train")
    steps = [env.step("look") for _ in range(3)]
    assert [step.done for step in steps] == [False, False, True]
    assert steps[-1].info["truncated"] and steps[-1].observation == "" and envs.make("alfworld", data=rooms).max_turns == 50


def test_an_engine_that_fails_ends_its_episode_and_the_next_one_runs(env, monkeypatch):
    env.reset(0, "train")
    with monkeypatch.context() as patch:
        patch.setattr(Game, "place", lambda *_: 1 / 0)
        step = env.step("look")
    assert step.done and step.info["engine_failed"] and not step.info["success"] and not step.info["truncated"]
    assert solve(env, 0, "train").info["success"]


def test_a_process_holds_few_engines_and_forgets_nothing(env, monkeypatch):
    monkeypatch.setattr("envs.alfworld_games.KEPT", 2)
    half = []
    for task in range(4):
        env.reset(task, "train")
        half.append(copy.copy(env))
        half[-1].plan = env.demo(random.Random(0), "expert")
        half[-1].step(half[-1].plan[0])
    assert len(env.games) == 2
    env.memo.clear()
    for player in half:
        assert play(player, player.plan[1:])[1].info["success"]


def test_translations_are_made_once(env, rooms, monkeypatch):
    assert solve(env, 0, "train").info["success"]
    monkeypatch.setattr("envs.alfworld_games.translate", None)  # whoever calls it fails
    assert solve(envs.make("alfworld", data=rooms), 0, "train").info["success"]


def test_made_up_rooms_are_all_different():
    problems = [alfworld_rooms.room(number, alfworld_rooms.FAMILIES[number % 6])["pddl_problem"] for number in range(1000)]
    assert len({re.sub(r"_dot_\d+\b|trial_\d+", "", problem) for problem in problems}) == 1000


# ---- files ----

def test_official_folders_are_the_splits_and_the_first_games_are_of_all_families(env):
    assert [len(env.data[split]) for split in envs.SPLITS] == [6, 5, 2]
    names = {split: {task.name for task in env.data[split]} for split in envs.SPLITS}
    assert not names["train"] & names["valid"] and not names["valid"] & names["test"]
    assert all("valid_unseen" in task.path for task in env.data["test"])


@pytest.mark.parametrize("counts, sizes", [
    ({"train": 20, "valid_seen": 4, "valid_train": 3}, (20, 4, 3)), ({"valid_seen": 4, "valid_train": 6}, None), ({"train": 60}, None)])
def test_missing_folders_are_made_up_for(tmp_path, counts, sizes):
    alfworld_rooms.write_games(tmp_path, **counts)
    found = files.read_splits(tmp_path)
    names = [task.name for split in envs.SPLITS for task in found[split]]
    assert len(names) == len(set(names)) == sum(counts.values()) and found["train"] and found["valid"]
    assert sizes is None or tuple(len(found[split]) for split in envs.SPLITS) == sizes
    assert found == files.read_splits(tmp_path / "json_2.1.1")


def test_levels_choose_families_and_numbers(rooms):
    env = envs.make("alfworld", data=rooms, level=1)
    assert {task.family for tasks in env.data.values() for task in tasks} == {"pick_and_place", "look_at_obj"}


def test_games_that_cannot_be_won_or_that_the_package_leaves_out_are_left_out(tmp_path):
    alfworld_rooms.write_games(tmp_path, train=6)
    paths = sorted(tmp_path.glob("json_2.1.1/train/*/*/game.tw-pddl"))
    paths[0].write_text(paths[0].read_text().replace('"solvable": true', '"solvable": false'))
    paths[1].parent.parent.rename(paths[1].parent.parent.with_name("pick_and_place_with_movable_recep-Mug-Bowl-Desk-9"))
    paths[2].parent.parent.rename(paths[2].parent.parent.with_name("pick_and_place_simple-AppleSliced-None-Desk-9"))
    assert len(files.read_folder(tmp_path, "train")) == 3


def test_what_is_missing_or_broken_is_one_line(rooms, tmp_path):
    for options in ({"data": str(tmp_path)}, {"data": rooms, "level": 9}, {"data": str(tmp_path / "none")}):
        with pytest.raises(ValueError) as error:
            envs.make("alfworld", **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="alfworld-download.*pip install.*--data.*ALFWORLD_DATA"):
        envs.make("alfworld", data=str(tmp_path))
    path = alfworld_rooms.write_games(tmp_path, train=1) + "/json_2.1.1"
    task, = files.read_folder(path, "train")
    for text in ("", "[]", "{}", json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": ""})):
        with open(task.path, "w") as file:
            file.write(text)
        with pytest.raises(ValueError, match="no game in it") as error:
            adapter.ALFWorld({"train": [task]}).reset(0, "train")
        assert "\n" not in str(error.value) and task.path in str(error.value)
    code = "import sys; sys.modules['{}'] = None; import envs; envs.make('alfworld')"
    for name in ("textworld", "fast_downward"):
        other = subprocess.run([sys.executable, "-c", code.format(name)], cwd=REPO, capture_output=True, text=True)
        assert other.stderr.strip().split("\n")[-1].startswith("ValueError: alfworld needs") and "pip install" in other.stderr


# ---- text ----

def test_names_and_problems_by_hand():
    assert demangle(["apple_bar_1", "apple_bar_2", "sink_bar_1_bar_sinkbasin", "sink_bar_1", "agent1", "appletype"]) == {
        "apple_bar_1": "apple 2", "apple_bar_2": "apple 1", "sink_bar_1_bar_sinkbasin": "sinkbasin 1", "sink_bar_1": "sink 1",
        "agent1": "agent1", "appletype": "appletype"}
    problem = "(define (:objects a1 A2 - thing ; no\n b - Box) (:init (In a1 b) (= (distance a1 b) 3) (= (cost) 0)\n(open b)) (:goal (in A2 b)))"
    assert read_problem(problem) == ({"a1": "thing", "a2": "thing", "b": "box"}, [("in", "a1", "b"), ("open", "b")])


def test_what_a_grammar_computes_is_read_and_never_evaluated():
    class Info:
        id, name, indefinite, definite = "apple_1", "apple 1", "a", "the"
    named = {"o": Info(), "r": Info()}
    named["r"].name = ""
    assert compute("o.indefinite + ' ' + o.name", named) == "a apple 1" and compute("r.name or r.id", named) == "apple_1"
    for text in ("__import__('os').abort()", "o.__class__", "o.name.upper()", "[o.name]", "o.name; o.name", "1/0", "", "o.name if o else o", "(o)"):
        with pytest.raises(ValueError):
            compute(text, named)


# ---- the commands, and real games ----

def test_check_and_play_are_commands(rooms, capsys, monkeypatch):
    assert alfworld_check.check(rooms, 2, planner=True) == (6, 6)
    assert "all: 6 of 6 games load, the expert wins 6" in capsys.readouterr().out
    env = envs.make("alfworld", data=rooms)
    env.reset(0, "train")
    lines = iter(["?", "dance", *env.demo(random.Random(0), "expert")])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    alfworld_check.by_hand(env, 0, "train")
    told = capsys.readouterr().out
    assert "Your task is to:" in told and "go to fridge 1" in told and adapter.NOTHING in told and "Solved in" in told


def test_a_broken_game_counts_as_one_that_does_not_load(tmp_path, capsys):
    alfworld_rooms.write_games(tmp_path, train=2)
    with open(files.read_folder(tmp_path, "train")[0].path, "w") as file:
        file.write("{}")
    assert alfworld_check.check(str(tmp_path), 0, planner=False) == (2, 1)
    assert "1 of 2 games load" in capsys.readouterr().out


@real
def test_the_expert_wins_real_games_of_every_family():
    env = envs.make("alfworld", data=REAL)
    for split in ("train", "valid"):
        for task in range(6):
            assert solve(env, task, split).info["success"], env.task.path


@real
def test_real_games_agree_with_the_package(tmp_path):
    check_against_package([envs.make("alfworld", data=REAL).data["valid"][task].path for task in (2, 5)], 10, tmp_path)


@real
def test_a_real_game_that_left_its_walkthrough_is_won_by_the_planner():
    env = envs.make("alfworld", data=REAL)
    env.reset(5, "train")
    env.step(next(c for c in env.actions() if c.startswith("go to ") and c != env.demo(random.Random(0), "expert")[0]))
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]
