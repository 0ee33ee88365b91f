"""Question sets and corpora as published, read by what a file holds, and the scores of an answer.

    set         what a record looks like
    HotpotQA    {"_id", "question", "answer", "type", "supporting_facts": [[title, i]],
                "context": [[title, [sentence]]]}; 2WikiMultihopQA the same; or as columns
                (Hugging Face) {"context": {"title": [], "sentences": [[]]},
                "supporting_facts": {"title": []}}
    MuSiQue     {"question", "answer", "answer_aliases",
                "paragraphs": [{"title", "paragraph_text", "is_supporting"}]}
    TriviaQA    {"Data": [{"Question", "Answer": {"Value", "Aliases"},
                "SearchResults": [{"Title", "Description"}]}]}
    NQ-open     {"question", "answer": []}
    FlashRAG, Search-R1     {"question", "golden_answers": []}; what FlashRAG puts into "metadata"
                (type, context, supporting_facts) counts as the record's own
    SimpleDeepSearcher      {"Question", "answer": []}
    PopQA       {"question", "possible_answers": "a json list"}
    EVOUNA      {"question", "golden_answer": "one/another"}; a slash inside brackets parts nothing,
                any other does: "AC/DC" is read as two answers, which nothing in the file tells
                apart, and as itself
    Bamboogle   {"Question", "Answer"}
    ReAct's HotpotQA        {"question", "answer", "type"}
    a corpus    {"title", "text"}, or {"contents": "\\"title\\"\\ntext"}

A file is a json list, an object with "Data", json lines, or a table (tsv or csv) with names in its
first line. Exact match and F1 are those of the HotpotQA evaluation (arXiv 1809.09600), which are
SQuAD's (arXiv 1606.05250) but for "yes" and "no".
"""
import collections
import csv
import os
import re
import string
import sys
import unicodedata

from envs import SPLITS, split_of
from envs.lib.text import (cleaned, expect, field, lines, one_space, optional, parse_json,
                           read_json, read_jsonl, texts)

# titles: of the passages that the answer takes, where they are known
Question = collections.namedtuple("Question", "text answers family titles passages")
ANSWERS = ("golden_answers", "possible_answers", "golden_answer", "answers", "answer", "Answer")
KINDS = (".json", ".jsonl", ".tsv", ".csv")
# a word of a file's name -> split
WORDS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
         "eval": "valid", "test": "test"}
CORPORA = ("corpus", "wiki-18", "wiki18", "psgs_w100")  # a word of it in its name: a corpus
FLASH = ("type", "context", "supporting_facts")  # of a record's metadata
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
LISTED = re.compile(rf"\[\s*(?:{QUOTED})(?:[\s,]*(?:{QUOTED}))*\s*\]")  # a Python list in a table
PUNCTUATION = str.maketrans("", "", string.punctuation)


# ---- scores ----

def normalise(text):
    """SQuAD: lower case, no ASCII punctuation, no articles, single spaces."""
    text = unicodedata.normalize("NFC", text).lower().translate(PUNCTUATION)
    return one_space(re.sub(r"\b(?:a|an|the)\b", " ", text))


def compared(said, answer):
    """Both in the form in which they are compared: normalised. Where that leaves nothing of the
    answer ("A", "!!!"), they are as they stand, but for case: else a full stop would win."""
    if normalise(answer):
        return normalise(said), normalise(answer)
    return tuple(one_space(unicodedata.normalize("NFC", text).lower()) for text in (said, answer))


def exact_match(said, answer):
    said, answer = compared(said, answer)
    return float(said == answer)


def f1(said, answer):
    """Of the words that both have. A yes, no or noanswer is right as a whole or not at all."""
    said, answer = compared(said, answer)
    if said == answer:
        return 1.0
    if {said, answer} & {"yes", "no", "noanswer"}:
        return 0.0
    said, answer = said.split(), answer.split()
    common = (collections.Counter(said) & collections.Counter(answer)).total()
    return 2 * common / (len(said) + len(answer)) if common else 0.0


# ---- records ----

def records(path):
    """The records (dicts) of a file of any kind, json lines and tables one at a time. ValueError
    naming file, line and record."""
    number = 0
    try:
        for number, record in enumerate(raw_records(path), 1):
            yield expect(record, dict, "it")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, after record {number}: {error}") from None


