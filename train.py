"""The one entry point: train a method on a world, from nothing to a table.

    python train.py --method tandem            # a senior and a junior write together (minutes, CPU)
    python train.py --method grpo              # the baseline
    python train.py --method worldmodel        # a world model whose memory is text, on a house
    python train.py --method atod              # a student that passes its teacher, on a house
    python train.py --method opd               # distillation alone
    python train.py --method sft               # demonstrations alone
    python train.py --method tandem --help     # the options of a method
    torchrun --nproc_per_node=2 train.py --method grpo     # each rank plays its own prompts

Options -> setup -> (step, now and then a look) x steps -> report. This file knows no algorithm: a
method is a module with those functions and a Config, and every option is a field of that Config.
"""
import dataclasses
import json
import os
import shlex
import signal
import sys
import time

import torch
import torch.distributed as dist
from tqdm import tqdm

import atod
import envs
import grpo
import run
import sft
import tandem
import worldmodel

METHODS = {"sft": (sft, sft.Config), "grpo": (grpo, grpo.Config), "tandem": (tandem, tandem.Config),
           "worldmodel": (worldmodel, worldmodel.Config), "atod": (atod, atod.Config),
           "opd": (atod, atod.OPD)}


# ---- options ----

def read_options(argv):
    """-> the method's module, its Config"""
    # before we know which options there are: --method, --env, --out, --help
    typed = run.typed(argv)
    if typed.help and not typed.method:
        print(__doc__)
        raise SystemExit(0)
    stored = run.read_config(typed.out) if typed.resume and typed.out else None
    name = typed.method or (stored["method"] if stored else "tandem")
    if name not in METHODS:
        raise run.Stop(f"unknown method {name!r}; one of: {' '.join(METHODS)}")
    method, Config = METHODS[name]
    hidden = envs.unused_options(typed.env or Config.env) if typed.help else ()
    cfg, given = run.parse(argv, Config, method.__doc__.split("\nThis file")[0], hidden)
    cfg.out = cfg.out or f"out/{name}-{cfg.env}-{cfg.seed}"
    if cfg.resume:
        cfg = options_of_run(cfg, given)
    return method, cfg


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
        if name not in ("resume", "out") and stored.get(name) != value:
            raise run.Stop(f"{run.flag(name)} {value} differs from this run's {stored.get(name)}; "
                       "a resumed run keeps its options")
    return run.from_json(type(cfg), {**stored, "out": cfg.out, "resume": True})


# ---- checkpoints ----

def save(r):
    """Everything that --resume needs."""
    if r.rank == 0:
        run.save(os.path.join(r.cfg.out, "ckpt.pt"), {
            "model": r.model.state_dict(), "model_config": dataclasses.asdict(r.model.cfg),
            "tokenizer": r.tok.state(), "warm": r.warm, "optimizer": r.optimizer.state_dict(),
            "step": r.step, "skipped": r.skipped, "seconds": time.time() - r.began,
            "threads": torch.get_num_threads(), "compiled": r.compiled,
            "options": run.as_json(r.cfg), "origins": r.origins}, keep_previous=True)


def restore(r, state):
    """Load a checkpoint of this run, in place: a KL term's reference shares r.warm's tensors."""
    r.model.load_state_dict(state["model"])
    r.optimizer.load_state_dict(state["optimizer"])
    for name, x in r.warm.items():
        x.copy_(state["warm"][name])
    r.step, r.skipped = state["step"], state["skipped"]
    r.began -= state["seconds"]


def resume(r):
    """Go on from the folder's last checkpoint, with the bits it would have had."""
    state = run.load_last(r.cfg.out)
    if state is not None:
        if state["threads"] != torch.get_num_threads() or state["compiled"] != r.compiled:
            compiled = "on" if state["compiled"] else "off"
            raise run.Stop(f"this run had {state['threads']} threads and compile {compiled}; "
                           "a resumed run keeps them")
        restore(r, state)
    if r.rank == 0:
        run.cut_log(r.cfg.out, r.step)
        print(f"resumed at step {r.step} of {r.cfg.steps}")


