"""World models: what a trained one is good for, and that no nonsense of an untrained one raises."""
import dataclasses
import math
import random

import pytest
import torch

import beliefs
import imagine
import worldmodel
from beliefs import WorldModel
from claims import planner
from conftest import tiny_world
from envs.house import text as house
from envs.house.text import door
from envs.record import Example
from sampler import Reply
from worldmodel import Config
from worlds import (AT, DECODE, FOUND, LEAKY, OBSERVE, PAST, TRANSITION, moments_of, said, scripted,
                    some_examples)

# ---- garbage from an untrained model ----

def nonsense(rng):
    """In place of WorldModel.reply: answers anything, all ids there are, roles and ends among them,
    of any length, cut off or not."""
    def reply(w, prompts, k, max_new, streams, temperature):
        room = w.model.cfg.context - max_new
        assert all(0 < len(p) <= room for p in prompts), "a prompt that leaves no room for its answer"
        some = [w.tok.role_id(r) for r in WorldModel.ROLES] + [w.tok.turn_id, 0xff, 0xe2]
        some += w.tok.encode("at hall; in apple counter; focus nothing")
        replies = []
        for p in prompts:
            for _ in range(k):
                ids = [rng.choice(some) if rng.random() < 0.7 else rng.randrange(w.tok.n_vocab)
                       for _ in range(rng.randint(1, max_new))]
                ids = [i for i in ids if i != w.tok.end_id] or [5]
                ended = rng.random() < 0.7
                ids = ids[:max_new - ended] + [w.tok.end_id] * ended
                replies.append(Reply(p, ids, [-1.0] * len(ids), ended))
        return replies
    return reply


def sensible_nonsense(rng, lost):
    """In place of WorldModel.reply: its states are well-formed and impossible, as "at apple; door
    pen shut". lost: a list with an entry for each place that is no room."""
    def state():
        predicates = rng.choices(["at", *house.PREDICATES], k=rng.randint(1, 2))
        facts = [(p, *rng.sample(house.WORDS, house.PREDICATES[p])) for p in predicates]
        lost.extend(f for f in facts if f[0] == "at" and f[1] not in house.ROOMS)
        return beliefs.state_text(facts)

    def answer(w, prompt):
        role, text = w.tok.decode(prompt[-1:]), " ".join(rng.choices(house.WORDS, k=rng.randint(1, 8)))
        if role == LEAKY:
            return f"{state()}{TRANSITION}{state()}{DECODE}{text}"
        return text if role in (OBSERVE, DECODE) else state()

    def reply(w, prompts, k, max_new, streams, temperature):
        assert all(0 < len(p) and len(p) + max_new <= w.model.cfg.context for p in prompts)
        return [said(w, p, answer(w, p)) for p in prompts for _ in range(k)]
    return reply


def test_an_imagined_observation_is_no_longer_than_a_true_one(monkeypatch):
    w, (example,) = tiny_world("leaky"), some_examples(1)
    text = f"at hall{TRANSITION}at bath{DECODE}{' apple' * 30}"
    monkeypatch.setattr(WorldModel, "reply", lambda w, prompts, *_: [said(w, p, text, False) for p in prompts])
    step, = w.form.imagine(w, [example.past], ["look around"])
    assert step.text == " apple" * w.max_observation == step.mind[-1].text
    assert (step.state, step.next_state) == ([AT], [("at", "bath")])


@pytest.mark.parametrize("how", ["untrained", "nonsense", "well-formed nonsense"])
@pytest.mark.parametrize("formulation", imagine.FORMULATIONS)
def test_no_answer_whatever_raises(formulation, how, monkeypatch):
    w, lost, cfg = tiny_world(formulation), [], Config(formulation=formulation, A=2, B=2, C=2)
    if how == "nonsense":
        monkeypatch.setattr(WorldModel, "reply", nonsense(random.Random(0)))
    if how == "well-formed nonsense":
        monkeypatch.setattr(WorldModel, "reply", sensible_nonsense(random.Random(0), lost))
    examples, streams = some_examples(6, future=9), [("g", i) for i in range(6)]
    same = []  # in which everybody does the same
    for e in examples:
        first = dataclasses.replace(e.future[0], action="go hall")
        same.append(dataclasses.replace(e, future=[first]))
    if formulation == "strict":
        worldmodel.sample_strict(w, cfg, examples, streams)
        worldmodel.sample_strict(w, dataclasses.replace(cfg, flat=True), examples, streams)
    if formulation == "leaky":
        worldmodel.sample_leaky(w, cfg, examples, streams)
    for temperature in (0.0, 1.0):
        w.temperature = temperature
        found = imagine.measure(w, examples, 9)
        assert all(len(pair) == 2 for pair in found.values())
        assert {"obs H=1", "obs H=5", "obs H=9", "obs 5-9"} <= set(found)
        assert all(name == "CR" or 0 <= mean <= 1  # nan would be no JSON
                   for name, (mean, _) in found.items())
        assert ("state s' H=9" in found) == (formulation != "stateless")
        # these only where nine steps were imagined
        far = {"obs, known rooms", *(f"obs 5-9 level {e.level}" for e in examples)}
        assert far <= set(found) and not far & set(imagine.measure(w, examples, 8))
        swapped = imagine.swap(w, same, imagine.action_alone(examples))
        names = {"own state", "another's state", "own - another's", "action alone"}
        assert set(swapped) == (set() if formulation == "stateless" else names)
        assert all(-(name == "own - another's") <= mean <= 1 for name, (mean, _) in swapped.items())
        result = planner.plan("model", FOUND[1], range(2), "test", 0, w=w, sequences=3, horizon=2)
        assert 0 <= result["success"] <= 1 and result["turns"] <= 20
        assert "predicted" in worldmodel.shown(w, examples[0])
    if how == "well-formed nonsense" and formulation == "strict":
        assert len(lost) > 50  # planned from rooms that are none
        assert found["well-formed"][0] == 1


