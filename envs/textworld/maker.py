"""Make TextWorld's games: `python -m envs.textworld.maker` makes those that standard input asks
for.

games.py starts it, with fixed string hashes, and it ends when its input does.
"""
import functools
import json
import os
import sys
import tempfile

from envs.textworld.games import LEVELS


def serve():
    """A line of JSON asks for a game, a line answers: "made", or what went wrong."""
    from textworld.generator.data import KnowledgeBase
    # To read it anew for each game takes half of the time.
    KnowledgeBase.load = functools.cache(KnowledgeBase.load)
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
    """Generate and compile in a folder beside `path`, then move: a reader finds a whole game or
    none."""
    from textworld import GameOptions
    from textworld.challenges import CHALLENGES
    from textworld.generator import compile_game, make_game as general
    (rooms, n, _), settings = LEVELS[options["level"]], GameOptions()
    settings.seeds = options["seed"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        settings.path = os.path.join(folder, "game.z8")
        if options["game"] == "cooking":
            game = CHALLENGES["tw-cooking"][1]({
                "recipe": n, "take": n, "go": rooms, "open": True, "cook": True, "cut": True,
                "drop": False, "recipe_seed": options["seed"], "split": ""}, settings)
        else:
            settings.nb_rooms, settings.quest_length = rooms, n + 2
            settings.nb_objects = rooms + 2 * n + 3
            game = general(settings)
        compile_game(game, settings)
        for end in (".json", ".z8"):
            os.replace(settings.path[:-3] + end, path[:-3] + end)


if __name__ == "__main__":
    serve()
