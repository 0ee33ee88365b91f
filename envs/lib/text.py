"""Text as people have it, and files of it: what every loader reads with.

Every fault is a ValueError of one line; the loader puts the file's name before it. Every text
comes out clean: half a surrogate pair and NUL are read as U+FFFD, line ends as "\\n", a letter and
its accent (NFD) as one character where there is one (NFC), and byte order marks are left out.
"""
import hashlib
import json
import re
import unicodedata

NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
NO_BYTES = re.compile("[\udc80-\udcff]")  # how bytes that are no UTF-8 come out of open()
NAMES = {str: "no text", list: "no list", dict: "no object with named fields"}


def content_hash(paths=(), made=""):
    """A hash of the bytes of some files, and of what was made from others. Where a file lies does
    not count."""
    digest = hashlib.sha256(repr(made).encode("utf-8", "replace"))
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def clean(text):
    """Any str -> one that every library takes."""
    text = NO_CHARACTER.sub("\ufffd", text).replace("\ufeff", "")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def cleaned(value):
    """What json makes -> the same with every text in it clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [cleaned(part) for part in value]
    if isinstance(value, dict):
        return {cleaned(name): cleaned(part) for name, part in value.items()}
    return value


def parse_json(text):
    """JSON -> what it holds, its texts clean."""
    try:
        return cleaned(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None


def lines(path):
    """(number, line) of each line of a text file, one at a time."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if NO_BYTES.search(line):
                    raise ValueError(f"line {number}: bytes that are no utf-8 text")
                yield number, line
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def read_json(path):
    """What a file of JSON holds."""
    return parse_json("".join(line for _, line in lines(path)))


def read_jsonl(path):
    """(number of the line, what it holds) of each line that is not empty."""
    for number, line in lines(path):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                why = str(error).removeprefix("line 1, ")
                raise ValueError(f"line {number}, {why}") from None


# ---- what a field holds ----

def expect(value, kind, name):
    """The value, when it is a str, list or dict as it should be. ValueError that names the
    field."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {NAMES[kind]}")
    return value


def field(record, name, kind=str):
    """A field that must be there. ValueError when it is not, or holds another kind of thing."""
    if name not in expect(record, dict, "it"):
        raise ValueError(f"no field {name!r}")
    return expect(record[name], kind, name)


def optional(record, name, kind=str):
    """A field that may be missing, null or "": an empty one then."""
    return kind() if record.get(name) in (None, "") else expect(record[name], kind, name)


def texts(value, name):
    """A list of texts. ValueError that names the field."""
    return [expect(text, str, f"a part of {name}") for text in expect(value, list, name)]


def one_space(text):
    """Words with one space between."""
    return " ".join(text.split())
