"""Every arm of a paper's claim over several seeds -> a table with intervals, and a figure.

    python reproduce.py tandem --tune        # the learning rates and KL weights, on valid problems of another seed
    python reproduce.py tandem --seeds 3     # restarts where it stopped; writes out/reproduce/tandem/{results.json,table.md,tandem.png}
    python reproduce.py worldmodel --seeds 3 # as well

An arm is one `train.py` command. Seeds are paired: with the seed come the warm starts, the tasks and the random numbers, so the
difference of two arms is taken within a seed. "better" is reproduced when the 95% t-interval of the paired difference excludes
zero; "as good as" when it lies within 2 points; else the verdict is unclear.
"""
import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ARMS = {  # name -> options of train.py; the tuning adds --lr, and --kl where there is a KL term
    "GRPO": "--method grpo",
    "GRPO, 2G": "--method grpo --group 16",
    "GRPO + KL to warm senior": "--method grpo --kl-to warm",
    "GRPO + KL to junior": "--method grpo --kl-to junior",
    "tandem p = .5": "--method tandem",
    "tandem p = .75": "--method tandem --p 0.75",
    "tandem by token": "--method tandem --schedule token",
}
GRID = {"lr": (1.5e-4, 3e-4, 6e-4, 1e-3), "kl": (0.05, 0.2, 0.5)}  # the same for every arm (kl: for those that have one)
CONDITIONS = {  # name -> more options of train.py, and the arms it is run with
    "plain junior": ("", tuple(ARMS)),
    "graded junior": ("--junior-skill graded", ("GRPO", "GRPO + KL to junior", "tandem p = .5")),
    "senior at 40% private": ("--skill senior40", ("GRPO", "tandem p = .5")),
}
COLUMNS = {"solo pass@1": "solo", "solo pass@4": "solo @4", "step handoff pass@1": "step handoff", "step handoff pass@4": "step @4",
           "training handoff pass@1": "training schedule", "retention@1": "retention", "legibility": "legibility", "log_ratio": "log ratio",
           "kl": "exact KL", "private": "private"}
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # by number of seeds


def command(arm, seed, condition, settings, more=()):
    """The options of one cell of tandem's comparison."""
    options = [f"--{k}={x}" for k, x in settings.items()]
    return [*ARMS[arm].split(), "--junior=auto", *CONDITIONS[condition][0].split(), f"--seed={seed}", *options, *more]


def finished(out):
    path = os.path.join(out, "result.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)


def train(options, out):
    """Run one train.py command, or go on with it, unless it is done. -> its result"""
    if finished(out) is None:
        os.makedirs(os.path.dirname(out), exist_ok=True)
        with open(out + ".log", "a", encoding="utf-8") as log:
            code = subprocess.run([sys.executable, "train.py", *options, f"--out={out}", "--threads=1", "--resume"], stdout=log, stderr=log).returncode
        if code:
            sys.exit(f"train.py {' '.join(options)} ended with code {code}: see {out}.log; run this again to go on")
        print(f"done: {' '.join(options)}", flush=True)
    return finished(out)


def regrade(out, seed, target):
    """A GRPO run graded by the other junior: nothing in its training depended on one."""
    import torch

    import grpo
    import policy
    import run
    import sft
    import tandem
    import train as entry
    from sampler import Sampler
    if finished(target) is not None:
        return finished(target)
    torch.set_num_threads(1)
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        v = {**run.parse([], entry.GROUPS)[1], **json.load(file), "junior_skill": "graded", "senior": out}
    env, options = policy.open_env(v)
    senior, junior, tok, _ = policy.open_models(v, env, options, "cpu", 0)
    cfg, how = run.build(grpo.Config, v), run.build(tandem.Config, v)
    rows = cfg.prompts * cfg.group
    after = tandem.evaluate(Sampler(senior, rows), tandem.TandemSampler(senior, junior, rows), env, tok, cfg, how, "test",
                            env.first.problems, v["test_chains"], seed)
    os.makedirs(target, exist_ok=True)
    run.write(os.path.join(target, "result.json"), json.dumps({"after": after, "seconds": finished(out)["seconds"]}))
    return finished(target)


def slug(*parts):
    return "-".join("".join(c if c.isalnum() else "" for c in str(p)) for p in parts)


# ---- tuning: one criterion for all arms, on valid problems of a seed that is not reported ----

def tune(folder, jobs, seed=100):
    """Best of GRID for every arm by solo + step handoff pass@1 on valid problems (see choose). Writes tuning.json."""
    cells = []
    for arm in ARMS:
        grid = [dict(zip(("lr", "kl"), x)) for x in itertools.product(GRID["lr"], GRID["kl"])] if "KL" in arm else \
            [{"lr": lr} for lr in GRID["lr"]]
        cells += [(arm, settings) for settings in grid]
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda c: train(command(c[0], seed, "plain junior", c[1], ("--final-split=valid", "--test-problems=256")),
                                                f"{folder}/tune/{slug(c[0], *c[1].values())}"), cells))
    found = {}
    for (arm, settings), result in zip(cells, results):
        solo, step = (result["after"][k][0] for k in ("solo pass@1", "step handoff pass@1"))
        found.setdefault(arm, []).append({**settings, "solo": solo, "step handoff": step, "score": solo + step})
    best = {arm: choose(rows) for arm, rows in found.items()}
    with open(f"{folder}/tuning.json", "w", encoding="utf-8") as file:
        json.dump({"best": best, "grid": found}, file, indent=1)
    print(json.dumps(best, indent=1))


