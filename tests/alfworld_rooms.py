"""Small rooms as ALFWorld games in the official format: the domain and the grammar of the installed package, a problem of our own.

    python -m tests.alfworld_rooms out/rooms --games 960      # three fifths to train, a fifth each for valid_seen and valid_unseen
    write_games(folder, train=6, valid_seen=3)                # folder/json_2.1.1/train/<family>-...-i/trial_i/game.tw-pddl, the families by turns
"""
import argparse
import importlib.util
import json
import random
from pathlib import Path

PLACES = ("CounterTop", "DiningTable", "Fridge", "Microwave", "SinkBasin", "Desk", "Drawer", "Drawer")
CLOSED, GOALS = ("Fridge", "Microwave", "Drawer"), ("CounterTop", "DiningTable", "Desk")
KINDS = {"Apple": "heatable coolable cleanable", "Mug": "heatable coolable cleanable", "Book": "", "Cup": "heatable coolable cleanable"}
DONE = {"pick_clean_then_place_in_recep": ("cleanable", "isClean", "clean"), "pick_heat_then_place_in_recep": ("heatable", "isHot", "hot"),
        "pick_cool_then_place_in_recep": ("coolable", "isCool", "cool"), "pick_and_place_simple": ("pickupable", None, "")}
FAMILIES = ("pick_and_place_simple", "look_at_obj_in_light", "pick_two_obj_and_place", *list(DONE)[:3])


def installed():
    return importlib.util.find_spec("alfworld") is not None


def official(name):
    """A file of the package's own folder; it is not imported, for that makes a folder for its data."""
    return (Path(importlib.util.find_spec("alfworld").submodule_search_locations[0]) / "data" / name).read_text(encoding="utf-8")


def goal(family, kind, place):
    """-> the goal in PDDL and in words"""
    inside = f"(objectType ?o {kind}Type) (receptacleType ?r {place}Type) (inReceptacle ?o ?r)"
    if family == "look_at_obj_in_light":
        lamp = ("(exists (?t - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?t DeskLampType) (toggleable ?t) (isToggled ?t) "
                "(receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?t ?r)))")
        return f"{lamp} (exists (?o - object ?a - agent) (and (objectType ?o {kind}Type) (holds ?a ?o)))", f"examine the {kind} with the desklamp."
    if family == "pick_two_obj_and_place":
        other = f"(exists (?p - object) (and (not (= ?o ?p)) (objectType ?p {kind}Type) (inReceptacle ?p ?r)))"
        return f"(exists (?r - receptacle) (exists (?o - object) (and {inside} {other})))", f"find two {kind} and put them in {place}."
    able, done, word = DONE[family]
    return (f"(exists (?r - receptacle) (exists (?o - object) (and ({able} ?o) {inside} {f'({done} ?o)' if done else ''})))",
            f"put a {word} {kind} in {place}.".replace("  ", " "))


def room(number, family, old=False):
    """-> game.tw-pddl as a dict. Game `number` is always the same. old: the original format, other verbs and no walkthrough."""
    rng = random.Random(f"room {number}")
    kind = rng.choice([k for k in KINDS if family not in DONE or DONE[family][0] in KINDS[k] or DONE[family][1] is None])
    place, others = rng.choice(GOALS), [k for k in KINDS if k != kind]
    at = {("DeskLamp", 0): PLACES.index("Desk")}  # (kind, number) -> which place
    for i in (1, 2):
        at[kind, i] = rng.choice([j for j, p in enumerate(PLACES) if p not in (place, "Microwave")])
        at[rng.choice(others), i] = rng.randrange(len(PLACES))
    spot = [f"loc_bar_{j}_bar_0" for j in range(len(PLACES))]
    name = [f"{p.removesuffix('Basin')}_bar__plus_00_dot_{j}0{'_bar_SinkBasin' if p == 'SinkBasin' else ''}" for j, p in enumerate(PLACES)]
    objects = ["agent1 - agent", "loc_bar_9_bar_9 - location", *(f"{k}Type - otype" for k in (*KINDS, "DeskLamp")), *(f"{p}Type - rtype" for p in dict.fromkeys(PLACES))]
    begin = ["(atLocation agent1 loc_bar_9_bar_9)"]
    for j, p in enumerate(PLACES):
        objects += [f"{name[j]} - receptacle", f"{spot[j]} - location"]
        begin += [f"(receptacleType {name[j]} {p}Type)", f"(receptacleAtLocation {name[j]} {spot[j]})", *[f"(openable {name[j]})"] * (p in CLOSED)]
    begin += [f"(canContain {p}Type {k}Type)" for p in dict.fromkeys(PLACES) for k in KINDS]
    for (what, i), j in at.items():
        thing = f"{what}_bar__plus_0{i}_dot_{number:02d}"
        objects.append(f"{thing} - object")
        begin += [f"(objectType {thing} {what}Type)", f"(inReceptacle {thing} {name[j]})", f"(objectAtLocation {thing} {spot[j]})"]
        begin += [f"({able} {thing})" for able in (["toggleable"] if what == "DeskLamp" else ["pickupable", *KINDS[what].split()])]
    target, words = goal(family, kind, place)
    lines = "\n        "
    problem = (f"(define (problem plan_trial_{number})\n(:domain alfred)\n(:objects\n{lines.join(objects)})\n(:init\n{lines.join(begin)})\n"
               f"(:goal (and {target})))")
    domain, grammar = official("alfred.pddl"), official("alfred.twl2").replace("UNKNOWN GOAL.", words.lower())
    if not old:
        return {"pddl_domain": domain, "grammar": grammar, "pddl_problem": problem, "solvable": True, "walkthrough": []}
    grammar = grammar.replace("move {o} to {r}", "put {o} in/on {r}").replace("You move the {o.name} to the", "You put the {o.name} in/on the")
    return {"pddl_domain": domain[:domain.index("(:action help")] + ")", "grammar": grammar[:grammar.index("action help")], "pddl_problem": problem,
            "solvable": True}


def write_games(folder, old=False, plan=None, **counts):
    """counts: {"train": 6, ...}. plan(path) -> the walkthrough, for the current format. -> folder, as --data wants it"""
    number = 0
    for split, count in counts.items():
        for i in range(count):
            number, family = number + 1, FAMILIES[i % len(FAMILIES)]
            path = Path(folder) / "json_2.1.1" / split / f"{family}-Thing-None-Place-{number}" / f"trial_T{number:04d}" / "game.tw-pddl"
            path.parent.mkdir(parents=True)
            game = room(number, family, old)
            path.write_text(json.dumps(game), encoding="utf-8")
            if plan and not old:
                path.write_text(json.dumps({**game, "walkthrough": plan(path)}), encoding="utf-8")
    return str(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--games", type=int, default=960)
    args = parser.parse_args()
    if not installed():
        raise SystemExit("the official domain and grammar are the package's: pip install --no-deps alfworld")
    write_games(args.folder, train=args.games * 3 // 5, valid_seen=args.games // 5, valid_unseen=args.games // 5)
    print(f"{args.games} games in {args.folder}/json_2.1.1")


if __name__ == "__main__":
    main()
