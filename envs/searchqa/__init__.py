"""Questions answered by searching: `search[query]` shows passages, `answer[text]` ends the game
(ReAct, arXiv 2210.03629; Search-R1, 2503.09516).

    python -m envs.searchqa --data PATH             # play it in the terminal
    python -m envs.searchqa --data PATH --check     # by family: what searching finds
    python -m envs.searchqa --index 1000000         # time and memory of an index of that size
    python train.py --method atod --env searchqa --data PATH --level 1

PATH (else $SEARCHQA_DATA) is a file of questions or a folder of them; files.py lists the formats
and says how they are split. Searched are the paragraphs that come with the questions and a corpus:
$SEARCHQA_CORPUS, else the files of the folder with "corpus" (or wiki-18, psgs_w100) in their
names. Search is BM25 by envs/lib/bm25.py; indexes are kept in $SEARCHQA_INDEX (else out/searchqa).
A search takes milliseconds, so games need no pool.

Reward is 1 for an exact match with one of the golden answers; `score` and `f1` are the F1 of the
best. Anything but the two actions uses up a turn. A passage is shown from the sentence that has
most words of the query.

Level 1, for small models: one passage of 200 characters a search, and only the questions whose
answer the expert then sees, or that want a yes or no. Level 2: all questions, three passages of
500 characters.
"""
import os
import re

from envs import SPLITS, Env, Step
from envs.lib import bm25
from envs.lib.text import content_hash
from envs.searchqa import files
from envs.searchqa.corpus import cut, excerpt, open_corpus, standing

LEVELS = {  # -> passages, characters of each, of a query; tokens of a turn, of an episode
    1: (1, 200, 60, 56, 640),
    2: (3, 500, 150, 96, 2048)}
WHERE = ("get hotpot_dev_distractor_v1.json from hotpotqa.github.io (or a set of "
         "envs/searchqa/files.py) and pass --data PATH, or set SEARCHQA_DATA")
ASKING = set(  # words that begin a question with a capital letter, and are no names
    "who whom whose what which when where why how is are was were did do does has have had can in "
    "on at of for from to if the a an".split())
NOTHING = "Nothing found."
UNKNOWN = "That is no action: say search[words] or answer[words]."
MAX_SAID = 1000  # characters of an action


class SearchQA(Env):
    warm_steps = 600
    targets = {"senior": 0.5, "expert": 0.5}
    prose = True

    def __init__(self, path, level, turns):
        self.passages, self.characters, self.longest, self.max_new, self.context = LEVELS[level]
        self.level, self.max_turns = level, turns or 4
        self.path, self.data = path, files.read_splits(path)
        everything = [p for split in SPLITS for q in self.data[split] for p in q.passages]
        self.index = open_corpus(path, everything)
        if level == 1:
            self.data = {split: [q for q in self.data[split] if self.is_easy(q)]
                         for split in SPLITS}
        empty = [split for split in SPLITS if not self.data[split]]
        if empty:
            which = " that level 1 can answer" if level == 1 else ""
            raise ValueError(f"{path}: too few questions{which}, no {' and no '.join(empty)} split")

    def is_easy(self, question):
        """Does it want a yes or no, or does the expert see its answer?"""
        if question.answers[0].lower() in ("yes", "no"):
            return True
        return bool(standing(question.answers, self.searches(question, "expert")[1]))

    def tasks(self, split):
        return len(self.data[split])

    def fingerprint(self):
        corpus = files.corpus_files(self.path, os.environ.get("SEARCHQA_CORPUS", ""))
        return content_hash(corpus, self.data)

    def reset(self, task, split):
        self.question, self.turn = self.data[split][task % len(self.data[split])], 0
        return self.question.text

    def look(self, query):
        """What a search shows: a line for each passage."""
        lines = []
        for _, text, _ in bm25.search(self.index, query, self.passages):
            title, _, text = text.partition("\n")
            lines.append(f"{title}: {excerpt(text, query, self.characters)}")
        return "\n".join(lines) or NOTHING

    def step(self, text):
        self.turn += 1
        verb, words = parse(text)
        answered = verb == "answer"
        em = f1 = 0.0
        if answered:
            em = max(files.exact_match(words, answer) for answer in self.question.answers)
            f1 = max(files.f1(words, answer) for answer in self.question.answers)
        done = answered or self.turn >= self.max_turns
        info = {"success": bool(em), "score": f1, "em": em, "f1": f1,
                "truncated": done and not answered, "family": self.question.family}
        if done:
            return Step("", em, done, info)
        return Step(self.look(words) if verb else UNKNOWN, em, done, info)

    def query(self, question):
        """At level 1 the names in the question, if there are any; else all of it. Cut to the length
        of a query at this level."""
        words = question.text.rstrip("? ").split()
        names = [word for i, word in enumerate(words)
                 if not word[0].islower() and word[0].isalnum()
                 and (i or word.lower() not in ASKING)]
        return cut(" ".join(names if names and self.level == 1 else words), self.longest)

    def searches(self, question, skill, turn=0):
        """The queries of a player from a turn on: one less than it has turns, or fewer when an
        answer stands in what it was shown -> queries, all that was shown"""
        known = []
        if skill == "expert":  # the passages that the question names come first
            known = sorted(question.titles, key=lambda t: t.lower() not in question.text.lower())
        queries, shown = [], ""
        for words in (known or [self.query(question)])[turn:self.max_turns - 1]:
            queries.append(words)
            shown = f"{shown}\n{self.look(words)}"
            if standing(question.answers, shown):
                break
        return queries, shown

    def demo(self, rng, skill):
        """Texts from here. "senior" searches for the question, then gives the golden answer.
        "expert" searches for the passages that the answer takes, where they are known, one after
        another. "careless" (or any other) searches for the question and answers with a name that
        it was shown."""
        queries, shown = self.searches(self.question, skill, self.turn)
        answer = standing(self.question.answers, shown) or self.question.answers[0]
        if skill not in self.targets:
            names = re.findall(r"[^\W\d_a-z][\w'-]+(?: [^\W\d_a-z][\w'-]+)*", shown)
            answer = rng.choice(names) if names else "no"
        return [f"search[{words}]" for words in queries] + [f"answer[{answer}]"]


def parse(text):
    """"search[ words ]" -> ("search", "words"); (None, "") when it is no action."""
    if len(text) > MAX_SAID:
        return None, ""
    said = re.fullmatch(r"(search|answer)\[(.+)\]", text.strip(), re.DOTALL)
    return (said[1], said[2].strip()) if said and said[2].strip() else (None, "")


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