# ---- imagination ----

def test_comes_back_by_hand():
    def example(past, future):
        def go(room):
            pair = ("go " + room, f"{room} bath bench cabinet shut") if room else ("look", "apple is held")
            return moments_of(pair)[0]
        return Example([go(r) for r in past], [go(r) for r in future])
    e = example(["cellar", "hall", "bath"], ["study", "hall", "hall", "", "study", "study", "cellar"])
    # hall was two observations before the first step: of the last two that a prompt of the second
    # step shows, it is none; the cellar was never in the window
    yes, no = True, False
    assert imagine.comes_back(e, 2, house) == [no, yes, no, no, yes, no, no]
    assert imagine.comes_back(e, 3, house) == [no, no, no, no, yes, no, yes]
    assert imagine.comes_back(e, 9, house) == [no] * 7
    # a past shorter than the window counts back from now
    assert imagine.comes_back(example(["hall"], ["bath", "hall"]), 1, house) == [no, yes]
    assert imagine.comes_back(example(["hall"], ["bath", "study", "hall"]), 2, house) == [no, no, yes]


@pytest.mark.parametrize("formulation, calls", [("strict", 1 + 2 * 3), ("leaky", 3), ("stateless", 3)])
def test_every_sample_of_an_imagination_has_dice_of_its_own(formulation, calls, monkeypatch):
    """With a head that prefers no token the dice alone decide: two calls that share theirs would write
    the same tokens, whatever they are asked."""
    examples, named, said_ids, plain = some_examples(4, future=3), [], [], WorldModel.reply
    w = tiny_world(formulation, window=1)

    def reply(w, prompts, k, max_new, streams, temperature):
        named.append(list(streams))
        replies = plain(w, prompts, k, max_new, streams, temperature)
        said_ids.append([r.ids for r in replies])
        return replies
    with monkeypatch.context() as patch:
        patch.setattr(WorldModel, "reply", reply)
        torch.nn.init.zeros_(w.model.norm.weight)
        w.temperature = 1.0
        minds = w.form.begin(w, [e.past for e in examples])
        for h in range(3):
            actions = [e.future[h].action for e in examples]
            minds = [f.mind for f in w.form.imagine(w, minds, actions, h)]
    begins = [tuple(ids[:6]) for call in said_ids for ids in call]
    assert len(named) == calls
    assert len({n for call in named for n in call}) == len(set(begins)) == len(begins) == 4 * calls
    again = w.reply([[5]] * 4, 1, 8, named[1], 1.0)  # another prompt, the same streams
    assert [r.ids[:6] for r in again] == [ids[:6] for ids in said_ids[1]]


def alone(action, *texts):
    return [Example(PAST, moments_of((action, text))) for text in texts]


def test_the_floor_is_what_one_can_say_from_the_action_alone():
    examples = alone("go hall", "hall bath bench cabinet shut", "hall bath bench cabinet pen",
                     "hall study bench cabinet shut")
    examples += alone("look around", "nothing happens here")
    floor = imagine.action_alone(examples)
    assert floor == {"go hall": {AT, door("hall", "bath"), ("shut", "cabinet")},
                     "look around": {("focus", "nothing")}}
    # the same action, another observation
    assert imagine.partners(examples) == [(0, 1), (1, 2), (2, 0)]
    assert imagine.partners(examples[:1] * 3) == []
    w = tiny_world()
    score = imagine.swap(w, examples, floor)["action alone"][0]
    assert score == pytest.approx((1 + 2 * 2 / (3 + 4) + 2 * 2 / (3 + 3)) / 3)
    assert imagine.swap(w, examples[:1], floor) == {}
    assert imagine.swap(tiny_world("stateless"), examples, floor) == {}


