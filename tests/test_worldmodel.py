"""Textual belief states: the tree's gradient by enumeration, the reward by hand, and what an update
changes. training_rows, which makes rows of replies, is tested here too."""
import copy
import itertools
import math
import random
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
import torch

import beliefs
import grpo
import worldmodel
from conftest import tiny_world
from contract import NASTY
from envs import record
from envs.house import text as house
from envs.house.text import door
from envs.record import coverage, fact_f1
from model import token_logp
from rollout import training_rows
from sampler import Reply
from worldmodel import Config
from worlds import AT, DECODE, EGG, FOUND, HOLD, PEN, TRANSITION, acted, some_examples

SCALES = get_args(get_type_hints(Config, include_extras=False)["scale"])

# ---- advantages ----

def by_hand(groups, scale, eps=1e-6):
    """Advantages of a level, a list of lists of siblings, in plain loops."""
    centred = [[r - sum(g) / len(g) for r in g] for g in groups]
    centred = [[0.0] * len(g) if max(g) == min(g) else c for g, c in zip(groups, centred)]
    if scale == "group":
        def std(c):
            return math.sqrt(sum(y * y for y in c) / max(1, len(c) - 1))
        return [[x / (std(c) + eps) for x in c] for c in centred]
    flat = [x for c in centred for x in c]
    rms = math.sqrt(sum(x * x for x in flat) / len(flat)) + eps if scale == "batch" else 1.0
    return [[x / rms for x in c] for c in centred]


def siblings(values):
    return values.reshape(-1, values.shape[-1]).tolist()


def test_there_are_three_scales():
    assert SCALES == ("group", "batch", "none")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 4, 3, 2), (2, 3, 2, 2, 3), (1, 2, 2)])
def test_the_trees_advantages_equal_plain_loops(scale, shape):
    torch.manual_seed(len(shape))
    leaves = torch.rand(shape, dtype=torch.double)
    leaves[..., 0, 0, :] = 0.1  # a group of equals
    of_next = leaves.mean(-1)
    for eps in (1e-6, 0.1):
        found = worldmodel.factorized_advantages(leaves, scale=scale, eps=eps)
        for advantage, values in zip(found, (of_next.mean(-1), of_next, leaves)):
            assert advantage.shape == values.shape
            expected = [pytest.approx(g, abs=1e-9) for g in by_hand(siblings(values), scale, eps)]
            assert siblings(advantage) == expected
        assert found[2].abs().max() > 0.1


@pytest.mark.parametrize("scale", SCALES)
def test_groups_of_equals_and_of_one_get_exactly_nothing(scale):
    same = torch.full((3, 2, 3, 7), 0.1)  # whose mean is not 0.1 in floats
    assert all(not a.any() for a in worldmodel.factorized_advantages(same, scale=scale))
    torch.manual_seed(0)
    leaves = torch.rand(3, 1, 3, 1)
    encode, transition, decode = worldmodel.factorized_advantages(leaves, scale=scale)
    assert not encode.any() and transition.any() and not decode.any()


@pytest.mark.parametrize("vocab, A, B, C", [
    (2, 2, 2, 2), (2, 2, 2, 3), (2, 3, 2, 1), (2, 2, 3, 1), (4, 2, 1, 1), (4, 1, 2, 1), (4, 1, 1, 3)])
