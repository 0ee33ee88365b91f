"""TextWorld's generator and engine: games made once and kept on disk, and a player of them.

A game is two files, game.z8 and game.json, in $TEXTWORLD_GAMES (else out/games), named by a hash of its options. They are made in a
process of its own, `python -m envs.textworld_games`, that ends with the one which asks.
"""
import functools
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LEVELS = {1: (1, 1, 20), 2: (6, 2, 40), 3: (9, 3, 60), 4: (12, 5, 100)}  # level -> rooms, ingredients (of a quest: length - 2), turns
GAMES = ("cooking", "quest")


class Player:
    """A running engine. play() brings it to where these commands lead: from where it is, or if that is elsewhere from the start."""

    def __init__(self, **infos):
        self.infos, self.path, self.said = infos, None, ()

    def play(self, path, said):
        """-> TextWorld's GameState. Raises whatever a broken engine raises."""
        import textworld
        if self.path != path:
            self.engine = textworld.start(path, textworld.EnvInfos(score=True, max_score=True, won=True, lost=True, **self.infos))
            self.engine.seed(0)
        if self.path != path or said[:len(self.said)] != self.said:
            self.path, self.said, self.state = path, (), self.engine.reset()
        for command in said[len(self.said):]:
            self.state, self.said = self.engine.step(command)[0], (*self.said, command)
        return self.state


def solution(guide, path, said, most, skill, rng):
    """Commands that win from where `said` leads, `most` at most; None where there are none. guide: a Player that is asked for policy commands."""
    begun = len(said)
    while len(said) - begun < most:
        state = guide.play(path, said)
        plan, found = state.policy_commands, state.admissible_commands
        if state.won or state.lost or not plan:
            break
        if skill == "expert":
            said += tuple(plan)
        elif skill == "careless":
            said += (rng.choice(found) if rng.random() < 0.2 else plan[0],)
        else:
            reads = "examine cookbook" in found and "examine cookbook" not in said
            said += ("examine cookbook",) if reads else tuple(plan) if "examine cookbook" in said else (plan[0],)
    return list(said[begun:][:most]) or None


def game_file(options):
    """-> the path of the game with these options, made now unless it was made before. OSError when it cannot be made."""
    name = hashlib.sha256(json.dumps({**options, "rooms": LEVELS[options["level"]][:2]}, sort_keys=True).encode()).hexdigest()[:16]
    path = os.path.abspath(os.path.join(os.environ.get("TEXTWORLD_GAMES", "out/games"), f"{options['game']}-{name}.z8"))
    if not os.path.exists(path):
        try:
            print(json.dumps([path, options]), file=maker().stdin, flush=True)
            answer = maker().stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        if not answer:
            maker.cache_clear()
        if answer != "made":
            raise OSError(f"TextWorld made no game {path} ({answer or 'its generator died'})")
    return path


@functools.cache
def renaming(number):
    """{"red potato": "carrot", ...}: the foods of tw-cooking change their names, those that one says "some" of among themselves; number 0: none does."""
    from textworld.challenges.tw_cooking.cooking import FOODS
    found, rng = {}, random.Random(number)
    for article in ("some", "a"):
        own = sorted(food for food in FOODS if FOODS[food].get("indefinite", "a") == article)
        found.update(zip(own, rng.sample(own, len(own))))
    return found if number else {}


def rename(text, names, back=False):
    names = {new: old for old, new in names.items()} if back else names
    return re.sub(rf"\b(?:{'|'.join(names)})\b", lambda found: names[found[0]], text) if names else text


@functools.cache
def maker():
    """A process that makes games; it ends with this one. Apart, because what the generator makes depends on Python's string hashes."""
    print("making TextWorld games, some seconds each, once", file=sys.stderr)
    return subprocess.Popen([sys.executable, "-m", "envs.textworld_games"], cwd=Path(__file__).parent.parent, text=True, start_new_session=True,
                            env={**os.environ, "PYTHONHASHSEED": "0"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def serve():
    """Make the games that standard input asks for, a line each."""
    from textworld.generator.data import KnowledgeBase
    KnowledgeBase.load = functools.cache(KnowledgeBase.load)  # half of the time goes into reading it again
    for line in sys.stdin:
        try:
            make_game(*json.loads(line))
            answer = "made"
        except OSError as error:
            answer = error
        try:
            print(answer, flush=True)
        except BrokenPipeError:  # whoever asked is gone
            os._exit(0)


def make_game(path, options):
    """Generate and compile in a folder beside `path`, then move: a reader finds a whole game or none."""
    from textworld import GameOptions
    from textworld.challenges import CHALLENGES
    from textworld.generator import compile_game, make_game as general
    (rooms, n, _), settings = LEVELS[options["level"]], GameOptions()
    settings.seeds = options["seed"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        settings.path = os.path.join(folder, "game.z8")
        if options["game"] == "cooking":
            skills = {"recipe": n, "take": n, "go": rooms, "open": True, "cook": True, "cut": True, "drop": False}
            game = CHALLENGES["tw-cooking"][1]({**skills, "recipe_seed": options["seed"], "split": ""}, settings)
        else:
            settings.nb_rooms, settings.nb_objects, settings.quest_length = rooms, rooms + 2 * n + 3, n + 2
            game = general(settings)
        compile_game(game, settings)
        for end in (".json", ".z8"):
            os.replace(settings.path[:-3] + end, path[:-3] + end)


if __name__ == "__main__":
    serve()
