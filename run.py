"""What every run needs: options, the run's folder, checkpoints, signals, ranks, the final table.

Whatever goes wrong here ends in one line on stderr that says what to do (`Stop`). Nothing that was
saved is lost: a file is written beside its place and then moved there, the previous checkpoint is
kept, and a run never touches the folder of another run. """
import argparse
import dataclasses
import inspect
import json
import math
import operator
import os
import re
import shlex
import signal
import sys
import tempfile
import time
import typing
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.distributed as dist


class Stop(Exception):
    """Ends the program: one line on stderr, exit code 2."""

    code = 2


# ---- options: every field of a Config dataclass is one, its comment is the help ----

RULES = {"least": ("at least", operator.ge), "most": ("at most", operator.le),
         "above": ("above", operator.gt),
         "multiple": ("a multiple of", lambda value, bound: value % bound == 0)}


def in_range(kind, **rule):
    """An option's type: int or float with least, most, above or multiple (see check_options)."""
    return Annotated[kind, rule]


Count = in_range(int, least=1)
CountOr0 = in_range(int, least=0)  # 0: somebody else's default
Several = in_range(int, least=2)
Width = in_range(int, least=32, multiple=32)
Rate = in_range(float, least=0)
Positive = in_range(float, above=0)
Share = in_range(float, least=0, most=1)


@dataclass
class Config:
    """Every run"""
    env: str = "arithmetic"  # which world: the name of a file or a package in envs/
    data: str = ""  # path of the world's data, where it needs some
    text: str = ""  # style of the house's text: terse or plain; empty: terse
    steps: Count = 200  # updates
    seed: in_range(int, least=0, most=10**9 - 1) = 0  # of the warm start, tasks and random draws
    out: str = ""  # the run's folder; empty: out/<method>-<env>-<seed>
    resume: bool = False  # go on from the last checkpoint in --out
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where the models run
    threads: CountOr0 = 0  # CPU threads; 0: one a core, at most 4
    compile: Literal["auto", "on", "off"] = "auto"  # compile the decode step; auto: for a long run
    save_every: Count = 20  # updates between checkpoints
    eval_every: Count = 25  # updates between evaluations on valid tasks
    eval_problems: Count = 128  # valid tasks of such an evaluation
    final_split: Literal["test", "valid"] = "test"  # tasks of the final table; valid while you tune
    test_problems: CountOr0 = 0  # how many tasks the final table takes; 0: the world's own default


def described(cls):
    """-> [(class that declares the option first, field, its comment)], in order of declaration."""
    found = {}
    for owner in reversed(cls.__mro__[:-1]):
        source = inspect.getsource(owner)
        for name in inspect.get_annotations(owner):
            # a new default may leave the comment out
            comment = re.search(rf"^    {name}: .*?  # (.*)$", source, re.M)
            first, text = found.get(name, (owner, ""))
            found[name] = (first, comment.group(1) if comment else text)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    return [(owner, fields[name], text) for name, (owner, text) in found.items()]


def flag(name):
    return "--" + name.replace("_", "-")


def parser_for(prog, **how):
    """An argparse parser whose errors are Stops."""
    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False, usage="%(prog)s [options]",
                                     formatter_class=argparse.RawDescriptionHelpFormatter, **how)

    def error(message):
        raise Stop(f"{message}; see python {prog} --help")
    parser.error = error
    return parser


def typed(argv):
    """The options that decide which others there are: method, env, out, resume, help."""
    parser = parser_for("train.py", add_help=False)
    for name in ("method", "env", "out"):
        parser.add_argument(flag(name), default="")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    return parser.parse_known_args(argv)[0]


def parse(argv, cls, about, hidden=()):
    """Read a Config class's options -> (cfg, {typed option: value}). hidden: left out of --help."""
    parser = parser_for(f"train.py --method {cls.method}", description=about)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    groups = {}
    for owner, f, comment in described(cls):
        if owner not in groups:
            groups[owner] = parser.add_argument_group(owner.__doc__)
        text = comment.replace("%", "%%")
        kind, _, choices = kind_of(f)
        if choices:
            text += f" ({', '.join(choices)})"
        if kind is not bool and f.default != "":
            text += f" [{f.default}]"
        metavar = "NAME" if choices else {int: "N", float: "X"}.get(kind, "TEXT")
        how = {"type": kind, "metavar": metavar}
        if kind is bool:
            how = {"action": "store_true"}
        shown = argparse.SUPPRESS if f.name in hidden else text
        groups[owner].add_argument(flag(f.name), default=argparse.SUPPRESS, help=shown, **how)
    given = vars(parser.parse_args(argv))
    given.pop("method", None)
    cfg = cls(**given)
    check_options(cfg)
    return cfg, given


