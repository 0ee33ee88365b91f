"""Games by hand, games to watch and runs to look at: what sample.py makes of what is typed, on
worlds and on models that know nothing."""
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import envs
import run
import sample
import train
from conftest import MOVING, REPO, house_tokenizer
from envs.house import make
from lib import terminal
from rollout import Rows
from model import GPT, small_config


def typed(monkeypatch, *lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))


def test_a_house_is_won_by_hand(monkeypatch, capsys):
    house = make(level=1)
    first = house.reset(3, "valid")
    answers = house.demo(None, "oracle")
    typed(monkeypatch, "?", "\x00 <b>nonsense", *answers)
    args = "--env house --play --level 1 --seed 3 --split valid"
    assert sample.main(args.split()) == 0
    out = capsys.readouterr().out
    assert out.startswith(first) and "look around" in out and "Solved in" in out


def test_the_end_of_the_input_ends_a_game(monkeypatch, capsys):
    typed(monkeypatch, "look around")
    assert sample.main(["--env", "guess", "--play"]) == 0
    assert "Solved" not in capsys.readouterr().out


def test_a_model_plays_and_one_sees_every_turn(tmp_path, capsys):
    tok, path = house_tokenizer(), str(tmp_path / "model.pt")
    model = GPT(small_config(tok.n_vocab, 256, 1, 32))
    torch.save({"model": model.state_dict(), "model_config": vars(model.cfg),
                "tokenizer": tok.state()}, path)
    args = ["--env", "house", "--agent", path, "--turns", "4", "--level", "1"]
    assert sample.main(args) == 0
    first, *turns, last = capsys.readouterr().out.split("\n> ")
    assert first == make(level=1).reset(0, "test") and 1 + len(turns) == 4
    assert "lost in 4 turns, reward 0.00" in last


BROKEN = """
from envs import house

class Broken(house.House):
    def reset(self, task, split):
        raise ValueError("no game in it")

def make(data=""):
    env = Broken(1)
    env.workers, env.time_limit = 1, 60
    return env
"""


@pytest.mark.parametrize("argv, complaint", [
    ("--env nope --play", "unknown environment 'nope'"),
    ("--env guess --play --level 2", "--level"),
    ("--env house --play --turns -1", "--turns is at least 0"),
    ("--env house --agent nowhere", "no checkpoint at nowhere"),
    ("--env broken --play", "error: broken: ValueError: no game in it, twice"),
    ("nowhere", "no checkpoint at nowhere")])
