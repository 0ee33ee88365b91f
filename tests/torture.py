"""Everything that can happen to a run, many times at random, and what was lost: one table.

    python tests/torture.py                        # under an hour on two cores
    python tests/torture.py --short                # under two minutes; tests/test_torture.py
    python tests/torture.py --only kills,damage    # checks whose names begin so

A case is drawn from its check's name and its number, so `--only CHECK --first N` begins with the
one that was lost. Lost is: a traceback, a run that hangs, half a file, numbers that differ from
those of a run that nothing happened to without a line that says so. Not lost is a run that ends
with one line that says what to do.
"""
import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tests"), str(REPO / "tests/envs")]


class Check:
    """What a check is given: its cases, and where it says what was lost."""

    def __init__(self, name, cases, first):
        self.name, self.cases, self.first = name, cases, first
        self.tried, self.lost, self.skipped = 0, 0, ""

    def case(self, lost=""):
        """Count a case. lost: what was lost; "" when nothing was."""
        self.tried += 1
        self.lost += bool(lost)
        if lost:
            print(f"LOST {self.name}: {lost}", file=sys.stderr, flush=True)

    def each(self):
        """(number, its random numbers, an empty folder) of each case."""
        for number in range(self.first, self.first + self.cases):
            folder = Path(tempfile.mkdtemp(prefix="case-", dir=os.getcwd()))
            yield number, random.Random(f"{self.name} {number}"), folder
            shutil.rmtree(folder, ignore_errors=True)


def checks():
    """{name: (function, cases, cases of the short form)}"""
    import torture_nonsense as nonsense
    import torture_processes as processes
    import torture_runs as runs
    import torture_worlds as worlds
    found = {f"kills {method}": (runs.kills, 70, short) for method, short in (
        ("tandem", 2), ("worldmodel", 1), ("atod", 0))}
    found |= {
        "damage tandem": (runs.damage, 140, 7),
        "damage atod": (runs.damage, 80, 0),
        "damage warm starts": (runs.damage_warm, 60, 0),
        "full disks": (runs.full_disks, 60, 2),
        "two runs in a folder": (runs.two_runs, 30, 1),
        "nonsense inside": (nonsense.nonsense, 80, 4),
        "nonsense as options": (nonsense.nonsense_options, 200, 3),
        "two ranks against one": (processes.two_ranks, 8, 0),
        "killed ranks": (processes.killed_ranks, 12, 1),
        "killed launchers": (processes.killed_launchers, 8, 0),
        "growth over updates": (processes.growth, 2000, 0)}
    found |= {f"replies {name}": (worlds.replies, 10_000, short) for name, short in (
        ("guess", 300), ("arithmetic", 300), ("gsm8k", 300), ("house", 300), ("searchqa", 300),
        ("webshop", 100), ("textworld", 0), ("alfworld", 0), ("scienceworld", 0))}
    found |= {f"files {name}": (worlds.files, 400, 20) for name in worlds.LOADERS}
    found |= {"killed workers": (processes.killed_workers, 20, 0),
              "killed Java": (processes.killed_java, 10, 0)}
    return found


def perform(name, cases, first):
    """One check, in a process and a folder of its own -> what the table says of it."""
    began, home = time.time(), os.getcwd()
    check = Check(name, cases, first)
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            checks()[name][0](check)
        finally:
            os.chdir(home)
    return check.tried, check.lost, check.skipped, time.time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few cases of each")
    parser.add_argument("--only", default="", help="checks whose names begin so: NAME,NAME")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case [0]")
    parser.add_argument("--cases", type=int, default=0, help="of each check [its own]")
    parser.add_argument("--jobs", type=int, default=2, help="checks side by side [2]")
    args = parser.parse_args()
    wanted = {name: args.cases or (short if args.short else cases)
              for name, (_, cases, short) in checks().items()
              if not args.only or name.startswith(tuple(args.only.split(",")))}
    if not wanted:
        parser.error(f"no check begins with {args.only}; they are: {', '.join(checks())}")
    began, lost = time.time(), 0
    print(f"{'check':28}{'tried':>8}{'lost':>8}{'seconds':>10}", flush=True)
    with ProcessPoolExecutor(args.jobs, get_context("fork")) as pool:
        work = {name: pool.submit(perform, name, cases, args.first)
                for name, cases in wanted.items() if cases}
        for name, done in work.items():
            try:
                tried, bad, skipped, seconds = done.result()
            except Exception as error:  # the check itself is broken: that is a loss, too
                tried, bad, skipped, seconds = 0, 1, f"{type(error).__name__}: {error}"[:90], 0
            lost += bad
            print(f"{name:28}{tried:8,}{bad:8,}{seconds:10.0f}  {skipped}".rstrip(), flush=True)
    print(f"{lost} lost, {(time.time() - began) / 60:.1f} minutes")
    return int(lost > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
