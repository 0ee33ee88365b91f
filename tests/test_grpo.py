"""The equations by hand and by enumeration, the gradient of the loss, and what an update does."""
import itertools
import json
import math
from pathlib import Path

import pytest
import torch

import grpo
import run
import train
from lib import resume
from conftest import MOVING, tiny as options
from model import GPT, GPTConfig, token_logp
from rollout import Rows


def tiny(vocab=4, context=4, seed=0):
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocab, context, layers=1, heads=1, kv_heads=1, width=8, head_width=8,
                         ffn_width=16))


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# ---- the equations ----

def test_advantages_by_hand_with_the_samples_standard_deviation():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    expected = torch.tensor([[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, -0.25, 0.75]])
    std = torch.tensor([[3**-0.5], [0.5]])
    torch.testing.assert_close(grpo.group_advantages(rewards, std=False), expected)
    torch.testing.assert_close(grpo.group_advantages(rewards, eps=0.1), expected / (std + 0.1))


def test_advantages_leave_out_invalid_episodes_and_are_zero_for_fewer_than_two():
    rewards = torch.tensor([[1.0, 0.0, 9.0, 0.0], [0.3, 1.0, 1.0, 1.0], [0.3, 1.0, 1.0, 0.0]])
    valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    found = grpo.group_advantages(rewards, valid=valid)
    alone = grpo.group_advantages(rewards[:1, [0, 1, 3]])
    torch.testing.assert_close(found[:1, [0, 1, 3]], alone)
    assert found[0, 2] == 0 and found[1:].eq(0).all()


@pytest.mark.parametrize("value, G", [(0.1, 3), (0.1, 8), (1 / 3, 8), (0.7, 11)])
def test_equal_fractional_rewards_give_exactly_zero(value, G):
    assert grpo.group_advantages(torch.full((1, G), value)).eq(0).all()
    mixed = torch.full((1, G), value)
    mixed[0, 0] = 5.0  # an invalid episode does not make a difference
    assert grpo.group_advantages(mixed, valid=torch.arange(G)[None] > 0, eps=1e-12).eq(0).all()


