"""Two processes make a world model's update of one: what torchrun starts, twice, on a CPU."""
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

import beliefs
import run
import train
import worldmodel
from conftest import MOVING, errors, metrics, tiny, tiny_world
from envs import record
from worldmodel import Config
from worlds import FOUND

N = 4  # examples an update, two of each rank
TREE = {"A": 2, "B": 2, "C": 3}
CASES = {  # name: options, examples whose rewards differ
    "strict": (TREE, range(N)),
    "strict, group": ({**TREE, "scale": "group"}, range(N)),
    "strict, one rank has no variance": (TREE, (2, 3)),
    "strict, no variance": (TREE, ()),
    "strict, turns are dropped": ({**TREE, "window": 0}, range(N)),
    "flat": ({**TREE, "flat": True}, range(N)),
    "leaky": ({"formulation": "leaky", "group": 5}, range(N)),
    "leaky, one rank has no variance": ({"formulation": "leaky", "group": 5}, (0,)),
    "stateless": ({"formulation": "stateless", "sft_rows": N}, range(N))}


def one_update(options, differ):
    """An update of a small model; of two ranks each makes it on its share -> weights, statistics"""
    torch.set_num_threads(1)
    cfg = Config(prompts=N, grad_clip=0.1, **options)
    w = tiny_world(cfg.formulation, seed=3, context=100, window=cfg.window)
    tasks = [5 * 10**6 + i for i in range(N)]
    examples = record.examples(FOUND, tasks, "train", "update 0")
    pulling = {examples[i].future[0].stated for i in differ}

    def judge(w, cfg, text, stated, states):  # an untrained model earns next to nothing
        return len(text) % 5 * 0.3 if stated in pulling else 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worldmodel, "judge", judge)
        patch.setattr(beliefs.WorldModel, "leaky_sections",  # its answers hold no marks
                      lambda w, ids: [ids[:3], ids[3:6], ids[6:]])
        r = SimpleNamespace(cfg=cfg, w=w, model=w.model, device="cpu", step=0, worlds=FOUND,
                            optimizer=torch.optim.SGD(w.model.parameters(), lr=1.0), told=True)
        return w.model.state_dict(), worldmodel.step(r)


def one_rank(rank, folder, argv):
    """What torchrun starts twice: the updates above, then a whole run."""
    os.chdir(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save({name: one_update(*case) for name, case in CASES.items()}, f"{rank}.pt")
    dist.destroy_process_group()
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    held_out = worldmodel.held_out  # the table's floor takes thousands
    worldmodel.held_out = lambda r, split, n, future: held_out(r, split, min(n, 40), future)
    sys.exit(train.main(argv))


def two_ranks(folder, argv, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    ranks = torch.multiprocessing.spawn(one_rank, (str(folder), argv), nprocs=2, join=False)
    deadline = time.monotonic() + 240
    while not ranks.join(timeout=5):  # raises when a rank fails
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            pytest.fail("two ranks wait for each other for ever")


def same_numbers(found, expected, but=()):
    """Statistics of one process, and of rank 0 of two; times apart."""
    times = ("time_update", "tokens_per_s", *but)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        if name not in times:
            assert found[name] == pytest.approx(x, rel=1e-3, abs=1e-5, nan_ok=True), name


# what depends on which prompts share a batch: rows that hold their answers, and padding
OF_ROWS = ("rows", "tokens")


def test_two_processes_make_the_updates_of_one(command, tmp_path, monkeypatch):
    changes = [*MOVING["worldmodel"], "--scale", "batch", "--lr", "3e-4"]
    two_ranks(tmp_path, tiny("--cache", "warm", *changes, "--out", "two"), monkeypatch)

    # the updates alone
    for name, case in CASES.items():
        alone, stats = one_update(*case)
        # above the clip, so that both clip by the same global norm
        assert (stats["grad_norm"] > 0.1) == (name != "strict, no variance"), name
        assert (stats["dropped_turns"] > 0) == ("dropped" in name), name
        for rank in (0, 1):
            weights, theirs = torch.load(tmp_path / f"{rank}.pt")[name]
            same_numbers(theirs, stats, OF_ROWS)
            for key, expected in alone.items():
                torch.testing.assert_close(weights[key], expected, rtol=0, atol=1e-5,
                                           msg=f"{name}: {key} on rank {rank}")

    # the whole run, whose warm start was made once
    assert len(list(Path("warm").glob("*.pt"))) == 1 and Path("two/result.json").exists()
    assert command(*changes, "--cache", "warm", "--out", "one")[0] == 0
    one, two = run.load("one/ckpt.pt"), run.load("two/ckpt.pt")
    assert two["step"] == 4
    assert [m["step"] for m in metrics("two")] == [1, 2, 3, 4]  # written by one rank only
    assert max((x - one["warm"][k]).abs().max() for k, x in one["model"].items()) > 5e-4
    same_weights(one, two)
    same_numbers(metrics("two")[0], metrics("one")[0], OF_ROWS)

    # one process goes on with the two processes' run
    shutil.copytree("two", "cut")
    os.replace("cut/ckpt.pt.previous", "cut/ckpt.pt")
    code, out, err = command("--resume", "--cache", "warm", "--out", "cut")
    assert code == 0 and "ranks: 2 before, 1 now" in out, err
    assert run.load("cut/ckpt.pt")["step"] == 4
    same_weights(one, run.load("cut/ckpt.pt"))


def same_weights(one, two):
    gap = [(two["model"][k] - x).abs().flatten() for k, x in one["model"].items()]
    gap = torch.cat(gap)
    # Adam divides by tiny second moments: where a gradient is next to nothing its rounding may
    # show, up to a step of the learning rate
    assert (gap > 1e-5).float().mean() < 2e-3 and gap.max() < 3e-4


def test_ranks_that_do_not_divide_the_examples_are_one_line(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")  # as under torchrun
    for n, args in ((2, []), (4, ["--formulation", "stateless"])):
        code, _, err = command(*MOVING["worldmodel"], *args)
        assert code == 2 and len(err.splitlines()) == 1
        assert errors(err)[0].startswith(f"error: 3 ranks do not divide the {n} examples")
        assert not Path("o").exists()
