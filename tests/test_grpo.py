"""The equations by hand and by enumeration, the gradient of the loss, and what a rollout hands over."""
import itertools
import math

import pytest
import torch

import envs
from envs.guess import Guess
import grpo
import tokenizer
from model import GPT, GPTConfig
from sampler import Sampler


def tiny(vocab=4, context=4, seed=0):
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocab, context, layers=1, heads=1, kv_heads=1, width=8, head_width=8, ffn_width=16))


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_advantages_by_hand_with_the_samples_standard_deviation():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    expected, std = torch.tensor([[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, -0.25, 0.75]]), torch.tensor([[3**-0.5], [0.5]])
    torch.testing.assert_close(grpo.group_advantages(rewards, std=False), expected)
    torch.testing.assert_close(grpo.group_advantages(rewards, eps=0.1), expected / (std + 0.1))


def test_advantages_leave_out_invalid_episodes_and_are_zero_for_fewer_than_two():
    rewards = torch.tensor([[1.0, 0.0, 9.0, 0.0], [0.3, 1.0, 1.0, 1.0], [0.3, 1.0, 1.0, 0.0]])
    valid = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    found = grpo.group_advantages(rewards, valid=valid)
    torch.testing.assert_close(found[:1, [0, 1, 3]], grpo.group_advantages(rewards[:1, [0, 1, 3]]))
    assert found[0, 2] == 0 and found[1:].eq(0).all()


@pytest.mark.parametrize("value, G", [(0.1, 3), (0.1, 8), (1 / 3, 8), (0.7, 11)])
def test_equal_fractional_rewards_give_exactly_zero(value, G):
    assert grpo.group_advantages(torch.full((1, G), value)).eq(0).all()
    mixed = torch.full((1, G), value)
    mixed[0, 0] = 5.0  # an invalid episode does not make a difference
    assert grpo.group_advantages(mixed, valid=torch.arange(G)[None] > 0, eps=1e-12).eq(0).all()


@pytest.mark.parametrize("per, expected, total", [
    ("token", [[0.25, 0.125, 0, 0.25], [0, 0.25, 0.125, 0], [0, 0, 0, 0]], 4.0),  # of the mask's sum
    ("sequence", [[0.2, 0.1, 0, 0.2], [0, 1 / 3, 1 / 6, 0], [0, 0, 0, 0]], 2.0)])  # of the rows that are not empty
def test_token_weights_by_hand_sum_to_one_also_over_parts_of_a_batch(per, expected, total):
    mask = torch.tensor([[1, 0.5, 0, 1], [0, 1, 0.5, 0], [0, 0, 0, 0]])
    whole = grpo.token_weights(mask, per=per)
    torch.testing.assert_close(whole, torch.tensor(expected))
    parts = [grpo.token_weights(m, per=per, total=torch.tensor(total)) for m in mask.split(1)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert whole.sum() == pytest.approx(1) and grpo.token_weights(torch.zeros(2, 3), per=per).eq(0).all()
    with pytest.raises(ValueError):
        grpo.token_weights(mask, per="word")


def test_clipped_loss_by_hand_and_no_gradient_where_the_clip_acts():
    ratio = torch.tensor([[1.1, 1.5, 1.5, 0.5, 0.5, 0.95]])
    advantage = torch.tensor([[2.0, 2.0, -2.0, 2.0, -2.0, -2.0]])
    weight = torch.tensor([[0.1, 0.15, 0.3, 0.1, 0.25, 0.1]])
    surrogate = torch.tensor([[2.2, 1.3 * 2, -3.0, 1.0, -0.9 * 2, -1.9]])  # clipped at 1.3 above, at 0.9 below, pessimistically
    logp = ratio.log().requires_grad_()
    loss = grpo.clipped_loss(logp, torch.zeros_like(logp), advantage, weight, clip_low=0.1, clip_high=0.3)
    torch.testing.assert_close(loss, -(weight * surrogate).sum())
    loss.backward()
    torch.testing.assert_close(logp.grad, -weight * ratio * advantage * torch.tensor([[1, 0, 1, 1, 0, 1]]))


@pytest.mark.parametrize("pad", [-math.inf, -1e9, 1e9])
def test_masked_tokens_of_any_log_prob_leave_no_nan(pad):
    logp = torch.tensor([[-1.0, pad]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0]])
    for behaviour in ([[-1.0, 0.0]], [[-1.0, -math.inf]]):
        logp.grad = None
        loss = grpo.clipped_loss(logp, torch.tensor(behaviour), torch.tensor([[3.0, 3.0]]), weight)
        loss.backward()
        assert loss == -3 and logp.grad.tolist() == [[-3.0, 0.0]]