def test_the_expected_gradient_of_each_level_is_the_exact_one_times_its_own_factor(vocab, A, B, C):
    """A tabular policy for s, s' given s, o' given s'; the reward depends on all three. The estimator
    of a level is the mean over its samples of advantage x grad log p, with scale "none"; in an update
    a level weighs as many tokens as its samples have (the test of merging below). Over all trees:
    ((A-1)/A, (B-1)/B, (C-1)/C) of the exact policy gradient of that level's table, the baseline being
    the mean of all siblings, itself included."""
    torch.manual_seed(vocab * 100 + A * 10 + B)
    tables = [torch.randn(shape, dtype=torch.double, requires_grad=True)
              for shape in ((vocab,), (vocab, vocab), (vocab, vocab))]
    reward = 5 * torch.rand(vocab, vocab, vocab, dtype=torch.double)
    p, q, r = (t.softmax(-1) for t in tables)
    value = (p[:, None, None] * q[:, :, None] * r[None] * reward).sum()
    exact = torch.autograd.grad(value, tables)

    n = A + A * B + A * B * C
    digits = torch.arange(vocab**n)[:, None] // vocab ** torch.arange(n) % vocab  # every tree, [M, n]
    s, moved, seen = digits.split([A, A * B, A * B * C], 1)
    moved, seen = moved.view(-1, A, B), seen.view(-1, A, B, C)
    lp, lq, lr = (t.log_softmax(-1) for t in tables)
    logp = [lp[s], lq[s[:, :, None], moved], lr[moved[..., None], seen]]
    chance = sum(x.detach().flatten(1).sum(1) for x in logp).exp()
    assert chance.sum() == pytest.approx(1)
    leaves = reward[s[:, :, None, None], moved[..., None], seen]
    advantages = worldmodel.factorized_advantages(leaves, scale="none")
    for table, one, advantage, gradient, G in zip(tables, logp, advantages, exact, (A, B, C)):
        estimate = (chance * (advantage * one).flatten(1).mean(1)).sum()
        found, = torch.autograd.grad(estimate, table, retain_graph=True)
        assert gradient.abs().max() > 0.005
        torch.testing.assert_close(found, gradient * (G - 1) / G, rtol=0, atol=1e-10)


# ---- states as text ----

WORDY = SimpleNamespace(PREDICATES={"in": 2, "at": 1}, MAX_WORDS=3,
                        parse=lambda text: frozenset(beliefs.parse_state(text, WORDY) or ()))


def test_a_state_reads_back_as_it_was_written():
    for example in some_examples(40):
        facts = record.ordered(example.past[-1].facts, house.PREDICATES)
        # repeated facts are well-formed: they cost R_dedup
        facts += random.Random(0).choices(facts, k=2)
        assert beliefs.parse_state(beliefs.state_text(facts)) == facts
    wordy = [("in", "old red apple", "oak table"), ("at", "far end"), ("in", "pen", "box"),
             ("at", "far end")]
    text = beliefs.state_text(wordy, WORDY)
    assert text == "in old red apple, oak table; at far end; in pen, box; at far end"
    assert beliefs.parse_state(text, WORDY) == wordy
    found = beliefs.parse_state(" at   hall ;in apple\tcounter\n")
    assert found == [("at", "hall"), ("in", "apple", "counter")]


@pytest.mark.parametrize("text, language", [
    ("near hall", house), ("at hall; likes apple pen", house), ("at", house), ("at hall bath", house),
    ("in apple", house), ("in apple counter bed", house), ("door hall hall", house),
    ("at hall;", house), ("; at hall", house), ("at hall;; in apple bed", house), (";", house),
    ("", house), (" \n", house), ("AT hall", house), ("at, hall", house),
    ("at hall, in apple bed", house), ("in apple, box", house), ("at a b c d", WORDY),
    ("in old red green apple, box", WORDY), ("in apple box", WORDY), ("in apple, apple", WORDY),
    ("in a  b, a b", WORDY), ("in apple,", WORDY), ("in , box", WORDY), ("in apple, box, bag", WORDY),
    ("at far, end", WORDY), ("", WORDY), ("on apple, box", WORDY), ("at a; ", WORDY)])
def test_what_is_malformed(text, language):
    """Unknown predicate, number of arguments, repeated argument, too long, stray ; and emptiness
    while facts are known."""
    if text == "in apple, box":  # a comma is part of the word where arguments are single words
        assert beliefs.parse_state(text, language) == [("in", "apple,", "box")]
        return
    assert beliefs.parse_state(text, language) is None


def test_an_empty_state_is_right_when_nothing_is_known():
    assert beliefs.parse_state("", known=False) == []
    assert beliefs.parse_state(" ", known=False) == []
    assert beliefs.parse_state(";", known=False) is None


