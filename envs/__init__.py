"""Environments: one protocol for questions of one turn and for long games.

An environment is a file or a folder in here with a function `make(**options) -> Env`. A question
with a verifiable answer is a game of one turn, so one rollout and one loss serve both.
`envs/guess.py` is a whole environment in 40 lines: copy it to begin your own.

The text of a model is data: it is parsed and never evaluated. Garbage earns 0 and never raises.
"""
import copy
import hashlib
import importlib
import inspect
import pkgutil
import random
import re
import time
from dataclasses import dataclass, field
from typing import Protocol

from envs.lib.hand import HELP, by_hand, show  # noqa: F401: a person plays

SPLITS = ("train", "valid", "test")
NOT_WORLDS = ("lib", "record")  # what is in this folder beside the environments


@dataclass
class Step:
    """What one turn earned."""
    observation: str  # what the environment says next; "" at the end of the episode
    reward: float  # the increment; the return of an episode is the sum, in [0, 1]
    done: bool
    # success, score, truncated, family, engine_failed; numbers beyond these are averaged
    info: dict = field(default_factory=dict)


class Failed(ValueError):
    """A game does not begin, tried twice: its file is broken, or its engine."""


class Env(Protocol):
    """What the rest of the code asks of an environment. Subclass it to inherit the defaults."""

    # ---- every environment has these ----

    max_turns: int  # turns of an episode; 1 for a question with a verifiable answer
    max_new: int  # tokens that a turn may take, unless --max-new says otherwise

    def tasks(self, split) -> int | None:
        """How many tasks the split holds. None: as many as there are integers."""

    def reset(self, task, split) -> str:
        """Begin an episode -> the question, or the room and the goal. Same task, same text."""

    def step(self, text) -> Step:
        """Take a turn. It never raises, whatever the text."""

    # ---- the rest has a default ----

    context: int = 256  # tokens that an episode may take, unless --context says otherwise
    problems: int = 128  # problems of a final table, unless --test-problems says otherwise
    # For the tandem sampler: what a word begins with, and the longest run of tokens without a new
    # draw of the author. "\n" ends a word: for texts in which a word is a line.
    mark: str = " "
    max_gap: int = 32
    # The warm start on demo(skill) ends at this solo accuracy, {skill: accuracy}, or after so
    # many steps. every_family: the target is for the family of tasks that does worst.
    targets: dict = {}
    warm_steps: int = 2000
    every_family: bool = False
    # The tokenizer: are the texts prose, in which frequent words become tokens and a warm start
    # learns the observations too; and words that are tokens in any case.
    prose: bool = False
    words: tuple = ()
    # A slow engine runs in so many processes (-1: one for each core, 8 at most; 0: here, in a
    # loop), and an answer may take so many seconds. Start it at the first reset, not in make.
    workers: int = 0
    time_limit: float = 60.0
    # Games that a process plays side by side without getting slow; 0: any number.
    games_at_once: int = 0

    def fingerprint(self) -> str:
        """A hash of the data that it was opened with; "" for a world that makes its own tasks."""
        return ""

    def demo(self, rng, skill) -> list[str] | None:
        """What a player of that skill would say from here to the end, a text a turn."""
        return None

    def actions(self) -> list[str]:
        """The commands that would do something here, for a person who plays."""
        return []


class FactWorld(Env, Protocol):
    """An environment that a world model can learn: its state is a set of facts.

    A fact is a tuple of strings, (predicate, argument, ...). `language` is the module that turns
    texts into facts. It has parse(text) -> facts; PREDICATES {predicate: number of arguments};
    MAX_WORDS, words of an argument; room_of(facts); FACTS_NEEDED, the classes of a table by the
    number of facts an observation needs. The house's has remember(facts, stated) too.
    """
    language: object
    max_state: int  # tokens that a state may take
    max_observation: int  # tokens that an observation may take

    def facts(self) -> frozenset:
        """The true state, all of it."""

    def visible(self) -> frozenset:
        """The facts that the observation states."""

    def needed(self) -> frozenset:
        """The fewest facts from which the observation can be said."""

    def observation(self) -> str:
        """What a world model is to predict here."""

    def commands(self) -> list[str]:
        """All that may be said; most of it does nothing at a given moment."""

    # A slow world records games once and cuts examples from them (envs/record.py). record_turns
    # is the longest game; 0: nothing is recorded, each example is played when it is needed.
    record_turns: int = 0
    records: dict | None = None  # the recorded games of a split, once they are there
    horizon: int = 25  # steps that the final table imagines

    # Planning with a model needs goal(), plausible(facts) and clone() too: only the house has them.

    def record_tasks(self, split) -> list[int]:
        """The tasks that are recorded."""
        return []

    def moves(self) -> list[str]:
        """What a random walk chooses from."""
        return self.actions()


