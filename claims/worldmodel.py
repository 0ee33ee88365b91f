"""World models on the house: arms, tables, claims, figure. See reproduce.py."""
import os
import statistics

import claims
import imagine
from claims import cell, head, judged, over, plot, read, row, side_by_side, slug, verdict

WORLDS = {  # arm -> options of train.py
    "stateless": "--formulation stateless",
    "stateless, equal compute": "--formulation stateless",
    "leaky": "--formulation leaky --terms format,dedup",
    "leaky + R_sup": "--formulation leaky",
    "strict": "--terms format,dedup",
    "strict + R_sup": "",
    "strict + R_sup, plain GRPO": "--flat",
    "strict + R_sup, plain GRPO, equal time": "--flat",
}
# Arm -> the arm that it is but for the number of updates: as many as take strict's seconds
EQUAL = {"stateless, equal compute": "stateless",
         "strict + R_sup, plain GRPO, equal time": "strict + R_sup, plain GRPO"}
COMPARISONS = {  # --compare -> what its table is called, its arms, further options
    "paper": ("last 4 observations in view", ("stateless", "stateless, equal compute", "leaky",
              "leaky + R_sup", "strict", "strict + R_sup", "strict + R_sup, plain GRPO",
              "strict + R_sup, plain GRPO, equal time"), ""),
    "short": ("a warm start of 500 steps", ("strict + R_sup", "strict + R_sup, plain GRPO",
              "strict + R_sup, plain GRPO, equal time"), "--warm-steps=500"),
    "window1": ("the last observation in view", ("stateless", "strict + R_sup"), "--window=1"),
    "window2": ("last 2 observations in view", ("stateless", "strict + R_sup"), "--window=2"),
    "window8": ("last 8 observations in view", ("stateless", "strict + R_sup"), "--window=8"),
    "unbounded": ("whole history in view", ("stateless", "leaky + R_sup", "strict + R_sup"),
                  "--window=0")}
AGES = [f"{a}-{b}" for a, b in imagine.AGES]  # observations since a room was in view
WINDOWS = {"window1": "1", "window2": "2", "paper": "4", "window8": "8", "unbounded": "all"}
QUICK = ("stateless", "leaky + R_sup", "strict + R_sup")
TUNED = tuple(arm for arm in WORLDS if arm not in EQUAL)
GRID = (1.5e-4, 3e-4, 6e-4)
SECONDS = 700  # a run of ten seeds, with its share of all: one thread of a shared Intel Xeon
ROWS = (  # of claims/README.md: arm, against, metric, kind, the paper
    ("W1", "strict + R_sup", "stateless", "obs H=1", "as good",
     ".774 against .789 (ScienceWorld, 5 facts)"),
    ("W2", "strict + R_sup", "leaky + R_sup", "state s' H=1", "better", ".573 against .533"),
    ("W3", "strict + R_sup", "leaky + R_sup", "usefulness", "better", ""),
    ("W4", "strict + R_sup", "leaky + R_sup", "needed facts in s' H=1", "better", ""),
    ("W5", "strict + R_sup", "leaky + R_sup", "obs H=9", "better", ".570 against .433 (TextWorld)"),
    ("W6", "strict + R_sup", "stateless", "obs H=9", "better", ".570 against .505 (TextWorld)"),
    ("W7", "strict + R_sup", "stateless, equal compute", "obs H=9", "better", ""),
    ("W8", "strict + R_sup", "leaky + R_sup", "own - another's", "better", "by construction"),
    ("W9", "strict + R_sup", "strict + R_sup, plain GRPO", "T=1", "better",
     "fGRPO against plain GRPO, equal samples"),
    ("W10", "strict + R_sup", "strict + R_sup, plain GRPO, equal time", "T=1", "better",
     "1.58 x a step of GRPO"))
