"""Mathematics from published files: the files, the box, our own rules, the library's process."""
import copy
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import envs
from conftest import REPO
from contract import check_env
from envs.math import library, no_library, units
from envs.math.answers import judge, last_box, normal, open_questions
from envs.math.files import read_file, read_problem

DATA = Path(os.environ.get("MATH_DATA") or REPO.parent / "shared/data/math")


def box(answer):
    return f"\\boxed{{{answer}}}"


def rules(gold, answer):
    """Do our own rules alone say that the answer is right?"""
    return judge(gold, box(answer), no_library)[0]


def published(name):
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}: set MATH_DATA to a folder with the published files")
    return read_file(str(path))


@pytest.fixture
def small(tmp_path):
    """80 problems: enough for all three splits."""
    lines = [json.dumps({"problem": f"What is {n} halves?", "level": "Level 1", "type": "Algebra",
                         "solution": f"It is $\\boxed{{\\frac{{{n}}}{{2}}}}$."})
             for n in range(80)]
    path = tmp_path / "small.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def test_it_keeps_the_contract(small):
    check_env("math", data=small)


def test_the_module_does_not_hide_the_one_of_python():
    import math
    assert math.pi > 3


# ---- the box ----

@pytest.mark.parametrize("reply, content", [
    ("so \\boxed{5}.", "5"), ("\\boxed{1} or \\boxed{2}", "2"), ("\\fbox{5}", "5"),
    ("\\boxed 5.", "5."), ("$\\boxed 5$", "5"), ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ("\\boxed{\\{1\\}}", "\\{1\\}"), ("\\boxed{\\boxed{5}}", "\\boxed{5}"), ("\\boxed{}", ""),
    ("{ \\boxed{5}", "5"), ("5", None), ("\\boxed{5", None), ("\\boxed{{5}", None),
    ("\\boxed{5} \\boxed{", None), ("\\boxed{\\boxed{5}", None), ("\\boxes{5}", None)])
def test_the_last_box_counts_and_must_be_closed(reply, content):
    assert last_box(reply) == content


def test_a_box_is_counted_whether_right_or_wrong(small):
    env = envs.make("math", data=small)
    assert env.reset(0, "train").endswith("put your final answer within \\boxed{}.")
    env.answer = "12"
    found = [(s.reward, s.info) for s in map(env.step, (box(12), box(13), "12"))]
    assert found == [(1.0, {"success": True, "boxed": 1.0}),
                     (0.0, {"success": False, "boxed": 1.0}),
                     (0.0, {"success": False, "boxed": 0.0})]


# ---- our own rules ----

