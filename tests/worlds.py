"""Stand-ins for the model of a world model. The examples of the house are in envs/houses.py."""
from houses import AT, EGG, FOUND, HOLD, PAST, PEN, moments_of, some_examples  # noqa: F401
from sampler import Reply
from beliefs import WorldModel

OBSERVE, LEAKY, ENCODE, TRANSITION, DECODE = WorldModel.ROLES


def acted(w, m):
    """An action as the prompts of transition and decoder hold it."""
    return [w.tok.turn_id] + w.tok.encode(m.action) + [w.tok.end_id]


def said(w, prompt, text, ended=True):
    """A reply of this text; names of roles in it are their special tokens."""
    ids = w.tok.encoding.encode(text, allowed_special="all") + [w.tok.end_id] * ended
    return Reply(prompt, ids, [0.0] * len(ids), ended)


def scripted(monkeypatch, answer):
    """In place of WorldModel.reply: answer(prompt's text, number of the sibling) -> text. Returns the
    list of what is asked, a list of prompts a call."""
    asked = []

    def reply(w, prompts, k, max_new, streams, temperature):
        asked.append([w.tok.decode(p) for p in prompts])
        assert len(prompts) == len(streams)
        return [said(w, p, answer(w.tok.decode(p), i)) for p in prompts for i in range(k)]
    monkeypatch.setattr(WorldModel, "reply", reply)
    return asked
