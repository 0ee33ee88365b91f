"""World models: the lessons of the warm start, which show the format on partial and wrong facts."""
import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

import beliefs
import run
import worldmodel
from conftest import tiny_world
from envs import record
from envs.house.text import PREDICATES
from houses import FOUND, some_examples
from beliefs import WorldModel


def test_tables_begin_after_some_turns_and_lessons_and_updates_anywhere(monkeypatch):
    cfg = worldmodel.Config(seed=3, prompts=120, formulation="strict")
    w, batches, examples = tiny_world(window=2, context=320, max_state=80), [], record.examples
    r = SimpleNamespace(worlds=FOUND, cfg=cfg, w=tiny_world(), step=0, device="cpu", model=None,
                        optimizer=None, told=False)
    held = worldmodel.held_out(r, "valid", 120, 2)
    assert {len(e.past) for e in held} == set(range(5, 14)) and {len(e.future) for e in held} == {2}
    monkeypatch.setattr(record, "examples", lambda *a,
                        **how: batches.append(examples(*a, **how)) or batches[-1])
    record.lessons(w, FOUND, 0, 120, 0)
    monkeypatch.setattr(worldmodel, "sample_strict", lambda *a: ([], None, torch.zeros(1), {}))
    rows = SimpleNamespace(tokens=[], mask=torch.zeros(1))
    monkeypatch.setattr(worldmodel, "training_rows", lambda *a: (rows, None, 0))
    monkeypatch.setattr(worldmodel.grpo, "update_on", lambda *a, **how: {"trained": 1})
    worldmodel.step(r)
    assert [{len(e.past) for e in batch} for batch in batches] == [set(range(1, 14))] * 2


def test_a_state_that_shows_the_format_is_well_formed():
    w, rng = tiny_world(window=2, context=320, max_state=80), random.Random(0)
    roles = Counter()
    batch = some_examples(100)
    for e in batch:
        prompt, answer = record.lesson(w, e, sorted(f for x in batch[:8] for f in x.past[-1].facts),
                                       rng)
        role = w.tok.decode(prompt[-1:])
        roles[role] += 1
        assert answer[-1] == w.tok.end_id and len(prompt) + len(answer) <= 320
        if role in (w.ENCODE, w.TRANSITION):
            assert beliefs.parse_state(w.tok.decode(answer[:-1])) is not None
        elif role == w.LEAKY:
            s, s2, o = w.leaky_sections(answer[:-1])
            assert beliefs.parse_state(w.tok.decode(s))
            assert beliefs.parse_state(w.tok.decode(s2)) and w.tok.decode(o) == e.future[0].text
        else:
            assert w.tok.decode(answer[:-1]) == e.future[0].text
    assert set(roles) == set(WorldModel.ROLES)


@pytest.mark.parametrize("name", ["stateless", "leaky", "strict"])
def test_lessons_of_ones_own_are_of_the_prompts_that_the_formulation_asks(name):
    w, roles = tiny_world(window=2, context=320, max_state=80), beliefs.OWN_ROLES
    w.taught = roles[name]
    prompts = [prompt for prompt, _ in record.lessons(w, FOUND, 0, 60, 0)]
    assert {w.tok.decode(prompt[-1:]) for prompt in prompts} == set(roles[name])
    assert sorted(role for own in roles.values() for role in own) == sorted(WorldModel.ROLES)


def test_a_state_to_imitate_is_no_longer_than_one_may_be():
    w, (example,) = tiny_world(max_state=12), some_examples(1)
    facts = set(sorted(example.past[-1].facts)[:9])
    ids = record.as_many_as_fit(w, facts, random.Random(0))
    kept = beliefs.parse_state(w.tok.decode(ids))
    assert 6 < len(ids) < 12 and set(kept) < facts and kept == record.ordered(kept, PREDICATES)
    w.max_state = 200
    ids = record.as_many_as_fit(w, facts, random.Random(0))
    assert set(beliefs.parse_state(w.tok.decode(ids))) == facts


def test_lessons_that_do_not_fit_the_context_are_left_out_and_none_is_an_error(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(record, "lesson", lambda w, example, others,
                      rng: ([1] * rng.randrange(40), [2] * 30))
        found = record.lessons(tiny_world(context=50), {3: FOUND[3]}, 0, 200, 0)
    assert 50 < len(found) < 150 and max(len(prompt) for prompt, _ in found) == 20
    w = tiny_world(window=1)
    w.model.cfg.context = 1
    with pytest.raises(run.Stop, match="raise --context"):
        beliefs.train_warm(w, {3: FOUND[3]}, worldmodel.Config(sft_rows=8), 1)
