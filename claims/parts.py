"""Where the time of a run's updates goes, part by part.

    python -m claims.parts out/tandem-arithmetic-0 --updates 10

Makes more updates of a finished or stopped run, of any method and world, and writes nothing. The
functions that do the work are wrapped in clocks. A part's time is its own, without that of parts
inside it, so the parts of a column add up to an update. Clocks cost about a microsecond a call.

"Other work of a step" is Python and small operations: cache writes, SwiGLU's product, softmax,
gathers. Multiplications, attention and normalisation are the rollout's and the forward pass's.
"""
import argparse
import json
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F

import beliefs
import chat
import envs
import grpo
import model
import rollout
import run
import sampler
import tandem
import tokenizer
import train
import worldmodel
from claims.speed import machine

# part -> the functions whose time it is
PARTS = {
    "matrix multiplications": [(F, "linear")],
    "attention": [(F, "scaled_dot_product_attention")],
    "normalisation": [(F, "rms_norm")],
    "rotation": [(model, "rotate")],
    "draw": [(sampler, "draw"), (tandem, "draw")],
    "bookkeeping of a step": [(sampler.Sampler, "emit")],
    "other work of a step": [(sampler.Sampler, "run_step")],
    "feeding prompts": [(sampler.Sampler, "feed"), (sampler.Sampler, "select")],
    "between steps": [(sampler.Sampler, "sample"), (beliefs, "generate")],
    "text to tokens": [(tokenizer.Tokenizer, "encode_turn"), (chat.ChatTokenizer, "encode_turn")],
    "tokens to text": [(tokenizer.Tokenizer, "decode"), (chat.ChatTokenizer, "decode")],
    "games": [(envs.Batch, "timed")],
    "facts and rewards": [(worldmodel, "judge")],
    "rows of tensors": [(rollout, "stack"), (worldmodel, "training_rows")],
    "forward pass of the loss": [(grpo, "loss")],
    "backward pass": [(torch.Tensor, "backward")],
    "optimizer": [(grpo, "apply_gradients")],
}


class Clocks:
    """Seconds of each part, of its own work alone."""

    def __init__(self):
        self.spent, self.inside = Counter(), []

    def timed(self, part, function):
        def call(*args, **options):
            began = time.perf_counter()
            self.inside.append(0.0)  # seconds of the parts within this one
            try:
                return function(*args, **options)
            finally:
                whole = time.perf_counter() - began
                self.spent[part] += whole - self.inside.pop()
                if self.inside:
                    self.inside[-1] += whole
        return call

    @contextmanager
    def running(self, parts):
        with ExitStack() as stack:
            for part, places in parts.items():
                for holder, name in places:
                    work = self.timed(part, getattr(holder, name))
                    stack.enter_context(patch.object(holder, name, work))
            yield


def measure(folder, updates):
    """-> {"updates", "seconds" of one, "parts": {part: seconds an update}}"""
    method, r = train.reopen(folder, threads=torch.get_num_threads())
    clocks, whole = Clocks(), 0.0
    method.step(r)  # the first one opens files, starts engines
    with clocks.running(PARTS):
        for _ in range(updates):
            r.step += 1
            began = time.perf_counter()
            method.step(r)
            whole += time.perf_counter() - began
    parts = {part: clocks.spent[part] / updates for part in PARTS if clocks.spent[part]}
    parts["everything else"] = whole / updates - sum(parts.values())
    return {"updates": updates, "seconds": whole / updates, "parts": parts}


def show(found):
    print(f"an update takes {1e3 * found['seconds']:,.0f} ms, mean of {found['updates']}")
    print(f"{'part':28}{'ms':>10}{'share':>8}")
    for part, seconds in found["parts"].items():
        print(f"{part:28}{1e3 * seconds:10,.1f}{seconds / found['seconds']:8.1%}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's output folder")
    parser.add_argument("--updates", type=int, default=5, help="how many are measured [5]")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch [1]")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        found = measure(args.run, args.updates)
    except run.Stop as stop:
        sys.exit(f"error: {stop}")
    show(found)
    print(json.dumps({**machine(), "threads": args.threads, **found}))


if __name__ == "__main__":
    main()
