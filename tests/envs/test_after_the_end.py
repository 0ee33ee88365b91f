"""A step after the end of an episode: still over, as it ended, and nothing more is earned. (The
house goes on: a recorded game is one.)"""
import random

import pytest

import envs

AFTER = ["look", "", "search[a]", "answer[b]", "click[buy now]", "inventory", "xyzzy"]


def check_it_stays_over(env, texts):
    env.reset(0, "train")
    for text in texts:
        last = env.step(text)
    assert last.done
    for text in [*texts, *AFTER]:
        step = env.step(text)
        assert (step.observation, step.reward, step.done) == ("", 0.0, True), text
        same = ("success", "score", "truncated", "family")
        assert [step.info[name] for name in same] == [last.info[name] for name in same], text


@pytest.mark.parametrize("skill", ["expert", "careless"])
def test_webshop(skill, tmp_path):
    pytest.importorskip("rapidfuzz"), pytest.importorskip("tantivy")
    from envs.webshop import made
    made.write(tmp_path, 100)
    env = envs.make("webshop", data=str(tmp_path))
    env.reset(0, "train")
    check_it_stays_over(env, env.demo(random.Random(0), skill))


def test_textworld(tmp_path, monkeypatch):
    pytest.importorskip("textworld")
    monkeypatch.setenv("TEXTWORLD_GAMES", str(tmp_path))
    env = envs.make("textworld")
    env.reset(0, "train")
    texts = env.demo(random.Random(0), "expert")
    check_it_stays_over(env, texts)
    assert env.reset(0, "train") and not env.step(texts[0]).done
