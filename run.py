"""What every run needs and no paper is about: the run itself, signals, ranks, the final table.

Options are in lib/options.py, the run's folder and checkpoints in lib/files.py; you reach all of it
as run.X. Whatever can go wrong ends in one line on stderr that says what to do (`run.Stop`).
"""
import os
import re
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from lib.files import (  # noqa: F401
    add_samples, check_finite, check_run, claim_folder, content_hash, load, load_last, log,
    read_config, read_log, release_folder, restore_log, save, write, write_result)
from lib.options import (  # noqa: F401
    Config, Count, CountOr0, Layers, Positive, Rate, Several, Share, Stop, Width, as_json,
    check_options, described, flag, from_json, in_range, kind_of, parse, typed)


# ---- the run ----

@dataclass(kw_only=True)
class Run:
    """What the loop in train.py works with. A method adds what it needs besides."""
    cfg: Config
    model: torch.nn.Module  # what is trained
    tok: object  # its tokenizer
    optimizer: torch.optim.Optimizer
    origins: dict  # role -> the checkpoint it was loaded from, the trained model's first
    frozen: dict = field(default_factory=dict)  # role -> model, of those that are not trained
    data: str = ""  # a hash of the data that the world was opened with
    made_of: dict = field(default_factory=dict)  # hashes of all it depends on (lib/resume.py)
    device: str
    rank: int  # of this process
    world: int  # number of processes
    compiled: bool  # the decode step
    began: float  # seconds since the epoch, less what earlier parts of a resumed run took
    warm: dict = None  # the trained model's weights at the start; filled in below
    step: int = 0  # updates done
    skipped: int = 0  # updates left out because they were not finite
    seen: dict = field(default_factory=dict)  # what the last look found
    seconds: float = 0.0  # from the start to the end of training

    def __post_init__(self):
        self.warm = {name: x.clone() for name, x in trained_state(self.model).items()}


def begin(cfg):
    """Set threads and device -> {"device", "rank", "world", "began"}, as Run has them.

    The ranks connect later (join_ranks): the warm starts come first, and they may take long."""
    rank, world = int(os.environ.get("RANK", 0)), world_size()
    device = choose_device(cfg.device)
    torch.set_num_threads(cfg.threads or max(1, min(4, cores() // world)))
    return {"device": device, "rank": rank, "world": world, "began": time.time()}


def cores():
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stopwatch():
    """-> a function that tells the seconds since it was last asked."""
    last = [time.perf_counter()]

    def lap():
        before, last[0] = last[0], time.perf_counter()
        return last[0] - before
    return lap


def trained_state(model):
    """{name: tensor} of what is trained: all weights, or nothing but adapters (lora.py)."""
    state = model.state_dict(keep_vars=True)
    return {name: x.detach() for name, x in state.items() if x.requires_grad}


def load_trained(model, state):
    """Copy into the model what trained_state() gave. RuntimeError when it is another model's."""
    strange = sorted(state.keys() ^ trained_state(model).keys())
    if strange:
        raise RuntimeError(f"other weights are trained here: {strange[0]}")
    model.load_state_dict(state, strict=False)


def before_and_after(r):
    """Yield "before", then "after", each time with the weights of that moment in the model."""
    trained = {name: x.clone() for name, x in trained_state(r.model).items()}
    for name, weights in (("before", r.warm), ("after", trained)):
        load_trained(r.model, weights)
        yield name


# ---- signals and devices ----

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # a terminal is closed


def catch_signals():
    """-> a list that gets the first SIGINT, SIGTERM or SIGHUP. A second signal ends the program at
    once. Under nohup a closed terminal stops nothing."""
    came = []

    def handler(number, frame):
        if came:
            raise KeyboardInterrupt
        came.append(number)
        print("\nstopping after this step ...", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM, HANGUP):
        if number != HANGUP or signal.getsignal(HANGUP) != signal.SIG_IGN:
            signal.signal(number, handler)
    return came


def release_signals():
    """From here on a signal ends the program at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(HANGUP) != signal.SIG_IGN:
        signal.signal(HANGUP, signal.SIG_DFL)


def choose_device(name):
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (name == "cuda" and not torch.cuda.is_available()) or (
            name == "mps" and not torch.backends.mps.is_available()):
        raise Stop(f"this machine has no {name} device; use --device cpu")
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name


# ---- ranks: the processes that torchrun starts ----

def world_size():
    """Number of processes; torchrun tells it before they are connected."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join_ranks(device):
    """Connect to the other processes, when torchrun started this one."""
    if "WORLD_SIZE" not in os.environ:
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    # the others wait while rank 0 looks or makes the table, and that may take long
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=timedelta(days=7))


def all_sum(x):
    """Sum of a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def all_max(x):
    """Maximum of a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def gathered(items):
    """The lists of all ranks, one behind the other."""
    if not dist.is_initialized():
        return items
    lists = [None] * dist.get_world_size()
    dist.all_gather_object(lists, items)
    return [x for part in lists for x in part]


# ---- the terminal ----

def plain_terminal():
    """A terminal that cannot show a character shows its number; it stops nothing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def reader_gone():
    """Whoever read our output (head, less) has seen enough: what is left of it goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text):
    """Text that a model wrote, without the control characters that could steer a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)


# ---- the final table ----

def print_table(columns, n):
    """columns: {title: {metric: (mean, standard error or None)}}, over n tasks (team: half)."""
    width = {title: max(18, len(title) + 2) for title in columns}
    print(f"{'':24}" + "".join(f"{title:>{width[title]}}" for title in columns))
    # in the order of the last column
    names = dict.fromkeys(name for column in reversed(columns.values()) for name in column)
    for name in names:
        cells = {title: cell(column.get(name), tasks_of(name, n))
                 for title, column in columns.items()}
        print(f"{name:24}" + "".join(f"{text:>{width[title]}}" for title, text in cells.items()))


def tasks_of(name, n):
    """How many of n tasks a metric is over: a team plays half of them."""
    return max(1, n // 2) if "hand" in name or "retention" in name else n


def cell(pair, n):
    """(mean, standard error over n tasks) -> "0.912 +- 0.013"; at 0 or 1, by the rule of three."""
    if pair is None:
        return "-"
    mean, error = pair
    if error is None:
        return f"{mean:.3f}"
    half = 1.96 * error or (min(1.0, 3 / n) if mean in (0.0, 1.0) else 0.0)
    return f"{mean:.3f} +- {half:.3f}"


# options that two methods must share to be compared
ALIKE = ("data", "level", "text", "turns", "tokenizer", "senior", "lora", "layers", "width",
         "skill", "target", "warm_steps", "sft_lr", "sft_rows", "steps", "prompts", "group", "lr",
         "minibatches", "clip", "grad_clip", "temperature", "max_new", "context", "rows",
         "micro_rows", "bf16",
         "final_split", "test_problems", "test_chains", "teacher", "teacher_layers",
         "teacher_width", "teacher_skill", "teacher_target", "student", "student_skill",
         "student_habits", "student_player")


def print_next(r, *others):
    """Print how long it took, and what to do next: look at the run, or train by another method."""
    cfg = r.cfg
    print(f"{r.seconds:.0f} s to the end of training, {time.time() - r.began:.0f} s with this table"
          f"\n\nnext:\n  python sample.py {shlex.quote(cfg.out)}")
    same = "".join(f" {flag(name)} {shlex.quote(str(getattr(cfg, name)))}" for name in ALIKE
                   if getattr(cfg, name, None) != getattr(type(cfg), name, None))
    for method in others:
        print(f"  python train.py --method {method} --env {cfg.env} --seed {cfg.seed}{same}")