def test_token_weights_by_hand_sum_to_one_also_over_parts_of_a_batch():
    mask = torch.tensor([[1, 0.5, 0, 1], [0, 1, 0.5, 0], [0, 0, 0, 0]])
    whole = grpo.token_weights(mask)
    expected = [[0.25, 0.125, 0, 0.25], [0, 0.25, 0.125, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(whole, torch.tensor(expected))
    for total in (4.0, torch.tensor(4.0)):  # of the mask's sum
        parts = [grpo.token_weights(m, total=total) for m in mask.split(1)]
        torch.testing.assert_close(torch.cat(parts), whole)
    assert whole.sum() == pytest.approx(1) and grpo.token_weights(torch.zeros(2, 3)).eq(0).all()


def test_clipped_loss_by_hand_and_no_gradient_where_the_clip_acts():
    ratio = torch.tensor([[1.1, 1.5, 1.5, 0.5, 0.5, 0.95]])
    advantage = torch.tensor([[2.0, 2.0, -2.0, 2.0, -2.0, -2.0]])
    weight = torch.tensor([[0.1, 0.15, 0.3, 0.1, 0.25, 0.1]])
    # clipped at 1.3 above, at 0.9 below, pessimistically
    surrogate = torch.tensor([[2.2, 1.3 * 2, -3.0, 1.0, -0.9 * 2, -1.9]])
    logp = ratio.log().requires_grad_()
    loss = grpo.clipped_loss(logp, torch.zeros_like(logp), advantage, weight,
                             clip_low=0.1, clip_high=0.3)
    torch.testing.assert_close(loss, -(weight * surrogate).sum())
    loss.backward()
    free = torch.tensor([[1, 0, 1, 1, 0, 1]])
    torch.testing.assert_close(logp.grad, -weight * ratio * advantage * free)


@pytest.mark.parametrize("pad", [-math.inf, -1e9, 1e9])
def test_masked_tokens_of_any_log_prob_leave_no_nan(pad):
    logp = torch.tensor([[-1.0, pad]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0]])
    for behaviour in ([[-1.0, 0.0]], [[-1.0, -math.inf]]):
        logp.grad = None
        advantage = torch.tensor([[3.0, 3.0]])
        loss = grpo.clipped_loss(logp, torch.tensor(behaviour), advantage, weight)
        loss.backward()
        assert loss == -3 and logp.grad.tolist() == [[-3.0, 0.0]]


def test_k3_is_nonnegative_and_its_expectation_is_the_exact_kl():
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 5, 4, 7, generator=generator, dtype=torch.double).unbind()
    logp, reference_logp = logits.log_softmax(-1), reference.log_softmax(-1)
    k3 = grpo.k3_kl(logp, reference_logp)
    by_hand = (logp.exp() * (logp - reference_logp)).sum(-1)
    assert k3.min() >= 0 and by_hand.min() > 0.01
    torch.testing.assert_close((logp.exp() * k3).sum(-1), by_hand)
    torch.testing.assert_close(grpo.exact_kl(logits, reference), by_hand)

    impossible, even = torch.tensor([0.0, 0.0, -math.inf]), torch.zeros(3)
    pairs = (impossible, even), (impossible, impossible), (even, impossible)
    found = [grpo.exact_kl(p, q).item() for p, q in pairs]
    assert found == [pytest.approx(math.log(1.5)), 0, math.inf]


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer():
    for n, c, k in itertools.product(range(1, 6), range(-1, 6), range(6)):
        if not 0 <= c <= n or not 1 <= k <= n:
            with pytest.raises(ValueError):
                grpo.pass_at_k(n, c, k)
        else:
            subsets = list(itertools.combinations([i < c for i in range(n)], k))
            share = sum(map(any, subsets)) / len(subsets)
            assert grpo.pass_at_k(n, c, k) == pytest.approx(share)


# ---- the gradient: all 64 answers of three tokens, all 64 * 64 groups of two ----

