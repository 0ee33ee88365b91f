"""runs/gpu.sh, rehearsed on a CPU: every stage, at tiny sizes. A card is lent for minutes, and no
typing error shall cost them."""
import json
import os
import subprocess
import sys

import pytest

import train
from claims import gpu, speed
from conftest import REPO


def test_every_stage_ends_well_and_leaves_its_json(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable,
                   "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "runs/gpu.sh", "--rehearse"], cwd=REPO, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    # a machine that is lent sends eight files back at most
    assert {p.name for p in tmp_path.iterdir()} == {
        *(f"{stage}.json" for stage in gpu.STAGES), "log.txt", "table.txt"}
    for stage in gpu.STAGES:
        found = json.loads((tmp_path / f"{stage}.json").read_text())
        assert found["ended"] == "well" and found["found"], stage
        assert not [x for x in found["found"] if "skipped" in x], stage
    assert done.stdout == (tmp_path / "table.txt").read_text()


@pytest.mark.parametrize("method", gpu.JOBS)
def test_the_jobs_of_a_card_have_options_that_exist(method):
    train.read_options(["--method", method, *gpu.JOBS[method].split(), "--out", "o"])


def test_a_stage_that_fails_is_told_and_the_next_goes_on(tmp_path, monkeypatch, capsys):
    calls = []

    def call(command, log, seconds, **environment):
        calls.append(command[2])
        if command[2] == "sampling":
            gpu.Found("sampling", tmp_path).add("124m, 64 rows", tokens_s=1.0)
        return {"sampling": None, "variants": 1}.get(command[2], 0)
    monkeypatch.setattr(gpu, "call", call)
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu.main(["sampling", "variants", "update"]) == 1
    assert calls == ["sampling", "variants", "update"]
    out = capsys.readouterr().out
    assert "cut: its time was over" in out and "ended with code 1" in out and "tokens_s 1" in out
    assert json.loads((tmp_path / "sampling.json").read_text())["found"]  # what it had found


def test_a_stage_inherits_the_time_that_others_left(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(gpu, "call", lambda command, log, seconds, **e: given.update(
        {command[2]: seconds}) or 0)
    monkeypatch.setenv("OUT", str(tmp_path))
    gpu.main(["--seconds", "90", "update", "profile"])  # meant: 50 and 40
    assert 45 < given["update"] <= 50 and 85 < given["profile"] <= 90


def test_public_sizes_are_qwen3s():
    sizes = {name: cfg for name, (cfg, _, _) in speed.SIZES.items()}
    for name, layers, width, heads in (("0.6b", 28, 1024, 16), ("4b", 36, 2560, 32)):
        cfg = sizes[name]
        assert (cfg.layers, cfg.width, cfg.heads, cfg.kv_heads) == (layers, width, heads, 8)
        assert cfg.vocab_size == 151936 and cfg.qk_norm and cfg.tied and cfg.head_width == 128
