"""Options, the run's folder, checkpoints and the table: what every run needs and no paper is
about."""
import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

import grpo
import run
import sft
import tandem
import train
from conftest import MOVING, errors


@dataclass
class Parent(run.Config):
    """A parent's options"""
    method = "made-up"
    share: run.Share = 0.5  # a share of 100%
    width: run.Width = 64  # of the model
    name: str = ""  # of a file


@dataclass
class Made(Parent):
    """Its child's"""
    share: run.Share = 0.25
    colour: Literal["red", "blue"] = "red"  # of the paint
    loud: bool = False  # say it aloud
    rate: run.Rate = 1e-3  # of learning
    warmth: run.Positive = 1.0  # of sampling
    group: run.Several = 4  # siblings


def parse(args=""):
    return run.parse(args.split(), Made, "A method that was made up")


def refused(args):
    with pytest.raises(run.Stop) as stop:
        parse(args)
    assert "\n" not in str(stop.value)
    return str(stop.value)


# ---- options ----

def test_what_is_typed_is_read_as_its_type_and_the_rest_are_the_classes_own_defaults():
    cfg, given = parse("--method made-up --share 1 --save-every 7 --loud --colour blue --rate=0")
    assert given == {"share": 1.0, "save_every": 7, "loud": True, "colour": "blue", "rate": 0.0}
    assert type(cfg.share) is float and type(cfg.save_every) is int and type(cfg) is Made
    assert (cfg.width, cfg.name, cfg.env, cfg.resume) == (64, "", "arithmetic", False)
    assert parse()[0].share == 0.25 and Parent().share == 0.5


@pytest.mark.parametrize("args, words", [
    ("--share 1.01", ["--share", "at most 1", "1.01"]),
    ("--share -0.1", ["--share", "at least 0"]),
    ("--rate -0.001", ["--rate", "at least 0"]),
    ("--rate inf", ["--rate", "finite"]), ("--rate nan", ["--rate", "finite"]),
    ("--share nan", ["--share", "finite"]),
    ("--warmth 0", ["--warmth", "above 0"]),
    ("--group 1", ["--group", "at least 2"]),
    ("--width 40", ["--width", "multiple of 32"]), ("--width 0", ["--width", "at least 32"]),
    ("--seed 1000000000", ["--seed", "at most 999,999,999"]),
    ("--steps 0", ["--steps", "at least 1"]),
    ("--steps 2.5", ["--steps", "2.5", "see python train.py --method made-up --help"]),
    ("--colour green", ["colour", "'green'", "red blue"]),
    ("--colou red", ["--colou"]), ("--loud yes", ["yes"]), ("--name", ["--name"])])
def test_what_is_out_of_range_or_no_choice_is_one_line_that_names_the_option(args, words):
    assert all(word in refused(args) for word in words)


@pytest.mark.parametrize("args", [
    "--share 0", "--share 1", "--width 32", "--rate 0", "--warmth 1e-9", "--group 2",
    "--seed 999999999", "--threads 0"])
def test_the_ends_of_a_range_are_in_it(args):
    parse(args)


def test_help_describes_each_option_once_in_its_owners_group_with_the_true_default(capsys):
    with pytest.raises(SystemExit):
        run.parse(["--help"], Made, "A method that was made up", hidden=("name", "text"))
    text = capsys.readouterr().out
    groups = {part.split("\n")[0]: part for part in text.split("\n\n")}
    assert "A method that was made up" in text
    assert "a share of 100% [0.25]" in groups["A parent's options:"]
    assert "(red, blue) [red]" in groups["Its child's:"] and "[False]" not in text
    assert "--save-every" in groups["Every run:"]
    assert text.count("--share") == 1 and "--name" not in text and "--text" not in text
    assert parse("--name x")[0].name == "x"  # hidden, and still an option


