"""World models on TextWorld and ScienceWorld: the paper's three formulations, its two tables, and
its figures beside ours. See reproduce.py."""
import os

import claims
from claims import cell, head, judged, over, read, row, side_by_side, slug
from claims.worldmodel import world_columns
from envs.scienceworld import text as scienceworld
from envs.textworld import text as textworld

ARMS = {"stateless": "--formulation stateless", "leaky + R_sup": "--formulation leaky",
        "strict + R_sup": ""}
# What fits a real world: few games, long observations, an update of some 15 seconds
OPTIONS = ("--steps 40 --warm-steps 2000 --sft-rows 16 --sft-lr 3e-3 --eval-problems 48 "
           "--test-problems 128 --eval-every 20")
SECONDS = 3000  # a run, warm start included: one thread, two side by side
LEVELS = {"textworld": "1,2", "scienceworld": "2"}
# arXiv 2606.27681, 4B model: arm -> obs.F1 and state.F1 for M >= the three thresholds, obs.F1 and
# state.F1 of rollouts at H = 1, 5, 9
PAPER = {
    "textworld": {
        "stateless": (".685/.642/.634", "-", ".728/.600/.505", "-"),
        "leaky + R_sup": (".665/.639/.633", ".294/.281/.271", ".693/.549/.433", ".290/.201/.106"),
        "strict + R_sup": (".680/.631/.614", ".310/.326/.329", ".729/.608/.570", ".305/.277/.210")},
    "scienceworld": {
        "stateless": (".789/.765/.562", "-", ".793/.728/.654", "-"),
        "leaky + R_sup": (".722/.730/.356", ".533/.560/.365", ".695/.636/.678", ".502/.251/.218"),
        "strict + R_sup": (".774/.793/.728", ".573/.620/.574", ".788/.792/.775", ".536/.482/.418")}}
FACTS_NEEDED = {"textworld": textworld.FACTS_NEEDED, "scienceworld": scienceworld.FACTS_NEEDED}
CLAIMS = (  # strict + R_sup against, metric, kind
    ("leaky + R_sup", "obs H=1", "as good"), ("stateless", "obs H=1", "as good"),
    ("leaky + R_sup", "state s' H=1", "better"), ("leaky + R_sup", "obs H=5", "better"),
    ("leaky + R_sup", "obs H=9", "better"), ("stateless", "obs H=5", "better"),
    ("stateless", "obs H=9", "better"), ("stateless", "obs, known rooms", "better"),
    ("leaky + R_sup", "state s' H=9", "better"), ("leaky + R_sup", "own - another's", "better"))


def command(arm, seed, env):
    """The options of one run."""
    return ["--method=worldmodel", f"--env={env}", f"--levels={LEVELS[env]}", *OPTIONS.split(),
            *ARMS[arm].split(), f"--seed={seed}"]


def columns(env):
    """Title -> the metrics of its cell."""
    m = FACTS_NEEDED[env]
    return {
        f"obs.F1, M >= {m[0]} / {m[1]} / {m[2]}": [f"obs.F1 M>={n}" for n in m],
        "state.F1 of s', the same": [f"state.F1 s' M>={n}" for n in m],
        "obs.F1, H = 1 / 5 / 9": [f"obs H={h}" for h in (1, 5, 9)],
        "state.F1 of s', the same H": [f"state s' H={h}" for h in (1, 5, 9)],
        "obs.F1, known rooms": ["obs, known rooms"],
        "obs.F1 with its own state / another's / the action alone":
            ["own state", "another's state", "action alone"],
        "well-formed": ["well-formed"]}


def cells(runs, metrics):
    if not all(m in r for m in metrics for r in runs):
        return "-"
    return " / ".join(cell([r[m] for r in runs]) for m in metrics)


def table(env, arms):
    """arms: {arm: [{metric: mean} of a seed]} -> Markdown"""
    wanted = columns(env)
    lines = head("arm", *wanted)
    for arm, runs in arms.items():
        lines.append(row(arm, *(cells(runs, metrics) for metrics in wanted.values())))
        if arm in PAPER[env]:
            empty = [""] * (len(wanted) - len(PAPER[env][arm]))
            lines.append(row("*the paper, 4B*", *PAPER[env][arm], *empty))
    lines += ["", *head("strict + R_sup against", "metric", "difference", "verdict")]
    for other, metric, kind in CLAIMS:
        found = [a[metric] - b[metric] for a, b in zip(arms["strict + R_sup"], arms[other])
                 if metric in a and metric in b]
        if found:
            lines.append(row(other, judged(found, metric, kind)))
    return "\n".join(lines)


def draw(env, found):
    return f"**{env}**, mean{over(found['seeds'])}\n\n{table(env, found['arms'])}"


def redraw(env):
    return draw(env, read(f"docs/{env}/results.json"))


def reproduce(folder, seeds, jobs, env):
    folder = f"{folder}-{env}"
    os.makedirs(folder, exist_ok=True)

    def folder_of(*cell):
        return f"{folder}/{slug(*cell)}"

    def run_arm(arm, seed):
        return claims.train(command(arm, seed, env), folder_of(arm, seed))
    # in this order the warm starts, one a seed, are made side by side
    cells = [(arm, seed) for arm in ARMS for seed in seeds]
    done = side_by_side(run_arm, cells, jobs, folder_of, SECONDS)
    both = {arm: [world_columns(done[arm, seed]) for seed in seeds] for arm in ARMS}
    arms = {f"{arm.split(' ')[0]}, warm start": [x["warm"] for x in both[arm]] for arm in ARMS}
    arms.update({arm: [x["trained"] for x in both[arm]] for arm in ARMS})
    seconds = {arm: [done[arm, seed]["seconds"] for seed in seeds] for arm in ARMS}
    found = {"seeds": seeds, "arms": arms, "seconds": seconds}
    claims.write(f"{folder}/results.json", found)
    text = draw(env, found)
    claims.write(f"{folder}/table.md", text)
    print(text)
