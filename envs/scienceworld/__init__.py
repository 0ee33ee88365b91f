"""ScienceWorld (arXiv 2203.07540): 30 tasks of elementary science in a house of ten rooms, through
its own package, which needs Java.

    python -m envs.scienceworld --level 1 --seed 3     # play it in the terminal
    python -m envs.scienceworld --parser 1000          # its parser against the simulator

A task is one of the 30 and one of its variations; the splits are the official ones. Games run in
Java processes, about 0.1 GB each (engine.py). First texts and demonstrations are remembered: no
engine is asked for them, and a command that departs from them brings the game there by a replay.
Texts are shortened by the rules of text.py.
"""
import weakref

from envs import SPLITS, FactWorld, Step, one_line
from envs.scienceworld import text as language
from envs.scienceworld.engine import LONGEST, NO_COMMAND, NO_JAVA, PATIENCE, Engine, nobody
from envs.scienceworld.text import parse, squeeze, tree_facts

SHORT = (  # the gold paths have 2 to 6 commands
    "lifespan-longest-lived", "lifespan-shortest-lived", "find-non-living-thing")
MORE = (  # 5 to 15
    "lifespan-longest-lived-then-shortest-lived", "find-plant", "find-animal", "find-living-thing",
    "power-component")
# level -> tasks (none named: all 30), and the most variations of each in a split
LEVELS = {1: (SHORT, 6), 2: (SHORT + MORE, 20), 3: ((), 10**6)}
# A process plays AT_ONCE games side by side, on the average: one may have some more, another fewer.
# Each game has an engine of Java, 0.1 GB.
MOST_ENGINES, AT_ONCE = 12, 8


