"""A person plays in a terminal: wrong answers, answers of several lines, terminals that have not
every character."""
import io
import subprocess
import sys

import pytest

import envs
from conftest import REPO


def played(name, lines, monkeypatch, capsys):
    typed = iter(lines)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    envs.by_hand(envs.make(name), 0, "train")
    return capsys.readouterr().out


@pytest.mark.parametrize("said", ["7", "#x", "x\\", "é", "\ud83d", "\x00", "#", "1" * 9999])
def test_a_wrong_answer_in_a_world_of_one_turn(said, monkeypatch, capsys):
    assert played("arithmetic", [said, "y"], monkeypatch, capsys).endswith("\nLost.\n")


def test_a_line_that_ends_in_a_backslash_goes_on(monkeypatch, capsys):
    env = envs.make("arithmetic")
    env.reset(0, "train")
    chain = "\n".join(env.lines()[0] + [f"#{env.lines()[1]}"])
    lines = chain.replace("\n", "\\\n").split("\n")
    assert len(lines) > 3 and played("arithmetic", lines, monkeypatch, capsys).endswith(
        "Solved in 1 turns.\n")


def test_the_input_may_end_anywhere(monkeypatch, capsys):
    for lines in ([], ["7\\"], ["\\", ""]):
        text = "".join(line + "\n" for line in lines)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        envs.by_hand(envs.make("arithmetic"), 0, "train")
    assert "Lost" not in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8", "cp437"])
def test_what_a_terminal_has_not_is_a_question_mark(encoding, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", screen)
    envs.show("naïve café 日本 \ud83d end\n\x1b[2J\x9b1m\ttab\x07\r")
    screen.flush()
    found = screen.buffer.getvalue().decode(encoding)
    assert found.startswith("na") and "end\n[2J1m\ttab" in found and "\x1b" not in found


def test_a_game_on_a_latin_1_terminal_and_bytes_that_are_no_text():
    command = [sys.executable, "-c", "import envs; e = envs.make('guess');"
               "e.reset = lambda *_: 'ő?'; e.secret = 5; e.turn = 0; envs.by_hand(e, 0, 'train')"]
    found = subprocess.run(command, cwd=REPO, input=b"\xff\xfe\n\xe9\n5\n", capture_output=True,
                           env={"PYTHONIOENCODING": "utf-8:strict", "PATH": ""})
    assert found.returncode == 0 and b"Solved in 3 turns" in found.stdout, found.stderr
    command[2] = command[2].replace("'ő?'", "chr(0x151)")
    found = subprocess.run(command, cwd=REPO, input=b"5\n", capture_output=True,
                           env={"PYTHONIOENCODING": "latin-1", "PATH": ""})
    assert found.returncode == 0 and found.stdout.startswith(b"?\n"), found.stderr
