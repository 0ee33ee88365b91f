"""TextWorld's engine: games that are made once and kept on disk, and a player of them.

A game is two files, game.z8 and game.json, in $TEXTWORLD_GAMES (else out/games), named by a hash
of its options. A process of its own makes them, maker.py, which ends with the one that asks.
"""
import functools
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

LEVELS = {  # level -> rooms, ingredients (of a quest: its length - 2), turns
    1: (1, 1, 20), 2: (6, 2, 40), 3: (9, 3, 60), 4: (12, 5, 100)}
GAMES = ("cooking", "quest")


class Player:
    """A running engine. play() brings it to where these commands lead: from where it is, or if that
    is elsewhere from the start."""

    def __init__(self, **infos):
        self.infos, self.path, self.said = infos, None, ()

    def play(self, path, said):
        """-> TextWorld's GameState. Raises whatever a broken engine raises."""
        import textworld
        if self.path != path:
            infos = textworld.EnvInfos(
                score=True, max_score=True, won=True, lost=True, **self.infos)
            self.engine = textworld.start(path, infos)
            self.engine.seed(0)
        if self.path != path or said[:len(self.said)] != self.said:
            self.path, self.said, self.state = path, (), self.engine.reset()
        for command in said[len(self.said):]:
            self.state, self.said = self.engine.step(command)[0], (*self.said, command)
        return self.state


def solution(guide, path, said, most, skill, rng):
    """Commands that win from where `said` leads, `most` at most; None where there are none. guide:
    a Player that is asked for policy commands."""
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
            if reads:
                plan = ["examine cookbook"]
            elif "examine cookbook" not in said:
                plan = plan[:1]
            said += tuple(plan)
    return list(said[begun:][:most]) or None


def game_file(options):
    """-> the path of the game with these options, made now unless it was made before. OSError when
    it cannot be made."""
    made_of = json.dumps({**options, "rooms": LEVELS[options["level"]][:2]}, sort_keys=True)
    name = f"{options['game']}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.z8"
    path = os.path.abspath(os.path.join(os.environ.get("TEXTWORLD_GAMES", "out/games"), name))
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
    """{"red potato": "carrot", ...}: the foods of tw-cooking change their names; those that go with
    "some" do so among themselves. Number 0: none does."""
    from textworld.challenges.tw_cooking.cooking import FOODS
    found, rng = {}, random.Random(number)
    for article in ("some", "a"):
        own = sorted(food for food in FOODS if FOODS[food].get("indefinite", "a") == article)
        found.update(zip(own, rng.sample(own, len(own))))
    return found if number else {}


def rename(text, names, back=False):
    if not names:
        return text
    names = {new: old for old, new in names.items()} if back else names
    return re.sub(rf"\b(?:{'|'.join(names)})\b", lambda found: names[found[0]], text)


@functools.cache
def maker():
    """A process that makes games. It is another one because what the generator makes depends on
    Python's string hashes, which are fixed there."""
    print("making TextWorld games, some seconds each, once", file=sys.stderr)
    return subprocess.Popen(
        [sys.executable, "-m", "envs.textworld.maker"], cwd=Path(__file__).parents[2], text=True,
        start_new_session=True, env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
