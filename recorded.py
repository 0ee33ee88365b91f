"""Games of a slow world, recorded once: played in the four behaviours, kept on disk, cut into examples by trajectories.py.

The file has a line of JSON a game, written as soon as the game is over: what was played before an interruption is not played again.
A world that is recorded has `record_turns`, the longest game, and record_tasks(split), the tasks that are played, each in all behaviours.
"""
import copy
import hashlib
import json
import os
import random
import sys

from tqdm import tqdm

import envs
from trajectories import BEHAVIOURS, Moment, moment, random_command, wanders


def play(env, task, split, behaviour, rng, turns):
    """One game -> its Moments, but for the one that ends it, which says nothing about the world. An oracle's game that is not won within
    `turns` turns is left out: []. A plan is followed until a random move leaves it; then the player plans again, or goes on with the old one where
    it has no other (ScienceWorld: a detour and a replay)."""
    env = copy.copy(env)
    env.max_turns = turns
    env.reset(task, split)
    plan = [] if behaviour == "random" else env.demo(rng, "expert") or []
    commands, explore, moments, won = env.commands(), rng.randrange(4, 12), [moment(env, "")], False
    for turn in range(turns):
        if not plan or rng.random() < wanders(behaviour, turn, explore):
            command, left = random_command(env, rng, commands), True
        else:
            command, left = plan.pop(0), False
        step = env.step(command)
        won = won or step.info["success"]
        if step.done and not step.info["truncated"]:
            break
        moments.append(moment(env, command))
        if left and plan:
            plan = env.demo(rng, "expert") or plan
    return moments if won or behaviour != "explore-then-oracle" else []


def record(env, name, level, folder):
    """Play what is not yet in the file, with a progress bar. -> {split: [(behaviour, list of Moments)]}"""
    jobs = [(split, task, behaviour) for split in envs.SPLITS for task in env.record_tasks(split) for behaviour in BEHAVIOURS]
    made_of = [name, level, env.record_turns, jobs, env.reset(0, "train")]  # other games or other texts are another file
    path = os.path.join(folder, f"games-{name}-{level}-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:10]}.jsonl")
    done = read(path)
    left = [job for job in jobs if job not in done]
    with open(path, "a", encoding="utf-8") as file:
        for job in tqdm(left, desc=f"recording games of {name}, level {level}", file=sys.stderr, mininterval=1, disable=not left):
            split, task, behaviour = job
            done[job] = play(env, task, split, behaviour, random.Random(f"record {split} {task} {behaviour}"), env.record_turns)
            file.write(line(job, done[job]))
            file.flush()
    return {split: [(job[2], done[job]) for job in jobs if job[0] == split and done[job]] for split in envs.SPLITS}


def line(job, moments):
    """A game as JSON: its facts once, each moment's as numbers of them."""
    facts = sorted(set().union(*(m.facts | m.stated | m.needed for m in moments)))
    number = {fact: i for i, fact in enumerate(facts)}
    said = [[m.action, m.text, *(sorted(number[f] for f in some) for some in (m.stated, m.needed, m.facts))] for m in moments]
    return json.dumps([job, facts, said]) + "\n"


def read(path):
    """-> {job: list of Moments}. A last line that was cut off, as by a kill, is cut from the file too."""
    found, whole, known = {}, 0, {}
    if not os.path.exists(path):
        return found
    with open(path, "rb+") as file:
        for text in file:
            try:
                job, facts, said = json.loads(text)
            except ValueError:
                break
            facts = [known.setdefault(fact, fact) for fact in map(tuple, facts)]  # one object for a fact in all games
            found[tuple(job)] = [Moment(action, text, *(frozenset(facts[i] for i in some) for some in sets)) for action, text, *sets in said]
            whole = file.tell()
        file.truncate(whole)
    return found