def test_no_text_whatever_raises():
    rng, cfg = random.Random(0), Config()
    words = [*house.WORDS, *house.PREDICATES, ";", ",", "; ", "\n", "٣", ""]
    random_texts = [" ".join(rng.choices(words, k=rng.randrange(9))) for _ in range(3000)]
    for text in [*NASTY, *random_texts]:
        for language in (house, WORDY):
            w = SimpleNamespace(language=language)
            state = beliefs.parse_state(text, language)
            assert state is None or all(len(f) == language.PREDICATES[f[0]] + 1 for f in state)
            worldmodel.judge(w, cfg, text, frozenset(), [state, state])


# ---- the reward ----

def test_the_terms_of_the_reward_by_hand():
    f1, cover, dedup = fact_f1, coverage, worldmodel.dedup
    assert f1({AT, PEN}, {AT, PEN}) == 1 and f1({AT}, {PEN}) == 0 and f1((), ()) == 1
    assert f1((), {AT}) == 0 and f1({AT}, ()) == 0
    assert f1({AT, PEN, EGG}, {AT}) == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert f1([AT, AT, PEN], [AT]) == pytest.approx(2 / 3)
    assert cover([AT, PEN, PEN], {AT, PEN}) == 1 and cover([AT], [AT, PEN, EGG, HOLD]) == 0.25
    assert (cover([], []), cover([AT], []), cover([], [AT])) == (1, 1, 0)
    assert (dedup([]), dedup([AT]), dedup([AT, PEN]), dedup([AT, AT])) == (1, 1, 1, 0)
    assert dedup([AT, AT, AT, PEN]) == pytest.approx(1 - 3 / 6)
    assert dedup([AT, AT, PEN, PEN]) == pytest.approx(1 - 2 / 6)
    gain = worldmodel.supervision  # Cov(s', o') + [Cov(s', o') - Cov(s, o')]
    assert gain([AT], [AT, PEN], {AT, PEN}) == 1.5 and gain([AT, PEN], [AT], {AT, PEN}) == 0
    assert gain([], [], {AT}) == 0 and gain([AT], [], {AT}) == -1
    reward, terms = worldmodel.branch_reward, {"dedup": 0.8, "ablation": 0.3, "sup": 1.5}
    assert reward(0.5, True, **terms) == pytest.approx(0.5 + 0.1 * 2.6)
    assert reward(0.5, False, **terms) == 0.25
    assert reward(0.5, False, 1, 1, 1, gamma=0.2) == pytest.approx(0.1)
    assert reward(0.5, True, 1, 1, 1, weight=0) == 0.5


SOME_TERMS = [",".join(t) for n in range(4) for t in itertools.combinations(worldmodel.TERMS, n)]


@pytest.mark.parametrize("terms", SOME_TERMS)
def test_every_term_can_be_switched(terms):
    stated = frozenset({AT, door("hall", "bath"), ("shut", "cabinet")})
    text = "hall bath bench cabinet"  # open, but for two facts of three right: F1 2/3
    s, s2 = [AT, PEN], [AT, AT, PEN, ("shut", "cabinet")]
    w, cfg = SimpleNamespace(language=house), Config(terms=terms)
    bonus = {"dedup": (1 + 5 / 6) / 2, "sup": 2 * 2 / 3 - 1 / 3, "format": 0}
    expected = 2 / 3 + 0.1 * sum(bonus[t] for t in terms.split(",") if t)
    assert worldmodel.judge(w, cfg, text, stated, [s, s2]) == pytest.approx(expected)
    for states in ([None, s2], [s, None], [None, None]):  # wherever it is on the branch
        malformed = 2 / 3 * (0.5 if "format" in terms else 1)
        assert worldmodel.judge(w, cfg, text, stated, states) == pytest.approx(malformed)
    assert worldmodel.judge(w, cfg, "", stated, [s, s2]) <= 0.1 * 3
    for text in NASTY:
        assert 0 <= worldmodel.judge(w, cfg, text, stated, [None, s2]) <= 1


# ---- rows of replies ----

def a_batch(w, n=24):
    """Replies to few prompts, with repetitions, and an advantage for each."""
    torch.manual_seed(0)
    replies = w.reply([[3, 4, 5], [6] * 9], 6, 5, [("u", i) for i in range(2)], 1.0)
    replies = [copy.copy(replies[i]) for i in torch.randint(len(replies), (n,)).tolist()]
    return replies, torch.randn(n)


