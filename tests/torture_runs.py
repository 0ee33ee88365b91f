"""What is done to runs, for tests/torture.py. A function is a check: it is given its cases, and
says of each what was lost."""
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

import grpo
import run
import sft
import train
import worldmodel
from conftest import MOVING, outcome, tiny

torch.set_num_threads(1)
HELD_OUT = worldmodel.held_out


# ---- train.py in processes of its own ----

class Child:
    """train.py in another process, which is forked: torch need not be imported again. `before` is
    called there first."""

    def __init__(self, folder, args, before=None, name="said"):
        self.folder, self.said = folder, folder / f"{name}.txt"
        self.pid, self.code = os.fork(), None
        if self.pid == 0:
            os._exit(self.work(args, before))

    def work(self, args, before):
        code = 1
        try:
            os.setpgid(0, 0)
            os.chdir(self.folder)
            file = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1), os.dup2(file, 2)
            sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # the floor of a world model's table takes thousands
            worldmodel.held_out = lambda r, split, n, future: HELD_OUT(r, split, min(n, 40), future)
            if before:
                before()
            code = train.main(args)
        except BaseException:
            traceback.print_exc()
        return code

    def ended(self):
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, seconds=180):
        """-> the exit code; "hangs" when it takes longer."""
        until = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > until:
                self.kill()
                self.code = "hangs"
            time.sleep(0.01)
        return self.code

    def kill(self):
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL

    def text(self):
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def refused(self):
        """It ended with one line that says why."""
        lines = [line for line in self.text().splitlines() if line.startswith("error:")]
        return self.code == 2 and len(lines) == 1 and "Traceback" not in self.text()

    def end(self):
        """How it ended, in a line."""
        return f"code {self.code}, {self.text()[-300:]!r}"


def options(method, *args):
    return tiny("--cache", "warm", *MOVING[method], *args)


def straight(method, folder, before=None, *args):
    """A run that nothing happens to -> its outcome."""
    child = Child(folder, options(method, *args), before)
    if child.wait() != 0:
        raise RuntimeError(f"{method} does not even work: {child.end()}")
    return outcome(str(folder / "o"))


def differs(child, expected, folder):
    """What is wrong with a run that ended; "" when its numbers are those expected."""
    if child.code != 0 or "Traceback" in child.text():
        return child.end()
    left = [path.name for path in folder.rglob("*.tmp")]
    if left:
        return f"left {left}"
    same = outcome(str(folder / "o")) == expected
    return "" if same else f"other numbers: {child.text()[-200:]!r}"


# ---- kills ----

def marked(pipe, method):
    """Write to the pipe when a part of the run begins or ends."""
    module = train.METHODS[method][0]
    places = {"warm start": (sft, "cached"), "rollout": (module, "step"),
              "update": (grpo, "apply_gradients"), "checkpoint": (run, "save"),
              "evaluation": (module, "look"), "table": (module, "report")}
    for name, (place, function) in places.items():
        def wrapped(*args, name=name, inner=getattr(place, function), **how):
            os.write(pipe, f"{name}\n".encode())
            try:
                return inner(*args, **how)
            finally:
                os.write(pipe, f"end {name} {time.monotonic()}\n".encode())
        setattr(place, function, wrapped)


def timed_parts(method, folder):
    """-> {part: [(which time, seconds it takes)]}, the outcome. Cold, with its warm starts."""
    inside, outside = os.pipe()
    parts, begun = {}, []
    child = Child(folder, options(method), lambda: marked(outside, method))
    os.close(outside)
    for line in os.fdopen(inside):
        if line.startswith("end "):
            name, began = begun.pop()
            parts.setdefault(name, []).append(time.monotonic() - began)
        else:
            begun.append((line.strip(), time.monotonic()))
    assert child.wait() == 0, child.end()
    return parts, outcome(str(folder / "o"))


def kill_in(child, pipe, part, which, delay):
    """Kill it so many seconds after the part began for the which-th time (from 0)."""
    for line in os.fdopen(pipe):
        if line.strip() == part:
            if which == 0:
                time.sleep(delay)
                break
            which -= 1
    child.kill()


def kills(check):
    """Killed at random in every part of a run, some twice, then resumed."""
    method = check.name.split()[1]
    first = Path("first").absolute()
    first.mkdir()
    parts, expected = timed_parts(method, first)
    names = list(parts)
    for number, rng, folder in check.each():
        part = names[number % len(names)]
        which = rng.randrange(len(parts[part]))
        if part != "warm start" and rng.random() < 0.5:
            shutil.copytree(first / "warm", folder / "warm")
        inside, outside = os.pipe()
        child = Child(folder, options(method), lambda: marked(outside, method))
        os.close(outside)
        kill_in(child, inside, part, which, rng.random() * parts[part][which])
        again = "--resume", "--out", "o"
        if rng.random() < 0.3:
            child = Child(folder, options(method, *again))
            time.sleep(rng.random() * 2)
            child.kill()
        child = Child(folder, options(method, *again))
        child.wait()
        wrong = differs(child, expected, folder)
        check.case(wrong and f"case {number}, in the {part}: {wrong}")


# ---- damage ----

