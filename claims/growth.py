"""How the time of a GRPO update grows with rows, tokens and layers.

    python -m claims.growth

One thing grows at a time, from a middle: 8 prompts x 8 replies, 32 new tokens, 4 layers of 96. All
replies are as long as that, and every group has variance (claims/update.py). The sizes take turns.
A slope is that of a line through the logarithms of the last three sizes: 1 is linear. With tokens the
decode step reads a longer cache, so its slope is between 1 and 2. Below the middle a step costs its
operations, whatever the rows: a slope far below 1 there means overhead.
"""
import argparse
import json
import math
import statistics

import torch

import tandem
from claims import update
from claims.speed import machine
from model import GPT, small_config

MIDDLE = {"prompts": 8, "group": 8, "max_new": 32, "layers": 4}
GROWN = {  # what grows -> the option of its sizes
    "rows": ("prompts", (2, 4, 8, 16, 32)),
    "new tokens": ("max_new", (16, 32, 64, 128, 256)),
    "layers": ("layers", (1, 2, 4, 8, 16))}
PARTS = ("time_rollout", "time_update")


def updater(changes):
    """-> a function that makes one update of that size, on a fresh model."""
    cfg = tandem.Config(**{**MIDDLE, **changes}, width=96)
    env = update.open_world()
    tok = update.sft.open_tokenizer(cfg, env)
    tok.stop_ids = ()  # a reply ends when it is full
    torch.manual_seed(0)
    model = GPT(small_config(tok.n_vocab, cfg.max_new + 16, cfg.layers, cfg.width))
    return update.solo(cfg, env, tok, model)


def slope(sizes, seconds):
    """Of a line through the logarithms, by least squares."""
    x, y = [math.log(n) for n in sizes], [math.log(s) for s in seconds]
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return (sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
            / sum((a - mean_x) ** 2 for a in x))


def measure(repeats):
    """-> {what grows: {"sizes", part: seconds of each size, "slope" + part}}"""
    found = {}
    for name, (option, sizes) in GROWN.items():
        ways = [updater({option: size}) for size in sizes]
        times = {part: [[] for _ in sizes] for part in PARTS}
        for turn in range(1 + repeats):
            for i, way in enumerate(ways):
                stats = way()
                if turn:  # the first is not counted
                    for part in PARTS:
                        times[part][i].append(stats[part])
        shown = [size * MIDDLE["group"] if name == "rows" else size for size in sizes]
        median = {part: [statistics.median(x) for x in of] for part, of in times.items()}
        found[name] = {"sizes": shown, **median, **{
            f"slope of {part}": slope(shown[-3:], median[part][-3:]) for part in PARTS}}
    return found


def show(found):
    print(f"{'ms, rollout + update':22}{'':10}" + " " * 42 + "slopes")
    for name, x in found.items():
        cells = [f"{1e3 * a:,.0f} + {1e3 * b:,.0f}" for a, b in zip(*(x[part] for part in PARTS))]
        print(f"{name:12}" + "".join(f"{n:>5}: {cell:16}" for n, cell in zip(x["sizes"], cells))
              + ", ".join(f"{x[f'slope of {part}']:.2f}" for part in PARTS))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="[3]")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch [1]")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    found = measure(args.repeats)
    show(found)
    print(json.dumps({**machine(), **found}))


if __name__ == "__main__":
    main()
