"""ALFWorld through TextWorld's PDDL engine: small rooms of our own in the official format, and real
games where ALFWORLD_DATA says where they are."""
import copy
import json
import os
import random
import re
import subprocess
import sys

import pytest

from rooms import env, old, rooms, solve  # noqa: F401 (fixtures; it skips: so it comes first)
import envs
from conftest import REPO
from contract import (NASTY, check_batch_agrees_with_single, check_demonstrations_win, check_shape,
                      play)
from envs import alfworld as adapter
from envs.alfworld import files, made, player
from envs.alfworld.games import Game

REAL = os.environ.get("ALFWORLD_DATA")
real = pytest.mark.skipif(not REAL, reason="set ALFWORLD_DATA to the folder that alfworld-download "
                                           "wrote json_2.1.1 into")


# ---- games ----

def test_the_expert_wins_every_family_in_both_formats(rooms, old):
    for data, verb in ((rooms, "move"), (old, "put")):
        env = envs.make("alfworld", data=data)
        assert {env.data["train"][task].family for task in range(6)} == set(files.FAMILIES.values())
        for task in range(6):
            step = solve(env, task, "train")
            assert step.done and step.reward == 1 and step.info == {
                "success": True, "score": 1.0, "truncated": False,
                "family": env.data["train"][task].family, "engine_failed": False}
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
    other = subprocess.run([sys.executable, "-c", code], cwd=REPO,
                           env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True,
                           text=True)
    assert other.stdout.strip() == ascii(texts), other.stderr


def test_two_hundred_nasty_commands_raise_nothing_and_change_nothing(env):
    env.reset(0, "train")
    nasty = [*NASTY, "<script>alert(1)</script>", "$(rm -rf /)", "; ls", "{o.name}",
             "#look.feedback#", "look\nlook", "go to", "take apple 9"]
    nasty += [f"{verb} {text}" for verb in ("go to", "take", "open", "heat")
              for text in NASTY if text.strip(" \t\r\n\x00")]
    env.max_turns, before = 10**6, (env.actions(), env.game().facts(env.said))
    for text in nasty[:200]:
        step = env.step(text)
        assert (step.observation, step.reward,
                step.done) == (adapter.NOTHING, 0,
                               False) and not step.info["engine_failed"], text[:50]
    assert len(nasty) >= 200 and (env.actions(), env.game().facts(env.said)) == before
    assert env.said == ()
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]


def test_any_way_through_a_game_agrees_with_the_package(env, old, tmp_path):
    """Text, what can be done and whether it is won, against TextWorld and ALFWorld's own code, at
    each of 12 random commands."""
    paths = [env.data["train"][1].path, env.data["train"][3].path,
             envs.make("alfworld", data=old).data["train"][2].path]
    check_against_package(paths, 12, tmp_path)


PACKAGE = """import json, random, sys
import textworld, textworld.envs.pddl
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
told, (paths, turns) = [], json.loads(sys.argv[1])
for path in paths:
    infos = textworld.EnvInfos(won=True, admissible_commands=True)
    env = textworld.start(path, infos, wrappers=[AlfredDemangler(shuffle=False)])
    state, rng, said = env.reset(), random.Random(0), None
    for _ in range(turns):
        told.append((said, state.feedback, state.admissible_commands, state.won))
        found = state.admissible_commands
        verbs = ("take", "open", "heat", "cool", "clean", "use", "move", "put")
        changing = [c for c in found if c.split()[0] in verbs]
        said = rng.choice(changing if changing and rng.random() < 0.6 else found)
        state = env.step(said)[0]
print(json.dumps(told))"""


def check_against_package(paths, turns, folder):
    """The package in a process of its own, as it is: what is remembered here is patched into it."""
    theirs = subprocess.run([sys.executable, "-c", PACKAGE, json.dumps([paths, turns])],
                            capture_output=True, text=True,
                            env={**os.environ, "ALFWORLD_DATA": str(folder)})
    told = json.loads(theirs.stdout or theirs.stderr)
    games = iter(paths)
    for said, text, commands, won in told:
        game, so_far = (Game(next(games)), ()) if said is None else (game, (*so_far, said))
        text = " ".join((text if said else re.sub("-=.*?=-", "", text)).split())
        assert game.after(so_far) == (text, won, commands), so_far
    assert len(told) == len(paths) * turns


def test_what_is_done_elsewhere_in_the_same_engine_leaves_an_episode_alone(env):
    """Two episodes of a game share an engine: their commands in turn, and one of them alone, come
    to the same."""
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
    # These commands changed nothing that the walkthrough needs.
    assert env.demo(random.Random(0), "oracle") == plan[1:]
    env.step(next(c for c in env.actions() if c.startswith("go to ") and c not in plan))
    step = play(env, env.demo(random.Random(0), "oracle"))[1]  # the planner's
    assert step.info["success"] and env.demo(random.Random(0), "oracle") is None