def test_what_cannot_be_played_is_one_line(argv, complaint, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.setattr(envs, "__path__", [*envs.__path__, str(tmp_path)])
    assert sample.main(argv.split()) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert complaint in err[0] and len(err) == 1


@pytest.mark.parametrize("confused", [
    "", "--env house", "--env house --play --agent x", "out/x --env house --play"])
def test_a_command_that_says_neither_what_nor_how_is_refused(confused):
    with pytest.raises(SystemExit):
        sample.main(confused.split())


# ---- runs ----

SHOWN = {  # what is seen of two tasks of a run
    "sft": ["=== before: the model alone", "=== after: the model alone"],
    "grpo": ["=== before: the model alone", "=== after: the model alone"],
    "tandem": ["=== before: the senior alone", "=== before: the team, step handoff",
               "=== before: the team, training handoff", "=== after: the senior alone",
               "=== after: the team, step handoff", "=== after: the team, training handoff"],
    "worldmodel": ["imagined from there on, and what was true:"] * 2,
    "opd": [f"=== test task {task}, {when}: lost" for when in ("before", "after")
            for task in (0, 1)]}
SHOWN["atod"] = SHOWN["opd"]


@pytest.mark.parametrize("method", train.METHODS)
def test_a_run_is_opened_again_as_it_ended_and_shown(command, capsys, method):
    assert command(*MOVING[method])[0] == 0
    state, before = run.load("o/ckpt.pt"), Path("o/config.json").read_bytes()
    module, r = train.reopen("o")
    assert module is train.METHODS[method][0] and r.step == 4
    for name, x in r.model.state_dict().items():
        assert torch.equal(x, state["model"][name])
        assert torch.equal(r.warm[name], state["warm"][name])
    capsys.readouterr()
    assert sample.main(["o", "--n", "2"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line in SHOWN[method]] == SHOWN[method]
    if method in ("sft", "grpo", "tandem"):
        answers = [line for line in out.splitlines() if line.startswith(("right", "wrong"))]
        assert len(answers) == 2 * len(SHOWN[method])
    if method == "tandem":
        assert "«" in out  # the junior's, without colours
    if method in ("opd", "atod"):
        assert out.count("  d ") == 3 * 4  # three turns of each episode, with T-DUR's weights
    assert Path("o/config.json").read_bytes() == before  # to look changes nothing


def test_the_temperature_is_that_of_atods_episodes_too_and_stands_on_their_page(command, capsys):
    assert command(*MOVING["atod"])[0] == 0
    shown = []
    for how in ("--temperature 0", "--temperature 0 --seed 5", "--temperature 1 --seed 5"):
        capsys.readouterr()
        assert sample.main(["o", "--n", "2", *how.split()]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2]  # no dice, dice
    assert sample.main(["o", "--n", "1", "--temperature", "0", "--html", "page.html"]) == 0
    assert "--temperature0--html" in re.sub("<[^>]*>", "", Path("page.html").read_text())


def test_a_part_of_the_reward_is_not_right(monkeypatch, capsys):
    episodes = [{"reward": 0.1, "success": False, "truncated": False},
                {"reward": 0.1, "success": True, "truncated": False}]
    still = torch.zeros(2, 1)
    batch = Rows(still.long(), still.bool(), still, still.long(), torch.arange(2), torch.arange(2))
    monkeypatch.setattr(terminal, "evaluate", lambda *how: ({}, [batch], episodes))
    monkeypatch.setattr(terminal, "print_row", lambda *how: None)
    r = SimpleNamespace(env=None, tok=None, cfg=SimpleNamespace(final_split="test", seed=0))
    terminal.print_episodes("title", None, r, 2)
    assert [x for x in capsys.readouterr().out.split() if x in ("right", "wrong")] == [
        "wrong", "right"]


def test_what_a_checkpoint_alone_holds_can_be_seen_too(command, capsys):
    """The warm start of what was trained may be gone."""
    assert command(*MOVING["grpo"], "--cache", "warm")[0] == 0
    for path in Path("warm").glob("*.pt"):
        path.unlink()
    capsys.readouterr()
    assert sample.main(["o/ckpt.pt", "--n", "1", "--temperature", "0"]) == 0
    greedy = capsys.readouterr().out
    assert "=== after: the model alone" in greedy
    assert sample.main(["o", "--n", "1", "--temperature", "0", "--seed", "5"]) == 0
    assert capsys.readouterr().out == greedy  # no dice: the seed of the draws changes nothing
    assert json.loads(Path("o/config.json").read_text())["seed"] == 0


def test_a_junior_that_is_gone_is_made_again_and_another_in_its_place_is_refused(command, capsys):
    cache = ("--cache", "warm")
    assert command(*MOVING["tandem"], *cache, "--seed", "3")[0] == 0
    path, = Path("warm").glob("junior-*.pt")
    capsys.readouterr()
    assert sample.main(["o", "--n", "1"]) == 0
    shown = capsys.readouterr().out
    path.unlink()
    assert sample.main(["o", "--n", "1"]) == 0  # its seed is 0, the run's 3
    assert capsys.readouterr().out.endswith(shown)
    state = run.load(str(path))
    state["model"] = {name: x + 0.1 for name, x in state["model"].items()}
    run.save(str(path), state)
    assert sample.main(["o", "--n", "1"]) == 2
    assert "the junior of this run changed" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--n 0", "--temperature -1", "--temperature nan"])
def test_numbers_of_nonsense_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        sample.main(["o", *option.split()])
    assert option.split()[0] in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_is_no_run_cannot_be_looked_at(command, cache, capsys):
    assert command(*MOVING["grpo"], "--cache", "warm")[0] == 0
    warm, = Path("warm").glob("*.pt")
    capsys.readouterr()
    assert sample.main([str(warm)]) == 2
    err = capsys.readouterr().err
    assert "is a model, not a run" in err and err.count("\n") == 1
    state = run.load("o/ckpt.pt")
    for other, says in ((torch.zeros(3), "is a model, not a run"), (3, "is a model, not a run"),
                        ({"options": 3}, "is a model, not a run"),
                        ({**state, "options": {**state["options"], "method": "x"}}, "method 'x'")):
        torch.save(other, "x.pt")
        assert sample.main(["x.pt"]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
    Path("o/ckpt.pt").rename("o/ckpt.pt.previous")  # a kill between the two moves of a save
    assert sample.main(["o"]) == 2
    assert "by --resume first" in capsys.readouterr().err
    for checkpoint in ("o/ckpt.pt.previous", "x.pt"):
        assert sample.main([checkpoint, "--html", checkpoint]) == 2
        assert "not that of a page" in capsys.readouterr().err


@pytest.mark.parametrize("command", [
    ["sample.py", "--env", "guess", "--play"],
    ["reproduce.py", "worldmodel", "--env", "textworld", "--redraw"]])
def test_a_reader_who_has_seen_enough_is_no_error(command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, *command], cwd=REPO, stdin=subprocess.DEVNULL,
                          stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