def test_k3_is_nonnegative_and_its_expectation_is_the_exact_kl():
    logits, reference = torch.randn(2, 5, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.double).unbind()
    logp, reference_logp = logits.log_softmax(-1), reference.log_softmax(-1)
    k3 = grpo.k3_kl(logp, reference_logp)
    by_hand = (logp.exp() * (logp - reference_logp)).sum(-1)
    assert k3.min() >= 0 and by_hand.min() > 0.01
    torch.testing.assert_close((logp.exp() * k3).sum(-1), by_hand)
    torch.testing.assert_close(grpo.exact_kl(logits, reference), by_hand)
    impossible, even = torch.tensor([0.0, 0.0, -math.inf]), torch.zeros(3)
    found = [grpo.exact_kl(p, q).item() for p, q in ((impossible, even), (impossible, impossible), (even, impossible))]
    assert found == [pytest.approx(math.log(1.5)), 0, math.inf]


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer():
    for n, c, k in itertools.product(range(1, 6), range(6), range(1, 6)):
        if c > n or k > n:
            with pytest.raises(ValueError):
                grpo.pass_at_k(n, c, k)
        else:
            subsets = list(itertools.combinations([i < c for i in range(n)], k))
            assert grpo.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


# ---- the gradient: all 64 answers of three tokens, all 64 * 64 groups of two; micro-batches; masks ----

