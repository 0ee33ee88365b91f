"""Speed beside what one would use instead, in one run, as ratios.

    python bench.py tree        # fGRPO's tree of 84 samples beside a flat GRPO group of 84

Prints a table, and one JSON object as the last line. What is compared runs in turn, several times; reported are the median and the
spread (smallest to largest) of the ratios of neighbouring runs. Weights are random and no token ends a reply, so every length is as said.
"""
import argparse
import json
import statistics
import time

import torch

import grpo
import mediation
import run
import train
import trajectories
import world
import worldmodel
from model import GPT, small_config

STATE, OBSERVATION = 56, 8  # tokens of a typical reply on house, levels 2 and 3


def tree_world(device):
    """A world model of the default size with random weights. -> World, environments"""
    v = {**run.parse([], train.GROUPS)[1], **train.PRESETS["worldmodel"]}
    found, language = world.open_envs(v)
    tok = world.open_tokenizer(v, found, language)
    tok.stop_ids = ()  # a reply ends when it is full
    torch.manual_seed(0)
    model = GPT(small_config(tok.n_vocab, 256, v["layers"], v["width"])).to(device)
    return mediation.World(model, tok, worldmodel.Config(), language, STATE, OBSERVATION), found


def step(w, optimizer, replies):
    """Backward and optimiser step on replies with random advantages, as an update does. -> seconds"""
    began = time.perf_counter()
    rows, advantage, total = worldmodel.training_rows(replies, torch.randn(len(replies)), w.model.embed.weight.device)
    grpo.update(w.model, optimizer, rows, rows.mask.float(), advantage, grpo.Config(), total=total)
    return time.perf_counter() - began


def tree(repeats, examples=8):
    """Sampling and whole update of trees with A = B = C = 4, and of as many samples, and tokens, in one stage. Eight examples, as
    in training: flat fills 672 rows of 704, the tree all of its 32, 128 and 512."""
    w, found = tree_world("cpu")
    optimizer = torch.optim.AdamW(w.model.parameters(), lr=0.0)
    batch, names = trajectories.examples(found, range(examples), "train", "bench"), [("bench", i) for i in range(examples)]
    widths = (4, [4], 4)
    samples = 4 + 16 + 64
    tokens = 4 * STATE + 16 * STATE + 64 * OBSERVATION
    flat_new = round(tokens / samples)
    times = {"tree, sampling": [], "flat, sampling": [], "tree, update": [], "flat, update": []}
    for i in range(repeats + 1):
        began = time.perf_counter()
        states, links = worldmodel.grow(w, batch, names, widths)
        seconds = {"tree, sampling": time.perf_counter() - began}
        seconds["tree, update"] = seconds["tree, sampling"] + step(w, optimizer, states + links[0][0] + links[0][1])
        began = time.perf_counter()
        flat = mediation.write(w, [mediation.encode_prompt(w, e.past) for e in batch], samples, flat_new, names)
        seconds["flat, sampling"] = time.perf_counter() - began
        seconds["flat, update"] = seconds["flat, sampling"] + step(w, optimizer, flat)
        if i:  # the first is a warm-up
            for name, value in seconds.items():
                times[name].append(value)
    return times, {"examples": examples, "samples": samples, "tokens": tokens, "flat_tokens": samples * flat_new}


def report(times, facts):
    print(f"{facts['examples']} examples, {facts['samples']} samples each: {facts['tokens']} sampled tokens in a tree, {facts['flat_tokens']} flat")
    result = {**facts, "threads": torch.get_num_threads(), "torch": torch.__version__}
    for part in ("sampling", "update"):
        ratios = [a / b for a, b in zip(times[f"tree, {part}"], times[f"flat, {part}"])]
        median = {kind: statistics.median(times[f"{kind}, {part}"]) for kind in ("tree", "flat")}
        print(f"{part:10} tree {median['tree']:.2f} s, flat {median['flat']:.2f} s, ratio {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})")
        result[part] = {"tree_s": median["tree"], "flat_s": median["flat"], "ratio": statistics.median(ratios), "ratios": ratios}
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tree"])
    parser.add_argument("--repeats", type=int, default=5, help="[5]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    args = parser.parse_args()
    torch.set_num_threads(max(1, args.threads))
    report(*tree(max(1, args.repeats)))


if __name__ == "__main__":
    main()
