"""ALFWorld (arXiv 2010.03768): household tasks as text games, the published ones, on TextWorld's PDDL engine.

    pip install textworld; pip install --no-deps alfworld fast-downward-textworld      # the last is compiled: cmake, C++, some minutes
    alfworld-download                                # needs the network; into $ALFWORLD_DATA, else ~/.cache/alfworld
    python -m envs.alfworld --data DIR --check       # how many games load, by family, how many the expert wins, how fast
    python -m envs.alfworld --data DIR --seed 3      # play it in the terminal
    python train.py --method atod --env alfworld --level 1

--data is the folder with json_2.1.1 in it, or that one: train is json_2.1.1/train, valid is valid_seen, test is valid_unseen. Where a folder is
missing valid_train stands in, else a part of another split, by the hash of the games' names. A game is its file game.tw-pddl, of the current
format (data 2.1.2 and later: "move X to Y", with a walkthrough) or the original one ("put X in/on Y", without); traj_data.json is not needed, the
family is in the folder's name. As in the package, games with sliced or movable things or without a solution are left out. --level 1 is two short
families and 64 games of a split, 2 all six and 192, 3 everything. A training game comes in 64 ways, its things numbered differently. A turn is one of the commands that can be done now; anything else is answered
"Nothing happens." and does nothing. Which games there are says alfworld_files.py, the engine is in alfworld_games.py.
"""
import random
import re
from collections import defaultdict

from envs import SPLITS, Step, one_line
from envs.alfworld_files import FAMILIES, INSTALL, folder_of, in_turn, read_splits
from envs.alfworld_games import engine, open_game

LEVELS = {1: (("pick_and_place", "look_at_obj"), 64), 2: (tuple(FAMILIES.values()), 192), 3: (tuple(FAMILIES.values()), 10**6)}  # families, games
NOTHING = "Nothing happens."
HASTY = ("open", "use", "clean", "heat", "cool", "move", "put")  # what a careless player walks past
RENAMED, ORDERS, LOOKS = 64, 8, 12  # ways to number a training game's things; ways to look for one, and commands that takes at most
NAME = r"\b[a-z]+ \d+\b"
CLOSED = ("cabinet", "drawer", "fridge", "microwave", "safe")  # where one looks last


class ALFWorld:
    mark, max_gap, max_new, context, problems = " ", 32, 24, 1024, 48
    targets, warm_steps = {"senior": 0.5, "expert": 0.5}, 400  # one player under two names
    every_family, prose = False, True
    workers, time_limit = -1, 120  # a game's first command may take 10 s, while it is translated

    def __init__(self, data, turns=0):  # {split: [Task]}
        self.data, self.max_turns = data, turns or 50
        self.games, self.memo = {}, {}  # running engines; what was played once is known: to all copies, whose episodes share an engine

    def tasks(self, split):
        return len(self.data[split]) * (RENAMED if split == "train" else 1)

    def reset(self, task, split):
        """Training task n + k * games is game n with its things numbered in another way. ValueError when the game's file is broken."""
        number, task = divmod(task % self.tasks(split), len(self.data[split]))
        self.task, self.said, self.turn, self.won = self.data[split][task], (), 0, False
        try:
            self.seen = self.known("first", lambda game: game.first)
            names, self.places = self.known("names", lambda game: ([info.name for info in game.infos.values()], game.receptacles))
            self.names = renaming(names, number)  # the engine's name, which is used in here -> the one that is said and heard
        except Exception as error:  # a parser's, or what comes of half a game
            raise ValueError(f"{self.task.path}: no game in it ({type(error).__name__}: {str(error)[:100]!r})") from None
        return rename(self.seen, self.names)

    def known(self, what, work, then=()):
        """work(game) where the game stands, or where further commands lead; remembered."""
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
        command, failed, before, self.seen = rename(one_line(text), self.names, back=True), False, self.said, NOTHING
        try:
            if command in self.now().commands:
                self.said = (*before, command)
                self.seen, self.won = self.now().text, self.now().won
        except Exception:  # a broken engine says so in many ways; the next game has another
            self.games.pop(self.task.path, None)
            self.said, failed = before, True
        done = self.won or failed or self.turn >= self.max_turns
        info = {"success": self.won, "score": float(self.won), "truncated": done and not self.won and not failed, "family": self.task.family}
        return Step("" if done else rename(self.seen, self.names), float(self.won), done, {**info, "engine_failed": failed})

    def actions(self):
        return sorted(rename(command, self.names) for command in self.now().commands)

    def demo(self, rng, skill):
        """Commands that win from here. "oracle": the walkthrough's or the planner's, who know where everything is. "expert" (or "senior") first looks
        around for what he is to take, open places first. "careless": an expert who nine times in ten wanders off where he should open, use a
        device or put down. None where there is nothing left to do."""
        plan, left = list(self.known("plan", lambda game: game.plan(self.said))), self.max_turns - self.turn
        if skill != "oracle":
            plan = self.search(plan, min(LOOKS, left - len(plan)), rng.randrange(ORDERS))
        if skill == "careless":
            plan = [f"go to {rng.choice(self.places)}" if command.split()[0] in HASTY and rng.random() < 0.9 else command for command in plan]
        return [rename(command, self.names) for command in plan[:left]] or None

    def search(self, plan, most, order):
        """The plan of one who must look for what it takes first: before it at most so many commands, through places not seen yet, but for those where
        another thing of the kind is. `order` is one of a few ways through the house."""
        thing = next((command for command in plan[1:3] if command.startswith("take ")), "").partition(" from ")[0]
        place = plan[0].removeprefix("go to ") if thing else ""
        if place not in self.places:  # he holds it, stands there, or must do something else first
            return plan
        rng, way, opened, shut = random.Random(f"{self.task.name} {order}"), (), set(), lambda p: p.split()[0] in CLOSED
        others = [p for p in self.places if p != place and f"go to {p}" not in self.said and shut(p) <= shut(place)]
        rng.shuffle(others)
        for p in sorted(others, key=shut)[:rng.randint(0, len(others))]:
            there = (f"go to {p}",)
            if there[0] not in self.now(way).commands or plan[0] not in self.now(way + there).commands:  # two places may be at one spot
                continue
            if f"open {p}" in self.now(way + there).commands:
                there += (f"open {p}",)
            if len(way) + len(there) <= most and f" {thing.split()[1]} " not in self.now(way + there).text:
                way, opened = way + there, opened | {f"open {p}"}
        return [*way, *(command for command in plan if command not in opened)]


def renaming(names, number):
    """{"drawer 1": "drawer 3", ...}: things of a kind change their numbers, as when ALFWorld's own AlfredDemangler shuffles; number 0: they do not."""
    kinds, rng = defaultdict(list), random.Random(number)
    for name in sorted(name for name in names if re.fullmatch(NAME, name)):
        kinds[name.split()[0]].append(name)
    return {old: new for own in kinds.values() for old, new in zip(own, rng.sample(own, len(own)) if number else own)}


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
    found = {split: in_turn([game for game in games if game.family in families])[:most] for split, games in read_splits(path).items()}
    if not all(found.values()):
        raise ValueError(f"{path}: too few games, no {' and no '.join(split for split in SPLITS if not found[split])} split")
    return ALFWorld(found, turns)


if __name__ == "__main__":
    from envs import alfworld_check
    alfworld_check.main(make)
