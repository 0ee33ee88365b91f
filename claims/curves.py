"""Runs with a teacher side by side: success on the tasks trained on and on valid ones as training goes on; and on test tasks before, after and of the teacher.

    python -m claims.curves docs/agents.png docs/webshop docs/alfworld docs/searchqa
"""
import argparse
import os
import sys

from claims import finished, pyplot, updates


def read(run):
    """-> [(update, success)] of the updates, the same of the looks at valid tasks, of the test before and after, and the teacher's success there"""
    lines, tested = updates(run), {name: column["success"][0] for name, column in finished(run)["columns"].items()}
    return (*([(line["step"], line[name]) for line in lines if name in line] for name in ("success", "valid success")),
            [(0, tested["before"]), (lines[-1]["step"], tested["after"])], tested["teacher"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("runs", nargs="+", help="folders with a metrics.jsonl")
    args = parser.parse_args()
    plt = pyplot()
    if plt is None:
        sys.exit(1)
    fig, axes = plt.subplots(1, len(args.runs), figsize=(4.5 * len(args.runs), 3.5), sharey=True, squeeze=False)
    for ax, run in zip(axes[0], args.runs):
        *curves, teacher = read(run)
        for points, style, label in zip(curves, (":", "o-", "s"), ("tasks of the update", "valid tasks", "test tasks, before and after")):
            ax.plot([x for x, _ in points], [y for _, y in points], style, label=label)
        ax.axhline(teacher, color="grey", ls="--", label="teacher, test tasks")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="update", title=os.path.basename(os.path.normpath(run)), ylim=(0, 1))
    axes[0][0].set(ylabel="success")
    axes[0][0].legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()
