"""What the comparisons of arms share: train.py once an arm and seed, intervals, verdicts.

An arm is one `train.py` command. Seeds are paired: a seed has its warm starts, its tasks and its
random numbers, so the difference of two arms is taken within a seed. "better" is reproduced when
the 95% t-interval of the paired difference lies above zero; "as good as" when it lies within 2
points; see verdict().
"""
import json
import math
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

# Student's t, two-sided 95%, by the number of seeds
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


# ---- runs ----

def read(path):
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(f"{path}: {error.msg}", error.doc, error.pos) from None


def write(path, found):
    """Text as it is, anything else as JSON; whole or not at all."""
    import run  # only here: it loads torch
    text = found if isinstance(found, str) else json.dumps(found, indent=1)
    run.write(str(path), text + "\n")


def finished(out):
    """The result of a run; None when it has none yet, or half of one."""
    try:
        return read(os.path.join(out, "result.json"))
    except (FileNotFoundError, ValueError):
        return None


def updates(out):
    """The lines of a run's metrics.jsonl, one an update."""
    with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def train(options, out):
    """Run one train.py command, or go on with it, unless it is done -> its result"""
    check_same(options, out)
    if finished(out) is None:
        call(["train.py", *options, f"--out={out}", "--threads=1", "--resume"], out + ".log")
    return finished(out)


def check_same(options, out):
    """Ends the program when the folder holds a run that was made with other options, or with other
    defaults. An option that is newer than the run is left out of account."""
    import run  # only here: they load torch
    from lib.resume import MAY_CHANGE
    from train import read_options
    if not os.path.exists(os.path.join(out, "config.json")):
        return
    made = run.read_config(out)
    wanted = run.as_json(read_options(options)[1])
    for name in made.keys() & wanted.keys() - set(MAY_CHANGE):
        if made[name] != wanted[name]:
            sys.exit(f"{out} was made with {run.flag(name)} {made[name]}, not {wanted[name]}; "
                     "move it away and run this again")


def call(command, log):
    """Run a command of this project, its output into a file. Ends the program when it fails."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        code = subprocess.run([sys.executable, *command], stdout=file, stderr=file).returncode
    if code:
        sys.exit(f"{' '.join(command)} ended with code {code}: see {log}; run this again to go on")


def side_by_side(work, cells, jobs, folder_of, seconds, finished=finished):
    """Do the work of every cell, `jobs` at a time -> {cell: work(*cell)}. Says beforehand and in
    between how long it will take. folder_of(*cell): the run's; seconds: what a run takes, about;
    finished(folder): what it found, None when there is something to do."""
    left = [cell for cell in cells if finished(folder_of(*cell)) is None]
    print(f"{len(cells)} runs, {len(cells) - len(left)} of them are done; the others take about "
          f"{minutes(len(left) * seconds / jobs)}", flush=True)
    began, done = time.time(), []

    def run(cell):
        result = work(*cell)
        if cell in left:
            done.append(cell)
            rest = (time.time() - began) / len(done) * (len(left) - len(done))
            print(f"{len(done)} of {len(left)}: {', '.join(map(str, cell))}; "
                  f"about {minutes(rest)} left", flush=True)
        return result
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(cells, pool.map(run, cells)))


def minutes(seconds):
    """90 minutes and more in hours."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def slug(*parts):
    return "-".join("".join(c if c.isalnum() else "" for c in str(p)) for p in parts)


def tune(folder, jobs, points, options_of, scores_of, seconds, seeds=(99, 100), also=lambda _: {}):
    """Run every arm at every point of its grid, on seeds that are not reported, choose the best
    settings of each arm and write tuning.json. points: {arm: [{"lr": ..., "kl": ...}]};
    options_of(arm, seed, point): of train.py; scores_of(result): {name: number}, whose sum is the
    criterion; also({(arm, seed, point): result}): what tuning.json gets besides."""
    cells = [(arm, seed, i) for arm, grid in points.items() for i in range(len(grid))
             for seed in seeds]

    def folder_of(arm, seed, i):
        return f"{folder}/tune/{slug(arm, seed, *points[arm][i].values())}"

    def run_cell(arm, seed, i):
        return train(options_of(arm, seed, points[arm][i]), folder_of(arm, seed, i))
    done = side_by_side(run_cell, cells, jobs, folder_of, seconds)
    lines = {arm: [] for arm in points}
    for arm, grid in points.items():
        for i, point in enumerate(grid):
            scores = [scores_of(done[arm, seed, i]) for seed in seeds]
            lines[arm].append({**point, **{name: [x[name] for x in scores] for name in scores[0]},
                               "score": sum(sum(x.values()) for x in scores) / len(seeds)})
    best = {arm: choose(grid, points[arm][0]) for arm, grid in lines.items()}
    write(f"{folder}/tuning.json", {"seeds": seeds, "best": best, "grid": lines, **also(done)})
    print(json.dumps(best, indent=1))


def tuning(folder, docs):
    """Your own tuning, or the one that docs/ reports -> {"best": {arm: {"lr": ...}}, ...}"""
    own = f"{folder}/tuning.json"
    return read(own if os.path.exists(own) else f"docs/{docs}/tuning.json")


def settings(folder, docs):
    return tuning(folder, docs)["best"]


def choose(lines, names):
    """The grid point whose score, averaged with those of its neighbours in the learning rate, is
    highest: the best point itself may stand next to a cliff. lines: [{"lr", "score", ...}]; names:
    of the settings -> {name: value}, of those that the point has"""
    rates = sorted({line["lr"] for line in lines})

    def score(line):
        i = rates.index(line["lr"])
        near = rates[max(0, i - 1):i + 2]
        scores = [other["score"] for other in lines
                  if other["lr"] in near and other.get("kl") == line.get("kl")]
        return sum(scores) / len(scores)
    return {name: x for name, x in max(lines, key=score).items() if name in names}


