"""Numbers as people write them: what counts as the answer, what a reference may be, and which
problems a folder's train keeps."""
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest

import envs
from conftest import REPO
from envs.gsm8k import read_jsonl, read_problem, read_splits, to_number, verify

MATH = Path(os.environ.get("GSM8K_DATA") or REPO.parent / "shared/data/math")


@pytest.mark.parametrize("text", [
    "1080\n", "1080\n\n\n", "1080" + "\n" * 500, " 1080 \t\r\n", "\u00a01080\u00a0", "1080\u202f",
    "1080\u3000", "\u20091080", "1080" + " " * 100, "1080\u200b", "\ufeff1080", "+1080", "+ 1080",
    "\uff0b1080", "€1,080", "£1080", "¥1,080", "₹1080", "€ 1080", "€\u00a01080", "1080 €", "1080€",
    "+$1,080", "$+1080", "1,080,", "1080,", "$1,080.00,", "1080%", "1080 %", "1080\u00a0%",
    "1080%.", "1080.", "2160/2", "$1080/1", "1,080/1"])
def test_a_right_answer_scores_1_however_it_is_written(text):
    assert verify(f"so\n#### {text}", Fraction(1080)) == 1.0
    assert verify(f"so\n#### {text}", Fraction(1081)) == 0.0


@pytest.mark.parametrize("minus", "-\u2010\u2011\u2012\u2013\u2014\u2212\u2796\ufe63\uff0d")
def test_every_minus_is_one(minus):
    for text in (f"{minus}12", f"{minus}$12", f"${minus}12", f"{minus} 12", f"{minus}24/2"):
        assert verify(f"#### {text}", Fraction(-12)) == 1.0
        assert verify(f"#### {text}", Fraction(12)) == 0.0
    assert to_number(f"{minus}{minus}3") is None


@pytest.mark.parametrize("text", [
    "10,80", "--3", "+-3", "-+3", "1e3", "1E3", "3 4", "3\n4", "3\u00a04", "3\u202f4", "5 apples",
    "1,2", "1,,080", "12,,", "1/0", "0/0", "1/2/3", "1//2", "/2", "1/", "1/2 3/4", "1 1/2", "½",
    "１２", "٣", "€", "$", "+", "-", ",", "3-4", "3€4", "0x10", "1_000", "inf", "nan", "9" * 41])
def test_what_is_not_one_number_stays_refused(text):
    assert to_number(text) is None
    assert verify(f"#### {text}", Fraction(3)) == verify(f"#### {text}", Fraction(34)) == 0.0


@pytest.mark.parametrize("reference, right, wrong", [
    ("0.3333333333", "0.33 0.333 0.3333333333 1/3 2/6 .33 0.33, 0.33333333333333",
     "0.3 0.34 0.32 0.330 333/1000 1/2 33.33 -0.33 0 0.00"),
    ("10.6666666667", "10.67 10.6667 32/3 64/6 10.666666666666667", "10.66 10.7 11 10 32/4"),
    ("-0.6666666667", "-0.67 -2/3 −0.667", "0.67 2/3 -0.66"),
    ("1.234567", "1.23 1.2346 1.234567", "1.2 1.24 1.2345 1"),
    ("0.000001", "0.000001 1/1000000", "0.00 0.000 0 0.01"),
    ("7.000000", "7 7.0 7.000", "7.001 7.01 6.999"),
    ("0.33333", "0.33333 .33333", "0.33 1/3"),  # five places: it says what it means
    ("0.5", "0.5 1/2 .50 2/4", "0.50001 0.51 1"), ("1/2", "0.5 1/2", "0.51 2"),
    ("2/3", "2/3 0.67 0.6667 4/6", "0.66 0.7 0.6"), ("+3", "3 +3 3.0", "-3"),
    ("1e-5", "0.00001 1/100000", "0 0.00 1e-5"), ("1.5e3", "1500 1,500", "1.5 15")])
def test_a_long_decimal_is_met_by_its_rounding_and_its_fraction(reference, right, wrong):
    _, solution = read_problem({"input": "?", "target": reference})
    answer = to_number(solution.rsplit("####", 1)[1])
    assert verify(solution, answer) == 1.0  # a demonstration wins
    assert all(verify(f"#### {text}", answer) == 1.0 for text in right.split())
    assert all(verify(f"#### {text}", answer) == 0.0 for text in wrong.split())


@pytest.mark.parametrize("target, plain", [
    (1e-5, "0.00001"), (1e22, "1" + "0" * 22), ("1e-5", "0.00001"), ("1E+3", "1000"),
    ("-2.5e-2", "-0.025"), ("+3", "+3"), ("1/2", "1/2"), (7.0, "7.0"), (7, "7"), (" 7 ", " 7 ")])
def test_references_are_numbers_in_more_ways(target, plain):
    assert read_problem({"input": "?", "target": target}) == ("?", f"#### {plain}")
    assert read_problem({"question": "?", "answer": f"so\n#### {target}"})[1].endswith(plain)
    assert read_problem({"Body": "a", "Question": "?", "Equation": "x", "Answer": target})


def with_target(path, target):
    lines = [{"input": "?", "target": 1}, {"input": "?", "target": target}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("target", [
    "5 apples", "five", "", "1e999999999", "1e99", 1e300, float("nan"), float("inf"), "1/0", "3 4", "10,80"])
def test_a_reference_that_is_no_number_is_left_out_and_named(target, tmp_path, capsys):
    path = with_target(tmp_path / "m.jsonl", target)
    assert read_jsonl(path) == [("?", "#### 1")]
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: 1 of 2 problems are left out; the first is line 2: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("target", [None, True, []])
def test_a_reference_of_another_kind_is_refused_with_file_and_line(target, tmp_path):
    path = with_target(tmp_path / "m.jsonl", target)
    with pytest.raises(ValueError) as error:
        read_jsonl(path)
    assert str(error.value).startswith(f"{path}, line 2: ") and "\n" not in str(error.value)


def test_train_has_no_question_of_test(tmp_path):
    def line(asked):
        return json.dumps({"question": asked, "answer": "#### 1"}) + "\n"
    asked = [f"How many are {i}?" for i in range(60)]
    (tmp_path / "test.jsonl").write_text("".join(map(line, asked[:20])))
    again = [f" How  many are {i}?\n" for i in range(10)] + asked[10:]
    (tmp_path / "train.jsonl").write_text("".join(map(line, again)))
    found = {split: [q for q, _ in problems]
             for split, problems in read_splits(str(tmp_path), read_jsonl).items()}
    assert found["test"] == asked[:20]
    assert sorted(found["train"] + found["valid"]) == sorted(asked[20:])
    assert all(envs.split_of(q) == "valid" for q in found["valid"])


def test_every_rounded_answer_of_mawps_can_be_won():
    path = MATH / "mawps_test.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}")
    long = [text.split("####")[1].strip() for _, text in read_jsonl(str(path))
            if len(text.rpartition(".")[2]) >= 6]
    assert len(long) == 58
    for text in long:
        nearest = Fraction(text).limit_denominator(100)
        for said in (f"{float(text):.2f}", f"{float(text):.3f}", str(nearest)):
            assert verify(f"#### {said}", Fraction(text)) == 1.0, (text, said)
