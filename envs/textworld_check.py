"""The environment and its parser held against TextWorld's simulator: what `python -m envs.textworld` runs.

Observations for the parser come from games of all levels, played half by the expert and half at random, with a look or an inventory now and
then; those that end a game say nothing about the world and do not count. Precision: of the facts parsed, the share that is true in the
simulator at that moment. Recall, on room views and inventories: of the simulator's facts that such a view tells a reader
(textworld_text.readable), the share that was parsed. Answers to other commands count for precision only.
"""
import argparse
import random
import time
from collections import Counter

from envs.textworld_games import GAMES, LEVELS
from envs.textworld_text import readable


def check(players, n):
    """Does the expert win n generated games; and how fast is it all. players: environments, a level each, that take turns."""
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
    rates = f"{n / seconds['making']:.2f} games made (or found), {n / seconds['starting']:.1f} starts, {turns / seconds['playing']:.0f} steps"
    print(f"the expert wins {won} of {n} games, in {turns / n:.1f} turns; {rates} a second; {seconds['planning'] / n:.2f} s to plan a game")


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
            done = env.step("look" if draw > 0.85 else "inventory" if draw > 0.78 else rng.choice(moves)).done


def score(players, n):
    """Precision and recall over n observations, and the facts that were most often wrong or missed."""
    right, told, found, views, wrong, missed = 0, 0, 0, Counter(), Counter(), Counter()
    for env in observations(players, n):
        true, parsed = env.facts(), env.visible()
        right, told = right + len(parsed & true), told + len(parsed)
        wrong.update(parsed - true)
        view = "room" if env.seen.startswith("-=") else "inventory" if env.seen.startswith("You are carrying") else "other"
        views[view] += 1
        if view != "other":
            wanted = readable(true, view)
            found += len(wanted & parsed)
            missed.update(wanted - parsed)
    wanted = found + missed.total()
    print(f"{n} observations ({', '.join(f'{count} {view}' for view, count in sorted(views.items()))})")
    print(f"precision {right / told:.4f} of {told} facts; recall {found / wanted:.4f} of {wanted}")
    for name, facts in (("wrong", wrong), ("missed", missed)):
        for fact, count in facts.most_common(10):
            print(f"{name} {count} times: {fact}")


def main(make):
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=int, default=0, metavar="GAMES", help="does the expert win them; games made, starts and steps a second")
    parser.add_argument("--parser", type=int, default=0, metavar="OBSERVATIONS", help="precision and recall of the parser on them")
    parser.add_argument("--level", type=int, default=0, choices=LEVELS, help="one level; without it all four in turn")
    parser.add_argument("--game", default="cooking", choices=GAMES)
    args = parser.parse_args()
    players = [make(level=level, game=args.game) for level in ([args.level] if args.level else LEVELS)]
    if args.check:
        check(players, args.check)
    if args.parser:
        score(players, args.parser)
