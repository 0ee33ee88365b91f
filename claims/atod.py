"""ATOD against its parts, its baselines and its teacher, on the house: arms, table, figure. See
reproduce.py."""
import claims
from claims import cell, head, interval, over, plot, read, row, side_by_side, slug, updates, verdict

ARMS = {  # name -> options of train.py; all start from the seed's student and see as many episodes
    "ATOD": "--method atod",
    "OPD": "--method opd",
    "GRPO": "--method atod --mix grpo",
    "fixed mix": "--method atod --mix fixed",  # kappa = rho = 1, with turn weights
    "annealed, w = 1": "--method atod --weights one",
    "annealed, uniform w": "--method atod --weights uniform",  # T-DUR's mean for every turn
    "annealed, w by token": "--method atod --weights token",
}
QUICK = ("ATOD", "OPD", "GRPO", "annealed, w = 1")
TUNED = ("ATOD", "OPD", "GRPO", "fixed mix")  # arms that differ from ATOD in w alone have its rate
GRID = (2.5e-4, 5e-4, 1e-3)
ROWS = (  # of claims/README.md: arm, against, metric, kind, the paper
    ("D1", "ATOD", "teacher", "success", "better", ".706 against .689 (0.6B)"),
    ("D2", "ATOD", "OPD", "success", "better", ".706 against .677"),
    ("D3", "ATOD", "GRPO", "success", "better", ".706 against .332"),
    ("D4", "ATOD", "fixed mix", "success", "better", ".828 against .758 (ALFWorld)"),
    ("D5", "ATOD", "annealed, w = 1", "success", "better", ""),
    ("D6", "ATOD", "annealed, uniform w", "success", "better", ".828 against about .79 (ALFWorld)"),
    ("D7", "ATOD", "annealed, w by token", "success", "better",
     ".828 against about .80 (ALFWorld)"))
# When do T-DUR's weights matter? One factor at a time, three seeds: name -> options of train.py
FACTORS = {
    "as it is": "",
    "a habit in every turn": "--student-player restless",
    "teacher at .55": "--teacher-target 0.55",  # that is what its demonstrations end at: no reward
    "teacher at .8": "--teacher-target 0.8",
    "annealed for a quarter": "--anneal 0.25",
    "annealed to the end": "--anneal 1",
}
WEIGHED = ("ATOD", "annealed, uniform w")
SECONDS = 100  # a run, with its share of teacher and student: one thread of an Intel Xeon
FAMILIES = ("put", "clean", "heat", "cool", "examine", "two")
PAPER = {"GRPO": "33.2 / 40.3 / 68.9", "OPD": "67.7 / 64.9 / 68.1", "ATOD": "70.6 / 71.6 / 71.1",
         "teacher": "68.9"}  # 0.6B / 1.7B / 4B, average
COLUMNS = {"success": "sampled", "greedy": "greedy", "turns": "turns",
           "last look": "valid, last look", "best look": "best look",
           "zero variance": "zero-variance groups", "A_opd": "size of distillation",
           "seconds": "seconds of updates"}


def command(arm, seed, settings, *more):
    """The options of one run. settings: {"lr": ...}"""
    return [*ARMS[arm].split(), f"--seed={seed}", f"--lr={settings['lr']}", *more]


def metrics_of(result, curve):
    """result.json and metrics.jsonl of a run -> what the table has of it"""
    times = result["times"]
    return {**player(result, "after"),
            "best look": max(success for success, _ in result["looks"]),
            "last look": result["looks"][-1][0],
            "looks": result["looks"],
            "seconds": sum(times.values()) - times["time_environment"],  # which is in the rollout's
            **{column: sum(line[name] for line in curve) / len(curve)
               for name, column in (("zero_variance", "zero variance"), ("A_opd", "A_opd"))}}


def player(result, column):
    """The teacher, the student or the trained student, as the final table has them."""
    sampled, greedy = result["columns"][column], result["columns"][f"{column}, greedy"]
    return {"success": sampled["success"][0], "greedy": greedy["success"][0],
            "turns": sampled["turns"][0],
            **{family: sampled[family][0] for family in FAMILIES if family in sampled}}


