"""Question files of every published format, official and hashed splits, and the scores held against
a second implementation."""
import json
import random
import re
import string

import pytest

import envs
from envs.searchqa import files
from searchqa_made import SETS, write


# ---- scores ----

def reference_words(text):
    """As published, in other words than the code's: lower case; punctuation away; articles away as
    whole words; split at white space."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return [w for w in re.sub(r"(?<!\w)(the|an|a)(?!\w)", " ", text).split()]


def reference_f1(said, answer):
    said, answer = reference_words(said), reference_words(answer)
    for whole in (["yes"], ["no"], ["noanswer"]):
        if (said == whole or answer == whole) and said != answer:
            return 0.0
    left, same = list(answer), 0
    for word in said:
        if word in left:
            left.remove(word)
            same += 1
    if not same:
        return 0.0
    precision, recall = same / len(said), same / len(answer)
    return 2 * precision * recall / (precision + recall)


def test_em_and_f1_are_the_official_ones_on_1000_pairs():
    """But for answers of which the official normal form leaves nothing."""
    rng = random.Random(0)
    bits = ["the", "a", "An", "The", "yes", "no", "noanswer", "Nile", "nile", "U.S.", "US", "AT&T",
            "it's", "its", "1,000", "1000", "-", "--", "é",
            "É", "—", "“x”", "theatre", "a.", "a_b", "ab", "\t", "\u00a0x", "İ", "ß", "river",
            "River,", "", "_the_"]
    exact, partial = 0, 0
    for _ in range(1000):
        answer = [rng.choice(bits) for _ in range(rng.randrange(5))]
        said = [rng.choice(bits) if rng.random() < 0.3 else word for word in answer]
        said += [rng.choice(bits)] * (rng.random() < 0.2)
        if rng.random() < 0.2:
            rng.shuffle(said)
        said, answer = " ".join(said), " ".join(answer)
        if not reference_words(answer):
            continue
        em, f1 = files.exact_match(said, answer), files.f1(said, answer)
        assert em == float(reference_words(said) == reference_words(answer)), (said, answer)
        assert f1 == pytest.approx(reference_f1(said, answer), abs=1e-12), (said, answer)
        exact, partial = exact + em, partial + (0 < f1 < 1)
    assert 100 < exact < 900 and partial > 100


@pytest.mark.parametrize("said, answer, em, f1", [
    ("The Beatles", "beatles!", 1, 1), ("yes", "yes", 1, 1), ("yes it is", "yes", 0, 0),
    ("no", "no way", 0, 0), ("Barack Obama", "Obama", 0, 2 / 3),
    ("in 1972", "December 1972", 0, 0.5), ("a b b c", "b b d", 0, 2 / 3), ("", "x", 0, 0),
    ("U.S.A.", "usa", 1, 1), ("cafe\u0301", "Café", 1, 1),
    # Answers of which the normal form leaves nothing.
    ("the", "A", 0, 0), (".", "A", 0, 0), ("", "A", 0, 0), ("A", "A", 1, 1), ("a", "A", 1, 1),
    ("an a", "A", 0, 2 / 3), ("the", "The The", 0, 2 / 3), ("The The", "The The", 1, 1),
    ("?", "!!!", 0, 0), ("!!!", "!!!", 1, 1), ("(", ")", 0, 0), (")", ")", 1, 1),
    ("the", "!!!", 0, 0), ("--", "+-*", 0, 0), ("the", "the Nile", 0, 0), (".", "yes", 0, 0)])
def test_em_and_f1_worked_by_hand(said, answer, em, f1):
    assert files.exact_match(said, answer) == em and files.f1(said, answer) == pytest.approx(f1)


# ---- files ----

@pytest.mark.parametrize("name", SETS)
def test_every_published_format_is_read(name, tmp_path):
    text, answers, family, titles, passages = SETS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    first = files.read_questions(str(tmp_path / name))[0]
    assert first == files.Question("Q?", answers, family, titles, passages)


def refused(path):
    with pytest.raises(ValueError) as refused:
        files.read_splits(str(path))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("text, says", [
    ("", "holds no questions"), ("[1]", "no object"), ("[{", "after record 0"),
    ('{"question": "Q?", "answer": "a"}\nnot json', "after record 1"),
    ('[{"question": "Q?"}]', "no field 'answer'"), ('[{"answer": "a"}]', "no field 'Question'"),
    ('[{"question": 3, "answer": "a"}]', "record 1"),
    ('[{"question": "Q?", "answer": []}]', "empty"),
    ('[{"question": "Q?", "answer": null}]', "empty"), ('{"Data": 3}', "after record 0"),
    ('[{"question": "Q?", "answer": "a", "context": 3}]', "record 1"),
    ('[{"question": "Q?", "answer": "a", "context": [["t", [1]]]}]', "record 1"),
    ('[{"question": "Q?", "answer": "a", "paragraphs": [{"title": "t"}]}]',
     "no field 'paragraph_text'"),
    ("question\tid\nQ?\t1\n", "no field 'answer'"),
    ("[" * 10_000, "after record 0"),
    ('[{"question": "Q?", "answer": "a", "supporting_facts": [[3]]}]', "record 1"),
    ('[{"question": "Q?", "answer": "a", "supporting_facts": [[]]}]', "record 1: a part of supp"),
    ('[{"question": "Q?", "answer": "a", "supporting_facts": [null]}]', "record 1: a part of supp"),
    ('[{"question": "Q?", "answer": "a",\n"type" 3}]', "after record 0: line 2, column 8"),
    ('{"question": "Q?", "answer": "a"}\n{"question": "Q?",}', "after record 1: line 2, column")])
def test_a_malformed_file_is_one_line(text, says, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(text)
    assert refused(path).startswith(str(path)) and says in refused(path)


@pytest.mark.parametrize("gold, answers", [
    ("one/another", ("one", "another")), ("one", ("one",)), ("a b / c d", ("a b", "c d")),
    ("Vancouver (UN/LOCODE)", ()), ("Dutch (Dut/Hol)/Holland", ("Dutch (Dut/Hol)", "Holland")),
    ("x [a/b/c]/y", ("x [a/b/c]", "y")), ("Blackout (film/The Blackout (song)/Black",
                                          ("Blackout (film", "The Blackout (song)", "Black")),
    ("/one//", ("one",)), ("AC/DC", ("AC", "DC")), ("a) x/y (b", ("a) x", "y (b"))])
def test_only_a_slash_outside_of_brackets_parts_answers(gold, answers, tmp_path):
    path = tmp_path / "evouna.jsonl"
    path.write_text(json.dumps({"question": "Q?", "golden_answer": gold}))
    (question,) = files.read_questions(str(path))
    assert question.answers == tuple(dict.fromkeys((*answers, gold)))


@pytest.mark.parametrize("value, answers", [
    (True, ("yes",)), (False, ("no",)), ([True], ("yes",)), ("['a b', \"c's\"]", ("a b", "c's")),
    ("['it\\'s' 'b']", ("it's", "b")), ('["a", "b"]', ("a", "b")), ("[sic]", ("[sic]",)),
    ("['a'] and b", ("['a'] and b",)), ({"value": "Nile", "aliases": ["<unk>"]}, ("Nile",))])
def test_answers_as_tables_and_other_programs_write_them(value, answers, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"question": "Q?", "answer": value}))
    assert files.read_questions(str(path))[0].answers == answers


@pytest.mark.parametrize("metadata", ["from web", ["web"], None, {"possible_answers": '["c"]', "answer_aliases": ["d"]}])
def test_what_metadata_holds_besides_does_not_count(metadata, tmp_path):
    path = tmp_path / "web.jsonl"
    path.write_text(json.dumps({"question": "Q?", "answer": "a", "metadata": metadata}))
    assert files.read_questions(str(path))[0] == files.Question("Q?", ("a",), "web", (), [])


def test_questions_that_have_no_answer_in_their_passages_are_left_out(tmp_path):
    path = tmp_path / "musique_full_dev.jsonl"
    lines = [{"question": f"{n}?", "answer": "a", "answerable": n > 1} for n in range(4)]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [q.text for q in files.read_questions(str(path))] == ["2?", "3?"]


def test_a_corpus_among_the_questions_is_known_by_its_name_or_named(tmp_path):
    folder = write(tmp_path / "nq", nq_train=[f"q {i}" for i in range(50)], nq_test=["t"])
    passage = json.dumps({"id": "1", "contents": '"Nile"\nA river.'})
    for name in ("wiki-18.jsonl", "psgs_w100.jsonl"):
        (tmp_path / "nq" / name).write_text(passage)
    (tmp_path / "nq/id_aliases.json").write_text('{"Q_id": "Q1", "aliases": []}')
    assert split_texts(folder)["test"] == {"t"}
    assert files.corpus_files(folder) == [f"{folder}/psgs_w100.jsonl", f"{folder}/wiki-18.jsonl"]
    (tmp_path / "nq/pages.jsonl").write_text(passage)
    assert "set SEARCHQA_CORPUS to this file" in refused(folder)


def test_a_passage_may_be_a_list_of_sentences(tmp_path):
    path = tmp_path / "abstracts.jsonl"
    path.write_text(json.dumps({"title": "Nile", "text": ["It is a river.", " It flows."]}))
    assert list(files.read_corpus(str(path))) == [("Nile", "It is a river. It flows.")]


def test_a_corpus_without_passages_is_refused(tmp_path):
    for text in ("", "\n", "[]", "title\ttext\n"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ValueError, match="holds no passages"):
            list(files.read_corpus(str(tmp_path / "c.json")))


@pytest.mark.parametrize("path, name", [
    ("x/nq_open_dev.jsonl", "nq_open"), ("x/nq_open/dev.jsonl", "nq_open"),
    ("x/web-train.json", "web"), ("popqa.tsv", "popqa")])
def test_a_set_is_called_by_its_file_or_folder(path, name):
    assert files.set_name(path) == name


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "x.json").write_bytes(b"[\xff\xfe\x00")
    assert "x.json" in refused(tmp_path / "x.json")


def split_texts(path):
    return {split: {q.text for q in found} for split, found in files.read_splits(path).items()}


def test_official_splits_stay_as_they_are(tmp_path):
    train, dev, test = ([f"{name} {i}" for i in range(50)] for name in ("t", "d", "e"))
    found = split_texts(write(tmp_path / "three", nq_train=train + dev[:3], nq_dev=dev,
                              nq_test=test))
    assert found == {"train": set(train), "valid": set(dev), "test": set(test)}
    found = split_texts(write(tmp_path / "two", hotpot_train_v1=train, hotpot_dev_v1=dev))
    assert found["test"] == set(dev) and found["train"] | found["valid"] == set(train)
    assert 0 < len(found["valid"]) < 25
    found = split_texts(write(tmp_path / "named", train=train, test=test))
    assert found["test"] == set(test) and found["train"] | found["valid"] == set(train)
    found = split_texts(write(tmp_path / "val", train=train, val=dev, test=test))
    assert found == {"train": set(train), "valid": set(dev), "test": set(test)}


def test_a_published_test_without_answers_is_left_out(tmp_path, capsys):
    train, dev = ([f"{name} {i}" for i in range(50)] for name in "td")
    folder = write(tmp_path / "hotpot", hotpot_train=train, hotpot_dev=dev)
    closed = tmp_path / "hotpot/hotpot_test_fullwiki.json"
    closed.write_text(json.dumps([{"_id": "1", "question": "Q?", "context": []}]))
    assert split_texts(folder)["test"] == set(dev)
    assert capsys.readouterr().err == f"searchqa: {closed} has no answers and is left out\n"
    closed.write_text("[{")  # broken is not the same as without answers
    assert "after record 0" in refused(folder)
    closed.write_text(json.dumps([{"question": "Q?", "answer": {"value": "<unk>", "aliases": []}}]))  # TriviaQA's
    assert split_texts(folder)["test"] == set(dev)
    (tmp_path / "alone").mkdir()
    closed.rename(tmp_path / "alone/test.json").write_text('{"question": "Q?"}')
    assert "holds no question files with answers" in refused(tmp_path / "alone")


def test_without_official_splits_a_hash_decides_whatever_the_file(tmp_path, capsys):
    texts = [f"q {i}" for i in range(100)]
    found = split_texts(write(tmp_path / "mixed", a_train=texts, b=texts[:50]))
    said = capsys.readouterr().err
    assert "do not count, because b.json" in said and "names none" in said and said.count("\n") == 1
    assert all(envs.split_of(text) == split for split, part in found.items() for text in part)
    assert sum(map(len, found.values())) == 100