@pytest.mark.parametrize("std", [False, True])
def test_expected_gradient_of_groups_of_two_by_enumeration(std):
    """Each pair of answers weighed by its probability. std=False: (G - 1) / G of the exact policy gradient. With std, two
    different rewards are +-1 / sqrt(2) once normalised, and the expectation is a sum over pairs."""
    model = tiny()
    answers = torch.tensor(list(itertools.product(range(4), repeat=3)))
    tokens = torch.cat([torch.zeros(64, 1, dtype=torch.long), answers], 1)
    reward = torch.rand(64, generator=torch.Generator().manual_seed(1)).mul(8).floor().div(8)  # some are equal
    logp = model(tokens[:, :-1]).log_softmax(-1).gather(2, answers[..., None])[..., 0].sum(1)  # [64]
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
    weight = grpo.token_weights(mask, total=torch.tensor(2 * 3)) * chance[pairs].prod(1).repeat_interleave(2)[:, None]
    with torch.no_grad():
        behaviour = grpo.token_logp(model, tokens)
    rows = grpo.Rows(tokens, mask, behaviour, mask.long() - 1, torch.arange(8192), torch.arange(8192) // 2)
    grpo.loss(model, rows, weight, advantage, grpo.Config())[0].backward()
    assert exact.norm() > 1e-2
    torch.testing.assert_close(gradient(model), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("change", ["chunks", "recompute"])
def test_what_saves_memory_changes_no_gradient(monkeypatch, change):
    """Logits in chunks of two tokens, activations computed twice: the same loss and gradient, and less is kept for the backward pass."""
    model = GPT(GPTConfig(50, 9, layers=3, heads=1, kv_heads=1, width=8, head_width=8, ffn_width=16))
    rows = random_rows(model)

    def backward():
        model.zero_grad()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
            loss, _ = grpo.loss(model, rows, grpo.token_weights(rows.mask), torch.linspace(-1, 1, len(rows.tokens)), grpo.Config())
        loss.backward()
        return loss.detach(), gradient(model), kept
    expected = backward()
    if change == "chunks":
        monkeypatch.setattr(grpo, "LOGITS", 100)
    else:
        model.recompute = True
    found = backward()
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-5, atol=1e-6)
    n = int(rows.mask.sum())
    big = {"chunks": lambda shape: shape == (n, 50), "recompute": lambda shape: len(shape) == 3 and shape[-1] == 16}[change]  # all logits; SwiGLU's inside
    assert any(map(big, expected[2])) and not any(map(big, found[2]))


def random_rows(model, R=6, T=9, seed=0):
    """R rows of different lengths: an observation of two tokens, an answer, for the longer ones a second turn of both."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.cfg.vocab_size, (R, T), generator=generator)
    length, column = torch.randint(4, T + 1, (R, 1), generator=generator), torch.arange(T)
    mask = (column >= 2) & (column < length) & (column != 5)
    with torch.no_grad():
        behaviour = grpo.token_logp(model, tokens) * mask
    return grpo.Rows(tokens, mask, behaviour, torch.where(mask, column // 6, -1), torch.arange(R), torch.arange(R) // 2)


def gradient_of_update(model, rows, mask, advantage, reference_logp=None, **options):
    optimizer, cfg = torch.optim.SGD(model.parameters(), lr=0.0), grpo.Config(grad_clip=1e9, **options)
    return grpo.update(model, optimizer, rows, mask, advantage, cfg, reference_logp), gradient(model)


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_gradient_is_that_of_the_equations_and_does_not_depend_on_micro_batches(kl):
    model = tiny(6, 9)
    rows = random_rows(model)
    rows.behaviour_logp -= 0.3 * torch.rand(6, 9, generator=torch.Generator().manual_seed(5)) * rows.mask  # some ratios are clipped
    advantage = torch.tensor([1.0, -0.5, 0.0, 0.3, 0.0, 2.0])
    reference = grpo.score(tiny(6, 9, seed=1), rows, grpo.Config()) if kl else None
    logp, weight = grpo.token_logp(model, rows.tokens), grpo.token_weights(rows.mask)
    by_hand = grpo.clipped_loss(logp, rows.behaviour_logp, advantage[:, None], weight)
    by_hand = by_hand + kl * (weight * grpo.k3_kl(logp, reference)).sum() if kl else by_hand
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(by_hand, list(model.parameters()))])
    for micro_rows in (64, 1, 3):
        stats, found = gradient_of_update(model, rows, rows.mask.float(), advantage, reference, micro_rows=micro_rows, kl=kl)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert stats == pytest.approx(first := stats if micro_rows == 64 else first, abs=1e-6)
    assert expected.norm() > 0.1 and 0 < stats["clip_share"] < 1 and stats["loss"] == pytest.approx(by_hand.item(), abs=1e-6)


def test_skipping_rows_without_advantage_keeps_them_in_the_normaliser():
    model, seen = tiny(6, 9), []
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5, 0.0])
    model.embed.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    _, found = gradient_of_update(model, rows, rows.mask, advantage)
    model.zero_grad()
    grpo.loss(model, rows, grpo.token_weights(rows.mask), advantage, grpo.Config())[0].backward()
    assert seen == [3, 6]
    torch.testing.assert_close(found, gradient(model), rtol=0, atol=1e-6)


def test_a_batch_without_any_advantage_has_no_gradient_and_one_that_is_not_finite_is_skipped():
    model = tiny(6, 9)
    rows, before = random_rows(model), [p.clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for advantage, skipped in ((0.0, 0), (math.inf, 1)):
        stats = grpo.update(model, optimizer, rows, rows.mask, torch.full((6,), advantage), grpo.Config())
        assert stats["skipped"] == skipped and all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_gradient_reaches_every_sampled_token_the_end_too_and_no_observation():
    model, seen = tiny(6, 9), []
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 0.5, 1.0, -0.5, 2.0])
    for module in (model.norm, model.head):
        module.register_forward_hook(lambda module, inputs, output: seen.append(output) or output.retain_grad())
    grpo.loss(model, rows, grpo.token_weights(rows.mask), advantage, grpo.Config())[0].backward()
    touched = seen[0].grad.abs().sum(-1) > 0  # [R, T]: column t - 1 predicts token t
    assert torch.equal(touched[:, :-1], rows.mask[:, 1:]) and not touched[:, -1].any()
    last = rows.mask.long().mul(torch.arange(9)).amax(1)  # the end token of each row
    own = seen[1].grad[rows.mask.sum(1).cumsum(0) - 1, rows.tokens[torch.arange(6), last]]  # logits [n, V], row by row
    assert torch.equal(own < 0, advantage > 0) and own.ne(0).all()


def test_the_second_minibatch_is_off_policy_and_the_clip_acts():
    """Two updates on one rollout, as --minibatches 2 does: the ratio is 1 in the first, and not in the second."""
    model = tiny(6, 9)
    rows, advantage = random_rows(model), torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    optimizer, stats = torch.optim.Adam(model.parameters(), lr=0.1), []
    for part in (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])):
        stats.append(grpo.update(model, optimizer, rows[part], rows.mask[part], advantage[part], grpo.Config(minibatches=2)))
    assert stats[0]["clip_share"] == 0 and stats[0]["mismatch_max"] < 1e-5
    assert stats[1]["clip_share"] > 0 and stats[1]["mismatch_max"] > 0.2 and stats[1]["mismatch_kl"] > 1e-3


TOK = tokenizer.train(["1+2=3\n#3", "more", "less", "guess"] * 3, 270)


def play(name, tasks=6, group=4, likes=(), by=6.0, context=48, **options):
    """Rollout of a random model whose logits of the tokens `likes` are raised."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOK.n_vocab, context, layers=1, heads=1, kv_heads=1, width=16, head_width=16, ffn_width=16))
    bias = torch.zeros(TOK.n_vocab).index_fill_(0, torch.tensor(list(likes)), by)
    model.head.register_forward_hook(lambda module, inputs, output: output + bias)
    names = [(0, "test", 0, task, sample) for task in range(tasks) for sample in range(group)]
    cfg, sampler = grpo.Config(group=group, temperature=1.5, **options), Sampler(model, tasks * group + 2)
    return model, cfg, *grpo.rollout(sampler, envs.Batch(name), TOK, list(range(tasks)), "train", names, cfg)


def replay(name, rows, episodes, row):
    """Play a row's sampled tokens again, turn by turn -> the row's tokens and turns as they should be."""
    env, episode = envs.make(name), episodes[row]
    ids = TOK.encode_turn("user", env.reset(episode["task"], "train"), first=True)
    turns, reward = [-1] * len(ids), 0.0
    for turn in range(episode["turns"]):
        own = rows.tokens[row, rows.turn_of_token[row] == turn].tolist()
        ended = own[-1] == TOK.end_id
        text = TOK.decode(own[:-1] if ended else own)
        step = env.step(text)
        ids, turns, reward = ids + own, turns + [turn] * len(own), reward + step.reward
        if turn + 1 < episode["turns"]:
            assert not step.done
            heard = ([] if ended else [TOK.end_id]) + TOK.encode_turn("user", step.observation)
            ids, turns = ids + heard, turns + [-1] * len(heard)
    assert (text, reward) == (episode["text"], episode["reward"])
    return ids, turns


@pytest.mark.parametrize("name, context, likes", [("arithmetic", 64, [TOK.end_id]),
                                                  ("guess", 48, [TOK.end_id, *map(ord, "149")])])
def test_rollout_keeps_sampled_ids_and_marks_exactly_them(name, context, likes):
    model, cfg, rows, episodes = play(name, likes=likes, context=context)
    lost = ends = 0
    for row in range(24):
        ids, turns = replay(name, rows, episodes, row)
        padding = [-1] * (rows.tokens.shape[1] - len(ids))
        assert rows.tokens[row, :len(ids)].tolist() == ids
        assert rows.turn_of_token[row].tolist() == turns + padding
        assert rows.mask[row].tolist() == [t >= 0 for t in turns + padding]
        assert rows.behaviour_logp[row].ne(0).tolist() == rows.mask[row].tolist()
        own = [i for i, t in zip(ids, turns) if t == 0]
        ends += own[-1] == TOK.end_id
        lost += TOK.encode(TOK.decode(own)) != own
    assert lost > 0 and ends > 0  # encoding the text again would change ids; ends are in the mask
    assert rows.episode.tolist() == list(range(24)) and rows.author is None
    assert rows.group.tolist() == [e["task"] for e in episodes] == [i // 4 for i in range(24)]
    if name == "guess":
        assert {e["turns"] for e in episodes} >= {2, 4} and {e["reward"] for e in episodes} == {0.0, 1.0}
    torch.testing.assert_close(rows.behaviour_logp, grpo.score(model, rows, cfg) * rows.mask, rtol=0, atol=1e-5)


def test_answers_that_do_not_end_are_counted_as_truncated():
    _, _, rows, episodes = play("arithmetic", context=64, likes=[TOK.end_id], max_new=3, by=3.0)
    ended = (rows.tokens.eq(TOK.end_id) & rows.mask).any(1).tolist()
    assert [e["truncated"] for e in episodes] == [not e for e in ended] and len(set(ended)) == 2
    assert grpo.summary(episodes, 4)["truncated"] == pytest.approx(1 - sum(ended) / 24)


def test_a_game_that_outgrows_its_context_goes_on_in_a_new_row_with_the_goal_and_its_latest_turns():
    cfg = grpo.Config(group=4)
    model, _, whole, long = play("guess", context=48, likes=[TOK.end_id, *map(ord, "0123456789")], by=4.0)
    sampler = Sampler(model, 24, context=14)
    names = [(3, "play", 0, task, sample) for task in range(6) for sample in range(4)]
    rows, episodes = grpo.rollout(sampler, envs.Batch("guess"), TOK, list(range(6)), "train", names, cfg)
    assert rows.tokens.shape[1] <= 14 and not any(e["truncated"] for e in episodes if e["reward"])
    taken = [(rows.episode == e).sum().item() for e in range(24)]
    assert taken == [e["contexts"] for e in episodes] and len(set(taken)) > 1 and rows.episode.tolist() == sorted(rows.episode.tolist())
    goal = TOK.encode_turn("user", "guess", first=True)
    for e in range(24):
        mine = rows[rows.episode == e]
        turns = [[t for t in row.tolist() if t >= 0] for row in mine.turn_of_token]
        assert [t for row in turns for t in dict.fromkeys(row)] == list(range(episodes[e]["turns"]))  # each turn sampled once, in order
        for i, (tokens, mask) in enumerate(zip(mine.tokens.tolist(), mine.mask.tolist())):
            assert tokens[:len(goal)] == goal and not any(mask[:len(goal)])
            if i:  # what is repeated of the row before is its end, and not sampled anew
                start = mask.index(True)
                before = [t for t, m in zip(*(x.tolist() for x in (mine.tokens[i - 1], mine.turn_of_token[i - 1] >= -1)))]
                last = max(j for j, m in enumerate(mine.mask[i - 1].tolist()) if m)
                repeated = tokens[len(goal):start]
                assert any(repeated[:k] == before[last + 1 - k:last + 1] for k in range(1, len(repeated) + 1)) and len(goal) < start
    torch.testing.assert_close(rows.behaviour_logp, grpo.score(model, rows, cfg), rtol=0, atol=1e-5)
    hopeless = grpo.rollout(Sampler(model, 24, context=len(goal) + 2), envs.Batch("guess"), TOK, list(range(6)), "train", names, cfg)[1]
    assert all(e["truncated"] and e["turns"] == 1 for e in hopeless if not e["success"])  # goal and a turn do not fit


def test_a_long_game_equals_its_turns_replayed_one_by_one():
    """50 turns: the sampler's log-probs, of rows that leave and move as others end, against a full forward of each prefix alone."""
    class Long(Guess):
        max_turns = 50

        def step(self, text):
            step = super().step(text)
            step.done = "3" in text or self.turn == 50
            return step
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOK.n_vocab, 400, layers=2, heads=1, kv_heads=1, width=16, head_width=16, ffn_width=16))
    bias = torch.zeros(TOK.n_vocab).index_fill_(0, torch.tensor([TOK.end_id, *map(ord, "12456789")]), 5.0)
    bias[ord("3")] = 2.8
    model.head.register_forward_hook(lambda module, inputs, output: output + bias)
    env = envs.Batch("guess")
    env.envs = [Long()]
    env.first = env.envs[0]
    rows, episodes = grpo.rollout(Sampler(model, 12), env, TOK, [0, 1, 2], "train", [("long", i) for i in range(12)], grpo.Config(group=4))
    turns = [e["turns"] for e in episodes]
    assert max(turns) == 50 and len(set(turns)) > 3 and all(e["contexts"] == 1 for e in episodes)
    row = turns.index(50)
    for turn in range(50):  # what it saw, with the turn behind it
        at = (rows.turn_of_token[row] == turn).nonzero()[:, 0]
        own = grpo.token_logp(model, rows.tokens[row:row + 1, :int(at[-1]) + 1])[0, at]
        torch.testing.assert_close(rows.behaviour_logp[row, at], own, rtol=0, atol=1e-5)


