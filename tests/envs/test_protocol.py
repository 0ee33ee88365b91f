"""Every environment keeps the contract; arithmetic against sums done by hand; gsm8k against the
published files."""
import ast
import json
import random
from fractions import Fraction

import pytest

import envs
from conftest import REPO
from contract import check_env, play
from envs.arithmetic import LETTERS, Arithmetic, to_private
from envs.gsm8k import GSM8K, read_jsonl, read_problem, to_number, verify


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records),
                    encoding="utf-8")
    return str(path)


def problem(a, b=2):
    return {"question": f"Ann has {a} apples and buys {b}. How many now?",
            "answer": f"She has {a}+{b}=<<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}"}


@pytest.fixture
def small(tmp_path):
    """A jsonl of 80 problems: enough for all three splits."""
    return write_jsonl(tmp_path / "small.jsonl", [problem(a) for a in range(80)])


# ---- the protocol ----

# Add your own world here. hidden: what the first observation says does not tell the task (guess
# says "guess" every time), so two tasks may read alike.
@pytest.mark.parametrize("name, hidden", [("arithmetic", False), ("guess", True),
                                          ("sums", False)])
def test_toy_keeps_the_contract(name, hidden):
    check_env(name, hidden_task=hidden)


def test_gsm8k_keeps_the_contract_on_a_small_file(small):
    check_env("gsm8k", data=small)


def test_gsm8k_keeps_the_contract_on_the_published_files(math_files):
    for path in math_files.values():
        check_env("gsm8k", data=str(path))


def test_the_example_to_copy_is_30_lines_of_code():
    source = (REPO / "envs/guess.py").read_text()
    docstring = ast.get_docstring(ast.parse(source), clean=False)
    lines = [line for line in source.replace(docstring, "").split("\n") if line.strip(' "')
             and not line.strip().startswith("#")]
    assert 10 < len(lines) <= 30


def test_the_contract_notices_an_environment_that_breaks_it(monkeypatch):
    """Each of these one-line faults is caught: so the checks above can fail."""
    step, reset, demo = Arithmetic.step, Arithmetic.reset, Arithmetic.demo
    faults = {"step": [lambda self, text: step(self, text.encode("ascii").decode()),
                       lambda self, text: envs.Step("", 1.0, True, {"success": True}),
                       lambda self, text: envs.Step("more", 0.0, False, {"success": False})],
              "reset": [lambda self, task, split: reset(self, task, "train"), lambda self, task,
                        split: reset(self, random.randrange(10**6), split)],
              "demo": [lambda self, rng, skill: ["#"], lambda self, rng,
                       skill: demo(self, random.Random(), skill)]}
    for method, broken in faults.items():
        for fault in broken:
            with monkeypatch.context() as patch, pytest.raises((AssertionError, UnicodeError)):
                patch.setattr(Arithmetic, method, fault)
                check_env("arithmetic")


def test_an_unknown_environment_names_the_known_ones():
    with pytest.raises(ValueError, match="arithmetic gsm8k guess") as error:
        envs.make("arithmetics")
    assert "\n" not in str(error.value)


def test_every_name_is_a_world_and_nothing_else_is():
    assert set(envs.names()) >= {"alfworld", "arithmetic", "gsm8k", "guess", "house", "math",
                                 "scienceworld", "searchqa", "sums", "textworld", "webshop"}
    assert not set(envs.names()) & set(envs.NOT_WORLDS)
    for name in ("lib", "record", "nonsense"):
        with pytest.raises(ValueError, match="unknown environment"):
            envs.make(name)


def test_an_environment_inherits_what_it_does_not_say():
    env = envs.make("guess")
    assert (env.problems, env.mark, env.max_gap, env.every_family, env.prose,
            env.words) == (128, " ", 32, False, False, ())
    assert (env.workers, env.time_limit, env.actions()) == (0, 60, [])
    house = envs.make("house")
    assert (house.record_turns, house.records, house.record_tasks("train"),
            house.warm_steps) == (0, None, [], 2000)
    house.reset(0, "train")
    assert house.moves() == house.actions() != []


