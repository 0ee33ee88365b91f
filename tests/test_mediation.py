"""World models: who sees what, and how trees are sampled."""
import copy
import dataclasses
import random
from collections import Counter

import pytest
import torch

import beliefs
import imagine
import worldmodel
from beliefs import WorldModel
from conftest import house_tokenizer, tiny_world
from claims import planner
from contract import NASTY
from envs.house import text as house
from envs.house.text import remember
from envs.record import Moment, fact_f1
from model import token_logp
from sampler import Reply, Sampler, generate
from worldmodel import Config
from worlds import (AT, DECODE, ENCODE, LEAKY, OBSERVE, PAST, PEN, TRANSITION, acted, said,
                    some_examples)

# ---- prompts: who sees what ----

ALL = ("hall bath bench cabinet shut<|turn|>open cabinet<|end|>cabinet is open pen<|turn|>go bath<|end|>"
       "bath hall stool sink<|turn|>go hall<|end|>hall bath bench cabinet pen<|turn|>")
LAST2 = "bath hall stool sink<|turn|>go hall<|end|>hall bath bench cabinet pen<|turn|>"


@pytest.mark.parametrize("window, seen", [
    (0, ALL), (4, ALL), (9, ALL), (2, LAST2), (1, "hall bath bench cabinet pen<|turn|>")])
def test_prompts_hold_exactly_what_a_formulation_may_see(window, seen):
    w = tiny_world(window=window)
    text, action = w.tok.decode, "look around"
    assert text(w.observe_prompt(PAST, action)) == f"{seen}look around<|end|>{OBSERVE}"
    assert text(w.leaky_prompt(PAST, action)) == f"{seen}look around<|end|>{LEAKY}"
    assert text(w.encode_prompt(PAST)) == f"{seen}{ENCODE}"
    state = w.tok.encode("at hall; in pen cabinet")
    asked = "at hall; in pen cabinet<|turn|>go bath<|end|>"
    assert text(w.transition_prompt(state, "go bath")) == asked + TRANSITION
    assert text(w.decode_prompt(state, "go bath")) == asked + DECODE
    assert w.dropped == 0


def test_without_a_window_the_oldest_turns_go_when_the_context_is_full_and_are_counted():
    w = tiny_world(window=0, context=2 * 8 + 10 + 16 + 18)  # room for 18 tokens of history
    assert w.tok.decode(w.history(PAST)) == "go bath<|end|>" + LAST2 and w.dropped == 2
    w.dropped = 0
    w.history(PAST * 5)
    assert w.dropped == 18  # two turns of twenty stay
    # a model's own idea of an observation
    nonsense = Moment("go bath", "\N{REPLACEMENT CHARACTER}" * 200, frozenset(), None, None)
    past = [*PAST, nonsense]
    for prompt in (w.encode_prompt(past), w.leaky_prompt(past, "open cabinet"),
                   w.observe_prompt(past, "open cabinet")):
        assert len(prompt) + 2 * w.max_state + w.max_observation <= w.model.cfg.context


def test_the_history_cannot_reach_past_a_strict_state_and_does_past_a_leaky_one():
    examples = some_examples(8)
    pairs = [(a, b) for a, b in zip(examples, examples[1:]) if a.past[-1].text != b.past[-1].text]
    assert len(pairs) > 4
    for a, b in pairs:
        strict, leaky = tiny_world(), tiny_world("leaky")
        state = strict.tok.encode(beliefs.state_text(sorted(a.past[-1].needed)))
        assert imagine.leak(strict, a, b, state) == 0.0
        assert imagine.leak(leaky, a, b, state) > 1e-4
    assert worldmodel.largest_leak(strict, examples) == 0.0
    assert worldmodel.largest_leak(leaky, examples) > 1e-4


def test_a_strict_model_with_its_states_held_is_asked_and_says_the_same_whatever_the_history(
        monkeypatch):
    w, (a, b) = tiny_world(), some_examples(2)
    other = copy.deepcopy(b)
    other.future = a.future
    plain = WorldModel.reply
    found = []
    for example in (a, other):
        seen = []

        def reply(w, prompts, k, max_new, streams, temperature):
            seen.append(prompts)
            if len(seen) == 1:  # the encoder
                return [said(w, p, "at hall; in pen bed") for p in prompts for _ in range(k)]
            replies = plain(w, prompts, k, max_new, streams, temperature)
            seen.append([r.ids for r in replies])
            return replies
        monkeypatch.setattr(WorldModel, "reply", reply)
        worldmodel.grow(w, [example], [("name",)], 2, 2, 2)
        found.append(seen)
    assert found[0][0] != found[1][0] and found[0][1:] == found[1][1:] and len(found[0]) == 5