def logp_of(model, reply):
    return token_logp(model, torch.tensor([reply.prompt + reply.ids]))[0, len(reply.prompt):]


def gradient(w, rows, advantage, total=None):
    model, cfg = copy.deepcopy(w.model), grpo.Config(grad_clip=1e9, micro_rows=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    grpo.update_on(model, optimizer, rows, rows.mask.float(), advantage, cfg, total=total)
    return {name: p.grad for name, p in model.named_parameters()}


def test_merging_equal_replies_changes_no_gradient_and_no_count():
    """The update is sum over sampled tokens of advantage x grad log p, over the number of sampled
    tokens: each level of a tree weighs as many tokens as it wrote."""
    w = tiny_world(seed=6)
    replies, advantage = a_batch(w)
    advantage[3], replies[5] = 0.0, Reply(replies[5].prompt, [1, 2], [-1.0, -1.0], False)
    replies[5].logp = logp_of(w.model, replies[5]).tolist()
    rows, merged, total = training_rows(replies, advantage)
    distinct = {(tuple(r.prompt), tuple(r.ids)) for r in replies}
    assert total == sum(len(r.ids) for r in replies)
    assert len(rows.tokens) == len({p for p, _ in distinct}) < len(distinct) < 13
    model = copy.deepcopy(w.model)
    loss = sum(-a * logp_of(model, r).sum() for r, a in zip(replies, advantage)) / total
    loss.backward()
    for longest in (256, 20, 1):  # answers that share rows, some of them, none of them
        rows, merged, total = training_rows(replies, advantage, longest=longest)
        found = gradient(w, rows, merged, total)
        assert max(g.abs().max() for g in found.values()) > 1e-3
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name], p.grad, rtol=0, atol=1e-6)
        other = gradient(w, rows, merged)  # another normaliser would show
        assert any((g - found[name]).abs().max() > 1e-4 for name, g in other.items())
        answers = []
        for tokens, logp, branch in zip(rows.tokens, rows.behaviour_logp, rows.branch):
            for n in range(1, int(branch.max()) + 1):
                answers.append(list(zip(tokens[branch == n].tolist(), logp[branch == n].tolist())))
        assert longest > 1 or len(answers) == len(rows.tokens)
        for answer in answers:
            assert answer in [[(t, pytest.approx(x)) for t, x in zip(r.ids, r.logp)] for r in replies]
        assert torch.equal(rows.mask, rows.branch > 0)
        assert not rows.behaviour_logp[~rows.mask].any() and not merged[~rows.mask].any()


def test_answers_that_share_a_row_do_not_see_each_other():
    w, prompt = tiny_world(seed=6), [3, 4, 5, 6]
    answers = ([7, 8, 9], [10], [11, 12, 13, 14])
    replies = [Reply(prompt, ids, [0.0] * len(ids), True) for ids in answers]
    rows, _, _ = training_rows(replies, torch.ones(3))
    assert len(rows.tokens) == 1
    packed = token_logp(w.model, rows.tokens, wanted=rows.mask, branch=rows.branch)[0]
    alone = torch.cat([logp_of(w.model, r) for r in replies])
    torch.testing.assert_close(packed[len(prompt):], alone, rtol=0, atol=1e-5)
    rows.tokens[0, len(prompt):len(prompt) + 3] = 20  # another first answer
    changed = token_logp(w.model, rows.tokens, wanted=rows.mask, branch=rows.branch)[0]
    assert torch.equal(changed[-5:], packed[-5:]) and not torch.equal(changed, packed)


def test_a_row_of_several_answers_may_be_longer_than_the_context():
    """The context is of one text; padding behind shorter rows stands nowhere."""
    w, long = tiny_world(context=20), [reply_to([1] * 12, [n] * 5) for n in range(3, 8)]
    rows, advantage, total = training_rows([*long, reply_to([2], [6])], torch.ones(6))
    assert rows.tokens.shape == (2, 37)
    found = gradient(w, rows, advantage, total)
    rows, advantage, total = training_rows([*long, reply_to([2], [6])], torch.ones(6), longest=1)
    for name, expected in gradient(w, rows, advantage, total).items():
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


