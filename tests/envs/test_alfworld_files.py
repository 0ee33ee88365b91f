"""ALFWorld's files: which games are in which split, what is missing or broken, what they say; and
its commands."""
import json
import random
import shutil
import subprocess
import sys

import pytest

from rooms import env, old, rooms  # noqa: F401 (fixtures; it skips: so it comes first)
import envs
from conftest import REPO
from envs import alfworld as adapter
from envs.alfworld import check, files, made
from envs.alfworld.games import compute, demangle, read_problem


# ---- files ----

def test_official_folders_are_the_splits_and_the_first_games_are_of_all_families(env):
    assert [len(env.data[split]) for split in envs.SPLITS] == [6, 5, 2]
    names = {split: {task.name for task in env.data[split]} for split in envs.SPLITS}
    assert not names["train"] & names["valid"] and not names["valid"] & names["test"]
    assert all("valid_unseen" in task.path for task in env.data["test"])


@pytest.mark.parametrize("counts, sizes", [
    ({"train": 20, "valid_seen": 4, "valid_train": 3}, (20, 4, 3)),
    ({"valid_seen": 4, "valid_train": 6}, None), ({"train": 60}, None)])
def test_missing_folders_are_made_up_for(tmp_path, counts, sizes):
    made.write_games(tmp_path, **counts)
    found = files.read_splits(tmp_path)
    names = [task.name for split in envs.SPLITS for task in found[split]]
    assert len(names) == len(set(names)) == sum(counts.values()) and found["train"]
    assert found["valid"]
    assert sizes is None or tuple(len(found[split]) for split in envs.SPLITS) == sizes
    assert found == files.read_splits(tmp_path / "json_2.1.1")


def test_a_spare_folder_of_known_games_makes_up_for_nothing(tmp_path):
    made.write_games(tmp_path, train=60)
    shutil.copytree(tmp_path / "json_2.1.1/train", tmp_path / "json_2.1.1/valid_train")
    found = files.read_splits(tmp_path)
    assert all(found.values()) and sum(map(len, found.values())) == 60


def test_levels_choose_families_and_numbers(rooms):
    env = envs.make("alfworld", data=rooms, level=1)
    assert {task.family for tasks in env.data.values()
            for task in tasks} == {"pick_and_place", "look_at_obj"}


def test_games_that_cannot_be_won_or_that_the_package_leaves_out_are_left_out(tmp_path):
    made.write_games(tmp_path, train=6)
    paths = sorted(tmp_path.glob("json_2.1.1/train/*/*/game.tw-pddl"))
    paths[0].write_text(paths[0].read_text().replace('"solvable": true', '"solvable": false'))
    for path, name in zip(paths[1:], ("pick_and_place_with_movable_recep-Mug-Bowl-Desk-9",
                                      "pick_and_place_simple-AppleSliced-None-Desk-9")):
        task = path.parent.parent
        task.rename(task.with_name(name))
    assert len(files.read_folder(tmp_path, "train")) == 3


def test_what_is_missing_or_broken_is_one_line(rooms, tmp_path):
    for options in ({"data": str(tmp_path)}, {"data": rooms, "level": 9},
                    {"data": str(tmp_path / "none")}):
        with pytest.raises(ValueError) as error:
            envs.make("alfworld", **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="alfworld-download.*pip install.*--data.*ALFWORLD_DATA"):
        envs.make("alfworld", data=str(tmp_path))
    path = made.write_games(tmp_path, train=1) + "/json_2.1.1"
    task, = files.read_folder(path, "train")
    for text in ("", "[]", "{}",
                 json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": ""})):
        with open(task.path, "w") as file:
            file.write(text)
        with pytest.raises(ValueError, match="no game in it") as error:
            adapter.ALFWorld({"train": [task]}).reset(0, "train")
        assert "\n" not in str(error.value) and task.path in str(error.value)
    code = "import sys; sys.modules['{}'] = None; import envs; envs.make('alfworld')"
    for name in ("textworld", "fast_downward"):
        other = subprocess.run([sys.executable, "-c", code.format(name)], cwd=REPO,
                               capture_output=True, text=True)
        assert other.stderr.strip().split("\n")[-1].startswith("ValueError: alfworld needs")
        assert "pip install" in other.stderr


# ---- text ----

def test_names_and_problems_by_hand():
    assert demangle(["apple_bar_1", "apple_bar_2", "sink_bar_1_bar_sinkbasin", "sink_bar_1",
                     "agent1", "appletype"]) == {
        "apple_bar_1": "apple 2", "apple_bar_2": "apple 1",
        "sink_bar_1_bar_sinkbasin": "sinkbasin 1", "sink_bar_1": "sink 1",
        "agent1": "agent1", "appletype": "appletype"}
    problem = ("(define (:objects a1 A2 - thing ; no\n b - Box) (:init (In a1 b) "
               "(= (distance a1 b) 3) (= (cost) 0)\n(open b)) (:goal (in A2 b)))")
    assert read_problem(problem) == ({"a1": "thing", "a2": "thing", "b": "box"},
                                     [("in", "a1", "b"), ("open", "b")])


def test_what_a_grammar_computes_is_read_and_never_evaluated():
    class Info:
        id, name, indefinite, definite = "apple_1", "apple 1", "a", "the"
    named = {"o": Info(), "r": Info()}
    named["r"].name = ""
    assert compute("o.indefinite + ' ' + o.name", named) == "a apple 1"
    assert compute("r.name or r.id", named) == "apple_1"
    for text in ("__import__('os').abort()", "o.__class__", "o.name.upper()", "[o.name]",
                 "o.name; o.name", "1/0", "", "o.name if o else o", "(o)"):
        with pytest.raises(ValueError):
            compute(text, named)


# ---- commands ----

def test_check_and_play_are_commands(rooms, capsys, monkeypatch):
    assert check.check(rooms, 2, planner=True) == (6, 6)
    assert "all: 6 of 6 games load, the expert wins 6" in capsys.readouterr().out
    env = envs.make("alfworld", data=rooms)
    env.reset(0, "train")
    lines = iter(["?", "dance", *env.demo(random.Random(0), "expert")])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    envs.by_hand(env, 0, "train")
    told = capsys.readouterr().out
    assert "Your task is to:" in told and "go to fridge 1" in told and adapter.NOTHING in told
    assert "Solved in" in told


def test_a_broken_game_counts_as_one_that_does_not_load(tmp_path, capsys):
    made.write_games(tmp_path, train=2)
    with open(files.read_folder(tmp_path, "train")[0].path, "w") as file:
        file.write("{}")
    assert check.check(str(tmp_path), 0, planner=False) == (2, 1)
    assert "1 of 2 games load" in capsys.readouterr().out
