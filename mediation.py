"""Who sees what: the prompts of a world model's three formulations, and how it is asked, many prompts at once.

Strict mediation (arXiv 2606.27681) is a property of prompts, so here they all stand together: encode sees the history and nothing else,
transition a state and an action, decode a next state and the action. A child's prompt is made anew from the ids of its parent's state and prefilled from position 0,
once for all siblings; the cache that read the history is never continued.
"""
from dataclasses import dataclass, field

from sampler import Sampler

OBSERVE, LEAKY, ENCODE, TRANSITION, DECODE = ROLES = ("<|observe|>", "<|leaky|>", "<|encode|>", "<|transition|>", "<|decode|>")


@dataclass
class World:
    """A world model: a language model, and how it is talked to."""
    model: object
    tok: object
    cfg: object  # worldmodel.Config
    language: object  # the environment's module: parse, PREDICATES, MAX_WORDS
    max_state: int  # tokens
    max_observation: int  # tokens
    sampling: dict = field(default_factory=dict)  # of Sampler: compile, dtype
    temperature: float = 0.0  # of imagination; training samples at 1
    sampler: Sampler | None = None  # made when first asked
    dropped: int = 0  # turns that did not fit into a prompt's context

    def role(self, name):
        return [self.tok.role_id(name)]


def history(w, past):
    """What a prompt shows of the past: the last observations and the actions between them, oldest dropped until they fit."""
    turns = [(w.tok.encode_turn("assistant", m.action) if i else []) + w.tok.encode_turn("user", m.text)
             for i, m in enumerate(past[-w.cfg.window:])]  # window 0: all of it
    room = w.model.cfg.context - 2 * w.max_state - w.max_observation - 16  # what the longest answer, the leaky one, takes
    while len(turns) > 1 and sum(map(len, turns)) > room:
        turns.pop(0)
        w.dropped += 1
    return [token for turn in turns for token in turn][-room:]  # an observation of one's own invention may be longer than any


def observe_prompt(w, past, action, role=OBSERVE):
    return history(w, past) + w.tok.encode_turn("assistant", action) + w.role(role)


def leaky_prompt(w, past, action):
    return observe_prompt(w, past, action, LEAKY)


def encode_prompt(w, past):
    return history(w, past) + w.role(ENCODE)


def transition_prompt(w, state, action):
    """state: the ids that were sampled, as they were sampled. They stand at position 0: nothing of the history is left."""
    return state + [w.tok.turn_id] + w.tok.encode_turn("assistant", action) + w.role(TRANSITION)


def decode_prompt(w, state, action):
    return state + [w.tok.turn_id] + w.tok.encode_turn("assistant", action) + w.role(DECODE)


# ---- sampling ----

@dataclass
class Reply:
    """What the model answered to a prompt."""
    prompt: list
    ids: list  # with the end token, when it came to it
    logp: list
    ended: bool

    @property
    def body(self):
        return self.ids[:-1] if self.ended else self.ids


def write(w, prompts, k, max_new, names, temperature=1.0, rows=512):
    """k replies to each prompt, in order. names: whose random numbers a prompt's replies use. A prompt is prefilled once, from
    position 0, and its k siblings go on from a copy of its cache."""
    replies, per = [], max(1, rows // k)
    if w.sampler is None or w.sampler.rows < k:
        w.sampler = Sampler(w.model, max(rows, k), **w.sampling)
    sampler = w.sampler
    for first in range(0, len(prompts), per):
        some, n = prompts[first:first + per], min(per, len(prompts) - first) * k
        sampler.start()
        sampler.feed(range(len(some)), some)
        sampler.select([row // k for row in range(n)])
        sampler.seed([(*name, i) for name in names[first:first + per] for i in range(k)])
        before = sampler.sample(max_new, w.tok.stop_ids, temperature=temperature, rows=range(n)).tolist()
        tokens, logp, after = sampler.tokens.tolist(), sampler.logp.tolist(), sampler.length.tolist()
        for row in range(n):
            ids = tokens[row][before[row]:after[row]]
            replies.append(Reply(some[row // k], ids, logp[row][before[row]:after[row]], bool(ids) and ids[-1] in w.tok.stop_ids))
    return replies
