"""Guess a number from 0 to 9 in four turns: an environment in 40 lines, to copy for your own.

    python train.py --method grpo --env guess
"""
import random

from envs import Env, Step


class Guess(Env):
    max_turns = 4
    max_new = 4  # tokens of a turn
    context = 48  # tokens of an episode
    targets = {"senior": 0.5}  # the success at which the warm start ends
    warm_steps = 400  # the steps after which it gives up

    def tasks(self, split):
        return None  # as many as there are integers

    def reset(self, task, split):
        self.secret = random.Random(f"guess {split} {task}").randrange(10)
        self.turn = 0
        # Every task says the same: the secret is what differs. Where the text tells the task, draw
        # until envs.split_of(text) == split, or train and test share tasks (see arithmetic.py).
        return "guess"

    def step(self, text):
        self.turn += 1
        won = text == str(self.secret)  # compare, never evaluate: any text is fine
        done = won or self.turn == self.max_turns
        hint = "more" if text.isdecimal() and int(text[:9]) < self.secret else "less"
        info = {"success": won, "truncated": done and not won}
        return Step("" if done else hint, float(won), done, info)

    def demo(self, rng, skill):
        # It guesses badly and is lucky at last: reward is to teach what the hints are for.
        return [str(rng.randrange(10)) for _ in range(3)] + [str(self.secret)]


def make(data=""):
    if data:
        raise ValueError("guess makes its own tasks; leave out --data")
    return Guess()