def names():
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in NOT_WORLDS)


def make(name, **options):
    """The environment envs/<name>. ValueError, in one line, when there is none, or when it lacks
    its data or its package, or does not take an option."""
    if name not in names():
        raise ValueError(f"unknown environment {name!r}; one of: {' '.join(names())}")
    unused = [f"--{option}" for option in unused_options(name) if option in options]
    if unused:
        raise ValueError(f"{name} has no {' and no '.join(unused)}")
    module = importlib.import_module(f"envs.{name}")
    if not hasattr(module, "make"):
        raise ValueError(f"envs/{name} has no function make; see the end of envs/guess.py")
    return module.make(**options)


def unused_options(name):
    """Which of --level, --turns and --text the environment does not take."""
    module = importlib.import_module(f"envs.{name}") if name in names() else None
    if not hasattr(module, "make"):
        return ()
    taken = inspect.signature(module.make).parameters
    if any(x.kind == x.VAR_KEYWORD for x in taken.values()):
        return ()
    return [option for option in ("level", "turns", "text") if option not in taken]


class Batch:
    """Many games of one environment, side by side.

    They are played here in a loop, or in a pool of processes if the environment asks for workers.
    """

    def __init__(self, name, **options):
        self.name, self.options = name, options
        self.envs = [make(name, **options)]
        self.first = self.envs[0]
        self.seconds = 0.0  # spent in the games
        self.pool = None
        if self.first.workers:
            from envs.lib.pool import Pool  # only here: a toy needs no processes
            self.pool = Pool(name, options, self.first)

    def reset_many(self, tasks, split):
        if self.pool:
            return self.timed(lambda: self.pool.reset(range(len(tasks)), tasks, split))
        while len(self.envs) < len(tasks):
            self.envs.append(copy.copy(self.first))  # data is shared, the state of a game is not
        return self.timed(lambda: [env.reset(task, split) for env, task in zip(self.envs, tasks)])

    def step_many(self, rows, texts):
        if self.pool:
            return self.timed(lambda: self.pool.step(rows, texts))
        return self.timed(lambda: [self.envs[row].step(text) for row, text in zip(rows, texts)])

    def at_once(self, most):
        """How many games to play side by side: most, or as many as their engines play."""
        engines = self.first.games_at_once * (self.pool.count if self.pool else 1)
        return min(most, engines or most)

    def timed(self, work):
        began = time.perf_counter()
        found = work()
        self.seconds += time.perf_counter() - began
        return found

    def demos(self, tasks, split, seed, skill):
        """[(observation, [answers])] of the tasks. The dice depend on seed and task alone."""
        if self.pool:
            return self.pool.demos(tasks, split, seed, skill)
        return [demonstration(self.first, task, split, seed, skill) for task in tasks]

    def rules(self, skill):
        """A hash of what the world says to its first demonstrations and what they earn: a world
        that you edited has another. "" where games are played in processes of their own (such an
        engine is a package, and slow), and where the same words are not answered alike twice."""
        if self.pool:
            return ""
        first, again = (repr(self.heard(skill)) for _ in range(2))
        if first != again:
            return ""
        return hashlib.sha256(first.encode(errors="replace")).hexdigest()

    def heard(self, skill):
        """What up to 20 demonstrations are told -> [(observation, reward, done, success)]"""
        heard = []
        for task in range(min(20, self.first.tasks("train") or 20)):
            _, answers = demonstration(self.first, task, "train", 0, skill)
            heard += [(step.observation, step.reward, step.done, step.info.get("success"))
                      for _, step in replay(self.first, answers)]
        return heard


def replay(env, answers):
    """Say the answers of a demonstration -> (answer, its Step), one at a time, until it is over."""
    for answer in answers or []:
        step = env.step(answer)
        yield answer, step
        if step.done:
            return


def demonstration(env, task, split, seed, skill):
    observation = env.reset(task, split)
    answers = env.demo(random.Random(f"demo {seed} {skill} {task}"), skill)
    answers = None if answers is None else list(answers)
    for text in (observation, *(answers or [])):
        if not isinstance(text, str):
            raise ValueError(f"reset() and demo() give texts, but task {task} gave {text!r}")
    return observation, answers


def one_line(text):
    """Any text -> one line of at most 100 printable ASCII characters, for an engine that reads
    lines."""
    return " ".join(re.sub(r"[^ -~]+", " ", text[:1000]).split())[:100]


def split_of(text):
    """Which split a task belongs to, by a hash of its text: 80% train, 10% valid, 10% test. So a
    problem that comes up under two numbers is in one split only."""
    words = " ".join(text.split()).encode(errors="replace")
    digest = hashlib.blake2b(words, digest_size=4).digest()
    bucket = int.from_bytes(digest, "big") % 10
    return "valid" if bucket == 0 else "test" if bucket == 1 else "train"
