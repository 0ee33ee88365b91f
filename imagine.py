"""What a trained world model is good for: one step, many steps, and what its predictions depend on.

    python train.py --method worldmodel        # its final table is made here

A *mind* is what a formulation carries from step to step: strict its state and nothing else;
stateless and leaky the past, to which they add their own predicted observations. One function for
each formulation takes one step in it; rollouts, metrics and the tests of mediation are loops around
these. `w` is a WorldModel (beliefs.py): it knows the prompts and how states are read. Letters: N
examples, H steps. """
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Callable

import torch

from envs.record import Moment, coverage, fact_f1

HORIZONS = (1, 5, 9)  # paper
AGES = ((1, 2), (3, 4), (5, 8), (9, 16))  # observations since a room was in view
BANDS = ((1, 4), (5, 9), (10, 25))  # a single horizon on some hundred games is noise


@dataclass
class Imagined:
    """One imagined step."""
    mind: object  # strict: the Reply that holds the state; else the past, a list of Moments
    text: str  # the observation
    state: list | None  # s, None where malformed, or where there is none
    next_state: list | None  # s'


# ---- the three formulations: what each carries from step to step, and how it takes one ----

def stateless_imagine(w, minds, actions, step=0):
    prompts = [w.observe_prompt(mind, action) for mind, action in zip(minds, actions)]
    replies = w.reply(prompts, 1, w.max_observation, imagined(minds, "step", step), w.temperature)
    found = []
    for mind, action, reply in zip(minds, actions, replies):
        past, text = remember(w, mind, action, reply.body)
        found.append(Imagined(past, text, None, None))
    return found


def remember(w, past, action, observation):
    """What stateless and leaky carry on: the past and their own prediction -> past, its text"""
    text = w.tok.decode(observation[:w.max_observation])  # without an end it may be longer
    imagined_moment = Moment(action, text, w.language.parse(text), None, None)  # facts: unknown
    return [*past, imagined_moment], text


def imagined(items, *what):
    """Random streams of imagination."""
    return [("imagine", *what, i) for i in range(len(items))]


def strict_begin(w, pasts):
    prompts = [w.encode_prompt(past) for past in pasts]
    return w.reply(prompts, 1, w.max_state, imagined(pasts, "encode"), w.temperature)


def strict_imagine(w, minds, actions, step=0):
    prompts = [w.transition_prompt(mind.body, action) for mind, action in zip(minds, actions)]
    moved = w.reply(prompts, 1, w.max_state, imagined(minds, "step", step), w.temperature)
    prompts = [w.decode_prompt(m.body, action) for m, action in zip(moved, actions)]
    streams = imagined(minds, "observation", step)
    seen = w.reply(prompts, 1, w.max_observation, streams, w.temperature)
    return [Imagined(m, w.tok.decode(o.body), w.read_state(mind), w.read_state(m))
            for mind, m, o in zip(minds, moved, seen)]


def strict_from_state(w, given):
    found = strict_imagine(w, [s for _, s in given], [e.future[0].action for e, _ in given])
    return [f.text for f in found]


def leaky_imagine(w, minds, actions, step=0):
    prompts = [w.leaky_prompt(mind, action) for mind, action in zip(minds, actions)]
    longest = 2 * w.max_state + w.max_observation
    replies = w.reply(prompts, 1, longest, imagined(minds, "step", step), w.temperature)
    found = []
    for mind, action, reply in zip(minds, actions, replies):
        s, s2, o = w.leaky_sections(reply.body)
        past, text = remember(w, mind, action, o or [])
        found.append(Imagined(past, text, w.read_section(s), w.read_section(s2)))
    return found


def leaky_states(w, examples):
    prompts = [w.leaky_prompt(e.past, e.future[0].action) for e in examples]
    replies = w.reply(prompts, 1, w.max_state, imagined(examples, "swap"), 0.0)
    return [w.leaky_sections(reply.body)[0] or [] for reply in replies]


def leaky_state_prompt(w, past, state, action):
    return w.leaky_prompt(past, action) + state + w.mark()


def leaky_from_state(w, given):
    prompts = [leaky_state_prompt(w, e.past, s, e.future[0].action) for e, s in given]
    replies = w.reply(prompts, 1, w.max_state + w.max_observation, imagined(given, "forced"), 0.0)
    answers = [s + w.mark() + reply.body for (_, s), reply in zip(given, replies)]
    return [w.tok.decode(w.leaky_sections(ids)[2] or []) for ids in answers]