def table(results, seeds):
    """results: {player or arm: [metrics of a seed]} -> Markdown"""
    lines = [f"**success on test houses**, mean{over(seeds)}\n",
             *head("", *COLUMNS.values(), "the paper, %")]
    for arm, runs in results.items():
        cells = [cell([r[name] for r in runs]) if name in runs[0] else "-" for name in COLUMNS]
        lines.append(row(arm, *cells, PAPER.get(arm, "")))
    lines += ["\n**by family**, sampled\n", *head("", *FAMILIES)]
    for arm, runs in results.items():
        cells = [f"{interval([r[family] for r in runs])[0]:.2f}" if family in runs[0] else "-"
                 for family in FAMILIES]
        lines.append(row(arm, *cells))
    lines += looks_table({arm: [r["looks"] for r in runs] for arm, runs in results.items()
                          if "looks" in runs[0]})
    lines += ["\n**claims**, paired over seeds\n",
              *head("ATOD against", "sampled", "better?", "greedy", "better?")]
    for other in results:
        if other in ("ATOD", "student"):
            continue
        found = [[a[name] - b[name] for a, b in zip(results["ATOD"], results[other])]
                 for name in ("success", "greedy")]
        lines.append(row(other, *(x for d in found for x in (cell(d, "+"), verdict(d, "better")))))
    return "\n".join(lines)


def looks_table(arms):
    """arms: {arm: [[[valid success, update]] of a seed]} -> lines"""
    updates = [f"update {update}" for _, update in arms["ATOD"][0]]
    lines = ["\n**success on valid houses as training goes on**\n", *head("", *updates)]
    found = {arm: [[success for success, _ in at] for at in zip(*runs)]
             for arm, runs in arms.items()}  # arm -> of each look, of each seed
    for arm, looks in found.items():
        lines.append(row(arm, *(f"{interval(values)[0]:.2f}" for values in looks)))
    gaps = [[a - b for a, b in zip(*both)] for both in zip(found["ATOD"], found["GRPO"])]
    return [*lines, row("ATOD - GRPO", *(cell(values, "+") for values in gaps))]


def figure(results, path):
    """Success of the arms with intervals, beside the teacher's. results: as table() takes them"""
    plt = plot.pyplot()
    if plt is None:
        return
    names = {"ATOD": "ATOD: annealed", "GRPO": "reward alone (GRPO)", "fixed mix": "a fixed mix",
             "OPD": "teacher alone (OPD)", "student": "before training"}
    names = {arm: name for arm, name in names.items() if arm in results}
    fig, ax = plt.subplots(layout="constrained")
    teacher, _ = interval([r["success"] for r in results["teacher"]])
    ax.axvline(teacher, color=plot.RED, ls="--")
    ax.text(teacher - 0.015, -0.66, f"its teacher {teacher:.2f}", color=plot.RED, fontweight="bold",
            ha="right", va="center")
    for y, arm in enumerate(names):
        values = [r["success"] for r in results[arm]]
        mean, half = plot.whisker(values)
        ax.barh(y, mean, 0.62, color=plot.BLUE if arm == "ATOD" else "#b8b8b8")
        ax.errorbar(mean, y, xerr=half, color=plot.BLACK, capsize=4, lw=1.5)
        ax.plot(values, [y] * len(values), "o", color="white", mec=plot.BLACK, ms=5, zorder=3)
        right = max(mean + half, *values)
        ax.text(right + 0.02, y, f"{mean:.2f}", fontweight="bold", va="center")
    passes = sum(a["success"] > b["success"] for a, b in zip(results["ATOD"], results["teacher"]))
    plot.title(fig, f"ATOD passes its teacher on {passes} seeds of {len(results['ATOD'])}")
    ax.set(xlabel="success on test houses, 95% interval", xlim=(0, 1.06),
           ylim=(len(names) - 0.5, -0.95), yticks=range(len(names)), yticklabels=names.values())
    ax.tick_params(axis="y", length=0)
    plot.save(plt, path)


def draw(found, picture):
    """What results.json holds -> the tables; draws the figure."""
    figure(found["results"], picture)
    results = found["results"]
    return f"{claims.verdicts(ROWS, results)}\n\n{table(results, found['seeds'])}"


def redraw(compare="paper"):
    if compare == "tdur":
        return draw_factors(read("docs/atod/tdur.json"), "docs/atod/tdur.png")
    return draw(read("docs/atod/results.json"), "docs/atod/atod.png")


