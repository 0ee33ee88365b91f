"""Runs with a teacher side by side: success as training goes on, and the teacher's.

    python -m claims.curves docs/agents.png docs/webshop docs/alfworld docs/searchqa

Faint: the tasks of each update. Bold: their mean over neighbours. Squares: test tasks before and
after training, with 95% intervals. Dashed: the teacher on the same test tasks.
"""
import argparse
import os
import sys

from claims import finished, plot, updates

TITLES = {"webshop": "WebShop", "alfworld": "ALFWorld", "searchqa": "Search-QA"}


def read(run):
    """-> [(update, success)] of the updates, the same of the looks at valid tasks, [(update,
    success, standard error)] of the test before and after, and the teacher's success there"""
    lines = updates(run)
    trained, valid = ([(line["step"], line[name]) for line in lines if name in line]
                      for name in ("success", "valid success"))
    tested = {name: column["success"] for name, column in finished(run)["columns"].items()}
    tests = [(0, *tested["before"]), (lines[-1]["step"], *tested["after"])]
    return trained, valid, tests, tested["teacher"][0]


def draw(picture, runs):
    """Draw the picture -> whether matplotlib is there"""
    plt = plot.pyplot()
    if plt is None:
        return False
    fig, axes = plt.subplots(1, len(runs), figsize=(max(6, 1.2 + 2.2 * len(runs)), 3.6),
                             sharey=True, squeeze=False, layout="constrained")
    found = [read(run) for run in runs]
    top = max(y for trained, _, tests, teacher in found
              for y in (teacher, *(y for _, y in trained), *(mean for _, mean, _ in tests)))
    for ax, run, (trained, _, tests, teacher) in zip(axes[0], runs, found):
        x, y = zip(*trained)
        ax.plot(x, y, color=plot.BLUE, alpha=0.25, lw=1)
        ax.plot(x, plot.smooth(y, 7), color=plot.BLUE)
        ax.axhline(teacher, color=plot.RED, ls="--")
        for step, mean, error in tests:
            ax.errorbar(step, mean, yerr=[[min(mean, 1.96 * error)], [1.96 * error]], fmt="s",
                        color=plot.BLACK, ms=6, lw=1.3, capsize=3, clip_on=False, zorder=5)
        name = os.path.basename(os.path.normpath(run))
        ax.set(title=TITLES.get(name, name), xlabel="update", ylim=(0, min(1, 1.15 * top)))
        ax.margins(x=0.12)
        ax.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    axes[0][0].set(ylabel="success")
    (trained, _, tests, teacher), ax = found[0], axes[0][0]
    ax.text(0, teacher + 0.02 * top, "teacher", color=plot.RED, fontweight="bold", va="bottom")
    highest = max(y for _, y in trained)
    ax.text(trained[-1][0], highest + 0.03 * top, "training tasks", color=plot.BLUE,
            fontweight="bold", ha="right", va="bottom")
    ax.text(tests[1][0], 0.02 * top, "test", fontweight="bold", ha="right", va="bottom")
    plot.save(plt, picture)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("runs", nargs="+", help="folders with a metrics.jsonl and a result.json")
    args = parser.parse_args()
    try:
        drawn = draw(args.picture, args.runs)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if not drawn:
        sys.exit(1)


if __name__ == "__main__":
    main()
