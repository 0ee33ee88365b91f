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
    FlashRAG, Search-R1     {"question", "golden_answers": []}
    SimpleDeepSearcher      {"Question", "answer": []}
    PopQA       {"question", "possible_answers": "a json list"}
    EVOUNA      {"question", "golden_answer": "one/another"}
    Bamboogle   {"Question", "Answer"}
    ReAct's HotpotQA        {"question", "answer", "type"}
    a corpus    {"title", "text"}, or {"contents": "\\"title\\"\\ntext"}

A file is a json list, an object with "Data", json lines, or a table (tsv or csv) with names in its
first line. Exact match and F1 are those of the HotpotQA evaluation (arXiv 1809.09600), which are
SQuAD's (arXiv 1606.05250) but for "yes" and "no".
"""
import collections
import csv
import json
import os
import re
import string

from envs import SPLITS, split_of

# titles: of the passages that the answer takes, where they are known
Question = collections.namedtuple("Question", "text answers family titles passages")
KINDS = (".json", ".jsonl", ".tsv", ".csv")
# a word of a file's name -> split
WORDS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
PUNCTUATION = str.maketrans("", "", string.punctuation)


# ---- scores ----

def normalise(text):
    """SQuAD: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split())


def exact_match(said, answer):
    return float(normalise(said) == normalise(answer))


def f1(said, answer):
    """Of the words that both have. A yes, no or noanswer is right as a whole or not at all."""
    said, answer = normalise(said), normalise(answer)
    if said != answer and {said, answer} & {"yes", "no", "noanswer"}:
        return 0.0
    said, answer = said.split(), answer.split()
    common = (collections.Counter(said) & collections.Counter(answer)).total()
    return 2 * common / (len(said) + len(answer)) if common else 0.0


# ---- records ----

def records(path):
    """The records (dicts) of a file of any kind, json lines and tables one at a time. ValueError
    naming file and record, OSError."""
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, record in enumerate(raw_records(file, first_line(file)), 1):
                if not isinstance(record, dict):
                    raise ValueError("is no object with named fields")
                yield record
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except (ValueError, TypeError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path}, after record {number}: {error}") from None


def first_line(file):
    """The first that is not empty; the file stands before it."""
    at, line = 0, file.readline()
    while line and not line.strip():
        at, line = file.tell(), file.readline()
    file.seek(at)
    return line.strip()


def raw_records(file, first):
    if not first.startswith(("{", "[")):
        csv.field_size_limit(10**8)
        yield from csv.DictReader(file, delimiter="\t" if "\t" in first else ",")
    elif first.startswith("[") or not is_json(first):
        yield from expanded(json.load(file))
    else:
        for line in file:
            yield from expanded(json.loads(line)) if line.strip() else ()


def is_json(line):
    try:
        json.loads(line)
        return True
    except ValueError:
        return False


def expanded(value):
    if isinstance(value, dict) and "Data" in value:
        return value["Data"]
    return value if isinstance(value, list) else [value]


# ---- questions ----

def answers_of(record):
    """All that counts as right, in the order of the file. KeyError when there is none of the known
    fields."""
    names = ("golden_answers", "possible_answers", "golden_answer", "answers", "answer", "Answer")
    name = next((name for name in names if name in record), None)
    if name is None:
        raise KeyError("answer")
    value = record[name]
    if name == "possible_answers" and isinstance(value, str):
        value = json.loads(value)
    elif name == "golden_answer":
        value = [*value.split("/"), value]
    elif isinstance(value, dict):  # TriviaQA
        value = {k.lower(): v for k, v in value.items()}
        value = [value["value"], *value.get("aliases", ())]
    value = value if isinstance(value, list) else [value]
    value = value + list(record.get("answer_aliases") or ())
    texts = [" ".join(str(v).split()) for v in value if v is not None]
    return tuple(dict.fromkeys(filter(None, texts)))


def passages_of(record):
    """[(title, text)] that come with a question."""
    context = record.get("context") or []
    context = json.loads(context) if isinstance(context, str) else context
    if isinstance(context, dict):
        texts = context["sentences"] if "sentences" in context else context["content"]
        context = zip(context["title"], texts)
    found = [(title, " ".join(text) if isinstance(text, (list, tuple)) else text)
             for title, text in context]
    found += [(p["title"], p["paragraph_text"]) for p in record.get("paragraphs") or ()]
    found += [(p["Title"], p["Description"]) for p in record.get("SearchResults") or ()
              if p.get("Description")]
    return [tuple(" ".join(part.split()) for part in passage) for passage in found]


def titles_of(record):
    facts = record.get("supporting_facts") or []
    found = facts["title"] if isinstance(facts, dict) else [fact[0] for fact in facts]
    paragraphs = record.get("paragraphs") or ()
    found = list(found) + [p["title"] for p in paragraphs if p.get("is_supporting")]
    return tuple(dict.fromkeys(" ".join(title.split()) for title in found))


def question_of(record, family):
    """KeyError, TypeError, ValueError or AttributeError when it is none."""
    text = " ".join((record["question"] if "question" in record else record["Question"]).split())
    answers = answers_of(record)
    if not text or not answers:
        raise ValueError("a question or its answer is empty")
    family = str(record.get("type") or record.get("source") or family)
    return Question(text, answers, family, titles_of(record), passages_of(record))


def read_questions(path):
    """A file -> [Question]. ValueError in one line."""
    found, family = [], set_name(path)
    for number, record in enumerate(records(path), 1):
        try:
            found.append(question_of(record, family))
        except KeyError as error:
            raise ValueError(f"{path}, record {number}: no field {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
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


def read_splits(path):
    """A file or a folder -> {split: [Question]}, no question twice. Where every file of a folder
    names its split and there is a train, they stay as they are; train gives a tenth for a valid
    that is missing, and a lone valid is the test. Else by hash of the question."""
    files = [path]
    if os.path.isdir(path):
        files = files_of(path, corpus=False)
        if not files:
            raise ValueError(f"{path}: holds no question files ({' '.join(KINDS)})")
    names = [split_in_name(file) for file in files]
    named = "train" in names and len(set(names)) > 1 and None not in names
    official = os.path.isdir(path) and named
    # A published test has no answers, so what is called dev is our test.
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
    """The file named, else those of a folder with "corpus" in their names."""
    if named or not os.path.isdir(path):
        return [named] if named else []
    return files_of(path, corpus=True)


def files_of(folder, corpus):
    """Its files of questions, or those of a corpus."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))
            if name.lower().endswith(KINDS) and ("corpus" in name.lower()) == corpus]


def read_corpus(path):
    """(title, text) of each record, one at a time. ValueError in one line."""
    for number, record in enumerate(records(path), 1):
        try:
            if "text" in record:
                title, text = record["title"], record["text"]
            else:
                title, text = record["contents"].split("\n", 1)
            yield " ".join(title.strip('" ').split()), " ".join(text.split())
        except (KeyError, ValueError, TypeError, AttributeError):
            raise ValueError(f"{path}, record {number}: a passage has a title and a text") from None
