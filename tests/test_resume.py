"""Interrupted, killed, out of disk: a run that goes on ends as if nothing had happened."""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import grpo
import run
import sample
import train
from conftest import MOVING, REPO, errors, interrupt_at, metrics, outcome, poison, tiny
from envs import Step
from envs.guess import Guess
from lib import resume

LINE = ("interrupted; whatever was saved is kept. "
        "The same command with --resume goes on")  # after Ctrl-C that ends at once


# ---- signals ----

@pytest.mark.parametrize("method", train.METHODS)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
        command, straight, monkeypatch, method):
    expected = straight(method)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        code, out, _ = command(*MOVING[method])
    assert code == 128 + signal.SIGINT and "train.py --resume --out o" in out
    assert run.load("o/ckpt.pt")["step"] == 2 and not Path("o/result.json").exists()
    code, out, _ = command("--resume")
    assert code == 0 and "resumed at step 2 of 4" in out
    assert outcome() == expected


@pytest.mark.parametrize("args", [
    "--method atod --turns 3 --context 45", "--method worldmodel --formulation leaky",
    "--method worldmodel --flat --terms sup", "--method tandem --junior-width 64",
    "--method tandem --kl 1 --kl-to junior --minibatches 2",
    "--method grpo --env guess --warm-steps 60 --group 4 --kl 1", "--method tandem --p 1"])
def test_a_resumed_run_keeps_its_junior_and_its_reference(command, monkeypatch, args):
    assert command(*args.split(), "--out", "straight")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert command(*args.split())[0] == 128 + signal.SIGINT
    assert command(*args.split(), "--resume")[0] == 0
    assert outcome() == outcome("straight")  # legibility and handoff, the junior's too, among it


def test_a_signal_in_the_last_update_leaves_the_table_to_resume(command, straight, monkeypatch):
    expected = straight("sft")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        code, out, _ = command(*MOVING["sft"])
    assert code == 130 and "stopped at step 4 of 4, saved" in out
    assert not Path("o/result.json").exists()
    assert command("--resume")[0] == 0 and outcome() == expected


def test_a_run_whose_cache_is_gone_goes_on_with_another(command, straight, monkeypatch):
    expected = straight("tandem")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["tandem"], "--cache", "scratch")
    shutil.rmtree("scratch")
    Path("scratch").write_text("a file")
    code, _, err = command("--resume", "--cache", "scratch")
    assert code == 2 and "choose another --cache" in err
    code, _, err = command("--resume", "--cache", "other")
    assert code == 0, err
    assert outcome() == expected


@pytest.mark.parametrize("method", ["sft", "worldmodel"])
def test_a_signal_during_the_table_ends_at_once_and_resume_prints_the_table(
        command, straight, monkeypatch, method):
    expected = straight(method)
    module, handlers = train.METHODS[method][0], []

    def interrupted(r):
        handlers.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was only noted")
    with monkeypatch.context() as patch:
        patch.setattr(module, "report", interrupted)
        code, out, err = command(*MOVING[method])
    assert code == 130 and err.splitlines()[-1] == LINE
    assert [line for line in err.splitlines() if "interrupted" in line] == [LINE]
    assert "Traceback" not in err and "stopping" not in err and not errors(err)
    assert handlers == [signal.SIG_DFL]
    assert run.load("o/ckpt.pt")["step"] == 4 and not Path("o/result.json").exists()
    code, out, _ = command("--resume")
    assert code == 0 and "resumed at step 4" in out and "next:\n  python sample.py o" in out
    assert outcome() == expected


def test_a_closed_terminal_saves_and_stops_but_under_nohup_it_stops_nothing(
        command, straight, monkeypatch):
    expected, log = straight("sft"), run.log

    def logged(out, line):
        log(out, line)
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGHUP)
    monkeypatch.setattr(run, "log", logged)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    assert command(*MOVING["sft"])[0] == 128 + signal.SIGHUP
    assert run.load("o/ckpt.pt")["step"] == 2
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    assert command(*MOVING["sft"], "--out", "on")[0] == 0
    assert outcome("on") == expected
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert command("--resume")[0] == 0 and outcome() == expected
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL  # during the table


