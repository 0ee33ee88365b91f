"""Tandem RL against GRPO on arithmetic: arms, tuning, table, figure. See reproduce.py."""
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor

from claims import cell, finished, over, pyplot, slug, train, verdict, write

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


def command(arm, seed, condition, settings, more=()):
    """The options of one cell of tandem's comparison."""
    options = [f"--{k}={x}" for k, x in settings.items()]
    return [*ARMS[arm].split(), "--junior=auto", *CONDITIONS[condition][0].split(), f"--seed={seed}", *options, *more]


def regrade(out, seed, target):
    """A GRPO run graded by the other junior: nothing in its training depended on one."""
    import torch

    import grpo
    import policy
    import run
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

def table(results, seeds):
    """results: {condition: {arm: [metrics of a seed]}} -> Markdown"""
    lines = []
    for condition, arms in results.items():
        lines += [f"\n**{condition}**, mean{over(seeds)}\n",
                  "| arm | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for arm, runs in arms.items():
            cells = [cell([r[name][0] for r in runs]) if all(name in r for r in runs) else "-" for name in COLUMNS]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines += ["\n| against GRPO, paired | solo pass@1 | as good as (2 points)? | step handoff pass@1 | better? |", "|---|---|---|---|---|"]
        for arm, runs in arms.items():
            if arm != "GRPO":
                solo, step = ([a[name][0] - b[name][0] for a, b in zip(runs, arms["GRPO"])] for name in ("solo pass@1", "step handoff pass@1"))
                lines.append(f"| {arm} | {cell(solo, '+')} | {verdict(solo, 'as good')} | {cell(step, '+')} | {verdict(step, 'better')} |")
    lines.append("\nThe paper (4B model, pass@4, macro over four sets): solo GRPO 55.56, tandem 54.85; handoff GRPO 52.40, tandem 54.74; "
                 "retention 94.3 against 99.8.")
    return "\n".join(lines)


def figure(results, path):
    """Solo against step handoff, an arm a colour, a seed a dot."""
    plt = pyplot()
    if plt is None:
        return
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


def reproduce(folder, seeds, jobs):
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
    write(f"{folder}/table.md", text)
    figure(results, f"{folder}/tandem.png")
    print(text)
