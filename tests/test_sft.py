"""Warm starts: what they depend on, that each is made once, and who makes it; demonstrations."""
import dataclasses
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import envs
import rollout
import run
import sft
import tokenizer
from conftest import REPO, outcome
from envs import arithmetic, guess
from lib.cache import cache_path, cached, cached_side_by_side
from lib.start import decoded_rows
from model import GPT, small_config, token_logp

# ---- a cache of what is made once ----

RECIPE = {"name": "thing", "steps": 3}


def make(value=1, log="made.txt"):
    with open(log, "a") as file:
        file.write(f"{value}\n")
    return {"value": value}


def test_what_a_recipe_describes_is_made_once_and_found_afterwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = cached(RECIPE, make, "cache")
    assert Path(path).name.startswith("thing-") and run.load(path) == {"value": 1}
    assert cached(dict(reversed(RECIPE.items())), make, "cache") == path  # in any order
    assert Path("made.txt").read_text() == "1\n"
    other = cached({**RECIPE, "steps": 4}, functools.partial(make, 2), "cache")
    assert other != path and run.load(other) == {"value": 2}


def test_the_second_who_wants_it_waits_for_the_first_and_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    began, found = threading.Event(), []

    def slow():
        began.set()
        time.sleep(0.3)
        return make()

    def ask(how):
        found.append((cached(RECIPE, how, "cache"), time.monotonic()))
    first = threading.Thread(target=ask, args=(slow,))
    first.start()
    began.wait()
    ask(make)
    first.join()
    assert found[0][0] == found[1][0] and Path("made.txt").read_text() == "1\n"


def test_what_fails_leaves_nothing_and_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def failing():
        raise run.Stop("no")
    with pytest.raises(run.Stop):
        cached(RECIPE, failing, "cache")
    assert not list(Path("cache").glob("*.pt"))
    assert run.load(cached(RECIPE, make, "cache")) == {"value": 1}