JUDGED = {"paper": ROWS, "short": ROWS[-2:]}  # --compare -> its rows
WORLD_TABLES = {  # title -> {metric of result.json: its column}
    "one step": {
        "obs.F1 level 2": "obs.F1, level 2", "obs.F1 level 3": "level 3", "T=1": "sampled",
        "state.F1 s level 2": "state.F1 of s, level 2", "state.F1 s level 3": "level 3",
        "state.F1 s' level 2": "state.F1 of s', level 2", "state.F1 s' level 3": "level 3",
        "CR": "CR", "well-formed": "well-formed"},
    "rollouts, obs.F1": {
        "obs H=1": "H = 1", "obs H=5": "5", "obs H=9": "9", "obs 1-4": "1 to 4",
        "obs 5-9": "5 to 9", "obs 10-25": "10 to 25", "obs, known rooms": "known rooms"},
    "rollouts, obs.F1 by how long ago a room was in view": {
        f"obs, seen {a}-{b} ago": f"{a} to {b} observations ago" for a, b in imagine.AGES},
    "rollouts, s'": {
        "state s' H=1": "state.F1, H = 1", "state s' H=5": "5", "state s' H=9": "9",
        "state s' 10-25": "10 to 25", "needed facts in s' H=1": "recall, H = 1",
        "needed facts in s' H=5": "5", "needed facts in s' H=9": "9",
        "needed facts in s' 10-25": "10 to 25"},
    "usefulness of s', H = 1: what the common decoder makes of": {
        "usefulness": "the arm's s'", "ceiling": "the fewest facts (ceiling)",
        "all facts": "all true facts that fit", "floor": "no state (floor)"},
    "mediation, time": {
        "own state": "own state", "another's state": "another's state",
        "own - another's": "own - another's", "action alone": "action alone (floor)",
        "history leak": "history leak", "seconds": "updates, s"}}
CLAIMS = (  # arm, against, metric, kind, what the paper says
    ("strict + R_sup", "leaky + R_sup", "obs H=1", "as good",
     "obs.F1 .774 / .793 / .728 against .722 / .730 / .356 (ScienceWorld)"),
    ("strict + R_sup", "stateless", "obs H=1", "as good",
     ".774 / .793 / .728 against .789 / .765 / .562 (ScienceWorld)"),
    ("strict + R_sup", "leaky + R_sup", "state s' H=1", "better",
     "state.F1 .573 / .620 / .574 against .533 / .560 / .365 (ScienceWorld)"),
    ("strict", "leaky", "state s' H=1", "better", "both without R_sup"),
    ("strict", "leaky", "obs 5-9", "better", "both without R_sup"),
    ("strict + R_sup", "leaky + R_sup", "own - another's", "better",
     "strict depends on its state, leaky may bypass it"),
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
    ("strict + R_sup", "strict, warm start", "T=1", "better", "what the training adds, sampled"),
    ("strict + R_sup", "strict, warm start", "obs 10-25", "better", "and greedy"))


def world_columns(result):
    """result.json of a world model -> {"trained": {metric: mean}, "warm": the same}. With
    "usefulness", where it was measured: what the decoder found."""
    own = next(name.split(", ")[0] for name in result["columns"] if name.endswith(", trained"))
    out = {}
    for name, column in result["columns"].items():
        formulation, when, *sampled = name.split(", ")
        if sampled:
            out.setdefault(when, {})["T=1"] = column["obs H=1"][0]
        elif formulation == own:
            out.setdefault(when, {}).update({metric: x[0] for metric, x in column.items()})
    out["trained"]["seconds"] = result["update_seconds"]
    out["trained"].update(result.get("usefulness", {}))
    return out


def world_tables(arms):
    """arms: {arm: [{metric: mean} of a seed]} -> Markdown"""
    lines = []
    for title, columns in WORLD_TABLES.items():
        rows = []
        for arm, runs in arms.items():
            found = [[r[metric] for r in runs if metric in r] for metric in columns]
            found = [x if len(x) == len(runs) else [] for x in found]  # of all seeds, or none
            if any(found):
                rows.append(row(arm, *(cell(x) if x else "-" for x in found)))
        if rows:
            lines += [f"\n**{title}**\n", *head("arm", *columns.values()), *rows]
    lines += ["\n**claims**, paired over seeds\n",
              *head("arm", "against", "metric", "difference", "verdict", "the paper")]
    for arm, other, metric, kind, paper in CLAIMS:
        if arm in arms and other in arms:
            differences = [a[metric] - b[metric] for a, b in zip(arms[arm], arms[other])]
            lines.append(row(arm, other, judged(differences, metric, kind), paper))
    return "\n".join(lines)


