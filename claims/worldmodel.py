"""World models on the house: arms, tables, claims, figure. See reproduce.py."""
import json
from concurrent.futures import ThreadPoolExecutor

from claims import cell, interval, judged, over, pyplot, slug, train, updates, write

WORLDS = {  # arm -> options of train.py
    "stateless": "--formulation stateless",
    "stateless, equal compute": "--formulation stateless --steps 1200",  # three quarters of the seconds that strict's updates take
    "leaky": "--formulation leaky --terms format,dedup",
    "leaky + R_sup": "--formulation leaky",
    "strict": "--terms format,dedup",
    "strict + R_sup": "",
    "strict + R_sup, chain of 2": "--chain 2 --A 3 --B 3 --C 2",
    "strict + R_sup, plain GRPO": "--flat",
}
COMPARISONS = {  # --compare -> what its table is called, its arms, further options
    "paper": ("last 4 observations in view", ("stateless", "stateless, equal compute", "leaky", "leaky + R_sup", "strict", "strict + R_sup"), ""),
    "training": ("last 4 observations in view", ("strict + R_sup", "strict + R_sup, chain of 2", "strict + R_sup, plain GRPO"), ""),
    "unbounded": ("whole history in view", ("stateless", "leaky + R_sup", "strict + R_sup"), "--window=0")}
WORLD_TABLES = {  # title -> {metric of result.json: its column}
    "one step": {"obs.F1 level 2": "obs.F1, level 2", "obs.F1 level 3": "level 3", "T=1": "sampled", "state.F1 s level 2": "state.F1 of s, level 2",
                 "state.F1 s level 3": "level 3", "state.F1 s' level 2": "state.F1 of s', level 2", "state.F1 s' level 3": "level 3", "CR": "CR",
                 "well-formed": "well-formed"},
    "rollouts, obs.F1": {"obs H=1": "H = 1", "obs H=5": "5", "obs H=9": "9", "obs 1-4": "1 to 4", "obs 5-9": "5 to 9", "obs 10-25": "10 to 25",
                         "obs, known rooms": "known rooms"},
    "rollouts, s'": {"state s' H=1": "state.F1, H = 1", "state s' H=5": "5", "state s' H=9": "9", "state s' 10-25": "10 to 25",
                     "needed facts in s' H=1": "recall, H = 1", "needed facts in s' H=5": "5", "needed facts in s' H=9": "9",
                     "needed facts in s' 10-25": "10 to 25"},
    "mediation, planning": {"own state": "own state", "another's state": "another's state", "own - another's": "own - another's",
                            "action alone": "action alone (floor)", "history leak": "history leak", "plan": "plays: success", "seconds": "updates, s"}}
CLAIMS = (  # arm, against, metric, kind, what the paper says
    ("strict + R_sup", "leaky + R_sup", "obs H=1", "as good", "obs.F1 .774 / .793 / .728 against .722 / .730 / .356 (ScienceWorld)"),
    ("strict + R_sup", "stateless", "obs H=1", "as good", ".774 / .793 / .728 against .789 / .765 / .562 (ScienceWorld)"),
    ("strict + R_sup", "leaky + R_sup", "state s' H=1", "better", "state.F1 .573 / .620 / .574 against .533 / .560 / .365 (ScienceWorld)"),
    ("strict", "leaky", "state s' H=1", "better", "both without R_sup"),
    ("strict", "leaky", "obs 5-9", "better", "both without R_sup"),
    ("strict + R_sup", "leaky + R_sup", "own - another's", "better", "strict depends on its state, leaky may bypass it"),
    ("strict", "leaky", "own - another's", "better", "both without R_sup"),
    ("leaky + R_sup", "leaky", "state s' H=1", "better", ""),
    ("strict + R_sup", "leaky + R_sup", "obs H=5", "better", ".608 against .549 (TextWorld)"),
    ("strict + R_sup", "leaky + R_sup", "obs H=9", "better", ".570 against .433 (TextWorld)"),
    ("strict + R_sup", "leaky + R_sup", "obs 10-25", "better", ""),
    ("strict + R_sup", "stateless", "obs H=5", "better", ".608 against .600 (TextWorld)"),
    ("strict + R_sup", "stateless", "obs H=9", "better", ".570 against .505 (TextWorld)"),
    ("strict + R_sup", "stateless", "obs 10-25", "better", ""),
    ("strict + R_sup", "stateless, equal compute", "obs 10-25", "better", ""),
    ("strict + R_sup", "stateless, equal compute", "obs, known rooms", "better", ""),
    ("strict + R_sup", "leaky + R_sup", "state s' H=9", "better", ".210 against .106 (TextWorld)"),
    ("strict + R_sup", "strict", "obs H=9", "better", "R_sup: .541 against .345"),
    ("strict + R_sup", "strict + R_sup, plain GRPO", "obs H=1", "better", ""),
    ("strict + R_sup", "strict + R_sup, plain GRPO", "T=1", "better", "fGRPO against plain GRPO"),
    ("strict + R_sup", "strict + R_sup, plain GRPO", "obs 10-25", "better", ""),
    ("strict + R_sup, chain of 2", "strict + R_sup", "obs 10-25", "better", ""),
    ("strict + R_sup", "strict, warm start", "T=1", "better", "what the training adds, sampled"),
    ("strict + R_sup", "strict, warm start", "obs 10-25", "better", "and greedy"))