@pytest.mark.parametrize("gold, answer", [
    (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", "1/2"), (r"\frac12", ".5"), ("1/2", r"\dfrac 12"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"), ("1.5", r"1 \frac{1}{2}"), ("1.5", "1 1/2"),
    ("(1, 2)", r"\left(1,2\right)"), (r"x \in [0,1)", "[0,1)"), ("[0,1)", r"x\in[0, 1)"),
    ("5", r"5 \text{ meters}"), (r"5 \text{ meters}", "5"), (r"5 \text{ cm}", "5 centimeters"),
    (r"15\text{ cm}^2", r"15 \text{ square cm}"), (r"\$12", "12"), ("12", r"\$12"),
    ("12000", "12,000"), (r"10,\!080", "10080"), ("12000", "12{,}000"), ("12 000", "12000"),
    (r"\text{(C)}", "C"), ("C", r"\textbf{(C)}"), (r"90^\circ", "90"), ("90", r"90^{\circ}"),
    (r"10\%", "10"), ("2x+1", "y = 2x + 1"), ("y = 2x+1", "2x+1"), ("204", "m+n=204"),
    ("x=1/2", "x = 0.5"),
    (r"\{1,2\}", r"\{2,1\}"), ("1,-2", "x=-2, x=1"), ("1,-2", r"1 \text{ and } {-2}"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"), ("52_8", "52_{8}"), ("033", "33"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3, ∞) \cup (-∞, 2)"), (r"11\sqrt2", "11√2"),
    (r"\text{even}", "Even"),
    (r"3\times10^8\,\mathrm{m}/\mathrm{s}", "3e8"),
    (r"5\text{ m}\text{ s}^{-1}", "5.0"),
    ("0.0000672", r"6.72 \times 10^{-5}"), ("128, 256", "256,128"),
    (r"\begin{pmatrix} -1/3 \\ 2 \end{pmatrix}", r"\begin{bmatrix}-\frac13\\2\end{bmatrix}"),
    ("5", "$5$"), ("5", "5."), ("5", "(5)"), ("5", box("5")), ("-5", "\u22125"),
    ("2i", r"2\mathrm{i}"), (r"6-5\mathrm{i}", "6-5i"), ("2e", r"2\text{e}"),
    ("1,2,3", "1, 2, and 3"), ("1,2,3", r"1, 2, \text{ and } 3"), ("x=1,x=2", r"x=1,\text{ or }x=2"),
    ("1, 2, and 3", "3,2,1"), (r"45\text{ mph}", r"45\text{ miles per hour}"),
    (r"45\text{ miles/hour}", "45 mph"), (r"3\text{ m/s}", r"3\,\mathrm{m}/\mathrm{s}"),
    (r"3\text{ m/s}", r"3\text{ meters per second}"), (r"9.8\text{ m/s}^2", r"9.8\text{ m}/\text{s}^2"),
    (r"60\text{ km/h}", r"60\text{ kilometers per hour}"), (r"4\text{ papers}", r"4\text{ paper}"),
    ("5000000", r"5\text{ million}"), (r"5\text{ million}", "5,000,000"), (r"\$5 million", "5000000"),
    (r"2\text{ thousand dollars}", r"\$2000"), ("2 hundred", "200"), ("1.5 billion", "1500000000"),
    (r"x\ge2", r"x\geqslant 2"), (r"\frac12", r"{1 \over 2}"), (r"\frac12", "½"),
    ("1/3", r"0.\overline{3}"), (r"-\frac16", r"-0.1\overline{6}"), (r"0.\bar{27}", "3/11"),
    # units as people write them
    ("700", r"700^\circ\text{C}"), (r"700\,\mathrm{^\circ C}", "700 °C"), ("700", "700 ° C"),
    ("60", "60 km/h"), (r"60\text{ km/h}", "60 km/h"), ("20", "20 m/s"), (r"9.8\text{ m/s}^2", "9.8 m/s^2"),
    ("5", "5 apples"), (r"5\text{ apples}", "5 Apples"),
    # a rounded reference
    ("0.6666666667", r"\frac{2}{3}"), ("0.6666666667", "0.666667"), ("-0.1666666667", "-1/6"),
    # one set, written in two ways
    (r"(3,\infty)", "x>3"), ("x>3", r"(3,\infty)"), (r"(-\infty,3]", r"a \leq 3"), ("[-1,2)", r"-1\le k<2"),
    (r"[-1,-\frac{1}{2}]", r"-\frac12 \ge k \ge -1"), (r"(3,\infty)", "3 < x"), ("(-1,1)", "1>t>-1"),
    # other spellings
    ("1, 2", "1; 2"), (r"\binom{2n}{n}", r"{2n \choose n}"), ("f^{-1}(x)=2x", "2x"), ("5", r"\approx 5"),
    ("5", r"x \approx 5"), ("5", "≈ 5"), ("5", r"{\bf 5}"), (r"\frac12", r"\mathbf{\frac12}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]")])
def test_equal_answers_are_right_without_the_library(gold, answer):
    assert rules(gold, answer)