@pytest.mark.parametrize("name, said, heard", [
    ("arithmetic", ["?", "quit"], "there is no list of commands\nYou left after 0 turns, reward 0.00.\n"),
    ("guess", ["x"] * 4, "Out of turns.\n")])
def test_a_world_without_commands_is_played_by_hand_too(name, said, heard, monkeypatch, capsys):
    lines = iter(said)
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    envs.by_hand(envs.make(name), 0, "train")
    assert capsys.readouterr().out.endswith(heard)


def test_split_by_hash_ignores_white_space_and_is_80_10_10():
    assert envs.split_of("5 - 1\n") == envs.split_of(" 5  -\t1")
    counts = [sum(envs.split_of(str(i)) == s for i in range(5000)) / 5000 for s in envs.SPLITS]
    assert all(abs(c - share) < 0.03 for c, share in zip(counts, (0.8, 0.1, 0.1)))


def test_guess_hints_towards_the_secret():
    env = envs.make("guess")
    env.reset(0, "train")
    env.secret = 6
    assert [env.step(t).observation for t in ("3", "8")] == ["more", "less"]
    last = env.step("6")
    assert (last.reward, last.done, last.info["success"]) == (1.0, True, True)


# ---- arithmetic ----

@pytest.fixture
def sum_by_hand():
    """5-1-3+9 = 10, that is 0 modulo 10."""
    env = Arithmetic(ops=3)
    env.digits, env.signs = [5, 1, 3, 9], ["-", "-", "+"]
    return env


def test_chain_worked_by_hand(sum_by_hand):
    assert sum_by_hand.demo(random.Random(0), "plain") == ["5-1=4\n4-3=1\n1+9=0\n#0"]
    assert sum_by_hand.demo(random.Random(0), "private") == ["f-b=e\ne-d=b\nb+j=a\n#0"]


def test_subtraction_below_zero_wraps(sum_by_hand):
    sum_by_hand.digits = [0, 1, 9, 9]
    assert sum_by_hand.demo(random.Random(0), "junior") == ["0-1=9\n9-9=0\n0+9=9\n#9"]


def test_private_notation_decodes_to_the_same_chain():
    env = Arithmetic()
    for task in range(50):
        question = env.reset(task, "train")
        plain, private = (env.demo(random.Random(0), skill)[0] for skill in ("plain", "private"))
        assert "".join(str(LETTERS.index(c)) if c in LETTERS else c for c in private) == plain
        assert len(private) == len(plain) and not set(private.rsplit("#")[0]) & set("0123456789")
        assert int(plain[-1]) == eval(question) % 10  # our own question, not a model's text


def test_senior_mixes_both_notations_and_junior_knows_one():
    env, rng = Arithmetic(), random.Random(0)
    env.reset(0, "train")
    share = {skill: sum(play(env, env.demo(rng, skill))[1].info["private"]
                        for _ in range(1000)) / 1000 for skill in ("senior", "junior", "graded")}
    assert abs(share["senior"] - 0.6) < 0.05 and share["junior"] == 0 and 0 < share["graded"] < 0.03


@pytest.mark.parametrize("text, reward, malformed, private", [
    ("5-1=4\n4-3=1\n1+9=0\n#0", 1, 0, 0), ("f-b=e\ne-d=b\nb+j=a\n#0", 1, 0, 1),
    ("f-b=e\n4-3=1\n1+9=0\n#0", 1, 0, 1 / 3),
    ("f-b=e\n4-3=1\njunk\n#0", 1, 1 / 3, 1 / 2), ("f-1=4\n#0", 1, 1, None),
    ("5-1=4\n\n#0", 1, 1 / 2, 0), ("5-1=44-3=1\n#0", 1, 1, None),
    ("k-b=e\n٣+٤=٧\n#0", 1, 1, None), ("#0", 1, 0, None), ("#1", 0, 0, None), ("#a", 0, 0, None),
    ("#0\n", 0, 1, None), ("5-1=4\n#0 ", 0, 0, 0),
    ("#0\n5-1=4", 0, 1, None), ("0", 0, 0, None), ("#00", 0, 0, None)])