def world_columns(result):
    """result.json of a world model -> {"trained": {metric: mean}, "warm": the same}"""
    out, own = {}, next(name.split(", ")[0] for name in result["columns"] if name.endswith(", trained"))
    for name, column in result["columns"].items():
        formulation, when, *sampled = name.split(", ")
        if sampled:
            out.setdefault(when, {})["T=1"] = column["obs H=1"][0]
        elif formulation == own:
            out.setdefault(when, {}).update({k: x[0] for k, x in column.items()})
    out["trained"]["seconds"] = result["update_seconds"]
    out["trained"].update({"plan": x["success"] for player, x in result["plan"].items() if player in ("stateless", "leaky", "strict")})
    return out


def world_tables(arms):
    """arms: {arm: [{metric: mean} of a seed]} -> Markdown"""
    lines = []
    for title, columns in WORLD_TABLES.items():
        lines += [f"\n**{title}**\n", f"| arm | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
        for arm, runs in arms.items():
            cells = [cell([r[m] for r in runs]) if all(m in r for r in runs) else "-" for m in columns]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["\n**claims**, paired over seeds\n", "| arm | against | metric | difference | verdict | the paper |", "|---" * 6 + "|"]
    for arm, other, metric, kind, paper in CLAIMS:
        if arm not in arms or other not in arms:
            continue
        differences = [a[metric] - b[metric] for a, b in zip(arms[arm], arms[other])]
        lines.append(f"| {arm} | {other} | {judged(differences, metric, kind)} | {paper} |")
    return "\n".join(lines)


def world_figure(arms, curves, path):
    """Left: obs.F1 against state.F1 of s' as training goes on. Right: rollout obs.F1 against H."""
    plt = pyplot()
    if plt is None:
        return
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    for i, (arm, runs) in enumerate(arms.items()):
        for points in curves.get(arm, []):
            if points:
                left.plot([p[0] for p in points], [p[1] for p in points], ".-", color=f"C{i}", alpha=0.5)
        bands = {2.5: "obs 1-4", 7: "obs 5-9", 17.5: "obs 10-25"}
        right.plot(list(bands), [interval([r[m] for r in runs])[0] for m in bands.values()], "o-", color=f"C{i}", label=arm)
    left.set(xlabel="obs.F1, one step (valid)", ylabel="state.F1 of s' (valid)", title="as training goes on")
    right.set(xlabel="steps imagined (middle of the band)", ylabel="obs.F1", title="rollouts (test)")
    right.legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def curve(out):
    """[(obs.F1, state.F1 of s')] on valid trajectories, as training goes on."""
    return [(m["obs H=1"], m["state s' H=1"]) for m in updates(out) if "state s' H=1" in m]


def reproduce(folder, seeds, jobs, compare):
    """One of COMPARISONS; in the paper's own some arms play as well."""
    title, names, options = COMPARISONS[compare]
    plays = ("stateless", "leaky + R_sup", "strict + R_sup") if compare == "paper" else ()

    def run_arm(which):
        arm, seed = which
        wanted = ["--method=worldmodel", *WORLDS[arm].split(), f"--seed={seed}", *options.split(), *["--plan=16"] * (arm in plays)]
        return train(wanted, f"{folder}/{slug(compare, arm, seed)}")
    wanted = [(arm, seed) for arm in names for seed in seeds]
    with ThreadPoolExecutor(jobs) as pool:
        done = dict(zip(wanted, pool.map(run_arm, wanted)))
    columns = {arm: [world_columns(done[arm, seed]) for seed in seeds] for arm in names}
    warm = {f"{f}, warm start": [c["warm"] for c in columns[arm]] for f, arm in
            (("stateless", "stateless"), ("leaky", "leaky + R_sup"), ("strict", "strict + R_sup")) if arm in columns}
    arms = {**warm, **{arm: [c["trained"] for c in runs] for arm, runs in columns.items()}}
    found, text = {"seeds": seeds, "results": {title: arms}}, f"### {title}, mean{over(seeds)}\n{world_tables(arms)}"
    if plays:
        found["players"] = {seed: done["strict + R_sup", seed]["plan"] for seed in seeds}
        text += "\n\nOther players: " + ", ".join(f"{player} {cell([x[player]['success'] for x in found['players'].values()])}"
                                                 for player in ("random", "expert", "simulator"))
        curves = {arm: [curve(f"{folder}/{slug(compare, arm, seed)}") for seed in seeds] for arm in names}
        world_figure({arm: arms[arm] for arm in names}, curves, f"{folder}/worldmodel.png")
    with open(f"{folder}/{compare}.json", "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
    write(f"{folder}/{compare}.md", text)
    print(text)