@dataclass(frozen=True)
class Formulation:
    name: str
    begin: Callable  # w, pasts -> minds
    imagine: Callable  # w, minds, actions, step -> [Imagined]
    states: Callable = None  # w, examples -> states, for the mediation tests below
    from_state: Callable = None  # w, [(example, state)] -> texts of the predicted observations
    state_prompt: Callable = None  # w, past, state's ids, action -> ids in front of the next state


FORMULATIONS = {
    "stateless": Formulation("stateless", lambda w, pasts: [list(past) for past in pasts],
                             stateless_imagine),
    "leaky": Formulation("leaky", lambda w, pasts: [list(past) for past in pasts], leaky_imagine,
                         leaky_states, leaky_from_state, leaky_state_prompt),
    "strict": Formulation("strict", strict_begin, strict_imagine,
                          lambda w, examples: strict_begin(w, [e.past for e in examples]),
                          strict_from_state,
                          lambda w, past, state, action: w.transition_prompt(state, action))}


# ---- one step and many ----

def rollouts(w, examples, steps):
    """Imagine the examples' own actions -> {name: [N, steps]}, and "words" of the first state, [N].

    obs: obs.F1. state, next: state.F1 of s and of s', both against the fewest facts that the next
    observation needs; recall: the share of those that s' holds; nan where no fact is needed,
    because no state is better than another there. formed: are both well-formed?"""
    minds = w.form.begin(w, [e.past for e in examples])
    table, words = defaultdict(list), []
    for h in range(steps):
        found = w.form.imagine(w, minds, [e.future[h].action for e in examples], h)
        minds = [f.mind for f in found]
        truth = [e.future[h] for e in examples]
        pairs = list(zip(found, truth))
        table["obs"].append([fact_f1(w.language.parse(f.text), t.stated) for f, t in pairs])
        for name, score in (("state", lambda f, needed: fact_f1(f.state or (), needed)),
                            ("next", lambda f, needed: fact_f1(f.next_state or (), needed)),
                            ("recall", lambda f, needed: coverage(f.next_state or (), needed))):
            table[name].append([score(f, t.needed) if t.needed else math.nan for f, t in pairs])
        table["formed"].append([float(None not in (f.state, f.next_state)) for f in found])
        words = words or [len(w.state_text(f.state or ()).split()) for f in found]
    return {**{name: torch.tensor(x).T for name, x in table.items()}, "words": torch.tensor(words)}


def ages(example, window, language):
    """For each future step: how many observations ago was its room last in view, of those that the
    prompt shows or that are imagined? nan: never, or it shows no room."""
    shown, seen, out = example.past[-window:], {}, []  # room -> when it was last in view; now is -1
    for i, m in enumerate(shown):
        seen[language.room_of(m.stated)] = i - len(shown)
    for h, m in enumerate(example.future):
        here = language.room_of(m.stated)
        out.append(math.nan if here is None else h - seen.get(here, math.nan))
        seen[here] = h
    return out


def comes_back(example, window, language):
    """For each future step: does it show a room that was in view before, but not in the last
    `window` observations (0: the last four)? There only memory helps."""
    return [age > (window or 4) for age in ages(example, window, language)]


def mean_and_error(x):
    """x: [N] or [N, ...], nan where there is nothing -> mean, standard error over examples (None
    of one)"""
    x = x.float().flatten(1).nanmean(1) if x.dim() > 1 else x.float()
    x = x[~x.isnan()]
    if not len(x):
        return math.nan, None
    error = (x.std() / math.sqrt(len(x))).item() if len(x) > 1 else None
    return x.mean().item(), error