def test_a_damaged_warm_start_is_made_again_and_one_of_nonsense_is_never_kept(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = Path(cached(RECIPE, make, "cache"))
    (tmp_path / "cache" / f"{path.name}.7.tmp").write_text("half, of a kill")
    path.write_bytes(path.read_bytes()[:-40])
    assert cached(RECIPE, lambda: make(2), "cache") == str(path)
    assert run.load(path) == {"value": 2} and "it is made again" in capsys.readouterr().err
    assert not list(Path("cache").glob("*.tmp"))
    nonsense = {"model": {"w": torch.tensor([1.0, float("nan")])}}
    with pytest.raises(run.Stop, match="not finite"):
        cached({"name": "bad"}, lambda: nonsense, "cache")
    assert not list(Path("cache").glob("bad-*.pt"))


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(run.Stop, match="choose another --cache"):
        cached(RECIPE, make, str(tmp_path / "file" / "cache"))


def test_a_cache_that_is_read_only_serves_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = cached(RECIPE, make, "cache")
    real = open

    def refuse(name, mode="r", **more):
        if "w" in mode and str(name).startswith("cache"):
            raise PermissionError(13, "Permission denied")
        return real(name, mode, **more)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cached(RECIPE, make, "cache") == path
    with pytest.raises(run.Stop, match="cannot write to cache .*choose another --cache"):
        cached({**RECIPE, "steps": 99}, make, "cache")


# ---- side by side, in processes ----

PARENT = """
import os, signal, sys, time, torch
from lib.cache import cached_side_by_side
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def forever(name):
    open(name, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    from functools import partial
    torch.set_num_threads(2)
    jobs = [({"name": name}, partial(forever, name)) for name in ("one", "two")]
    cached_side_by_side(jobs, "cache", "cpu")
"""


def runs(pid):
    """Does the process run? One that has ended may wait to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look at")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent_however_it_ends(tmp_path, end):
    (tmp_path / "parent.py").write_text(PARENT)
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    files = [tmp_path / "one", tmp_path / "two"]
    try:
        deadline = time.monotonic() + 120
        while not all(file.exists() and file.read_text() for file in files):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = [int(file.read_text()) for file in files]
        assert all(map(runs, workers)) and parent.pid not in workers
        os.kill(parent.pid, end)  # SIGKILL: it has no chance to tell them
        assert parent.wait(timeout=20) != 0
    finally:
        parent.kill()
    deadline = time.monotonic() + 20
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, "a worker goes on without its parent"
        time.sleep(0.1)


def failing():
    raise run.Stop("there is nothing to learn from")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("fate, words", [
    (failing, "there is nothing to learn from"), (killed, "killed.*run the same command again")])
def test_a_failure_in_a_worker_is_one_line_and_what_was_made_is_kept(
        tmp_path, monkeypatch, capfd, fate, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    good = functools.partial(make, 1, str(tmp_path / "made.txt"))
    jobs = [({"name": "good"}, good), ({"name": "bad"}, fate)]
    with pytest.raises(run.Stop, match=words):
        cached_side_by_side(jobs, "cache", "cpu")
    assert "Traceback" not in capfd.readouterr().err
    if fate is failing:  # the other comes to its end
        assert [p.name[:5] for p in Path("cache").glob("*.pt")] == ["good-"]
    assert run.load(cached_side_by_side(jobs[:1], "cache", "cpu")[0]) == {"value": 1}
    if fate is failing:
        assert Path("made.txt").read_text() == "1\n"  # once, and found again


# ---- warm starts ----

def test_a_warm_start_is_made_once(command, cache):
    assert command("--method", "grpo")[0] == 0
    before = {p: p.stat().st_mtime_ns for p in Path(cache).glob("*.pt")}
    assert command("--method", "grpo", "--out", "second")[0] == 0
    assert before and {p: p.stat().st_mtime_ns for p in Path(cache).glob("*.pt")} == before
    assert outcome("o")[0] == outcome("second")[0]  # and the same seed is the same run


def test_warm_starts_made_side_by_side_are_those_made_one_after_the_other(command, cache):
    args = "--method", "tandem", "--steps", "1"
    assert command(*args)[0] == 0
    assert command(*args, "--threads", "2", "--cache", "two", "--out", "two threads")[0] == 0
    made = list(Path("two").glob("*.pt"))
    assert len(made) == 2
    for path in made:
        one, other = run.load(Path(cache, path.name))["model"], run.load(path)["model"]
        assert all(torch.equal(x, other[k]) for k, x in one.items())


def recipe(skill="senior", target=-1.0, layers=1, **options):
    cfg = sft.Config(**options)
    env = rollout.open_env(cfg)
    cfg.max_new = 99  # bytes: a demonstration takes more of them than its world's tokens
    return sft.warm_recipe(cfg, env, tokenizer.train([]), layers, 32, skill, target)


def test_a_warm_start_depends_on_everything_that_makes_it_and_on_nothing_else(
        tmp_path, monkeypatch):
    def path(*args, **options):
        return cache_path(recipe(*args, **options), str(tmp_path))
    same = [path(), path(steps=7, out="x", micro_rows=1, test_chains=9, resume=True)]
    different = [path("junior"), path(target=0.31), path(layers=2), path(seed=1), path(sft_lr=1e-3),
                 path(sft_rows=9), path(warm_steps=5), path(context=50), path(env="guess"),
                 path(env="house", level=1), path(env="house", level=2)]
    assert len(set(same)) == 1 and len({*same, *different}) == 1 + len(different)
    places = [tmp_path / name for name in ("here.jsonl", "there.jsonl", "other.jsonl")]
    for place, answer in zip(places, "338"):
        place.write_text("".join(
            json.dumps({"question": f"{i} and 1?", "answer": f"#### {answer}"}) + "\n"
            for i in range(40)))
    here, there, other = (path(env="gsm8k", data=str(place)) for place in places)
    assert here == there != other  # the content counts, not where it lies
    monkeypatch.setitem(arithmetic.SKILLS, "senior", (0.1, 0.3))  # another demonstrator
    assert path() not in same
    before, step = path(env="guess"), guess.Guess.step
    monkeypatch.setattr(guess.Guess, "step", lambda self, text: dataclasses.replace(step(self, text)))
    assert path(env="guess") == before
    monkeypatch.setattr(guess.Guess, "step", lambda self, text: dataclasses.replace(
        step(self, text), observation="higher"))  # the demonstrations are the same, the answers not
    assert path(env="guess") != before
    monkeypatch.setattr(guess.Guess, "step", lambda self, text: dataclasses.replace(
        step(self, text), observation=str(random.random())))  # never the same: nothing to compare
    assert path(env="guess") == path(env="guess")


def test_a_warm_start_ends_at_its_target_or_gives_up_with_what_it_has(monkeypatch):
    looks = []

    def success_rate(*_):
        looks.append(1)
        return 0.1 * len(looks), 0.2 * len(looks)
    monkeypatch.setattr(sft, "success_rate", success_rate)
    made = sft.train_warm(recipe(target=0.4, warm_steps=200, sft_rows=2))
    # a look at step 25 (.2), none at 30 because that is not near, and the target at 50
    assert (made["steps"], made["reached"], made["target"]) == (50, True, 0.4)
    assert made["solo"] == pytest.approx(0.2)
    looks.clear()
    made = sft.train_warm(recipe(target=9.0, warm_steps=30, sft_rows=2))
    assert (made["steps"], made["reached"]) == (30, False)
    assert made["model_config"] == dataclasses.asdict(small_config(258, 64, 1, 32))


def test_a_world_without_demonstrations_says_what_it_lacks(monkeypatch):
    senior = {"senior": (1, 32, "senior", 0.5)}
    for gives in (None, []):
        monkeypatch.setattr(guess.Guess, "demo", lambda *_: gives)
        with pytest.raises(run.Stop, match="its demo.* gives none; see envs/guess.py"):
            sft.starting_points(sft.Config(env="guess"), envs.Batch("guess"), "cpu", senior)
    monkeypatch.setattr(guess.Guess, "demo", lambda *_: [7])
    with pytest.raises(run.Stop, match="give texts, but task 0 gave 7"):
        sft.starting_points(sft.Config(env="guess"), envs.Batch("guess"), "cpu", senior)
    monkeypatch.setattr(guess.Guess, "targets", {})
    with pytest.raises(run.Stop, match="give it demo.. and targets, as envs/guess.py has"):
        sft.starting_points(sft.Config(env="guess"), envs.Batch("guess"), "cpu", senior)
    monkeypatch.delattr(guess, "make")
    with pytest.raises(ValueError, match="envs/guess has no function make"):
        envs.make("guess")


def test_a_demonstrator_that_the_world_does_not_have_is_one_line():
    cfg = sft.Config()
    with pytest.raises(run.Stop, match="arithmetic has no demonstrations of skill 'expert'"):
        sft.starting_points(cfg, envs.Batch("arithmetic"), "cpu",
                            {"student": (1, 32, "expert", 0.5)})


# ---- demonstrations ----

def test_the_loss_is_on_the_players_turns_and_on_no_observation():
    env, tok = envs.Batch("guess"), tokenizer.train(["guess more less"] * 3, 270)
    tokens, mask = sft.demonstration_batch(env, tok, 0, 8, 0, "senior", 48)
    again, _ = sft.demonstration_batch(env, tok, 0, 8, 0, "senior", 48)
    other, _ = sft.demonstration_batch(env, tok, 1, 8, 0, "senior", 48)
    assert torch.equal(tokens, again) and not torch.equal(tokens, other)
    for ids, told in zip(tokens, mask):
        said = tok.decode(ids[told]).split("<|end|>")
        assert all(answer.isdigit() for answer in said[:-1]) and not said[-1]
        heard = tok.decode(ids[~told]).rstrip("\0").split("<|turn|>")
        assert heard[0] == "guess" and set(heard[1:-1]) <= {"more", "less"}


def test_a_demonstration_that_does_not_fit_is_left_out_and_none_is_an_error():
    env, tok = envs.Batch("guess"), tokenizer.train([])
    whole = [sft.demonstration_row(env, tok, task, "train", "0 0", "senior", 99)
             for task in range(8)]
    longest = max(len(ids) for ids, _ in whole)
    assert sft.demonstration_row(env, tok, 0, "train", "0 0", "senior", 3) is None
    tokens, _ = sft.demonstration_batch(env, tok, 0, 8, 0, "senior", longest - 1)
    assert 0 < len(tokens) < 8 and tokens.shape[1] < longest
    with pytest.raises(run.Stop, match="raise --context"):
        sft.demonstration_batch(env, tok, 0, 8, 0, "senior", 3)


def test_an_update_is_the_mean_over_the_tokens_whatever_the_micro_batches():
    torch.manual_seed(0)
    model = GPT(small_config(16, 12, 1, 32))
    tokens = torch.randint(16, (6, 12))
    mask = torch.rand(6, 12) < 0.4
    expected = -token_logp(model, tokens)[mask & (torch.arange(12) > 0)].sum() / mask.sum()
    gradient = torch.autograd.grad(expected, list(model.parameters()))
    for micro_rows in (64, 2, 1):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        stats = sft.update(model, optimizer, tokens, mask, micro_rows=micro_rows, grad_clip=1e9)
        assert stats["loss"] == pytest.approx(expected.item(), abs=1e-5) and not stats["skipped"]
        for p, g in zip(model.parameters(), gradient):
            torch.testing.assert_close(p.grad, g, rtol=0, atol=1e-5)


def test_a_world_of_few_engines_is_decoded_so_many_games_at_a_time(monkeypatch):
    env = envs.Batch("guess")
    monkeypatch.setattr(type(env.first), "games_at_once", 3)
    cfg = sft.Config(env="guess")
    assert decoded_rows(cfg, env) == env.at_once(128) == 3
    assert decoded_rows(dataclasses.replace(cfg, rows=5), env) == 5  # what you ask for
    assert env.at_once(2) == 2
    monkeypatch.setattr(type(env.first), "games_at_once", 0)
    assert env.at_once(128) == 128
