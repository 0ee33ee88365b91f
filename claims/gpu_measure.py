"""The stages of runs/gpu.sh that measure: sampling, update, profile. variants and authors have
files of their own.

A process of its own, as `python -m claims.gpu_measure sampling --out out/gpu --until 1790000000`
(seconds since the epoch). With --rehearse every size is a tiny one, on a CPU.
"""
import argparse
import datetime
import functools
import os
import statistics
import tempfile
from dataclasses import dataclass, replace

import torch

import grpo
from claims import authors, gpu, gpu_variants, speed
from claims.speed import free, seconds_of, timed
from model import LOGITS, GPT
from rollout import Rows


@dataclass
class Here:
    """Where a stage runs, and where it writes."""
    found: gpu.Found
    device: str
    dtype: torch.dtype
    rehearse: bool

    def rows(self, n):
        return min(n, 3) if self.rehearse else n

    def least(self, seconds):
        return 0 if self.rehearse else seconds


# ---- sampling ----

# what needs no compilation takes seconds; the others 20 to 60
QUICK = ("ours captured", "transformers dynamic")
SLOW = ("ours compiled", "ours tandem", "transformers static")
CELLS = (  # size, rows, samplers, the seconds that it needs at least (guessed)
    ("124m", 64, ("ours captured", "ours compiled", "transformers dynamic", "ours tandem"), 15),
    ("0.6b", 16, QUICK, 15), ("124m", 64, ("transformers static",), 20),
    ("124m", 1, QUICK + SLOW, 30), ("0.6b", 16, SLOW, 40), ("10m", 16, QUICK + SLOW, 20),
    ("4b", 16, QUICK + SLOW, 30), ("0.6b", 256, QUICK + SLOW, 30),
    ("10m", 256, QUICK + SLOW, 20), ("4b", 256, QUICK + SLOW, 30),
    ("124m-2k", 64, QUICK + SLOW, 30))


def sampling(here):
    """A decode step beside its limit and beside transformers."""
    solo = {}  # (size, rows) -> seconds
    for size, rows, who, seconds in (CELLS[0], CELLS[6]) if here.rehearse else CELLS:
        with tempfile.TemporaryDirectory() as folder:
            cell(here, size, here.rows(rows), who, folder, here.least(seconds), solo)
        torch._dynamo.reset()
        free(here.device)


def cell(here, size, rows, names, folder, seconds, solo):
    device, dtype, found, name = here.device, here.dtype, here.found, f"{size}, {rows} rows"
    if found.left() < seconds:
        return found.add(name, skipped=f"{found.left():.0f} s were left")
    try:
        model, makers, prompt, new = speed.samplers(size, rows, device, dtype, folder)
        prompts = torch.randint(model.cfg.vocab_size, (rows, prompt)).tolist()
        makers["ours captured"] = lambda: speed.ours(model, prompts, new, kind=speed.Captured)
        limit = speed.limit(model, rows, prompt, new, device, dtype)
    except Exception as error:
        return found.add(name, error=f"{type(error).__name__}: {str(error)[:600]}")
    step = limit["gemm_s"] + limit["cache_s"]
    found.add(f"{name}, limit", us=1e6 * step, tokens_s=rows / step, **limit)
    for who in names:
        if who in makers:
            measure = functools.partial(one, here, makers[who], who, step, (size, rows), solo)
            found.attempt(f"{name}, {who}", measure, here.least(8 if who in QUICK else 25))


def one(here, make, who, limit, shape, solo):
    """A sampler: the first run with its compilation, then up to three in three seconds."""
    size, rows = shape
    cfg, prompt, new = speed.SIZES[size]
    free(here.device)
    sample, making = timed(make, here.device)
    first, runs = making + timed(sample, here.device)[1], []
    while len(runs) < 3 and sum(runs) < 3:
        runs.append(timed(sample, here.device)[1])
    seconds = statistics.median(runs)
    limit *= 2 if who == "ours tandem" else 1  # two models
    result = {"tokens_s": rows * new / seconds, "us_a_step": 1e6 * seconds / new,
              "share_of_limit": limit * new / seconds, "runs_s": runs}
    if who in SLOW:
        result["compile_s"] = max(0.0, first - seconds)
    if who == "ours compiled":
        solo[shape] = seconds
    if who == "ours tandem" and shape in solo:
        result["over_solo"] = seconds / solo[shape]
    if who.startswith("ours") and here.device == "cuda":
        prompts = torch.randint(cfg.vocab_size, (rows, prompt)).tolist()
        result["host_gap"] = speed.host_gap(sample.sampler, prompts, new)
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return result


# ---- an update ----

def update(here):
    """Tokens a second, the share of the measured bf16 rate, memory beside a calculation."""
    n = 64 if here.rehearse else 8192
    rate = measured_rate(n, here.device)
    here.found.add(f"bf16, {n} x {n} x {n}", tflops=rate / 1e12)
    for size in ("124m", "0.6b"):
        for recompute in (False, True):
            name = f"{size}{', recompute' * recompute}"
            work = functools.partial(one_update, here, size, recompute, rate)
            here.found.attempt(name, work, here.least(5))
            free(here.device)