SWAPPED = ("hall bath bench cabinet shut", "hall study bench cabinet pen", "hall bath bench cabinet pen")


def test_predictions_under_anothers_state_follow_that_state(monkeypatch):
    """A perfect model of its state."""
    examples, w = alone("go hall", *SWAPPED), tiny_world()
    states = {f"{i}": e.future[0].text for i, e in enumerate(examples)}

    def answer(prompt, i):
        state = prompt.split("<|")[0]
        return state if TRANSITION in prompt else states[state]
    asked = scripted(monkeypatch, answer)
    monkeypatch.setattr(imagine, "strict_begin", lambda w, pasts: [said(w, [], s) for s in states])
    found = imagine.swap(w, examples, {})
    assert asked == [[f"{i}<|turn|>go hall<|end|>{role}" for i in of]
                     for of in ("012", "120") for role in (TRANSITION, DECODE)]
    # F1 of what the second, third and first example's state says
    others = [2 * 1 / 7, 2 * 3 / 8, 2 * 2 / 7]
    assert found["own state"] == (1, 0) and found["action alone"] == (0, 0)
    assert found["another's state"][0] == pytest.approx(sum(others) / 3)
    lost = torch.tensor([1 - x for x in others])
    paired = float(lost.mean()), float(lost.std() / math.sqrt(3))
    assert found["own - another's"] == pytest.approx(paired)


def test_a_model_that_bypasses_its_state_says_the_same_under_anothers(monkeypatch):
    examples, w, asked = alone("go hall", *SWAPPED), tiny_world("leaky"), []
    texts = iter([e.future[0].text for _ in range(2) for e in examples])

    def bypass(w, prompts, k, max_new, streams, temperature):
        asked.append([w.tok.decode(p) for p in prompts])
        return [said(w, p, f"at bath{TRANSITION}x{DECODE}y" if text.endswith(LEAKY)
                     else f"at hall{DECODE}{next(texts)}") for p, text in zip(prompts, asked[-1])]
    monkeypatch.setattr(WorldModel, "reply", bypass)
    found = imagine.swap(w, examples, {})
    assert found["own state"] == found["another's state"] == (1, 0)
    assert found["own - another's"] == (0, 0)
    assert all(p.endswith(f"{LEAKY}at bath{TRANSITION}") and "hall bath" in p
               for call in asked[1:] for p in call)


def test_a_perfect_imagination_is_measured_as_one(monkeypatch):
    """Scripted: the encoder, transition and decoder know the example's truth, step after step."""
    examples, w = some_examples(5, future=9), tiny_world(window=3)
    step, h = iter(range(100)), 0

    def reply(w, prompts, k, max_new, streams, temperature):
        nonlocal h
        last = w.tok.decode(prompts[0][-1:])
        h = next(step) if last == TRANSITION else h
        texts = [e.future[h].text for e in examples]
        if last != DECODE:
            texts = [beliefs.state_text(sorted(e.future[h if last == TRANSITION else 0].needed))
                     for e in examples]
        return [said(w, p, text) for p, text in zip(prompts, texts)]
    monkeypatch.setattr(WorldModel, "reply", reply)
    found = {name: x[0] for name, x in imagine.measure(w, examples, 9).items()}
    assert all(found[name] == 1 for name in ("obs H=1", "obs H=9", "obs 1-4", "state s' H=9",
                                             "needed facts in s' H=5", "well-formed"))
    assert all(found[f"obs 5-9 level {e.level}"] == 1 for e in examples)
    # what a prompt shows: three observations and the two actions between them
    words = []
    for e in examples:
        shown = e.past[-3:]
        words.append(sum(len(m.text.split()) for m in shown) + sum(len(m.action.split()) for m in shown[1:]))
    assert min(len(e.past) for e in examples) < 3 < max(len(e.past) for e in examples)
    ratios = [n / sum(map(len, e.future[0].needed)) for n, e in zip(words, examples)]
    assert found["CR"] == pytest.approx(sum(ratios) / 5, rel=1e-5)


def test_numbers_by_level_are_those_of_its_examples(monkeypatch):
    examples, obs = some_examples(12, future=9), torch.rand(12, 9)
    monkeypatch.setattr(imagine, "rollouts", lambda *_: {"obs": obs})
    found = imagine.measure(tiny_world("stateless"), examples, 9)
    for level in (1, 2, 3):
        mine = obs[[e.level == level for e in examples]]
        assert len(mine) > 1
        for name, x in ((f"obs.F1 level {level}", mine[:, 0]),
                        (f"obs 5-9 level {level}", mine[:, 4:9].mean(1))):
            expected = float(x.mean()), float(x.std() / math.sqrt(len(x)))
            assert found[name] == pytest.approx(expected)
    assert {name for name in found if "level" in name} == {
        f"{name} level {n}" for name in ("obs.F1", "obs 5-9") for n in (1, 2, 3)}
