"""ScienceWorld's parser, held against the simulator's object tree."""
from collections import Counter

from envs.scienceworld.text import ROOMS, parse, squeeze

VERBS = ("go to", "open", "close", "pick up", "activate", "move", "pour", "focus on")


def measure(env, n, rng):
    """Read n looks around. Precision against all of the object tree of the same moment; recall
    against the part of it in view."""
    right = read = said = true = 0
    missed, wrong = Counter(), Counter()
    for i in range(n):
        if i % 20 == 0:
            env.reset(rng.randrange(env.tasks("train")), "train")
        look = env.own().there(env.place, lambda world: squeeze(world.look(), 10**4))
        found, facts = parse(look or ""), env.facts(here=True)
        right += len(found & env.facts())
        read += len(found & facts)
        said += len(found)
        true += len(facts)
        missed.update(facts - found)
        wrong.update(found - env.facts())
        if env.step(some_command(facts, rng)).done:
            env.reset(rng.randrange(env.tasks("train")), "train")
    print(f"{n} looks around, {true} facts in view: "
          f"precision {right / max(1, said):.4f}, recall {read / max(1, true):.4f}")
    for name, kind in (("missed", missed), ("wrong", wrong)):
        most = [f"{' '.join(fact)} ({times})" for fact, times in kind.most_common(12)]
        print(f"most often {name}:", "; ".join(most))


def some_command(facts, rng):
    """Many of these do nothing. To ask for those that do takes a hundred times as long."""
    things = sorted({fact[1] for fact in facts})
    verb, thing = rng.choice(VERBS), rng.choice([*things, *ROOMS])
    if verb == "move":
        return f"{verb} {thing} to {rng.choice(things)}"
    if verb == "pour":
        return f"{verb} {thing} into {rng.choice(things)}"
    return f"{verb} {thing}"
