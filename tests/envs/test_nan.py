"""Numbers that are none: an invalid episode's NaN stays its own, and no NaN is written."""
import json
import math

import pytest
import torch

import grpo
import run


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_invalid_reward_of_any_value_changes_nothing(bad):
    valid = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    rewards = torch.tensor([[1.0, 0.0, bad], [0.5, bad, bad], [bad, bad, bad]])
    found = grpo.group_advantages(rewards, valid=valid)
    assert torch.equal(found, grpo.group_advantages(
        rewards.masked_fill(~valid, 7.0), valid=valid)) and found.isfinite().all()
    torch.testing.assert_close(found[0], torch.tensor([2**-0.5, -2**-0.5, 0.0]))
    assert grpo.group_advantages(rewards, valid=valid, std=False)[0].tolist() == [0.5, -0.5, 0.0]


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.bool, torch.uint8])
def test_integer_rewards(kind):
    rewards = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1]])
    found = grpo.group_advantages(rewards.to(kind))
    torch.testing.assert_close(found, grpo.group_advantages(rewards.float()))
    assert grpo.group_advantages(rewards.double()).dtype == torch.float64


def test_metrics_are_json_that_strict_readers_read(tmp_path):
    def refuse(name):
        raise AssertionError(name)
    line = {"step": 1, "loss": math.nan, "kl": math.inf, "x": -math.inf, "lr": 0.5, "n": 3,
            "name": "NaN"}
    run.log(tmp_path, line)
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text, parse_constant=refuse) == {
        **line, "loss": None, "kl": None, "x": None}
    assert math.isnan(line["loss"])  # the caller's is as it was
