"""How noisy are the gradients of fGRPO and of plain GRPO, with equally many samples?

    python -m claims.variance out/worldmodel-house-0 --draws 32

Credit by level should buy a less noisy gradient: a state is judged by all that followed it, an
observation against its own siblings. The same examples are sampled again and again, from the run's
first weights (its warm start) and from its last, as a tree and as chains that share an advantage.
The three levels (state, next state, observation) are measured apart, each as if it were trained
alone: a tree has more observations than states, chains have equally many of each, and a gradient of
all together would compare that. Reported is the noise of one update's gradient over its signal:

    noise  = sum over parameters of the variance over draws
    signal = |mean gradient|^2, with the noise that is left in the mean taken off

The signal of few draws is itself uncertain: where it comes out at zero or below, there is "-".
"""
import argparse
import dataclasses
import itertools
import json
import sys

import torch

import grpo
import run
import train
import worldmodel
from envs import record
from rollout import training_rows

WAYS = {"fGRPO, a tree": False, "plain GRPO, chains": True}  # -> --flat
LEVELS = ("encode", "transition", "decode")


def gradients(r, cfg, examples, draw):
    """The gradient of one update on these examples, with new samples, of each level alone ->
    {level: vector}"""
    streams = [(cfg.seed, "variance", draw, i) for i in range(len(examples))]
    replies, advantage, _, _ = worldmodel.sample_strict(r.w, cfg, examples, streams)
    still, found = torch.optim.SGD(r.model.parameters(), lr=0.0), {}
    B, C = (1, 1) if cfg.flat else (cfg.B, cfg.C)
    states = len(replies) // (1 + B + B * C)
    ends = [0, states, states * (1 + B), len(replies)]
    for level, first, last in zip(LEVELS, ends, ends[1:]):
        part = slice(first, last)
        rows, of_token, total = training_rows(replies[part], advantage[part], r.device)
        grpo.update_on(r.model, still, rows, rows.mask.float(), of_token,
                       dataclasses.replace(cfg, grad_clip=1e9), total=total)
        found[level] = torch.cat([p.grad.flatten() for p in r.model.parameters()])
    return found


def noise_and_signal(vectors):
    """vectors: [K, P] -> their variance, and the squared length of their mean without it."""
    noise = vectors.var(0).sum().item()  # without bias
    return noise, vectors.mean(0).square().sum().item() - noise / len(vectors)


def measure(folder, draws):
    """-> {"before" and "after": {way: {level: {"noise", "signal"}}}}"""
    _, r = train.reopen(folder, "worldmodel")
    if r.cfg.formulation != "strict":
        raise run.Stop(f"{folder}: fGRPO is of strict world models")
    tasks = [r.cfg.seed * 10**7 + 9 * 10**6 + i for i in range(r.cfg.prompts)]
    examples = record.examples(r.worlds, tasks, "train", "variance")
    found = {}
    for when in run.before_and_after(r):
        found[when] = {}
        for name, flat in WAYS.items():
            cfg = dataclasses.replace(r.cfg, flat=flat)
            drawn = [gradients(r, cfg, examples, draw) for draw in range(draws)]
            found[when][name] = {}
            for level in LEVELS:
                numbers = noise_and_signal(torch.stack([vectors[level] for vectors in drawn]))
                found[when][name][level] = dict(zip(("noise", "signal"), numbers))
    return found


def show(found):
    for when, ways in found.items():
        for (name, levels), level in itertools.product(ways.items(), LEVELS):
            x = levels[level]
            ratio = f"{x['noise'] / x['signal']:8.1f}" if x["signal"] > 0 else f"{'-':>8}"
            print(f"{when + ' training':18}{name:22}{level:12}noise {x['noise']:.2e}  "
                  f"signal {x['signal']:.2e}  noise / signal {ratio}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a strict run's output folder")
    parser.add_argument("--draws", type=int, default=32, help="gradients a way [32]")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        found = measure(args.run, max(2, args.draws))
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    show(found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