def raw_records(path):
    first = next((line.strip() for _, line in lines(path) if line.strip()), "")
    if not first.startswith(("{", "[")):
        csv.field_size_limit(10**8)
        rows = (line for _, line in lines(path))
        for row in csv.DictReader(rows, delimiter="\t" if "\t" in first else ","):
            yield cleaned(row)
    elif first.startswith("{") and is_json(first):
        for _, value in read_jsonl(path):
            yield from expanded(value)
    else:
        yield from expanded(read_json(path))


def is_json(line):
    try:
        parse_json(line)
        return True
    except ValueError:
        return False


def expanded(value):
    if isinstance(value, dict) and "Data" in value:
        return field(value, "Data", list)
    return value if isinstance(value, list) else [value]


# ---- questions ----

def answers_of(record):
    """All that counts as right, in the order of the file."""
    name = next((name for name in ANSWERS if name in record), None)
    if name is None:
        raise ValueError("no field 'answer'")
    value = record[name]
    if name == "possible_answers" and isinstance(value, str):
        value = parse_json(value)
    elif name == "golden_answer":
        value = [*apart(field(record, name)), value]
    elif isinstance(value, dict):  # TriviaQA
        value = {k.lower(): v for k, v in value.items()}
        value = [field(value, "value"), *optional(value, "aliases", list)]
    if isinstance(value, str) and LISTED.fullmatch(value.strip()):
        value = [re.sub(r"\\(.)", r"\1", text[1:-1]) for text in re.findall(QUOTED, value)]
    value = value if isinstance(value, list) else [value]
    value = value + optional(record, "answer_aliases", list)
    if not all(part is None or isinstance(part, (str, int, float)) for part in value):
        raise ValueError(f"{name} is neither a text nor a list of texts")
    value = [("no", "yes")[part] if isinstance(part, bool) else part for part in value]
    found = [one_space(str(part)) for part in value if part not in (None, "<unk>")]
    return tuple(dict.fromkeys(filter(None, found)))


def apart(text):
    """"one/another (a/b)" -> ["one", "another (a/b)"]"""
    return re.findall(r"(?:\([^()]*\)|\[[^][]*\]|[^/])+", text)


def passages_of(record):
    """[(title, text)] that come with a question."""
    context = record.get("context") or []
    context = parse_json(context) if isinstance(context, str) else context
    if isinstance(context, dict):
        bodies = field(context, "sentences" if "sentences" in context else "content", list)
        context = list(zip(field(context, "title", list), bodies, strict=True))
    found = [pair(passage) for passage in expect(context, list, "context")]
    for part in optional(record, "paragraphs", list):
        found.append((field(part, "title"), field(part, "paragraph_text")))
    for part in optional(record, "SearchResults", list):
        if optional(expect(part, dict, "a search result"), "Description"):
            found.append((field(part, "Title"), part["Description"]))
    return [(one_space(title), one_space(text)) for title, text in found]


def pair(passage):
    """[title, text] or [title, [sentence]] -> (title, text)"""
    if not isinstance(passage, (list, tuple)) or len(passage) != 2:
        raise ValueError("a part of context is not a title and its sentences")
    title, text = passage
    text = " ".join(texts(text, "context")) if isinstance(text, list) else text
    return expect(title, str, "a title of context"), expect(text, str, "a text of context")


def titles_of(record):
    """Of the passages that the answer takes."""
    facts = record.get("supporting_facts") or []
    facts = parse_json(facts) if isinstance(facts, str) else facts
    if isinstance(facts, dict):
        found = texts(field(facts, "title", list), "supporting_facts")
    else:
        facts = expect(facts, list, "supporting_facts")
        if not all(isinstance(fact, list) and fact for fact in facts):
            raise ValueError("a part of supporting_facts is not a title and a number")
        found = texts([fact[0] for fact in facts], "supporting_facts")
    paragraphs = optional(record, "paragraphs", list)
    found = found + [p["title"] for p in paragraphs if p.get("is_supporting")]
    return tuple(dict.fromkeys(map(one_space, found)))


def question_of(record, family):
    """ValueError when it is none."""
    if isinstance(record.get("metadata"), dict):  # FlashRAG
        own = {name: record["metadata"].get(name) for name in FLASH}
        record = {**own, **record}
    if not {"question", "Question"} & record.keys() and {"contents", "text"} & record.keys():
        raise ValueError("it is a passage and no question: set SEARCHQA_CORPUS to this file")
    text = one_space(field(record, "question" if "question" in record else "Question"))
    answers = answers_of(record)
    if not text or not answers:
        raise ValueError("a question or its answer is empty")
    family = str(record.get("type") or record.get("source") or family)
    passages = passages_of(record)
    return Question(text, answers, family, titles_of(record), passages)


