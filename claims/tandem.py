"""Tandem RL against GRPO on arithmetic: arms, tuning, table, figure. See reproduce.py."""
import dataclasses
import itertools
import json
import os

import claims
from claims import (cell, finished, head, interval, over, plot, read, row, side_by_side, slug,
                    verdict)

# Name -> options of train.py. The tuning adds --lr, and --kl where there is a KL term. At p = 1
# the senior writes everything: that is GRPO, evaluated with the junior.
ARMS = {
    "GRPO": "--p 1",
    "GRPO, 2G": "--p 1 --group 16",
    "GRPO + KL to junior": "--p 1 --kl-to junior",
    "tandem p = .5": "",
    "tandem p = .625": "--p 0.625",  # as many of the senior's tokens as annealed
    "tandem p = .75": "--p 0.75",
    "annealed tandem": "--p-end 1 --p-from 0.5",
    "tandem by token": "--schedule token",
}
LONG, LINEAR = "tandem p = .5, 400 updates", "annealed from the start"
ALONE = "GRPO, tuned alone"  # for the senior alone, without a handoff
SWEEP = {f"tandem p = .{n}": f"--p 0.{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9)}
OTHERS = {LONG: "--steps 400", LINEAR: "--p-end 1 --p-from 0", ALONE: "--p 1", **SWEEP}
# Arms that are not tuned have another's setting
SETTING_OF = {LONG: "tandem p = .5", LINEAR: "annealed tandem",
              **dict.fromkeys(SWEEP, "tandem p = .5")}
# The same for every arm (kl: for those that have one)
GRID = {"lr": (1.5e-4, 3e-4, 6e-4, 1e-3), "kl": (0.05, 0.2, 0.5)}
MAIN = ("GRPO", "GRPO + KL to junior", "tandem p = .5", "annealed tandem")
FEW = ("GRPO", ALONE, "tandem p = .5")
# Name -> more options of train.py, the arms it is run with, on how many of the seeds
CONDITIONS = {
    "plain junior": ("", (*ARMS, LONG, ALONE), 10),
    "weak junior": ("--junior-target 0.6", (*MAIN, ALONE), 6),
    "a junior that knows the private notation only": ("--junior-skill private", FEW, 6),
    "senior at 40% private": ("--skill senior40", FEW, 6),
    "other coins": ("", (*SWEEP, LINEAR), 3),
}
QUICK = {"plain junior": ("", MAIN, 3)}
# GRPO does not train with a junior: there its runs with the plain one are graded by another
UNTAUGHT = ("GRPO", ALONE)
REGRADED = {"weak junior": {"junior_target": 0.6},
            "a junior that knows the private notation only": {"junior_skill": "private"}}
SECONDS = 110  # a run, with its share of the warm starts: one thread of a shared Intel Xeon
COLUMNS = {  # metric of result.json -> its column
    "solo pass@1": "solo", "solo pass@4": "solo @4", "step handoff pass@1": "step handoff",
    "step handoff pass@4": "step @4", "training handoff pass@1": "training schedule",
    "retention@1": "retention", "legibility": "legibility", "log_ratio": "log ratio",
    "kl": "exact KL", "private": "private"}
SOLO, STEP = "solo pass@1", "step handoff pass@1"
ROWS = (  # of claims/README.md: arm, against, metric, kind, the paper
    ("T1", "tandem p = .5", "GRPO", SOLO, "as good", ".549 against .556 (pass@4)"),
    ("T2", "tandem p = .5", "GRPO", STEP, "better", ".547 against .524 (pass@4)"),
    ("T3", "GRPO", "tandem p = .5", "kl", "better", "lower throughout"),
    ("T4", "GRPO", "tandem p = .5", "legibility", "better", "a chain the junior can follow"),
    ("T5", "tandem p = .5", "GRPO + KL to junior", SOLO, "better", ".549 against less"))
FINDING = (
    ("A1", "annealed tandem", "GRPO", SOLO, "as good", "ours"),
    ("A2", "annealed tandem", "tandem p = .5", SOLO, "better", "ours"),
    ("A3", "annealed tandem", "tandem p = .5", STEP, "as good", "ours"),
    ("A4", "annealed tandem", "tandem p = .625", SOLO, "better", "ours"),
    ("A5", "annealed tandem", LONG, SOLO, "as good", "ours"))
STRICTER = (
    ("T1*", "tandem p = .5", ALONE, SOLO, "as good", ".549 against .556 (pass@4)"),
    ("A1*", "annealed tandem", ALONE, SOLO, "as good", "ours"))
PAPER = ("The paper (4B model, pass@4, macro over four sets): solo GRPO 55.56, tandem 54.85; "
         "handoff GRPO 52.40, tandem 54.74; retention 94.3 against 99.8.")


def command(arm, seed, more, settings):
    """The options of one run. more: the condition's; settings: {"lr": ..., "kl": ...}"""
    options = ["--method=tandem", *{**ARMS, **OTHERS}[arm].split(), *more.split(), f"--seed={seed}"]
    return [*options, *(f"--{name}={x}" for name, x in settings.items())]


def regrade(out, target, changes):
    """A GRPO run evaluated with another junior: nothing in its training depended on one. changes:
    of tandem.Config. Done again when the run is another one by now."""
    import run
    import tandem
    options, found = run.read_config(out), finished(target)
    if found is None or found.get("of") != [options, changes]:
        cfg = run.from_json(tandem.Config, options)
        cfg = dataclasses.replace(cfg, **changes, senior=out, resume=True, compile="off")
        r = tandem.setup(cfg)
        after = tandem.measure(r, r.env.first.problems)
        os.makedirs(target, exist_ok=True)
        run.write(os.path.join(target, "result.json"),
                  json.dumps({"after": after, "seconds": finished(out)["seconds"],
                              "of": [options, changes]}))
    return finished(target)


def settings(folder):
    """The tuned settings -> {arm: {"lr": ...}}; ALONE has GRPO's grid, judged by solo pass@1."""
    found = claims.tuning(folder, "tandem")
    lines = [{**line, "score": sum(line[SOLO])} for line in found["grid"]["GRPO"]]
    return {**found["best"], ALONE: claims.choose(lines, ("lr",))}


# ---- tuning: one criterion for all arms, on valid problems of seeds that are not reported ----

def tune(folder, jobs):
    """Best of GRID for every arm by solo + step handoff pass@1 on valid problems."""
    def grid_of(arm):
        names = ("lr", "kl") if "KL" in arm else ("lr",)
        return [dict(zip(names, x)) for x in itertools.product(*(GRID[name] for name in names))]

    def options_of(arm, seed, settings):
        return command(arm, seed, "--final-split=valid --test-problems=256", settings)

    def scores_of(result):
        return {name: result["after"][name][0] for name in (SOLO, STEP)}
    points = {arm: grid_of(arm) for arm in ARMS}
    claims.tune(folder, jobs, points, options_of, scores_of, SECONDS)


# ---- table and figure ----

def table(results, seeds):
    """results: {condition: {arm: [metrics of a seed]}} -> Markdown"""
    lines = []
    for condition, arms in results.items():
        n = len(next(iter(arms.values())))
        lines += [f"\n**{condition}**, mean{over(seeds[:n])}\n", *head("arm", *COLUMNS.values())]
        for arm, runs in arms.items():
            cells = [cell([r[name][0] for r in runs]) if all(name in r for r in runs) else "-"
                     for name in COLUMNS]
            lines.append(row(arm, *cells))
        if "GRPO" not in arms:
            continue
        base = ALONE if ALONE in arms else "GRPO"
        titles = (f"against {base}, paired", SOLO, "as good as (2 points)?", STEP, "better?")
        lines += ["", *head(*titles)]
        for arm, runs in arms.items():
            if arm == base:
                continue
            solo, step = ([a[name][0] - b[name][0] for a, b in zip(runs, arms[base])]
                          for name in (SOLO, STEP))
            lines.append(row(arm, cell(solo, "+"), verdict(solo, "as good"),
                             cell(step, "+"), verdict(step, "better")))
    return "\n".join([*lines, "", PAPER])


def verdicts(arms):
    """{arm: [metrics of a seed]}, plain junior -> the tables of ROWS, FINDING and STRICTER."""
    means = {arm: [{name: x[0] for name, x in run.items()} for run in runs]
             for arm, runs in arms.items()}
    tables = {"The paper's claims": ROWS, "Finding 1: annealed tandem": FINDING,
              "The same two claims against GRPO at its best rate for the senior alone": STRICTER}
    found = {}
    for title, rows in tables.items():
        beside = [row for other in tables.values() if other is not rows for row in other]
        found[title] = claims.verdicts(rows, means, beside)
    return "\n\n".join(f"**{title}**\n\n{text}" for title, text in found.items() if text)


def figure(arms, path):
    """How accurate the senior is alone, and how accurate when it hands over at each step, with the
    plain junior: each seed, their mean and its interval. arms: {arm: [metrics of a seed]}"""
    plt = plot.pyplot()
    if plt is None:
        return
    shown = {"GRPO": "GRPO", ALONE: "GRPO,\ntuned alone",
             "GRPO + KL to junior": "GRPO + KL\nto the junior",
             "tandem p = .5": "tandem\np = .5", "tandem p = .75": "tandem\np = .75",
             "annealed tandem": "tandem,\nannealed"}
    shown = {arm: name for arm, name in shown.items() if arm in arms}
    looks = ((SOLO, -0.17, plot.GREY, "s"), (STEP, 0.17, plot.BLUE, "o"))
    fig, ax = plt.subplots(layout="constrained")
    for i, arm in enumerate(shown):
        for metric, shift, colour, mark in looks:
            values = [r[metric][0] for r in arms[arm]]
            mean, half = plot.whisker(values)
            ends = max(0, mean - half), min(1, mean + half)
            ax.plot(ends, [i + shift] * 2, color=colour, lw=1.5)
            ax.plot([mean] * 2, [i + shift - 0.13, i + shift + 0.13], color=colour, lw=3)
            ax.plot(values, [i + shift] * len(values), mark, color=colour, ms=7, mec="white",
                    clip_on=False, zorder=3)
    for metric, shift, colour, _ in looks:
        name = "the senior alone" if metric == SOLO else "handed over each step"
        free = list(shown).index("tandem p = .5")  # its points are at the right
        ax.text(0, free + 1.6 * shift, name, color=colour, va="center", fontweight="bold")
    kept = {arm: sum(r[STEP][0] > 0.9 * r[SOLO][0] for r in runs) for arm, runs in arms.items()}
    plot.title(fig, f"Tandem can be handed over: {kept['tandem p = .5']} seeds of "
                    f"{len(arms['GRPO'])}; GRPO: {kept['GRPO']}")
    ax.set(xlabel="pass@1: seeds, mean, 95% interval", xlim=(-0.02, 1.02),
           ylim=(len(shown) - 0.5, -0.5), yticks=range(len(shown)), yticklabels=shown.values())
    ax.tick_params(axis="y", length=0)
    plot.save(plt, path)


def coins(results, path):
    """Which coin: the senior alone, handed over at each step, and its drift from the junior, over
    p; at p = 1 it is GRPO, at the same rate. Each seed, and the line of means. results: as table()
    takes them"""
    plt = plot.pyplot()
    if plt is None:
        return
    plain, others = results["plain junior"], results["other coins"]
    runs = {float(arm.split()[-1]): others[arm] for arm in SWEEP}
    seeds = len(runs[0.1])
    runs |= {0.5: plain["tandem p = .5"][:seeds], 1.0: plain[ALONE][:seeds]}

    def mean(p, metric):
        return interval([r[metric][0] for r in runs[p]])[0]
    fig, (upper, lower) = plt.subplots(2, height_ratios=(3, 2), sharex=True, layout="constrained")
    for ax, metric, colour, mark, name, at in (
            (upper, SOLO, plot.GREY, "s", "alone", (0.12, 0.55)),
            (upper, STEP, plot.BLUE, "o", "handed over each step", (0.3, 0.55)),
            (lower, "kl", plot.RED, "^", "", (0, 0))):
        ax.plot(sorted(runs), [mean(p, metric) for p in sorted(runs)], color=colour)
        for p, found in runs.items():
            ax.plot([p] * seeds, [r[metric][0] for r in found], mark, color=colour, ms=6,
                    mec="white", clip_on=False, zorder=3)
        ax.text(*at, name, color=colour, fontweight="bold")
    kept = max((p for p in runs if mean(p, STEP) > 0.9 * mean(p, SOLO)), default=0)
    plot.title(fig, f"The team keeps what the senior can up to p = {kept}")
    upper.set(ylabel="pass@1", ylim=(0, 1.02))
    lower.set(ylabel="nats a token\nfrom the junior", yscale="log", xlim=(0.05, 1.02),
              xlabel="p, the senior's share of the draws (1: GRPO)")
    plot.save(plt, path)


def draw(found, folder):
    """What results.json holds -> the tables; draws the figures into the folder."""
    plain = found["results"]["plain junior"]
    figure(plain, f"{folder}/tandem.png")
    if "other coins" in found["results"]:
        coins(found["results"], f"{folder}/coins.png")
    return f"{verdicts(plain)}\n{table(found['results'], found['seeds'])}"


def redraw():
    return draw(read("docs/tandem/results.json"), "docs/tandem")


def reproduce(folder, seeds, jobs, quick=False):
    """quick: fewer arms and seeds."""
    best = settings(folder)
    conditions, cells = QUICK if quick else CONDITIONS, []
    for condition, (_, arms, most) in conditions.items():
        regraded = UNTAUGHT if condition in REGRADED else ()
        cells += [(arm, seed, condition) for arm in arms if arm not in regraded
                  for seed in seeds[:most]]

    def folder_of(*cell):
        return f"{folder}/{slug(*cell)}"

    def run_cell(arm, seed, condition):
        settings = best[SETTING_OF.get(arm, arm)]
        options = command(arm, seed, conditions[condition][0], settings)
        return claims.train(options, folder_of(arm, seed, condition))
    done = side_by_side(run_cell, cells, jobs, folder_of, SECONDS)
    results = {}
    for condition, (_, arms, most) in conditions.items():
        again = [arm for arm in arms if condition in REGRADED and arm in UNTAUGHT]
        for arm, seed in itertools.product(again, seeds[:most]):
            done[arm, seed, condition] = regrade(
                folder_of(arm, seed, "plain junior"), folder_of(arm, seed, condition),
                REGRADED[condition])
        results[condition] = {arm: [done[arm, seed, condition]["after"] for seed in seeds[:most]]
                              for arm in arms}
    seconds = {slug(*cell): result["seconds"] for cell, result in done.items()}
    found = {"seeds": seeds, "settings": best, "seconds": seconds, "results": results}
    claims.write(f"{folder}/results.json", found)
    text = draw(found, folder)
    claims.write(f"{folder}/table.md", text)
    print(text)