WRONG = [
    ("(1,2)", "(2,1)"), ("[0,1)", "(0,1]"), ("12", "1.2"), (r"5 \text{ m}", r"5 \text{ cm}"),
    ("2", "2,3"), ("11_2", "11"), ("11_2", "3"), ("(1,2)", r"\{1,2\}"), ("(1,2)", "1,2"),
    ("1,000", "0,1"), ("12", "1 2"), ("5", "5x"), ("5", "5m"), (r"\text{east}", "seat"),
    ("x=5", "y=5"), ("5", "3=5"), ("1,1,2", "1,2,2"), (r"10\%", "0.1"),
    (r"\$5", r"5 \text{ cents}"), ("1/3", "0.3333333"), (r"\sqrt{51}", "7.141428"),
    (r"\frac{1}{3^{50}}", "0"), ("e", "E"), ("i", "I"), ("e", "2.718281828"), ("0", "1/0"),
    (r"\infty", r"\frac{1}{0}"), (r"\infty", "oo"), (r"\infty", r"-\infty"), ("2", r"\pm 2"),
    ("2", r"2\mathrm{i}"), ("2", r"2\mathrm{e}"), ("5", r"5\text{ million}"), ("1,2,3", "1, 2, or"),
    (r"3\text{ m/s}", r"3\text{ km/h}"), (r"3\text{ m/s}", r"3\text{ m/s}^2"), ("1/3", r"0.\overline{4}"),
    ("0", "x^2-4=0"), ("x+1", "y+1"), ("5", "\u0665"), ("5", "5." + "0" * 99 + "1"), ("5", ""),
    (r"45^\circ C", r"45^\circ F"), ("45", r"45^\circ B"), (r"60\text{ km/h}", "60 m/s"), ("3", "3 fifths"),
    ("5", "5 dozen"), ("5", "5 Thirds"), ("5", "5 pairs"), ("5", "5 minus"), ("2", "2abcde"), ("3", "3xyzab"),
    (r"5\text{ apples}", "5 pears and"), (r"5\text{ apples}", "5 oranges"),
    ("0.000001", "0.0000005"), ("0.000012", "0.0000123"), ("5", "x^{-1}=5"), ("1234", "1; 234"), ("12000", "12;000"),
    ("5", r"x\not\approx 5"), ("(0,1)", "0<e<1"), (r"(3,\infty)", "i>3"), (r"(-\infty,b)", "b>a"), ("(1,2,3)", "1<x<2,3"),
    ("0.6666666667", "0.67"), ("0.6667", r"\frac{2}{3}"), ("0.6666666667", "0.6666661"), ("0.0000001", "0"),
    ("[1,2)", "1<x<2"), ("(1,2)", "1<x>2"), ("3", "x>3"), (r"(3,\infty)", "x<3"), ("(1,2)", "1<2"),
    (r"(3,\infty)", "x>y"), ("(1,2)", "1;2"), ("f(0)+1", "1+f(1)"), ("x^2+10000x", "10000x-x^2")]


@pytest.mark.parametrize("gold, answer", WRONG)
def test_different_answers_are_wrong_even_if_all_that_is_asked_is_answered_by_no(gold, answer):
    assert not rules(gold, answer)