# ---- resume ----

def test_resume_of_a_finished_run_and_of_none_give_the_same_table(command, straight):
    expected = straight("sft")
    assert command("--resume", "--out", "straight")[0] == 0
    code, out, _ = command(*MOVING["sft"], "--resume", "--out", "none yet")
    assert code == 0 and "nothing to resume in none yet" in out
    assert outcome("straight") == outcome("none yet") == expected


@pytest.mark.parametrize("method", ["grpo", "worldmodel"])
def test_killed_without_warning_and_resumed_gives_the_same_numbers(
        command, straight, cache, method):
    longer = ["--steps", "40", "--save-every", "3"]
    expected = straight(method, *longer)
    args = tiny("--cache", cache, *MOVING[method], *longer)
    victim = subprocess.Popen([sys.executable, str(REPO / "train.py"), *args],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = Path("o/metrics.jsonl")
    while victim.poll() is None and not (log.exists() and log.read_text().count("\n") >= 5):
        time.sleep(0.01)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL  # it was still at work
    assert 3 <= run.load_last("o")[0]["step"] < 40
    assert command("--resume", *longer)[0] == 0
    assert outcome() == expected


def test_other_threads_ranks_or_compilation_than_the_run_had_are_announced(command, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["sft"])
    before = Path("o/ckpt.pt").read_bytes()
    state = run.load("o/ckpt.pt")
    for change in ({"threads": 2}, {"world": 2}, {"compiled": True}):
        torch.save({**state, **change}, "o/ckpt.pt")
        with monkeypatch.context() as patch:
            interrupt_at(patch, 3)
            code, out, _ = command("--resume")
        assert code == 130 and "the numbers may differ in their last bits" in out
    Path("o/ckpt.pt").write_bytes(before)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        code, out, _ = command("--resume", "--save-every", "7", "--eval-every", "3")
    assert code == 130 and "differ" not in out
    assert f"--save-every: {state['options']['save_every']} before, 7 now" in out
    assert f"--eval-every: {state['options']['eval_every']} before, 3 now" in out
    code, out, _ = command("--resume")
    assert code == 0 and "differ" not in out


@pytest.mark.parametrize("lacks", ["log", "threads", "made_of", "origins", "warm"])
def test_a_checkpoint_of_another_version_is_one_line(command, monkeypatch, capsys, lacks):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["sft"])
    state = run.load("o/ckpt.pt")
    assert state.keys() == set(resume.WRITTEN)
    del state[lacks]
    torch.save(state, "o/ckpt.pt")
    code, _, err = command("--resume")
    assert code == 2 and f"another version of this project: it lacks {lacks}" in errors(err)[0]
    assert sample.main(["o"]) == 2 and f"it lacks {lacks}" in capsys.readouterr().err


def test_an_edited_method_is_told_in_one_line(command, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["sft"])
    config = Path("o/config.json")
    config.write_text(config.read_text().replace('"method": "sft"', '"method": "grpo"'))
    code, _, err = command("--resume")
    assert code == 2 and len(errors(err)) == 1
    assert "of another method" in err and "put config.json back" in err


def test_a_run_whose_options_or_models_changed_meanwhile_is_not_resumed(command, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["tandem"])
    before, state = Path("o/ckpt.pt").read_bytes(), run.load("o/ckpt.pt")
    changed = {**state["made_of"], "the junior": "0"}
    torch.save({**state, "made_of": changed}, "o/ckpt.pt")
    code, _, err = command("--resume")
    assert code == 2 and "the junior of this run changed" in err and len(errors(err)) == 1
    Path("o/ckpt.pt").write_bytes(before)
    for old, new, words in (('"clip": 0.2', '"clip": 0.3', "--clip 0.3, its checkpoint 0.2"),
                            ('"steps": 4', '"steps": 4.5', "which is no int")):
        text = Path("o/config.json").read_text()
        assert old in text
        Path("o/config.json").write_text(text.replace(old, new))
        code, _, err = command("--resume")
        assert code == 2 and words in err and len(errors(err)) == 1
        Path("o/config.json").write_text(text)
    assert command("--resume")[0] == 0