def kind_of(f):
    """A field's type -> int, float, bool or str; its range; its choices"""
    args = typing.get_args(f.type)
    if typing.get_origin(f.type) is Literal:
        return str, {}, args
    kind, rule = args or (f.type, {})
    return kind, rule, ()


def check_options(cfg):
    """Stop when an option has the wrong type, is not among its choices, or is out of range."""
    for f in dataclasses.fields(cfg):
        (kind, rule, choices), value = kind_of(f), getattr(cfg, f.name)
        if choices and value not in choices:
            raise Stop(f"unknown {f.name.replace('_', '-')} {value!r}; one of: {' '.join(choices)}")
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise Stop(f"{flag(f.name)} is {value!r}, which is no {kind.__name__}")
        if kind is float and not math.isfinite(value):
            raise Stop(f"{flag(f.name)} is a finite number, not {value}")
        for name, bound in rule.items():
            words, fine = RULES[name]
            if not fine(value, bound):
                raise Stop(f"{flag(f.name)} is {words} {bound:,}, not {value}")


def as_json(cfg):
    """The options as plain types, for config.json and checkpoints."""
    return {"method": cfg.method, **dataclasses.asdict(cfg)}


def from_json(cls, options):
    """Options that as_json() wrote -> a Config. Stop when they are not this version's."""
    options = {name: value for name, value in options.items() if name != "method"}
    names = {f.name for f in dataclasses.fields(cls)}
    strange = sorted(set(options) ^ names)
    if strange:
        raise Stop("these options are of another version of this project: "
                   f"{' '.join(strange[:5])}; start a new run")
    cfg = cls(**options)
    check_options(cfg)
    return cfg


# ---- the run ----

@dataclass(kw_only=True)
class Run:
    """What the loop in train.py works with. A method adds what it needs besides."""
    cfg: Config
    model: torch.nn.Module  # what is trained
    tok: object  # its tokenizer
    optimizer: torch.optim.Optimizer
    origins: dict  # role -> the checkpoint it was loaded from, the trained model's first
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
        self.warm = {name: x.clone() for name, x in self.model.state_dict().items()}


