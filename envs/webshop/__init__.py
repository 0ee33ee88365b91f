"""WebShop (arXiv 2207.01206), its text mode: find a product that fits an instruction, choose its
options, buy it.

    python -m envs.webshop --make out/shop --products 300    # a made-up shop, in the file format
    python -m envs.webshop --data out/shop                   # play it in the terminal
    python train.py --method atod --env webshop --data out/shop --level 1

`data` (or WEBSHOP_DATA) is a folder with the official files: files.py says which. engine.py is the
shop, reward.py the official reward, player.py the demonstrator, made.py makes shops up.

A turn is `search[words]` or `click[what stands on the page]`, in capitals or not. Anything else
shows the same page again and costs the turn. Buying ends the game, and so do 15 turns. Level 2
shows the pages as published, level 1 in few words (engine.read_short).

Goals are the human instructions, or synthetic ones by the official recipe where too few
instructions are about products of this shop. Their order is the official shuffle (seed 233). Where there are more
than 1,500 the splits are official too: test the first 500, valid the next 1,000, train the rest.
Otherwise a hash decides (envs.split_of).
"""
import copy
import os
import random
import sys

from envs import SPLITS, Env, Step, split_of
from envs.lib.text import content_hash
from envs.webshop import reward
from envs.webshop.engine import (SHORT_SIZE, SIZE, Page, Shop, clickables, follow, read,
                                 read_short)
from envs.webshop.files import paths
from envs.webshop.files import read as read_files
from envs.webshop.player import careless, path, query_of, title_of

LEVELS = {  # -> results a page, how a page reads, tokens of an episode
    1: (SHORT_SIZE, read_short, 1024),
    2: (SIZE, read, 4096)}
TEST, VALID = 500, 1500  # where the official splits of the shuffled goals end


class WebShop(Env):
    max_new, problems, warm_steps = 48, 32, 600
    targets = {"senior": 0.5, "expert": 0.5}  # one player under two names
    prose = True
    files = ()  # the official ones, where it was made from a folder

    def __init__(self, level, turns, products, goals):
        self.shop, self.max_turns = Shop(products), turns or 15
        self.size, self.read, self.context = LEVELS[level]
        # (split, number) of a goal -> what the expert says, or None. All copies share it.
        self.plans = {}
        self.goals = split_goals(goals)
        empty = [split for split in SPLITS if not self.goals[split]]
        if empty:
            raise ValueError(f"webshop: too few goals ({len(goals)}), "
                             f"no {' and no '.join(empty)} split")

    def tasks(self, split):
        return len(self.goals[split])

    def fingerprint(self):
        return content_hash(self.files)

    def reset(self, task, split):
        number = task % len(self.goals[split])
        self.key, self.goal = (split, number), self.goals[split][number]
        self.page, self.turn = Page("search"), 0
        return self.observation()

    def observation(self):
        return self.read(self.shop, self.page, self.goal.text)

    def step(self, text):
        self.turn += 1
        ended = self.page.kind == "bought"  # then nothing leads on
        if not ended:
            self.page = follow(self.shop, self.page, text, self.size) or self.page
        bought = self.page.kind == "bought"
        earned, parts = 0.0, {}
        if bought:
            product = self.shop.products[self.page.asin]
            earned, parts = reward.reward(product, self.goal, self.page.options)
        done = bought or self.turn >= self.max_turns
        info = {"success": earned == 1, "score": earned, "truncated": done and not bought,
                "family": self.goal.category, **parts}
        return Step("" if done else self.observation(), 0.0 if ended else earned, done, info)

    def actions(self):
        """What can be clicked; on the search page a hint. A search works on every page."""
        if self.page.kind == "search":
            return ["search[...]"]
        return [f"click[{what}]" for what in clickables(self.shop, self.page, self.size)]

    def demo(self, rng, skill):
        """Turns from here on. "expert" (or "senior") searches for the words of the instruction that
        the goal's product has too, and turns pages to the first product that earns 1; else it
        searches for the title. None where neither wins. "careless" forgets all options, or buys
        what comes first."""
        if self.key not in self.plans:
            self.plans[self.key] = self.plan()
        texts = self.plans[self.key]
        if texts and skill == "careless":
            texts = careless(self.shop, texts, rng)
        return list(texts) if texts and len(texts) <= self.max_turns - self.turn else None

    def plan(self):
        for query in (query_of(self.goal), title_of(self.goal)):
            texts = path(self.shop, self.goal, query, self.size)
            if texts and self.wins(texts):
                return texts

    def wins(self, texts):
        """Does saying this earn 1? From any page: it begins with a search."""
        other = copy.copy(self)
        for text in texts:
            step = other.step(text)
        return step.info["success"]


def split_goals(goals):
    """-> {split: goals}, in the official order"""
    goals = list(goals)
    random.Random(233).shuffle(goals)
    if len(goals) > VALID:
        return {"test": goals[:TEST], "valid": goals[TEST:VALID], "train": goals[VALID:]}
    return {split: [goal for goal in goals if split_of(goal.text) == split] for split in SPLITS}


def make(data="", level=2, turns=0, goals=""):
    """goals: "human", "synthetic", or "" for human ones where there are enough for all splits."""
    if level not in LEVELS or goals not in ("", "human", "synthetic"):
        raise ValueError("webshop has levels 1 and 2 and goals human or synthetic, "
                         f"not {level}, {goals!r}")
    try:
        import rapidfuzz  # noqa: F401
        import tantivy  # noqa: F401
    except ImportError as error:
        raise ValueError(f"webshop needs {error.name}: "
                         "pip install 'rapidfuzz>=3' 'tantivy>=0.27'") from None
    folder = data or os.environ.get("WEBSHOP_DATA", "")
    products, asked = read_files(folder, goals)
    if not goals and not all(split_goals(asked).values()):
        print(f"webshop: {folder}: {len(asked)} human instructions are too few for three splits; "
              "the goals are synthetic", file=sys.stderr)
        products, asked = read_files(folder, "synthetic")
    env = WebShop(level, turns, products, asked)
    env.files = paths(folder)
    return env
