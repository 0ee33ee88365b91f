"""Processes that die, for tests/torture.py: ranks, their launcher, workers of a world and their
engines; and what grows in one that lives long."""
import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

import envs
import run
from conftest import REPO
from torture_runs import Child, options


# ---- ranks ----

def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start_ranks(folder, args):
    port = free_port()

    def rank(number):
        return lambda: os.environ.update(RANK=str(number), WORLD_SIZE="2", MASTER_PORT=port,
                                         MASTER_ADDR="127.0.0.1")
    return [Child(folder, args, rank(number), f"rank{number}") for number in (0, 1)]


def two_ranks(check):
    """Two processes make the updates of one, but for the rounding of a sum in another order."""
    for number, rng, folder in check.each():
        method = ("grpo", "tandem", "atod", "worldmodel")[number % 4]
        alone, together = folder / "alone", folder / "together"
        alone.mkdir(), together.mkdir()
        args = options(method, "--seed", str(rng.randrange(1000)), "--lr", "1e-4")
        child = Child(alone, args)
        ranks = start_ranks(together, args)
        codes = [child.wait(), *(rank.wait() for rank in ranks)]
        wrong = "" if codes == [0, 0, 0] else "; ".join(c.end() for c in (child, *ranks))
        if not wrong:
            one, two = (run.load(str(place / "o/ckpt.pt")) for place in (alone, together))
            gap = torch.cat([(two["model"][name] - x).abs().flatten()
                             for name, x in one["model"].items()])
            far = (gap > 1e-5).float().mean()
            if far > 5e-3 or gap.max() > 4e-4:
                wrong = f"{far:.4f} of the weights differ, by up to {gap.max():.1e}"
        check.case(wrong and f"case {number}, {args[-4:]}, {method}: {wrong}")


def killed_ranks(check):
    """A rank dies between its updates: the other says so in one line, and the run can go on."""
    for number, rng, folder in check.each():
        method = ("tandem", "grpo", "atod")[number % 3]
        args = options(method, "--steps", "300", "--save-every", "3")
        ranks = start_ranks(folder, args)
        log, until = folder / "o/metrics.jsonl", time.monotonic() + 300
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(rng.random())
        victim = rng.randrange(2)
        ranks[victim].kill()
        other = ranks[1 - victim]
        other.wait(60)
        wrong = "" if other.refused() else other.end()
        if not wrong and run.load_last(str(folder / "o"))[0] is None:
            wrong = "no checkpoint"
        check.case(wrong and f"case {number}, {method}, rank {victim} killed: {wrong}")


