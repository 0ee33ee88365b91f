"""How many of ALFWorld's games load, how many the expert wins, and how fast it all is: what `python -m envs.alfworld` runs.

    python -m envs.alfworld --data DIR --check               # every game of every folder in it, by family
    python -m envs.alfworld --data DIR --check --oracle      # the same by one who knows where everything is, and need not look around
    python -m envs.alfworld --data DIR --check --planner     # plans of the planner, where there is a walkthrough too
    python -m envs.alfworld --data DIR --seed 3              # play
"""
import argparse
import random
import resource
import sys
import time
from collections import Counter

from envs import SPLITS, by_hand
from envs.alfworld import ALFWorld
from envs.alfworld_files import FAMILIES, FOLDERS, WHERE, folder_of, in_turn, read_folder

PARTS = ("opening", "starting", "planning", "playing")


def check(data, most, planner, skill="expert"):
    """Print a line for each folder of games, and one for each family in it. most: games of a folder, 0 for all. -> games, games won"""
    total = Counter()
    for folder in FOLDERS.values():
        tasks = in_turn(read_folder(data, folder))[:most or None]
        counts, seconds = Counter(), Counter()
        for i, task in enumerate(tasks):
            counts[task.family, "games"] += 1
            counts.update(play(task, planner, skill, seconds))
            print(f"\r{folder}: {i + 1} of {len(tasks)}", end="", file=sys.stderr)
        if tasks:
            report(folder, len(tasks), counts, seconds)
        for (_, what), n in counts.items():
            total[what] += n
    print(f"all: {total['loaded']} of {total['games']} games load, the {skill} wins {total['won']} of those, "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB at most")
    return total["games"], total["won"]


def play(task, planner, skill, seconds):
    """A player of that skill plays a game -> what came of it: [(family, "loaded" or "won" or "turns"), ...]. seconds: how long the parts took."""
    def timed(part, work, *args):
        began = time.perf_counter()
        try:
            return work(*args)
        finally:
            seconds[part] += time.perf_counter() - began
    env, found = ALFWorld({"train": [task]}), []
    try:
        timed("opening", env.reset, 0, "train")
        if planner:
            env.games[task.path].walkthrough = ()
        timed("starting", env.actions)
        found.append((task.family, "loaded"))
        plan = timed("planning", env.demo, random.Random(0), skill) or ["look"]
        steps = [timed("playing", env.step, command) for command in plan]
        found += [(task.family, "turns")] * len(steps) + [(task.family, "won")] * steps[-1].info["success"]
        env.games[task.path].stop()
    except Exception as error:  # whatever a file or the engine has against it
        print(f"\r{task.path}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
    return found


def report(folder, n, counts, seconds):
    print(f"\r{folder}:", end=" ", file=sys.stderr)
    print(f"{folder}: " + ", ".join(f"{family} {counts[family, 'won']}/{counts[family, 'loaded']}/{counts[family, 'games']}"
                                    for family in FAMILIES.values()) + " (won/loaded/games)")
    turns = sum(x for (_, what), x in counts.items() if what == "turns")
    print("  " + ", ".join(f"{part} {seconds[part] / n:.2f} s a game" for part in PARTS) +
          f"; {turns / n:.1f} turns, {turns / max(seconds['playing'], 1e-9):.0f} steps a second")


def main(make):
    parser = argparse.ArgumentParser(description="Play a game by hand; an empty line ends it, ? lists the commands.")
    parser.add_argument("--data", default="", help="the folder with json_2.1.1; else ALFWORLD_DATA")
    parser.add_argument("--check", action="store_true", help="how many games load, how many the expert wins")
    parser.add_argument("--games", type=int, default=0, help="of a folder, to check; 0: all")
    parser.add_argument("--oracle", action="store_true", help="check the player who knows where everything is")
    parser.add_argument("--planner", action="store_true", help="check the planner's plans, not the walkthroughs")
    parser.add_argument("--split", default="train", choices=SPLITS)
    parser.add_argument("--seed", type=int, default=0, help="which game to play")
    parser.add_argument("--level", type=int, default=3, help="which families and how many games: 1 to 3")
    args = parser.parse_args()
    data = folder_of(args.data)
    if args.check:
        games, won = check(data, args.games, args.planner, "oracle" if args.oracle else "expert")
        if not games:
            sys.exit(f"no ALFWorld games in {data}: {WHERE}")
        sys.exit(0 if won >= 0.95 * games else 1)
    try:
        env = make(data, args.level)
    except ValueError as error:
        sys.exit(str(error))
    by_hand(env, args.seed, args.split)
