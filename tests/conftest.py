"""Shared by all tests: one thread, the real data files where this machine has them, and train.py called in a folder of its own."""
import dataclasses
import functools
import json
import os
import signal
from pathlib import Path

import pytest
import torch

import envs
import grpo
import mediation
import policy
import run
import train
import world
import worldmodel
from envs import house
from model import GPT, small_config

torch.set_num_threads(1)
REPO = Path(__file__).resolve().parent.parent
KNOWN = ("train", "test", "gsm8k_train", "gsm8k_test", "svamp_test", "mawps_test")  # names of published files envs/gsm8k.py reads


@pytest.fixture
def math_files():
    """{name: path} of real jsonl files: those of GSM8K_DATA (a file or a folder), else of ../shared/data/math."""
    place = Path(os.environ.get("GSM8K_DATA") or REPO.parent / "shared/data/math")
    files = {place.stem: place} if place.is_file() else {n: place / f"{n}.jsonl" for n in KNOWN if (place / f"{n}.jsonl").is_file()}
    if not files:
        pytest.skip(f"no published problems at {place}: set GSM8K_DATA to a jsonl file or a folder of them")
    return files


# ---- the command line ----

TINY = ("--layers 1 --width 32 --junior-layers 1 --junior-width 32 --warm-steps 2 --sft-rows 4 --prompts 2 --group 2 --steps 4 --eval-every 2 "
        "--eval-problems 2 --test-problems 2 --test-chains 2 --save-every 1 --threads 1 --device cpu --out o "
        "--A 2 --B 2 --window 2 --max-state 8 --teacher-layers 1 --teacher-width 32 --teacher-skill 0 --teacher-target 0 --student-skill 0 "
        "--student-habits 1").split()
# No reward comes to models this small, so a penalty to another model moves the weights where a test must see them move.
MOVING = {"sft": ["--method", "sft"], "grpo": "--method grpo --junior auto --kl 1 --kl-to junior".split(),
          "tandem": "--method tandem --kl 1 --kl-to junior".split(),
          "worldmodel": "--method worldmodel --C 8 --scale group".split(),
          "opd": "--method opd --turns 3".split(), "atod": "--method atod --turns 3".split()}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("warm"))


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, cache):
    """command("--method", "sft", ...) -> exit code, stdout, stderr of train.py in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    held_out = world.held_out
    monkeypatch.setattr(world, "held_out", lambda r, split, n, future: held_out(r, split, min(n, 40), future))  # the floor takes thousands
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def call(*args):
        code = train.main([*TINY, "--cache", cache, *args])
        return code, *capsys.readouterr()
    yield call
    torch.set_num_threads(1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def tree(folder="."):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def errors(stderr):
    return [line for line in stderr.splitlines() if line.startswith("error:")]


def metrics(out="o", timing=False):
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    return [{k: x for k, x in m.items() if timing or not (k.startswith("time_") or k in ("wall", "tokens_per_s", "agent_steps_per_s"))} for m in lines]


def outcome(out="o"):
    """What must not depend on interruptions: final weights, the table and the metrics, times apart."""
    weights = {k: x.tolist() for k, x in run.load(f"{out}/ckpt.pt")["model"].items()}
    table = json.loads(Path(out, "result.json").read_text())
    return weights, {k: x for k, x in table.items() if k not in ("seconds", "update_seconds", "times")}, json.dumps(metrics(out), sort_keys=True)  # as text: nan equals nan


@pytest.fixture
def straight(command):
    """straight(method): the outcome of an uninterrupted run, and a check that its weights did move."""
    def go(method, *args):
        assert command(*MOVING[method], *args, "--out", "straight")[0] == 0
        state = run.load("straight/ckpt.pt")
        assert any(not torch.equal(x, state["warm"][k]) for k, x in state["model"].items()), "nothing was learned: nothing to compare"
        return outcome("straight")
    return go


def interrupt_at(monkeypatch, step):
    """Ctrl-C while the metrics of `step` are written."""
    log = run.log

    def logged(out, line):
        log(out, line)
        if line["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(run, "log", logged)


def poison(monkeypatch, *calls):
    """Make the loss of these updates NaN (numbered from 1); none given: of all."""
    apply, count = grpo.apply_gradients, [0]

    def poisoned(model, optimizer, clip, loss):
        count[0] += 1
        return apply(model, optimizer, clip, loss * float("nan") if not calls or count[0] in calls else loss)
    monkeypatch.setattr(grpo, "apply_gradients", poisoned)


def save_model(path, env, context=64):
    """A checkpoint of a tiny model with the vocabulary of an environment."""
    values = {f.name: f.default for cls in train.GROUPS.values() for f in dataclasses.fields(cls)}
    tok = policy.open_tokenizer(values, policy.open_env({**values, "env": env, "skill": "senior"})[0])
    cfg = small_config(tok.n_vocab, context, 1, 32)
    torch.save({"model": GPT(cfg).state_dict(), "model_config": dataclasses.asdict(cfg), "tokenizer": tok.state()}, path)


@pytest.fixture
def surroundings(command):
    """Files that a careless command could hit."""
    good = json.dumps({"question": "q", "answer": "#### 1"})
    Path("bad.jsonl").write_text(f"{good}\n{good}\nnot json\n")
    Path("regular").write_text("a file")
    Path("foreign").mkdir()
    Path("foreign/thesis.txt").write_text("precious")
    Path("other").mkdir()
    Path("other/config.json").write_text(json.dumps({"method": "sft", "seed": 0}))
    Path("listed").mkdir()
    Path("listed/config.json").write_text("[]")
    Path("other/ckpt.pt").write_bytes(b"of another run")
    Path("corrupt.pt").write_bytes(b"PK\x03\x04 cut short")
    save_model("sums.pt", "arithmetic")
    save_model("short.pt", "arithmetic", context=50)
    save_model("guess.pt", "guess")


# ---- a world model ----

@functools.cache
def house_tokenizer():
    return world.open_tokenizer({"tokenizer": "trained"}, {2: envs.make("house")}, house)


def tiny_world(formulation="strict", seed=0, context=160, max_state=8, **options):
    """An untrained mediation.World of the house. options: fields of worldmodel.Config"""
    torch.manual_seed(seed)
    tok = house_tokenizer()
    model = GPT(small_config(tok.n_vocab, context, 1, 32))
    return mediation.World(model, tok, worldmodel.Config(formulation=formulation, **options), house, max_state, 10)