# ---- sampling ----

def test_siblings_share_a_prompt_and_nothing_else():
    """Log-probs of every reply equal those of a forward pass over its prompt and itself alone: no
    key of a sibling, of a parent or of a longer neighbour was looked at."""
    w = tiny_world(seed=3, context=96)
    states, moved, seen = worldmodel.grow(w, some_examples(3), [("a", i) for i in range(3)], 3, 2, 2)
    prompts = [[5], list(range(40, 70)), [7, 8, 9]]
    ragged = w.reply(prompts, 3, 12, [("r", i) for i in range(3)], 1.0)
    assert len({len(r.prompt) for r in states + moved + ragged}) > 4
    with torch.no_grad():
        for reply in states + moved + seen + ragged:
            tokens = torch.tensor([reply.prompt + reply.ids])
            full = token_logp(w.model, tokens)[0, len(reply.prompt):]
            torch.testing.assert_close(torch.tensor(reply.logp), full, rtol=0, atol=1e-4)
            assert reply.ended == (reply.ids[-1] in w.tok.stop_ids)
            assert w.tok.end_id not in reply.body and 0 < len(reply.ids) <= 12
    assert len({tuple(r.ids) for r in ragged[:3]}) == 3  # siblings have dice of their own


@pytest.mark.parametrize("k", [1, 3])
def test_replies_do_not_depend_on_how_many_are_written_at_once(k):
    w = tiny_world(seed=4, context=96)
    prompts = [w.encode_prompt(e.past) for e in some_examples(7)]
    streams = [("chunk", i) for i in range(7)]
    # a draw at the very edge of a CDF may fall either way
    for temperature, allowed in ((0.0, 0), (1.0, 1)):
        whole, cut = (generate(Sampler(w.model, rows), prompts, k, 10, streams, w.tok.stop_ids,
                               temperature) for rows in (512, 4))
        assert [r.prompt for r in whole] == [r.prompt for r in cut] == [
            p for p in prompts for _ in range(k)]
        assert sum(a.ids != b.ids for a, b in zip(whole, cut)) <= allowed
    assert w.reply([], k, 10, [], 1.0) == []


@pytest.mark.parametrize("compiled", [True, False])
def test_one_sampler_serves_any_number_of_rows(compiled):
    """Compiled, its graph is of one size: every other would be a graph of its own, which takes
    longer to compile than a training to sample."""
    steps = []

    class Plain(Sampler):
        def __init__(self, model, rows):
            super().__init__(model, rows)
            self.compile = compiled  # as if

        def run_step(self):
            steps.append(len(self.length))
            super().run_step()
    w, plain = tiny_world(seed=4, context=96), tiny_world(seed=4, context=96)
    w.sampler = Plain(w.model, 16)
    prompts = [w.encode_prompt(e.past) for e in some_examples(7)]
    # the last two fill all rows, once and seven times
    for n, k in ((1, 1), (2, 1), (1, 3), (3, 2), (5, 2), (7, 3), (1, 16), (7, 16)):
        streams = [("size", n, k, i) for i in range(n)]
        found, expected = (v.reply(prompts[:n], k, 6, streams, 0.0) for v in (w, plain))
        assert [r.ids for r in found] == [r.ids for r in expected]
        assert [r.prompt for r in found] == [p for p in prompts[:n] for _ in range(k)]
    # without a graph: as many as there are replies, 16 at a time
    assert set(steps) == ({16} if compiled else {1, 2, 3, 6, 10, 15, 16})
    steps.clear()
    w.reply(prompts[:2], 1, 6, streams[:2], 0.0)
    assert set(steps) == ({16} if compiled else {2})


def test_the_sampler_of_a_run_has_a_row_for_every_sibling(tmp_path):
    """A group, a tree or a chain that is larger than the usual number of rows gets as many."""
    w, path = tiny_world(), str(tmp_path / "model.pt")
    torch.save({"model": w.model.state_dict(), "model_config": dataclasses.asdict(w.model.cfg),
                "tokenizer": w.tok.state()}, path)
    for options, rows in (({}, 512), ({"group": 600}, 600), ({"A": 9, "B": 9, "C": 9}, 819)):
        cfg = Config(senior=path, max_state=8, compile="off", **options)
        opened, origin = beliefs.open_model(cfg, beliefs.open_worlds(cfg), "cpu")
        assert opened.sampler.rows == rows and origin == path