HOSTILE = [
    "{" * 5_000, box("{" * 5_000 + "}" * 5_000), "7" * 10**6, box("7" * 10**6), "{}" * 500_000,
    "\\boxed{" * 150_000, "\\boxed{}" * 100_000, "\\boxed " * 100_000, "\\" * 10**6,
    box("10^{10^{10}}"), box("9^9^9^9"), box("9**9**9**9"), box("(10^9)!"), box("9!!!!"),
    box(r"\frac{1}{0}"), box(r"\frac{1}{" * 25 + "1" + "}" * 25),
    box(r"\sqrt{" * 25 + "2" + "}" * 25),
    box(r"\int_0^1 x^{x^x} dx"), box(r"\sum_{k=1}^{10^9} k"), box(r"\prod_{k=1}^{10^9} k"),
    box(r"\lim_{x\to 0} x"), box(r"\begin{pmatrix}" + "1&" * 10**6 + r"\end{pmatrix}"),
    box(r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{10^9}"), box("__import__('os').system('true')"),
    box("\ud800"), "\ud800" + box("\udfff"), box("5\0"), "\0" * 1_000, box("," * 10_000),
    box("x" + ",x" * 39), box("x" + ",x" * 90), box("\u0665"),
    "\\boxed{" * 2_000 + "5" + "}" * 2_000,
    box("NaN"), box("inf"), box("oo"), box("E"), box("I"), box("S"), box("Q"), box("zoo"),
    box("4." + "9" * 190), box("1e999999999"), box("10^{999999999}"), box("(a+b+c)^{99999}"),
    box(r"\binom{10^9}{5\cdot10^8}"), box(r"\sin(10^{10^9})"), box(r"\{" * 40 + r"\}" * 40),
    box("(" * 90 + "x" + ")" * 90), box("^" * 100), box("x=" * 60 + "5"), box(r"\pm1" * 30)]
GOLDS = ["5", r"3\sqrt{2}", "x^2+1", r"\infty", "(1,2)", "1,2", r"\text{even}"]


def test_hostile_answers_are_wrong_and_fast_without_the_library():
    for gold in GOLDS:
        for reply in HOSTILE:
            began = time.monotonic()
            assert not judge(gold, reply, no_library)[0], (gold, reply[:40])
            assert time.monotonic() - began < 2.5, (gold, reply[:40])


def test_long_texts_take_no_longer_than_their_length():
    for piece in ("5", r"(\begin{array}", "1;", r"x\approx", "[1<", r"5^\circ", "5 km/", r"{\bf", "5 apples"):
        text = piece * (100_000 // len(piece))
        began = time.process_time()
        units.split_unit(normal(text))
        assert time.process_time() - began < 10, piece  # seconds here; the slow ones took hours


def test_any_text_at_all_is_judged():
    rng = random.Random(0)
    pieces = list("0123456789xyeiEI+-*/^_{}()[],.=!|<> \\\n&$%\0\ud800") + [
        "\\frac", "\\sqrt", "\\text{", "\\boxed{", "\\{", "\\}", "\\left", "\\begin{pmatrix}",
        "\\end{pmatrix}", "\\\\", "\\cup", "\\in", "\\pm", "^\\circ", " and ", "cm"]
    for _ in range(3_000):
        one, other = ("".join(rng.choices(pieces, k=rng.randrange(40))) for _ in range(2))
        judge(one, other, no_library), judge(one, box(other), no_library)
        assert open_questions(normal(one), normal(one)) in ([], None)


# ---- the published files ----

def test_the_published_solutions_of_math500_are_right_and_others_are_wrong():
    problems = published("math500_first250")
    assert all(judge(gold, solution, no_library)[0] for _, gold, solution in problems)
    golds = [gold for _, gold, _ in problems]
    wrong = [(gold, other) for i, gold in enumerate(golds) for other in golds[i + 1:i + 4]
             if gold != other and rules(gold, other)]
    assert wrong in ([], [("5", "x=5")])


@pytest.mark.parametrize("name", ["aime24_test", "amc23_test", "svamp_test", "mawps_test",
                                  "gsm8k_test"])
def test_each_published_answer_is_right_in_a_box(name):
    assert all(rules(gold, gold) for _, gold, _ in published(name))


@pytest.mark.parametrize("record, answer", [
    ({"problem": "p", "level": "Level 1", "type": "t", "solution": r"$\boxed{\frac12}$"},
     r"\frac12"),
    ({"problem": "p", "solution": "s", "answer": "2", "subject": "a", "level": 1}, "2"),
    ({"question": "p", "answer": r"It is \boxed{7}. The answer is: 7"}, "7"),
    ({"question": "p", "solution": ["s"], "final_answer": ["$2$"], "unit": None}, "2"),
    ({"question": "p", "final_answer": ["1", "2"], "is_multiple_answer": True}, "1, 2"),
    ({"problem": "p", "answer": 33}, "33"), ({"problem": "p", "answer": "033"}, "033"),
    ({"question": "p", "answer": None, "answer_number": 27}, "27"), ({"problem": "p", "expected_answer": "3"}, "3"),
    ({"question": "p", "choices": [], "answer": 27.0}, "27"), ({"Problem": "p", "Answer": 0.5}, "0.5"),
    ({"question": "p", "answer": "a <<1+1=2>>2\n#### 1,080"}, "1,080"),
    ({"Body": "b", "Question": "q", "Equation": "( 2.0 )", "Answer": 2.0}, "2"),
    ({"input": "p", "target": 7.5}, "7.5")])
def test_every_format_is_read(record, answer):
    assert read_problem(record)[1] == answer


@pytest.mark.parametrize("line, complaint", [
    ('{"solution": "\\\\boxed{1}"}', "no field 'problem'"), ("7", "no object"), ("{", "column"),
    ('{"problem": 5, "answer": 1}', "problem is no text"),
    ('{"problem": "p", "answer": true}', "no text and no number"),
    ('{"problem": "p", "answer": NaN}', "no number"),
    ('{"problem": "p", "answer": {}}', "no text")])
def test_a_malformed_line_is_named_with_its_file(tmp_path, line, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"problem": "p", "answer": 1}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=f"line 3.*{complaint}") as error:
        envs.make("math", data=str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("line, why", [
    ({"problem": "p"}, "no answer"), ({"problem": "p", "solution": "no box"}, "no answer"),
    ({"problem": "p", "final_answer": None}, "no answer"), ({"problem": "p", "answer": "proof"}, "no answer"),
    ({"problem": "p", "answer": "{"}, "in a box"), ({"question": "p", "answer": "#### four"}, "####"),
    ({"question": "p", "choices": ["1", "2"], "answer": 1}, "options to choose from"),
    ({"question": "p", "options": {"A": "1"}, "answer": "A"}, "options to choose from")])
def test_a_problem_without_an_answer_to_compare_with_is_left_out_and_counted(tmp_path, capsys, line, why):
    path = tmp_path / "some.jsonl"
    path.write_text(f'{{"problem": "p", "answer": 1}}\n\n{json.dumps(line)}\n')
    assert read_file(str(path)) == [("p", "1", "")]
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: 1 of 2 problems are left out; the first is line 3: ") and why in said
    path.write_text(json.dumps(line))
    with pytest.raises(ValueError, match="line 1: "):
        read_file(str(path))


def test_a_folder_with_a_file_for_each_problem_or_json_lists(tmp_path, capsys):
    """MATH as it was first published: train/algebra/1.json."""
    for split, first in (("train", 0), ("test", 100)):
        folder = tmp_path / "MATH" / split / "algebra"
        folder.mkdir(parents=True)
        for n in range(first, first + 60):
            text = json.dumps({"problem": f"p {n}", "solution": f"\\boxed{{{n}}}"}, indent=1)
            (folder / f"{n}.json").write_text(text)
    env = envs.make("math", data=str(tmp_path / "MATH"))
    assert env.tasks("test") == 60 and env.tasks("train") + env.tasks("valid") == 60
    for split in ("train", "test"):
        files = (tmp_path / "MATH" / split).rglob("*.json")
        found = [json.loads(file.read_text()) for file in sorted(files)]
        (tmp_path / f"{split}.json").write_text(json.dumps(found))
    assert envs.make("math", data=str(tmp_path)).data == env.data
    (tmp_path / "MATH/test/algebra/150.json").write_text("{")
    with pytest.raises(ValueError, match="test, algebra/150.json|test, line"):
        envs.make("math", data=str(tmp_path / "MATH"))
    (tmp_path / "table.csv").write_text("problem,answer\n1,2\n")
    with pytest.raises(ValueError, match="neither JSON lines nor a JSON list"):
        read_file(str(tmp_path / "table.csv"))


WRONG_VALUES = [None, True, 3, -0.5, float("nan"), 10**400, "", " ", "x", [], [[]], [None], {}]


def test_a_field_of_the_wrong_kind_is_read_or_refused_in_one_line(tmp_path):
    path = tmp_path / "odd.jsonl"
    good = {"problem": "p", "solution": "s", "answer": "2", "final_answer": ["2"], "context": "c"}
    for name in good:
        for value in WRONG_VALUES:
            path.write_text(json.dumps({**good, name: value}) + "\n")
            try:
                assert read_file(str(path))
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_a_list_of_json_a_folder_and_a_missing_file(tmp_path, monkeypatch):
    train = [{"problem": f"p {n}", "answer": n} for n in range(80)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, train[:5])))
    (tmp_path / "train.jsonl").write_text(json.dumps(train, indent=1))
    env = envs.make("math", data=str(tmp_path))
    assert [env.tasks(split) for split in ("train", "test")] == [80 - 5 - env.tasks("valid"), 5]
    with pytest.raises(ValueError, match="MATH_DATA"):
        envs.make("math", data=str(tmp_path / "none.jsonl"))
    monkeypatch.setenv("MATH_DATA", str(tmp_path))
    assert envs.make("math").fingerprint() == env.fingerprint() != ""
    monkeypatch.delenv("MATH_DATA")
    with pytest.raises(ValueError, match="MATH_DATA"):
        envs.make("math")


