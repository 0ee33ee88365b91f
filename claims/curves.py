"""Runs of one method side by side: success on the tasks that it trains on and on valid ones, as training goes on.

    python -m claims.curves docs/agents.png out/atod-webshop-0 out/atod-alfworld-0 out/atod-searchqa-0
"""
import argparse
import json
import os
import sys

from claims import pyplot


def read(run):
    """-> [(update, success)] of the updates, the same of the looks at valid tasks"""
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return ([(line["step"], line[name]) for line in lines if name in line] for name in ("success", "valid success"))


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
        for points, style, label in zip(read(run), (":", "o-"), ("tasks of the update", "valid tasks")):
            ax.plot([x for x, _ in points], [y for _, y in points], style, label=label)
        ax.set(xlabel="update", title=os.path.basename(os.path.normpath(run)), ylim=(0, 1))
    axes[0][0].set(ylabel="success")
    axes[0][0].legend()
    fig.tight_layout()
    fig.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()