def test_the_expert_looks_for_what_he_is_to_take_and_the_oracle_knows(env):
    ways = set()
    for task in range(6):
        env.reset(task, "train")
        plan = env.demo(random.Random(0), "oracle")
        thing, _, place = next(command for command in plan
                               if command.startswith("take ")).partition(" from ")
        for dice in range(12):
            found = env.demo(random.Random(dice), "expert")
            at = found.index(plan[0])
            looked, rest = found[:at], found[at:]
            assert rest[:3] == plan[:3] and f"go to {place}" not in looked
            assert all(command.startswith("go to ")
                       or command == looked[i - 1].replace("go to", "open")
                       for i, command in enumerate(looked))
            shut = [command.split()[2] in player.CLOSED
                    for command in looked if command.startswith("go to ")]
            # Open places first, and closed ones only in need.
            assert shut == sorted(shut)
            assert not (any(shut) and place.split()[0] not in player.CLOSED)
            other = copy.copy(env)
            assert adapter.NOTHING not in [other.step(command).observation for command in found]
            assert other.won
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
                plan = other.demo(random.Random(task), "expert")
                assert play(other, plan)[1].info["success"], env.said


def test_a_training_game_comes_with_its_things_numbered_in_other_ways(env, rooms):
    n = len(env.data["train"])
    plain, texts = env.reset(0, "train"), {env.reset(k * n, "train") for k in range(20)}
    assert env.tasks("train") == n * adapter.RENAMED
    assert env.tasks("valid") == len(env.data["valid"])
    assert all(re.sub(r"\d+", "N", text) == re.sub(r"\d+", "N", plain) for text in texts)
    assert len(texts) > 1
    mugs = {"mug 1": "mug 3", "mug 2": "mug 1", "mug 3": "mug 2"}
    assert adapter.rename("take mug 1 from desk 1, mug 10",
                          mugs) == "take mug 3 from desk 1, mug 10"
    assert adapter.rename(adapter.rename("mug 1, mug 2, mug 3", mugs), mugs,
                          back=True) == "mug 1, mug 2, mug 3"
    names = [f"{kind} {i}" for kind in ("mug", "desk") for i in range(1, 6)] + ["agent1"]
    found = adapter.renaming(names, 7)
    assert found == adapter.renaming(names, 7) != adapter.renaming(names, 8)
    assert sorted(found) == sorted(found.values()) == sorted(names[:-1])
    assert all(new.split()[0] == old.split()[0] for old, new in found.items())
    assert all(old == new for old, new in adapter.renaming(names, 0).items())
    # The game understands what is said in the other numbers.
    number = next(k for k in range(1, 20) if env.reset(k * n, "train") != plain)
    assert adapter.NOTHING not in [copy.copy(env).step(command).observation
                                   for command in env.actions()]
    assert env.actions() == sorted(env.actions())
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
        expert, careless = env.demo(random.Random(1),
                                    "expert"), env.demo(random.Random(1), "careless")
        assert careless == env.demo(random.Random(1), "careless")
        assert all(a == b or b.startswith("go to ") for a, b in zip(expert, careless))
        assert len(expert) == len(careless)


def test_an_episode_ends_after_its_turns(rooms):
    env = envs.make("alfworld", data=rooms, turns=3)
    env.reset(0, "train")
    steps = [env.step("look") for _ in range(3)]
    assert [step.done for step in steps] == [False, False, True]
    assert steps[-1].info["truncated"] and steps[-1].observation == ""
    assert envs.make("alfworld", data=rooms).max_turns == 50


def test_an_engine_that_fails_ends_its_episode_and_the_next_one_runs(env, monkeypatch):
    env.reset(0, "train")
    with monkeypatch.context() as patch:
        patch.setattr(Game, "place", lambda *_: 1 / 0)
        step = env.step("look")
    assert step.done and step.info["engine_failed"] and not step.info["success"]
    assert not step.info["truncated"]
    assert solve(env, 0, "train").info["success"]


def test_a_process_holds_few_engines_and_forgets_nothing(env, monkeypatch):
    monkeypatch.setattr("envs.alfworld.games.KEPT", 2)
    half = []
    for task in range(4):
        env.reset(task, "train")
        half.append(copy.copy(env))
        half[-1].plan = env.demo(random.Random(0), "expert")
        half[-1].step(half[-1].plan[0])
    assert len(env.games) == 2
    env.memo.clear()
    for other in half:
        assert play(other, other.plan[1:])[1].info["success"]


def test_translations_are_made_once(env, rooms, monkeypatch):
    assert solve(env, 0, "train").info["success"]
    monkeypatch.setattr("envs.alfworld.games.translate", None)  # whoever calls it fails
    assert solve(envs.make("alfworld", data=rooms), 0, "train").info["success"]


def test_made_up_rooms_are_all_different():
    problems = [made.room(number, made.FAMILIES[number % 6])["pddl_problem"]
                for number in range(1000)]
    assert len({re.sub(r"_dot_\d+\b|trial_\d+", "", problem) for problem in problems}) == 1000


# ---- real games ----

@real
def test_the_expert_wins_real_games_of_every_family():
    env = envs.make("alfworld", data=REAL)
    for split in ("train", "valid"):
        for task in range(6):
            assert solve(env, task, split).info["success"], env.task.path


@real
def test_real_games_agree_with_the_package(tmp_path):
    check_against_package([envs.make("alfworld", data=REAL).data["valid"][task].path
                           for task in (2, 5)], 10, tmp_path)


@real
def test_a_real_game_that_left_its_walkthrough_is_won_by_the_planner():
    env = envs.make("alfworld", data=REAL)
    env.reset(5, "train")
    env.step(next(c for c in env.actions() if c.startswith("go to ")
                  and c != env.demo(random.Random(0), "expert")[0]))
    assert play(env, env.demo(random.Random(0), "expert"))[1].info["success"]
