"""ALFWorld's files: which games there are, of which family, in which split.

A folder holds json_2.1.1/train/TASK/TRIAL/game.tw-pddl, and beside train valid_seen, valid_unseen
and valid_train. --data is that folder, or json_2.1.1 itself. Our train is train, valid is
valid_seen, test is valid_unseen. Where one is missing valid_train stands in, else a part of another
split, by the hash of the games' names.

A game is its file game.tw-pddl, of the current format (data 2.1.2 and later: "move X to Y", with a
walkthrough) or the original one ("put X in/on Y", without). traj_data.json is not needed: the
family is in the folder's name. As in the package, games with sliced or movable things, or without a
solution, are left out.
"""
import os
import re
from collections import namedtuple
from pathlib import Path

from envs import SPLITS, split_of

FAMILIES = {  # as a folder's name begins -> as it is called here
    "pick_and_place_simple": "pick_and_place", "look_at_obj_in_light": "look_at_obj",
    "pick_clean_then_place_in_recep": "clean", "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool", "pick_two_obj_and_place": "pick_two"}
FOLDERS = {
    "train": "train", "valid": "valid_seen", "test": "valid_unseen", "spare": "valid_train"}
INSTALL = "pip install textworld; pip install --no-deps alfworld fast-downward-textworld"
WHERE = (f"run alfworld-download ({INSTALL}) and pass --data FOLDER or set ALFWORLD_DATA, "
         "the folder that json_2.1.1 is in")
Task = namedtuple("Task", "path name family")


def folder_of(data):
    """Where the games are: what is given, else $ALFWORLD_DATA, else where alfworld-download puts
    them."""
    return data or os.environ.get("ALFWORLD_DATA") or os.path.expanduser("~/.cache/alfworld")


def in_turn(games):
    """Games of the families by turns, so that the first few are of all."""
    place = {}  # game -> its number among those of its family
    for family in FAMILIES.values():
        own = [game for game in games if game.family == family]
        place.update((game, i) for i, game in enumerate(own))
    return sorted(games, key=lambda game: (place[game], game.family))


def read_folder(data, folder):
    """-> [Task] of a folder of json_2.1.1, in the order of their names. A name is task/trial. data:
    the folder that json_2.1.1 is in, or that one"""
    found = []
    games = f"{folder}/*/*/game.tw-pddl"
    for path in (sorted(Path(data).glob(f"json_2.1.1/{games}")) or sorted(Path(data).glob(games))):
        *_, task, trial, _ = path.parts
        family = FAMILIES.get(task.partition("-")[0])
        if not family or "Sliced" in f"{task}/{trial}":
            continue
        if not re.search(rb'"solvable":\s*false', path.read_bytes()):
            found.append(Task(str(path), f"{task}/{trial}", family))
    return found


def read_splits(path):
    """-> {split: [Task]}; a game is in one of them only."""
    found = {split: read_folder(path, folder) for split, folder in FOLDERS.items()}
    missing, spare = [split for split in SPLITS if not found[split]], found.pop("spare")
    if missing and spare:
        used = {game.name for games in found.values() for game in games}
        if fresh := [game for game in spare if game.name not in used]:
            found[missing.pop(0)] = fresh
    source = next((split for split in SPLITS if found[split]), None)
    if source is None:
        raise ValueError(
            f"no ALFWorld games (json_2.1.1/train/TASK/TRIAL/game.tw-pddl) in {path}: {WHERE}")
    for split in missing:
        found[split] = [game for game in found[source] if split_of(game.name) == split]
    found[source] = [game for game in found[source] if split_of(game.name) not in missing]
    return found