def test_a_config_is_read_back_as_it_was_and_another_versions_is_refused():
    cfg = Made(share=1.0, colour="blue", seed=3)
    stored = json.loads(json.dumps(run.as_json(cfg)))
    assert stored["method"] == "made-up" and run.from_json(Made, stored) == cfg
    whole = {**stored, "share": 1}  # a whole number will do where a fraction may stand
    assert run.from_json(Made, whole).share == 1
    for change, word in (({"steps": "9"}, "--steps is '9', which is no int"),
                         ({"steps": True}, "no int"), ({"steps": 1.0}, "no int"),
                         ({"rate": "x"}, "no float"), ({"rate": None}, "no float"),
                         ({"loud": 1}, "no bool"), ({"name": 5}, "no str"),
                         ({"rate": float("nan")}, "finite"),
                         ({"rate": 10**400}, "finite"), ({"colour": "pink"}, "'pink'"),
                         ({"colour": ["red"]}, "colour"), ({"width": 33}, "multiple of 32"),
                         ({"speed": 1}, "another version of this project: speed")):
        with pytest.raises(run.Stop, match=word):
            run.from_json(Made, {**stored, **change})
    del stored["rate"]
    with pytest.raises(run.Stop, match="another version of this project: rate"):
        run.from_json(Made, stored)


def test_the_options_that_a_method_inherits_are_described_by_their_first_owner():
    owners = {f.name: (owner, comment) for owner, f, comment in run.described(tandem.Config)}
    assert owners["lr"][0] is grpo.RLConfig and owners["steps"][0] is run.Config
    assert owners["cache"][0] is sft.ModelConfig and owners["p"][0] is tandem.Config
    assert all(comment for _, comment in owners.values())


def test_a_team_plays_half_of_the_tasks():
    assert run.tasks_of("solo pass@1", 8) == 8
    for name in ("step handoff pass@4", "training handoff pass@1", "retention@1"):
        assert run.tasks_of(name, 8) == 4 and run.tasks_of(name, 1) == 1


# ---- the folder ----

def test_a_folder_that_holds_anything_is_not_claimed(tmp_path, monkeypatch):
    out = tmp_path / "a" / "b"
    cfg = sft.Config(out=str(out))

    def claim():
        run.claim_folder(cfg)
        run.release_folder()
    claim()
    assert not out.exists()  # a run that was refused leaves nothing
    out.mkdir(parents=True)
    (out / "config.json.tmp").write_text("of a write that was cut short")
    claim()
    assert not (out / "config.json.tmp").exists()
    out.mkdir(parents=True)
    for precious in ("notes.txt", "thesis.tmp", "lock.foo"):
        (out / precious).write_text("precious")
    with pytest.raises(run.Stop, match="holds no run"):
        claim()
    run.release_folder()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(run.Stop, match="holds no run"):
        claim()
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert not list(out.glob("lock.?"))
    cfg.resume = True
    claim()
    cfg.resume = False
    (out / "lock.0").unlink()
    assert sorted(x.name for x in out.iterdir()) == ["lock.foo", "notes.txt", "thesis.tmp"]
    (out / "config.json").write_text("{}")
    with pytest.raises(run.Stop, match="--resume"):
        claim()
    run.release_folder()


def test_a_folder_belongs_to_one_process_at_a_time_and_ranks_that_live_on_count(tmp_path):
    cfg = sft.Config(out=str(tmp_path / "o"))
    hold = ("import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(60)")
    for name in ("lock.0", "lock.1"):  # the run itself, and a rank whose launcher is gone
        (tmp_path / "o").mkdir(exist_ok=True)
        other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "o" / name)],
                                 stdout=subprocess.PIPE)
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(run.Stop, match="another process writes to"):
            run.claim_folder(cfg)
        run.release_folder()
        assert (tmp_path / "o" / name).exists()  # the folder of a run that lives is not removed
        other.kill()
        other.wait()
        run.claim_folder(cfg)  # any death releases it
        run.release_folder()


