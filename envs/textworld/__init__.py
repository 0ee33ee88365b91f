"""TextWorld (arXiv 1806.11532): games made by its own generator and played on its own engine.

    python -m envs.textworld                   # play it in the terminal
    python -m envs.textworld --check 50        # does the expert win 50 of 50 games; how fast it is
    python -m envs.textworld --parser 2000     # the parser against the simulator's facts
    python train.py --method grpo --env textworld --level 1

`game` is "cooking" (read the recipe, fetch and prepare its ingredients, eat: TextWorld's
tw-cooking) or "quest" (its general maker). A split has a finite number of games, made when they are
first asked for and kept in $TEXTWORLD_GAMES (else out/games) by a hash of their options. A training
game of cooking comes with its foods renamed in RENAMED ways, so that recipes are not learned by
heart.

A turn is one of the commands that TextWorld can form of its verbs and the game's names, whether or
not it does anything here. Nothing else reaches the engine, so no text can restart or trace it, say
two things in a turn, or make it guess what was meant. Observations are TextWorld's prose without
what states nothing: text.py has the rules and the parser, games.py the engine.
"""
from collections import namedtuple

from envs import FactWorld, Step, one_line
from envs.textworld import text as language
from envs.textworld.games import GAMES, LEVELS, Player, game_file, rename, renaming, solution
from envs.textworld.text import facts_of, parse, shorten, tidy

FIRST_SEED = {"train": 0, "valid": 10**6, "test": 2 * 10**6}
RENAMED = 64  # ways to name the foods of a training game
NOTHING = "That means nothing here."
Outcome = namedtuple("Outcome", "text score most won lost objective commands")


class TextWorld(FactWorld):
    max_new, problems, warm_steps = 24, 12, 600
    targets = {"senior": 0.5, "expert": 0.5}
    prose = True
    workers, time_limit = -1, 300  # a game may have to be made
    language = language
    max_state, max_observation = 144, 96
    record_turns, horizon = 30, 9

    def __init__(self, level=1, turns=0, game="cooking", games=240):
        self.level, self.game, self.games = level, game, games
        self.max_turns = turns or LEVELS[level][2]
        # An episode that outgrows it goes on with the goal and its latest turns.
        self.context = 256 + 32 * self.max_turns
        self.memo = {}  # a game is deterministic: what was played once is known, to all copies
        self.new_players()

    def new_players(self):
        self.player = Player()
        # Another engine for demonstrations: to know what wins takes most of the time.
        self.guide = Player(admissible_commands=True, policy_commands=True)

    def __copy__(self):
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.new_players()  # they play what was said so far when they are first asked
        return other

    def tasks(self, split):
        if split != "train":
            return max(1, self.games // 5)
        return self.games * (RENAMED if self.game == "cooking" else 1)

    def record_tasks(self, split):
        return [i * 3 // 2 for i in range(40)] if split == "train" else list(range(12))

    def reset(self, task, split):
        """Training task n + k * games is game n with foods of other names."""
        number, task = divmod(task, self.games) if split == "train" else (0, task)
        self.names = renaming(number)  # the engine's name -> the one that is said and heard
        seed = FIRST_SEED[split] + task
        self.path = game_file({"game": self.game, "level": self.level, "seed": seed})
        self.said, self.turn, self.now = (), 0, self.after(())
        self.seen, self.possible = self.now.text, self.now.commands
        return rename(f"{self.now.objective} {self.seen}", self.names)

    def after(self, said):
        """-> the Outcome of these commands."""
        key = (self.path, *said)
        if key not in self.memo:
            state = self.player.play(self.path, said)
            text = tidy(state.feedback)
            if said:
                first = (None, None)
            else:
                text = text[text.index("-="):]  # after the banner and the objective
                first = " ".join(state.objective.split()), frozenset(state["possible_commands"])
            if len(self.memo) >= 50_000:
                self.memo.clear()
            self.memo[key] = Outcome(shorten(text), state.score, state.max_score, state.won,
                                     state.lost, *first)
        return self.memo[key]

    def step(self, text):
        self.turn += 1
        command = rename(one_line(text), self.names, back=True)
        before, failed, self.seen = self.now, False, NOTHING
        # After the end the engine only asks whether to begin again.
        if command in self.possible and not (before.won or before.lost):
            try:
                self.now = self.after((*self.said, command))
                self.said, self.seen = (*self.said, command), self.now.text
            except Exception:  # a broken engine says so in many ways; the next game has another
                self.new_players()
                failed = True
        now = self.now
        over = now.won or now.lost or failed
        done = over or self.turn >= self.max_turns
        info = {"success": now.won, "score": now.score / now.most, "truncated": done and not over,
                "family": self.game, "engine_failed": failed}
        reward = (now.score - before.score) / now.most
        return Step("" if done else self.observation(), reward, done, info)

    def observation(self):
        return rename(self.seen, self.names)

    def commands(self):
        return sorted(rename(command, self.names) for command in self.possible)

    def knowing(self):
        """The engine's state with what is true and what can be done. Such an engine takes twice as
        long, so it is started when that is first asked."""
        if not self.player.infos:
            self.player = Player(facts=True, admissible_commands=True)
        return self.player.play(self.path, self.said)

    def actions(self):
        found = self.knowing().admissible_commands
        return [rename(command, self.names) for command in found]

    def facts(self):
        found = facts_of(self.knowing().facts)
        return frozenset(tuple(self.names.get(word, word) for word in fact) for fact in found)

    def visible(self):
        return parse(self.observation())

    def needed(self):
        return self.visible() & self.facts()

    def demo(self, rng, skill):
        """Commands that win from here, by TextWorld's own planner, which knows the recipe: that is
        the "expert". The "senior" reads the recipe where it first can; the "careless" player is an
        expert that one time in five does anything else. None for a game that cannot be won."""
        left = self.max_turns - self.turn
        key = ("demo", skill, left, self.path, *self.said)
        answers = self.memo.get(key)
        if key not in self.memo:
            answers = solution(self.guide, self.path, self.said, left, skill, rng)
        if skill != "careless":
            self.memo[key] = answers
        return answers and [rename(command, self.names) for command in answers]


def make(data="", level=1, turns=0, game="cooking", games=240):
    if data:
        raise ValueError("textworld makes its own games; leave out --data, or choose another --env")
    try:
        import textworld  # noqa: F401 (the package, not this folder: imports are absolute)
    except ImportError:
        raise ValueError("TextWorld is not installed: pip install 'textworld>=1.7'") from None
    if level not in LEVELS or game not in GAMES:
        raise ValueError(f"textworld has levels 1 to {max(LEVELS)} and the games "
                         f"{' '.join(GAMES)}, not {level}, {game!r}")
    return TextWorld(level, turns, game, games)
