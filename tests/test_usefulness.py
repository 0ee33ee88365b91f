"""State usefulness: the common decoder, what it is given, and its command."""
import json
import random

import pytest

import claims.usefulness as usefulness
import beliefs
from conftest import tiny_world
from envs import record
from worlds import FOUND


def test_a_decoder_learns_from_states_that_remember_more_than_is_needed():
    w = tiny_world("strict", max_state=64)
    lessons = usefulness.lessons(w, FOUND, 3, 16, 5)
    examples = record.examples(FOUND, range(5 * 10**7 + 48, 5 * 10**7 + 64), "train", "decoder 5")
    more = []
    for (prompt, answer), example in zip(lessons, examples):
        after = example.future[0]
        assert w.tok.decode(answer[:-1]) == after.text and answer[-1] == w.tok.end_id
        state = prompt[:prompt.index(w.tok.turn_id)]
        assert prompt == w.decode_prompt(state, after.action)
        facts = set(w.read_section(state))
        assert after.needed <= facts <= after.facts | after.needed
        more.append(len(facts - after.needed))
    assert min(more) < 3 < 6 < max(more)


def test_a_state_that_remembers_has_all_that_is_needed_and_true_facts_besides():
    rng = random.Random(0)
    for max_state in (8, 64):
        w = tiny_world("strict", max_state=max_state)
        for example in record.examples(FOUND, range(6), "train", "x"):
            after = example.future[0]
            least, most = (usefulness.remembers(w, after, share, rng) for share in (0, 1))
            minimal = record.as_many_as_fit(w, after.needed, random.Random(0))
            facts = set(w.read_section(most))
            assert facts <= after.facts | after.needed and len(most) <= max_state
            if max_state == 64:
                assert least == minimal and facts >= after.needed and len(most) > len(least)


def test_what_the_decoder_says_is_compared_with_what_is_stated(monkeypatch):
    w = tiny_world("strict")
    examples = record.examples(FOUND, range(3), "test", "x")
    hall = w.tok.encode("at hall")
    asked = []

    def reply(self, prompts, k, longest, streams, temperature):
        asked.extend(prompts)
        texts = [examples[0].future[0].text, "", examples[2].future[0].text]
        return [worldmodel_reply(self, prompt, text) for prompt, text in zip(prompts, texts)]
    monkeypatch.setattr(beliefs.WorldModel, "reply", reply)
    states = [[], hall, []]
    assert usefulness.obs_f1(w, examples, states) == pytest.approx(2 / 3)
    assert asked[1] == w.decode_prompt(hall, examples[1].future[0].action)


def worldmodel_reply(w, prompt, text):
    class Said:
        body = w.tok.encode(text)
    return Said


def test_it_is_a_command_and_the_decoder_is_made_once(command, capsys, monkeypatch):
    monkeypatch.setattr(usefulness.decoder_of, "__defaults__", (2,))
    how = ("--method", "worldmodel", "--steps", "1", "--test-problems", "6")
    assert command(*how, "--out", "o")[0] == 0
    assert usefulness.main(["o"]) == 0

    def printed():
        return json.loads("{" + capsys.readouterr().out.partition("{")[2])
    found = printed()
    assert found == json.load(open("o/usefulness.json")) and set(found) == {
        "usefulness", "ceiling", "all facts", "floor"}
    assert all(0 <= x <= 1 for x in found.values())
    monkeypatch.setattr(beliefs, "train_warm", lambda *_: pytest.fail("it is made again"))
    assert usefulness.main(["o"]) == 0 and printed() == found
    assert command(*how, "--formulation", "stateless", "--out", "s")[0] == 0
    assert usefulness.main(["s"]) == 2
    assert "a stateless model has no states" in capsys.readouterr().err