def world_figure(arms, path):
    """obs.F1 of imagined steps, by how far they are from the last thing seen, with intervals."""
    plt = plot.pyplot()
    if plt is None:
        return
    looks = {"strict + R_sup": ("strict", plot.BLUE, "o", "-"),
             "stateless": ("stateless", plot.RED, "s", "--"),
             "leaky + R_sup": ("leaky", plot.GREEN, "^", "-.")}
    metrics = {"obs H=1": "1", "obs 1-4": "1-4", "obs 5-9": "5-9", "obs 10-25": "10-25"}
    fig, ax = plt.subplots(layout="constrained")
    ends = []
    for shift, (arm, (name, colour, mark, style)) in enumerate(looks.items(), -1):
        found = [plot.whisker([r[metric] for r in arms[arm]]) for metric in metrics]
        x = [i + 0.06 * shift for i in range(len(metrics))]  # side by side: intervals overlap
        ax.plot(x, [mean for mean, _ in found], style, marker=mark, ms=8, color=colour)
        for at, (mean, half) in zip(x, found):
            ax.errorbar(at, mean, yerr=half, color=colour, lw=1.3, capsize=3)
        ends.append((name, found[-1][0], colour))
    low, high = ax.get_ylim()
    plot.label_ends(ax, len(metrics) - 0.8, ends, 0.07 * (high - low))
    lost = {arm: sum(r["obs H=1"] - r["obs 10-25"] for r in arms[arm]) for arm in looks}
    least = looks[min(lost, key=lost.get)][0]
    plot.title(fig, f"{least.capitalize()} loses least as it imagines on")
    ax.set(xlabel="imagined step", ylabel="obs.F1, 95% interval", xlim=(-0.3, len(metrics) - 0.1),
           xticks=range(len(metrics)), xticklabels=metrics.values())
    plot.save(plt, path)


# Finding 2: what strict gains over stateless, by the window that both see, and by how long ago a
# room was in view.

def gains(results, metric):
    """strict + R_sup - stateless, one a seed; [] where the comparison lacks the metric."""
    arms, = results["results"].values()
    pairs = zip(arms["strict + R_sup"], arms["stateless"])
    return [a[metric] - b[metric] for a, b in pairs if metric in a and metric in b]


def memory_table(found):
    """Is the gain larger where the window is smaller, and where a room was seen longer ago? found:
    {comparison: its file} -> Markdown"""
    lines = ["**strict + R_sup - stateless, obs.F1**, paired over seeds\n",
             *head("", "gain, H = 9", *(f"seen {age} ago" for age in AGES))]
    for compare, results in found.items():
        found_here = [gains(results, metric) for metric in ("obs H=9", *map(seen, AGES))]
        cells = [cell(x, "+") if x else "-" for x in found_here]
        lines.append(row(f"window {WINDOWS[compare]}", *cells))
    asked = {}
    if {"window1", "paper"} <= found.keys():
        asked["at window 1 than at window 4, H = 9"] = [
            a - b for a, b in zip(*(gains(found[c], "obs H=9") for c in ("window1", "paper")))]
    for compare, results in found.items():
        asked[f"for rooms seen {AGES[-1]} ago than {AGES[0]}, window {WINDOWS[compare]}"] = [
            a - b for a, b in zip(*(gains(results, seen(AGES[i])) for i in (-1, 0)))]
    answered = [row(question, cell(x, "+"), verdict(x, "better")) for question, x in asked.items()
                if x]
    if answered:
        lines += ["", *head("is the gain larger", "difference", "better?"), *answered]
    return "\n".join(lines)


def seen(age):
    return f"obs, seen {age} ago"


def memory_figure(found, path):
    """The gains as memory_table() has them: each seed, mean, interval."""
    plt = plot.pyplot()
    if plt is None:
        return
    fig, (left, right) = plt.subplots(1, 2, sharey=True, layout="constrained", figsize=(8, 4))
    for x, results in enumerate(found.values()):
        plot.spread(left, x, gains(results, "obs H=9"), plot.BLUE)
    for compare, shift, colour in (("window1", -0.12, plot.RED), ("paper", 0.12, plot.BLUE)):
        if compare in found:
            for x, age in enumerate(AGES):
                gained = gains(found[compare], seen(age))
                if gained:
                    plot.spread(right, x + shift, gained, colour)
            right.text(0.03, 0.9 if shift < 0 else 0.8, f"window {WINDOWS[compare]}", color=colour,
                       fontweight="bold", transform=right.transAxes)
    for ax in (left, right):
        ax.axhline(0, color=plot.GREY, lw=1)
    low, high = left.get_ylim()
    left.set_ylim(low, high + 0.2 * (high - low))  # room for the names
    left.set(ylabel="obs.F1, strict - stateless", xlabel="observations in view, H = 9",
             xticks=range(len(found)), xticklabels=[WINDOWS[compare] for compare in found])
    right.set(xlabel="observations since a room was seen", xticks=range(len(AGES)),
              xticklabels=AGES)
    plot.title(fig, "What a state remembers beyond the window")
    plot.save(plt, path)


