"""Made-up questions of two steps in HotpotQA's published format, and a record or two of every other
set's.

    python tests/envs/searchqa_made.py 2000 > questions.json     # to train on, without a download
"""
import json
import random

SYLLABLES = "ba ko ri mu te la so vi ne du pa zo gi fe lu ha".split()


def name(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(3)).capitalize()


def hotpot(n, seed=0):
    """[record]: a book's passage names its author, the author's the town of birth; two others stand
    beside them."""
    rng, found = random.Random(seed), []
    for i in range(n):
        book, author, town = f"{name(rng)} {name(rng)}", f"{name(rng)} {name(rng)}", name(rng)
        context = [[book, [f"{book} is a novel of {rng.randrange(1800, 2000)}.",
                           f" It was written by {author}."]],
                   [author, [f"{author} was a writer.",
                             f" {author.split()[1]} was born in {town}."]]]
        if found:
            context += rng.choice(found)["context"][:2]
        rng.shuffle(context)
        found.append({"_id": str(i), "question": f"Where was the author of {book} born?",
                      "answer": town, "type": "bridge", "level": "easy",
                      "supporting_facts": [[book, 1], [author, 1]], "context": context})
    return found


def write(folder, **named):
    """name -> questions' texts, each a file of json lines"""
    folder.mkdir()
    for name, texts in named.items():
        lines = [json.dumps({"question": text, "answer": "a"}) + "\n" for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return str(folder)


PASSAGE = ("Nile", "The Nile is a river. It flows north.")
SENTENCES = ["The Nile is a river.", " It flows north."]
HOTPOT = {"_id": "1", "question": "Q?", "answer": "yes", "type": "comparison",
          "supporting_facts": [["Nile", 0], ["Nile", 1]],
          "context": [["Nile", SENTENCES]]}
COLUMNS = {**HOTPOT, "supporting_facts": {"title": ["Nile", "Nile"], "sent_id": [0, 1]},
           "context": {"title": ["Nile"], "sentences": [SENTENCES]}}
TWO_WIKI = {**HOTPOT, "type": "compositional",
            "context": [["Nile", [sentence.strip() for sentence in SENTENCES]]],
            "evidences": [["Nile", "is", "river"]]}
MUSIQUE = {"id": "2hop__1", "question": "Q?", "answer": "Nile",
           "answer_aliases": ["River Nile", "Nile"], "answerable": True, "paragraphs": [
    {"idx": 0, "title": "Nile", "paragraph_text": PASSAGE[1], "is_supporting": True},
    {"idx": 1, "title": "Po", "paragraph_text": "The Po is another.", "is_supporting": False}]}
FLASH = {"id": "dev_0", "question": "Q?", "golden_answers": ["yes"], "metadata": {
    "type": "comparison", "supporting_facts": {"title": ["Nile", "Nile"], "sent_id": [0, 1]},
    "context": {"title": ["Nile"], "sentences": [SENTENCES]}}}
TRIVIA = {"Question": "Q?", "QuestionId": "tc_1",
          "Answer": {"Value": "Nile", "Aliases": ["The Nile", "Nile"], "Type": "WikipediaEntity"},
          "EntityPages": [{"Title": "Nile", "Filename": "Nile.txt"}],
          "SearchResults": [{"Title": "Nile", "Description": PASSAGE[1]}, {"Title": "x"}]}
SDS = {"Question": "Q?", "source": "musique", "id": "musique_1", "answer": ["Nile"]}
# file -> what it holds; answers, family, titles, passages of its first question
SETS = {
    "hotpot.json": (json.dumps([HOTPOT]), ("yes",), "comparison", ("Nile",), [PASSAGE]),
    "columns.json": (json.dumps([COLUMNS]), ("yes",), "comparison", ("Nile",), [PASSAGE]),
    "2wiki.json": (json.dumps([TWO_WIKI], indent=4), ("yes",), "compositional", ("Nile",),
                   [PASSAGE]),
    "musique.jsonl": (json.dumps(MUSIQUE) + "\n", ("Nile", "River Nile"), "musique", ("Nile",),
                      [PASSAGE, ("Po", "The Po is another.")]),
    "triviaqa.json": (json.dumps({"Data": [TRIVIA], "Domain": "Web", "Version": 1.0}, indent=2),
                      ("Nile", "The Nile"), "triviaqa", (), [PASSAGE]),
    "one_line.json": (json.dumps({"Data": [TRIVIA]}), ("Nile", "The Nile"), "one_line", (),
                      [PASSAGE]),
    "nq.jsonl": ('{"question": "Q?", "answer": ["14 December", "December"]}\n\n'
                 '{"question": "R?", "answer": ["one"]}',
                 ("14 December", "December"), "nq", (), []),
    "flashrag.jsonl": (
        '{"id": "test_0", "question": "Q?", "golden_answers": ["Nile"], "metadata": {}}\n',
        ("Nile",), "flashrag", (), []),
    "flashrag_dev.jsonl": (json.dumps(FLASH), ("yes",), "comparison", ("Nile",), [PASSAGE]),
    "evouna.jsonl": ('{"id": "tq_1", "question": "Q?", "golden_answer": "Nile/The Nile"}\n',
                     ("Nile", "The Nile", "Nile/The Nile"), "evouna", (), []),
    "sds.json": (json.dumps([SDS], indent=4), ("Nile",), "musique", (), []),
    "react.json": (json.dumps([{"question": "Q?", "answer": "Nile", "type": "bridge"}]), ("Nile",),
                   "bridge", (), []),
    "popqa.tsv": ('id\tquestion\tpossible_answers\n1\tQ?\t"[""politician"", ""pol\\u00edtico""]"\n',
                  ("politician", "político"), "popqa", (), []),
    "popqa.jsonl": (json.dumps({"id": 1, "question": "Q?", "possible_answers": '["politician"]'}),
                    ("politician",), "popqa", (), []),
    "bamboogle.csv": ('Question,Answer\n"Q?","Nile, Egypt"\n', ("Nile, Egypt",), "bamboogle", (),
                      [])}


if __name__ == "__main__":
    import sys
    print(json.dumps(hotpot(int(sys.argv[1]))))