def measured_rate(n, device):
    """Multiplications and additions a second, of one large product in bf16."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in "ab")
    return 2 * n**3 / seconds_of(lambda: a @ b, device)


def one_update(here, size, recompute, rate, rows=64):
    device, (cfg, prompt, new) = here.device, speed.SIZES[size]
    with torch.device(device):
        model = GPT(cfg)
    how = grpo.RLConfig(recompute=recompute, device=device, micro_rows=rows)
    optimizer = grpo.make_optimizer(model, how, device)
    batch, rows = random_rows(cfg, here.rows(rows), prompt, prompt + new, device), here.rows(rows)
    advantage = torch.randn(rows, device=device)
    free(device)

    def work():
        return grpo.update_on(model, optimizer, batch, batch.mask.float(), advantage, how)
    _, first = timed(work, device)
    seconds = statistics.median(timed(work, device)[1] for _ in range(2))
    flops = update_flops(model, rows, prompt + new, new)
    result = {"rows": rows, "tokens_s": rows * (prompt + new) / seconds, "seconds": seconds,
              "first_s": first, "share_of_bf16": flops / seconds / rate,
              "calculated_gib": memory(cfg, model.n_params(), rows, prompt + new, new,
                                       recompute) / 2**30}
    if device == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return result


def random_rows(cfg, R, prompt, T, device):
    """R rows of T tokens, sampled behind the prompt."""
    tokens = torch.randint(cfg.vocab_size, (R, T), device=device)
    mask = (torch.arange(T, device=device) >= prompt).expand(R, T).contiguous()
    logp, row = -torch.rand(R, T, device=device), torch.arange(R, device=device)
    return Rows(tokens, mask, logp * mask, torch.where(mask, 0, -1), row, row)


def update_flops(model, R, T, sampled):
    """Forward and backward, three times a forward: 2 for each weight and token, the head for
    sampled tokens only, and attention (half of it, being causal). What recompute repeats is no
    useful work, and is left out."""
    cfg, head = model.cfg, model.head.weight.numel()
    inner = model.n_params() - head * (1 if cfg.tied else 2)
    attention = cfg.layers * 4 * cfg.heads * cfg.head_width * T / 2
    return 3 * R * (T * (2 * inner + attention) + sampled * 2 * head)


def memory(cfg, params, R, T, sampled, recompute):
    """Bytes that an update holds at its peak. A weight has 16 (fp32: itself, gradient, two of Adam)
    and 2 of autocast's bf16 copy. Of a block's activations a token keeps: two fp32 inputs of a
    norm, their results in bf16, queries, keys and values before and after rotation, attention's
    result, gate and up, SiLU and the product."""
    D, H, K, C, F = cfg.width, cfg.heads, cfg.kv_heads, cfg.head_width, cfg.ffn_width
    block = 12 * D + 2 * C * (3 * H + 3 * K) + 8 * F
    kept = cfg.layers * 4 * D + block if recompute else cfg.layers * block
    logits = min(R * sampled * cfg.vocab_size, LOGITS) * 4 * 3  # fp32: itself, scaled, gradient
    return 18 * params + R * T * kept + logits


# ---- where the time of a step goes ----

def profile(here):
    for rows in (3,) if here.rehearse else (64, 1):
        work = functools.partial(speed.profile, "124m", rows, here.device)
        here.found.attempt(f"124m, {rows} rows", work, here.least(6))
        for x in here.found.content["found"][-1].get("kernels", ()):
            print(f"{x['ms']:10.2f} ms {x['count']:7} x  {x['name']}")


# ---- one stage ----

def shrink():
    """Every size gets tiny, with grouped queries and QK-norm where it has them."""
    speed.LEAST, gpu_variants.Buckets.smallest = 0.0, 2
    for size, (cfg, _, _) in speed.SIZES.items():
        heads, kv_heads = 2, 1 if cfg.kv_heads < cfg.heads else 2
        tiny = replace(cfg, vocab_size=67, context=16, layers=1, heads=heads, kv_heads=kv_heads,
                       width=32, head_width=16, ffn_width=32)
        speed.SIZES[size] = tiny, 4, 5
    compiled = torch.compile

    def traced(function=None, **how):
        """Dynamo's part alone, which finds most errors: code generation takes a minute here."""
        how = {name: how[name] for name in ("fullgraph", "dynamic") if name in how}
        return compiled(function, backend="eager", **how)
    torch.compile = traced


def main(argv=None):
    stages = {"sampling": sampling, "update": update, "profile": profile,
              "variants": gpu_variants.variants, "authors": authors.on_a_card}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--out", required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args(argv)
    device, dtype = ("cpu", torch.float32) if args.rehearse else ("cuda", torch.bfloat16)
    found = gpu.Found(args.stage, args.out, args.until)
    found.write(device=torch.cuda.get_device_name() if device == "cuda" else "CPU, rehearsed",
                date=datetime.date.today().isoformat(), torch=torch.__version__,
                cuda=torch.version.cuda)
    if args.rehearse:
        torch.set_num_threads(1)
        shrink()
    if os.environ.get("WITHOUT_COMPILE"):  # it does not work here
        torch.compile = lambda function, **how: function
    torch._dynamo.config.cache_size_limit = 64  # many samplers in one process
    stages[args.stage](Here(found, device, dtype, args.rehearse))


if __name__ == "__main__":
    main()
