"""Prove that the exercises work: python course/check.py

For every blank: its tests pass on the project as it is, and fail when the body is gone. For every
bug: its tests pass on the project as it is, and fail with the patch. The passes are one run of all
tests together. Every failure is proven in a temporary copy of its own. Ends with 1 when something
is not proven.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from blank import BLANKS, blank, copy_project, node_ids
from bugs import BUGS, plant

EXERCISES = {**BLANKS, **BUGS}


def pytest(folder, tests, *options):
    """Run tests of a copy -> exit code, what was printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options, *tests], cwd=folder, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def last_line(output):
    return (output.strip().splitlines() or ["no output"])[-1].strip("= ")


def failures(output):
    """The names of the tests that failed, without their parameters."""
    lines = [line for line in output.splitlines() if line.startswith("FAILED ")]
    return {line.split()[1].split("[")[0] for line in lines}


# ---- as it is: all tests together ----

def passes(names):
    """{name: whether its tests pass on the project as it is}, what pytest said at last"""
    tests = sorted({test for name in names for test in node_ids(EXERCISES[name])})
    with tempfile.TemporaryDirectory() as folder:
        copy_project(folder, new=True)
        code, output = pytest(folder, tests)
    failed = failures(output)
    fine = code == 0 or (code == 1 and failed)  # else nothing was run: a name is wrong
    passed = {name: bool(fine) and not failed & set(node_ids(EXERCISES[name])) for name in names}
    return passed, last_line(output)


# ---- blanked, or with a bug: a copy for each ----

def change(name, folder):
    """Blank a function of a copy, or plant a bug -> "", or why it could not be done."""
    if name in BUGS:
        problem = plant(name, folder)
        return f"the patch does not apply: {problem.splitlines()[0]}" if problem else ""
    try:
        blank(name, folder)
    except SystemExit as error:
        return str(error)
    return ""


def fails(name):
    """-> whether its tests fail as they should, what was found"""
    with tempfile.TemporaryDirectory() as folder:
        copy_project(folder, new=True)
        problem = change(name, folder)
        if problem:
            return False, problem
        code, output = pytest(folder, node_ids(EXERCISES[name]))
    expected = f"NotImplementedError: TODO: {name.split('.')[-1]}" if name in BLANKS else ""
    missed = set(node_ids(EXERCISES[name])) - failures(output)
    if code == 1 and missed:
        return False, f"passes all the same: {sorted(missed)[0].split('::')[1]}"
    return code == 1 and expected in output, last_line(output)


# ---- the command ----

def read_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="exercises, with commas between [all]")
    parser.add_argument("--jobs", type=int, default=2, help="side by side [2]")
    args = parser.parse_args(argv)
    args.names = args.only.split(",") if args.only else list(EXERCISES)
    for name in args.names:
        if name not in EXERCISES:
            parser.error(f"unknown exercise {name}; one of: {' '.join(EXERCISES)}")
    if args.jobs < 1:
        parser.error("--jobs is 1 or more")
    return args


def main(argv=None):
    args, began = read_arguments(argv), time.perf_counter()
    passed, said = passes(args.names)
    width = max(map(len, ["exercise", *args.names]))
    print(f"as it is: {said}\n\n{'exercise':{width}}  as it is  changed  what pytest says")
    proven = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for name, (failed, found) in zip(args.names, pool.map(fails, args.names)):
            before, after = "passes" if passed[name] else "-", "fails" if failed else "-"
            print(f"{name:{width}}  {before:8}  {after:7}  {found}", flush=True)
            proven += passed[name] and failed
    seconds = time.perf_counter() - began
    print(f"\n{proven} of {len(args.names)} exercises proven in {seconds:.0f} s")
    return int(proven < len(args.names))


if __name__ == "__main__":
    sys.exit(main())