def measure(w, examples, steps=25):
    """Every number of the paper, and bands of horizons -> {name: (mean, error over examples)};
    without those that no example has."""
    found, out = rollouts(w, examples, steps), {}
    level = torch.tensor([e.level for e in examples])
    needs = torch.tensor([len(e.future[0].needed) for e in examples])
    has_state = w.form.name != "stateless"
    levels = sorted(set(level.tolist()))

    # one step, split as in the paper by the number of facts needed, and by level
    for m in w.language.FACTS_NEEDED:
        out[f"obs.F1 M>={m}"] = mean_and_error(found["obs"][needs >= m, :1])
        if has_state:
            out[f"state.F1 s' M>={m}"] = mean_and_error(found["next"][needs >= m, :1])
    for l in levels:
        out[f"obs.F1 level {l}"] = mean_and_error(found["obs"][level == l, :1])
    if has_state:
        for l in levels:
            out[f"state.F1 s level {l}"] = mean_and_error(found["state"][level == l, :1])
            out[f"state.F1 s' level {l}"] = mean_and_error(found["next"][level == l, :1])
        shown = torch.tensor([words_in_view(e, w.window) for e in examples])
        full = found["words"] > 0
        out["CR"] = mean_and_error(shown[full] / found["words"][full])
        out["well-formed"] = mean_and_error(found["formed"][:, :1])

    # many steps
    of_state = {"state s'": "next", "needed facts in s'": "recall"}
    tables = {"obs": "obs", **(of_state if has_state else {})}
    for name, key in tables.items():
        for h in HORIZONS:
            if h <= steps:
                out[f"{name} H={h}"] = mean_and_error(found[key][:, h - 1])
        for a, b in BANDS:
            if b <= steps:
                out[f"{name} {a}-{b}"] = mean_and_error(found[key][:, a - 1:b])
    if steps >= 9:
        for l in levels:
            out[f"obs 5-9 level {l}"] = mean_and_error(found["obs"][level == l, 4:9])
        back = torch.tensor([comes_back(e, w.window, w.language)[:steps] for e in examples])
        known = torch.where(back, found["obs"], math.nan).nanmean(1)
        out["obs, known rooms"] = mean_and_error(known)
        age = torch.tensor([ages(e, w.window, w.language)[:steps] for e in examples])
        for a, b in AGES:
            seen = torch.where((a <= age) & (age <= b), found["obs"], math.nan).nanmean(1)
            out[f"obs, seen {a}-{b} ago"] = mean_and_error(seen)
    return {name: pair for name, pair in out.items() if not math.isnan(pair[0])}


def words_in_view(example, window):
    """Words of the observations that a prompt shows, and of the actions between them."""
    shown = example.past[-window:]
    return sum(len(f"{m.action if i else ''} {m.text}".split()) for i, m in enumerate(shown))


# ---- mediation: what a prediction depends on ----

def partners(examples):
    """[(i, j)]: the same action, but another observation follows. Each i once, the j's in order."""
    by_action, pairs = defaultdict(list), []
    for j, e in enumerate(examples):
        by_action[e.future[0].action].append(j)
    for i, e in enumerate(examples):
        after = e.future[0]
        others = [j for j in by_action[after.action] if examples[j].future[0].stated != after.stated]
        if others:
            pairs.append((i, others[i % len(others)]))
    return pairs


def action_alone(examples):
    """{action: facts that most observations after it state}: what you can say without memory."""
    count, facts = Counter(e.future[0].action for e in examples), defaultdict(Counter)
    for e in examples:
        facts[e.future[0].action].update(e.future[0].stated)
    return {action: {fact for fact, n in facts[action].items() if 2 * n > count[action]}
            for action in count}


def swap(w, examples, floor):
    """Predictions with their own state and with another example's, beside the floor (action_alone)
    -> {name: (mean, error)}. With a state that matters, the second is as bad as the floor; where
    the state is bypassed, nothing changes. "own - another's" is what depends on the state."""
    pairs = partners(examples)
    if w.form.name == "stateless" or not pairs:
        return {}
    states, score = w.form.states(w, examples), {}
    for name, which in (("own state", 0), ("another's state", 1)):
        given = [(examples[pair[0]], states[pair[which]]) for pair in pairs]
        texts = w.form.from_state(w, given)
        score[name] = [fact_f1(w.language.parse(text), e.future[0].stated)
                       for (e, _), text in zip(given, texts)]
    truth = [examples[i].future[0] for i, _ in pairs]
    score["action alone"] = [fact_f1(floor.get(t.action, ()), t.stated) for t in truth]
    score = {name: torch.tensor(x) for name, x in score.items()}
    score["own - another's"] = score["own state"] - score["another's state"]
    return {name: mean_and_error(x) for name, x in score.items()}


@torch.no_grad()
def leak(w, example, other, state):
    """The largest change of a logit of the next state when the history becomes another example's,
    while the state's ids and the action are held. Strict: 0 to the bit, because the prompt has no
    history (a test checks this for whole trees); leaky: more."""
    device, action = w.model.embed.weight.device, example.future[0].action
    logits = []
    for past in (example.past, other.past):
        prompt = w.form.state_prompt(w, past, state, action)
        logits.append(w.model(torch.tensor([prompt], device=device))[0, -1])
    return (logits[0] - logits[1]).abs().max().item()
