"""The one entry point: train a method on a world, from nothing to a table.

    python train.py --method tandem            # a senior and a junior write together (minutes, CPU)
    python train.py --method grpo              # the baseline
    python train.py --method worldmodel        # a world model whose memory is text, on a house
    python train.py --method atod              # a student that passes its teacher, on a house
    python train.py --method opd               # distillation alone
    python train.py --method sft               # demonstrations alone
    python train.py --method tandem --help     # the options of a method

    torchrun --nproc_per_node=2 train.py --method grpo     # each rank plays its own prompts

Worlds (--env): arithmetic, house, guess, sums, gsm8k, math; textworld, scienceworld, alfworld,
webshop and searchqa with packages of their own. Without --method you get tandem.

Options -> setup -> (step, now and then a look) x steps -> report. This file knows no algorithm: a
method is a module with those functions and a Config, and every option is a field of that Config.
"""
import json
import os
import shlex
import signal
import sys
import time

# Threads of one operation wait for each other: spin 10,000 times, then sleep. With the usual
# 300,000 they would use up each other's turns on a busy machine. Read when torch is loaded; see
# docs/speed.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

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
from lib import resume
from lib.start import checkpoint_of

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
    same = [run.flag(name) for name in resume.MAY_CHANGE]  # options that do not say which run it is
    others = [x for x in argv if x.startswith("--") and x.split("=")[0] not in same]
    if typed.resume and typed.out and stored is None and not others:
        raise run.Stop(f"{typed.out} holds no run yet; give the whole command, with --method")
    if name not in METHODS:
        raise run.Stop(f"unknown method {name!r}; one of: {' '.join(METHODS)}")
    method, Config = METHODS[name]
    if Config.method != name:  # a run's folder would say that it is another method's
        raise run.Stop(f"METHODS in train.py says {name!r}, its Config in {method.__name__}.py "
                       f"method = {Config.method!r}; let both say the same")
    hidden = envs.unused_options(typed.env or Config.env) if typed.help else ()
    about = f"{Config.__doc__}\n\n" + method.__doc__.split("\nThis file")[0]
    cfg, given = run.parse(argv, Config, about, hidden)
    cfg.out = cfg.out or f"out/{name}-{cfg.env}-{cfg.seed}"
    if cfg.resume:
        cfg = resume.options_of_run(cfg, given)
    return method, cfg


def reopen(folder, wanted="", **changes):
    """A run as its folder holds it, to look at or to play with -> its method's module, its Run.
    wanted: the method it must be of."""
    path = checkpoint_of(folder)
    state = run.load(path)
    run.check_run(state, folder)
    name = state["options"].get("method")
    if name not in METHODS:
        raise run.Stop(f"{folder}: unknown method {name!r}; one of: {' '.join(METHODS)}")
    if wanted and name != wanted:
        raise run.Stop(f"{folder} is a run of --method {name}, not of --method {wanted}")
    method, Config = METHODS[name]
    cfg = run.from_json(Config, {**state["options"], "resume": True, "compile": "off", **changes})
    return method, resume.from_checkpoint(method, cfg, state, path)


# ---- the run ----

def start(method, cfg):
    """Options -> Run: make warm starts, then load the last checkpoint or begin a new folder."""
    if not getattr(cfg, "dry_run", False):  # it writes nothing
        run.claim_folder(cfg)
    r = resume.resume(method, cfg) if cfg.resume else method.setup(cfg)
    if not cfg.resume and r.rank == 0:  # from here on it is a run that --resume goes on with
        run.write(os.path.join(cfg.out, "config.json"), json.dumps(run.as_json(cfg), indent=1))
    if r.step == 0:
        resume.save(r)
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
                resume.save(r)
            if stop:  # in the last update too: --resume makes the table
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
    run.plain_terminal()
    try:
        return train(sys.argv[1:] if argv is None else argv)
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    except OverflowError as error:
        print(f"error: a prompt does not fit: {error}; raise --context", file=sys.stderr)
        return 2
    except (OSError, envs.Failed) as error:
        print(f"error: {error}; what was saved before is untouched, --resume goes on from it",
              file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}; the last good state is in the run's ckpt.pt: "
              "start a new run from it with a lower --lr", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        why = str(error).split("\n")[0]
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in why:
            print(f"error: out of memory ({why}); lower --context, --turns, --prompts or --group",
                  file=sys.stderr)
            return 2
        if dist.is_initialized():
            print(f"error: another rank is gone, or does not answer ({why})", file=sys.stderr)
            return 2
        raise
    except KeyboardInterrupt:
        print("interrupted; whatever was saved is kept. The same command with --resume goes on",
              file=sys.stderr)
        return 130
    finally:
        run.release_folder()
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
