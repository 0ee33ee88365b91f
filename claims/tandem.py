"""Tandem RL against GRPO on arithmetic: arms, tuning, table, figure. See reproduce.py."""
import dataclasses
import itertools
import json
import math
import os

import claims
from claims import (cell, finished, head, interval, over, plot, read, row, side_by_side, slug,
                    verdict)

# Name -> options of train.py. The tuning adds --lr, and --kl where there is a KL term. At p = 1
# the senior writes everything: that is GRPO, evaluated with the junior.
ARMS = {
    "GRPO": "--method tandem --p 1",
    "GRPO, 2G": "--method tandem --p 1 --group 16",
    "GRPO + KL to warm senior": "--method tandem --p 1 --kl-to warm",
    "GRPO + KL to junior": "--method tandem --p 1 --kl-to junior",
    "tandem p = .5": "--method tandem",
    "tandem p = .75": "--method tandem --p 0.75",
    "tandem by token": "--method tandem --schedule token",
}
# The same for every arm (kl: for those that have one)
GRID = {"lr": (1.5e-4, 3e-4, 6e-4, 1e-3), "kl": (0.05, 0.2, 0.5)}
# Name -> more options of train.py, and the arms it is run with
CONDITIONS = {
    "plain junior": ("", tuple(ARMS)),
    "graded junior": ("--junior-skill graded", ("GRPO", "GRPO + KL to junior", "tandem p = .5")),
    "senior at 40% private": ("--skill senior40", ("GRPO", "tandem p = .5")),
}
COLUMNS = {  # metric of result.json -> its column
    "solo pass@1": "solo", "solo pass@4": "solo @4", "step handoff pass@1": "step handoff",
    "step handoff pass@4": "step @4", "training handoff pass@1": "training schedule",
    "retention@1": "retention", "legibility": "legibility", "log_ratio": "log ratio",
    "kl": "exact KL", "private": "private"}
SOLO, STEP = "solo pass@1", "step handoff pass@1"
PAPER = ("The paper (4B model, pass@4, macro over four sets): solo GRPO 55.56, tandem 54.85; "
         "handoff GRPO 52.40, tandem 54.74; retention 94.3 against 99.8.")


def command(arm, seed, condition, settings, more=()):
    """The options of one cell of tandem's comparison."""
    options = [*ARMS[arm].split(), *CONDITIONS[condition][0].split(), f"--seed={seed}"]
    return [*options, *(f"--{name}={x}" for name, x in settings.items()), *more]


def regrade(out, target):
    """A GRPO run evaluated with the other junior: nothing in its training depended on one."""
    import run
    import tandem
    if finished(target) is None:
        cfg = run.from_json(tandem.Config, run.read_config(out))
        cfg = dataclasses.replace(cfg, junior_skill="graded", senior=out, resume=True,
                                  compile="off")
        r = tandem.setup(cfg)
        after = tandem.measure(r, r.env.first.problems)
        os.makedirs(target, exist_ok=True)
        run.write(os.path.join(target, "result.json"),
                  json.dumps({"after": after, "seconds": finished(out)["seconds"]}))
    return finished(target)


# ---- tuning: one criterion for all arms, on valid problems of a seed that is not reported ----

def tune(folder, jobs, seed=100):
    """Best of GRID for every arm by solo + step handoff pass@1 on valid problems (see choose).
    Writes tuning.json."""
    cells = []
    for arm in ARMS:
        names = ("lr", "kl") if "KL" in arm else ("lr",)
        cells += [(arm, *x) for x in itertools.product(*(GRID[name] for name in names))]
    more = ("--final-split=valid", "--test-problems=256")

    def run_cell(arm, *values):
        options = command(arm, seed, "plain junior", dict(zip(("lr", "kl"), values)), more)
        return claims.train(options, f"{folder}/tune/{slug(arm, *values)}")
    found = {}
    for (arm, *values), result in side_by_side(run_cell, cells, jobs).items():
        solo, step = result["after"][SOLO][0], result["after"][STEP][0]
        settings = dict(zip(("lr", "kl"), values))
        line = {**settings, "solo": solo, "step handoff": step, "score": solo + step}
        found.setdefault(arm, []).append(line)
    best = {arm: choose(lines) for arm, lines in found.items()}
    claims.write(f"{folder}/tuning.json", {"best": best, "grid": found})
    print(json.dumps(best, indent=1))


def choose(lines):
    """The grid point whose score, averaged with those of its neighbours in the learning rate, is
    highest: on one seed the best point itself may stand next to a cliff."""
    rates = sorted({line["lr"] for line in lines})

    def score(line):
        i = rates.index(line["lr"])
        near = rates[max(0, i - 1):i + 2]
        scores = [other["score"] for other in lines
                  if other["lr"] in near and other.get("kl") == line.get("kl")]
        return sum(scores) / len(scores)
    return {name: x for name, x in max(lines, key=score).items() if name in GRID}


# ---- table and figure ----