def test_a_world_that_was_edited_meanwhile_does_not_go_on(command, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["grpo"])
    with monkeypatch.context() as patch:  # another reward for the same answers
        patch.setattr(Guess, "step", lambda self, text: Step("", 0.5, True, {"success": True}))
        code, _, err = command("--resume")
        assert code == 2 and "the world of this run changed" in err and len(errors(err)) == 1
    assert command("--resume")[0] == 0


# ---- damaged files ----

@pytest.fixture
def stopped(command, straight, monkeypatch):
    """A run of four steps stopped after its third, and what it should become."""
    expected = straight("sft")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        command(*MOVING["sft"])
    return expected


def test_whatever_became_of_the_metrics_they_are_as_they_were(command, straight):
    expected = straight("sft")
    path = Path("straight/metrics.jsonl")
    whole = path.read_bytes()
    for content in (None, b"", whole[:50], whole[60:], whole.replace(b"0", b"9"), b"\xff\0" * 50):
        path.unlink() if content is None else path.write_bytes(content)
        Path("straight/result.json").unlink()
        assert command("--resume", "--out", "straight")[0] == 0
        assert outcome("straight") == expected and path.read_bytes() == whole


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_text('{"meth')],
                         ids=["gone", "cut"])
def test_a_run_that_lost_its_config_goes_on_from_what_the_checkpoint_says(command, stopped, damage):
    damage(Path("o/config.json"))
    code, _, err = command(*MOVING["sft"])
    assert code == 2 and "--resume" in err  # it is a run still
    code, _, err = command("--resume")
    assert code == 0 and "config.json cannot be read" in err and outcome() == stopped


def test_a_log_without_a_checkpoint_is_not_overwritten(command, stopped):
    for path in Path("o").glob("ckpt.pt*"):
        path.unlink()
    log = Path("o/metrics.jsonl").read_bytes()
    code, _, err = command("--resume")
    assert code == 2 and "a log of 3 updates and no checkpoint" in err and len(errors(err)) == 1
    assert Path("o/metrics.jsonl").read_bytes() == log


def test_a_damaged_warm_start_of_a_run_is_made_again(command, monkeypatch):
    cache = ("--cache", "own")
    assert command(*MOVING["tandem"], *cache, "--out", "straight")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        command(*MOVING["tandem"], *cache)
    path, = Path("own").glob("junior-*.pt")
    path.write_bytes(path.read_bytes()[:999])
    code, _, err = command("--resume", *cache)
    assert code == 0 and "it is made again" in err and outcome() == outcome("straight")


@pytest.mark.parametrize("damage", [
    lambda p: p.write_bytes(p.read_bytes()[:1000]), lambda p: p.unlink()],
    ids=["corrupt", "killed between the renames"])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(command, stopped, damage):
    damage(Path("o/ckpt.pt"))
    damaged = Path("o/ckpt.pt").exists()
    code, out, err = command("--resume")
    assert code == 0 and "resumed at step 2" in out and ("warning: o/ckpt.pt" in err) == damaged
    assert outcome() == stopped


def test_two_corrupt_checkpoints_are_refused(command, stopped):
    for name in ("ckpt.pt", "ckpt.pt.previous"):
        Path("o", name).write_bytes(b"")
    code, _, err = command("--resume")
    assert code == 2 and len(errors(err)) == 1 and Path("o/ckpt.pt").read_bytes() == b""


def test_metrics_beyond_the_checkpoint_are_cut(command, stopped):
    with open("o/metrics.jsonl", "a") as file:
        file.write('{"step": 4, "loss": 99}\n{"step": 5}\n{"step": 6, "lo')
    assert command("--resume")[0] == 0
    assert outcome() == stopped


