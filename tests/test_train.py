"""The command line from end to end, on models too small to learn: whole runs, refused input, resumption, accidents."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import envs
import run
import sft
import tokenizer
import train
import worldmodel
from conftest import MOVING, REPO, TINY, errors, interrupt_at, metrics, outcome, poison, tree
from envs import arithmetic
from envs.guess import Guess
from envs.house import House
from model import small_config

LINE = "interrupted; whatever was saved is kept. The same command with --resume goes on"  # after Ctrl-C that ends at once
TABLE = {"sft": ["solo pass@1"], "grpo": ["solo pass@1", "solo pass@2"], "tandem": ["solo pass@1", "step handoff pass@1", "training handoff pass@2", "kl"],
         "worldmodel": ["obs H=1", "obs H=9", "obs 10-25", "state s' H=5", "CR", "well-formed", "history leak"], "opd": ["success", "turns"], "atod": ["success", "turns"]}
COLUMNS = {"worldmodel": ["strict, warm", "strict, trained"], **{m: ["teacher", "teacher, greedy", "before", "after", "after, greedy"] for m in ("opd", "atod")}}  # of the table; of the others: before and after
LOOK = {"worldmodel": "obs H=1", "opd": "valid success", "atod": "valid success"}  # what is measured every --eval-every updates


# ---- from nothing to the table ----

@pytest.mark.parametrize("method", train.METHODS)
def test_a_run_from_nothing_writes_everything_and_prints_the_table(command, method):
    code, out, err = command("--method", method, "--cache", "warm")
    assert (code, errors(err)) == (0, [])
    assert {p.name for p in Path("o").iterdir()} >= {"config.json", "metrics.jsonl", "ckpt.pt", "ckpt.pt.previous", "samples.txt", "result.json"}
    assert not list(Path(".").rglob("*.tmp"))
    result = json.loads(Path("o/result.json").read_text())
    columns = COLUMNS.get(method, ["before", "after"])
    assert result["n"] == 2 and all(name in result.get("columns", result)[c] for name in TABLE[method] for c in columns)
    assert all(c in out for c in columns) and "next:\n  python sample.py o" in out
    lines = metrics(timing=True)
    assert [m["step"] for m in lines] == [1, 2, 3, 4] and all(m["wall"] > 0 and m["time_update"] > 0 and "loss" in m for m in lines)
    assert [LOOK.get(method, "solo") in m for m in lines] == [False, True, False, True]
    assert len(list(Path("warm").glob("*.pt"))) == {"sft": 0, "tandem": 2, "opd": 3, "atod": 3}.get(method, 1)


@pytest.mark.parametrize("args", [
    "--formulation leaky", "--formulation stateless", "--flat", "--chain 2 --window 0", "--terms sup,abl --abl-from 0 --abl-share 1", "--terms= --scale none",
    "--plan 2 --levels 1", "--formulation leaky --plan 1 --levels 1"])
def test_a_world_model_of_every_kind_runs_from_nothing_to_the_table(command, args):
    code, out, err = command("--method", "worldmodel", "--steps", "2", *args.split())
    assert (code, errors(err)) == (0, [])
    own = next((f for f in worldmodel.FORMULATIONS if f in args), "strict")
    result, samples = json.loads(Path("o/result.json").read_text()), Path("o/samples.txt").read_text()
    columns, plan = result["columns"], result["plan"]
    assert result["update_seconds"] == pytest.approx(sum(m["time_update"] for m in metrics(timing=True))) and 0 < result["update_seconds"] < result["seconds"]
    assert columns.keys() == {f"{f}, warm" for f in worldmodel.FORMULATIONS} | {f"{own}, warm, T=1", f"{own}, trained", f"{own}, trained, T=1"}
    for name, c in columns.items():  # one's own formulation imagines 25 steps, the others one, and so does what is sampled
        far = {1, 5, 9} if own in name and "T=1" not in name else {1}
        assert {h for h in range(1, 26) if f"obs H={h}" in c} == far and {h for h in range(1, 26) if f"state s' H={h}" in c} == (far if "stateless" not in name else set())
        assert all((k in c) == (9 in far) for k in ("obs 5-9", "obs 10-25", "obs, known rooms")) and any("obs 5-9 level" in k for k in c) == (9 in far)
    lines = [line[:24].strip() for line in out.splitlines()]
    assert all(k in lines for c in columns.values() for k in c)  # every number of result.json is in the table
    leaks = {columns[f"{own}, {when}"]["history leak"][0] > 0 for when in ("warm", "trained")} if own != "stateless" else set()
    assert leaks == {"stateless": set(), "leaky": {True}, "strict": {False}}[own]
    assert set(plan) == ({"random", "expert", "simulator", own} if "plan" in args else set()) and (not plan or plan["expert"]["success"] == 1)
    assert "true  " in samples and ("next state" in samples) == (own != "stateless") and "predicted " in out
    assert [line for line in out.splitlines() if "plays as" in line] == [
        f"plays as {player:10} success {run.cell((x['success'], x['error']), int(args.split()[args.split().index('--plan') + 1]))}, {x['turns']:.1f} turns" for player, x in plan.items()]
    assert [m["sampled_tokens"] > 0 for m in metrics()] == [own != "stateless"] * 2


def test_a_table_of_one_example_is_a_table(command):
    assert command("--method", "worldmodel", "--steps", "1", "--test-problems", "1", "--eval-problems", "1")[0] == 0


def test_the_end_of_a_training_prizes_facts_that_predictions_hang_on(command, monkeypatch):
    looked, ablations = [], worldmodel.ablations
    monkeypatch.setattr(worldmodel, "ablations", lambda w, states, *of: looked.append(len(states)) or ablations(w, states, *of))
    for args in (["--terms", "abl", "--abl-from", "0.5", "--abl-share", "0.5"], ["--out", "without", "--abl-from", "0"]):
        assert command("--method", "worldmodel", *args)[0] == 0
    assert looked == [0, 0, 4, 4, 0, 0, 0, 0]  # one example of two, its A x B next states


def test_a_trained_world_model_starts_another(command):
    assert command("--method", "worldmodel", "--steps", "1", "--out", "first")[0] == 0
    assert command("--method", "worldmodel", "--steps", "1", "--senior", "first", "--formulation", "leaky")[0] == 0
    first, second = run.load("first/ckpt.pt"), run.load("o/ckpt.pt")
    assert all(torch.equal(x, second["warm"][k]) for k, x in first["model"].items())


def test_a_world_models_warm_start_is_as_long_as_the_environment_proposes(command, monkeypatch):
    monkeypatch.setattr(House, "warm_steps", 1)
    assert command("--method", "worldmodel", "--steps", "1", "--warm-steps", "0", "--cache", "short")[0] == 0
    assert command("--method", "worldmodel", "--steps", "1", "--warm-steps", "1", "--cache", "short", "--out", "same")[0] == 0
    assert len(list(Path("short").glob("*.pt"))) == 1 and outcome() == outcome("same")


def test_a_strict_world_model_asks_for_no_group_and_any_window_up_to_40(command):
    assert command("--method", "worldmodel", "--steps", "1", "--group", "1", "--window", "40", "--terms", "abl", "--abl-from", "0")[0] == 0


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:1000]), lambda p: p.write_bytes(b""), lambda p: torch.save({"model": {}}, p)],
                         ids=["cut short", "empty", "of something else"])
def test_a_damaged_warm_start_of_a_world_model_is_one_line_that_says_to_delete_it(command, damage):
    args = ["--method", "worldmodel", "--steps", "1", "--cache", "warm"]
    assert command(*args)[0] == 0
    expected, (path,) = outcome(), Path("warm").glob("*.pt")
    damage(path)
    before = tree()
    code, _, err = command(*args, "--out", "again")
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith("error: ") and str(path) in err and "delete it" in err
    assert {p: x for p, x in tree().items() if p in before} == before
    path.unlink()
    assert command(*args, "--out", "again")[0] == 0 and outcome("again") == expected


def test_a_warm_start_of_a_world_model_that_is_not_finite_stops_and_is_not_kept(command, monkeypatch):
    args = ["--method", "worldmodel", "--steps", "1", "--cache", "warm"]
    with monkeypatch.context() as patch:
        poison(patch, 2)
        code, _, err = command(*args)
    assert code == 2 and len(errors(err)) == 1 and "step 2" in errors(err)[0] and "--sft-lr" in errors(err)[0] and "Traceback" not in err
    assert not list(Path("warm").glob("*.pt*[!k]")) and not Path("o/config.json").exists()
    assert command(*args)[0] == 0  # nothing is in the way of the next try


def test_bf16_sampling_stays_close_to_what_is_trained(command):
    assert command(*MOVING["grpo"], "--bf16", "--recompute")[0] == 0
    gaps = [m["mismatch_kl"] for m in metrics() if "mismatch_kl" in m]
    assert gaps and max(m["mismatch_max"] for m in metrics()) > 1e-5 and max(gaps) < 1e-3  # not fp32's rounding, and not much more


def test_a_game_of_several_turns_runs_too(command):
    assert command("--method", "grpo", "--env", "guess")[0] == 0
    assert max(m["turns"] for m in metrics()) > 1


def test_gsm8k_runs_on_a_jsonl(command):
    Path("p.jsonl").write_text("\n".join(json.dumps({"question": f"{a}+1?", "answer": f"<<{a}+1={a + 1}>>\n#### {a + 1}"}) for a in range(60)))
    assert command("--method", "tandem", "--env", "gsm8k", "--data", "p.jsonl", "--steps", "1", "--max-new", "8", "--context", "128")[0] == 0


def test_a_table_with_more_chains_than_training_rows(command):
    assert command("--method", "grpo", "--prompts", "1", "--group", "2", "--test-chains", "3", "--test-problems", "1", "--steps", "1")[0] == 0


def test_every_environment_proposes_the_size_of_its_table(command, monkeypatch):
    monkeypatch.setattr(Guess, "problems", 3)
    args = [x for pair in zip(TINY[::2], TINY[1::2]) if pair[0] != "--test-problems" for x in pair]
    assert train.main([*args, "--method", "grpo", "--env", "guess", "--out", "table", "--cache", "warm"]) == 0
    assert json.loads(Path("table/result.json").read_text())["n"] == 3


def test_other_demonstrations_are_another_warm_start(monkeypatch):
    env, tok = envs.Batch("arithmetic"), tokenizer.train([])
    made = [sft.fingerprint(sft.make_recipe("arithmetic", {}, env, tok, small_config(258, 64, 1, 32), sft.Config(), seed)) for seed in (0, 0, 1)]
    monkeypatch.setitem(arithmetic.SKILLS, "senior", (0.1, 0.3))
    made.append(sft.fingerprint(sft.make_recipe("arithmetic", {}, env, tok, small_config(258, 64, 1, 32), sft.Config(), 0)))
    assert made[0] == made[1] and len(set(made)) == 3


def test_a_warm_start_is_made_once(command, cache):
    assert command("--method", "grpo")[0] == 0
    before = {p: p.stat().st_mtime_ns for p in Path(cache).glob("*.pt")}
    assert command("--method", "grpo", "--out", "second")[0] == 0
    assert before and {p: p.stat().st_mtime_ns for p in Path(cache).glob("*.pt")} == before
    assert outcome("o")[0] == outcome("second")[0]  # and the same seed is the same run


def test_warm_starts_made_side_by_side_are_those_made_one_after_the_other(command, cache):
    assert command("--method", "tandem", "--steps", "1")[0] == 0
    assert command("--method", "tandem", "--steps", "1", "--threads", "2", "--cache", "two", "--out", "two threads")[0] == 0
    made = list(Path("two").glob("*.pt"))
    assert len(made) == 2
    for path in made:
        one, other = run.load(Path(cache, path.name))["model"], run.load(path)["model"]
        assert all(torch.equal(x, other[k]) for k, x in one.items())


def test_help_lists_every_option_with_its_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit) as end:
        train.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for title, cls in train.GROUPS.items():
        assert title in text
        for f, comment in run.described(cls):
            about = text.split(f"\n  --{f.name.replace('_', '-')} ")[1].split("\n  --")[0]
            assert " ".join(f"{comment} [{f.default}]".split()) in " ".join(about.split())


# ---- bad input: one line, code 2, nothing overwritten ----

REFUSED = {
    "unknown option": (["--stpes", "3"], "--stpes"), "abbreviated option": (["--step", "3"], "--step"), "not a number": (["--steps", "few"], "--steps"),
    "unknown method": (["--method", "ppo"], "tandem"), "unknown env": (["--env", "chess"], "arithmetic"), "unknown schedule": (["--schedule", "weekly"], "alternate"),
    "unknown skill": (["--skill", "expert"], "senior"), "unknown notation of the junior": (["--junior-skill", "x", "--junior", "auto"], "graded"),
    "env without that junior": (["--env", "guess", "--method", "tandem", "--junior-skill", "graded"], "'graded'"), "unknown tokenizer": (["--tokenizer", "gpt5"], "gpt2"),
    "unknown device": (["--device", "tpu"], "cpu"), "unknown compile": (["--compile", "maybe", "--cache", "fresh"], "auto"), "huge seed": (["--seed", "9" * 30], "--seed"), "unknown reference": (["--kl-to", "x"], "warm"),
    **{f"worldmodel: {name}": (["--method", "worldmodel", *args.split()], word) for name, args, word in [
        ("one state", "--A 1", "--A"), ("one next state", "--B 1", "--B"), ("one observation", "--C 1", "--C"), ("no states", "--flat --A 0", "--A"), ("unknown formulation", "--formulation loose", "stateless"),
        ("unknown term", "--terms format,sub", "'sub'"), ("unknown scale", "--scale std", "batch"), ("no text world", "--env arithmetic", "house"), ("unknown env", "--env chess", "house"),
        ("unknown level", "--levels 9", "1 to 4"), ("a level that is none", "--levels x", "--levels"), ("a chain with its history in sight", "--chain 2 --formulation leaky", "--chain"),
        ("flat chain", "--chain 2 --flat", "--chain"), ("flat leaky", "--flat --formulation leaky", "--flat"), ("two updates a batch", "--minibatches 2", "--minibatches"), ("KL", "--kl 0.1", "--kl"),
        ("temperature", "--temperature 0.6", "--temperature"), ("no gradient", "--grad-clip 0", "--grad-clip"), ("width", "--width 33", "--width"), ("context", "--context 40", "raise --context"),
        ("leaky group of one", "--formulation leaky --group 1", "--group"), ("leaky ablation", "--formulation leaky --terms sup,abl", "--terms abl"),
        ("stateless ablation", "--formulation stateless --terms abl", "--terms abl"), ("huge window", "--window 41", "--window"),
        ("negative window", "--window -1", "--window"), ("senior without the roles", "--senior sums.pt", "roles"), ("missing senior", "--senior no.pt", "no.pt"), ("corrupt senior", "--senior corrupt.pt", "corrupt.pt"),
        ("unknown tokenizer", "--tokenizer gpt5", "gpt2"), ("data", "--data bad.jsonl", "--data"), ("cache under a file", "--cache regular/c", "regular/c"), ("out of another run", "--out other", "--resume")]},
    "no junior to be close to": (["--method", "grpo", "--kl", "1", "--kl-to", "junior"], "--junior"),
    "group of one": (["--group", "1"], "--group"), "no steps": (["--steps", "0"], "--steps"), "minibatches": (["--minibatches", "3"], "--minibatches"),
    "greedy training": (["--temperature", "0"], "--temperature"), "p above 1": (["--p", "1.5"], "--p"), "width": (["--width", "33"], "--width"),
    "no test problems": (["--test-problems", "-1"], "--test-problems"), "negative learning rate": (["--lr", "-1"], "--lr"), "negative decay": (["--weight-decay", "-1"], "--weight-decay"), "negative threads": (["--threads", "-1"], "--threads"), "negative max-new": (["--max-new", "-5"], "--max-new"),
    "prompt that does not fit": (["--context", "8"], "--context 8"), "prompt that does not fit the senior": (["--method", "sft", "--senior", "short.pt"], "fit"), "missing jsonl": (["--env", "gsm8k", "--data", "no.jsonl"], "no.jsonl"),
    "malformed jsonl": (["--env", "gsm8k", "--data", "bad.jsonl"], "bad.jsonl, line 3"), "out of another run": (["--out", "other"], "--resume"),
    "out with foreign files": (["--out", "foreign"], "another --out"), "out under a file": (["--out", "regular/o"], "another --out"),
    "out is a file": (["--out", "regular"], "another --out"), "cache under a file": (["--method", "grpo", "--cache", "regular/c"], "regular/c"),
    "junior of another vocabulary": (["--senior", "sums.pt", "--junior", "guess.pt"], "vocabulary"), "missing senior": (["--senior", "no.pt"], "no.pt"),
    "corrupt senior": (["--senior", "corrupt.pt"], "corrupt.pt"), "senior is a jsonl": (["--senior", "bad.jsonl"], "bad.jsonl"),
    "senior is a folder without checkpoint": (["--senior", "foreign"], "foreign"),
    "resume with another option": (["--resume", "--out", "other", "--seed", "7"], "--seed"), "resume of garbage": (["--resume", "--out", "other", "--method", "sft"], "other"),
    "resume of a config that is none": (["--resume", "--out", "listed"], "listed/config.json")}


@pytest.mark.parametrize("args, word", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line_and_code_2_and_overwrites_nothing(command, surroundings, args, word):
    before = tree()
    code, _, err = command(*args)
    lines = [line for line in err.splitlines() if not line.startswith("warning:")]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and word in lines[0], err
    assert {p: x for p, x in tree().items() if p in before} == before


def test_a_refused_command_can_be_corrected_and_typed_again(command, surroundings):
    for wrong in (["--context", "8"], ["--senior", "corrupt.pt"]):
        assert command("--method", "sft", *wrong)[0] == 2
    assert command("--method", "sft")[0] == 0


def test_a_world_model_among_ranks_is_one_line(command, monkeypatch):
    monkeypatch.setattr(run, "start_ranks", lambda device: (0, 2))  # as under torchrun
    code, _, err = command("--method", "worldmodel")
    assert code == 2 and len(err.splitlines()) == 1 and "torchrun" in errors(err)[0] and not Path("o").exists()


# ---- resume ----

@pytest.mark.parametrize("method", train.METHODS)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(command, straight, monkeypatch, method):
    expected = straight(method)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        code, out, _ = command(*MOVING[method])
    assert code == 128 + signal.SIGINT and "train.py --resume --out o" in out
    assert run.load("o/ckpt.pt")["step"] == 2 and not Path("o/result.json").exists()
    assert command("--resume")[0] == 0
    assert outcome() == expected


@pytest.mark.parametrize("args", ["--method atod --turns 3 --context 45", "--method worldmodel --formulation leaky", "--method worldmodel --chain 2 --terms sup,abl --abl-from 0.5", "--method tandem --junior-width 64", "--method grpo --kl 1 --kl-to warm", "--method grpo --junior auto"])
def test_a_resumed_run_keeps_its_junior_and_its_reference(command, monkeypatch, args):
    assert command(*args.split(), "--out", "straight")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert command(*args.split())[0] == 128 + signal.SIGINT
    assert command(*args.split(), "--resume")[0] == 0
    assert outcome() == outcome("straight")  # legibility and handoff among it: they are the junior's too


@pytest.mark.parametrize("method", ["sft", "worldmodel"])
def test_a_signal_during_the_table_ends_at_once_and_resume_prints_the_table(command, straight, monkeypatch, method):
    expected = straight(method)
    module, handlers = train.METHODS[method], []

    def interrupted(r):
        handlers.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was only noted")
    with monkeypatch.context() as patch:
        patch.setattr(module, "final_table", interrupted)
        code, out, err = command(*MOVING[method])
    assert code == 130 and [line for line in err.splitlines() if "interrupted" in line] == [LINE] and err.splitlines()[-1] == LINE
    assert "Traceback" not in err and "stopping" not in err and not errors(err) and handlers == [signal.SIG_DFL]
    assert run.load("o/ckpt.pt")["step"] == 4 and not Path("o/result.json").exists()
    code, out, _ = command("--resume")
    assert code == 0 and "resumed at step 4" in out and "next:\n  python sample.py o" in out
    assert outcome() == expected


def test_resume_of_a_finished_run_and_of_none_give_the_same_table(command, straight):
    expected = straight("sft")
    assert command("--resume", "--out", "straight")[0] == 0
    assert command(*MOVING["sft"], "--resume", "--out", "none yet")[0] == 0
    assert outcome("straight") == outcome("none yet") == expected


@pytest.mark.parametrize("method", ["grpo", "worldmodel"])
def test_killed_without_warning_and_resumed_gives_the_same_numbers(command, straight, cache, method):
    expected = straight(method, "--steps", "40", "--save-every", "3")
    args = [*TINY, "--cache", cache, *MOVING[method], "--steps", "40", "--save-every", "3"]
    victim = subprocess.Popen([sys.executable, str(REPO / "train.py"), *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while victim.poll() is None and not (Path("o/metrics.jsonl").exists() and len(metrics()) >= 5):
        time.sleep(0.01)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL  # it was still at work
    assert 3 <= run.load_last("o")["step"] < 40
    assert command("--resume", "--steps", "40", "--save-every", "3")[0] == 0
    assert outcome() == expected


@pytest.fixture
def stopped(command, straight, monkeypatch):
    """A run of four steps stopped after its third, and what it should become."""
    expected = straight("sft")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        command(*MOVING["sft"])
    return expected


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:1000]), lambda p: p.unlink()], ids=["corrupt", "killed between the renames"])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(command, stopped, damage):
    damage(Path("o/ckpt.pt"))
    damaged = Path("o/ckpt.pt").exists()
    code, out, err = command("--resume")
    assert code == 0 and "resumed at step 2" in out and ("warning: o/ckpt.pt" in err) == damaged
    assert outcome() == stopped


def test_two_corrupt_checkpoints_are_refused(command, stopped):
    for name in ("ckpt.pt", "ckpt.pt.previous"):
        Path("o", name).write_bytes(b"")
    code, _, err = command("--resume")
    assert code == 2 and len(errors(err)) == 1 and Path("o/ckpt.pt").read_bytes() == b""


def test_metrics_beyond_the_checkpoint_are_cut(command, stopped):
    with open("o/metrics.jsonl", "a") as file:
        file.write('{"step": 4, "loss": 99}\n{"step": 5}\n{"step": 6, "lo')
    assert command("--resume")[0] == 0
    assert outcome() == stopped


def test_samples_beyond_the_checkpoint_are_not_written_twice(command, stopped):
    Path("o/ckpt.pt").unlink()  # back to step 2, at which samples were written
    Path("o/ckpt.pt.previous").unlink()
    assert command("--resume")[0] == 0
    assert Path("o/samples.txt").read_text() == Path("straight/samples.txt").read_text()


# ---- accidents ----

def test_a_non_finite_loss_skips_its_update_and_is_counted(command, monkeypatch):
    poison(monkeypatch, 2, 4)
    assert command("--method", "sft")[0] == 0
    assert [m["skipped"] for m in metrics()] == [0, 1, 1, 2]
    final, previous = run.load("o/ckpt.pt"), run.load("o/ckpt.pt.previous")
    assert final["skipped"] == 2 and all(torch.equal(x, previous["model"][k]) for k, x in final["model"].items())


def test_nine_in_a_row_go_on_and_ten_stop_with_the_checkpoint_named(command, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, *range(2, 11), *range(12, 21))
        assert command("--method", "sft", "--steps", "22")[0] == 0
    poison(monkeypatch, *range(3, 13))
    code, _, err = command("--method", "sft", "--steps", "15", "--out", "ten")
    assert code == 2 and len(errors(err)) == 1 and "ten/ckpt.pt" in errors(err)[0] and not Path("ten/result.json").exists()
    assert all(x.isfinite().all() for x in run.load("ten/ckpt.pt")["model"].values())


def test_the_checkpoint_named_after_ten_bad_updates_exists(command, monkeypatch):
    poison(monkeypatch)
    code, _, err = command("--method", "sft", "--steps", "15", "--save-every", "100")
    assert code == 2 and "o/ckpt.pt" in errors(err)[0] and Path("o/ckpt.pt").exists()


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed\nwriting file")], ids=["OSError", "RuntimeError"])
def test_a_full_disk_leaves_the_earlier_checkpoint(command, straight, monkeypatch, failure):
    expected, save = straight("sft"), torch.save

    def full(state, file):
        if state["step"] == 3:
            file.write(b"half a")
            raise failure
        save(state, file)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        code, _, err = command(*MOVING["sft"])
    assert code == 2 and len(errors(err)) == 1 and "o/ckpt.pt" in errors(err)[0] and "Traceback" not in err
    assert run.load("o/ckpt.pt")["step"] == 2 and not list(Path("o").glob("*.tmp"))
    assert command("--resume")[0] == 0
    assert outcome() == expected
