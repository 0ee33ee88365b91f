"""What the tests of world models share: examples of the house, and some facts of it."""
import envs
from envs import record
from envs.house.text import parse
from envs.record import Moment

FOUND = {level: envs.make("house", level=level) for level in (1, 2, 3)}
AT, HOLD = ("at", "hall"), ("hold", "nothing")
PEN, EGG = ("in", "pen", "bed"), ("in", "egg", "fridge")


def some_examples(n=6, name="test", split="train", **how):
    return record.examples(FOUND, range(n), split, name, **how)


def moments_of(*pairs):
    """(action, text) ... -> Moments that state what their text says"""
    return [Moment(action, text, parse(text), parse(text), parse(text)) for action, text in pairs]


PAST = moments_of(("", "hall bath bench cabinet shut"), ("open cabinet", "cabinet is open pen"),
                  ("go bath", "bath hall stool sink"), ("go hall", "hall bath bench cabinet pen"))