@pytest.mark.parametrize("away", [shutil.rmtree, lambda o: o.rename(o.with_name("moved"))])
def test_a_folder_that_was_moved_or_removed_is_no_longer_written_to(away, tmp_path):
    out = tmp_path / "o"
    run.claim_folder(sft.Config(out=f"{out}/"))
    run.log(f"{out}/", {"step": 1})
    away(out)
    for _ in range(2):  # nothing is in its place; then another run is
        for write in (lambda: run.log(str(out), {"step": 2}), lambda: run.save(f"{out}/ckpt.pt", {}),
                      lambda: run.write(f"{out}/config.json", "{}")):
            with pytest.raises(run.Stop, match="was moved or removed"):
                write()
        assert not out.exists() or [path.name for path in out.iterdir()] == ["lock.0"]
        out.mkdir(exist_ok=True)
        (out / "lock.0").touch()
    run.release_folder()
    assert (out / "lock.0").exists()  # the other's


def test_a_refused_run_in_a_folder_that_cannot_be_removed_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    for out in (str(tmp_path / "link"), "."):
        run.claim_folder(sft.Config(out=out))
        run.release_folder()
    assert (tmp_path / "real").is_dir()


def test_metrics_are_strict_json_and_a_cut_line_swallows_no_other(tmp_path):
    run.log(str(tmp_path), {"step": 1, "loss": math.nan, "norm": math.inf})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')  # a kill
    run.log(str(tmp_path), {"step": 3, "loss": 0.5})
    assert run.read_log(str(tmp_path)) == [{"step": 1, "loss": None, "norm": None},
                                           {"step": 3, "loss": 0.5}]
    assert run.read_log(str(tmp_path / "none")) == []


def test_one_flipped_byte_of_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "ckpt.pt"
    run.save(str(path), {"model": {"w": torch.arange(3000.0)}, "step": 3})
    whole, noticed = path.read_bytes(), 0
    for place in range(400, len(whole) - 400, 997):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        try:  # padding between the archive's files may differ
            assert torch.equal(run.load(str(path))["model"]["w"], torch.arange(3000.0))
        except run.Stop as stop:
            noticed += "no checkpoint that can be read" in str(stop)
    assert noticed >= 10


def test_weights_that_are_not_finite_are_refused():
    run.check_finite({"a": torch.ones(2), "n": torch.tensor(3)}, "fine")
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(run.Stop, match="PATH: weights that are not finite"):
            run.check_finite({"a": torch.tensor([1.0, bad])}, "PATH")


def test_what_a_model_wrote_cannot_steer_a_terminal():
    assert run.printable("a\x1b[2Jb\r\n\tc\x9b") == "a\ufffd[2Jb\ufffd\n\tc\ufffd"


