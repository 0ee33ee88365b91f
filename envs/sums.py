"""Sums of two small numbers, asked as a user would: the first task for a real language model.

    python train.py --method grpo --env sums

"What is 18 + 6?" The last number in the reply is the answer. There are 400 questions; a hash
decides which are held out. A reply is short, so a run is cheap: look here first whether the reward
of your model rises at all.
"""
import re

from envs import SPLITS, Env, Step, split_of
from envs.gsm8k import WHOLE, read_number

LARGEST = 20  # both numbers are from 1 to here
# A number by itself: no part of a word (0x18) and no part of another number (1.2.3).
ALONE = re.compile(rf"(?<![\w.,])[-\u2212]?(?:{WHOLE})(?:\.[0-9]+)?(?![\w]|[.,][0-9])")


def last_number(text):
    """"18 + 6 = 24." -> Fraction(24); None when there is no number. Never raises."""
    found = ALONE.findall(text)
    number = read_number(found[-1]) if found else None
    return number and number[0]


def questions():
    """{split: [(a, b)]}, in an order that looks random and is always the same."""
    pairs = [(a, b) for a in range(1, LARGEST + 1) for b in range(1, LARGEST + 1)]
    pairs.sort(key=lambda pair: (7 * pair[0] + 11 * pair[1]) % 17)
    held = {split: [] for split in SPLITS}
    for a, b in pairs:
        held[split_of(asked(a, b))].append((a, b))
    return held


def asked(a, b):
    return f"What is {a} + {b}?"


class Sums(Env):
    max_turns, max_new, context, problems = 1, 16, 128, 32
    targets, warm_steps = {"senior": 0.3, "junior": 0.3}, 1000

    def __init__(self):
        self.data = questions()

    def tasks(self, split):
        return len(self.data[split])

    def reset(self, task, split):
        self.pair = self.data[split][task % len(self.data[split])]
        return asked(*self.pair)

    def step(self, text):
        success = last_number(text) == sum(self.pair)
        return Step("", float(success), True, {"success": success})

    def demo(self, rng, skill):
        a, b = self.pair
        return [f"{a} + {b} = {a + b}"]


def make(data=""):
    if data:
        raise ValueError("sums makes its own questions; leave out --data")
    return Sums()
