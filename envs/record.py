"""What a world model learns from: games, cut into examples, and textual states for its warm start.

Four behaviours play, as in the paper (arXiv 2606.27681): an expert, the expert with random moves
mixed in, a random walk that an oracle ends, and a random walk. An example is (history, action,
next observation) with what the simulator knows beside it: the facts that each observation states,
and those that are needed to say it. The environment is an envs.FactWorld.

The house is fast: each example is a game of its own. Games of a slow world are recorded once, in a
file with a line of JSON a game. A line is written as soon as its game is over, so what was played
before an interruption is not played again.
"""
import copy
import hashlib
import json
import math
import os
import random
import sys
from dataclasses import dataclass

from tqdm import tqdm

from envs import SPLITS

BEHAVIOURS = ("expert", "eps-greedy", "explore-then-oracle", "random")


@dataclass
class Moment:
    """One turn of a game."""
    action: str  # the command that led here; "" at the start
    text: str  # the observation
    stated: frozenset  # the facts it states
    needed: frozenset  # the fewest facts from which it can be said
    facts: frozenset  # the simulator's true state


@dataclass
class Example:
    """A game up to now, and what comes next."""
    past: list  # Moments, the last one is now
    future: list  # Moments
    level: int = 0


# ---- sets of facts, compared ----

def fact_f1(predicted, true):
    """Harmonic mean of precision and recall of a set of facts; both empty: 1."""
    predicted, true = set(predicted), set(true)
    if not predicted and not true:
        return 1.0
    return 2 * len(predicted & true) / (len(predicted) + len(true))


def coverage(state, facts):
    """Cov: the share of `facts` that the state holds; no facts: 1."""
    facts = set(facts)
    return len(facts & set(state)) / len(facts) if facts else 1.0


# ---- play ----

def moment(env, action):
    return Moment(action, env.observation(), env.visible(), env.needed(), env.facts())


def random_command(env, rng, commands):
    """A random walk that explores: a door as often as all the rest, now and then a command that
    fails."""
    if rng.random() < 0.08:
        return rng.choice(commands)
    found = env.moves()
    doors = [command for command in found if command.startswith("go ")]
    return rng.choice(doors if doors and rng.random() < 0.4 else found)


def wanders(behaviour, turn, explore):
    """The chance of a random move."""
    return {"expert": 0.0, "eps-greedy": 0.3, "explore-then-oracle": float(turn < explore),
            "random": 1.0}[behaviour]


def trajectory(env, task, split, behaviour, rng, turns):
    """Play `turns` turns, and go on when the task is solved. -> list of 1 + turns Moments"""
    env = copy.copy(env)
    env.max_turns = math.inf  # the caller says how long
    env.reset(task, split)
    commands, explore = sorted(env.commands()), rng.randrange(4, 12)
    moments, solved = [moment(env, "")], False
    for turn in range(turns):
        if solved or rng.random() < wanders(behaviour, turn, explore):
            command = random_command(env, rng, commands)
        else:
            skill = "oracle" if behaviour == "explore-then-oracle" else "expert"
            command = env.demo(rng, skill)[0]
        solved = env.step(command).info["success"] or solved
        moments.append(moment(env, command))
    return moments


def examples(worlds, tasks, split, name, future=1, past=(0, 12)):
    """One example a task. (name, task) decides its level, its behaviour and its place in the game,
    which is after so many turns. worlds: {level: environment}"""
    found = []
    for task in tasks:
        rng = random.Random(f"example {name} {task}")
        level, behaviour = rng.choice(sorted(worlds)), rng.choice(BEHAVIOURS)
        now, env = rng.randint(*past), worlds[level]
        if env.records is not None:
            moments, now = cut(env.records[split], behaviour, rng, future, past)
        else:
            moments = trajectory(env, task, split, behaviour, rng, now + future)
        found.append(Example(moments[:now + 1], moments[now + 1:], level))
    return found


