"""The pool of envs.Batch: what it hears is what the loop hears; whatever an engine does, only its
own episodes are lost, and nothing stays behind. Processes are looked up in /proc."""
import gc
import os
import signal
import subprocess
import sys
import time

import pytest

import envs
from conftest import REPO
from contract import check_batch_agrees_with_single
from envs.lib import pool

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"),
                                reason="looks its processes up in /proc")

SHAKY = '''
"""Counts its turns and does as it is told, bad things included."""
import os, random, signal, subprocess, sys, time
from envs import Env, Step

class Shaky(Env):
    max_turns = 99

    def tasks(self, split):
        return None

    def reset(self, task, split):
        self.task, self.turn = task, 0
        # A task that is a file fails once.
        if task == "never" or (os.path.exists(str(task)) and not os.remove(task)):
            os._exit(3)
        return f"{split} {task}"

    def demo(self, rng, skill):
        return [skill, str(rng.random()), str(os.getpid())]

    def step(self, text):
        self.turn += 1
        if text == "hang":
            time.sleep(1000)
        if text == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if text == "crash":
            os._exit(3)
        if text == "exit":
            sys.exit("bye")
        if text == "raise":
            raise RuntimeError("two\\nlines")
        if text == "odd":
            return Step("", 0.0, False, {"odd": lambda: 0})  # cannot be sent
        if text == "talk":
            print("engine talk"), sys.stdin.read()
        if text == "child":
            text = subprocess.Popen(["sleep", "1000"]).pid
        said, won = f"{self.task} {self.turn} {text} {os.getpid()}", text == "win"
        return Step(said, 0.5, won, {"success": won})

def make(workers=2, limit=60):
    env = Shaky()
    env.workers, env.time_limit = workers, limit
    return env
'''
HOUSE = '''
from envs import house

def make(workers=0):
    env = house.make(level=1)
    env.workers = workers
    return env
'''
FAILED = envs.Step("", 0.0, True, {"success": False, "engine_failed": True, "truncated": False})


@pytest.fixture
def more(tmp_path, monkeypatch):
    """Two more environments: shaky, and a house that asks for workers."""
    (tmp_path / "shaky.py").write_text(SHAKY)
    (tmp_path / "pooled.py").write_text(HOUSE)
    monkeypatch.setattr(envs, "__path__", [*envs.__path__, str(tmp_path)])
    return tmp_path


@pytest.fixture
def five(more):
    """five(options) -> five games in two workers, with one turn behind them: rows 0, 2, 4 and rows
    1, 3"""
    def start(**options):
        batch = envs.Batch("shaky", **options)
        assert batch.reset_many(range(5), "train") == [f"train {task}" for task in range(5)]
        assert told(batch.step_many(range(5),
                                    "abcde")) == ["0 1 a", "1 1 b", "2 1 c", "3 1 d", "4 1 e"]
        return batch
    return start


def told(steps):
    return [step.observation.rsplit(" ", 1)[0] for step in steps]


def works_again(batch):
    """After a new reset all rows answer."""
    assert batch.reset_many("vwxyz", "valid") == [f"valid {task}" for task in "vwxyz"]
    assert told(batch.step_many(range(5), "abcde")) == ["v 1 a", "w 1 b", "x 1 c", "y 1 d", "z 1 e"]


