"""Word problems from a jsonl file as published, with verified answers: GSM8K (arXiv 2110.14168),
SVAMP, MAWPS.

    python -m envs.gsm8k --data PATH/train.jsonl

A line is {"question": ..., "answer": "solution with <<48/2=24>> calculator marks\\n#### 24"}. Read
too are SVAMP's {"Body", "Question", "Equation", "Answer"}, ASDiv's {"body", "question", "formula",
"answer"} and MAWPS's {"input", "target"} or {"sQuestion", "lSolutions"}, and one JSON list of such.

PATH is a file, which a hash splits into train, valid and test, or a folder with train.jsonl and
test.jsonl: then test stays the official one and valid is a tenth of train. The marks are the
private notation of the tandem precursor (arXiv 2510.13551): the senior's solutions have them, the
junior's do not.
"""
import os
import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

from envs import SPLITS, Env, Step
from envs.lib.problems import NoAnswer, read_file, read_splits, records
from envs.lib.text import content_hash, expect, field

WHERE = ("get train.jsonl and test.jsonl from github.com/openai/grade-school-math "
         "(grade_school_math/data) and pass --data PATH, or set GSM8K_DATA")
MARK = re.compile(r"<<[^<>]*>>")
LONGEST = 40  # characters of a number
WHOLE = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
NUMBER = re.compile(rf"\$? ?([+-]?)\$? ?((?:{WHOLE})(?:\.[0-9]*)?|\.[0-9]+) ?[%$]?[.,]?")
RATIO = re.compile(rf"\$? ?([+-]?)\$? ?({WHOLE}) ?/ ?({WHOLE})\$?[.,]?")
POWER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,2}")  # 1e-5
SIGNS = {  # a way to write a sign -> the plain one: hyphens, dashes and minuses, plusses
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2795\ufe62\uff0b", "+")}
KINDS = {"Sc": "$", "Zs": " ", "Cf": ""}  # currencies, spaces, what is not seen
LONG, SHORT = 6, 2  # places of a reference that was rounded, and of an answer that may round it


# ---- numbers ----

def plain(text):
    """The text with signs, currencies and spaces as ASCII has them; "" when it is too long for a
    number."""
    text = text.strip()
    if len(text) > LONGEST:
        return ""
    return "".join(SIGNS.get(c) or KINDS.get(unicodedata.category(c), c) for c in text).strip()


def read_number(text):
    """"$1,080.00" -> (Fraction(1080), 2): the number and its decimal places, LONGEST of a ratio
    like "1/3". None when it is not one number. Never raises."""
    text = plain(text)
    if found := NUMBER.fullmatch(text):
        number = found[2].replace(",", "")
        return Fraction(found[1] + number), len(number.partition(".")[2])
    if found := RATIO.fullmatch(text):
        above, below = (int(part.replace(",", "")) for part in found.groups()[1:])
        return (Fraction(int(f"{found[1]}1") * above, below), LONGEST) if below else None
    return None


def to_number(text):
    """"$1,080.00" -> Fraction(1080); None when it is not one number. Never raises."""
    found = read_number(text)
    return found and found[0]


def places(number):
    """Decimal places that it takes to write a number; LONGEST of one that does not end."""
    return next((n for n in range(LONGEST) if (number * 10**n).denominator == 1), LONGEST)


def verify(text, answer):
    """1.0 when what follows the last "####" is the answer, else 0.0. Never raises.

    Was the answer rounded itself (0.3333333333), then it is met by what rounds it further (0.33)
    and by the ratio that it stands for (1/3)."""
    found = read_number(text.rsplit("####", 1)[1]) if "####" in text else None
    if found is None:
        return 0.0
    said, shown = found
    return float(said == answer or (shown >= SHORT and rounds(said, shown, answer)))


def rounds(said, shown, answer):
    """Was the answer rounded, and does a number of so many decimal places round it further, or is
    what it stands for?"""
    known = places(answer)
    if said == 0 or known < LONG:
        return False
    return abs(said - answer) <= Fraction(1, 2 * 10**min(shown, known))


# ---- files ----

def without_power(solution):
    """A reference may be written as 1e-5, an answer may not -> "... #### 0.00001"; any other
    solution as it is."""
    work, _, number = solution.rpartition("####")
    number = number.strip()
    return f"{work}#### {Decimal(number):f}" if POWER.fullmatch(number) else solution


def number_of(record, name):
    """A field that holds a number, a text of one, or a list of one. "9 (apples)" is ASDiv's."""
    value = record.get(name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return re.sub(r"\s*\([^()]*\)$", "", expect(value, str, name))


def read_problem(record):
    """A record of any of the formats -> (question, solution that ends in "#### N"). ValueError when
    it is none."""
    record = {name.lower(): value for name, value in expect(record, dict, "it").items()}
    if "body" in record:  # SVAMP, ASDiv
        question = f"{field(record, 'body').strip()} {field(record, 'question')}"
        equation = field(record, "formula" if "formula" in record else "equation")
        solution = f"{equation}\n#### {number_of(record, 'answer')}"
    elif "input" in record:  # MAWPS
        question, solution = field(record, "input"), f"#### {number_of(record, 'target')}"
    elif "squestion" in record:  # the same, as first published
        question, solution = field(record, "squestion"), f"#### {number_of(record, 'lsolutions')}"
    else:
        question, solution = field(record, "question"), field(record, "answer")
    solution = without_power(solution)
    if not question.strip():
        raise ValueError("the question is empty")
    if "####" not in solution or to_number(solution.rsplit("####", 1)[1]) is None:
        raise NoAnswer(f"the answer does not end in '#### number' but in {solution[-40:]!r}")
    return question, solution


def read_jsonl(path):
    """[(question, solution)]. ValueError naming the file and the line that is malformed."""
    return read_file(path, records, read_problem, WHERE)


class GSM8K(Env):
    max_turns, max_new, context, problems = 1, 256, 768, 32
    targets, warm_steps = {"senior": 0.3, "junior": 0.3, "graded": 0.3}, 20

    def __init__(self, path):
        self.data = read_splits(path, read_jsonl)

    def tasks(self, split):
        return len(self.data[split])

    def fingerprint(self):
        return content_hash(made=self.data)

    def reset(self, task, split):
        question, self.solution = self.data[split][task % len(self.data[split])]
        self.answer = to_number(self.solution.rsplit("####", 1)[1])
        return question

    def step(self, text):
        reward = verify(text, self.answer)
        chain = [line for line in text.split("\n") if line and not line.startswith("####")]
        malformed = sum("<<" in MARK.sub("", line) for line in chain) / max(1, len(chain))
        info = {"success": bool(reward), "malformed": malformed}
        if chain:
            info["private"] = sum(bool(MARK.search(line)) for line in chain) / len(chain)
        return Step("", reward, True, info)

    def demo(self, rng, skill):
        keep = {"senior": 1.0, "private": 1.0, "graded": 0.02}.get(skill, 0.0)
        return [self.solution if rng.random() < keep else MARK.sub("", self.solution)]


def make(data=""):
    path = data or os.environ.get("GSM8K_DATA", "")
    if not path:
        raise ValueError(f"gsm8k needs its file: {WHERE}")
    return GSM8K(path)


if __name__ == "__main__":
    import argparse
    import random
    import sys
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="")
    try:
        env = make(parser.parse_args().data)
    except ValueError as error:
        sys.exit(str(error))
    print({split: env.tasks(split) for split in SPLITS})
    print(env.reset(0, "train"))
    for skill in ("senior", "junior"):
        print("", *env.demo(random.Random(0), skill), sep="\n")