def read_questions(path):
    """A file -> [Question]. ValueError in one line."""
    found, family = [], set_name(path)
    for number, record in enumerate(records(path), 1):
        if record.get("answerable") is False:  # MuSiQue's full set
            continue
        try:
            found.append(question_of(record, family))
        except ValueError as error:
            raise ValueError(f"{path}, record {number}: {error}") from None
    if not found:
        raise ValueError(f"{path}: holds no questions")
    return found


def set_name(path):
    """"data/nq_open_dev.jsonl" -> "nq_open", and so is "nq_open/dev.jsonl": what its questions are
    called that have no type."""
    folder, stem = os.path.split(os.path.splitext(os.path.abspath(path))[0])
    words = [word for word in re.split("[-_.]", stem) if word not in WORDS]
    return "_".join(words) or os.path.basename(folder)


def split_in_name(path):
    """"hotpot_dev_distractor_v1.json" -> "valid"; None when a file's name says nothing."""
    words = re.findall("[a-z]+", os.path.basename(path).lower())
    return next((WORDS[word] for word in words if word in WORDS), None)


def keeps_back(path):
    """Is it a published test file without answers? Its first record tells."""
    if split_in_name(path) != "test":
        return False
    first = next(records(path), None)
    try:
        return first is not None and not answers_of(first)
    except ValueError:
        return not any(first.get(name) for name in ANSWERS)


def questions_of(folder):
    """Its files of questions that have answers. ValueError where there is none."""
    files = files_of(folder, corpus=False)
    closed = [file for file in files if keeps_back(file)]
    for file in closed:
        print(f"searchqa: {file} has no answers and is left out", file=sys.stderr)
    if len(closed) == len(files):
        raise ValueError(f"{folder}: holds no question files with answers ({' '.join(KINDS)})")
    return [file for file in files if file not in closed]


def read_splits(path):
    """A file or a folder -> {split: [Question]}, no question twice. Where every file of a folder
    names its split and there is a train, they stay as they are; train gives a tenth for a valid
    that is missing, and a lone valid is the test. Else by hash of the question. A test file without
    answers is left out."""
    files = questions_of(path) if os.path.isdir(path) else [path]
    names = [split_in_name(file) for file in files]
    official = "train" in names and len(set(names)) > 1 and None not in names
    if not official and len(set(names)) > 1:
        stray = [os.path.basename(file) for name, file in zip(names, files) if name is None]
        why = f"{stray[0]} names none" if stray else "no file is called train"
        print(f"searchqa: {path}: the splits in the files' names do not count, because {why}; "
              "a hash of each question decides", file=sys.stderr)
    # What is called dev is our test where there is no other.
    lone = official and "test" not in names
    tenth = lone or "valid" not in names  # of train, for valid
    splits, seen = {split: [] for split in SPLITS}, set()
    # Train comes last: it loses what others have too.
    for name, file in sorted(zip(names, files), key=lambda pair: pair[0] == "train"):
        for question in read_questions(file):
            split = split_of(question.text)
            if official and name != "train":
                split = "test" if lone else name
            elif official and not (tenth and split == "valid"):
                split = "train"
            if question.text not in seen:
                seen.add(question.text)
                splits[split].append(question)
    return splits


# ---- corpora ----

def corpus_files(path, named=""):
    """The file named, else those of a folder whose names say that they are a corpus."""
    if named or not os.path.isdir(path):
        return [named] if named else []
    return files_of(path, corpus=True)


def files_of(folder, corpus):
    """Its files of questions, or those of a corpus. 2Wiki's id_aliases.json is neither."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))
            if name.lower().endswith(KINDS) and "id_aliases" not in name.lower()
            and any(word in name.lower() for word in CORPORA) == corpus]


def read_corpus(path):
    """(title, text) of each record, one at a time. ValueError in one line."""
    number = 0
    for number, record in enumerate(records(path), 1):
        try:
            if isinstance(record.get("text"), list):  # HotpotQA's abstracts: sentences
                title, text = pair([record.get("title"), record["text"]])
            elif "text" in record:
                title, text = field(record, "title"), field(record, "text")
            else:
                title, text = field(record, "contents").split("\n", 1)
        except ValueError:
            raise ValueError(f"{path}, record {number}: a passage has a title and a text") from None
        yield one_space(title.strip('" ')), one_space(text)
    if not number:
        raise ValueError(f"{path}: holds no passages")