def stat(pid):
    """-> state and session of a process; "" and 0 when there is none"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[3])
    except OSError:
        return "", 0


def alive(pid):
    """Is it there, and not only waiting for its parent to take notice of its end?"""
    return stat(pid)[0] not in ("", "Z", "X")


def session(leader):
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and stat(pid)[1] == leader]


def gone(pids, seconds=20):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


# ---- the same as the loop ----

@pytest.mark.parametrize("workers", [1, 3])
def test_a_pool_hears_what_the_loop_hears(more, workers):
    loop, pool = envs.Batch("house", level=1), envs.Batch("pooled", workers=workers)
    assert loop.pool is None and pool.pool.count == workers
    # This says all sorts of garbage, and a demonstration.
    check_batch_agrees_with_single(loop.first, "pooled", {"workers": workers})
    assert pool.demos(range(7), "train", 5, "expert") == loop.demos(range(7), "train", 5, "expert")
    # Batch.first stands where the last demonstration began.
    assert pool.first.step("look") == loop.first.step("look")
    assert pool.reset_many([3, 1], "test") == loop.reset_many([3, 1], "test")
    assert pool.step_many([1, 0], ["look", "?"]) == loop.step_many([1, 0], ["look", "?"])
    assert pool.first.reset(8, "valid") == loop.first.reset(8, "valid")
    assert pool.first.max_turns == loop.first.max_turns
    assert pool.reset_many([], "test") == pool.step_many([], []) == []
    assert pool.demos([], "test", 0, "expert") == []
    assert pool.seconds > 0


def test_a_toy_stays_in_a_loop_without_any_process():
    code = ("import sys, envs; b = envs.Batch('guess'); b.reset_many([1, 2], 'train'); "
            "print(b.pool, {'envs.lib.pool', 'subprocess'} & {*sys.modules})")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == "None set()\n"


def test_games_are_spread_over_so_many_workers(five):
    steps = five(workers=2).step_many(range(5), "fghij")
    homes = [step.observation.split()[-1] for step in steps]
    assert homes[0] == homes[2] == homes[4] != homes[1] == homes[3]
    assert 1 <= envs.Batch("shaky", workers=-1).pool.count <= 8


def test_workers_run_side_by_side_and_no_more_than_needed(more):
    batch = envs.Batch("shaky", workers=3)
    demos = batch.demos(range(2), "train", 0, "junior")
    assert len({answers[-1] for _, answers in demos}) == 2 == len(batch.pool.workers)


# ---- an engine that fails ----

@pytest.mark.parametrize("deed, options",
                         [("hang", {"limit": 3}), ("stop", {"limit": 3}), ("crash", {}),
                          ("exit", {})])
def test_a_worker_that_hangs_or_dies_loses_one_episode_and_the_others_in_it_are_played_again(
        five, capsys, deed, options):
    batch = five(**options)
    lost = session(batch.pool.workers[1].process.pid)
    assert len(lost) == 2
    steps = batch.step_many([0, 1, 2], ["k", deed, "l"])
    assert told([steps[0], steps[2]]) == ["0 2 k", "2 2 l"] and steps[1] == FAILED
    assert gone(lost) and capsys.readouterr().err.count("warning: shaky: a worker") == 1
    steps = batch.step_many([0, 2, 3, 4, 1], "mnopq")  # row 3 lived there too
    assert told(steps) == ["0 3 m", "2 3 n", "3 2 o", "4 2 p", ""] and steps[4] == FAILED
    assert told(batch.step_many([3], "r")) == ["3 3 r"]
    works_again(batch)


def test_games_that_waited_behind_the_one_that_crashed_are_played_again_at_once(five, capsys):
    steps = five().step_many(range(5), ["crash", "k", "l", "crash", "m"])
    assert told(steps) == ["", "1 2 k", "2 2 l", "", "4 2 m"] and steps[0] == steps[3] == FAILED
    steps = five().step_many(range(5), ["crash", "k", "crash", "l", "crash"])
    assert told(steps) == ["", "1 2 k", "", "3 2 l", ""]


@pytest.mark.parametrize("deed", ["raise", "odd"])
def test_an_exception_in_a_step_loses_one_episode(five, capsys, deed):
    batch = five()
    steps = batch.step_many(range(5), ["k", deed, "l", "m", "n"])
    assert told(steps) == ["0 2 k", "", "2 2 l", "3 2 m", "4 2 n"] and steps[1] == FAILED
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert told(batch.step_many([0, 3], "op")) == ["0 3 o", "3 3 p"]
    works_again(batch)


@pytest.mark.parametrize("who", ["guard", "player"])
def test_a_worker_killed_between_steps(five, who):
    batch = five()
    guard = batch.pool.workers[0].process.pid
    victim = guard if who == "guard" else next(pid for pid in session(guard) if pid != guard)
    os.kill(victim, signal.SIGKILL)
    assert gone([victim])
    steps = batch.step_many(range(5), "fghij")
    assert told(steps) == ["", "1 2 g", "2 2 h", "3 2 i", "4 2 j"] and steps[0] == FAILED
    works_again(batch)


def test_an_episode_that_ended_before_the_crash_keeps_its_reward(five):
    steps = five().step_many(range(5), ["win", "k", "l", "m", "crash"])
    assert steps[0].info == {"success": True} and steps[0].reward == 0.5
    assert steps[4] == FAILED and told(steps[1:4]) == ["1 2 k", "2 2 l", "3 2 m"]


def test_a_reset_is_tried_once_more_and_then_named_in_one_line(more):
    batch, once = envs.Batch("shaky"), more / "once"
    once.touch()
    assert batch.reset_many([0, str(once), 2, 3],
                            "train") == ["train 0", f"train {once}", "train 2", "train 3"]
    assert told(batch.step_many(range(4), "abcd"))[::2] == ["0 1 a", "2 1 c"]
    once.touch()
    assert batch.demos([5, str(once)], "train", 0, "junior")[1][0] == f"train {once}"
    # They go on although the worker of one of them was replaced for the demonstration.
    assert told(batch.step_many([0, 3], "ef")) == ["0 2 e", "3 2 f"]
    with pytest.raises(envs.Failed, match="^shaky: .*died.*") as error:
        batch.reset_many([0, 1, "never", 3], "train")
    assert "\n" not in str(error.value)
    works_again(batch)


def test_an_interrupted_step_does_not_answer_the_next_one(five, monkeypatch):
    batch = five()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # An interrupt that works where SIGINT is ignored from the start, too.
        patch.setattr(pool, "wait", lambda *_: signal.default_int_handler(signal.SIGINT, None))
        batch.step_many(range(5), "fghij")
    # The interrupted turn did not happen.
    assert told(batch.step_many(range(5), "klmno")) == ["0 2 k", "1 2 l", "2 2 m", "3 2 n", "4 2 o"]
    works_again(batch)


def test_garbage_and_talk_do_not_disturb_the_pipe(five):
    batch, texts = five(), ["\x00" * 10_000, "talk", "日本\ud800", "x" * 3_000_000, ""]
    assert told(batch.step_many(range(5),
                                texts)) == [f"{i} 2 {text}" for i, text in enumerate(texts)]


# ---- the end ----

def test_ctrl_c_is_not_for_workers(five):
    batch = five()
    for worker in batch.pool.workers.values():
        os.killpg(worker.process.pid, signal.SIGINT)
    assert told(batch.step_many(range(5), "fghij")) == ["0 2 f", "1 2 g", "2 2 h", "3 2 i", "4 2 j"]


def test_workers_end_with_the_batch(five):
    batch = five()
    sleeps = [int(step.observation.split()[2]) for step in batch.step_many([0, 1], ["child"] * 2)]
    pids = [pid for worker in batch.pool.workers.values() for pid in session(worker.process.pid)]
    assert len(pids) == 6 and set(sleeps) < set(pids)
    del batch
    gc.collect()
    assert gone(pids)


@pytest.mark.parametrize("deed, number", [("", signal.SIGKILL), ("hang", signal.SIGKILL),
                                          ("stop", signal.SIGTERM)])
def test_nothing_outlives_a_trainer_that_is_killed(more, deed, number):
    """Idle, in the middle of a step, and with an engine that does not even hear signals."""
    code = (f"import envs; envs.__path__.append({str(more)!r}); b = envs.Batch('shaky')\n"
            f"b.reset_many([1, 2], 'train')\n"
            f"sleeps = [s.observation.split()[2] for s in b.step_many([0, 1], ['child'] * 2)]\n"
            f"print(*sleeps, *(w.process.pid for w in b.pool.workers.values()), flush=True)\n"
            f"b.step_many([0, 1], [{deed!r}] * 2) if {deed!r} else input()\n")
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as trainer:
        pids = list(map(int, trainer.stdout.readline().split()))
        pids += [pid for leader in pids[2:] for pid in session(leader)]
        assert len(set(pids)) == 6 and all(map(alive, pids))
        time.sleep(0.5)  # into the step
        trainer.send_signal(number)
    assert gone(pids)
