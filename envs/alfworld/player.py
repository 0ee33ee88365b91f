"""What ALFWorld's demonstrations add to a plan: a look around for what is to be taken, or bad
habits."""
from random import Random

CLOSED = ("cabinet", "drawer", "fridge", "microwave", "safe")  # where a player looks last
HASTY = ("open", "use", "clean", "heat", "cool", "move", "put")  # a careless player walks past
ORDERS, LOOKS = 8, 12  # ways through a house; commands that a look around takes at most


def search(env, plan, most, order):
    """The plan of a player who must look for what it takes first.

    Before the plan come at most so many commands. They lead through places that were not seen yet,
    but for those where another thing of the kind is. order: one of a few ways through the house."""
    takes = next((command for command in plan[1:3] if command.startswith("take ")), "")
    thing = takes.partition(" from ")[0]
    place = plan[0].removeprefix("go to ") if thing else ""
    if place not in env.places:  # it holds it, stands there, or must do something else first
        return plan
    rng, way, opened = Random(f"{env.task.name} {order}"), (), set()
    others = [p for p in env.places
              if p != place and f"go to {p}" not in env.said and is_shut(p) <= is_shut(place)]
    rng.shuffle(others)
    for p in sorted(others, key=is_shut)[:rng.randint(0, len(others))]:
        there = (f"go to {p}",)
        if there[0] not in env.now(way).commands:
            continue
        if plan[0] not in env.now(way + there).commands:  # two places may be at one spot
            continue
        if f"open {p}" in env.now(way + there).commands:
            there += (f"open {p}",)
        fits = len(way) + len(there) <= most
        if fits and f" {thing.split()[1]} " not in env.now(way + there).text:
            way, opened = way + there, opened | {f"open {p}"}
    return [*way, *(command for command in plan if command not in opened)]


def is_shut(place):
    return place.split()[0] in CLOSED


def careless(env, plan, rng):
    """Nine times in ten it walks elsewhere instead of a command of the HASTY kind."""
    return [f"go to {rng.choice(env.places)}"
            if command.split()[0] in HASTY and rng.random() < 0.9 else command for command in plan]
