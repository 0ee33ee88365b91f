"""ALFWorld's files: which games there are, of which family, in which split.

A folder holds json_2.1.1/train/TASK/TRIAL/game.tw-pddl, and beside train valid_seen, valid_unseen and valid_train. alfworld.py plays them.
"""
import os
import re
from collections import namedtuple
from pathlib import Path

from envs import SPLITS, split_of

FAMILIES = {"pick_and_place_simple": "pick_and_place", "look_at_obj_in_light": "look_at_obj", "pick_clean_then_place_in_recep": "clean",
            "pick_heat_then_place_in_recep": "heat", "pick_cool_then_place_in_recep": "cool", "pick_two_obj_and_place": "pick_two"}
FOLDERS = {"train": "train", "valid": "valid_seen", "test": "valid_unseen", "spare": "valid_train"}
INSTALL = "pip install textworld; pip install --no-deps alfworld fast-downward-textworld"
WHERE = f"run alfworld-download ({INSTALL}) and pass --data FOLDER or set ALFWORLD_DATA, the folder that json_2.1.1 is in"
Task = namedtuple("Task", "path name family")


def folder_of(data):
    """Where the games are: what is given, else $ALFWORLD_DATA, else where alfworld-download puts them."""
    return data or os.environ.get("ALFWORLD_DATA") or os.path.expanduser("~/.cache/alfworld")


def in_turn(games):
    """Games of the families by turns, so that the first few are of all."""
    place = {game: i for family in FAMILIES.values() for i, game in enumerate(g for g in games if g.family == family)}
    return sorted(games, key=lambda game: (place[game], game.family))


def read_folder(data, folder):
    """-> [Task] of a folder of json_2.1.1, in the order of their names. A name is task/trial. data: the folder that json_2.1.1 is in, or that one"""
    found = []
    for path in sorted(Path(data).glob(f"json_2.1.1/{folder}/*/*/game.tw-pddl")) or sorted(Path(data).glob(f"{folder}/*/*/game.tw-pddl")):
        name, family = f"{path.parts[-3]}/{path.parts[-2]}", FAMILIES.get(path.parts[-3].partition("-")[0])
        if family and "Sliced" not in name and not re.search(rb'"solvable":\s*false', path.read_bytes()):
            found.append(Task(str(path), name, family))
    return found


def read_splits(path):
    """-> {split: [Task]}; a game is in one of them only."""
    found = {split: read_folder(path, folder) for split, folder in FOLDERS.items()}
    missing, spare = [split for split in SPLITS if not found[split]], found.pop("spare")
    if missing and spare:
        used = {game.name for games in found.values() for game in games}
        found[missing.pop(0)] = [game for game in spare if game.name not in used]
    source = next((split for split in SPLITS if found[split]), None)
    if source is None:
        raise ValueError(f"no ALFWorld games (json_2.1.1/train/TASK/TRIAL/game.tw-pddl) in {path}: {WHERE}")
    for split in missing:
        found[split] = [game for game in found[source] if split_of(game.name) == split]
    found[source] = [game for game in found[source] if split_of(game.name) not in missing]
    return found
