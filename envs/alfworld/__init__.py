"""ALFWorld (arXiv 2010.03768): household tasks as text games, the published ones, on TextWorld's
PDDL engine.

    pip install textworld
    pip install --no-deps alfworld fast-downward-textworld   # compiles: cmake, C++, some minutes
    alfworld-download                             # into $ALFWORLD_DATA, else ~/.cache/alfworld
    python -m envs.alfworld --data DIR --check    # how many games load, and how many are won
    python -m envs.alfworld --data DIR --seed 3   # play it in the terminal
    python -m envs.alfworld --make DIR            # made-up games, where there are no others
    python train.py --method atod --env alfworld --level 1

files.py says which games there are and in which split, games.py has the engine, player.py the
search of the demonstrations. Level 1 is two short families and 64 games of a split, level 2 all
six families and 192 games, level 3 everything. A training game comes in 64 ways, with its things
numbered differently.

A turn is one of the commands that can be done now. Anything else is answered "Nothing happens."
and does nothing.
"""
import re
from collections import defaultdict
from random import Random

from envs import SPLITS, Env, Step, one_line
from envs.alfworld.files import FAMILIES, INSTALL, folder_of, in_turn, read_splits
from envs.alfworld.games import engine, open_game
from envs.alfworld.player import LOOKS, ORDERS, careless, search
from envs.lib.text import content_hash

LEVELS = {  # -> families, most games of a split
    1: (("pick_and_place", "look_at_obj"), 64),
    2: (tuple(FAMILIES.values()), 192),
    3: (tuple(FAMILIES.values()), 10**6)}
NOTHING = "Nothing happens."
RENAMED = 64  # ways to number the things of a training game
NAME = r"\b[a-z]+ \d+\b"


class ALFWorld(Env):
    max_new, context, problems, warm_steps = 24, 1024, 48, 400
    targets = {"senior": 0.5, "expert": 0.5}  # one player under two names
    prose = True
    workers, time_limit = -1, 120  # the first command of a game may take 10 s: it is translated

    def __init__(self, data, turns=0):  # {split: [Task]}
        self.data, self.max_turns = data, turns or 50
        # All copies share these; episodes of a game share its engine.
        self.games = {}  # path -> Game, a running engine
        self.memo = {}  # what was played once is known

    def tasks(self, split):
        return len(self.data[split]) * (RENAMED if split == "train" else 1)

    def fingerprint(self):
        return content_hash(task.path for split in SPLITS for task in self.data[split])

    def reset(self, task, split):
        """Training task n + k * games is game n with its things numbered in another way.
        ValueError when the game's file is broken."""
        number, task = divmod(task % self.tasks(split), len(self.data[split]))
        self.task, self.said, self.turn, self.won = self.data[split][task], (), 0, False
        try:
            self.seen = self.known("first", lambda game: game.first)
            names, self.places = self.known("names", lambda game: (
                [info.name for info in game.infos.values()], game.receptacles))
            self.names = renaming(names, number)  # the engine's -> the one that is said and heard
        except Exception as error:  # a parser's, or what comes of half a game
            raise ValueError(f"{self.task.path}: no game in it "
                             f"({type(error).__name__}: {str(error)[:100]!r})") from None
        return rename(self.seen, self.names)

    def known(self, what, work, then=()):
        """work(game) where the game stands, or where the commands `then` lead; remembered."""
        key = (what, self.task.path, *self.said, *then)
        if key not in self.memo:
            if len(self.memo) >= 100_000:
                self.memo.clear()
            self.memo[key] = work(self.game())
        return self.memo[key]

    def game(self):
        return open_game(self.games, self.task.path)

    def now(self, then=()):
        return self.known("outcome", lambda game: game.after((*self.said, *then)), then)

    def step(self, text):
        self.turn += 1
        command = rename(one_line(text), self.names, back=True)
        failed, before, self.seen, ended = False, self.said, NOTHING, self.won
        try:
            if not ended and command in self.now().commands:
                self.said = (*before, command)
                self.seen, self.won = self.now().text, self.now().won
        except Exception:  # a broken engine says so in many ways; the next game has another
            self.games.pop(self.task.path, None)
            self.said, failed = before, True
        done = self.won or failed or self.turn >= self.max_turns
        info = {"success": self.won, "score": float(self.won),
                "truncated": done and not self.won and not failed, "family": self.task.family,
                "engine_failed": failed}
        heard = "" if done else rename(self.seen, self.names)
        return Step(heard, float(self.won and not ended), done, info)

    def actions(self):
        return sorted(rename(command, self.names) for command in self.now().commands)

    def demo(self, rng, skill):
        """Commands that win from here; None where there is nothing left to do. The "oracle" knows
        where everything is: its plan is the walkthrough, or the planner's. The "expert" (or
        "senior") first looks for what it is to take. "careless" is an expert who mostly wanders
        off where it should open, use a device or put down."""
        left = self.max_turns - self.turn
        plan = list(self.known("plan", lambda game: game.plan(self.said)))
        if skill != "oracle":
            plan = search(self, plan, min(LOOKS, left - len(plan)), rng.randrange(ORDERS))
        if skill == "careless":
            plan = careless(self, plan, rng)
        return [rename(command, self.names) for command in plan[:left]] or None


def renaming(names, number):
    """{"drawer 1": "drawer 3", ...}: things of a kind change their numbers, as when ALFWorld's own
    AlfredDemangler shuffles. Number 0: they do not."""
    kinds, rng = defaultdict(list), Random(number)
    for name in sorted(name for name in names if re.fullmatch(NAME, name)):
        kinds[name.split()[0]].append(name)
    found = {}
    for own in kinds.values():
        found.update(zip(own, rng.sample(own, len(own)) if number else own))
    return found


def rename(text, names, back=False):
    names = {new: old for old, new in names.items()} if back else names
    return re.sub(NAME, lambda found: names.get(found[0], found[0]), text)


def make(data="", level=3, turns=0):
    try:
        engine()
    except ImportError as error:
        raise ValueError(f"alfworld needs {error.name}: {INSTALL}") from None
    if level not in LEVELS:
        raise ValueError(f"alfworld has levels 1 to {max(LEVELS)}, not {level}")
    path, (families, most) = folder_of(data), LEVELS[level]
    found = {}
    for split, games in read_splits(path).items():
        found[split] = in_turn([game for game in games if game.family in families])[:most]
    empty = [split for split in SPLITS if not found[split]]
    if empty:
        raise ValueError(f"{path}: too few games, no {' and no '.join(empty)} split")
    return ALFWorld(found, turns)