def test_reward_and_notation_by_hand(sum_by_hand, text, reward, malformed, private):
    step = sum_by_hand.step(text)
    assert (step.reward, step.info["success"], step.done) == (reward, bool(reward), True)
    assert step.info["malformed"] == pytest.approx(malformed)
    assert step.info.get("private") == (None if private is None else pytest.approx(private))


def test_every_chain_has_the_asked_number_of_lines():
    for ops in (2, 6):
        env = envs.make("arithmetic", ops=ops)
        assert len(env.reset(3, "train")) == 2 * ops + 1
        assert env.demo(random.Random(0), "senior")[0].count("\n") == ops


def test_to_private_is_letter_by_letter():
    assert to_private("5-1=4") == "f-b=e"


# ---- gsm8k ----

def other_answer(solution):
    """The same solution with 1 added to its answer, still a number the verifier can read."""
    head, answer = solution.rsplit("####", 1)
    changed = f"{float(to_number(answer) + 1):.6f}"
    assert to_number(changed) is not None and to_number(changed) != to_number(answer)
    return f"{head}#### {changed}"


def test_every_published_solution_earns_one_and_a_changed_answer_nothing(math_files):
    for name, path in math_files.items():
        env = GSM8K(str(path))
        for split in envs.SPLITS:
            for task in range(env.tasks(split)):
                env.reset(task, split)
                assert env.step(env.solution).reward == 1.0, (name, env.solution)
                assert env.step(other_answer(env.solution)).reward == 0.0, (name, env.solution)


def test_no_published_problem_is_lost(math_files):
    for path in math_files.values():
        n = sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").split("\n"))
        env = GSM8K(str(path))
        assert sum(env.tasks(s) for s in envs.SPLITS) == n


@pytest.mark.parametrize("text, number", [
    ("1,080", 1080), ("$1,080.00", 1080), (" 18 ", 18), ("18.", 18), ("-7", -7), ("$-7", -7),
    ("0.5", Fraction(1, 2)), (".5", Fraction(1, 2)), ("50%", 50),
    ("1.50", Fraction(3, 2)), ("", None), ("$", None), ("1 2", None), ("1.2.3", None),
    ("--1", None), ("1e3", None), ("nan", None), ("٣", None), ("x7", None),
    ("7 apples", None), ("9" * 41, None)])
def test_numbers_as_people_write_them(text, number):
    assert to_number(text) == number


@pytest.mark.parametrize("text, reward", [
    ("#### 1080", 1), ("#### 1,080", 1), ("####1080", 1), ("so $1,080\n#### $1080.00", 1),
    ("#### 7\n#### 1080", 1), ("#### 1080\n#### 7", 0), ("1080", 0), ("# 1080", 0),
    ("#### 1080.01", 0), ("#### -1080", 0), ("#### 1080 apples", 0)])
def test_only_the_number_after_the_last_mark_counts(text, reward):
    assert verify(text, Fraction(1080)) == reward


def test_the_three_published_formats_are_read():
    question, solution = read_problem({"Body": "There are 3 cats", "Question": "How many?",
                                       "Equation": "( 3.0 )", "Answer": 3.0})
    assert "3 cats" in question and question.endswith("How many?") and solution.endswith("#### 3.0")
    assert read_problem({"input": "3 and 4?", "target": 7.0}) == ("3 and 4?", "#### 7.0")
    assert read_problem(problem(5))[1].endswith("#### 7")


