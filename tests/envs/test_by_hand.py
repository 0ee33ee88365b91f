"""A person plays in a terminal: wrong answers, answers of several lines, terminals that have not
every character."""
import io
import os
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
        "Solved in 1 turn.\n")


def test_the_input_may_end_anywhere(monkeypatch, capsys):
    for lines in ([], ["7\\"], ["\\", ""]):
        text = "".join(line + "\n" for line in lines)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        envs.by_hand(envs.make("arithmetic"), 0, "train")
    out = capsys.readouterr().out
    assert "Lost" not in out and out.count("You left after 0 turns, reward 0.00.\n") == 3


def test_a_lost_question_shows_a_right_answer(monkeypatch, capsys):
    env = envs.make("arithmetic")
    env.reset(0, "train")
    right = "\n".join(env.lines()[0] + [f"#{env.lines()[1]}"])
    out = played("arithmetic", ["#x"], monkeypatch, capsys)
    assert out.endswith(f"\nA right answer:\n{right}\nLost.\n")


def test_hints_win_the_game_and_the_score_follows(monkeypatch, capsys):
    said = []

    def typed(prompt):  # ask for a hint, say it, and now and then for the score
        out.append(capsys.readouterr().out)
        if len(said) % 2:
            said.append(out[-1].rstrip("\n").split("\n")[-1])
        else:
            said.append("hint")
        return said[-1]
    out = []
    monkeypatch.setattr("builtins.input", typed)
    envs.by_hand(envs.make("house"), 3, "valid")
    assert capsys.readouterr().out.endswith(f"Solved in {len(said) // 2} turns.\n")
    assert len(said) >= 4


def test_help_score_and_quit_are_no_turns(monkeypatch, capsys):
    out = played("house", ["help", "?", "look around", "score", "quit"], monkeypatch, capsys)
    assert envs.HELP in out and "check inventory" in out
    assert "\nturn 1 of 30, reward 0.00 of 1\n" in out
    assert out.endswith("\nYou left after 1 turn, reward 0.00.\n")


def test_a_word_that_the_world_knows_goes_to_the_world(monkeypatch, capsys):
    env = envs.make("guess")
    env.actions = lambda: ["hint"]
    typed = iter(["hint", "score", "quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    envs.by_hand(env, 0, "train")
    assert "\nturn 1 of 4, reward 0.00 of 1\n" in capsys.readouterr().out


def test_a_world_that_knows_no_answer_has_no_hint(monkeypatch, capsys):
    env = envs.make("guess")
    env.targets = {}
    typed = iter(["hint", "x", "x", "x", "x"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    envs.by_hand(env, 0, "train")
    out = capsys.readouterr().out
    assert "\nthere is no hint from here\n" in out and out.endswith("\nless\nOut of turns.\n")


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


def test_the_arrow_keys_bring_back_what_was_said():
    pytest.importorskip("readline")
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "import envs; envs.by_hand(envs.make('guess'), 0, 'train')"]
    game = subprocess.Popen(command, cwd=REPO, stdin=theirs, stdout=theirs, stderr=theirs)
    heard = b""

    def until(text):
        nonlocal heard
        while text not in heard:
            heard += os.read(ours, 1000)
    until(b"turn 1> ")
    os.write(ours, b"3x\n")
    until(b"turn 2> ")
    os.write(ours, b"\n")  # an empty line is no answer
    os.write(ours, b"\x1b[A\n")  # the key that goes up
    until(b"turn 3> ")
    os.write(ours, b"\x04")  # Ctrl-D
    until(b"You left after 2 turns")
    assert game.wait(10) == 0 and b"3x" in heard.split(b"turn 2> ")[-1]
