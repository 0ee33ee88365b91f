"""Small rooms as ALFWorld games in the official format: the domain and the grammar of the installed
package, a problem of our own. To train and test on where the official games are not.

    python -m envs.alfworld --make out/rooms --games 960

Three fifths are for train, a fifth each for valid_seen and valid_unseen, the families by turns. A
game is DIR/json_2.1.1/train/<family>-...-i/trial_i/game.tw-pddl.
"""
import importlib.util
import json
import random
from pathlib import Path

from envs.lib.whole import write_whole

PLACES = ("CounterTop", "DiningTable", "Fridge", "Microwave", "SinkBasin", "Desk", "Drawer",
          "Drawer")
CLOSED, GOALS = ("Fridge", "Microwave", "Drawer"), ("CounterTop", "DiningTable", "Desk")
KINDS = {
    "Apple": "heatable coolable cleanable", "Mug": "heatable coolable cleanable", "Book": "",
    "Cup": "heatable coolable cleanable"}
DONE = {  # family -> what the thing must be able to have done to it, the fact then, the word
    "pick_clean_then_place_in_recep": ("cleanable", "isClean", "clean"),
    "pick_heat_then_place_in_recep": ("heatable", "isHot", "hot"),
    "pick_cool_then_place_in_recep": ("coolable", "isCool", "cool"),
    "pick_and_place_simple": ("pickupable", None, "")}
FAMILIES = ("pick_and_place_simple", "look_at_obj_in_light", "pick_two_obj_and_place",
            *list(DONE)[:3])


def installed():
    return importlib.util.find_spec("alfworld") is not None


def official(name):
    """A file of the package's own folder. The package is not imported: that would make a folder for
    its data."""
    folder = Path(importlib.util.find_spec("alfworld").submodule_search_locations[0])
    return (folder / "data" / name).read_text(encoding="utf-8")


def goal(family, kind, place):
    """-> the goal in PDDL and in words"""
    inside = (f"(objectType ?o {kind}Type) (receptacleType ?r {place}Type) "
              "(inReceptacle ?o ?r)")
    if family == "look_at_obj_in_light":
        lamp = ("(exists (?t - object ?r - receptacle ?a - agent ?l - location) "
                "(and (objectType ?t DeskLampType) (toggleable ?t) (isToggled ?t) "
                "(receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?t ?r)))")
        held = (f"(exists (?o - object ?a - agent) (and (objectType ?o {kind}Type) "
                "(holds ?a ?o)))")
        return f"{lamp} {held}", f"examine the {kind} with the desklamp."
    if family == "pick_two_obj_and_place":
        other = (f"(exists (?p - object) (and (not (= ?o ?p)) (objectType ?p {kind}Type) "
                 "(inReceptacle ?p ?r)))")
        both = f"(exists (?r - receptacle) (exists (?o - object) (and {inside} {other})))"
        return both, f"find two {kind} and put them in {place}."
    able, done, word = DONE[family]
    mark = f"({done} ?o)" if done else ""
    one = (f"(exists (?r - receptacle) (exists (?o - object) "
           f"(and ({able} ?o) {inside} {mark})))")
    return one, f"put a {word} {kind} in {place}.".replace("  ", " ")


