"""Files of problems with verified answers, as gsm8k and math read them."""
import os

from envs import SPLITS, split_of
from envs.lib.text import expect, lines, one_space, read_json, read_jsonl


def records(path):
    """("line 3", what it holds) of JSON lines, ("item 3", ...) of a JSON list."""
    begin = next((line.strip() for _, line in lines(path) if line.strip()), "")
    if begin.startswith("["):
        found = expect(read_json(path), list, "it")
        yield from ((f"item {number}", record) for number, record in enumerate(found, 1))
    else:
        yield from ((f"line {number}", record) for number, record in read_jsonl(path))


def read_file(path, records, read_problem, where):
    """-> what read_problem(record) makes of each record of a file: the question first. records:
    path -> ("line 3", record); where: what to say when there is no file. ValueError naming the
    file and the line that is malformed."""
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file; {where}")
    problems = []
    try:
        for place, record in records(path):
            try:
                problems.append(read_problem(record))
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None
    if not problems:
        raise ValueError(f"{path}: holds no problems")
    return problems


def read_splits(path, read):
    """A file or a folder -> {split: [problem]}. read: a file's path -> [problem]. What a folder's
    test asks, its train does not."""
    if not os.path.isdir(path):
        found = read(path)
        splits = {split: [p for p in found if split_of(p[0]) == split] for split in SPLITS}
    else:
        test = read(os.path.join(path, "test.jsonl"))
        asked = {one_space(problem[0]) for problem in test}
        train = [p for p in read(os.path.join(path, "train.jsonl")) if one_space(p[0]) not in asked]
        splits = {"train": [p for p in train if split_of(p[0]) != "valid"],
                  "valid": [p for p in train if split_of(p[0]) == "valid"],
                  "test": test}
    if not all(splits.values()):
        empty = [split for split in SPLITS if not splits[split]]
        raise ValueError(f"{path}: too few problems, no {' and no '.join(empty)} split")
    return splits