@pytest.mark.parametrize("std", [False, True])
def test_expected_gradient_of_groups_of_two_by_enumeration(std):
    """Each pair of answers weighed by its probability. std=False: (G - 1) / G of the exact policy
    gradient. With std, two different rewards are +-1 / sqrt(2) once normalised, and the expectation
    is a sum over pairs."""
    model = tiny()
    answers = torch.tensor(list(itertools.product(range(4), repeat=3)))
    tokens = torch.cat([torch.zeros(64, 1, dtype=torch.long), answers], 1)
    reward = torch.rand(64, generator=torch.Generator().manual_seed(1))
    reward = reward.mul(8).floor().div(8)  # some are equal
    logp = model(tokens[:, :-1]).log_softmax(-1).gather(2, answers[..., None])
    logp = logp[..., 0].sum(1)  # [64]
    chance = logp.detach().exp()
    if std:
        sign = (reward[:, None] - reward).sign() / math.sqrt(2)
        expected = (chance[:, None] * chance * sign * (logp[:, None] - logp)).sum() / 2
    else:
        expected = (logp.exp() * reward).sum() * (2 - 1) / 2
    (-expected / 3).backward()  # a third: token weights average over the answer's tokens
    exact = gradient(model)
    model.zero_grad()

    pairs = torch.cartesian_prod(torch.arange(64), torch.arange(64))  # [4096, 2]
    advantage = grpo.group_advantages(reward[pairs], std=std, eps=0.0).flatten()
    tokens = tokens[pairs.flatten()]
    mask = torch.tensor([0, 1, 1, 1]).bool().expand_as(tokens)
    weight = grpo.token_weights(mask, total=2 * 3)
    weight = weight * chance[pairs].prod(1).repeat_interleave(2)[:, None]
    with torch.no_grad():
        behaviour = token_logp(model, tokens)
    rows = Rows(tokens, mask, behaviour, mask.long() - 1, torch.arange(8192),
                torch.arange(8192) // 2)
    grpo.loss(model, rows, weight, advantage[:, None], grpo.Config())[0].backward()
    assert exact.norm() > 1e-2
    torch.testing.assert_close(gradient(model), exact, rtol=1e-4, atol=1e-6)


# ---- the update: micro-batches, masks, rows that are left out ----

def random_rows(model, R=6, T=9, seed=0):
    """R rows of different lengths: an observation of two tokens, an answer, for the longer ones a
    second turn of both."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.cfg.vocab_size, (R, T), generator=generator)
    length = torch.randint(4, T + 1, (R, 1), generator=generator)
    column = torch.arange(T)
    mask = (column >= 2) & (column < length) & (column != 5)
    with torch.no_grad():
        behaviour = token_logp(model, tokens) * mask
    turn = torch.where(mask, column // 6, -1)
    return Rows(tokens, mask, behaviour, turn, torch.arange(R), torch.arange(R) // 2)


def gradient_of_update(model, rows, mask, advantage, reference_logp=None, **changes):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    cfg = grpo.Config(grad_clip=1e9, **changes)
    stats = grpo.update_on(model, optimizer, rows, mask, advantage, cfg, reference_logp)
    return stats, gradient(model)


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_gradient_is_that_of_the_equations_and_does_not_depend_on_micro_batches(kl):
    model = tiny(6, 9)
    rows = random_rows(model)
    noise = torch.rand(6, 9, generator=torch.Generator().manual_seed(5))
    rows.behaviour_logp -= 0.3 * noise * rows.mask  # some ratios are clipped
    advantage = torch.tensor([1.0, -0.5, 0.0, 0.3, 0.0, 2.0])
    reference = grpo.score(tiny(6, 9, seed=1), rows, grpo.Config()) if kl else None
    logp, weight = token_logp(model, rows.tokens), grpo.token_weights(rows.mask)
    by_hand = grpo.clipped_loss(logp, rows.behaviour_logp, advantage[:, None], weight)
    if kl:
        by_hand = by_hand + kl * (weight * grpo.k3_kl(logp, reference)).sum()
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    expected = torch.cat([g.flatten() for g in expected])
    first = None
    for micro_rows in (64, 1, 3):
        stats, found = gradient_of_update(model, rows, rows.mask.float(), advantage, reference,
                                          micro_rows=micro_rows, kl=kl)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        first = first or stats
        assert stats == pytest.approx(first, rel=1e-6, abs=1e-6)
    assert expected.norm() > 0.1 and 0 < stats["clip_share"] < 1
    assert stats["loss"] == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize("kl, longest", [(0.0, 512), (0.3, 512), (0.0, 1), (0.3, 13)])
def test_replies_that_share_a_row_have_the_gradient_of_rows_of_their_own(kl, longest, monkeypatch):
    model = tiny(6, 14)
    rows = random_rows(model, T=9)
    prompt = torch.tensor([[5, 1, 2, 3, 4], [2, 2, 0, 1, 5]]).repeat_interleave(3, 0)
    rows.tokens = torch.cat([prompt, rows.tokens], 1)  # [6, 14]; two different tokens follow it
    rows.tokens[:, 5:7] = 3
    rows.mask = torch.cat([torch.zeros(6, 5).bool(), rows.mask], 1)
    rows.turn_of_token = torch.where(rows.mask, 0, -1)
    with torch.no_grad():
        rows.behaviour_logp = token_logp(model, rows.tokens) * rows.mask
    rows.behaviour_logp -= 0.3 * torch.rand(6, 14) * rows.mask
    advantage = torch.rand(6, 14) - 0.5  # of each token
    weight = rows.mask * torch.rand(6, 14)
    reference = grpo.score(tiny(6, 14, seed=1), rows, grpo.Config()) if kl else None
    assert grpo.mostly_prompt(rows.mask)
    seen, share = [], grpo.share_prompts

    def short(*args):
        made = share(*args, longest=longest)
        seen.append(len(made[0].tokens))
        return made
    monkeypatch.setattr(grpo, "share_prompts", short)
    stats, found = gradient_of_update(model, rows, weight, advantage, reference, kl=kl)
    monkeypatch.setattr(grpo, "mostly_prompt", lambda mask: False)
    expected_stats, expected = gradient_of_update(model, rows, weight, advantage, reference, kl=kl)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert stats == pytest.approx(expected_stats, rel=1e-6, abs=1e-6) and expected.norm() > 0.05
    assert seen == [{512: 2, 1: 6}.get(longest, seen[0])] and 2 <= seen[0] <= 6


def test_replies_share_a_row_only_where_prompts_are_longer_than_they():
    mask = torch.zeros(2, 8).bool()
    mask[:, 4:7] = True
    assert grpo.mostly_prompt(mask)
    mask[:, 3:] = True
    assert not grpo.mostly_prompt(mask)


def test_skipping_rows_without_advantage_keeps_them_in_the_normaliser():
    model, seen = tiny(6, 9), []
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5, 0.0])
    model.embed.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    _, found = gradient_of_update(model, rows, rows.mask, advantage)
    model.zero_grad()
    weight = grpo.token_weights(rows.mask)
    grpo.loss(model, rows, weight, advantage[:, None], grpo.Config())[0].backward()
    assert seen == [3, 6]
    torch.testing.assert_close(found, gradient(model), rtol=0, atol=1e-6)


def test_a_total_given_stands_for_rows_that_were_left_out_before():
    model = tiny(6, 9)
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5, 0.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    grpo.update_on(model, optimizer, rows, rows.mask, advantage, grpo.Config(grad_clip=1e9))
    expected, kept = gradient(model), torch.tensor([0, 1, 4])
    total = int(rows.mask.sum())
    grpo.update_on(model, optimizer, rows[kept], rows.mask[kept], advantage[kept],
                   grpo.Config(grad_clip=1e9), total=total)
    torch.testing.assert_close(gradient(model), expected, rtol=0, atol=1e-6)


def test_a_batch_without_any_advantage_has_no_gradient_and_one_that_is_not_finite_is_skipped():
    model = tiny(6, 9)
    rows, before = random_rows(model), [p.clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for advantage, skipped in ((0.0, 0), (math.inf, 1)):
        stats = grpo.update_on(model, optimizer, rows, rows.mask, torch.full((6,), advantage),
                               grpo.Config())
        assert stats["skipped"] == skipped
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_gradient_reaches_every_sampled_token_the_end_too_and_no_observation():
    model, seen = tiny(6, 9), []
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 0.5, 1.0, -0.5, 2.0])

    def keep(module, inputs, output):
        seen.append(output)
        output.retain_grad()
    for module in (model.norm, model.head):
        module.register_forward_hook(keep)
    weight = grpo.token_weights(rows.mask)
    grpo.loss(model, rows, weight, advantage[:, None], grpo.Config())[0].backward()
    touched = seen[0].grad.abs().sum(-1) > 0  # [R, T]: column t - 1 predicts token t
    assert torch.equal(touched[:, :-1], rows.mask[:, 1:]) and not touched[:, -1].any()
    last = rows.mask.long().mul(torch.arange(9)).amax(1)  # the end token of each row
    logits = seen[1].grad[rows.mask.sum(1).cumsum(0) - 1]  # the head's are [n, V], row by row
    own = logits.gather(1, rows.tokens[torch.arange(6), last][:, None])[:, 0]
    assert torch.equal(own < 0, advantage > 0) and own.ne(0).all()


# ---- minibatches ----

def test_the_second_minibatch_is_off_policy_and_the_clip_acts():
    """Two updates on one rollout: the ratio is 1 in the first, and not in the second."""
    model = tiny(6, 9)
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    optimizer, stats = torch.optim.Adam(model.parameters(), lr=0.1), []
    for part in (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])):
        stats.append(grpo.update_on(model, optimizer, rows[part], rows.mask[part],
                                    advantage[part], grpo.Config()))
    assert stats[0]["clip_share"] == 0 and stats[0]["mismatch_max"] < 1e-5
    assert stats[1]["clip_share"] > 0 and stats[1]["mismatch_max"] > 0.2
    assert stats[1]["mismatch_kl"] > 1e-3


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_minibatches_are_updates_on_whole_groups_one_after_the_other(kl):
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    by_hand, together = tiny(6, 9), tiny(6, 9)
    rows = random_rows(by_hand)
    cfg = grpo.Config(minibatches=3, kl=kl)
    reference = grpo.score(tiny(6, 9, seed=1), rows, cfg) if kl else None
    found = []
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.1)
    for part in (torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])):
        found.append(grpo.update_on(by_hand, optimizer, rows[part], rows.mask[part],
                                    advantage[part], cfg, reference[part] if kl else None))
    optimizer = torch.optim.Adam(together.parameters(), lr=0.1)
    stats = grpo.update(together, optimizer, rows, rows.mask, advantage, cfg, reference)
    for a, b in zip(by_hand.parameters(), together.parameters()):
        assert torch.equal(a, b)
    for name in ("loss", "grad_norm"):
        assert stats[name] == pytest.approx(sum(x[name] for x in found) / 3)
    for name in ("clip_share", "mismatch_kl", "nll"):
        mean = sum(x[name] * x["trained"] for x in found) / rows.mask.sum()
        assert stats[name] == pytest.approx(mean.item())
    assert stats["skipped"] == 0 and "trained" not in stats
    assert stats["clip_share"] > 0  # of the later ones
    assert stats["mismatch_max"] == found[0]["mismatch_max"] < 1e-5  # rounding, not a drift


def test_a_minibatch_that_trains_nothing_does_not_count_in_the_means_over_tokens():
    """Half of the groups without variance: one update or two, the tokens trained are the same."""
    model = tiny(6, 9)
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 1.0, 0.0, 0.0, 0.0])
    rows.group = torch.tensor([0, 0, 0, 1, 1, 1])
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    one, two = (grpo.update(model, still, rows, rows.mask, advantage, grpo.Config(minibatches=n))
                for n in (1, 2))
    for name in grpo.PER_TOKEN:
        assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-7)
    assert one["nll"] > 1

    broken = torch.tensor([math.nan, 1.0, 1.0, math.nan, 1.0, 1.0])
    assert grpo.update(model, still, rows, rows.mask, broken, grpo.Config(minibatches=2))["skipped"] == 2


# ---- the method ----

def test_the_reference_of_the_kl_term_is_the_runs_own_warm_start_and_resume_fills_it_in(command):
    args = options("--cache", "warm", *MOVING["grpo"], "--kl", "0.1")
    method, cfg = train.read_options(args)
    r = train.start(method, cfg)
    state, reference = run.load("o/ckpt.pt"), r.reference
    for name, x in reference.state_dict().items():
        assert torch.equal(x, state["warm"][name]) and not x.requires_grad
    state["warm"] = {name: x + 1 for name, x in state["warm"].items()}  # --senior may hold others
    resume.restore(r, state)
    assert r.reference is reference
    for name, x in reference.state_dict().items():
        assert torch.equal(x, state["warm"][name])


def test_reward_and_the_kl_term_both_move_the_model(command):
    assert command(*MOVING["grpo"], "--kl", "0.5", "--minibatches", "2")[0] == 0
    lines = [json.loads(line) for line in Path("o/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["grad_norm"] > 0 and lines[-1]["kl"] > 0
    assert {line["zero_variance"] for line in lines} - {1.0}
    assert max(line["mismatch_max"] for line in lines) < 1e-4  # scored as it was sampled
