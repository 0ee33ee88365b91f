"""How many of ALFWorld's games load, how many the expert wins, and how fast it all is."""
import random
import resource
import sys
import time
from collections import Counter

from envs.alfworld import ALFWorld
from envs.alfworld.files import FAMILIES, FOLDERS, in_turn, read_folder

PARTS = ("opening", "starting", "planning", "playing")


def check(data, most, planner, skill="expert"):
    """Print a line for each folder of games, and one for each family in it -> games, games won.
    most: games of a folder, 0 for all. planner: play its plans, not the walkthroughs."""
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
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"all: {total['loaded']} of {total['games']} games load, "
          f"the {skill} wins {total['won']} of those, {memory} MB at most")
    return total["games"], total["won"]


def play(task, planner, skill, seconds):
    """A player of that skill plays a game -> what came of it, [(family, "loaded" or "won" or
    "turns"), ...]. seconds: how long the parts took, added up."""
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
        found += [(task.family, "turns")] * len(steps)
        found += [(task.family, "won")] * steps[-1].info["success"]
        env.games[task.path].stop()
    except Exception as error:  # whatever a file or the engine has against it
        why = " ".join(str(error).split())[:200]
        print(f"\r{task.path}: {type(error).__name__}: {why}", file=sys.stderr)
    return found


def report(folder, n, counts, seconds):
    print(f"\r{folder}:", end=" ", file=sys.stderr)
    families = [f"{family} {counts[family, 'won']}/{counts[family, 'loaded']}/"
                f"{counts[family, 'games']}" for family in FAMILIES.values()]
    print(f"{folder}: {', '.join(families)} (won/loaded/games)")
    turns = sum(x for (_, what), x in counts.items() if what == "turns")
    parts = ", ".join(f"{part} {seconds[part] / n:.2f} s a game" for part in PARTS)
    speed = turns / max(seconds["playing"], 1e-9)
    print(f"  {parts}; {turns / n:.1f} turns, {speed:.0f} steps a second")