def memory(folder="docs/worldmodel"):
    """The table and the figure of finding 2, from the comparisons of WINDOWS that were made."""
    paths = {compare: f"{folder}/{file_of(compare)}.json" for compare in WINDOWS}
    found = {compare: read(path) for compare, path in paths.items() if os.path.exists(path)}
    if not found:
        return f"{folder} has no comparison of windows: reproduce.py worldmodel --compare window1"
    memory_figure(found, f"{folder}/memory.png")
    return memory_table(found)


def draw(found, compare, folder):
    """What a results file holds -> its tables; draws the figure of the paper's own comparison."""
    (title, arms), = found["results"].items()
    if compare == "paper":
        world_figure(arms, f"{folder}/worldmodel.png")
    text = f"### {title}, mean{over(found['seeds'])}\n"
    if compare in JUDGED:
        text += f"\n{claims.verdicts(JUDGED[compare], arms)}\n"
    return text + world_tables(arms)


def file_of(compare):
    """The name of a comparison's files."""
    return "results" if compare == "paper" else compare


def redraw(compare):
    if compare == "memory":
        return memory()
    return draw(read(f"docs/worldmodel/{file_of(compare)}.json"), compare, "docs/worldmodel")


def useful(out):
    """How useful a finished run's states are, by the common decoder, unless it is known"""
    path = os.path.join(out, "usefulness.json")
    if not os.path.exists(path):
        claims.call(["-m", "claims.usefulness", out], out + ".log")
    return read(path)


def command(arm, seed, settings, *more):
    """The options of one run. settings: {"lr": ...}"""
    return ["--method=worldmodel", *WORLDS[arm].split(), f"--seed={seed}", f"--lr={settings['lr']}",
            *more]


def equal_steps(arm, seconds):
    """As many updates of an arm of EQUAL as take the seconds of strict's 100. seconds: {arm: of
    100 updates}, as the tuning measured them"""
    return f"--steps={round(100 * seconds['strict + R_sup'] / seconds[EQUAL[arm]])}"


def tune(folder, jobs):
    """The learning rate of every arm of TUNED, by obs.F1 at H = 1 and 9 on valid examples."""
    def options_of(arm, seed, settings):
        return command(arm, seed, settings, "--final-split=valid")

    def scores_of(result):
        trained = world_columns(result)["trained"]
        return {name: trained[name] for name in ("obs H=1", "obs H=9")}

    def seconds_of(done):  # of 100 updates: equal_steps() needs them
        return {"seconds": {arm: statistics.median(
            result["update_seconds"] for cell, result in done.items() if cell[0] == arm)
            for arm in TUNED}}
    points = {arm: [{"lr": lr} for lr in GRID] for arm in TUNED}
    claims.tune(folder, jobs, points, options_of, scores_of, SECONDS, also=seconds_of)


def reproduce(folder, seeds, jobs, compare, quick=False):
    """One of COMPARISONS; in the paper's own, states are judged by a common decoder. quick: fewer
    arms, without that decoder."""
    title, names, options = COMPARISONS[compare]
    names = tuple(arm for arm in names if arm in QUICK) if quick else names
    tuned = claims.tuning(folder, "worldmodel")
    best = tuned["best"]

    def folder_of(*cell):
        return f"{folder}/{slug(compare, *cell)}"

    def run_arm(arm, seed):
        more = [*options.split(), *([equal_steps(arm, tuned["seconds"])] if arm in EQUAL else [])]
        result = claims.train(command(arm, seed, best[EQUAL.get(arm, arm)], *more),
                              folder_of(arm, seed))
        if compare != "paper" or quick:
            return result
        if "stateless" not in arm:
            result = {**result, "usefulness": useful(folder_of(arm, seed))}
        return result
    cells = [(arm, seed) for arm in names for seed in seeds]
    done = side_by_side(run_arm, cells, jobs, folder_of, SECONDS)
    columns = {arm: [world_columns(done[arm, seed]) for seed in seeds] for arm in names}
    started = {"stateless": "stateless", "leaky": "leaky + R_sup", "strict": "strict + R_sup"}
    arms = {f"{form}, warm start": [c["warm"] for c in columns[arm]]
            for form, arm in started.items() if arm in columns}
    arms.update({arm: [c["trained"] for c in runs] for arm, runs in columns.items()})
    found = {"seeds": seeds, "settings": best, "results": {title: arms}}
    claims.write(f"{folder}/{file_of(compare)}.json", found)
    text = draw(found, compare, folder)
    claims.write(f"{folder}/{file_of(compare)}.md", text)
    print(text)
    if compare in WINDOWS and compare != "paper":
        print(f"\n{memory(folder)}")