def cut(records, behaviour, rng, future, past):
    """A part of a recorded game of that behaviour -> its moments, the number of the one that is
    now. If all games of the behaviour are too short, one of another. ValueError when no game at
    all is long enough."""
    fitting = [(of, moments) for of, moments in records if len(moments) > past[0] + future]
    if not fitting:
        raise ValueError(f"no recorded game has {past[0] + future} turns")
    _, moments = rng.choice([game for game in fitting if game[0] == behaviour] or fitting)
    now = rng.randint(past[0], min(past[1], len(moments) - 1 - future))
    return moments[:now + 1 + future], now


# ---- states to imitate: the format, on partial and noisy facts ----

def known(moments):
    """What a player who saw these moments knows for certain: of the facts that are true at the
    end, those that were stated, and those that came about meanwhile."""
    told = set(moments[0].stated)
    for before, after in zip(moments, moments[1:]):
        told |= after.stated | (after.facts - before.facts)
    return (told & moments[-1].facts) | moments[-1].needed


def ordered(facts, predicates):
    """A state is a list: predicates in the simulator's order, then by argument."""
    rank = {predicate: i for i, predicate in enumerate(predicates)}
    return sorted(facts, key=lambda f: (f[0] != "focus", rank[f[0]], f))


def noisy(facts, always, others, rng, keep, wrong):
    """Drop facts with chance 1 - keep; with chance `wrong` put another of the same predicate in the
    place of one. always: those that stay. others: a list of facts to take wrong ones from."""
    out = set()
    for fact in sorted(facts):
        lies = [f for f in others if f[0] == fact[0] and f not in facts]
        if fact in always:
            out.add(fact)
        elif lies and rng.random() < wrong:
            out.add(rng.choice(lies))
        elif rng.random() < keep:
            out.add(fact)
    return out


def demonstrated_states(example, others, rng, window, keep=0.85, carry=0.9, wrong=0.05):
    """A state and the next one, to imitate -> (set of facts, set of facts).

    The state tells part of what the window shows, with some of it wrong. The next one copies it,
    but for what the action changed, and adds part of what the next observation says."""
    now, after = example.past[-1], example.future[0]
    state = noisy(known(example.past[-window:]), focus(now), others, rng, keep, wrong)
    gone = now.facts - after.facts
    news = (after.facts - now.facts) | after.needed
    stays = {f for f in state if f not in gone and f[0] != "focus"} - news
    kept = noisy(stays, (), (), rng, carry, 0)
    told = noisy(news & known([now, after]), focus(after), others, rng, 0.95, wrong)
    return state, kept | told


def focus(moment):
    return {f for f in moment.needed if f[0] == "focus"}


# ---- lessons: those states as prompts and answers. w: beliefs.WorldModel, which knows the prompts ----

def lesson(w, example, others, rng):
    """A demonstration -> (prompt ids, answer ids). Which prompt it is for is drawn."""
    role, action = rng.choice(w.taught), example.future[0].action
    memory = w.window or len(example.past)
    if role in (w.TRANSITION, w.DECODE):  # a state may know more than the window shows
        memory = rng.randint(min(memory, len(example.past)), len(example.past))
    demonstrated = demonstrated_states(example, others, rng, memory)
    state, next_state = (as_many_as_fit(w, facts, rng) for facts in demonstrated)
    observation, end = w.tok.encode(example.future[0].text), [w.tok.end_id]
    if role == w.OBSERVE:
        return w.observe_prompt(example.past, action), observation + end
    if role == w.LEAKY:
        answer = state + w.role(w.TRANSITION) + next_state + w.role(w.DECODE) + observation
        return w.leaky_prompt(example.past, action), answer + end
    if role == w.ENCODE:
        return w.encode_prompt(example.past), state + end
    if role == w.TRANSITION:
        return w.transition_prompt(state, action), next_state + end
    return w.decode_prompt(next_state, action), observation + end


def as_many_as_fit(w, facts, rng):
    """The ids of a state of these facts; of too many, some at random are left out."""
    kept = ordered(facts, w.language.PREDICATES)
    while len(ids := w.tok.encode(w.state_text(kept))) >= w.max_state and kept:
        kept.pop(rng.randrange(len(kept)))
    return ids


