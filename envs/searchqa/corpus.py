"""What is searched: the index of passages, and what is shown of a passage that was found."""
import hashlib
import os
import re

from envs.lib import bm25
from envs.searchqa import files

CORPUS = ("set SEARCHQA_CORPUS to a jsonl file of {title, text}, or put it into the folder of the "
          "questions as corpus.jsonl")


def open_corpus(path, passages):
    """The index of these passages and of the user's corpus. The corpus is told from others by its
    path, size and date. ValueError in one line."""
    named, passages = os.environ.get("SEARCHQA_CORPUS", ""), list(dict.fromkeys(passages))
    found = files.corpus_files(path, named)
    try:
        marks = [(os.path.abspath(f), os.path.getsize(f), os.stat(f).st_mtime_ns) for f in found]
    except OSError as error:
        raise ValueError(f"{named}: {error.strerror}; {CORPUS}") from None
    if not passages and not found:
        raise ValueError(f"{path}: these questions come without passages; {CORPUS}")

    def texts():
        yield from (f"{title}\n{text}" for title, text in passages)
        for file in found:
            yield from (f"{title}\n{text}" for title, text in files.read_corpus(file))
    own = hashlib.sha256(repr(passages).encode("utf-8", "replace")).hexdigest()
    return bm25.cached([own, marks], texts, os.environ.get("SEARCHQA_INDEX", "out/searchqa"))


def excerpt(text, query, n):
    """At most n characters of a passage, from the first of the sentences that have most words of
    the query."""
    if len(text) <= n:
        return text
    sentences, wanted = re.split(r"(?<=[.!?]) ", text), set(bm25.terms(query))
    shared = [len(wanted & set(bm25.terms(sentence))) for sentence in sentences]
    return cut(" ".join(sentences[shared.index(max(shared)):]), n)


def cut(text, n):
    """At most n characters, whole words where that leaves any."""
    return text if len(text) <= n else text[:n + 1].rpartition(" ")[0] or text[:n]


def standing(answers, text):
    """The first of the answers whose words stand in the text; None when none does."""
    text = f" {files.normalise(text)} "
    for answer in answers:
        words = files.normalise(answer)
        if words and f" {words} " in text:
            return answer