def reply_to(prompt, ids):
    return Reply(prompt, ids, [-0.5 * i for i in ids], True)


def test_rows_of_replies_by_hand():
    """Equal replies to a prompt become one, with the sum of their advantages; one without an
    advantage is dropped; prompts keep their order, and a row holds the prompt once."""
    replies = [reply_to([1, 2], [7]), reply_to([3], [7]), reply_to([1, 2], [8, 9]),
               reply_to([1, 2], [7]), reply_to([3], [5]), reply_to([1, 2], [6])]
    rows, advantage, total = training_rows(replies, torch.tensor([1.0, 2.0, -1.0, 0.5, 0.0, 4.0]))
    assert total == 7  # of all replies, the dropped one's too
    assert rows.tokens.tolist() == [[1, 2, 7, 8, 9, 6], [3, 7, 0, 0, 0, 0]]
    assert rows.branch.tolist() == [[0, 0, 1, 2, 2, 3], [0, 1, -1, -1, -1, -1]]
    assert rows.mask.tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0]]
    assert advantage.tolist() == [[0, 0, 1.5, -1, -1, 4], [0, 2, 0, 0, 0, 0]]
    assert rows.behaviour_logp.tolist() == [[0, 0, -3.5, -4, -4.5, -3], [0, -3.5, 0, 0, 0, 0]]
    assert rows.turn_of_token.tolist() == [[-1, -1, 0, 0, 0, 0], [-1, 0, -1, -1, -1, -1]]
    assert rows.episode.tolist() == rows.group.tolist() == [0, 1] and rows.author is None


def test_a_row_of_replies_grows_no_longer_than_it_may():
    replies = [reply_to([1, 2], [n] * 3) for n in range(3, 8)]
    for longest, expected in ((256, [17]), (17, [17]), (16, [14, 5]), (8, [8, 8, 5]), (7, [5] * 5),
                              (1, [5] * 5)):  # an answer that is too long by itself has a row all the same
        rows, _, total = training_rows(replies, torch.ones(5), longest=longest)
        assert (rows.branch >= 0).sum(1).tolist() == expected and total == 15


def test_replies_without_an_advantage_leave_a_row_that_pulls_nowhere():
    replies = [reply_to([1], []), reply_to([1], [4, 5]), reply_to([2], [6])]
    rows, advantage, total = training_rows(replies, torch.zeros(3))
    assert rows.tokens.tolist() == [[1, 4, 5]] and not advantage.any() and total == 3
    # equal replies whose advantages cancel
    rows, advantage, _ = training_rows([reply_to([2], [6])] * 2, torch.tensor([1.0, -1.0]))
    assert rows.tokens.tolist() == [[2, 6]] and not advantage.any()


# ---- the update ----

def a_run(w, cfg, optimizer, examples, monkeypatch):
    """What worldmodel.step needs, and these examples in place of fresh ones."""
    monkeypatch.setattr(record, "examples", lambda *_, **__: examples)
    cfg.prompts = cfg.sft_rows = len(examples)
    return SimpleNamespace(cfg=cfg, w=w, model=w.model, optimizer=optimizer, device="cpu", step=0,
                           worlds=FOUND, told=False)


@pytest.mark.parametrize("formulation", ["strict", "leaky"])
def test_rewards_that_are_all_equal_change_nothing(formulation, monkeypatch):
    w, cfg = tiny_world(formulation), Config(formulation=formulation, A=2, B=2, C=2)
    monkeypatch.setattr(worldmodel, "judge", lambda *_: 0.1)
    before = {name: x.clone() for name, x in w.model.state_dict().items()}
    optimizer = torch.optim.AdamW(w.model.parameters(), lr=0.1, weight_decay=0.0)
    stats = worldmodel.step(a_run(w, cfg, optimizer, some_examples(2), monkeypatch))
    assert stats["skipped"] == 0 and stats["grad_norm"] == 0
    assert stats["reward"] == pytest.approx(0.1)
    assert all(x == 1 for name, x in stats.items() if name.startswith("zero_variance"))
    assert all(torch.equal(x, before[name]) for name, x in w.model.state_dict().items())


