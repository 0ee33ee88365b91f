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
        *(f"{stage}.json" for stage in gpu.STAGES), "log.txt"}
    for stage in gpu.STAGES:
        found = json.loads((tmp_path / f"{stage}.json").read_text())
        assert found["ended"] == "well" and found["found"], stage
        assert not [x for x in found["found"] if "skipped" in x], stage
    assert (tmp_path / "log.txt").read_text().endswith(done.stdout)


@pytest.mark.parametrize("method", gpu.JOBS)
def test_the_jobs_of_a_card_have_options_that_exist(method):
    train.read_options(["--method", method, *gpu.JOBS[method].split(), "--out", "o"])


def test_a_stage_that_fails_is_told_and_the_next_goes_on(tmp_path, monkeypatch, capsys):
    calls = []

    def call(command, log, seconds, **environment):
        if command[0] == "-c":  # whether torch.compile works
            return 0
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


def test_tests_that_take_too_long_keep_what_had_passed(tmp_path, monkeypatch):
    def call(command, log, seconds, **environment):
        if command[0] == "-c":
            return 0
        log.write("tests/test_gpu.py::test_one[a] PASSED [ 10%]\n"
                  "tests/test_gpu.py::test_two FAILED [ 20%]\ntests/test_gpu.py::test_three ")
        return None
    monkeypatch.setattr(gpu, "call", call)
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu.main(["right"]) == 1
    found = json.loads((tmp_path / "right.json").read_text())
    assert found["found"] == [{"what": "test_one[a]", "passed": True},
                              {"what": "test_two", "error": "FAILED"}]
    assert "too long" in found["ended"]


def test_without_a_compiler_it_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "call", lambda command, *a, **e: int(command[0] == "-c"))
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("WITHOUT_COMPILE", "")
    assert gpu.main(["update"]) == 1
    assert os.environ["WITHOUT_COMPILE"] == "1"
    assert capsys.readouterr().out.startswith("without torch.compile")


def test_a_stage_inherits_the_time_that_others_left(tmp_path, monkeypatch):
    given = {}

    def call(command, log, seconds, **environment):
        given[command[-1] if command[0] == "-c" else command[2]] = seconds
        return 0
    monkeypatch.setattr(gpu, "call", call)
    monkeypatch.setenv("OUT", str(tmp_path))
    gpu.main(["--seconds", "100", "update", "profile"])  # meant: 50 each
    assert 45 < given["update"] <= 50 and 95 < given["profile"] <= 100


def test_public_sizes_are_qwen3s():
    sizes = {name: cfg for name, (cfg, _, _) in speed.SIZES.items()}
    for name, layers, width, heads in (("0.6b", 28, 1024, 16), ("4b", 36, 2560, 32)):
        cfg = sizes[name]
        assert (cfg.layers, cfg.width, cfg.heads, cfg.kv_heads) == (layers, width, heads, 8)
        assert cfg.vocab_size == 151936 and cfg.qk_norm and cfg.tied and cfg.head_width == 128