def test_garbage_scores_zero_and_never_raises():
    for name in ("arithmetic", "guess"):
        *_, episodes = play(name, likes=range(128, 256), by=9.0, context=64)  # bytes that are no text
        assert all(e["reward"] == 0 and not e["success"] for e in episodes)


def test_evaluation_gives_pass_at_k_over_problems_and_repeats_itself():
    model, cfg, _, _ = play("guess", likes=[TOK.end_id, *map(ord, "0123456789")], by=4.0)
    first, second = (grpo.evaluate(Sampler(model, rows), envs.Batch("guess"), TOK, cfg, "valid", 5, 4, seed=3) for rows in (8, 21))
    assert [e["text"] for e in first[2]] == [e["text"] for e in second[2]]  # whatever the number of rows
    won = [[e["success"] for e in first[2][i:i + 4]] for i in range(0, 20, 4)]
    metrics, share = first[0], torch.tensor([sum(w) / 4 for w in won])
    assert metrics["pass@1"] == pytest.approx(sum(map(sum, won)) / 20) and metrics["pass@4"] == pytest.approx(sum(map(any, won)) / 5)
    assert metrics["pass@1_se"] == pytest.approx(float(share.std(correction=0)) / math.sqrt(5), abs=1e-6)
    assert 0 < metrics["pass@1"] < metrics["pass@4"] and metrics["n"] == 5


def test_rows_of_like_length_share_a_micro_batch():
    torch.manual_seed(0)
    for n in (1, 7, 8, 9, 40, 120):
        length, index = torch.randint(1, 100, (n,)), torch.randperm(n)[:max(1, 2 * n // 3)]
        parts = list(grpo.by_length(length, index, 16))
        assert sorted(i for part, _ in parts for i in part.tolist()) == sorted(index.tolist())
        for part, longest in parts:
            assert longest == length[part].max() and len(part) <= 16
            assert len(part) <= 8 or length[part].sum() >= 0.85 * longest * len(part)
    assert list(grpo.by_length(torch.tensor([3]), torch.tensor([], dtype=torch.long), 16)) == []
