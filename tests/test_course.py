"""The course: a blank changes one body and nothing else; a sample of what check.py proves."""
import ast
import subprocess
import sys

import pytest

from conftest import REPO

sys.path.append(str(REPO / "course"))
import blank  # noqa: E402
import bugs  # noqa: E402
import check  # noqa: E402


def python(*args, folder=REPO):
    """-> exit code, stdout, stderr"""
    done = subprocess.run([sys.executable, *map(str, args)], cwd=folder, capture_output=True,
                          text=True)
    return done.returncode, done.stdout, done.stderr


def head(node):
    """What a blank keeps of a function."""
    return node.name, ast.unparse(node.args), ast.get_docstring(node, clean=False)


# ---- blanks ----

def test_twelve_blanks_or_more_over_six_lessons_and_eight_bugs():
    lessons = [entry["lesson"] for entry in blank.BLANKS.values()]
    assert len(lessons) >= 12 and set(lessons) == {1, 2, 3, 4, 5, 6}
    assert all(lessons.count(lesson) >= 2 for lesson in lessons)
    assert len(bugs.BUGS) == 8
    patches = {path.stem for path in (REPO / "course/bugs").iterdir()}
    assert patches == set(bugs.BUGS)


@pytest.mark.parametrize("name", blank.BLANKS)
def test_a_blank_keeps_signature_docstring_and_the_rest_of_the_file(name):
    path, names = blank.find(name)
    before = (REPO / path).read_bytes().decode()
    after = blank.without_body(before, names)
    old, new = (blank.node_of(text, names) for text in (before, after))
    assert head(old) == head(new)
    assert ast.unparse(new.body[-1]) == f"raise NotImplementedError('TODO: {names[-1]}')"
    assert len(new.body) == 1 + (head(new)[2] is not None)
    assert before.split("\n")[:new.end_lineno - 1] == after.split("\n")[:new.end_lineno - 1]
    assert before.split("\n")[old.end_lineno:] == after.split("\n")[new.end_lineno:]


SOURCE = '''import math  # kept

class A:
    @staticmethod
    def f(x,
          y=1):  # of the signature
        # secret 1

        # secret 2
        def g():
            return "secret 3"
        return g()  # secret 4
        # secret 5

        # secret 6
    # of the class

    def h(self):
        """Kept.

        # kept too"""
        # secret 7
        return math.pi'''


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_comments_of_a_body_go_with_it_and_no_others(newline):
    text = SOURCE.replace("\n", newline)
    once = blank.without_body(text, ["A", "f"])
    both = blank.without_body(once, ["A", "h"])
    assert "secret" in text and "secret" not in both
    todo = newline + ' ' * 8 + 'raise NotImplementedError("TODO: {}")'
    begin, end = text.index(newline + " " * 8 + "# secret 1"), text.index(newline + "    # of the")
    assert once == text[:begin] + todo.format("f") + text[end:]
    assert both == once[:once.index(newline + " " * 8 + "# secret 7")] + todo.format("h")


def test_a_blank_changes_one_file_of_the_copy(tmp_path):
    code, out, _ = python("course/blank.py", "beliefs.WorldModel.transition_prompt",
                          tmp_path / "mine")
    assert code == 0
    changed = [path for path in blank.files()
               if (REPO / path).read_bytes() != (tmp_path / "mine" / path).read_bytes()]
    assert changed == ["beliefs.py"]
    assert f"cd {tmp_path / 'mine'}\npython -m pytest -q" in out
    assert "tests/test_mediation.py::test_prompts_hold_exactly_what_a_formulation_may_see" in out


def test_the_list_names_every_blank_and_every_bug():
    for command, table in (("blank", blank.BLANKS), ("bugs", bugs.BUGS)):
        code, out, _ = python(f"course/{command}.py")
        named = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
        assert code == 0 and named == list(table) and "lesson 5" in out


@pytest.mark.parametrize("args, word", [
    (["blank.py", "tandem.nobody", "new"], "one of: grpo.group_advantages"),
    (["blank.py", "tandem.next_author"], "a new folder"),
    (["blank.py", "tandem.next_author", "full"], "not empty"),
    (["blank.py", "tandem.next_author", "file"], "not a folder"),
    (["bugs.py", "nobody", "new"], "one of: batch_mean"),
    (["bugs.py", "wrong_turn", "full"], "not empty")])
def test_an_error_is_one_line(tmp_path, args, word):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("a file")
    code, out, err = python(REPO / "course" / args[0], *args[1:], folder=tmp_path)
    assert code == 1 and not out and len(err.splitlines()) == 1
    assert err.startswith("error:") and word in err and not (tmp_path / "new").exists()


def test_a_copy_holds_what_git_tracks_or_all_but_a_few_folders(tmp_path):
    kept = ["a.py", "envs/b.py"]
    for path in [*kept, "out/x", "envs/__pycache__/b.pyc", ".venv/bin/python"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    assert blank.files(tmp_path) == kept
    (tmp_path / ".gitignore").write_text("out/\n__pycache__/\n.venv/\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "a.py"], check=True)
    assert blank.files(tmp_path) == ["a.py"]
    assert blank.files(tmp_path, new=True) == [".gitignore", *kept]


# ---- bugs ----

def test_a_bug_is_planted_and_what_gives_it_away_is_told_only_when_asked(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)  # another project around it
    code, out, _ = python("course/bugs.py", "wrong_turn", tmp_path / "mine")
    assert code == 0 and bugs.BUGS["wrong_turn"]["tell"] not in out
    assert "(turn_of_token - 1).clamp(min=0)" in (tmp_path / "mine/atod.py").read_text()
    assert bugs.BUGS["wrong_turn"]["tell"] in python("course/bugs.py", "wrong_turn")[1]


# ---- the lessons ----

def test_the_lessons_are_listed_as_their_pages_call_themselves(tmp_path):
    (tmp_path / "course").mkdir()
    program = (REPO / "course/__main__.py").read_text()
    (tmp_path / "course/__main__.py").write_text(program)
    page = "# 3. Tandem: two authors\n\nTime: 45 minutes, 5 of them training.\n\nMore.\n"
    (tmp_path / "course/3-tandem.md").write_text(page)
    code, out, _ = python("-m", "course", folder=tmp_path)
    assert code == 0 and out.count("not written yet") == 5
    assert "3. Tandem: two authors\n   course/3-tandem.md: 45 minutes, 5 of them training\n" in out


# ---- what check.py proves ----

def test_two_blanks_and_two_bugs_are_proven():
    names = "tandem.next_author,claims.verdict,batch_mean,wrong_turn"
    code, out, _ = python("course/check.py", "--only", names)
    assert code == 0 and "4 of 4 exercises proven" in out


def test_a_test_that_a_blank_does_not_fail_and_a_patch_that_does_not_apply_are_told(
        monkeypatch, tmp_path, capsys):
    careless = {**blank.BLANKS["claims.verdict"], "tests": ["test_an_interval_by_hand"]}
    monkeypatch.setitem(check.EXERCISES, "claims.verdict", careless)
    old = tmp_path / "old.patch"
    old.write_text("--- a/atod.py\n+++ b/atod.py\n@@ -1 +1 @@\n-no line of it\n+another\n")
    monkeypatch.setattr(bugs, "patch_of", lambda name: str(old))
    assert check.main(["--only", "claims.verdict,wrong_turn"]) == 1
    out = capsys.readouterr().out
    assert "0 of 2 exercises proven" in out and "the patch does not apply" in out
