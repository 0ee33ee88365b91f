"""Two processes make the update of one: what torchrun starts, twice, on a CPU."""
import os
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import grpo
import lora
import rollout
import run
import sft
import train
from conftest import MOVING, metrics, tiny
from model import GPT, small_config, token_logp, trained
from rollout import Rows

PULLS = {  # advantages: which rank's rows pull
    "both": [1.0, -1, 0.5, -0.5, 2, -2, 1, -1],
    "one": [0.0, 0, 0, 0, 2, -1, 1, -1],
    "none": [0.0] * 8,
    "adapters": [1.0, -1, 0.5, -0.5, 2, -2, 1, -1]}  # they alone are trained, and summed


def one_update(name, share):
    """The update of a small model on a share of eight rows, of which four belong to each of two
    ranks -> weights, statistics."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = GPT(small_config(16, 16, 1, 32))
    tokens = torch.randint(0, 16, (8, 12))
    end = torch.tensor([5, 12, 7, 9, 6, 5, 6, 7])[:, None]  # ranks write as many tokens as they do
    sampled = (torch.arange(12) > 3) & (torch.arange(12) < end)
    behaviour = token_logp(model, tokens).detach() + 0.1 * torch.randn(8, 12)
    rows = Rows(tokens, sampled, behaviour, torch.where(sampled, 0, -1), torch.arange(8),
                torch.arange(8) // 2)
    if name == "adapters":
        model = lora.adapt(model, 4)
        for one in (module for module in model.modules() if isinstance(module, lora.Adapted)):
            torch.nn.init.normal_(one.b, std=0.1)
    optimizer = torch.optim.SGD(trained(model), lr=1.0)
    advantage = torch.tensor(PULLS[name])[share]
    stats = grpo.update_on(model, optimizer, rows[share], sampled[share].float(), advantage,
                           grpo.Config(grad_clip=0.1))
    return model.state_dict(), stats


def one_rank(rank, folder, argv):
    """What torchrun starts twice: the updates above on a share of the rows each, then a whole
    run."""
    os.chdir(folder)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    mine = torch.arange(4 * rank, 4 * rank + 4)
    torch.save({name: one_update(name, mine) for name in PULLS}, f"{rank}.pt")
    dist.destroy_process_group()
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    sys.exit(train.main(argv))


@pytest.mark.parametrize("method", ["grpo", "atod"])
def test_two_processes_make_the_updates_of_one(command, tmp_path, monkeypatch, method):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    changes = [*MOVING[method], "--lr", "3e-4"]
    argv = tiny("--cache", "warm", *changes, "--out", "two")
    ranks = torch.multiprocessing.spawn(one_rank, (str(tmp_path), argv), nprocs=2, join=False)
    deadline = time.monotonic() + 120
    while not ranks.join(timeout=5):  # raises when a rank fails
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            pytest.fail("two ranks wait for each other for ever")

    # the updates alone
    for name in PULLS:
        alone, stats = one_update(name, torch.arange(8))
        # above the clip, so that both clip by the same global norm
        assert (stats["grad_norm"] > 0.1) == (name != "none")
        for rank in (0, 1):
            weights, theirs = torch.load(tmp_path / f"{rank}.pt")[name]
            assert theirs["grad_norm"] == pytest.approx(stats["grad_norm"], rel=1e-4)
            assert theirs["skipped"] == 0
            for key, expected in alone.items():
                torch.testing.assert_close(weights[key], expected, rtol=0, atol=1e-5,
                                           msg=f"{name}: {key} on rank {rank}")

    # the whole run, whose warm starts were made once
    assert len(list(Path("warm").glob("*.pt"))) == {"grpo": 1, "atod": 3}[method]
    assert command(*changes, "--out", "one")[0] == 0
    one, two = run.load("one/ckpt.pt"), run.load("two/ckpt.pt")
    assert two["step"] == 4
    assert [m["step"] for m in metrics("two")] == [1, 2, 3, 4]  # written by one rank only
    assert max((x - one["warm"][k]).abs().max() for k, x in one["model"].items()) > 5e-4
    gap = [(two["model"][k] - x).abs().flatten() for k, x in one["model"].items()]
    gap = torch.cat(gap)
    # Adam divides by tiny second moments: where a gradient is next to nothing its rounding may
    # show, up to a step of the learning rate
    assert (gap > 1e-5).float().mean() < 2e-3 and gap.max() < 3e-4


def test_a_rank_without_a_demonstration_joins_with_an_empty_row(monkeypatch):
    env, cfg = rollout.open_env(sft.Config(env="guess")), sft.Config(env="guess")
    tok = sft.open_tokenizer(cfg, env)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    of_others = 1
    monkeypatch.setattr(sft, "all_sum", lambda x: x + of_others)
    how = (env, tok, 0, 1, 0, "senior", 64)  # one row for two ranks
    tokens, mask = sft.demonstration_batch(*how)
    assert tokens.tolist() == [[0]] and not mask.any()
    of_others = 0
    with pytest.raises(run.Stop, match="raise --context"):
        sft.demonstration_batch(*how)


def test_ranks_that_do_not_divide_the_prompts_are_one_line(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")  # as under torchrun
    for args in (MOVING["grpo"], MOVING["tandem"], MOVING["atod"]):
        code, _, err = command(*args)
        assert code == 2 and err.startswith("error: 3 ranks do not divide the 2 prompts")
        assert not Path("o").exists()