# ---- statistics ----

def interval(values):
    """95% t-interval over seeds -> mean, half width (nan for one seed)"""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    return mean, (T_95.get(n) or quantile(n - 1)) * spread / math.sqrt(n)


def verdict(differences, kind, margin=0.02):
    """differences: an arm minus the one it is compared with, one a seed. kind: "better" or
    "as good" -> yes, no, unclear"""
    mean, half = interval(differences)
    if math.isnan(half):
        return "unclear"
    if kind == "better":
        return "yes" if mean - half > 0 else "no" if mean + half < 0 else "unclear"
    if -margin < mean - half and mean + half < margin:
        return "yes"
    return "no" if mean + half < -margin else "unclear"


def tail(t, freedom):
    """P(T > t) of Student's t. With x = sqrt(freedom) tan(angle) its density is a power of the
    cosine, which is summed by the midpoint rule."""
    def area(low, high, n=2000):
        width = (high - low) / n
        return width * sum(math.cos(low + (i + 0.5) * width) ** (freedom - 1) for i in range(n))
    angle, quarter = math.atan(t / math.sqrt(freedom)), math.pi / 2
    return area(angle, quarter) / area(-quarter, quarter)


def quantile(freedom):
    """The t that T_95 would have: tail(t, freedom) = .025, by halving."""
    low, high = 1.9, 13.0
    for _ in range(40):
        t = (low + high) / 2
        low, high = (t, high) if tail(t, freedom) > 0.025 else (low, t)
    return high


def p_value(differences, kind, margin=0.02):
    """How surprising the differences would be if the claim did not hold: twice the one-sided p, so
    that it is below .05 just when verdict() says yes (1 where the difference points the other way).
    "as good": the larger p of the two bounds."""
    n, mean = len(differences), sum(differences) / len(differences)
    if n < 2:
        return 1.0
    error = math.sqrt(sum((x - mean) ** 2 for x in differences) / (n - 1) / n) or 1e-12
    if kind == "better":
        return min(1.0, 2 * tail(mean / error, n - 1))
    return min(1.0, 2 * max(tail((mean + margin) / error, n - 1),
                            tail((margin - mean) / error, n - 1)))


def holm(p_values, level=0.05):
    """Holm's correction: which of these claims hold together -> [bool]. The smallest p must be
    below level / m, the next below level / (m - 1), and so on; the first that is not ends it."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    hold = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(order) - rank):
            break
        hold[i] = True
    return hold


def bootstrap(values, resamples=10_000):
    """95% percentile interval of the mean over seeds, drawn with replacement -> low, high"""
    rng, n = random.Random(0), len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(resamples))
    return means[round(0.025 * resamples)], means[round(0.975 * resamples) - 1]


# ---- tables ----

def cell(values, sign=""):
    """A table's cell; of one seed without an interval. sign "+": for differences"""
    mean, half = interval(values)
    return f"{mean:{sign}.3f}" + ("" if math.isnan(half) else f" +- {half:.3f}")


def over(seeds):
    """What the title of a table of these seeds says behind "mean"."""
    return f" +- 95% t-interval over {len(seeds)} seeds" if len(seeds) > 1 else f", seed {seeds[0]}"


def judged(differences, metric, kind):
    """The cells of a table's line: what is asked of a metric, the difference, the verdict."""
    question = "better" if kind == "better" else "as good as (2 points)"
    return f"{metric}, {question}? | {cell(differences, '+')} | {verdict(differences, kind)}"


def measured(rows, arms):
    """The rows whose two arms have the metric, and each one's paired differences. arms: {arm:
    [{metric: number}], one a seed}"""
    rows = [line for line in rows
            if all(line[3] in run for arm in line[1:3] for run in arms.get(arm, [{}]))]
    differences = [[a[metric] - b[metric] for a, b in zip(arms[arm], arms[other])]
                   for _, arm, other, metric, _, _ in rows]
    return rows, differences


def verdicts(rows, arms, beside=()):
    """decided() of the rows that were measured, "" where there is none. beside: rows of the same
    paper in other tables, which the correction counts too."""
    others = [p_value(found, line[4]) for line, found in zip(*measured(beside, arms))]
    rows, differences = measured(rows, arms)
    return decided(rows, differences, others) if rows else ""


def decided(rows, differences, others=()):
    """Rows of a paper -> Markdown: the verdict of each alone, and after Holm's correction over all
    of the paper's. rows: [(name, arm, against, metric, kind, the paper)]; differences: one list of
    seeds a row; others: p-values of the paper's rows in other tables."""
    kinds = [kind for *_, kind, _ in rows]
    p_values = [p_value(found, kind) for found, kind in zip(differences, kinds)]
    lines = head("", "claim", "difference", "bootstrap", "p-value", "verdict", "after Holm",
                 "the paper")
    for (name, arm, other, metric, kind, paper), found, p, held in zip(
            rows, differences, p_values, holm([*p_values, *others])):
        alone = verdict(found, kind)
        low, high = bootstrap(found)
        asked = "better than" if kind == "better" else "as good as"
        lines.append(row(name, f"{arm}: {metric} {asked} {other}", cell(found, "+"),
                         f"{low:+.3f} to {high:+.3f}", f"{p:.1g}", alone,
                         "unclear" if alone == "yes" and not held else alone, paper))
    return "\n".join(lines)


def row(*cells):
    return f"| {' | '.join(cells)} |"


def head(*titles):
    """The first two lines of a Markdown table."""
    return [row(*titles), "|---" * len(titles) + "|"]
