"""The command line from end to end, on models too small to learn: from nothing to the table."""
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import run
import train
from conftest import MOVING, TINY, errors, metrics
from envs.guess import Guess

TABLE = {  # numbers of the final table
    "sft": ["solo pass@1"],
    "grpo": ["solo pass@1", "solo pass@2"],
    "tandem": ["solo pass@1", "step handoff pass@1", "training handoff pass@2", "kl"],
    "worldmodel": ["obs H=1", "obs H=9", "obs 10-25", "state s' H=5", "well-formed",
                   "history leak"],  # and CR, once a state is well-formed
    "atod": ["success", "turns"], "opd": ["success", "turns"]}
COLUMNS = {  # of the table; of the others: before and after
    "worldmodel": ["strict, warm", "strict, trained"],
    "atod": ["teacher", "teacher, greedy", "before", "after", "after, greedy"]}
COLUMNS["opd"] = COLUMNS["atod"]
LOOK = {  # what is measured every --eval-every updates
    "worldmodel": "obs H=1", "opd": "valid success", "atod": "valid success"}
FILES = {"config.json", "metrics.jsonl", "ckpt.pt", "ckpt.pt.previous", "samples.txt",
         "result.json"}
NEXT = {"grpo": ["tandem"], "tandem": ["grpo"], "atod": ["opd"], "opd": ["atod"]}


@pytest.mark.parametrize("method", train.METHODS)
def test_a_run_from_nothing_writes_everything_and_prints_the_table(command, method):
    code, out, err = command("--method", method, "--cache", "warm")
    assert (code, errors(err)) == (0, [])
    assert {p.name for p in Path("o").iterdir()} >= FILES and not list(Path(".").rglob("*.tmp"))
    result = json.loads(Path("o/result.json").read_text())
    columns = COLUMNS.get(method, ["before", "after"])
    table = result.get("columns", result)
    assert result["n"] == 2
    assert all(name in table[column] for name in TABLE[method] for column in columns)
    assert all(column in out for column in columns)
    assert "next:\n  python sample.py o\n" in out
    assert re.findall(r"--method (\w+)", out.split("next:")[1]) == NEXT.get(method, [])

    lines = metrics(timing=True)
    assert [m["step"] for m in lines] == [1, 2, 3, 4]
    assert all(m["wall"] > 0 and m["time_update"] > 0 and "loss" in m for m in lines)
    assert [LOOK.get(method, "solo") in m for m in lines] == [False, True, False, True]
    made = {"sft": 0, "tandem": 2, "opd": 3, "atod": 3}.get(method, 1)
    assert len(list(Path("warm").glob("*.pt"))) == made


def test_bf16_sampling_stays_close_to_what_is_trained(command):
    assert command(*MOVING["grpo"], "--bf16", "--recompute")[0] == 0
    lines = metrics()
    assert max(m["grad_norm"] for m in lines) > 0
    # not fp32's rounding, and not much more
    assert max(m["mismatch_max"] for m in lines) > 1e-5
    assert max(m["mismatch_kl"] for m in lines) < 1e-3


def test_a_game_of_several_turns_runs_too(command):
    assert command("--method", "grpo", "--env", "guess")[0] == 0
    assert max(m["turns"] for m in metrics()) > 1


def test_gsm8k_runs_on_a_jsonl(command):
    problems = [{"question": f"{a}+1?", "answer": f"<<{a}+1={a + 1}>>\n#### {a + 1}"}
                for a in range(60)]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, problems)))
    args = "--method tandem --env gsm8k --data p.jsonl --steps 1 --max-new 24 --context 128"
    code, out, _ = command(*args.split())
    assert code == 0 and "--env gsm8k --seed 0 --data p.jsonl" in out  # the command to try next


def test_a_table_with_more_chains_than_training_rows(command):
    args = "--prompts 1 --group 2 --test-chains 3 --test-problems 1 --steps 1"
    assert command("--method", "grpo", *args.split())[0] == 0