def test_the_senior_shows_calculator_marks_and_the_junior_does_not(small):
    env = GSM8K(small)
    env.reset(0, "train")
    senior, junior = (env.demo(random.Random(0), skill)[0] for skill in ("senior", "junior"))
    assert "<<" in senior and "<<" not in junior
    assert junior.split("\n")[-1] == senior.split("\n")[-1]
    assert (env.step(senior).info["private"], env.step(junior).info["private"]) == (1.0, 0.0)
    info = env.step("a <<3+4=7\nb <<1+1=2>>2\n#### 1").info
    assert info == {"success": False, "malformed": 0.5, "private": 0.5}


@pytest.mark.parametrize("line, complaint", [
    ('{"question": "a", "ans', "line 3"),
    ('{"question": "no answer"}', "line 3: no field 'answer'"),
    ('{"answer": "#### 4"}', "line 3: no field 'question'"),
    ('{"question": 5, "answer": "#### 4"}', "line 3"),
    ('{"question": "a", "answer": 4}', "line 3"), ("[1, 2]", "line 3"), ("7", "line 3"),
    ("null", "line 3"), ('"text"', "line 3")])
def test_a_malformed_line_is_named_with_its_file(tmp_path, line, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(problem(1))}\n\n{line}\n{json.dumps(problem(2))}\n")
    with pytest.raises(ValueError, match=complaint) as error:
        envs.make("gsm8k", data=str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content, complaint",
                         [(b"", "no problems"), (b"\n \n", "no problems"),
                          (b"\xff\xfe\x00{", "utf-8"), (None, "grade-school-math.*GSM8K_DATA")])
def test_an_empty_binary_or_missing_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "train.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as error:
        envs.make("gsm8k", data=str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_no_path_at_all_names_the_download_and_the_variable(monkeypatch, small):
    monkeypatch.delenv("GSM8K_DATA", raising=False)
    with pytest.raises(ValueError, match="grade-school-math.*GSM8K_DATA"):
        envs.make("gsm8k")
    monkeypatch.setenv("GSM8K_DATA", small)
    assert envs.make("gsm8k").tasks("train") > 0


def test_a_folder_keeps_its_official_test_set_as_it_is(tmp_path):
    train, test = [problem(a) for a in range(80)], [problem(a, 3) for a in range(12)]
    write_jsonl(tmp_path / "train.jsonl", train), write_jsonl(tmp_path / "test.jsonl", test)
    env = envs.make("gsm8k", data=str(tmp_path))
    assert [env.reset(task, "test")
            for task in range(env.tasks("test"))] == [p["question"] for p in test]
    assert env.tasks("train") + env.tasks("valid") == 80 and 0 < env.tasks("valid") < 30


def test_a_folder_without_test_file_names_it(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [problem(a) for a in range(80)])
    with pytest.raises(ValueError, match="test.jsonl"):
        envs.make("gsm8k", data=str(tmp_path))


def test_a_file_too_small_to_split_says_so(tmp_path):
    with pytest.raises(ValueError, match="too few problems"):
        envs.make("gsm8k", data=write_jsonl(tmp_path / "two.jsonl", [problem(1)]))


def test_line_separators_inside_a_question_do_not_break_the_line(tmp_path):
    odd = {"question": "one\u2028two\u2029three\x85four\u000b?", "answer": "#### 7"}
    assert read_jsonl(write_jsonl(tmp_path / "odd.jsonl",
                                  [problem(1), odd]))[1] == (odd["question"], "#### 7")


def test_a_fingerprint_is_of_the_contents_wherever_they_lie(tmp_path):
    assert envs.make("arithmetic").fingerprint() == envs.make("house").fingerprint() == ""
    lines = [json.dumps({"question": f"{n} and 1?", "answer": f"#### {n + 1}"}) for n in range(60)]
    for name, kept in (("a", lines), ("b", lines), ("c", lines[:-1]), ("d", lines[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(kept))
    a, b, c, d = (envs.make("gsm8k", data=str(tmp_path / f"{name}.jsonl")).fingerprint()
                  for name in "abcd")
    assert a == b and len({a, c, d}) == 3
