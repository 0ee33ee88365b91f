"""Sums of two small numbers: who is held out, and which number of a reply counts."""
import random

import pytest

import envs
from contract import check_env
from envs.sums import last_number


def test_it_keeps_the_contract():
    check_env("sums")


def test_the_400_questions_are_in_one_split_each():
    env = envs.make("sums")
    asked = [env.reset(task, split) for split in envs.SPLITS for task in range(env.tasks(split))]
    assert len(asked) == len(set(asked)) == 400
    assert "What is 18 + 6?" in asked
    assert all(20 < env.tasks(split) < 400 for split in envs.SPLITS)


def test_the_demonstration_is_a_short_reply():
    env = envs.make("sums")
    env.pair = (18, 6)
    assert env.demo(random.Random(0), "senior") == ["18 + 6 = 24"]


@pytest.mark.parametrize("reply, right", [
    ("24", True), ("18 + 6 = 24", True), ("It is 24.", True), ("**24**", True), ("$24$", True),
    ("\\boxed{24}", True), ("24.0", True), ("6 + 18 is 24!", True), ("24 apples", True),
    ("24 or 25", False), ("25", False), ("-24", False), ("= \u221224", False), ("2 4", False),
    ("240", False), ("24.5", False), ("1.2.24", False), ("0x24", False), ("24th", False),
    ("٢٤", False), ("24\u00b2", False), ("2,4", False), ("", False), ("9" * 10_000, False)])
def test_the_last_number_of_the_reply_counts(reply, right):
    env = envs.make("sums")
    env.pair = (18, 6)
    step = env.step(reply)
    assert (step.reward, step.done, step.info["success"]) == (right, True, right)


def test_a_reply_without_a_number_has_none():
    assert last_number("no idea") is None


def test_it_takes_no_data():
    with pytest.raises(ValueError, match="leave out --data"):
        envs.make("sums", data="x")