def test_a_tree_in_order_every_child_begins_with_its_parents_ids(monkeypatch):
    w, N, A, B, C = tiny_world(seed=5), 2, 3, 4, 2
    examples = some_examples(N)
    dice, seed = [], Sampler.seed
    monkeypatch.setattr(Sampler, "seed", lambda s, streams: dice.extend(streams) or seed(s, streams))
    states, moved, seen = worldmodel.grow(w, examples, [("t", n) for n in range(N)], A, B, C)
    # random numbers of its own for each
    assert len(set(dice)) == len(dice) == len(states) + len(moved) + len(seen)
    assert (len(states), len(moved), len(seen)) == (N * A, N * A * B, N * A * B * C)
    for i, s in enumerate(states):
        assert s.prompt == w.encode_prompt(examples[i // A].past)
    for i, m in enumerate(moved):
        action = acted(w, examples[i // (A * B)].future[0])
        assert m.prompt == states[i // B].body + action + w.role(TRANSITION)
    for i, o in enumerate(seen):
        action = acted(w, examples[i // (A * B * C)].future[0])
        assert o.prompt == moved[i // C].body + action + w.role(DECODE)
    # not one reply over and over
    assert len({tuple(r.ids) for r in [*states, *moved, *seen]}) > N * A * B


def test_rewards_of_a_tree_stand_at_their_leaves():
    """Replies without a model: every state, next state and observation of its own, some malformed
    or cut off."""
    w, (N, A, B, C), rng = tiny_world(), (8, 2, 4, 3), random.Random(1)
    cfg, material = Config(), some_examples(40)
    examples = material[:N]

    def reply(text):
        return said(w, [], text, rng.random() < 0.9)

    def state(own):
        example = rng.choice([own, rng.choice(material)])
        facts = sorted(rng.choice(example.future).needed | example.past[-1].needed)
        return reply(beliefs.state_text(rng.choices(facts, k=3)))

    def observation(own):
        other = rng.choice(material)
        return reply(rng.choice([own.future[0].text, other.future[0].text, rng.choice(NASTY[:40])[:50]]))
    states = [state(e) for e in examples for _ in range(A)]
    moved = [state(e) for e in examples for _ in range(A * B)]
    seen = [observation(e) for e in examples for _ in range(A * B * C)]
    leaves = worldmodel.tree_rewards(w, cfg, examples, states, moved, seen)
    assert leaves.shape == (N, A, B, C)
    values = Counter()
    for n in range(N):
        for a in range(A):
            for b in range(B):
                for c in range(C):
                    row = (n * A + a) * B + b
                    branch = [w.read_state(states[n * A + a]), w.read_state(moved[row])]
                    text = w.tok.decode(seen[row * C + c].body)
                    expected = worldmodel.judge(w, cfg, text, examples[n].future[0].stated, branch)
                    assert leaves[n, a, b, c] == pytest.approx(expected, abs=1e-6)
                    values[round(expected, 4)] += 1
    assert len(values) > 20


# ---- states that were cut off ----

def test_a_state_that_was_cut_off_is_malformed():
    w = tiny_world()
    assert w.read_state(said(w, [], "at hall")) == [AT]
    assert w.read_state(said(w, [], "at hall", ended=False)) is None


@pytest.mark.parametrize("cut, state, formed", [
    (None, (1, 1), 1), (ENCODE, (0, 1), 0), (TRANSITION, (1, 0), 0)])
def test_a_state_that_was_cut_off_is_malformed_in_imagination_too(cut, state, formed, monkeypatch):
    """As in training: its tokens are the next prompt all the same, but it states no fact to any
    metric."""
    w, asked = tiny_world(), []
    examples = [dataclasses.replace(e, level=2) for e in some_examples(3, future=2)]
    facts = sorted(examples[0].future[0].needed)[:2]
    text = beliefs.state_text(facts)

    def reply(w, prompts, k, max_new, streams, temperature):
        asked.append([w.tok.decode(p) for p in prompts])
        ended = cut != w.tok.decode(prompts[0][-1:])
        return [said(w, p, text, ended) for p in prompts]
    monkeypatch.setattr(WorldModel, "reply", reply)
    of_encoder, of_transition = (facts if x else None for x in state)
    minds = w.form.begin(w, [e.past for e in examples])
    for h, before in enumerate((of_encoder, of_transition)):
        found = w.form.imagine(w, minds, [e.future[h].action for e in examples], h)
        assert [(f.state, f.next_state) for f in found] == [(before, of_transition)] * 3
        minds = [f.mind for f in found]
        for call, role in zip(asked[-2:], (TRANSITION, DECODE)):
            assert call == [f"{text}<|turn|>{e.future[h].action}<|end|>{role}" for e in examples]

    # a planner's beliefs are a rule's, in all formulations
    known = planner.known_to(w, None, examples[0].past)
    assert examples[0].past[-1].stated <= known
    assert known == planner.known_to(worldmodel.asked_as(w, "stateless"), None, examples[0].past)
    _, found = planner.follow(w, minds, [known] * 3, ["go bath"] * 3, 2)
    assert found == [remember(known, house.parse(text))] * 3

    f1 = [sum(fact_f1(x or (), e.future[0].needed) for e in examples) / 3
          for x in (of_encoder, of_transition)]
    found = {name: x[0] for name, x in imagine.measure(w, examples, 1).items()}
    names = ("well-formed", "state.F1 s level 2", "state.F1 s' level 2", "state s' H=1")
    assert [found[name] for name in names] == pytest.approx([formed, *f1, f1[1]])
    assert [x > 0.2 for x in f1] == [bool(x) for x in state]
    assert ("CR" in found) == bool(state[0])


# ---- leaky answers ----

def test_the_sections_of_a_leaky_answer():
    w = tiny_world("leaky")
    (t,), (d,), sections = w.role(TRANSITION), w.role(DECODE), w.leaky_sections
    assert sections([1, 2, t, 3, d, 4, 5]) == [[1, 2], [3], [4, 5]]
    assert sections([t, d]) == [[], [], []]
    for answer in ([1, d, 2], [1, 2], [d], []):  # a section that no mark closes is none
        assert sections(answer) == [None] * 3
    for answer in ([1, t, 2], [1, t], [1, t, 2, t, 3]):
        assert sections(answer) == [[1], None, None]
    assert sections([1, d, 9, t, 2]) == [[1, d, 9], None, None]
    assert sections([1, t, 2, d]) == [[1], [2], []]
    assert sections([1, d, t, 2, d, 3, t, d]) == [[1, d], [2], [3, t, d]]


def test_a_leaky_state_is_read_as_a_strict_one():
    """None where there is none, where it is longer than a strict one may be, and where it is
    malformed."""
    ids = house_tokenizer().encode("at hall; in pen bed")
    w = tiny_world("leaky", max_state=len(ids))
    short = tiny_world("leaky", max_state=len(ids) - 1)
    strict = w.read_state(Reply([], [*ids, w.tok.end_id], [], True))
    assert w.read_section(ids) == [AT, PEN] == strict
    assert short.read_section(ids) is None and w.read_section(None) is None
    for wrong in ([], ids[:-1], ids + ids[:1], w.role(DECODE) + ids[:2], [w.tok.end_id], [0xff]):
        assert w.read_section(wrong) is None


def test_leaky_answers_are_judged_against_their_siblings(monkeypatch):
    (example,) = some_examples(1)
    true, facts = example.future[0], sorted(example.future[0].needed)
    right = beliefs.state_text(facts)
    long = beliefs.state_text([*facts, PEN])  # a token too long, and malformed therefore
    w = tiny_world("leaky", max_state=len(house_tokenizer().encode(long)) - 1)
    answers = [f"{right}{TRANSITION}{right}{DECODE}{true.text}",
               f"{TRANSITION}{right}{DECODE}{true.text}", f"{right}{TRANSITION}{right}", true.text,
               f"{long}{TRANSITION}{right}{DECODE}{true.text}",
               f"{right}{TRANSITION}{long}{DECODE}{true.text}", f"{right}{TRANSITION}{right}{DECODE}"]

    def reply(w, prompts, k, max_new, streams, temperature):
        assert (prompts, k) == ([w.leaky_prompt(example.past, true.action)], 7)
        return [said(w, prompts[0], answer) for answer in answers]
    monkeypatch.setattr(WorldModel, "reply", reply)
    replies, advantage, rewards, stats = worldmodel.sample_leaky(w, Config(group=7), [example], [("x",)])
    best = 1 + 0.1 * (1 + 1)  # all right: R_dedup 1, R_sup 2 - 1
    assert rewards.tolist() == [pytest.approx([best, 0.5, 0, 0, 0.5, 0.5, 0.2])]
    assert stats == {"zero_variance": 0, "well_formed": pytest.approx(2 / 7)}
    assert len(replies) == len(advantage) == 7 and advantage.argmax() == 0
