"""Word problems from a jsonl file as published, with verified answers: GSM8K (arXiv 2110.14168),
SVAMP, MAWPS.

    python -m envs.gsm8k --data PATH/train.jsonl

A line is {"question": ..., "answer": "solution with <<48/2=24>> calculator marks\\n#### 24"};
SVAMP's {"Body", "Question", "Equation", "Answer"} and MAWPS's {"input", "target"} are read too.

PATH is a file, which a hash splits into train, valid and test, or a folder with train.jsonl and
test.jsonl: then test stays the official one and valid is a tenth of train. The marks are the
private notation of the tandem precursor (arXiv 2510.13551): the senior's solutions have them, the
junior's do not.
"""
import json
import os
import re
from fractions import Fraction

from envs import SPLITS, Env, Step, split_of

WHERE = ("get train.jsonl and test.jsonl from github.com/openai/grade-school-math "
         "(grade_school_math/data) and pass --data PATH, or set GSM8K_DATA")
MARK = re.compile(r"<<[^<>]*>>")
NUMBER = re.compile(r"\$? ?(-?)\$? ?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+) ?%?\.?")


def to_number(text):
    """"$1,080.00" -> Fraction(1080); None when it is not one number. Never raises."""
    short = len(text) <= 40 and text.isascii()
    found = NUMBER.fullmatch(text.strip()) if short else None
    return Fraction(found[1] + found[2].replace(",", "")) if found else None


def verify(text, answer):
    """1.0 when what follows the last "####" is the answer, else 0.0. Never raises."""
    found = to_number(text.rsplit("####", 1)[1]) if "####" in text else None
    return float(found is not None and found == answer)


def read_problem(record):
    """A record of any of the three formats -> (question, solution that ends in "#### N"). KeyError,
    ValueError or TypeError when it is none."""
    if "Body" in record:  # SVAMP
        question = f"{record['Body'].strip()} {record['Question']}"
        solution = f"{record['Equation']}\n#### {record['Answer']}"
    elif "input" in record:  # MAWPS
        question, solution = record["input"], f"#### {record['target']}"
    else:
        question, solution = record["question"], record["answer"]
    answer = to_number(solution.rsplit("####", 1)[-1])
    if not isinstance(question, str) or not verify(solution, answer):
        raise ValueError("the answer does not end in '#### number'")
    return question, solution


def read_jsonl(path):
    """[(question, solution)]. ValueError naming the file and the line that is malformed."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")  # not splitlines(): a question may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}; {WHERE}") from None
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            problems.append(read_problem(json.loads(line)))
        except KeyError as error:
            raise ValueError(f"{path}, line {number}: no field {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not problems:
        raise ValueError(f"{path}: holds no problems")
    return problems


def read_splits(path):
    """A file or a folder -> {split: [(question, solution)]}"""
    if not os.path.isdir(path):
        problems = {s: [] for s in SPLITS}
        for question, solution in read_jsonl(path):
            problems[split_of(question)].append((question, solution))
        return problems
    train = read_jsonl(os.path.join(path, "train.jsonl"))
    return {"train": [p for p in train if split_of(p[0]) != "valid"],
            "valid": [p for p in train if split_of(p[0]) == "valid"],
            "test": read_jsonl(os.path.join(path, "test.jsonl"))}


class GSM8K(Env):
    max_turns, max_new, context, problems = 1, 256, 768, 32
    targets, warm_steps = {"senior": 0.3, "junior": 0.3, "graded": 0.3}, 20

    def __init__(self, path):
        self.data = read_splits(path)
        if not all(self.data.values()):
            empty = [s for s in SPLITS if not self.data[s]]
            raise ValueError(f"{path}: too few problems, no {' and no '.join(empty)} split")

    def tasks(self, split):
        return len(self.data[split])

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