def test_a_demonstration_ends_in_the_answer_where_the_solution_does_not(small):
    env = envs.make("math", data=small)
    env.answer, env.solution = "7", "so it is 7"
    assert env.demo(random.Random(0), "senior") == ["so it is 7\n\\boxed{7}"]
    env.solution = "so \\boxed{7}."
    assert env.demo(random.Random(0), "senior") == ["so \\boxed{7}."]
    env.solution = ""
    assert env.demo(random.Random(0), "junior") == ["\\boxed{7}"]


def test_without_the_library_what_is_open_is_wrong(monkeypatch, small, capsys):
    monkeypatch.setattr(library, "available", lambda: False)
    library.say_once.cache_clear()
    for _ in range(2):
        envs.make("math", data=small)
    assert capsys.readouterr().err.count("math-verify is not installed") == 1
    assert not judge(r"3\sqrt{2}", box(r"\sqrt{18}"), library.ask)[0]
    assert judge(r"3\sqrt{2}", box(r"3\sqrt2"), library.ask)[0]


# ---- the library ----

@pytest.fixture
def asks():
    pytest.importorskip("math_verify", reason="pip install -e '.[math]'")
    library.asked.cache_clear()
    yield lambda gold, answer: judge(gold, box(answer), library.ask)[0]
    library.stop()


