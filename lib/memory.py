"""How much memory a run takes, before anything is allocated: --dry-run prints it.

Weights, adapters, optimizer and caches are exact: they are tensors of known shapes. Activations are
an estimate, counted operation by operation. GB are 10^9 bytes.
"""
import os

import torch

import run
from model import GPT, LOGITS

GB = 1e9


def parameters(shape):
    """GPTConfig -> its number of parameters; nothing is allocated."""
    with torch.device("meta"):
        return GPT(shape).n_params()


def adapter_parameters(shape, rank):
    """A and B of the four maps that get adapters in each block (lora.py)."""
    heads, ffn = shape.heads * shape.head_width, shape.ffn_width
    qkv = heads + 2 * shape.kv_heads * shape.head_width
    inputs = shape.width + heads + shape.width + ffn
    outputs = qkv + shape.width + 2 * ffn + shape.width
    return shape.layers * rank * (inputs + outputs)


def cache_bytes(shape, rows, size):
    """Keys and values of `rows` texts as long as the context, and the scrap slot."""
    slots = rows * (shape.context + 1)
    return 2 * slots * shape.layers * shape.kv_heads * shape.head_width * size


def activation_bytes(shape, rows, rank, recompute, size):
    """What a forward pass keeps for the backward pass. Elements a token, in a block: the input of
    each norm and map, queries, keys and values before and after rotation, attention's output, and
    SwiGLU's gate, up, their product and its factors."""
    heads, kv = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    block = 4 * shape.width + 2 * (heads + 2 * kv) + 2 * heads + 5 * shape.ffn_width + 4 * rank
    kept = shape.layers * block
    if recompute:  # the inputs of all blocks, and everything of one
        kept = shape.layers * shape.width + block
    return rows * shape.context * kept * size


def plan(cfg, senior, frozen, rows, prompt, size, adapters=0, pair=False):
    """-> {what: bytes}. senior: GPTConfig of what is trained; frozen: {role: (GPTConfig, bytes of a
    weight)}, without a junior that is the weights under the senior's adapters (pair). rows: texts
    decoded side by side; prompt: tokens of one; size: bytes of a number while sampling, 2 or 4;
    adapters: their rank, 0: all weights train."""
    n = parameters(senior)
    trained = adapter_parameters(senior, adapters) if adapters else n
    out = {"weights": n * (size if adapters else 4)}
    if adapters:
        out["adapters"] = 4 * trained
    elif size == 2:
        out["copy for sampling"] = 2 * n
    for role, (shape, bytes_each) in frozen.items():
        out[role] = parameters(shape) * bytes_each
    junior = frozen["junior"][0] if "junior" in frozen else None
    out["copy of the start"] = 4 * trained  # for the table's first column
    out["gradients and optimizer"] = (4 + 8) * trained
    lanes = 2 if pair else 1
    out["caches"] = cache_bytes(senior, rows * lanes, size)
    if junior:
        out["caches"] += cache_bytes(junior, rows, size)
    # an update and a rollout do not run at the same time
    training = activation_bytes(senior, cfg.micro_rows, adapters, cfg.recompute, size)
    prefill = rows * lanes * prompt * 3 * senior.ffn_width * size
    out["activations"] = max(training, prefill)
    # fp32: logits, log-probs, probabilities and their sums
    decoded = rows * (lanes + bool(junior)) * senior.vocab_size
    scored = min(LOGITS, cfg.micro_rows * senior.context * senior.vocab_size)
    out["logits"] = 4 * 4 * max(decoded, scored)
    return out


def available(device):
    """Bytes that are free on the device, for each rank."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path, name in (("/proc/meminfo", "MemAvailable:"), ("/sys/fs/cgroup/memory.max", "")):
        try:
            with open(path, encoding="utf-8") as file:
                words = [line.split() for line in file]
        except OSError:
            continue
        if name:
            free += [int(line[1]) * 1024 for line in words if line[0] == name]
        else:
            free += [int(line[0]) for line in words if line and line[0].isdigit()]
    return min(free) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's ranks share it


def table(parts, free, device):
    """The plan as text."""
    total = sum(parts.values())
    lines = [f"{name:28}{size / GB:10.2f} GB" for name, size in (*parts.items(), ("sum", total))]
    return "\n".join([*lines, f"{'free on ' + device:28}{free / GB:10.2f} GB"])


def check(parts, device, dry_run, public):
    """Print the plan and end (--dry-run), or stop when it does not fit; public: say its sum."""
    free, total = available(device), sum(parts.values())
    if dry_run:
        print(table(parts, free, device))
        print("it fits" if total <= free else "it does not fit")
        raise SystemExit(0 if total <= free else 2)
    if total > free:
        largest = max(parts, key=parts.get)
        raise run.Stop(
            f"this takes {total / GB:.1f} GB, {parts[largest] / GB:.1f} of them for {largest}, and "
            f"{device} has {free / GB:.1f} GB free; lower --rows, --micro-rows or --context, add "
            "--recompute, or see what takes how much with --dry-run")
    if public and int(os.environ.get("RANK", 0)) == 0:
        print(f"memory: {total / GB:.1f} GB planned, {free / GB:.1f} GB free on {device}")