def test_the_log_is_again_what_it_was_at_a_checkpoint_whatever_became_of_it(tmp_path):
    out, lines = str(tmp_path), [{"step": step, "loss": 0.5} for step in (1, 2)]
    run.log(out, {"step": 1, "loss": 9.5})  # a byte of it changed, say, and line 2 is lost
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"loss": 1}\n{"step": 2, "lo')
    sample = "--- step {}, valid task 0, reward 1\n--- not a step\nsaid\n"
    (tmp_path / "samples.txt").write_text("".join(sample.format(step) for step in (2, 4, 10)))
    run.restore_log(out, 2, lines)
    assert run.read_log(out) == lines
    assert (tmp_path / "samples.txt").read_text() == sample.format(2)
    run.restore_log(out, 0, [])
    assert run.read_log(out) == [] and (tmp_path / "samples.txt").read_text() == ""


def test_a_config_that_cannot_be_read_is_one_line(tmp_path):
    assert run.read_config(str(tmp_path)) is None
    for text in ("", "[]", "{}", "null", '{"meth', '{"method": ["tandem"]}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(run.Stop, match="config.json cannot be read"):
            run.read_config(str(tmp_path))


def test_options_that_are_lost_are_in_the_checkpoint_too(tmp_path, capsys):
    options = {"method": "grpo", "lr": 0.5}
    run.save(str(tmp_path / "ckpt.pt"), {"options": options})
    for _ in range(2):  # lost, then cut
        assert run.read_config(str(tmp_path)) == options
        assert "config.json cannot be read" in capsys.readouterr().err
        (tmp_path / "config.json").write_text('{"meth')


@pytest.mark.parametrize("state", [[1], {"model": 1}, 3])
def test_a_file_that_is_no_runs_checkpoint_is_refused(state, tmp_path, capsys):
    run.save(str(tmp_path / "ckpt.pt"), state)
    with pytest.raises(run.Stop, match="no checkpoint in .* can be read"):
        run.load_last(str(tmp_path))
    assert "is a model, not a run" in capsys.readouterr().err



# ---- checkpoints ----

def test_a_checkpoint_is_written_whole_and_the_one_before_is_kept(tmp_path):
    path = str(tmp_path / "ckpt.pt")
    for step in (1, 2, 3):
        run.save(path, {"options": {}, "step": step}, keep_previous=True)
    assert run.load(path) == {"options": {}, "step": 3} and run.load(path + ".previous") == {"options": {}, "step": 2}
    assert not list(tmp_path.glob("*.tmp"))
    assert run.load_last(str(tmp_path))[0] == {"options": {}, "step": 3}


def test_an_unreadable_checkpoint_is_put_aside_before_the_next_save(tmp_path, capsys):
    path = tmp_path / "ckpt.pt"
    for step in (1, 2):
        run.save(str(path), {"options": {}, "step": step}, keep_previous=True)
    path.write_bytes(b"PK")
    assert run.load_last(str(tmp_path))[0] == {"options": {}, "step": 1}
    assert "warning" in capsys.readouterr().err
    assert Path(str(path) + ".corrupt").read_bytes() == b"PK" and not path.exists()
    assert run.load_last(str(tmp_path))[0] == {"options": {}, "step": 1}
    assert run.load_last(str(tmp_path / "none"))[0] is None


def test_a_checkpoint_holds_plain_types_only(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("executed",)
    torch.save({"step": Code()}, tmp_path / "bad.pt")
    with pytest.raises(run.Stop, match="no checkpoint that can be read"):
        run.load(str(tmp_path / "bad.pt"))


def test_a_checkpoint_says_where_its_models_came_from(command):
    assert command(*MOVING["tandem"])[0] == 0
    state = run.load("o/ckpt.pt")
    assert list(state["origins"]) == ["senior", "junior"]
    assert all(Path(path).is_file() for path in state["origins"].values())
    assert state["options"] == json.loads(Path("o/config.json").read_text())
    warm = run.load(state["origins"]["senior"])["model"]
    assert all(torch.equal(x, state["warm"][name]) for name, x in warm.items())


def test_weights_before_and_after_take_turns_and_the_trained_ones_stay(command):
    assert command(*MOVING["sft"])[0] == 0
    _, r = train.reopen("o")
    after = {name: x.clone() for name, x in r.model.state_dict().items()}
    for when in run.before_and_after(r):
        expected = r.warm if when == "before" else after
        assert all(torch.equal(x, expected[name]) for name, x in r.model.state_dict().items())
    assert all(torch.equal(x, after[name]) for name, x in r.model.state_dict().items())


# ---- the table ----

def test_cells_of_a_table_by_hand():
    assert run.cell(None, 10) == "-" and run.cell((0.25, None), 10) == "0.250"
    assert run.cell((0.5, 0.1), 10) == "0.500 +- 0.196"
    assert run.cell((1.0, 0.0), 300) == "1.000 +- 0.010"  # the rule of three
    assert run.cell((0.0, 0.0), 2) == "0.000 +- 1.000" and run.cell((0.5, 0.0), 9).endswith("0.000")


def test_a_table_has_every_metric_of_every_column(capsys):
    before, after = {"solo": (1.0, 0.0)}, {"step handoff": (1.0, 0.0), "solo": (0.5, 0.1)}
    run.print_table({"before": before, "after": after}, 300)
    title, first, second = capsys.readouterr().out.splitlines()
    assert title.split() == ["before", "after"]
    assert first.split() == ["step", "handoff", "-", "1.000", "+-", "0.020"]  # half of the tasks
    assert second.split() == ["solo", "1.000", "+-", "0.010", "0.500", "+-", "0.196"]


def test_a_device_that_is_not_there_is_one_line(command):
    for name in ("cuda", "mps"):
        if name == "cuda" and torch.cuda.is_available():
            continue
        code, _, err = command("--method", "sft", "--device", name)
        assert code == 2 and len(errors(err)) == 1 and "--device cpu" in err