def test_samples_beyond_the_checkpoint_are_not_written_twice(command, stopped):
    Path("o/ckpt.pt").unlink()  # back to the start; samples were written at step 2
    assert command("--resume")[0] == 0
    assert Path("o/samples.txt").read_text() == Path("straight/samples.txt").read_text()


# ---- accidents ----

def test_a_non_finite_loss_skips_its_update_and_is_counted(command, monkeypatch):
    poison(monkeypatch, 2, 4)
    assert command("--method", "sft")[0] == 0
    assert [m["skipped"] for m in metrics()] == [0, 1, 1, 2]
    final, previous = run.load("o/ckpt.pt"), run.load("o/ckpt.pt.previous")
    assert final["skipped"] == 2
    assert all(torch.equal(x, previous["model"][k]) for k, x in final["model"].items())


def test_nine_in_a_row_go_on_and_ten_stop_with_the_checkpoint_named(command, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, *range(2, 11), *range(12, 21))
        assert command("--method", "sft", "--steps", "22")[0] == 0
    poison(monkeypatch, *range(3, 13))
    code, _, err = command("--method", "sft", "--steps", "15", "--out", "ten")
    assert code == 2 and len(errors(err)) == 1 and "ten/ckpt.pt" in errors(err)[0]
    assert not Path("ten/result.json").exists()
    assert all(x.isfinite().all() for x in run.load("ten/ckpt.pt")["model"].values())


def test_the_checkpoint_named_after_ten_bad_updates_exists(command, monkeypatch):
    poison(monkeypatch)
    code, _, err = command("--method", "sft", "--steps", "15", "--save-every", "100")
    assert code == 2 and "o/ckpt.pt" in errors(err)[0] and Path("o/ckpt.pt").exists()


@pytest.mark.parametrize("failure", [
    OSError(28, "No space left on device"),
    RuntimeError("PytorchStreamWriter failed\nwriting file")], ids=["OSError", "RuntimeError"])
def test_a_full_disk_leaves_the_earlier_checkpoint(command, straight, monkeypatch, failure):
    expected, save = straight("sft"), torch.save

    def full(state, file):
        if state["step"] == 3:
            file.write(b"half a")
            raise failure
        save(state, file)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        code, _, err = command(*MOVING["sft"])
    assert code == 2 and len(errors(err)) == 1 and "o/ckpt.pt" in errors(err)[0]
    assert "Traceback" not in err
    assert run.load("o/ckpt.pt")["step"] == 2 and not list(Path("o").glob("*.tmp"))
    assert command("--resume")[0] == 0
    assert outcome() == expected


# ---- nonsense ----

def test_a_model_of_nonsense_is_refused_and_never_replaces_a_good_checkpoint(command, monkeypatch):
    assert command(*MOVING["grpo"])[0] == 0
    state = run.load("o/ckpt.pt")
    for value in (float("nan"), float("inf")):
        bad = {name: torch.full_like(x, value) for name, x in state["model"].items()}
        torch.save({**state, "model": bad}, "bad.pt")
        code, _, err = command(*MOVING["grpo"], "--senior", "bad.pt", "--out", "other")
        assert code == 2 and "bad.pt (the senior): weights that are not finite" in err
        assert len(errors(err)) == 1 and not Path("other/ckpt.pt").exists()

    def poisoned(r, step=grpo.step):
        stats = step(r)
        if r.step == 2:
            next(r.model.parameters()).data.fill_(float("nan"))
        return stats
    monkeypatch.setattr(grpo, "step", poisoned)
    code, _, err = command(*MOVING["grpo"], "--out", "later", "--save-every", "1")
    assert code == 2 and "later/ckpt.pt" in err and len(errors(err)) == 1
    kept = run.load("later/ckpt.pt")
    assert kept["step"] == 2 and all(x.isfinite().all() for x in kept["model"].values())