class ScienceWorld(FactWorld):
    max_new, context, problems, warm_steps = 32, 1024, 32, 400
    # One player under three names: it knows the gold path.
    targets = {"senior": 0.3, "expert": 0.3, "oracle": 0.3}
    prose = True
    workers, time_limit = -1, 2 * PATIENCE  # an engine that hangs is found before its worker is
    games_at_once = AT_ONCE
    language = language
    max_state, max_observation = 160, 160
    record_turns, horizon = 30, 9

    def __init__(self, level, turns, tasks, simplifications):
        self.max_turns, self.engine, self.place = turns, Engine(simplifications), None
        self.known = (None, None)  # a place, and what now() found there
        # All copies in this process share these.
        self.memory = {}  # place -> reply
        self.gold = {}  # (task, variation) -> commands, or None
        self.engines = [self.engine]  # the one that was taken last is last
        self.engine.start()
        self.pairs = self.choose(LEVELS[level], tasks)

    def choose(self, level, tasks):
        """-> {split: [(task, variation)]}"""
        world, (wanted, most) = self.engine.world, level
        known = world.get_task_names()
        if tasks:
            wanted = known if tasks == "all" else tasks.split(",")
        wanted = wanted or known
        if not set(wanted) <= set(known):
            raise ValueError(f"scienceworld has no task {min(set(wanted) - set(known))!r}; "
                             f"one of: all {' '.join(known)}")
        pairs = {split: [] for split in SPLITS}
        for name in wanted:
            world.load(name, 0, self.engine.simplifications)
            variations = (world.get_variations_train, world.get_variations_dev,
                          world.get_variations_test)
            for split, found in zip(SPLITS, variations):
                pairs[split] += [(name, number) for number in sorted(found())[:most]]
        return pairs

    def own(self):
        """The engine of this game, until it is over: one that no game has, or a new one. Where
        there are MOST_ENGINES, the one that was taken last: two games that share an engine are
        brought to where they stand by a replay each turn, which takes twenty times as long as a
        command."""
        if self.engine.game() is not self:
            idle = [engine for engine in self.engines if engine.game() is None]
            if not idle and len(self.engines) < MOST_ENGINES:
                self.engines.append(Engine(self.engine.simplifications))
            self.engine = idle[0] if idle else self.engines[-1]
            self.engines.remove(self.engine)
            self.engines.append(self.engine)
            self.engine.game = weakref.ref(self)
            self.engine.check()
        return self.engine

    def release(self):
        if self.engine.game() is self:
            self.engine.game = nobody

    def tasks(self, split):
        return len(self.pairs[split])

    def record_tasks(self, split):
        """Spread over all of a split, which is in the order of the tasks' names."""
        total, most = self.tasks(split), 40 if split == "train" else 12
        return sorted({i * total // most for i in range(most)})

    def reset(self, task, split):
        """RuntimeError when three engines in a row do not get that far."""
        name, number = self.pairs[split][task]
        self.place, self.turn, self.earned, self.failed = (name, number, ()), 0, 0.0, False
        self.release()
        if self.place not in self.memory:
            found = self.own().reply(self.place, attempts=3)
            if found is None:
                raise RuntimeError(f"scienceworld does not begin {name} {number}, "
                                   f"not even at the third attempt; {NO_JAVA}")
            self.memory[self.place] = found
            self.release()  # it may wait for long
        return self.memory[self.place][0]

    def step(self, text):
        self.turn += 1
        name, number, said = self.place
        self.place = (name, number, (*said, one_line(text)))
        found = None
        if not self.failed:
            found = self.memory.get(self.place) or self.own().reply(self.place)
        self.failed = found is None
        observation, score, over = found or ("", 0, True)
        before = self.earned
        # Some tasks give points for any first reply; they are for the first command.
        if observation.startswith(NO_COMMAND) and not over:
            score = round(100 * before)
        if not self.failed:
            self.earned = max(0, score) / 100
        done = over or self.turn >= self.max_turns
        if done:
            self.release()
        info = {"success": score == 100, "score": score, "truncated": done and not over,
                "family": name, "engine_failed": self.failed}
        return Step("" if done else observation, self.earned - before, done, info)

    def actions(self):
        """Some 200 commands."""
        def valid(world):
            return sorted(world.get_valid_action_object_combinations())
        return self.own().there(self.place, valid) or []

    def moves(self):
        """A random walk does not focus: on a wrong thing, that ends the game."""
        return [command for command in self.actions() if not command.startswith("focus")]

    commands = moves

    def observation(self):
        """What a look around says, whatever the command was: a world model predicts this, because
        the answers to commands state no facts."""
        return self.now()[0]

    def visible(self):
        return parse(self.observation())

    def needed(self):
        return self.visible() & self.facts()

    def facts(self, here=False):
        """From the object tree. here: those of this room alone, and what the player sees in it."""
        tree = self.now()[1]
        return tree_facts(tree, here) if tree else frozenset()

    def now(self):
        """-> a look around and the object tree, asked once a place; "" and None when the engine
        failed."""
        def look(world):
            return squeeze(world.look(), LONGEST), world.getObjectTree()
        if self.known[0] != self.place:
            self.known = self.place, self.own().there(self.place, look) or ("", None)
        return self.known[1]

    def demo(self, rng, skill):
        """The gold path, or what is left of it; "careless" tries two valid commands before it. None
        where that does not win in time, or the game has left the path."""
        begun = self.place
        key = begun[:2]
        if key not in self.gold:  # drawn once, and kept when it still wins
            self.gold[key] = self.winning(self.own().gold_path(*key))
        found = self.gold[key]
        if found and skill == "careless":
            self.place = (*key, ())
            detour = rng.choices(self.actions() or ["look around"], k=2)
            found = self.winning([*map(one_line, detour), *found])
        self.place = begun
        said = begun[2]
        return list(found[len(said):]) if found and tuple(found[:len(said)]) == said else None

    def winning(self, texts):
        """As many of these commands, from the beginning, as it takes to win; None when they do
        not. Remembers what each was answered."""
        found, n = None, 0
        while n < min(len(texts), self.max_turns) and not (found and found[2]):
            n += 1
            self.place = (*self.place[:2], tuple(texts[:n]))
            found = self.memory.get(self.place) or self.own().reply(self.place, attempts=3)
            if found is None:
                return None
            self.memory[self.place] = found
        return texts[:n] if found and found[1] == 100 else None


def make(data="", level=1, turns=0, tasks="", simplifications="easy"):
    """tasks: names with commas between, or all; empty: those of the level. simplifications: the
    package's own, with commas between."""
    if data:
        raise ValueError("scienceworld brings its own tasks; leave out --data")
    if level not in LEVELS:
        raise ValueError(f"scienceworld has levels 1 to {max(LEVELS)}, not {level}")
    try:
        import scienceworld  # noqa: F401 (the package, not this folder: imports are absolute)
    except ImportError:
        raise ValueError(
            "scienceworld needs its package: pip install 'scienceworld>=1.2'") from None
    return ScienceWorld(level, turns or 30, tasks, simplifications)