def tune(folder, jobs):
    """The learning rate of every arm of TUNED, by success on valid houses."""
    def options_of(arm, seed, settings):
        return command(arm, seed, settings, "--final-split=valid")

    def scores_of(result):
        return {"success": player(result, "after")["success"]}
    points = {arm: [{"lr": lr} for lr in GRID] for arm in TUNED}
    claims.tune(folder, jobs, points, options_of, scores_of, SECONDS)


def factors(folder, seeds, jobs):
    """Finding 3: ATOD with T-DUR's weights against its mean for every turn, under all FACTORS."""
    best = claims.settings(folder, "atod")["ATOD"]
    cells = [(name, arm, seed) for name in FACTORS for arm in WEIGHED for seed in seeds]

    def folder_of(name, arm, seed):  # "as it is" are the paper's own runs
        return f"{folder}/{slug(arm, seed, *([name] if FACTORS[name] else []))}"

    def run_cell(name, arm, seed):
        return claims.train(command(arm, seed, best, *FACTORS[name].split()),
                            folder_of(name, arm, seed))
    done = side_by_side(run_cell, cells, jobs, folder_of, SECONDS)
    results = {name: {arm: [player(done[name, arm, seed], "after")["success"] for seed in seeds]
                      for arm in WEIGHED} for name in FACTORS}
    for name, arms in results.items():
        arms["teacher"] = [player(done[name, "ATOD", seed], "teacher")["success"] for seed in seeds]
    found = {"seeds": seeds, "settings": best, "results": results}
    claims.write(f"{folder}/tdur.json", found)
    text = draw_factors(found, f"{folder}/tdur.png")
    claims.write(f"{folder}/tdur.md", text)
    print(text)


def draw_factors(found, path):
    """What tdur.json holds -> its table; draws the differences and their intervals."""
    lines = [f"**T-DUR against uniform weights**, success, mean{over(found['seeds'])}\n",
             *head("", "teacher", *WEIGHED, "difference")]
    gaps = {}
    for name, arms in found["results"].items():
        gaps[name] = [a - b for a, b in zip(*(arms[arm] for arm in WEIGHED))]
        shown = (cell(arms[arm]) for arm in ("teacher", *WEIGHED))
        lines.append(row(name, *shown, cell(gaps[name], "+")))
    plt = plot.pyplot()
    if plt is not None:
        fig, ax = plt.subplots(layout="constrained")
        ax.axvline(0, color=plot.GREY, lw=1)
        for y, values in enumerate(gaps.values()):
            plot.spread(ax, y, values, plot.BLUE, sideways=True)
        differ = sum(verdict(values, "better") != "unclear" for values in gaps.values())
        plot.title(fig, f"T-DUR: a clear difference in {differ} of {len(gaps)} settings")
        ax.set(ylim=(len(gaps) - 0.5, -0.5), xlabel="success: T-DUR - uniform weights",
               yticks=range(len(gaps)), yticklabels=list(gaps))
        plot.save(plt, path)
    return "\n".join(lines)


def reproduce(folder, seeds, jobs, compare="paper", quick=False):
    """quick: fewer arms. compare "tdur": finding 3."""
    if compare == "tdur":
        return factors(folder, seeds, jobs)
    best = claims.settings(folder, "atod")
    arms = QUICK if quick else tuple(ARMS)
    # the first arm makes the warm starts, of several seeds at once
    cells = [(arm, seed) for arm in arms for seed in seeds]

    def folder_of(*cell):
        return f"{folder}/{slug(*cell)}"

    def run_cell(arm, seed):
        settings = best.get(arm, best["ATOD"])
        return claims.train(command(arm, seed, settings), folder_of(arm, seed))
    done = side_by_side(run_cell, cells, jobs, folder_of, SECONDS)
    results = {name: [player(done["ATOD", seed], column) for seed in seeds]
               for name, column in (("teacher", "teacher"), ("student", "before"))}
    for arm in arms:
        results[arm] = [metrics_of(done[arm, seed], updates(folder_of(arm, seed)))
                        for seed in seeds]
    found = {"seeds": seeds, "settings": best, "results": results}
    claims.write(f"{folder}/results.json", found)
    text = draw(found, f"{folder}/atod.png")
    claims.write(f"{folder}/table.md", text)
    print(text)
