"""Runs of world models from end to end, on models too small to learn."""
import json
from pathlib import Path

import pytest
import torch

import imagine
import run
from conftest import errors, metrics, outcome, poison, tree
from envs.house import House


def worldmodel(command, *args):
    return command("--method", "worldmodel", "--steps", "1", *args)


@pytest.mark.parametrize("args", [
    "--formulation leaky", "--formulation stateless", "--flat", "--window 0", "--terms sup",
    "--terms= --scale none", "--scale group --levels 1"])
def test_a_world_model_of_every_kind_runs_from_nothing_to_the_table(command, args):
    code, out, err = worldmodel(command, "--steps", "2", *args.split())
    assert (code, errors(err)) == (0, [])
    own = next((name for name in imagine.FORMULATIONS if name in args), "strict")
    result = json.loads(Path("o/result.json").read_text())
    samples, columns = Path("o/samples.txt").read_text(), result["columns"]
    spent = sum(m["time_update"] for m in metrics(timing=True))
    assert result["update_seconds"] == pytest.approx(spent)
    assert 0 < result["update_seconds"] < result["seconds"]
    assert columns.keys() == {f"{name}, warm" for name in imagine.FORMULATIONS} | {
        f"{own}, warm, T=1", f"{own}, trained", f"{own}, trained, T=1"}

    # one's own formulation imagines 25 steps, the others one, and so does what is sampled
    for name, column in columns.items():
        far = {1, 5, 9} if own in name and "T=1" not in name else {1}
        steps = range(1, 26)
        assert {h for h in steps if f"obs H={h}" in column} == far
        states = {h for h in steps if f"state s' H={h}" in column}
        assert states == (far if "stateless" not in name else set())
        for band in ("obs 5-9", "obs 10-25", "obs, known rooms"):
            assert (band in column) == (9 in far)
        assert any("obs 5-9 level" in k for k in column) == (9 in far)
    lines = [line[:24].strip() for line in out.splitlines()]
    names = {name for column in columns.values() for name in column}
    assert names <= set(lines)  # every number of result.json is in the table

    if own == "stateless":
        assert not any("history leak" in column for column in columns.values())
    else:
        leaks = [columns[f"{own}, {when}"]["history leak"][0] for when in ("warm", "trained")]
        assert all((leak > 0) == (own == "leaky") for leak in leaks)
    assert "true  " in samples and ("next state" in samples) == (own != "stateless")
    assert "predicted " in out
    assert [m["sampled_tokens"] > 0 for m in metrics()] == [own != "stateless"] * 2


def test_a_warm_start_on_its_own_prompts_is_another_and_its_table_has_no_other_columns(command):
    for lessons in ("all", "own"):
        args = "--formulation", "leaky", "--cache", "warm", "--lessons", lessons, "--out", lessons
        assert worldmodel(command, *args)[0] == 0
    assert len(list(Path("warm").glob("*.pt"))) == 2
    columns = json.loads(Path("own/result.json").read_text())["columns"]
    assert columns.keys() == {"leaky, warm", "leaky, warm, T=1", "leaky, trained",
                              "leaky, trained, T=1"}


def test_a_table_of_one_example_is_a_table(command):
    assert worldmodel(command, "--test-problems", "1", "--eval-problems", "1")[0] == 0


def test_a_trained_world_model_starts_another(command):
    assert worldmodel(command, "--out", "first")[0] == 0
    assert worldmodel(command, "--senior", "first", "--formulation", "leaky")[0] == 0
    first, second = run.load("first/ckpt.pt"), run.load("o/ckpt.pt")
    assert all(torch.equal(x, second["warm"][k]) for k, x in first["model"].items())


def test_a_warm_start_is_as_long_as_the_environment_proposes(command, monkeypatch):
    monkeypatch.setattr(House, "warm_steps", 1)
    for steps, out in ((0, "o"), (1, "same")):
        args = "--warm-steps", str(steps), "--cache", "short", "--out", out
        assert worldmodel(command, *args)[0] == 0
    assert len(list(Path("short").glob("*.pt"))) == 1 and outcome() == outcome("same")


def test_a_window_may_show_40_observations(command):
    assert worldmodel(command, "--window", "40")[0] == 0


@pytest.mark.parametrize("damage", [
    lambda p: p.write_bytes(p.read_bytes()[:1000]), lambda p: p.write_bytes(b"")],
    ids=["cut short", "empty"])
def test_a_damaged_warm_start_is_made_again_and_says_so(command, damage):
    assert worldmodel(command, "--cache", "warm")[0] == 0
    expected, (path,) = outcome(), Path("warm").glob("*.pt")
    damage(path)
    code, _, err = worldmodel(command, "--cache", "warm", "--out", "again")
    assert code == 0 and str(path) in err and "it is made again" in err
    assert outcome("again") == expected


def test_a_warm_start_of_something_else_is_one_line_that_says_to_delete_it(command):
    assert worldmodel(command, "--cache", "warm")[0] == 0
    expected, (path,) = outcome(), Path("warm").glob("*.pt")
    torch.save({"model": {}}, path)
    before = tree()
    code, _, err = worldmodel(command, "--cache", "warm", "--out", "again")
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith("error: ")
    assert str(path) in err and "delete it" in err
    assert {p: x for p, x in tree().items() if p in before} == before
    path.unlink()
    assert worldmodel(command, "--cache", "warm", "--out", "again")[0] == 0
    assert outcome("again") == expected


def test_a_warm_start_that_is_not_finite_stops_and_is_not_kept(command, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, 2)
        code, _, err = worldmodel(command, "--cache", "warm")
    assert code == 2 and len(errors(err)) == 1 and "Traceback" not in err
    assert "step 2" in errors(err)[0] and "--sft-lr" in errors(err)[0]
    assert not list(Path("warm").glob("*.pt")) and not Path("o/config.json").exists()
    # nothing is in the way of the next try
    assert worldmodel(command, "--cache", "warm")[0] == 0
