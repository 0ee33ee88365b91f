"""TextWorld (arXiv 1806.11532): games made by its own generator and played on its own engine.

    python -m envs.textworld --check 50        # does the expert win 50 of 50 games; games made, starts and steps a second
    python -m envs.textworld --parser 2000     # the parser of textworld_text.py against the simulator's facts
    python train.py --method grpo --env textworld --level 1

`game` is "cooking" (read the recipe, fetch and prepare its ingredients, eat: TextWorld's tw-cooking) or "quest" (its general maker). A split
has a finite number of games, made when first asked for and kept in $TEXTWORLD_GAMES (else out/games) by a hash of their options; a training
game of cooking comes with its foods renamed in RENAMED ways, so that recipes are not learned by heart. A turn is
one of the commands that TextWorld can form of its verbs and the game's names, whether or not it does anything here; nothing else reaches the
engine, so that no text restarts or traces it, says two things in a turn, or has it guess what was meant.
Observations are TextWorld's prose without what states nothing: textworld_text.py has the rules, textworld_games.py the engine.
"""
from collections import namedtuple

from envs import Step, one_line
from envs.textworld_games import GAMES, LEVELS, Player, game_file, rename, renaming, solution
from envs.textworld_text import FACTS_NEEDED, MAX_WORDS, PREDICATES, facts_of, parse, room_of, shorten, tidy  # noqa: F401

FIRST_SEED = {"train": 0, "valid": 10**6, "test": 2 * 10**6}
RENAMED = 64  # ways to name the foods of a training game
NOTHING = "That means nothing here."
Outcome = namedtuple("Outcome", "text score most won lost objective commands")


class TextWorld:
    mark, max_gap, problems, max_new, warm_steps = " ", 32, 12, 24, 600
    targets = {"senior": 0.5, "expert": 0.5}
    every_family, prose, workers, time_limit = False, True, -1, 300  # a game may have to be made
    max_state, max_observation = 144, 96  # tokens of a world model, with a word of the world's text a token
    record_turns, horizon = 30, 9  # of games recorded for it; steps imagined

    def __init__(self, level=1, turns=0, game="cooking", games=240):
        self.level, self.game, self.games = level, game, games
        self.max_turns = turns or LEVELS[level][2]
        self.context = 256 + 32 * self.max_turns  # what outgrows it goes on with the goal and its latest turns
        self.memo = {}  # a game is deterministic: what was played once is known, to all copies
        self.new_players()

    def new_players(self):
        self.player = Player(facts=True, admissible_commands=True)
        self.guide = Player(admissible_commands=True, policy_commands=True)  # apart: to know what wins takes most of the time

    def __copy__(self):
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.new_players()  # they play what was said so far when they are first asked
        return other

    def tasks(self, split):
        return self.games * (RENAMED if self.game == "cooking" else 1) if split == "train" else max(1, self.games // 5)

    def record_tasks(self, split):
        return [i * 3 // 2 for i in range(40)] if split == "train" else list(range(12))

    def reset(self, task, split):
        """Training task n + k * games is game n with foods of other names."""
        number, task = divmod(task, self.games) if split == "train" else (0, task)
        self.names = renaming(number)  # the engine's name, which is used in here -> the one that is said and heard
        self.path = game_file({"game": self.game, "level": self.level, "seed": FIRST_SEED[split] + task})
        self.said, self.turn, self.now = (), 0, self.after(())
        self.seen, self.possible = self.now.text, self.now.commands
        return rename(f"{self.now.objective} {self.seen}", self.names)

    def after(self, said):
        """-> the Outcome of these commands."""
        key = (self.path, *said)
        if key not in self.memo:
            state = self.player.play(self.path, said)
            text = tidy(state.feedback)
            text = text if said else text[text.index("-="):]  # after the banner and the objective
            if len(self.memo) >= 50_000:
                self.memo.clear()
            rest = (None, None) if said else (" ".join(state.objective.split()), frozenset(state["possible_commands"]))
            self.memo[key] = Outcome(shorten(text), state.score, state.max_score, state.won, state.lost, *rest)
        return self.memo[key]

    def step(self, text):
        self.turn += 1
        command, before, failed = rename(one_line(text), self.names, back=True), self.now, False
        self.seen = NOTHING
        if command in self.possible:
            try:
                self.now = self.after((*self.said, command))
                self.said, self.seen = (*self.said, command), self.now.text
            except Exception:  # a broken engine says so in many ways; the next game has another
                self.new_players()
                failed = True
        now = self.now
        over = now.won or now.lost or failed
        done = over or self.turn >= self.max_turns
        info = {"success": now.won, "score": now.score / now.most, "truncated": done and not over, "family": self.game, "engine_failed": failed}
        return Step("" if done else self.observation(), (now.score - before.score) / now.most, done, info)

    def observation(self):
        return rename(self.seen, self.names)

    def commands(self):
        return sorted(rename(command, self.names) for command in self.possible)

    def actions(self):
        return [rename(command, self.names) for command in self.player.play(self.path, self.said).admissible_commands]

    def facts(self):
        return frozenset(tuple(self.names.get(x, x) for x in fact) for fact in facts_of(self.player.play(self.path, self.said).facts))

    def visible(self):
        return parse(self.observation())

    def needed(self):
        """The least one must know to say what was seen."""
        return self.visible() & self.facts()

    def demo(self, rng, skill):
        """Commands that win from here, by TextWorld's own planner, which knows the recipe: "expert". "senior" is one that reads the recipe where it
        first can; "careless" an expert that one time in five does anything else. None where the game cannot be won any more."""
        left = self.max_turns - self.turn
        key = ("demo", skill, left, self.path, *self.said)
        answers = self.memo[key] if key in self.memo else solution(self.guide, self.path, self.said, left, skill, rng)
        if skill != "careless":
            self.memo[key] = answers
        return answers and [rename(command, self.names) for command in answers]


def make(data="", level=1, turns=0, game="cooking", games=240):
    if data:
        raise ValueError("textworld makes its own games; leave out --data, or choose another --env")
    try:
        import textworld  # noqa: F401
    except ImportError:
        raise ValueError("TextWorld is not installed: pip install 'textworld>=1.7'") from None
    if level not in LEVELS or game not in GAMES:
        raise ValueError(f"textworld has levels 1 to {max(LEVELS)} and the games {' '.join(GAMES)}, not {level}, {game!r}")
    return TextWorld(level, turns, game, games)


if __name__ == "__main__":
    from envs import textworld_check
    textworld_check.main(make)