def descendants(pid):
    """The processes that a process started, and those that they did."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        new = children.get(left.pop(), [])
        found += new
        left += new
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def killed_launchers(check):
    """torchrun, or a rank that it started, is killed after the ranks took their folder: nothing
    lives on for long without the folder's being held, and then the run can go on."""
    for number, rng, folder in check.each():
        args = options("grpo", "--steps", "300", "--save-every", "3")
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
                  f"--master_port={free_port()}", str(REPO / "train.py"), *args]
        with open(folder / "said.txt", "w") as said:
            launcher = subprocess.Popen(launch, cwd=folder, stdout=said, stderr=said,
                                        start_new_session=True)
        until = time.monotonic() + 300
        while len([*folder.glob("o/lock.*")]) < 2 and time.monotonic() < until:
            time.sleep(0.02)  # before they hold the folder, another run may take it
        time.sleep(rng.uniform(0, 15))
        started = descendants(launcher.pid)
        ranks = [pid for pid in started if alive(pid) and
                 b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        victim = launcher.pid if number % 2 or not ranks else rng.choice(ranks)
        os.kill(victim, signal.SIGKILL)
        wrong = ""
        if victim == launcher.pid:  # its ranks work on, and hold the folder
            launcher.wait()
            child = Child(folder, [*args, "--resume"], name="beside")
            child.wait(60)
            held = any(alive(pid) for pid in ranks)
            if held and not child.refused():
                wrong = f"a second run beside the ranks: {child.end()}"
            for pid in started:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
        else:
            try:
                launcher.wait(90)
            except subprocess.TimeoutExpired:
                wrong = "the launcher waits for ever"
                launcher.kill()
        time.sleep(1)
        left = [pid for pid in started if alive(pid)]
        wrong = wrong or (f"{len(left)} processes are left" if left else "")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        check.case(wrong and f"case {number}: {wrong}")


# ---- engines that die ----

def play_while(kill, batch, check, tasks):
    """Play demonstrations side by side while engines are killed: a game says what it says alone, or
    counts as failed."""
    skill = next(iter(batch.first.targets))
    for number in range(check.first, check.first + check.cases):
        rng = random.Random(f"{check.name} {number}")
        mine = [rng.choice(tasks) for _ in range(3)]
        try:
            plans = [answers for _, answers in batch.demos(mine, "train", 0, skill)]
            alone = listen(batch, mine, plans, lambda: None)
            heard = listen(batch, mine, plans, lambda: kill(rng) if rng.random() < 0.3 else None)
        except ValueError as error:
            check.case("" if "twice" in str(error) else f"case {number}: {error}")
            continue
        except Exception as error:
            check.case(f"case {number}: {type(error).__name__}: {error}")
            continue
        wrong = [(a, b) for a, b in zip(alone, heard) if a != b and "failed" not in b]
        check.case(wrong and f"case {number}: {wrong[0]}"[:500])


def listen(batch, tasks, plans, disturb):
    """-> what each game said, "failed" when its engine did."""
    heard = [[text] for text in batch.reset_many(tasks, "train")]
    going = [row for row, plan in enumerate(plans) if plan]
    for turn in range(8):
        going = [row for row in going if turn < len(plans[row])]
        if not going:
            break
        disturb()
        steps = batch.step_many(going, [plans[row][turn] for row in going])
        for row, step in zip(going, steps):
            failed = step.info.get("engine_failed")
            heard[row].append("failed" if failed else step.observation)
        going = [row for row, step in zip(going, steps) if not step.done]
    return heard


def kill_one(rng, name=b""):
    """Kill a process that this one started, of those whose command holds the name."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    if found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)


def left_behind(check, before):
    time.sleep(1)
    left = [pid for pid in before if alive(pid)]
    if left:
        check.case(f"{len(left)} processes are left")
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def killed_workers(check):
    """Workers and their guards of a world in processes, killed at random."""
    os.environ["TEXTWORLD_GAMES"] = os.path.abspath("games")
    killed_engines(check, "textworld", {"games": 5}, b"")


def killed_java(check):
    """Java, of a world that plays in it."""
    killed_engines(check, "scienceworld", {}, b"java")


def killed_engines(check, name, options, command):
    try:
        batch = envs.Batch(name, **options)
    except ValueError as error:
        check.skipped = f"skipped: {error}"[:80]
        return
    tasks = range(min(5, batch.first.tasks("train")))
    play_while(lambda rng: kill_one(rng, command), batch, check, tasks)
    started = descendants(os.getpid()) if batch.pool else []
    if batch.pool:
        for number in list(batch.pool.workers):
            batch.pool.kill(number)
    left_behind(check, [pid for pid in started if command in b"java" or not command])


# ---- growth ----

def growth(check):
    """Memory and open files over so many updates of tiny runs."""
    page = resource.getpagesize()
    for method in ("grpo", "tandem"):
        folder = Path(f"growth-{method}").absolute()
        folder.mkdir()
        steps = check.cases // 2

        def watched():
            log = run.log

            def logged(out, line):
                log(out, line)
                memory = int(Path("/proc/self/statm").read_text().split()[1]) * page
                with open("sizes.txt", "a") as file:
                    file.write(f"{memory} {len(os.listdir('/proc/self/fd'))}\n")
            run.log = logged
        args = [*options(method), "--steps", str(steps), "--eval-every", "100",
                "--save-every", "50"]
        child = Child(folder, args, watched)
        child.wait(1200)
        wrong = "" if child.code == 0 else child.end()
        if not wrong:
            sizes = [[int(x) for x in line.split()] for line in open(folder / "sizes.txt")]
            early, late = sizes[len(sizes) // 4], sizes[-1]
            if late[0] > 1.1 * early[0] + 2**24 or late[1] > early[1]:
                wrong = f"{early} bytes and files became {late}"
        check.tried += steps - 1
        check.case(wrong and f"{method}: {wrong}")
