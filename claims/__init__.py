"""What the comparisons of arms share: running train.py once an arm and seed, intervals over seeds, verdicts.

An arm is one `train.py` command. Seeds are paired: with the seed come the warm starts, the tasks and the random numbers, so the
difference of two arms is taken within a seed. "better" is reproduced when the 95% t-interval of the paired difference excludes
zero; "as good as" when it lies within 2 points; else the verdict is unclear.
"""
import json
import math
import os
import subprocess
import sys

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # by number of seeds


def finished(out):
    path = os.path.join(out, "result.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)


def updates(out):
    """The lines of a run's metrics.jsonl, one an update."""
    with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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


def slug(*parts):
    return "-".join("".join(c if c.isalnum() else "" for c in str(p)) for p in parts)


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


def pyplot():
    """matplotlib.pyplot, drawing to files; None, said, where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        print("no figure: pip install matplotlib")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    return pyplot


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
