"""World models on the house at play: a planner imagines with each formulation. See reproduce.py.

    python reproduce.py worldmodel --compare games --seeds 5

The runs are those of the paper's own comparison (claims/worldmodel.py), and are made where they are
not there yet. The planner: claims/planner.py; it plays houses of the lower level of the two.
"""
import os

import claims
from claims import cell, head, over, read, row, side_by_side, slug, verdict
from claims.worldmodel import command

# arm -> the name of its player; leaky first, because its games take longest
ARMS = {"leaky + R_sup": "leaky", "stateless": "stateless", "strict + R_sup": "strict"}
OTHERS = {"at random": "random", "the expert": "expert",
          "a planner with the true simulator": "simulator"}
PAIRS = (("strict + R_sup", "leaky + R_sup"), ("strict + R_sup", "stateless"),
         ("leaky + R_sup", "stateless"))
GAMES = 128  # a seed
SECONDS = 1600  # a run and its games, the mean of the arms: one thread of a shared Intel Xeon


def played(out):
    """What a run's planner found in GAMES games; None when it has not played so many."""
    path = os.path.join(out, "plan.json")
    found = read(path) if os.path.exists(path) else {"random": {}}
    return found if found["random"].get("games") == GAMES else None


def play(out):
    """Games of a finished run with the planner, unless they were played -> what it found"""
    if played(out) is None:
        claims.call(["-m", "claims.planner", out, f"--games={GAMES}"], out + ".log")
    return played(out)


def table(plans):
    """plans: {arm: [{player: {"success", "turns"}} of a seed]} -> Markdown"""
    anyone = plans["stateless"]  # the others' games are the same in all arms
    found = {name: [x[player] for x in anyone] for name, player in OTHERS.items()}
    for arm, player in ARMS.items():
        found[f"a planner with {arm}"] = [x[player] for x in plans[arm]]
    lines = head("who plays", "success", "turns")
    for name, games in found.items():
        success, turns = ([x[metric] for x in games] for metric in ("success", "turns"))
        lines.append(row(name, cell(success), cell(turns)))
    lines += ["", *head("success", "difference", "better?")]
    for arm, other in PAIRS:
        a, b = (found[f"a planner with {x}"] for x in (arm, other))
        gain = [x["success"] - y["success"] for x, y in zip(a, b)]
        lines.append(row(f"{arm} - {other}", cell(gain, "+"), verdict(gain, "better")))
    return "\n".join(lines)


def draw(found):
    title = f"### {found['games']} games of level 2 a seed, mean{over(found['seeds'])}"
    return f"{title}\n\n{table(found['plans'])}"


def redraw(compare):
    return draw(read(f"docs/worldmodel/{compare}.json"))


def reproduce(folder, seeds, jobs, compare):
    best = claims.settings(folder, "worldmodel")

    def folder_of(arm, seed):
        return f"{folder}/{slug('paper', arm, seed)}"

    def run_arm(arm, seed):
        claims.train(command(arm, seed, best[arm]), folder_of(arm, seed))
        return play(folder_of(arm, seed))
    cells = [(arm, seed) for seed in seeds for arm in ARMS]
    done = side_by_side(run_arm, cells, jobs, folder_of, SECONDS, finished=played)
    found = {"seeds": seeds, "games": GAMES, "settings": {arm: best[arm] for arm in ARMS},
             "plans": {arm: [done[arm, seed] for seed in seeds] for arm in ARMS}}
    claims.write(f"{folder}/{compare}.json", found)
    text = draw(found)
    claims.write(f"{folder}/{compare}.md", text)
    print(text)
