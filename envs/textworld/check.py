"""The environment and its parser, held against TextWorld's simulator.

Observations for the parser come from games of all levels, played half by the expert and half at
random, with a look or an inventory now and then. Those that end a game say nothing about the world
and do not count. Precision: of the facts parsed, the share that is true in the simulator at that
moment. Recall, on room views and inventories: of the simulator's facts that such a view tells a
reader (text.readable), the share that was parsed. Answers to other commands count for precision
only.
"""
import random
import time
from collections import Counter

from envs.textworld.text import readable


def check(players, n):
    """Does the expert win n generated games; and how fast is it all. players: environments, a level
    each, that take turns."""
    games = [(players[i % len(players)], i // len(players)) for i in range(n)]  # a task each
    seconds, won, turns = Counter(), 0, 0

    def timed(name, work, *args):
        began = time.perf_counter()
        found = work(*args)
        seconds[name] += time.perf_counter() - began
        return found
    for env, task in games:
        timed("making", env.reset, task, "train")
    for env, task in games:
        env.memo.clear()
        timed("starting", env.reset, task, "train")
        plan = timed("planning", env.demo, random.Random(0), "expert") or ["look"]
        steps = [timed("playing", env.step, command) for command in plan]
        won, turns = won + steps[-1].info["success"], turns + len(steps)
    made, starts = n / seconds["making"], n / seconds["starting"]
    print(f"the expert wins {won} of {n} games, in {turns / n:.1f} turns; "
          f"{made:.2f} games made (or found), {starts:.1f} starts, "
          f"{turns / seconds['playing']:.0f} steps a second; "
          f"{seconds['planning'] / n:.2f} s to plan a game")


def observations(players, n, seed=0):
    """-> n times an environment that has just said something."""
    rng, seen, game = random.Random(seed), 0, 0
    while True:
        env = players[game % len(players)]
        env.reset(game // len(players) % env.tasks("train"), "train")
        game, done = game + 1, False
        while not done:
            yield env
            seen += 1
            if seen == n:
                return
            draw, found = rng.random(), env.actions()
            plan = env.demo(rng, "expert") if draw < 0.4 else None
            doors = [command for command in found if command.startswith("go ")]
            moves = plan[:1] if plan else doors if doors and draw < 0.55 else found
            if draw > 0.78:
                command = "look" if draw > 0.85 else "inventory"
            else:
                command = rng.choice(moves)
            done = env.step(command).done


def score(players, n):
    """Precision and recall over n observations, and the facts that were most often wrong or
    missed."""
    right, told, found, views, wrong, missed = 0, 0, 0, Counter(), Counter(), Counter()
    for env in observations(players, n):
        true, parsed = env.facts(), env.visible()
        right, told = right + len(parsed & true), told + len(parsed)
        wrong.update(parsed - true)
        if env.seen.startswith("-="):
            view = "room"
        else:
            view = "inventory" if env.seen.startswith("You are carrying") else "other"
        views[view] += 1
        if view != "other":
            wanted = readable(true, view)
            found += len(wanted & parsed)
            missed.update(wanted - parsed)
    wanted = found + missed.total()
    kinds = ", ".join(f"{count} {view}" for view, count in sorted(views.items()))
    print(f"{n} observations ({kinds})")
    print(f"precision {right / told:.4f} of {told} facts; recall {found / wanted:.4f} of {wanted}")
    for name, facts in (("wrong", wrong), ("missed", missed)):
        for fact, count in facts.most_common(10):
            print(f"{name} {count} times: {fact}")