def room(number, family, old=False):
    """-> game.tw-pddl as a dict. Game `number` is always the same. old: the original format, with
    other verbs and without a walkthrough."""
    rng = random.Random(f"room {number}")
    kind = rng.choice([kind for kind in KINDS if suits(kind, family)])
    place, others = rng.choice(GOALS), [k for k in KINDS if k != kind]
    at = {("DeskLamp", 0): PLACES.index("Desk")}  # (kind, number) -> which place
    for i in (1, 2):
        at[kind, i] = rng.choice([j for j, p in enumerate(PLACES) if p not in (place, "Microwave")])
        at[rng.choice(others), i] = rng.randrange(len(PLACES))
    target, words = goal(family, kind, place)
    objects, begin = layout(number, at)
    lines = "\n        "
    problem = (f"(define (problem plan_trial_{number})\n(:domain alfred)\n"
               f"(:objects\n{lines.join(objects)})\n(:init\n{lines.join(begin)})\n"
               f"(:goal (and {target})))")
    domain = official("alfred.pddl")
    grammar = official("alfred.twl2").replace("UNKNOWN GOAL.", words.lower())
    if not old:
        return {"pddl_domain": domain, "grammar": grammar, "pddl_problem": problem,
                "solvable": True, "walkthrough": []}
    grammar = grammar.replace("move {o} to {r}", "put {o} in/on {r}")
    grammar = grammar.replace("You move the {o.name} to the", "You put the {o.name} in/on the")
    return {"pddl_domain": domain[:domain.index("(:action help")] + ")",
            "grammar": grammar[:grammar.index("action help")], "pddl_problem": problem,
            "solvable": True}


def suits(kind, family):
    """Can it be done to a thing of that kind?"""
    return family not in DONE or DONE[family][0] in KINDS[kind] or DONE[family][1] is None


def layout(number, at):
    """-> the objects of a room and the facts at the beginning, in PDDL"""
    types, spot = dict.fromkeys(PLACES), [f"loc_bar_{j}_bar_0" for j in range(len(PLACES))]
    name = []
    for j, p in enumerate(PLACES):
        basin = "_bar_SinkBasin" if p == "SinkBasin" else ""
        name.append(f"{p.removesuffix('Basin')}_bar__plus_00_dot_{j}0{basin}")
    objects = ["agent1 - agent", "loc_bar_9_bar_9 - location"]
    objects += [f"{k}Type - otype" for k in (*KINDS, "DeskLamp")]
    objects += [f"{p}Type - rtype" for p in types]
    begin = ["(atLocation agent1 loc_bar_9_bar_9)"]
    for j, p in enumerate(PLACES):
        objects += [f"{name[j]} - receptacle", f"{spot[j]} - location"]
        begin += [f"(receptacleType {name[j]} {p}Type)",
                  f"(receptacleAtLocation {name[j]} {spot[j]})"]
        if p in CLOSED:
            begin.append(f"(openable {name[j]})")
    begin += [f"(canContain {p}Type {k}Type)" for p in types for k in KINDS]
    for (what, i), j in at.items():
        thing = f"{what}_bar__plus_0{i}_dot_{number:02d}"
        objects.append(f"{thing} - object")
        begin += [f"(objectType {thing} {what}Type)", f"(inReceptacle {thing} {name[j]})",
                  f"(objectAtLocation {thing} {spot[j]})"]
        able = ["toggleable"] if what == "DeskLamp" else ["pickupable", *KINDS[what].split()]
        begin += [f"({word} {thing})" for word in able]
    return objects, begin


def write_games(folder, old=False, plan=None, **counts):
    """Write games -> folder, as --data wants it. counts: {"train": 6, "valid_seen": 3, ...}.
    plan(path) -> the walkthrough, for the current format."""
    number = 0
    for split, count in counts.items():
        for i in range(count):
            number, family = number + 1, FAMILIES[i % len(FAMILIES)]
            task = f"{family}-Thing-None-Place-{number}"
            trial = Path(folder) / "json_2.1.1" / split / task / f"trial_T{number:04d}"
            trial.mkdir(parents=True)
            path, game = trial / "game.tw-pddl", room(number, family, old)
            path.write_text(json.dumps(game), encoding="utf-8")
            if plan and not old:
                game = {**game, "walkthrough": plan(path)}
                path.write_text(json.dumps(game), encoding="utf-8")
    return str(folder)


def command(folder, games):
    """python -m envs.alfworld --make FOLDER --games GAMES"""
    if not installed():
        raise SystemExit("the official domain and grammar are the package's: "
                         "pip install --no-deps alfworld")
    fifth = games // 5
    write_whole(folder, lambda path: write_games(path, train=games * 3 // 5, valid_seen=fifth,
                                                 valid_unseen=fifth))
    print(f"{games} games in {folder}/json_2.1.1")