def begin(cfg):
    """Set threads and device, claim the run's folder -> {"device", "rank", "world", "began"}.

    The ranks connect later (join_ranks): the warm starts come first, and they may take long."""
    rank, world = int(os.environ.get("RANK", 0)), world_size()
    device = choose_device(cfg.device)
    torch.set_num_threads(cfg.threads or max(1, min(4, (os.cpu_count() or 1) // world)))
    if rank == 0 and not cfg.resume:
        claim_folder(cfg.out)
    return {"device": device, "rank": rank, "world": world, "began": time.time()}


def stopwatch():
    """-> a function that tells the seconds since it was last asked."""
    last = [time.perf_counter()]

    def lap():
        before, last[0] = last[0], time.perf_counter()
        return last[0] - before
    return lap


def before_and_after(r):
    """Yield "before", then "after", each time with the weights of that moment in the model."""
    trained = {name: x.clone() for name, x in r.model.state_dict().items()}
    for name, weights in (("before", r.warm), ("after", trained)):
        r.model.load_state_dict(weights)
        yield name


# ---- the run's folder ----

def write(path, text):
    """Write a text file whole or not at all."""
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)


def read_config(out):
    """The options in the folder's config.json; None when no run has begun there."""
    path = os.path.join(out, "config.json")
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        stored["method"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Stop(f"{path} cannot be read ({type(error).__name__}: {error}); "
                   "choose another --out") from None
    return stored


def claim_folder(out):
    """Make the folder. Stop when it holds anything, or cannot be written to."""
    try:
        os.makedirs(out, exist_ok=True)
        held = [name for name in os.listdir(out) if not name.endswith(".tmp")]
        tempfile.TemporaryFile(dir=out).close()  # can you write there?
    except OSError as error:
        raise Stop(f"cannot write to {out} ({error.strerror}); choose another --out") from None
    if "config.json" in held:
        raise Stop(f"{out} holds a run already; add --resume to continue it, or choose another --out")
    if held:
        raise Stop(f"{out} is not empty and holds no run; choose another --out")


def log(out, line):
    """Append a line to metrics.jsonl. A number that is not finite is null there: JSON has none."""
    line = {name: None if isinstance(x, float) and not math.isfinite(x) else x
            for name, x in line.items()}
    with open(os.path.join(out, "metrics.jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def read_log(out):
    """The lines of metrics.jsonl, one an update."""
    with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def add_samples(r, texts):
    """Append to samples.txt: [(what it is, text)]."""
    with open(os.path.join(r.cfg.out, "samples.txt"), "a", encoding="utf-8") as file:
        file.writelines(f"--- step {r.step}, {what}\n{text}\n" for what, text in texts)


def cut_log(out, steps):
    """Drop metrics and samples of steps after the checkpoint, and a half-written last line."""
    path, kept = os.path.join(out, "metrics.jsonl"), []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if json.loads(line)["step"] <= steps:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):
                    pass
        write(path, "".join(kept))
    path = os.path.join(out, "samples.txt")
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            # [before, step, sample, step, ...]
            parts = re.split(r"^(?=--- step (\d+), )", file.read(), flags=re.M)
        samples = zip(parts[1::2], parts[2::2])
        write(path, "".join(text for step, text in samples if int(step) <= steps))


# ---- checkpoints ----

def save(path, state, keep_previous=False):
    """Atomic: write beside the place, flush to disk, then move. keep_previous: keep the old one."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and os.path.exists(path):
            os.replace(path, path + ".previous")
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch on a full disk
        if os.path.exists(temporary):
            os.remove(temporary)
        why = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise Stop(f"cannot write {path} ({why}); earlier checkpoints are untouched: "
                   "free some space, then --resume") from None


def load(path):
    """A checkpoint, tensors and plain types only. Stop when it cannot be read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Stop(f"no checkpoint at {path}") from None
    except Exception as error:  # a file that was cut, or is of something else, fails in many ways
        raise Stop(f"{path} is no checkpoint that can be read ({type(error).__name__})") from None


def load_last(out):
    """The newest readable checkpoint of a folder; None when there is none yet."""
    path = os.path.join(out, "ckpt.pt")
    found = [p for p in (path, path + ".previous") if os.path.exists(p)]
    for p in found:
        try:
            state = load(p)
        except Stop as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        # the next save would move the unreadable one over the good one
        if p != path and os.path.exists(path):
            os.replace(path, path + ".corrupt")
        return state
    if found:
        raise Stop(f"no checkpoint in {out} can be read; move the folder away and start again")
    return None


# ---- signals and devices ----

def catch_signals():
    """-> a list that gets the first SIGINT or SIGTERM. A second one ends the program at once."""
    came = []

    def handler(number, frame):
        if came:
            raise KeyboardInterrupt
        came.append(number)
        print("\nstopping after this step ...", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    return came


def release_signals():
    """From here on a signal ends the program at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")


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


# ---- the final table ----

def write_result(r, result):
    write(os.path.join(r.cfg.out, "result.json"), json.dumps(result, indent=1))


def print_table(columns, n):
    """columns: {title: {metric: (mean, standard error or None)}}, over n tasks (handoff: half)."""
    width = {title: max(18, len(title) + 2) for title in columns}
    print(f"{'':24}" + "".join(f"{title:>{width[title]}}" for title in columns))
    # in the order of the last column
    names = dict.fromkeys(name for column in reversed(columns.values()) for name in column)
    for name in names:
        tasks = max(1, n // 2) if "hand" in name else n
        cells = {title: cell(column.get(name), tasks) for title, column in columns.items()}
        print(f"{name:24}" + "".join(f"{text:>{width[title]}}" for title, text in cells.items()))


def cell(pair, n):
    """(mean, standard error over n tasks) -> "0.912 +- 0.013"; at 0 or 1, by the rule of three."""
    if pair is None:
        return "-"
    mean, error = pair
    if error is None:
        return f"{mean:.3f}"
    half = 1.96 * error or (min(1.0, 3 / n) if mean in (0.0, 1.0) else 0.0)
    return f"{mean:.3f} +- {half:.3f}"


def print_next(r, *others):
    """Print how long it took, and what to do next: look at the run, or train by another method."""
    cfg = r.cfg
    data = f" --data {shlex.quote(cfg.data)}" if cfg.data else ""
    print(f"{r.seconds:.0f} s to the end of training, {time.time() - r.began:.0f} s with this table"
          f"\n\nnext:\n  python sample.py {shlex.quote(cfg.out)}")
    for method in others:
        print(f"  python train.py --method {method} --env {cfg.env} --seed {cfg.seed}{data}")