def stop_at(step):
    """Called in a child: Ctrl-C when the metrics of the step are written."""
    log = run.log

    def logged(out, line):
        log(out, line)
        if line["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)
    run.log = logged


def hurt(path, rng):
    """Damage a file -> in words what was done."""
    whole = path.read_bytes()
    place = rng.randrange(max(1, len(whole)))
    kind = rng.choice(("bit", "bit", "cut", "cut", "empty", "gone", "zeros", "noise"))
    if kind == "gone":
        path.unlink()
        return f"{path.name} gone"
    if kind == "bit" and whole:
        changed = whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1:]
    else:
        some = {"zeros": bytes(64), "noise": rng.randbytes(64)}.get(kind, b"")
        rest = whole[place + 64:] if some else b""
        changed = b"" if kind == "empty" else whole[:place] + some[:len(whole) - place] + rest
    path.write_bytes(changed)
    return f"{path.name}, {kind} at {place} of {len(whole)}"


def told(child):
    """Did it say that something is not as it was?"""
    return any(word in child.text() for word in ("warning:", "differ", " before, "))


def after_damage(child, expected, folder, deed):
    """What was lost: nothing by a run that refuses in one line, or goes on with equal numbers."""
    if child.refused():
        return ""
    wrong = differs(child, expected, folder)
    if wrong.startswith("other numbers") and told(child):
        return ""
    return wrong and f"{deed}: {wrong}"


def stopped_run(method):
    """A run that was stopped at its third step, and one that ended -> their folders, outcome."""
    stopped, ended = Path("stopped").absolute(), Path("ended").absolute()
    ended.mkdir(), stopped.mkdir()
    expected = straight(method, ended)
    Child(stopped, options(method), lambda: stop_at(3)).wait()
    return stopped, ended, expected


def damage(check):
    """Each file of a run in turn, in a run that was stopped and in one that ended."""
    method = check.name.split()[1]
    stopped, ended, expected = stopped_run(method)
    for number, rng, folder in check.each():
        shutil.copytree(rng.choice((stopped, ended)), folder, dirs_exist_ok=True)
        names = sorted(path.name for path in (folder / "o").iterdir())
        deeds = [hurt(folder / "o" / names[number % len(names)], rng)]
        if rng.random() < 0.2:
            others = [path for path in (folder / "o").iterdir() if path.stat().st_size]
            deeds.append(hurt(rng.choice(others), rng))
        (folder / "said.txt").unlink()
        child = Child(folder, options(method, "--resume"))
        child.wait()
        wrong = after_damage(child, expected, folder, f"case {number}, {deeds}")
        check.case(wrong)


def damage_warm(check):
    """A warm start, before a new run takes it and before a run that came from it goes on."""
    method = "atod"
    stopped, ended, expected = stopped_run(method)
    for number, rng, folder in check.each():
        resumed = rng.random() < 0.5
        shutil.copytree(stopped, folder, dirs_exist_ok=True)
        (folder / "said.txt").unlink()
        if not resumed:
            shutil.rmtree(folder / "o")
        path = rng.choice(sorted((folder / "warm").glob("*.pt")))
        deed = hurt(path, rng)
        child = Child(folder, options(method, *["--resume"] * resumed))
        child.wait()
        if resumed or not child.refused():
            wrong = after_damage(child, expected, folder, f"case {number}, {deed}")
            check.case(wrong)
        else:
            check.case(f"case {number}, {deed}: a new run is refused: {child.end()}")


# ---- full disks ----

def full_disks(check):
    """A disk that is full at some moment; then it grows, and the run goes on."""
    home = Path("home").absolute()
    home.mkdir()
    expected = straight("tandem", home, None)
    mounts = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)],
                            capture_output=True).returncode == 0
    if mounts:
        subprocess.run(["umount", str(home)], check=True)
    else:
        check.skipped = "no mounts here: files were limited in size instead"
    for number, rng, folder in check.each():
        size = round(4096 * 2 ** rng.uniform(0, 8.2))
        args = options("tandem", "--cache", "disk/warm", "--out", "disk/o")
        disk = folder / "disk"
        disk.mkdir()

        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        if mounts:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)],
                           check=True)
        try:
            child = Child(folder, args, None if mounts else limited)
            child.wait()
            wrong = "" if child.code == 0 or child.refused() else child.end()
            if mounts:
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            child = Child(folder, [*args, "--resume"], name="again")
            child.wait()
            wrong = wrong or differs(child, expected, disk)
        finally:
            if mounts:
                subprocess.run(["umount", str(disk)], check=True)
        check.case(wrong and f"case {number}, {size} bytes: {wrong}")


# ---- two processes, one folder ----

def two_runs(check):
    """Another run, or a resume, beside one that lives: one goes on, the other is refused."""
    home = Path("home").absolute()
    home.mkdir()
    began = time.monotonic()
    expected = straight("tandem", home)
    took = time.monotonic() - began
    for number, rng, folder in check.each():
        resume = ["--resume"] * (number % 2)
        one = Child(folder, options("tandem"))
        time.sleep(rng.choice((0, rng.random() * took)))
        two = Child(folder, options("tandem", *resume), name="two")
        one.wait(), two.wait()
        winner, other = (one, two) if one.code == 0 else (two, one)
        wrong = differs(winner, expected, folder)
        if not wrong and not other.refused() and not (resume and other.code == 0):
            wrong = f"the other ended with {other.end()}"
        wrong = wrong and f"{wrong}; {other.end()}"
        check.case(wrong and f"case {number}: {wrong}")