def table(results, seeds):
    """results: {condition: {arm: [metrics of a seed]}} -> Markdown"""
    lines = []
    for condition, arms in results.items():
        lines += [f"\n**{condition}**, mean{over(seeds)}\n", *head("arm", *COLUMNS.values())]
        for arm, runs in arms.items():
            cells = [cell([r[name][0] for r in runs]) if all(name in r for r in runs) else "-"
                     for name in COLUMNS]
            lines.append(row(arm, *cells))
        titles = ("against GRPO, paired", SOLO, "as good as (2 points)?", STEP, "better?")
        lines += ["", *head(*titles)]
        for arm, runs in arms.items():
            if arm == "GRPO":
                continue
            solo, step = ([a[name][0] - b[name][0] for a, b in zip(runs, arms["GRPO"])]
                          for name in (SOLO, STEP))
            lines.append(row(arm, cell(solo, "+"), verdict(solo, "as good"),
                             cell(step, "+"), verdict(step, "better")))
    return "\n".join([*lines, "", PAPER])


def figure(arms, path):
    """How accurate the senior is alone, and how accurate when it hands over at each step, with the
    plain junior: each seed, their mean and its interval. arms: {arm: [metrics of a seed]}"""
    plt = plot.pyplot()
    if plt is None:
        return
    shown = {"GRPO": "GRPO", "GRPO + KL to junior": "GRPO + KL\nto the junior",
             "tandem p = .5": "tandem\np = .5", "tandem p = .75": "tandem\np = .75",
             "tandem by token": "tandem\nby token"}
    shown = {arm: name for arm, name in shown.items() if arm in arms}
    looks = ((SOLO, -0.17, plot.GREY, "s"), (STEP, 0.17, plot.BLUE, "o"))
    fig, ax = plt.subplots(layout="constrained")
    for i, arm in enumerate(shown):
        for metric, shift, colour, mark in looks:
            values = [r[metric][0] for r in arms[arm]]
            mean, half = interval(values)
            if not math.isnan(half):
                ends = max(0, mean - half), min(1, mean + half)
                ax.plot(ends, [i + shift] * 2, color=colour, lw=1.5)
            ax.plot([mean] * 2, [i + shift - 0.13, i + shift + 0.13], color=colour, lw=3)
            ax.plot(values, [i + shift] * len(values), mark, color=colour, ms=7, mec="white",
                    clip_on=False, zorder=3)
    for metric, shift, colour, _ in looks:
        name = "the senior alone" if metric == SOLO else "handed over each step"
        ax.text(0, 1 + 1.6 * shift, name, color=colour, va="center", fontweight="bold")
    kept = {arm: sum(r[STEP][0] > 0.9 * r[SOLO][0] for r in runs) for arm, runs in arms.items()}
    title = (f"Tandem can be handed over: {kept['tandem p = .5']} seeds of {len(arms['GRPO'])}; "
             f"GRPO: {kept['GRPO']}")
    fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    ax.set(xlabel="pass@1: seeds, mean, 95% interval", xlim=(-0.02, 1.02),
           ylim=(len(shown) - 0.5, -0.5), yticks=range(len(shown)), yticklabels=shown.values())
    ax.tick_params(axis="y", length=0)
    plot.save(plt, path)


def draw(found, picture):
    """What results.json holds -> the table; draws the figure."""
    figure(found["results"]["plain junior"], picture)
    return table(found["results"], found["seeds"])


def redraw():
    return draw(read("docs/tandem/results.json"), "docs/tandem/tandem.png")


def reproduce(folder, seeds, jobs):
    own = f"{folder}/tuning.json"  # your own tuning, or the one that docs/tandem.md reports
    best = read(own if os.path.exists(own) else "docs/tandem/tuning.json")["best"]
    cells = [(arm, seed, condition) for condition, (_, arms) in CONDITIONS.items()
             for arm in arms for seed in seeds if (arm, condition) != ("GRPO", "graded junior")]

    def run_cell(arm, seed, condition):
        out = f"{folder}/{slug(arm, seed, condition)}"
        return claims.train(command(arm, seed, condition, best[arm]), out)
    done = side_by_side(run_cell, cells, jobs)
    for seed in seeds:
        plain, graded = ("GRPO", seed, "plain junior"), ("GRPO", seed, "graded junior")
        done[graded] = regrade(f"{folder}/{slug(*plain)}", f"{folder}/{slug(*graded)}")
    results = {}
    for condition, (_, arms) in CONDITIONS.items():
        results[condition] = {arm: [done[arm, seed, condition]["after"] for seed in seeds]
                              for arm in arms}
    seconds = {slug(*cell): result["seconds"] for cell, result in done.items()}
    found = {"seeds": seeds, "settings": best, "seconds": seconds, "results": results}
    claims.write(f"{folder}/results.json", found)
    text = draw(found, f"{folder}/tandem.png")
    claims.write(f"{folder}/table.md", text)
    print(text)