def lessons(w, worlds, step, rows, seed):
    """The demonstrations of one step, each from a game of its own, but for those that do not fit
    into the context -> [(prompt ids, answer ids)]"""
    tasks = [seed * 10**7 + step * rows + i for i in range(rows)]
    batch, rng = examples(worlds, tasks, "train", f"warm {seed}"), random.Random(f"warm {seed} {step}")
    others = sorted(fact for e in batch[:8] for fact in e.past[-1].facts)
    if len(others) > 400:  # a real world has thousands
        others = sorted(random.Random(step).sample(others, 400))
    made = [lesson(w, example, others, rng) for example in batch]
    return [pair for pair in made if sum(map(len, pair)) <= w.model.cfg.context]


# ---- games of a slow world, recorded once ----

def play(env, task, split, behaviour, rng, turns):
    """One game -> its Moments, without the last one of a game that ends, which says nothing about
    the world. [] for an oracle's game that is not won within `turns` turns: it is left out.

    A plan is followed until a random move leaves it. Then the player plans again, or goes on with
    the old plan where there is no other (ScienceWorld: a detour and a replay)."""
    env = copy.copy(env)
    env.max_turns = turns
    env.reset(task, split)
    plan = [] if behaviour == "random" else env.demo(rng, "expert") or []
    commands, explore = env.commands(), rng.randrange(4, 12)
    moments, won = [moment(env, "")], False
    for turn in range(turns):
        left = not plan or rng.random() < wanders(behaviour, turn, explore)
        command = random_command(env, rng, commands) if left else plan.pop(0)
        step = env.step(command)
        won = won or step.info["success"]
        if step.done and not step.info["truncated"]:
            break
        moments.append(moment(env, command))
        if left and plan:
            plan = env.demo(rng, "expert") or plan
    return moments if won or behaviour != "explore-then-oracle" else []


def record(env, name, level, folder):
    """Play what is not yet in the file, with a progress bar.
    -> {split: [(behaviour, list of Moments)]}"""
    jobs = [(split, task, behaviour) for split in SPLITS for task in env.record_tasks(split)
            for behaviour in BEHAVIOURS]
    # Other games or other texts are another file.
    made_of = json.dumps([name, level, env.record_turns, jobs, env.reset(0, "train")])
    mark = hashlib.sha256(made_of.encode()).hexdigest()[:10]
    path = os.path.join(folder, f"games-{name}-{level}-{mark}.jsonl")
    done = read(path)
    left = [job for job in jobs if job not in done]
    title = f"recording games of {name}, level {level}"
    with open(path, "a", encoding="utf-8") as file:
        for job in tqdm(left, desc=title, file=sys.stderr, mininterval=1, disable=not left):
            split, task, behaviour = job
            rng = random.Random(f"record {split} {task} {behaviour}")
            done[job] = play(env, task, split, behaviour, rng, env.record_turns)
            file.write(line(job, done[job]))
            file.flush()
    return {split: [(job[2], done[job]) for job in jobs if job[0] == split and done[job]]
            for split in SPLITS}


def line(job, moments):
    """A game as JSON: its facts once, those of each moment as numbers of them."""
    facts = sorted(set().union(*(m.facts | m.stated | m.needed for m in moments)))
    number = {fact: i for i, fact in enumerate(facts)}
    said = []
    for m in moments:
        sets = (m.stated, m.needed, m.facts)
        said.append([m.action, m.text, *(sorted(number[f] for f in some) for some in sets)])
    return json.dumps([job, facts, said]) + "\n"


def read(path):
    """-> {job: list of Moments}. A line that cannot be read leaves the file: its game is played
    again, those before and behind it are kept."""
    found, kept, same = {}, [], {}  # same: one object for a fact in all games
    if not os.path.exists(path):
        return found
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    for text in lines:
        try:
            if not text.endswith(b"\n"):
                raise ValueError("cut by a kill")
            job, facts, said = json.loads(text)
            facts = [same.setdefault(fact, fact) for fact in map(tuple, facts)]
            found[tuple(job)] = [
                Moment(action, seen, *(frozenset(facts[i] for i in some) for some in sets))
                for action, seen, *sets in said]
            kept.append(text)
        except (ValueError, TypeError, IndexError, RecursionError):
            continue
    if kept != lines:
        with open(path + ".tmp", "wb") as file:
            file.writelines(kept)
        os.replace(path + ".tmp", path)
    return found