@pytest.mark.parametrize("formulation", ["strict", "leaky"])
def test_an_update_raises_the_chance_of_what_was_rewarded(formulation, monkeypatch):
    """End to end, each formulation: what got more than its siblings becomes likelier."""
    examples, dice = some_examples(2), random.Random(0)
    w, cfg = tiny_world(formulation, seed=7), Config(formulation=formulation, A=3, B=2, C=2)
    equal = examples[0].future[0].stated  # the first example's replies are dropped, and counted

    def judge(w, cfg, text, stated, states):
        return 0.5 if stated == equal else dice.random()
    monkeypatch.setattr(worldmodel, "judge", judge)
    kept, make = [], worldmodel.training_rows
    monkeypatch.setattr(worldmodel, "training_rows", lambda *a: kept.append(a[:2]) or make(*a))
    optimizer = torch.optim.SGD(w.model.parameters(), lr=0.05)
    stats = worldmodel.step(a_run(w, cfg, optimizer, examples, monkeypatch))
    (replies, advantage), = kept
    lengths = torch.tensor([len(r.ids) for r in replies])
    expected = -float((lengths * advantage).sum() / lengths.sum())
    assert stats["loss"] == pytest.approx(expected, abs=1e-5)
    assert stats["sampled_tokens"] == lengths.sum()
    with torch.no_grad():
        change = [logp_of(w.model, r).sum() - sum(r.logp) for r in replies]
    assert float((torch.stack(change) * advantage).sum()) > 1e-4


@pytest.mark.parametrize("A, B, C, chains", [(4, 4, 4, 28), (2, 2, 2, 4), (3, 2, 2, 7)])
def test_flat_chains_share_one_advantage_and_are_as_many_samples_as_the_tree(A, B, C, chains,
                                                                             monkeypatch):
    assert chains == (A + A * B + A * B * C) // 3  # the paper's tree has 84
    w, cfg, examples = tiny_world(seed=8), Config(flat=True, A=A, B=B, C=C), some_examples(2)
    monkeypatch.setattr(worldmodel, "judge", lambda w, cfg, text, *_: float(len(text) % 5))
    replies, advantage, rewards, _ = worldmodel.sample_strict(w, cfg, examples, [("f", 0), ("f", 1)])
    n = 2 * chains
    assert rewards.shape == (2, chains, 1, 1)
    assert len(replies) == len(advantage) == 3 * n and advantage.any()
    encode, transition, decode = advantage.split(n)
    assert torch.equal(encode, transition) and torch.equal(encode, decode)
    assert torch.allclose(encode.view(2, chains).sum(1), torch.zeros(2), atol=1e-5)
    for i, (s, m, o) in enumerate(zip(replies[:n], replies[n:2 * n], replies[2 * n:])):
        action = acted(w, examples[i // chains].future[0])
        assert m.prompt == s.body + action + w.role(TRANSITION)
        assert o.prompt == m.body + action + w.role(DECODE)


def test_stateless_rows_ask_for_the_observation_and_its_end(monkeypatch):
    w, examples, seen = tiny_world("stateless"), some_examples(4), []
    update = worldmodel.sft.update

    def watched(model, optimizer, tokens, mask, **how):
        seen.append((tokens, mask))
        return update(model, optimizer, tokens, mask, **how)
    monkeypatch.setattr(worldmodel.sft, "update", watched)
    optimizer = torch.optim.SGD(w.model.parameters(), lr=0.0)
    stats = worldmodel.step(a_run(w, Config(formulation="stateless"), optimizer, examples, monkeypatch))
    (tokens, mask), = seen
    assert len(tokens) == 4 and stats["sampled_tokens"] == 0
    for row, m, e in zip(tokens, mask, examples):
        assert w.tok.decode(row[m].tolist()) == e.future[0].text + "<|end|>"
        first = int(m.nonzero()[0])
        assert row[:first].tolist() == w.observe_prompt(e.past, e.future[0].action)
