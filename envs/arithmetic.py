"""Sums modulo 10, worked out line by line in one of two notations. The toy for tandem RL
(arXiv 2606.28166).

    python -m envs.arithmetic

A question is a chain of additions and subtractions from left to right, digits modulo 10:
`5-1-3+9`. The answer works it out, one operation a line, then gives the result in digits: `5-1=4`,
`4-3=1`, `1+9=0`, `#0`. In the *private* notation lines write letters for digits (a = 0, ...,
j = 9): `f-b=e`. Lines are equally long in both, and nothing in the question asks for either. Only
the answer counts for the reward, so which notation a model falls into is its own habit.
"""
import functools
import random
import re

from envs import Env, Step, split_of

LETTERS = "abcdefghij"
PLAIN = re.compile(r"[0-9][+-][0-9]=[0-9]")
PRIVATE = re.compile(r"[a-j][+-][a-j]=[a-j]")

SKILLS = {  # -> share of private lines, share of chains in which each line draws its notation anew
    "plain": (0.0, 0.0), "private": (1.0, 0.0), "senior": (0.6, 0.3), "senior40": (0.4, 0.3),
    "junior": (0.0, 0.0), "graded": (0.005, 0.0)}


@functools.lru_cache(50_000)  # a group asks eight times, and valid problems come up at every look
def problem(ops, task, split):
    """-> the question, its digits and signs"""
    rng = random.Random(f"arithmetic {ops} {task}")
    while True:  # the first question drawn that belongs to the split
        digits = [rng.randrange(10) for _ in range(ops + 1)]
        signs = [rng.choice("+-") for _ in range(ops)]
        steps = zip(signs, digits[1:])
        question = str(digits[0]) + "".join(sign + str(digit) for sign, digit in steps)
        if split_of(question) == split:
            return question, digits, signs


class Arithmetic(Env):
    max_turns, max_new, context, problems = 1, 48, 64, 512
    mark, max_gap = "\n", 6  # a word is a line, and a line has six tokens
    every_family = True  # a senior must know both notations
    # The accuracy at which a warm start ends, in each notation that the skill uses.
    targets = {"senior": 0.7, "senior40": 0.7, "junior": 0.9, "private": 0.9, "graded": 0.9}
    warm_steps = 3000

    def __init__(self, ops=6):
        self.ops = ops

    def tasks(self, split):
        return None

    def reset(self, task, split):
        question, self.digits, self.signs = problem(self.ops, task, split)
        return question

    def lines(self):
        """The chain in plain notation, and the result."""
        value, lines = self.digits[0], []
        for sign, digit in zip(self.signs, self.digits[1:]):
            result = (value + digit if sign == "+" else value - digit) % 10
            lines.append(f"{value}{sign}{digit}={result}")
            value = result
        return lines, value

    def step(self, text):
        *chain, last = text.split("\n")
        success = last == f"#{self.lines()[1]}"
        plain = sum(bool(PLAIN.fullmatch(line)) for line in chain)
        private = sum(bool(PRIVATE.fullmatch(line)) for line in chain)
        malformed = (len(chain) - plain - private) / max(1, len(chain))
        info = {"success": success, "malformed": malformed}
        if plain + private:  # a chain with no well-formed line has no notation
            info["private"] = private / (plain + private)
            info["family"] = "private" if private > plain else "plain"
        return Step("", float(success), True, info)

    def demo(self, rng, skill):
        private, mixed = SKILLS[skill]
        lines, value = self.lines()
        whole = rng.random() < private
        mix = rng.random() < mixed
        for i, line in enumerate(lines):
            drawn = rng.random() < private if mix else whole
            if drawn:
                lines[i] = to_private(line)
        return ["\n".join(lines + [f"#{value}"])]


def to_private(line):
    return "".join(LETTERS[int(c)] if c.isdigit() else c for c in line)


def make(data="", ops=6):
    if data:
        raise ValueError(
            "arithmetic makes its own problems; leave out --data, or choose another --env")
    return Arithmetic(ops)


if __name__ == "__main__":
    env, rng = Arithmetic(), random.Random(0)
    for task, skill in enumerate(["plain", "private", "senior", "senior"]):
        print(f"[{skill}]  {env.reset(task, 'train')}\n" + env.demo(rng, skill)[0] + "\n")
