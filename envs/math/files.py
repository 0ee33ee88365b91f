"""Files of mathematics problems as published, read line by line: JSON lines, or one JSON list.

    MATH           {"problem", "level", "type", "solution" with a box}
    MATH-500       {"problem", "solution", "answer", "subject", "level", "unique_id"}
    Minerva        {"problem" or "question", "solution" with a box, "answer" perhaps}
    OlympiadBench  {"question", "solution": [...], "final_answer": [...], ...}
    AIME, AMC      {"problem" or "question", "answer": a text or a number, "solution" perhaps}
                   (also "expected_answer", OpenMath, and "answer_number", MGSM)
    GSM8K, SVAMP, ASDiv, MAWPS     as envs/gsm8k.py reads them

Each becomes (problem, answer, solution); the solution is "" where the file has none. A problem
without an answer to compare with (a proof), or with options to choose from, is left out.
"""
from decimal import Decimal

from envs import gsm8k
from envs.lib import problems
from envs.lib.text import expect, texts
from envs.math.answers import last_box, normal

WHERE = ("get the published jsonl of MATH, AIME, AMC, Minerva, OlympiadBench, DeepScaleR, GSM8K, "
         "SVAMP or MAWPS and pass --data PATH, or set MATH_DATA")


ANSWERS = ("final_answer", "answer", "expected_answer", "answer_number")
NO_ANSWER = {"proof", "notfound", "not found", "none", "n/a"}


# ---- a record ----

def read_problem(record):
    """A record of any format -> (problem, answer, solution). ValueError when it is none."""
    record = {name.lower(): value for name, value in expect(record, dict, "it").items()}
    if {"body", "input", "squestion"} & record.keys() or "####" in str(record.get("answer")):
        return word_problem(record)
    problem = first_text(record, "problem", "question")
    if context := first_text(record, "context"):
        problem = f"{context}\n{problem}"
    if not problem:
        raise ValueError("no field 'problem' and no field 'question'")
    solution, answer = solution_of(record), answer_of(record)
    if last_box(answer) is not None:  # the field "answer" is a whole solution
        solution, answer = answer, ""
    answer = answer or (last_box(solution) or "").strip()
    if any(record.get(name) for name in ("options", "choices")):
        raise problems.NoAnswer("it has options to choose from, and only free answers are read")
    check(answer)
    return problem, answer, solution


def word_problem(record):
    """GSM8K, SVAMP, ASDiv, MAWPS. The calculator marks <<48/2=24>> are taken out."""
    question, solution = gsm8k.read_problem(record)
    work, _, answer = gsm8k.MARK.sub("", solution).rpartition("####")
    answer = answer.strip().removesuffix(".0")
    check(answer)
    return question, answer, work.strip()


def first_text(record, *names):
    """The first of these fields that is there and not empty."""
    for name in names:
        if record.get(name) not in (None, ""):
            return expect(record[name], str, name).strip()
    return ""


def solution_of(record):
    """A text, or the first of a list of texts; "" when there is none."""
    if isinstance(record.get("solution"), list):
        return "".join(texts(record["solution"], "solution")[:1]).strip()
    return first_text(record, "solution")


def answer_of(record):
    """A text, a number, or a list of them; "" when there is none."""
    value = next((record[name] for name in ANSWERS if record.get(name) not in (None, "", [])), "")
    parts = value if isinstance(value, list) else [value]
    return ", ".join(answer_text(part) for part in parts)


def answer_text(value):
    """"$x$" -> "x"; 27.0 -> "27"."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("the answer is no text and no number")
    if isinstance(value, str):
        value = value.strip()
        inner = value[1:-1]
        return inner if value[:1] == value[-1:] == "$" and inner and "$" not in inner else value
    if not abs(value) < 1e100:  # NaN too
        raise ValueError("the answer is no number of a sensible size")
    return f"{Decimal(repr(value)):f}".removesuffix(".0")


def check(answer):
    """A reference that no reply could meet is none."""
    if not answer or answer.lower() in NO_ANSWER:
        raise problems.NoAnswer("no answer, and no solution with one in \\boxed{}")
    if not normal(answer) or last_box(f"\\boxed{{{answer}}}") != answer:
        raise problems.NoAnswer(f"the answer cannot stand in a box: {answer[:40]!r}")


def read_file(path):
    """[(problem, answer, solution)]. ValueError naming the file and the line that is malformed."""
    return problems.read_file(path, problems.records, read_problem, WHERE)
