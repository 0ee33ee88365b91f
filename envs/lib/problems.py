"""Files of problems with verified answers, as gsm8k and math read them."""
import os
import sys
from pathlib import Path

from envs import SPLITS, split_of
from envs.lib.text import expect, lines, one_space, read_json, read_jsonl


class NoAnswer(ValueError):
    """A problem whose answer no reply could meet, or none could be judged by: it is left out."""


def records(path):
    """("line 3", what it holds) of JSON lines, ("item 3", ...) of a JSON list, ("algebra/1.json",
    ...) of a folder with a file for each problem."""
    if os.path.isdir(path):
        for file in sorted(Path(path).rglob("*.json")):
            yield str(file.relative_to(path)), read_json(file)
        return
    begin = next((line.strip() for _, line in lines(path) if line.strip()), "")
    if begin.startswith("["):
        found = expect(read_json(path), list, "it")
        yield from ((f"item {number}", record) for number, record in enumerate(found, 1))
    elif begin == "{":  # one problem, over several lines
        yield "item 1", read_json(path)
    elif begin and begin[0].isalpha():
        raise ValueError("neither JSON lines nor a JSON list")
    else:
        yield from ((f"line {number}", record) for number, record in read_jsonl(path))


def read_file(path, records, read_problem, where):
    """-> what read_problem(record) makes of each record of a file: the question first. records:
    path -> ("line 3", record); where: what to say when there is no file. ValueError naming the
    file and the line that is malformed. Problems without an answer are left out, and counted."""
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file; {where}")
    problems, left_out = [], []
    try:
        for place, record in records(path):
            try:
                problems.append(read_problem(record))
            except NoAnswer as error:
                left_out.append(f"{place}: {error}")
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None
    if not problems:
        raise ValueError(f"{path}, {left_out[0]}" if left_out else f"{path}: holds no problems")
    if left_out:
        print(f"{path}: {len(left_out)} of {len(left_out) + len(problems)} problems are left out; "
              f"the first is {left_out[0]}", file=sys.stderr)
    return problems


def read_splits(path, read):
    """A file or a folder -> {split: [problem]}. read: a file's path -> [problem]. What a folder's
    test asks, its train does not."""
    if not os.path.isdir(path):
        found = read(path)
        splits = {split: [p for p in found if split_of(p[0]) == split] for split in SPLITS}
    else:
        test = read(file_of(path, "test"))
        asked = {one_space(problem[0]) for problem in test}
        train = [p for p in read(file_of(path, "train")) if one_space(p[0]) not in asked]
        splits = {"train": [p for p in train if split_of(p[0]) != "valid"],
                  "valid": [p for p in train if split_of(p[0]) == "valid"],
                  "test": test}
    if not all(splits.values()):
        empty = [split for split in SPLITS if not splits[split]]
        raise ValueError(f"{path}: too few problems, no {' and no '.join(empty)} split")
    return splits


def file_of(folder, split):
    """train.jsonl of a folder, or train.json, or the folder train with a file for each problem."""
    paths = [os.path.join(folder, name) for name in (f"{split}.jsonl", f"{split}.json", split)]
    return next((path for path in paths if os.path.exists(path)), paths[0])
