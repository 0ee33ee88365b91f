"""Guess a number from 0 to 9 in four turns: an environment in 30 lines, to copy for your own.

    python train.py --method grpo --env guess
"""
import random

from envs import Step


class Guess:
    max_turns, max_new, context, problems = 4, 4, 48, 128  # turns, tokens a turn, tokens an episode, problems of a table
    mark, max_gap = " ", 32  # tandem: what begins a word, the longest run without a redraw
    every_family = False
    targets, warm_steps = {"senior": 0.5}, 400  # success at which the warm start ends, steps at which it gives up

    def tasks(self, split):
        return None  # as many as there are integers

    def reset(self, task, split):
        numbers = random.Random(f"guess {split} {task}")
        self.secret, self.turn = numbers.randrange(10), 0
        return "guess"  # every task says the same: the secret is what differs

    def step(self, text):
        self.turn += 1
        won = text == str(self.secret)  # compare, never evaluate: any text is fine
        done = won or self.turn == self.max_turns
        hint = "" if done else "more" if text.isdecimal() and int(text[:9]) < self.secret else "less"
        return Step(hint, float(won), done, {"success": won, "truncated": done and not won})

    def demo(self, rng, skill):
        return [str(rng.randrange(10)) for _ in range(3)] + [str(self.secret)]  # lucky at last


def make(data=""):
    if data:
        raise ValueError("guess makes its own tasks; leave out --data")
    return Guess()
