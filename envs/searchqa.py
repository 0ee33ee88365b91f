"""Questions answered by searching: `search[query]` shows passages, `answer[text]` ends it (ReAct, arXiv 2210.03629; Search-R1, 2503.09516).

    python -m envs.searchqa --data PATH                 # play by hand; an empty line ends it
    python -m envs.searchqa --data PATH --check         # by family: how many questions, and what searching finds
    python -m envs.searchqa --index 1000000             # time, memory and query times of the index on so many generated passages
    python train.py --method atod --env searchqa --data PATH --level 1

PATH (else $SEARCHQA_DATA) is a question file or a folder of them; searchqa_files.py lists the formats and says how they are split. Searched
are the paragraphs that come with the questions and a corpus: $SEARCHQA_CORPUS, else the files of the folder with "corpus" in their names. BM25
is bm25_.py's; indexes are kept in $SEARCHQA_INDEX (else out/searchqa). A search takes milliseconds, so games need no pool.
Reward is 1 for an exact match with one of the golden answers; `score` and `f1` are the F1 of the best. Anything but the two actions uses up a turn.
Level 1, for small models: one passage of 200 characters a search, and only the questions whose answer the expert then sees, or that want a yes or
no. Level 2: all questions, three passages of 500 characters. A passage is shown from the sentence that has most words of the query.
"""
import hashlib
import os
import re

from envs import SPLITS, Step
from envs import bm25_ as bm25
from envs import searchqa_files as files

LEVELS = {1: (1, 200, 60, 56, 640), 2: (3, 500, 150, 96, 2048)}  # passages, characters of each, of a query; tokens of a turn, of an episode
WHERE = "get hotpot_dev_distractor_v1.json from hotpotqa.github.io (or a set of envs/searchqa_files.py) and pass --data PATH, or set SEARCHQA_DATA"
CORPUS = "set SEARCHQA_CORPUS to a jsonl file of {title, text}, or put it into the folder of the questions as corpus.jsonl"
ASKING = set("who whom whose what which when where why how is are was were did do does has have had can in on at of for from to if the a an".split())
NOTHING, UNKNOWN = "Nothing found.", "That is no action: say search[words] or answer[words]."
MAX_SAID = 1000  # characters of an action


class SearchQA:
    mark, max_gap, problems, warm_steps = " ", 32, 128, 600
    targets = {"senior": 0.5, "expert": 0.5}
    every_family, prose = False, True

    def __init__(self, path, level, turns):
        self.passages, self.characters, self.longest, self.max_new, self.context = LEVELS[level]
        self.level, self.max_turns = level, turns or 4
        self.data = files.read_splits(path)
        self.index = open_corpus(path, [p for split in SPLITS for q in self.data[split] for p in q.passages])
        if level == 1:
            self.data = {s: [q for q in self.data[s] if q.answers[0].lower() in ("yes", "no") or standing(q.answers, self.searches(q, "expert")[1])]
                         for s in SPLITS}
        if not all(self.data.values()):
            empty = [s for s in SPLITS if not self.data[s]]
            raise ValueError(f"{path}: too few questions{' that level 1 can answer' * (level == 1)}, no {' and no '.join(empty)} split")

    def tasks(self, split):
        return len(self.data[split])

    def reset(self, task, split):
        self.question, self.turn = self.data[split][task % len(self.data[split])], 0
        return self.question.text

    def look(self, query):
        """What a search shows: a line for each passage."""
        found = [text.partition("\n") for _, text, _ in bm25.search(self.index, query, self.passages)]
        return "\n".join(f"{title}: {excerpt(text, query, self.characters)}" for title, _, text in found) or NOTHING

    def step(self, text):
        self.turn += 1
        said = re.fullmatch(r"(search|answer)\[(.+)\]", text.strip(), re.DOTALL) if len(text) <= MAX_SAID else None
        verb, words = (said[1], said[2].strip()) if said and said[2].strip() else (None, "")
        answered = verb == "answer"
        em, f1 = (max(score(words, a) for a in self.question.answers) if answered else 0.0 for score in (files.exact_match, files.f1))
        done = answered or self.turn >= self.max_turns
        info = {"success": bool(em), "score": f1, "em": em, "f1": f1, "truncated": done and not answered, "family": self.question.family}
        return Step("" if done else self.look(words) if verb else UNKNOWN, em, done, info)

    def query(self, question):
        """At level 1 the question's names, as far as it has any; else all of it. Cut to what a query of this level may have."""
        words = question.text.rstrip("? ").split()
        names = [w for i, w in enumerate(words) if not w[0].islower() and w[0].isalnum() and (i or w.lower() not in ASKING)]
        return cut(" ".join(names if names and self.level == 1 else words), self.longest)

    def searches(self, question, skill, turn=0):
        """The queries of a player from a turn on, one less than it has turns, until an answer stands in what it was shown. -> queries, that text"""
        known = sorted(question.titles, key=lambda title: title.lower() not in question.text.lower()) if skill == "expert" else []
        queries, shown = [], ""
        for words in (known or [self.query(question)])[turn:self.max_turns - 1]:
            queries, shown = [*queries, words], f"{shown}\n{self.look(words)}"
            if standing(question.answers, shown):
                break
        return queries, shown

    def demo(self, rng, skill):
        """Texts from here. "senior" searches for the question, then gives the golden answer; "expert" searches for the passages that it takes, where
        they are known, one after another. "careless" (or any other) searches for the question and answers with a name that it was shown."""
        answers, (queries, shown) = self.question.answers, self.searches(self.question, skill, self.turn)
        answer = standing(answers, shown) or answers[0]
        if skill not in self.targets:
            names = re.findall(r"[^\W\d_a-z][\w'-]+(?: [^\W\d_a-z][\w'-]+)*", shown)
            answer = rng.choice(names) if names else "no"
        return [f"search[{words}]" for words in queries] + [f"answer[{answer}]"]


def cut(text, n):
    """At most n characters, whole words where that leaves any."""
    return text if len(text) <= n else text[:n + 1].rpartition(" ")[0] or text[:n]


def excerpt(text, query, n):
    """At most n characters of a passage, from the first of the sentences that have most words of the query."""
    if len(text) <= n:
        return text
    sentences, wanted = re.split(r"(?<=[.!?]) ", text), set(bm25.terms(query))
    best = max(range(len(sentences)), key=lambda i: len(wanted & set(bm25.terms(sentences[i]))))
    return cut(" ".join(sentences[best:]), n)


def standing(answers, text):
    """The first of the answers whose words stand in the text; None when none does."""
    text = f" {files.normalise(text)} "
    return next((a for a in answers if files.normalise(a) and f" {files.normalise(a)} " in text), None)


def open_corpus(path, passages):
    """The index of these passages and of the user's corpus, which is told from others by its path, size and date. ValueError in one line."""
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


def make(data="", level=2, turns=0):
    bm25.library()
    path = data or os.environ.get("SEARCHQA_DATA", "")
    if not path:
        raise ValueError(f"searchqa needs questions: {WHERE}")
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file or folder; {WHERE}")
    if level not in LEVELS:
        raise ValueError(f"searchqa has levels 1 to {max(LEVELS)}, not {level}")
    return SearchQA(path, level, turns)


if __name__ == "__main__":
    from envs import searchqa_check
    searchqa_check.main(make)
