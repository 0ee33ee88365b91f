"""Going on with a run: what a checkpoint holds, and what must be the same before it is loaded.

A resumed run equals an uninterrupted one bit for bit on a CPU, so everything that its numbers
depend on is compared with the checkpoint first: options, data, vocabulary and frozen models by
content.
"""
import dataclasses
import hashlib
import json
import os
import time

import torch

import lora
import run
import tokenizer
import weights
from lib.start import source_hash

# what a resumed run may change: places, and what is looked at; data and models that are made again
# are compared by their content
MAY_CHANGE = ("out", "resume", "eval_every", "save_every", "threads", "compile", "data", "cache")


def options_of_run(cfg, given):
    """The options of the run in cfg.out, for --resume. Stop when you typed one that differs."""
    stored = run.read_config(cfg.out)
    if stored is None:
        print(f"nothing to resume in {cfg.out}: starting from the beginning")
        return dataclasses.replace(cfg, resume=False)
    if stored["method"] != cfg.method:
        raise run.Stop(f"the run in {cfg.out} is --method {stored['method']}, not {cfg.method}; "
                       "choose another --out")
    for name, value in given.items():
        if name not in MAY_CHANGE and stored.get(name) != value:
            raise run.Stop(f"{run.flag(name)} {value} differs from this run's {stored.get(name)}; "
                           "a resumed run keeps its options. A new run can start from its weights: "
                           f"--{'student' if hasattr(cfg, 'student') else 'senior'} {cfg.out}")
    typed = {name: value for name, value in given.items() if name in MAY_CHANGE}
    return run.from_json(type(cfg), {**stored, **typed, "out": cfg.out, "resume": True})


WRITTEN = ("model", "model_config", "tokenizer", "warm", "optimizer", "step", "skipped", "seconds",
           "threads", "compiled", "world", "options", "origins", "made_of", "log")


def save(r):
    """Write all that --resume needs: WRITTEN. Nonsense never replaces a good checkpoint."""
    if r.rank == 0:
        trained = run.trained_state(r.model)
        run.check_finite(trained, f"step {r.step} failed, the last good state is "
                         f"{r.cfg.out}/ckpt.pt: start a new run from it with a lower --lr")
        run.save(os.path.join(r.cfg.out, "ckpt.pt"), {
            "model": trained, "model_config": dataclasses.asdict(r.model.cfg),
            "tokenizer": r.tok.state(), "warm": r.warm, "optimizer": r.optimizer.state_dict(),
            "step": r.step, "skipped": r.skipped, "seconds": time.time() - r.began,
            "threads": torch.get_num_threads(), "compiled": r.compiled, "world": r.world,
            "options": run.as_json(r.cfg), "origins": r.origins, "made_of": made_of(r),
            "log": run.read_log(r.cfg.out)},
            keep_previous=True)


def made_of(r):
    """Hashes of what a run depends on besides its options and its own weights. None of it changes
    while the run goes on, so a large frozen model is read once and not at every checkpoint."""
    if r.made_of:
        return r.made_of
    base = next(iter(r.origins.values()), "")  # what adapters are for
    frozen = {f"the {role}": source_hash(r.origins.get(role, base), model)
              for role, model in r.frozen.items()}
    vocabulary = hashlib.sha256(json.dumps(tokenizer.content(r.tok)).encode()).hexdigest()
    r.made_of = {"the data": r.data, "the vocabulary": vocabulary, **frozen}
    if hasattr(r, "env"):  # a world of one's own that was edited in between
        r.made_of["the world"] = r.env.rules(next(iter(r.env.first.targets), "senior"))
    return r.made_of


def restore(r, state):
    """Load a checkpoint of this run, in place: a KL term's reference shares r.warm's tensors."""
    run.load_trained(r.model, state["model"])
    r.optimizer.load_state_dict(state["optimizer"])
    for name, x in r.warm.items():
        x.copy_(state["warm"][name])
    r.step, r.skipped = state["step"], state["skipped"]
    r.began -= state["seconds"]


def resume(method, cfg):
    """Options of a run -> its Run at the last checkpoint, with the bits it would have had."""
    state, path = run.load_last(cfg.out)
    if state is None:  # it was stopped before its first checkpoint
        updates = len(run.read_log(cfg.out))
        if updates:
            raise run.Stop(f"{cfg.out} has a log of {updates} updates and no checkpoint; "
                           "move the folder away and start again")
        r = method.setup(cfg)
    else:
        for name, value in run.as_json(cfg).items():
            if name not in MAY_CHANGE and state["options"].get(name) != value:
                raise run.Stop(f"{cfg.out}/config.json says {run.flag(name)} {value}, its "
                               f"checkpoint {state['options'].get(name)}; put the file back")
        r = from_checkpoint(method, cfg, state, path)
        announce_changes(r, state)
    if r.rank == 0:
        run.restore_log(cfg.out, r.step, state["log"] if state else [])
        print(f"resumed at step {r.step} of {cfg.steps}")
    return r


def announce_changes(r, state):
    """Say so when the numbers may differ in their last bits."""
    for name, was, here in (("threads", state["threads"], torch.get_num_threads()),
                            ("ranks", state["world"], r.world),
                            ("compile", state["compiled"], r.compiled)):
        if was != here and r.rank == 0:
            print(f"{name}: {was} before, {here} now; the numbers may differ in their last bits")
    for name in ("eval_every", "save_every"):
        was, here = state["options"][name], getattr(r.cfg, name)
        if was != here and r.rank == 0:
            print(f"{run.flag(name)}: {was} before, {here} now")


def readable(path):
    try:
        run.load(path)
        return True
    except run.Stop:
        return False


def from_checkpoint(method, cfg, state, path):
    """Set a run up from its checkpoint: its own weights are at `path`, and another model's warm
    start is made again if it is gone. Stop when data or models are not those of the run."""
    missing = (set(WRITTEN) - state.keys()) | ({"seed"} - state["options"].keys())
    if missing:
        raise run.Stop(f"{path} was written by another version of this project: it lacks "
                       f"{', '.join(sorted(missing))}")
    options = dataclasses.replace(cfg, seed=state["options"]["seed"])
    for role, origin in state["origins"].items():
        if weights.is_folder(origin) or readable(origin):  # else it is made again, and compared
            setattr(options, role, origin)
    if not lora.rank_in(state["model"]):  # adapters need what they are for, and not each other
        setattr(options, next(iter(state["origins"]), "senior"), path)
    r = method.setup(options)
    r.cfg, r.origins = cfg, state["origins"]
    try:
        restore(r, state)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        why = str(error).split("\n")[0]
        raise run.Stop(f"{path} is no checkpoint of this run ({why})") from None
    now = made_of(r)
    for name, content in state["made_of"].items():
        if now.get(name) != content:
            raise run.Stop(f"{name} of this run changed since its last checkpoint; put it back "
                           "as it was, or start a new run with another --out")
    if getattr(r.tok, "day", "") != state["tokenizer"].get("day", ""):
        r.tok = tokenizer.from_state(state["tokenizer"])  # its preamble names the first day
    return r
