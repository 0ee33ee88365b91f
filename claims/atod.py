"""ATOD against its parts, its baselines and its teacher, on the house: arms, table, figure. See reproduce.py."""
import json
from concurrent.futures import ThreadPoolExecutor

from claims import cell, interval, over, pyplot, slug, train, updates, verdict, write

ARMS = {  # name -> options of train.py; all start from the seed's student and see as many episodes
    "ATOD": "--method atod",
    "OPD": "--method opd",
    "GRPO": "--method grpo --teacher auto",
    "fixed mix": "--method atod --mix fixed",  # kappa = rho = 1, with turn weights
    "annealed, w = 1": "--method atod --weights one",
    "annealed, uniform w": "--method atod --weights uniform",  # T-DUR's mean for every turn
    "annealed, w by token": "--method atod --weights token",
}
FAMILIES = ("put", "clean", "heat", "cool", "examine", "two")
PAPER = {"GRPO": "33.2 / 40.3 / 68.9", "OPD": "67.7 / 64.9 / 68.1", "ATOD": "70.6 / 71.6 / 71.1", "teacher": "68.9"}  # 0.6B / 1.7B / 4B, average


def metrics_of(result, curve):
    """result.json and metrics.jsonl of a run -> what the table has of it"""
    after = result["columns"]["after"]
    return {"success": after["success"][0], "greedy": result["columns"]["after, greedy"]["success"][0], "turns": after["turns"][0],
            "best look": max(success for success, _ in result["looks"]), "last look": result["looks"][-1][0],
            "seconds": sum(result["times"].values()) - result["times"]["time_environment"],  # which is a part of the rollout
            "zero variance": sum(line["zero_variance"] for line in curve) / len(curve),
            **{family: after[family][0] for family in FAMILIES if family in after}}


def player(result, column):
    found = result["columns"]
    return {"success": found[column]["success"][0], "greedy": found[f"{column}, greedy"]["success"][0], "turns": found[column]["turns"][0],
            **{family: found[column][family][0] for family in FAMILIES if family in found[column]}}


def table(results, seeds):
    """results: {player or arm: [metrics of a seed]} -> Markdown"""
    names = ("success", "greedy", "turns", "last look", "best look", "zero variance", "seconds")
    lines = [f"**success on test houses**, mean{over(seeds)}\n",
             "| | sampled | greedy | turns | valid, last look | best look | zero-variance groups | seconds of updates | the paper |", "|---" * 9 + "|"]
    for arm, runs in results.items():
        cells = [cell([r[name] for r in runs]) if name in runs[0] else "-" for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} | {PAPER.get(arm, '')} |")
    lines += ["\n**by family**, sampled\n", f"| | {' | '.join(FAMILIES)} |", "|---" * (len(FAMILIES) + 1) + "|"]
    for arm, runs in results.items():
        lines.append(f"| {arm} | {' | '.join('%.2f' % interval([r[f] for r in runs])[0] if f in runs[0] else '-' for f in FAMILIES)} |")
    lines += ["\n**claims**, paired over seeds\n", "| ATOD against | sampled | better? | greedy | better? |", "|---" * 5 + "|"]
    for other in results:
        if other not in ("ATOD", "student"):
            found = [[a[name] - b[name] for a, b in zip(results["ATOD"], results[other])] for name in ("success", "greedy")]
            lines.append(f"| {other} | " + " | ".join(f"{cell(d, '+')} | {verdict(d, 'better')}" for d in found) + " |")
    return "\n".join(lines)


def figure(results, curves, turns, path):
    """Left: success on valid houses as training goes on. Middle: the two coefficients and the sizes of the two advantages (ATOD, OPD). Right:
    T-DUR's weight over the turns of an episode before training. curves: {arm: [lines of metrics.jsonl of a seed]}"""
    plt = pyplot()
    if plt is None:
        return
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(19, 5), width_ratios=(1, 1, 0.8))
    for i, (arm, runs) in enumerate(curves.items()):
        looks = [[(line["step"], line["valid success"]) for line in lines if "valid success" in line] for lines in runs]
        left.plot([s for s, _ in looks[0]], [sum(x) / len(x) for x in zip(*([y for _, y in look] for look in looks))], ".-", color=f"C{i}", label=arm)
    left.axhline(interval([r["success"] for r in results["teacher"]])[0], color="grey", ls="--", label="teacher (test)")
    left.set(xlabel="update", ylabel="success, valid houses", title=f"mean of {len(results['teacher'])} seeds", ylim=(0, 1))
    left.legend(fontsize=7)
    for name, style in (("kappa", "-"), ("rho", "--"), ("A_opd", ":"), ("A_grpo", "-."), ("mean_w", (0, (1, 3))), ("zero_variance", (0, (5, 5)))):
        values = [line[name] for line in curves["ATOD"][0]]
        middle.plot([line["step"] for line in curves["ATOD"][0]], [sum(x) / len(x) for x in (values[max(0, i - 9):i + 1] for i in range(len(values)))],
                    ls=style, label=name)
    middle.set(xlabel="update", title="ATOD, first seed, mean of ten updates", ylim=(0, 2.1))
    middle.legend(fontsize=7)
    right.imshow([[w] for *_, w, _, _ in turns], cmap="Reds", vmin=0, vmax=1, aspect="auto", extent=(0, 1, len(turns), 0))
    for k, (heard, said, w, _, _) in enumerate(turns):
        text = " > ".join(x.replace("<|turn|>", " ").replace("<|end|>", " ").strip() for x in (heard, said))
        right.text(0.02, k + 0.6, f"{w:.2f}  {text}", fontsize=7, color="white" if w > 0.7 else "black")
    right.set(xticks=[], yticks=[], title="weight of each turn's distillation (T-DUR), before training")
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def reproduce(folder, seeds, jobs):
    cells = [(arm, seed) for arm in ARMS for seed in seeds]  # the first arm makes the warm starts, of several seeds at once
    with ThreadPoolExecutor(jobs) as pool:
        done = dict(zip(cells, pool.map(lambda c: train([*ARMS[c[0]].split(), f"--seed={c[1]}"], f"{folder}/{slug(*c)}"), cells)))
    curves = {arm: [updates(f"{folder}/{slug(arm, seed)}") for seed in seeds] for arm in ARMS}
    results = {name: [player(done["ATOD", seed], column) for seed in seeds] for name, column in (("teacher", "teacher"), ("student", "before"))}
    results.update({arm: [metrics_of(done[arm, seed], curve) for seed, curve in zip(seeds, curves[arm])] for arm in ARMS})
    text, turns = table(results, seeds), done["ATOD", seeds[0]]["strips"]["before"]["turns"]
    write(f"{folder}/results.json", json.dumps({"seeds": seeds, "results": results, "turns": turns}, indent=1))
    write(f"{folder}/table.md", text)
    figure(results, curves, turns, f"{folder}/atod.png")
    print(text)