def choose(rows):
    """The grid point whose score, averaged with those of its neighbours in the learning rate, is highest: on one seed the best
    point itself may stand next to a cliff."""
    def score(row):
        lrs = sorted({r["lr"] for r in rows})
        near = lrs[max(0, lrs.index(row["lr"]) - 1):lrs.index(row["lr"]) + 2]
        scores = [r["score"] for r in rows if r["lr"] in near and r.get("kl") == row.get("kl")]
        return sum(scores) / len(scores)
    return {k: x for k, x in max(rows, key=score).items() if k in GRID}


# ---- the table ----

def interval(values):
    """95% t-interval over seeds -> mean, half width (nan for one seed)"""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    return mean, T_95.get(n, 1.96) * spread / math.sqrt(n)


def verdict(differences, kind, margin=0.02):
    """differences: arm minus GRPO, a seed each. kind "better" or "as good" -> yes, no, unclear"""
    mean, half = interval(differences)
    if math.isnan(half):
        return "unclear"
    if kind == "better":
        return "yes" if mean - half > 0 else "no" if mean + half < 0 else "unclear"
    return "yes" if -margin < mean - half and mean + half < margin else "no" if mean + half < -margin else "unclear"


def table(results, seeds):
    """results: {condition: {arm: [metrics of a seed]}} -> Markdown"""
    lines = []
    for condition, arms in results.items():
        lines += [f"\n**{condition}**, {len(seeds)} seeds, mean +- 95% t-interval over seeds\n",
                  "| arm | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for arm, runs in arms.items():
            cells = ["%.3f +- %.3f" % interval([r[name][0] for r in runs]) if all(name in r for r in runs) else "-" for name in COLUMNS]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines += ["\n| against GRPO, paired | solo pass@1 | as good as (2 points)? | step handoff pass@1 | better? |", "|---|---|---|---|---|"]
        for arm, runs in arms.items():
            if arm != "GRPO":
                solo, step = ([a[name][0] - b[name][0] for a, b in zip(runs, arms["GRPO"])] for name in ("solo pass@1", "step handoff pass@1"))
                lines.append(f"| {arm} | %+.3f +- %.3f | {verdict(solo, 'as good')} | %+.3f +- %.3f | {verdict(step, 'better')} |"
                             % (*interval(solo), *interval(step)))
    lines.append("\nThe paper (4B model, pass@4, macro over four sets): solo GRPO 55.56, tandem 54.85; handoff GRPO 52.40, tandem 54.74; "
                 "retention 94.3 against 99.8.")
    return "\n".join(lines)


def figure(results, path):
    """Solo against step handoff, an arm a colour, a seed a dot."""
    try:
        import matplotlib
    except ImportError:
        print("no figure: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    fig, axes = plt.subplots(1, len(results), figsize=(5.5 * len(results), 4.5), sharex=True, sharey=True, squeeze=False)
    for ax, (condition, arms) in zip(axes[0], results.items()):
        for arm, runs in arms.items():
            i = list(ARMS).index(arm)  # the same mark in every panel
            ax.plot([r["solo pass@1"][0] for r in runs], [r["step handoff pass@1"][0] for r in runs], "osD^vP*X"[i], color=f"C{i}",
                    label=arm, alpha=0.8)
        ax.plot([0, 1], [0, 1], color="grey", lw=0.5)
        ax.set(title=condition, xlabel="solo pass@1", xlim=(0, 1), ylim=(0, 1))
    axes[0][0].set_ylabel("step handoff pass@1")
    axes[0][0].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def reproduce_tandem(folder, seeds, jobs):
    with open(f"{folder}/tuning.json" if os.path.exists(f"{folder}/tuning.json") else "docs/tandem/tuning.json", encoding="utf-8") as file:
        best = json.load(file)["best"]  # one's own tuning, or the one that the README reports
    cells = [(arm, seed, condition) for condition, (_, arms) in CONDITIONS.items() for arm in arms for seed in seeds
             if (arm, condition) != ("GRPO", "graded junior")]
    with ThreadPoolExecutor(jobs) as pool:
        done = dict(zip(cells, pool.map(lambda c: train(command(*c, best[c[0]]), f"{folder}/{slug(*c)}"), cells)))
    for seed in seeds:
        done["GRPO", seed, "graded junior"] = regrade(f"{folder}/{slug('GRPO', seed, 'plain junior')}", seed,
                                                      f"{folder}/{slug('GRPO', seed, 'graded junior')}")
    results = {c: {arm: [done[arm, seed, c]["after"] for seed in seeds] for arm in arms} for c, (_, arms) in CONDITIONS.items()}
    with open(f"{folder}/results.json", "w", encoding="utf-8") as file:
        json.dump({"seeds": seeds, "settings": best, "seconds": {slug(*c): d["seconds"] for c, d in done.items()}, "results": results}, file, indent=1)
    text = table(results, seeds)
    with open(f"{folder}/table.md", "w", encoding="utf-8") as file:
        file.write(text + "\n")
    figure(results, f"{folder}/tandem.png")
    print(text)


# ---- world models ----

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
MORE = ("strict + R_sup, chain of 2", "strict + R_sup, plain GRPO")  # only with --more, and so are, with the whole history in view:
UNBOUNDED = ("stateless", "leaky + R_sup", "strict + R_sup")
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
    out = {}
    for name, column in result["columns"].items():
        formulation, when, *sampled = name.split(", ")
        if sampled:
            out.setdefault(when, {})["T=1"] = column["obs H=1"][0]
        elif "obs 10-25" in column:  # the run's own formulation
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
            cells = ["%.3f +- %.3f" % interval([r[m] for r in runs]) if all(m in r for r in runs) else "-" for m in columns]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["\n**claims**, paired over seeds\n", "| arm | against | metric | difference | verdict | the paper |", "|---" * 6 + "|"]
    for arm, other, metric, kind, paper in CLAIMS:
        if arm not in arms or other not in arms:
            continue
        differences = [a[metric] - b[metric] for a, b in zip(arms[arm], arms[other])]
        question = "better" if kind == "better" else "as good as (2 points)"
        lines.append(f"| {arm} | {other} | {metric}, {question}? | %+.3f +- %.3f | {verdict(differences, kind)} | {paper} |" % interval(differences))
    return "\n".join(lines)


def world_figure(arms, curves, path):
    """Left: obs.F1 against state.F1 of s' as training goes on. Right: rollout obs.F1 against H."""
    try:
        import matplotlib
    except ImportError:
        print("no figure: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
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
    with open(f"{out}/metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [(m["obs H=1"], m["state s' H=1"]) for m in lines if "state s' H=1" in m]


def reproduce_worldmodel(folder, seeds, jobs, more):
    """The paper's comparison; with `more` the arms beside it, in a table of their own."""
    if more:
        cells = [(arm, seed, "") for arm in ("strict + R_sup", *MORE) for seed in seeds]  # the first arm makes the warm starts
        cells += [(arm, seed, "--window=0") for arm in UNBOUNDED for seed in seeds]
    else:
        cells = [(arm, seed, "") for arm in WORLDS if arm not in MORE for seed in seeds]
    games = {"stateless", "leaky + R_sup", "strict + R_sup"} if not more else ()  # arms that also play

    def run_cell(cell):
        arm, seed, window = cell
        options = ["--method=worldmodel", *WORLDS[arm].split(), f"--seed={seed}", *window.split()]
        return train(options + (["--plan=16"] if arm in games else []), f"{folder}/{'more-' if more else ''}{slug(*cell)}")
    with ThreadPoolExecutor(jobs) as pool:
        done = dict(zip(cells, pool.map(run_cell, cells)))
    results = {}
    for window, title in (("", "last 4 observations in view"), ("--window=0", "whole history in view")):
        columns = {arm: [world_columns(done[arm, s, window]) for s in seeds] for arm in WORLDS if (arm, seeds[0], window) in done}
        warm = {f"{f}, warm start": [c["warm"] for c in columns[arm]] for f, arm in
                (("stateless", "stateless"), ("leaky", "leaky + R_sup"), ("strict", "strict + R_sup")) if arm in columns}
        if columns:
            results[title] = {**warm, **{arm: [c["trained"] for c in runs] for arm, runs in columns.items()}}
    players = {s: done["strict + R_sup", s, ""]["plan"] for s in seeds}
    text = "\n\n".join(f"### {title}, mean +- 95% t-interval over {len(seeds)} seeds\n{world_tables(arms)}" for title, arms in results.items())
    if games:
        text += "\n\nOther players: " + ", ".join("%s %.3f +- %.3f" % (p, *interval([x[p]["success"] for x in players.values()]))
                                                 for p in ("random", "expert", "simulator"))
    name = "more" if more else "results"
    with open(f"{folder}/{name}.json", "w", encoding="utf-8") as file:
        json.dump({"seeds": seeds, "results": results, "players": players}, file, indent=1)
    with open(f"{folder}/{'more' if more else 'table'}.md", "w", encoding="utf-8") as file:
        file.write(text + "\n")
    if not more:
        curves = {arm: [curve(f"{folder}/{slug(arm, seed, '')}") for seed in seeds] for arm in WORLDS if (arm, seeds[0], "") in done}
        world_figure({arm: runs for arm, runs in next(iter(results.values())).items() if arm in WORLDS}, curves, f"{folder}/worldmodel.png")
    print(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", choices=["tandem", "worldmodel"])
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds [3]")
    parser.add_argument("--first-seed", type=int, default=0, help="the seeds count from here [0]")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each [2]")
    parser.add_argument("--more", action="store_true", help="worldmodel: plain GRPO, a chain of two transitions, and the whole history in view besides")
    parser.add_argument("--tune", action="store_true", help="tandem: search the grid first, on another seed's valid problems")
    args = parser.parse_args()
    if not 1 <= args.seeds <= max(T_95):
        parser.error(f"--seeds is 1 to {max(T_95)}")
    folder = f"out/reproduce/{args.paper}"
    os.makedirs(folder, exist_ok=True)
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    if args.paper == "worldmodel" and args.tune:
        parser.error("--tune is for tandem")
    if args.paper == "worldmodel":
        reproduce_worldmodel(folder, seeds, args.jobs, args.more)
    elif args.tune:
        tune(folder, args.jobs)
    else:
        reproduce_tandem(folder, seeds, args.jobs)


if __name__ == "__main__":
    main()
