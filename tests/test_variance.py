"""The noise of fGRPO's gradient beside plain GRPO's."""
import json

import pytest
import torch

import worldmodel
from claims import variance


def test_noise_and_signal_by_hand():
    vectors = torch.tensor([[1.0, 2.0], [3.0, 2.0]])  # variances 2 and 0, mean (2, 2)
    assert variance.noise_and_signal(vectors) == pytest.approx((2.0, 8.0 - 1.0))
    rng = torch.Generator().manual_seed(0)
    many = torch.randn(4000, 3, generator=rng) * 0.5 + torch.tensor([1.0, 0.0, -1.0])
    noise, signal = variance.noise_and_signal(many)
    assert noise == pytest.approx(0.75, rel=0.05) and signal == pytest.approx(2.0, rel=0.05)


def test_it_is_a_command_that_changes_nothing(command, capsys, monkeypatch):
    monkeypatch.setattr(worldmodel, "judge", lambda w, cfg, text, *_: len(text) % 7 / 7)
    how = ("--method", "worldmodel", "--steps", "1", "--test-problems", "6")
    assert command(*how, "--out", "o")[0] == 0
    variance.main(["o", "--draws", "3"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"before", "after"}
    for ways in found.values():
        assert set(ways) == set(variance.WAYS) and all(x["noise"] > 0 for x in ways.values())
    variance.main(["o", "--draws", "3"])  # the same draws
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