def reopen(folder, **changes):
    """A run as its folder holds it, to look at or to play with -> its method's module, its Run."""
    state = run.load(os.path.join(folder, "ckpt.pt") if os.path.isdir(folder) else folder)
    if "options" not in state:
        raise run.Stop(f"{folder} is a model, not a run: give a run's output folder")
    method, Config = METHODS[state["options"]["method"]]
    cfg = run.from_json(Config, {**state["options"], "resume": True, "compile": "off", **changes})
    for role, path in state["origins"].items():
        setattr(cfg, role, path)
    # what was trained: its warm start may be gone
    setattr(cfg, next(iter(state["origins"]), "senior"), folder)
    r = method.setup(cfg)
    restore(r, state)
    return method, r


# ---- the run ----

def start(method, cfg):
    """Options -> Run: make warm starts, then load the last checkpoint or begin a new folder."""
    r = method.setup(cfg)
    if cfg.resume:
        resume(r)
    elif r.rank == 0:  # from here on it is a run that --resume goes on with
        run.write(os.path.join(cfg.out, "config.json"), json.dumps(run.as_json(cfg), indent=1))
    if r.step == 0:
        save(r)
    return r


def train(argv):
    method, cfg = read_options(argv)
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{cfg.method} on {cfg.env}, {cfg.steps} updates, output in {cfg.out}")
    r = start(method, cfg)
    came, bad = run.catch_signals(), 0
    with tqdm(total=cfg.steps, initial=r.step, desc=cfg.method, disable=r.rank > 0, file=sys.stderr,
              mininterval=1) as bar:
        while r.step < cfg.steps:
            # one update
            stats = method.step(r)
            r.step += 1
            r.skipped += stats["skipped"]
            bad = bad + 1 if stats["skipped"] else 0
            if bad == 10:
                raise run.Stop("ten updates in a row were not finite; the last good state is "
                               f"{cfg.out}/ckpt.pt: start a new run from it with a lower --lr")

            # what is written and shown
            if r.rank == 0:
                if r.step % cfg.eval_every == 0:
                    r.seen = method.look(r)
                looked = r.seen if r.step % cfg.eval_every == 0 else {}
                wall = time.time() - r.began
                line = {"step": r.step, "wall": wall, **stats, "skipped": r.skipped, **looked}
                run.log(cfg.out, line)
                bar.set_postfix(progress(stats, r.seen))
            bar.update()

            # save; one rank's signal stops them all
            stop = bool(run.all_sum(torch.tensor(len(came), device=r.device)))
            if r.step % cfg.save_every == 0 or r.step == cfg.steps or stop:
                save(r)
            if stop and r.step < cfg.steps:
                bar.close()
                if r.rank == 0:
                    print(f"stopped at step {r.step} of {cfg.steps}, saved. Go on with:\n"
                          f"  python train.py --resume --out {shlex.quote(cfg.out)}")
                return 128 + (came or [signal.SIGINT])[0]
    run.release_signals()  # everything is saved: --resume makes the table again
    r.seconds = time.time() - r.began
    if r.rank == 0:
        method.report(r)
    return 0


def progress(stats, seen):
    """What the progress bar shows of an update and of the last look."""
    shown = {name: f"{stats[name]:.2f}" for name in ("reward", "kappa") if name in stats}
    shown.update((name, f"{value:.2f}") for name, value in list(seen.items())[:1])
    return {**shown, "tok_s": f"{stats['tokens_per_s']:,.0f}"}


def main(argv=None):
    try:
        return train(sys.argv[1:] if argv is None else argv)
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    except OverflowError as error:
        print(f"error: a prompt does not fit: {error}; raise --context", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what was saved before is untouched, --resume goes on from it",
              file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; whatever was saved is kept. The same command with --resume goes on",
              file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
