"""What searching finds: how good a player can be that only reads.

Of the questions of a family, the share whose answer stands in what a search shows, for the question
as it is ("senior") and for the passages that it takes ("expert"; a search each), and the F1 of the
careless player.
"""
import random
from collections import defaultdict

from envs import SPLITS
from envs.searchqa.corpus import standing


def check(env):
    """Print a line for each family: questions, the share with the answer in sight after the
    searches of senior and expert, the F1 of the careless player."""
    rows = defaultdict(list)
    for split in SPLITS:
        for task in range(env.tasks(split)):
            env.reset(task, split)
            row = [in_sight(env, skill) for skill in ("senior", "expert")]
            said = env.demo(random.Random(task), "careless")
            row.append([env.step(text) for text in said][-1].info["score"])
            rows[env.question.family].append(row)
    questions = ", ".join(f"{env.tasks(split):,} {split}" for split in SPLITS)
    print(f"{env.index.searcher.num_docs:,} passages; questions: {questions}")
    print(f"{'family':32} {'questions':>9} {'senior':>7} {'expert':>7} {'careless F1':>11}")
    for family, found in sorted(rows.items()) + [("all", sum(rows.values(), []))]:
        senior, expert, careless = (sum(column) / len(found) for column in zip(*found))
        print(f"{family:32.32} {len(found):9,} {senior:7.3f} {expert:7.3f} {careless:11.3f}")


def in_sight(env, skill):
    shown = env.searches(env.question, skill)[1]
    return standing(env.question.answers, shown) is not None
