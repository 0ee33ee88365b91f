"""Two authors on public weights: what a step of both costs, and how well runs can be handed over.

    python bench.py authors --senior FOLDER --batch 1,8,16,64      # one pass, two models, solo
    python -m claims.authors out/grpo-sums-0 out/tandem-sums-0     # runs, graded by their own start

The junior is the senior's start. With adapters it is the same weights, and one pass decodes both
(lora.py); else there are two models. `solo` is the senior alone, its adapters merged.
"""
import dataclasses
import statistics
import sys

import torch

import chat
import lora
import run
import tandem
from claims import speed
from claims.speed import free, ours, timed
from model import GPT
from sampler import copy_as

RANK, PROMPT, NEW = 16, 32, 64


def open_senior(folder, device, dtype):
    """Public weights, with room for the texts that are sampled here."""
    tok = chat.load(folder)
    base = GPT.from_pretrained(folder, PROMPT + NEW, dtype, tok.n_vocab).to(device)
    return base.requires_grad_(False)


def steps(base, rows, prompt, new, repeats, device, dtype, compile, captured=False):
    """-> {name: [microseconds of a decode step, prefill included]}; the ways take turns. captured:
    CUDA graphs of the step as PyTorch runs it, which needs no compilation."""
    senior = lora.adapt(base, RANK)
    prompts = torch.randint(base.cfg.vocab_size, (rows, prompt)).tolist()
    how = {"compile": compile, "dtype": dtype}
    made = {"solo": ours(lora.merged(senior), prompts, new, **how),
            "one pass": ours(senior, prompts, new, junior=base, pair=lora.paired(senior), **how),
            "two models": ours(senior, prompts, new, junior=copy_as(base, dtype), **how)}
    for sample in made.values():
        if captured:
            sample.sampler.decode = sample.sampler.step
        sample()  # compiles
    times = {name: [] for name in made}
    for _ in range(repeats):
        for name, sample in made.items():
            times[name].append(1e6 * timed(sample, device)[1] / new)
    return times


def ratios(times):
    """-> {name: (median microseconds, median ratio to solo, smallest, largest)}"""
    out = {}
    for name, values in times.items():
        beside = [value / solo for value, solo in zip(values, times["solo"])]
        out[name] = (statistics.median(values), statistics.median(beside), min(beside), max(beside))
    return out


def show(folder, batches, repeats, device, compile):
    """Print the table -> [{rows, name: ...}] for the JSON."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    base = open_senior(folder, device, dtype)
    print(f"{base.n_params():,} parameters, {PROMPT} + {NEW} tokens, adapters of rank {RANK}\n"
          f"{'rows':>6}  {'way':12}{'us a step':>12}{'over solo':>12}    spread")
    found = []
    for rows in batches:
        result = ratios(steps(base, rows, PROMPT, NEW, repeats, device, dtype, compile))
        for name, (us, ratio, low, high) in result.items():
            print(f"{rows:6}  {name:12}{us:12,.0f}{ratio:12.2f}    {speed.spread([low, high])}")
        found.append({"rows": rows, **result})
    return found


def graded(out):
    """A run on public weights -> every metric of tandem's table, with its start as the junior.
    A GRPO run was trained without one."""
    state = run.load(f"{out}/ckpt.pt")
    options = {name: value for name, value in state["options"].items()
               if name in {f.name for f in dataclasses.fields(tandem.Config)}}
    start = next(iter(state["origins"].values()))
    r = tandem.setup(tandem.Config(**{**options, "senior": out, "junior": start, "lora": 0,
                                      "compile": "off", "resume": True}))
    return tandem.measure(r, r.cfg.test_problems or r.env.first.problems)


def main(runs):
    if not runs or runs[0] in ("-h", "--help"):
        return print(__doc__)
    print(f"{'run':28}{'solo':>8}{'step handoff':>14}{'training handoff':>18}{'legibility':>12}"
          f"{'exact KL':>10}")
    for out in runs:
        found = graded(out)
        cells = [found[name][0] for name in ("solo pass@1", "step handoff pass@1",
                                             "training handoff pass@1", "legibility", "kl")]
        print(f"{out[-27:]:28}{cells[0]:8.3f}{cells[1]:14.3f}{cells[2]:18.3f}{cells[3]:12.3f}"
              f"{cells[4]:10.3f}")


def on_a_card(here):
    """The same in runs/gpu.sh: Qwen3's shapes, random weights, and the memory that it took. To
    compile a step of 28 layers takes long, so that comes last."""
    for size, rows, captured in (("0.6b", 16, True), ("0.6b", 64, True), ("4b", 16, True),
                                 ("0.6b", 16, False)):
        cfg, prompt, new = speed.SIZES[size]

        def measure():
            free(here.device)
            base = speed.random_model(cfg, here.device, here.dtype).requires_grad_(False)
            found = ratios(steps(base, here.rows(rows), prompt, new, 2, here.device, here.dtype,
                                 not here.rehearse, captured))
            peak = torch.cuda.max_memory_allocated() / 1e9 if here.device == "cuda" else 0.0
            return {f"{name}, over solo": x[1] for name, x in found.items()} | {"peak_gb": peak}
        what = f"{size}, {rows} rows, {'captured' if captured else 'compiled'}"
        here.found.attempt(what, measure, here.least(8 if captured else 90))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except run.Stop as stop:
        sys.exit(f"error: {stop}")
