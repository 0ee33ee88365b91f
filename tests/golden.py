"""Does a refactoring leave every number as it was? Compares this tree with a commit.

    python tests/golden.py COMMIT [--only NAME,NAME] [--keep DIR]

Runs the same small train.py commands in a git worktree of COMMIT ("old") and in the tree this file
stands in ("new", with its uncommitted changes): same seed, one CPU thread, warm starts made anew.
Then every line of metrics.jsonl, result.json and samples.txt must be equal; only times are left
out. The other tests ask whether the code is right, this one whether it still does the same.

It takes 5 minutes on two cores. --only runs some cases. --keep DIR keeps the runs, and a later call
takes the commit's from there; this tree's are always made again, as its code may have changed. The
exit code is 1 when a case differs, fails, or had no gradient. What only one side has is named, and
is no failure: a refactoring may add or drop a metric. A commit that changes numbers on purpose
names their keys in its message. Later work compares with the last commit that it agrees with.
"""
import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
EVERY = "--seed 1 --threads 1 --steps 3 --eval-every 2 --eval-problems 16 --test-problems 16 "
# Small, but with a gradient: a warm start must give some right answers in a group, and some wrong.
SUMS = " --prompts 8 --group 8 --warm-steps 120 --target 0.09"
WORLD = "--method worldmodel --warm-steps 150 --formulation "
HOUSE = (" --turns 6 --prompts 4 --group 8 --warm-steps 400 --teacher-skill 0.1"
         " --teacher-target 0.12 --student-skill 0.1 --student-habits 3")
CASES = {  # name: options, or (options of a tree with policy.py, those of a tree without it)
    "sft": "--method sft",
    "grpo": "--method grpo" + SUMS,
    "tandem": "--method tandem --p 0.75" + SUMS,
    "grpo-junior": ("--method grpo --junior auto" + SUMS, "--method tandem --p 1" + SUMS),
    "strict": WORLD + "strict --A 2 --B 2 --C 2 --prompts 2",
    "leaky": WORLD + "leaky --prompts 2 --group 8",
    "stateless": WORLD + "stateless",
    "opd": "--method opd" + HOUSE,
    "atod": "--method atod" + HOUSE,
    "grpo-teacher": ("--method grpo --teacher auto" + HOUSE, "--method atod --mix grpo" + HOUSE)}
TIMES = re.compile(r"wall|times|(tokens|agent_steps|steps)_per_s|time_.*|.*seconds")


def git(*args):
    done = subprocess.run(["git", "-C", str(TREE), *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {args[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def options(tree, name):
    case = CASES[name]
    if isinstance(case, tuple):
        case = case[0 if (tree / "policy.py").exists() else 1]
    return (EVERY + case).split()


def start(tree, folder, name):
    """Start a case. -> its process, or None when the folder holds the finished run already."""
    done = folder / name / "done"
    if done.exists() and done.read_text() == repr(options(tree, name)):
        return None
    shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    places = ["--cache", str(folder / "cache"), "--out", str(folder / name)]
    # No GPU: its sums are not the same twice. No PYTHONPATH: a tree imports its own modules.
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    with open(folder / f"{name}.err", "w") as errors:
        return subprocess.Popen([sys.executable, "train.py", *options(tree, name), *places],
                                cwd=tree, env=env, stdout=subprocess.DEVNULL, stderr=errors)


def run_case(trees, name):
    """trees: {side: (tree, folder)}. Both sides at once. -> {side: exit code}"""
    running = {}
    try:
        for side, place in trees.items():
            running[side] = start(*place, name)
        codes = {side: process.wait() if process else 0 for side, process in running.items()}
    finally:  # after Ctrl-C nothing goes on
        for process in filter(None, running.values()):
            process.kill()  # one that has ended is left as it is
            process.wait()
    for side, (tree, folder) in trees.items():
        if codes[side] == 0:
            (folder / name / "done").write_text(repr(options(tree, name)))
    return codes


def flat(value, key):
    """Nested lists and dicts -> {key: number or text}. A list's length counts too, or else lines
    missing at its end would look like metrics that only one side has."""
    if isinstance(value, list):
        value = {**{str(i): x for i, x in enumerate(value, 1)}, "length": len(value)}
    if not isinstance(value, dict):
        return {key: value}
    kept = {name: x for name, x in value.items() if not TIMES.fullmatch(name)}
    return {k: y for name, x in kept.items() for k, y in flat(x, f"{key}/{name}").items()}


def written(out):
    """What a run wrote, flat."""
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    samples = (out / "samples.txt").read_text().split("\n")
    return flat({"metrics": metrics, "result": result, "samples": samples}, "")


def only(side, a, b):
    """A line with the keys that a has and b has not, each once: without numbers of lines, items."""
    names = sorted({re.sub(r"/\d+(?=/|$)", "", key)[1:] for key in a.keys() - b.keys()})
    return f"\n    only {side}: {', '.join(names)}" if names else ""


def verdict(trees, name, codes):
    """-> whether the case is all right, and the text to print"""
    found = {}
    for side, (_, folder) in trees.items():
        if codes[side]:
            said = (folder / f"{name}.err").read_text().strip().split("\n")
            return False, f"FAILED in the {side} tree, exit code {codes[side]}: {said[-1]}"
        found[side] = written(folder / name)
        if not any(k.endswith("/grad_norm") and x > 0 for k, x in found[side].items()):
            return False, f"PROVES NOTHING: no update in the {side} tree had grad_norm > 0"
    old, new = found.values()
    shared = [k for k in old if k in new]
    # not a number equals nothing; strict JSON writes it as null
    nan = [k for k in shared if all(x is None or x != x for x in (old[k], new[k]))]
    wrong = [k for k in shared if old[k] != new[k] and k not in nan]
    text = f"equal ({sum(isinstance(old[k], (int, float)) for k in shared)} numbers)"
    if wrong:
        text = f"DIFFERS in {len(wrong)} of {len(shared)} values, the first:"
        text += "".join(f"\n    {k[1:]}: old {old[k]!r}, new {new[k]!r}" for k in wrong[:5])
    text += only("old", old, new) + only("new", new, old)
    return not wrong, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas [%(default)s]")
    parser.add_argument("--keep", help="a folder in which the runs are kept")
    args = parser.parse_args()
    names, failed = args.only.split(","), 0
    if not CASES.keys() >= set(names):
        parser.error(f"--only takes some of: {','.join(CASES)}")
    os.nice(10)  # the runs inherit it
    commit = git("rev-parse", "--verify", args.commit + "^{commit}")
    old = f"{commit}-torch{importlib.metadata.version('torch')}"  # another may round differently
    with tempfile.TemporaryDirectory() as place:
        work, worktree = Path(args.keep or place, "golden").resolve(), Path(place, "tree")
        shutil.rmtree(work / "new", ignore_errors=True)
        git("worktree", "add", "--detach", str(worktree), commit)
        try:
            trees = {"old": (worktree, work / old), "new": (TREE, work / "new")}
            for name in names:
                fine, text = verdict(trees, name, run_case(trees, name))
                print(f"{name:13} {text}", flush=True)
                failed += not fine
        finally:
            git("worktree", "remove", "--force", str(worktree))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
