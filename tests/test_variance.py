"""The noise of fGRPO's gradient beside plain GRPO's."""
import dataclasses
import json

import pytest
import torch

import grpo
import train
import worldmodel
from claims import variance
from envs import record
from rollout import training_rows


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
        assert set(ways) == set(variance.WAYS)
        for levels in ways.values():
            assert set(levels) == set(variance.LEVELS)
            assert all(x["noise"] > 0 for x in levels.values())
    variance.main(["o", "--draws", "3"])  # the same draws
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found

    assert command("--method", "sft", "--out", "s")[0] == 0
    for folder in ("s", "nowhere"):
        assert variance.main([folder]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("flat", [False, True])
def test_the_levels_together_are_the_gradient_of_an_update(flat, command):
    """Each level's, times its share of the tokens, is what fGRPO trains on."""
    assert command("--method", "worldmodel", "--steps", "1", "--test-problems", "6")[0] == 0
    _, r = train.reopen("o")
    cfg = dataclasses.replace(r.cfg, flat=flat, grad_clip=1e9)
    examples = record.examples(r.worlds, range(4), "train", "x")
    replies, advantage, _, _ = worldmodel.sample_strict(
        r.w, cfg, examples, [(cfg.seed, "variance", 0, i) for i in range(4)])
    rows, of_token, total = training_rows(replies, advantage)
    still = torch.optim.SGD(r.model.parameters(), lr=0.0)
    grpo.update_on(r.model, still, rows, rows.mask.float(), of_token, cfg, total=total)
    whole = torch.cat([p.grad.flatten() for p in r.model.parameters()])
    found = variance.gradients(r, cfg, examples, 0)
    tokens = {"encode": 0, "transition": 0, "decode": 0}
    B, C = (1, 1) if flat else (cfg.B, cfg.C)
    n = len(replies) // (1 + B + B * C)
    for i, reply in enumerate(replies):
        tokens["encode" if i < n else "transition" if i < n + n * B else "decode"] += len(reply.ids)
    together = sum(found[level] * tokens[level] / total for level in tokens)
    torch.testing.assert_close(together, whole, rtol=0, atol=1e-5)
