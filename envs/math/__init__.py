"""Competition and school mathematics from published files: MATH, MATH-500, AIME, AMC, Minerva,
OlympiadBench, GSM8K, SVAMP, MAWPS.

    python -m envs.math --data PATH/math500.jsonl
    python train.py --method grpo --env math --data PATH/math500.jsonl

The reply ends in \\boxed{answer}. It is right when the answer equals the reference. Our own rules
judge first (answers.py). What they cannot tell is asked of the library math-verify, in a process of
its own (library.py). Without the library (pip install -e '.[math]') it earns 0.

PATH is a file, which a hash splits into train, valid and test, or a folder with train.jsonl and
test.jsonl: then test stays the official one and valid is a tenth of train. files.py says which
formats are read.
"""
import os

from envs import Env, Step
from envs.lib.problems import read_splits
from envs.lib.text import content_hash
from envs.math import library
from envs.math.answers import judge
from envs.math.files import WHERE, read_file

ASK = "Please reason step by step, and put your final answer within \\boxed{}."


def no_library(questions):
    """Our own rules alone: what they cannot tell is wrong."""
    return False


class Math(Env):
    max_turns, max_new, context, problems = 1, 1024, 1536, 64
    targets, warm_steps = {"senior": 0.3, "junior": 0.3}, 20

    def __init__(self, path):
        self.data = read_splits(path, read_file)

    def tasks(self, split):
        return len(self.data[split])

    def fingerprint(self):
        return content_hash(made=self.data)

    def reset(self, task, split):
        found = self.data[split][task % len(self.data[split])]
        problem, self.answer, self.solution = found
        return f"{problem}\n{ASK}"

    def step(self, text):
        success, boxed = judge(self.answer, text, library.ask)
        return Step("", float(success), True, {"success": success, "boxed": float(boxed)})

    def demo(self, rng, skill):
        """The published solution. Where its last box is not the answer, the answer follows."""
        right, _ = judge(self.answer, self.solution, no_library)
        box = "" if right else f"\\boxed{{{self.answer}}}"
        return ["\n".join(part for part in (self.solution, box) if part)]


def make(data=""):
    path = data or os.environ.get("MATH_DATA", "")
    if not path:
        raise ValueError(f"math needs its file: {WHERE}")
    if not library.available():
        library.say_once(library.MISSING)
    return Math(path)
