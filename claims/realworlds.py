"""World models on TextWorld and ScienceWorld: the paper's three formulations, its two tables, and its figures beside ours. See reproduce.py."""
import json
import os
from concurrent.futures import ThreadPoolExecutor

from claims import cell, judged, over, slug, train, write
from claims.worldmodel import world_columns
from envs import scienceworld_text, textworld_text

ARMS = {"stateless": "--formulation stateless", "leaky + R_sup": "--formulation leaky", "strict + R_sup": ""}
PAPER = {  # arXiv 2606.27681, 4B model: arm -> obs.F1 and state.F1 for M >= the three thresholds, obs.F1 and state.F1 of rollouts at H = 1, 5, 9
    "textworld": {"stateless": (".685/.642/.634", "-", ".728/.600/.505", "-"), "leaky + R_sup": (".665/.639/.633", ".294/.281/.271", ".693/.549/.433", ".290/.201/.106"),
                  "strict + R_sup": (".680/.631/.614", ".310/.326/.329", ".729/.608/.570", ".305/.277/.210")},
    "scienceworld": {"stateless": (".789/.765/.562", "-", ".793/.728/.654", "-"), "leaky + R_sup": (".722/.730/.356", ".533/.560/.365", ".695/.636/.678", ".502/.251/.218"),
                     "strict + R_sup": (".774/.793/.728", ".573/.620/.574", ".788/.792/.775", ".536/.482/.418")}}
FACTS_NEEDED = {"textworld": textworld_text.FACTS_NEEDED, "scienceworld": scienceworld_text.FACTS_NEEDED}
CLAIMS = (("leaky + R_sup", "obs H=1", "as good"), ("stateless", "obs H=1", "as good"), ("leaky + R_sup", "state s' H=1", "better"),
          ("leaky + R_sup", "obs H=5", "better"), ("leaky + R_sup", "obs H=9", "better"), ("stateless", "obs H=5", "better"),
          ("stateless", "obs H=9", "better"), ("stateless", "obs, known rooms", "better"),
          ("leaky + R_sup", "state s' H=9", "better"), ("leaky + R_sup", "own - another's", "better"))


def columns(env):
    """Title -> the metrics of its cell."""
    m = FACTS_NEEDED[env]
    return {f"obs.F1, M >= {m[0]} / {m[1]} / {m[2]}": [f"obs.F1 M>={n}" for n in m], "state.F1 of s', the same": [f"state.F1 s' M>={n}" for n in m],
            "obs.F1, H = 1 / 5 / 9": [f"obs H={h}" for h in (1, 5, 9)], "state.F1 of s', the same H": [f"state s' H={h}" for h in (1, 5, 9)],
            "obs.F1, known rooms": ["obs, known rooms"], "obs.F1 with its own state / another's / the action alone": ["own state", "another's state", "action alone"],
            "well-formed": ["well-formed"]}


def cells(runs, metrics):
    if not all(m in r for m in metrics for r in runs):
        return "-"
    return " / ".join(cell([r[m] for r in runs]) for m in metrics)


def table(env, arms):
    """arms: {arm: [{metric: mean} of a seed]} -> Markdown"""
    wanted = columns(env)
    lines = [f"| arm | {' | '.join(wanted)} |", "|---" * (len(wanted) + 1) + "|"]
    for arm, runs in arms.items():
        lines.append(f"| {arm} | {' | '.join(cells(runs, metrics) for metrics in wanted.values())} |")
        if arm in PAPER[env]:
            lines.append(f"| *the paper, 4B* | {' | '.join(PAPER[env][arm])}{' |' * (len(wanted) - len(PAPER[env][arm]))} |")
    lines += ["\n| strict + R_sup against | metric | difference | verdict |", "|---" * 4 + "|"]
    for other, metric, kind in CLAIMS:
        found = [a[metric] - b[metric] for a, b in zip(arms["strict + R_sup"], arms[other]) if metric in a and metric in b]
        if found:
            lines.append(f"| {other} | {judged(found, metric, kind)} |")
    return "\n".join(lines)


def reproduce(folder, seeds, jobs, env):
    folder = f"{folder}-{env}"
    os.makedirs(folder, exist_ok=True)
    wanted = [(arm, seed) for arm in ARMS for seed in seeds]  # warm starts, one a seed, side by side

    def run_arm(which):
        arm, seed = which
        return train(["--method=worldmodel", f"--env={env}", *ARMS[arm].split(), f"--seed={seed}"], f"{folder}/{slug(arm, seed)}")
    with ThreadPoolExecutor(jobs) as pool:
        done = dict(zip(wanted, pool.map(run_arm, wanted)))
    both = {arm: [world_columns(done[arm, seed]) for seed in seeds] for arm in ARMS}
    arms = {**{f"{arm.split(' ')[0]}, warm start": [run["warm"] for run in runs] for arm, runs in both.items()},
            **{arm: [run["trained"] for run in runs] for arm, runs in both.items()}}
    with open(f"{folder}/results.json", "w", encoding="utf-8") as file:
        json.dump({"seeds": seeds, "arms": arms, "seconds": {arm: [done[arm, s]["seconds"] for s in seeds] for arm in ARMS}}, file, indent=1)
    text = f"**{env}**, mean{over(seeds)}\n\n{table(env, arms)}"
    write(f"{folder}/table.md", text)
    print(text)