def test_every_environment_proposes_the_size_of_its_table(command, monkeypatch):
    monkeypatch.setattr(Guess, "problems", 3)
    place = TINY.index("--test-problems")
    args = [*TINY[:place], *TINY[place + 2:], "--method", "grpo", "--env", "guess"]
    assert train.main([*args, "--out", "table", "--cache", "warm"]) == 0
    assert json.loads(Path("table/result.json").read_text())["n"] == 3


def test_without_a_name_the_folder_is_that_of_method_world_and_seed(command):
    place = TINY.index("--out")
    args = [*TINY[:place], *TINY[place + 2:], "--method", "sft", "--seed", "3", "--steps", "1"]
    assert train.main(args) == 0
    config = json.loads(Path("out/sft-arithmetic-3/config.json").read_text())
    assert config["method"] == "sft" and config["out"] == "out/sft-arithmetic-3"


def test_a_trained_model_starts_another_run(command):
    assert command(*MOVING["grpo"], "--out", "first")[0] == 0
    for start in ("first", "first/ckpt.pt"):  # a run or a checkpoint
        out = start.replace("/", " ")
        assert command(*MOVING["grpo"], "--senior", start, "--out", f"of {out}")[0] == 0
        first, second = run.load("first/ckpt.pt"), run.load(f"of {out}/ckpt.pt")
        assert second["origins"] == {"senior": start}
        assert all((x == second["warm"][name]).all() for name, x in first["model"].items())


# ---- help ----

def shown(capsys, *args):
    with pytest.raises(SystemExit) as end:
        train.main([*args])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_alone_lists_the_methods(capsys, asked):
    text = shown(capsys, asked)
    for method in train.METHODS:
        assert f"python train.py --method {method} " in text
    assert "--method tandem --help" in text


@pytest.mark.parametrize("method", train.METHODS)
def test_help_lists_the_methods_own_options_with_their_true_defaults(monkeypatch, capsys, method):
    monkeypatch.setenv("COLUMNS", "500")
    _, cls = train.METHODS[method]
    text = shown(capsys, "--method", method, "--help")
    others = {f.name for _, other in train.METHODS.values() for f in dataclasses.fields(other)}
    for name in others - {f.name for f in dataclasses.fields(cls)}:
        assert not re.search(rf"\n  {run.flag(name)}[ \n]", text)
    unused = {"arithmetic": {"level", "turns", "text"}, "house": set()}[cls.env]
    for owner, f, comment in run.described(cls):
        assert comment, f"{f.name} has no help"
        about = re.search(rf"\n  {run.flag(f.name)}(?= |\n)(.*?)(?=\n  -|\n\n|$)", text, re.S)
        if f.name in unused:
            assert not about
            continue
        about = " ".join(about.group(1).split())
        assert comment in about and f"\n{owner.__doc__}:\n" in text
        default = getattr(cls(), f.name)
        if default is not False and default != "":
            assert about.endswith(f"[{default}]")
        for choice in run.kind_of(f)[2]:
            assert choice in about


def test_help_of_a_world_that_knows_levels_shows_them(capsys):
    text = shown(capsys, "--method", "grpo", "--env", "house", "--help")
    assert all(f"\n  {option} " in text for option in ("--level", "--turns", "--text"))


@pytest.mark.parametrize("own", [None, "77"])
def test_how_long_threads_spin_is_said_before_torch_is_loaded(own):
    """OpenMP reads it once. Your own choice is kept."""
    code = """
import os, sys
class Watch:
    def find_spec(name, *rest):
        if name == "torch":
            print(os.environ["GOMP_SPINCOUNT"])
            raise SystemExit
sys.meta_path.insert(0, Watch)
import train
"""
    env = {name: x for name, x in os.environ.items() if name != "GOMP_SPINCOUNT"}
    env.update({"GOMP_SPINCOUNT": own} if own else {})
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(train.__file__).parent, env=env,
                          capture_output=True, text=True)
    assert done.stdout == f"{own or 10_000}\n"
