"""State usefulness: the common decoder, what it is given, and its command."""
import json

import pytest

import claims.usefulness as usefulness
import worldmodel
from conftest import tiny_world
from envs import record
from worlds import FOUND


def test_a_decoder_learns_from_minimal_states_and_says_the_observation():
    w = tiny_world("strict")
    (prompt, answer), *others = usefulness.lessons(w, FOUND, 3, 4, 5)
    example, = record.examples(FOUND, [5 * 10**7 + 12], "train", "decoder 5")
    after = example.future[0]
    state = w.state_text(record.ordered(after.needed, w.language.PREDICATES))
    assert w.tok.decode(prompt).startswith(state) and len(others) == 3
    assert w.tok.decode(answer[:-1]) == after.text and answer[-1] == w.tok.end_id
    assert prompt == w.decode_prompt(w.tok.encode(state), after.action)


def test_what_the_decoder_says_is_compared_with_what_is_stated(monkeypatch):
    w = tiny_world("strict")
    examples = record.examples(FOUND, range(3), "test", "x")
    asked = []

    def reply(self, prompts, k, longest, streams, temperature):
        asked.extend(prompts)
        texts = [examples[0].future[0].text, "", examples[2].future[0].text]
        return [worldmodel_reply(self, prompt, text) for prompt, text in zip(prompts, texts)]
    monkeypatch.setattr(worldmodel.WorldModel, "reply", reply)
    states = [[], [("at", "hall")], []]
    assert usefulness.obs_f1(w, examples, states) == pytest.approx(2 / 3)
    assert asked[1] == w.decode_prompt(w.tok.encode("at hall"), examples[1].future[0].action)


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
        "usefulness", "ceiling", "floor"}
    assert all(0 <= x <= 1 for x in found.values())
    monkeypatch.setattr(worldmodel, "train_warm", lambda *_: pytest.fail("it is made again"))
    assert usefulness.main(["o"]) == 0 and printed() == found
    assert command(*how, "--formulation", "stateless", "--out", "s")[0] == 0
    assert usefulness.main(["s"]) == 2
    assert "a stateless model has no states" in capsys.readouterr().err