def test_the_library_knows_more_equal_answers(asks):
    for gold, answer in [(r"3\sqrt{2}", r"\sqrt{18}"), ("2x+1", "1+2x"), ("2^{10}", "1024"),
                         ("f(0)+1", "1+f(0)"), ("x^2+10000x", "10000x+x^2"), ("x^2-10201", "(x-101)(x+101)"),
                         ("(a+5)(b+2)", "ab+2a+5b+10"), ("6-5i", "-5i+6"),
                         (r"(3,\frac{\pi}{2})", r"(3,\pi/2)"), ("1, x+1", "1+x, 1"),
                         (r"\cot x", r"\frac{\cos x}{\sin x}"), (r"\frac{\sqrt3}{3}", r"1/\sqrt3")]:
        for _ in range(5):  # two seconds by the clock may be too few on a busy machine
            library.asked.cache_clear()
            if found := asks(gold, answer):
                break
        assert found, (gold, answer)
        assert not rules(gold, answer), "the test of the library needs it"


def test_the_library_makes_no_wrong_answer_right(asks):
    assert not [pair for pair in WRONG if asks(*pair)]


def test_what_never_ends_is_wrong_and_the_next_answer_is_judged(asks):
    assert asks("2x", "x+x")  # the import is over
    for question in ("(10^9)!", r"\binom{10^9}{5*10^8}", "9^{9^{9^9}}"):
        began = time.monotonic()
        assert not library.ask([(["x"], [question])])
        assert time.monotonic() - began < 2.5, question
    assert asks("3x", "x+2x")


def test_a_guard_that_was_killed_is_replaced(asks):
    assert asks("2x", "x+x")
    os.kill(library.library.guard.process.pid, signal.SIGKILL)
    assert asks("3x", "x+2x")


def test_a_copy_a_pickle_and_a_fork_are_judged_too(asks, small):
    env = envs.make("math", data=small)
    env.reset(0, "train")
    env.answer = "2x"
    assert env.step(box("x+x")).info["success"]
    guard = library.library.guard.process.pid
    for other in (copy.copy(env), pickle.loads(pickle.dumps(env))):
        assert other.step(box("3x-x")).info["success"]
    child = os.fork()
    if child == 0:
        right = env.step(box("5x-3x")).info["success"]
        mine = library.library.guard.process.pid != guard
        library.stop()
        os._exit(7 if right and mine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert env.step(box("7x-5x")).info["success"]
    assert library.library.guard.process.pid == guard


def test_the_guard_ends_with_a_trainer_that_was_killed(asks):
    code = ("import os, signal; from envs.math import library\n"
            "assert library.ask([(['2x'], ['x+x'])])\n"
            "print(library.library.guard.process.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)")
    found = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    pid, until = int(found.stdout), time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
