"""Search-QA: the game held against the protocol, the index, what is missing, and ATOD from end to
end. Formats: test_searchqa_files.py."""
import collections
import json
import math
import os
import random
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tantivy", reason="pip install 'tantivy>=0.27'")

import envs  # noqa: E402
from conftest import MOVING, REPO, errors, metrics  # noqa: E402
from contract import NASTY, check_env, play  # noqa: E402
from envs import searchqa as adapter  # noqa: E402
from envs.lib import bm25  # noqa: E402
from envs.searchqa import files  # noqa: E402
from searchqa_made import hotpot, write  # noqa: E402

REAL = Path(os.environ.get("SEARCHQA_DATA") or REPO.parent / "shared/data/searchqa")


@pytest.fixture(autouse=True)
def indexes(tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCHQA_INDEX", str(tmp_path / "indexes"))
    for name in ("SEARCHQA_CORPUS", "SEARCHQA_DATA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "indexes"


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps(hotpot(60)))
    return str(path)


@pytest.fixture
def env(data):
    return envs.make("searchqa", data=data)


def refuses(**options):
    """The one line that make() refuses these options with."""
    with pytest.raises(ValueError) as refused:
        envs.make("searchqa", **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# ---- the game ----

@pytest.mark.parametrize("level", adapter.LEVELS)
def test_the_contract(data, level):
    check_env("searchqa", data=data, level=level)


def test_a_search_shows_passages_and_an_answer_ends_it(env):
    env.reset(0, "train")
    book, author = env.question.titles
    shown = env.step(f"search[{book}]")
    assert shown.observation.split("\n")[0].startswith(f"{book}: {book} is a novel")
    assert author in shown.observation
    assert not shown.done and shown.reward == 0
    end = env.step(f" answer[ the {env.question.answers[0].upper()}. ]\n")
    assert end.done and end.reward == 1 and end.observation == ""
    assert end.info == {"success": True, "score": 1, "em": 1, "f1": 1, "truncated": False,
                        "family": "bridge"}


def test_a_near_miss_scores_and_earns_nothing(env):
    env.reset(0, "train")
    env.question = env.question._replace(answers=("New York City", "Gotham"))
    end = env.step("answer[York]")
    assert end.done and end.reward == 0 and not end.info["success"]
    assert end.info["score"] == end.info["f1"] == pytest.approx(0.5)


def test_four_turns_without_an_answer_are_truncated(env):
    env.reset(0, "train")
    assert [env.step("search[novel]").done for _ in range(3)] == [False] * 3
    assert env.step("search[novel]").info["truncated"]


def test_what_is_shown_keeps_to_the_characters_of_the_level(data, tmp_path):
    for level, (passages, characters, *_) in adapter.LEVELS.items():
        env = envs.make("searchqa", data=data, level=level)
        env.reset(0, "train")
        lines = env.step("search[was a writer born novel]").observation.split("\n")
        assert len(lines) == passages
        assert all(len(line.partition(": ")[2]) <= characters for line in lines)


def test_an_excerpt_begins_where_the_query_is_met():
    text = "It is long. " * 30 + "The river Nile flows north. It ends."
    assert adapter.excerpt(text, "rivers flowing", 28) == "The river Nile flows north."
    assert adapter.excerpt("x" * 500, "x", 30) == "x" * 30
    assert adapter.excerpt("short", "none", 30) == "short"


def test_level_1_asks_only_what_a_reader_can_see(data, tmp_path):
    records = hotpot(60)
    for i, record in enumerate(records):
        record["answer"] = (record["answer"], "nowhere", "no")[i % 3]
    (tmp_path / "half.json").write_text(json.dumps(records))
    env = envs.make("searchqa", data=str(tmp_path / "half.json"), level=1)
    assert sum(map(env.tasks, envs.SPLITS)) == 40
    for task in range(env.tasks("train")):
        env.reset(task, "train")
        *searches, answer = env.demo(random.Random(0), "expert")
        shown = "".join(env.step(said).observation for said in searches)
        assert answer == "answer[no]" or answer[7:-1] in shown


def test_the_expert_searches_for_what_the_question_names_first(env):
    for task in range(20):
        env.reset(task, "train")
        book, author = env.question.titles
        env.question = env.question._replace(titles=(author, book))
        *searches, answer = env.demo(random.Random(0), "expert")
        assert answer == f"answer[{env.question.answers[0]}]"
        assert searches in ([f"search[{book}]", f"search[{author}]"], [f"search[{book}]"])


def test_the_careless_player_searches_and_is_mostly_wrong(env):
    found = []
    for task in range(env.tasks("train")):
        env.reset(task, "train")
        found.append(play(env, env.demo(random.Random(task), "careless")))
    assert all(turns == 2 for _, _, turns in found)
    assert sum(total for total, *_ in found) < len(found) / 2


def test_ten_thousand_random_commands_change_nothing(env):
    rng = random.Random(0)
    bits = ["search[", "answer[", "]", "[", " ", "\n", "' OR 1=1; --", "$(rm -rf /)",
            "<script>alert(1)</script>", "é", "\x00", "\x1b[2J",
            "\ud800", "🙂", "Nile", "AND", "text:(a OR b)^9", '"', "*", "~", "\\",
            "x" * 999, "x" * 10_000, "{}", "%s", "\u2028", "][", "]]", "search", "answer"]
    env.reset(0, "train")
    right, real = env.question.answers[0], collections.Counter()
    before = {k: v for k, v in vars(env).items() if k != "turn"}
    for _ in range(10_000):
        if rng.random() < 0.1:
            text = rng.choice(NASTY)
        else:
            text = "".join(rng.choice(bits) for _ in range(rng.randrange(6)))
        text = rng.choice(("", "search[", "answer[")) + text + rng.choice(("", "]"))
        env.turn = rng.randrange(env.max_turns)
        turn, step = env.turn, env.step(text)
        action = None
        if len(text) <= adapter.MAX_SAID:
            action = re.fullmatch(r"(search|answer)\[(.*\S.*)\]", text.strip(), re.DOTALL)
        real[action and action[1]] += 1
        assert step.reward == 0 and env.turn == turn + 1
        assert {k: v for k, v in vars(env).items() if k != "turn"} == before
        assert step.done == (env.turn == env.max_turns or bool(action) and action[1] == "answer")
        if not step.done and not action:
            assert step.observation == adapter.UNKNOWN
        assert len(step.observation) < 4000
    assert min(real[None], real["search"], real["answer"]) > 100
    assert env.step(f"answer[{right}]").reward == 1


def test_one_has_to_say_something(env):
    for text in ("answer[]", "search[]", "answer[ ]", "Answer[x]", "answer [x]", "say answer[x]",
                 "answer[x] now", "search[a]\nthen"):
        env.reset(0, "train")
        assert env.step(text).observation == adapter.UNKNOWN
    for text in ("search[?! -]", "search[qqqq]"):
        assert env.step(text).observation == adapter.NOTHING


# ---- corpus and index ----

def test_a_corpus_in_the_folder_or_named_is_searched(tmp_path, monkeypatch):
    folder = write(tmp_path / "set", questions=[f"Where is number {i}?" for i in range(60)])
    assert "SEARCHQA_CORPUS" in refuses(data=folder)
    Path(folder, "corpus.jsonl").write_text(
        '{"title": "Nile", "text": "A river."}\n'
        '{"id": "1", "contents": "\\"Po\\"\\nAnother river."}\n')
    env = envs.make("searchqa", data=folder)
    env.reset(0, "train")
    shown = env.step("search[rivers]").observation
    assert shown.split("\n") == ["Nile: A river.", "Po: Another river."]
    (tmp_path / "other.tsv").write_text('id\ttext\ttitle\n1\t"A ""big"" mountain."\tEtna\n')
    monkeypatch.setenv("SEARCHQA_CORPUS", str(tmp_path / "other.tsv"))
    env = envs.make("searchqa", data=folder)
    env.reset(0, "train")
    assert env.step("search[mountain river]").observation == 'Etna: A "big" mountain.'
    (tmp_path / "other.tsv").write_text("title\tname\nEtna\tx\n")
    assert "other.tsv, record 1" in refuses(data=folder)
    monkeypatch.setenv("SEARCHQA_CORPUS", str(tmp_path / "absent.jsonl"))
    assert "absent.jsonl: No such file" in refuses(data=folder)


def test_the_index_is_made_once_and_again_when_the_corpus_changes(tmp_path, monkeypatch, indexes):
    folder = write(tmp_path / "set", questions=[f"Where is number {i}?" for i in range(60)])
    corpus = Path(folder, "my_corpus.jsonl")
    corpus.write_text('{"title": "Nile", "text": "A river."}\n')
    built, build = [], bm25.build
    monkeypatch.setattr(bm25, "build", lambda texts, path: (built.append(path), build(texts, path)))
    for _ in range(3):
        envs.make("searchqa", data=folder)
    assert len(built) == 1 and os.listdir(indexes) == [os.path.basename(built[0])]
    corpus.write_text('{"title": "Po", "text": "A river."}\n'
                      '{"title": "Nile", "text": "A river."}\n')
    env = envs.make("searchqa", data=folder)
    assert len(built) == 2 and env.look("po") == "Po: A river."


def test_a_half_made_index_is_never_read(tmp_path, indexes):
    def broken():
        yield "one"
        raise ValueError("cut short")
    for _ in range(2):
        with pytest.raises(ValueError, match="cut short"):
            bm25.cached("key", broken, str(indexes))
        assert not os.listdir(indexes)
    assert bm25.search(bm25.cached("key", lambda: ["one", "two"], str(indexes)), "two",
                       3)[0][:2] == (1, "two")


def test_who_comes_second_keeps_the_first_index(tmp_path):
    path = str(tmp_path / "index")
    bm25.build(["first"], path)
    bm25.build(["second"], path)
    hits = bm25.search(bm25.open_index(path), "first second", 5)
    assert [text for _, text, _ in hits] == ["first"]
    assert os.listdir(tmp_path).count("index") == 1


def test_a_damaged_index_and_a_folder_that_is_a_file_are_one_line(data, indexes, monkeypatch):
    envs.make("searchqa", data=data)
    index, = indexes.iterdir()
    (index / "meta.json").write_text("{")
    assert "delete it" in refuses(data=data)
    monkeypatch.setenv("SEARCHQA_INDEX", data)
    assert "no index can be made" in refuses(data=data)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what is mapped")
def test_the_index_is_memory_mapped(tmp_path):
    path = str(tmp_path / "index")
    bm25.build(["a river", "a hill"], path)
    index = bm25.open_index(path)
    assert bm25.search(index, "hill", 1) and path in Path("/proc/self/maps").read_text()


@pytest.fixture
def index_of(tmp_path):
    """index_of(texts) -> an index of them"""
    def make(texts):
        path = str(tmp_path / f"index {len(os.listdir(tmp_path))}")
        bm25.build(texts, path)
        return bm25.open_index(path)
    return make


def test_scores_are_bm25s(index_of):
    """On texts so short that their lengths are kept exactly; Tantivy's idf is ln(1 + (N - n + .5) /
    (n + .5))."""
    rng, words = random.Random(0), [f"zq{c}k" for c in string.ascii_lowercase[:12]]
    texts = [" ".join(rng.choices(words, weights=range(1, 13), k=rng.randrange(1, 30)))
             for _ in range(200)]
    index = index_of(texts)
    mean = sum(len(t.split()) for t in texts) / len(texts)

    def score(text, query):
        text, total = text.split(), 0.0
        for word in query:
            n, f = sum(word in t.split() for t in texts), text.count(word)
            idf = math.log(1 + (len(texts) - n + .5) / (n + .5))
            total += idf * f * 2.2 / (f + 1.2 * (.25 + .75 * len(text) / mean))
        return total
    for _ in range(20):
        query = rng.sample(words, 3)
        found = bm25.search(index, " ".join(query), 10)
        wanted = sorted((score(text, query) for text in texts), reverse=True)[:10]
        assert [s for *_, s in found] == pytest.approx(wanted, rel=1e-4)
        assert all(score(text, query) == pytest.approx(s, rel=1e-4) and texts[number] == text
                   for number, text, s in found)


def test_words_are_folded_and_stemmed_and_a_query_has_no_syntax(index_of):
    index = index_of(["Beyoncé sang songs.", "text AND number", "half \ud800 a pair",
                      "Songs of the sea"])
    assert [n for n, *_ in bm25.search(index, "beyonce", 5)] == [0]
    assert [n for n, *_ in bm25.search(index, "singing a SONG", 5)] == [3, 0]
    assert [n for n, *_ in bm25.search(index, "-text +(number", 5)] == [1]
    assert [n for n, *_ in bm25.search(index, "pair\ud800", 5)] == [2]
    assert [bm25.search(index, query, 5) for query in ("*", "", "absent")] == [[]] * 3


def test_equal_texts_come_in_their_order(index_of):
    hits = bm25.search(index_of(["same words"] * 50), "words", 5)
    assert [n for n, *_ in hits] == [0, 1, 2, 3, 4]


# ---- what is missing ----

def test_what_is_missing_is_one_line(data, tmp_path, monkeypatch):
    assert "hotpotqa.github.io" in refuses()
    assert "no such file" in refuses(data=str(tmp_path / "absent"))
    assert "levels 1 to 2" in refuses(data=data, level=3)
    (tmp_path / "few.json").write_text(json.dumps(hotpot(2)))
    assert "too few questions" in refuses(data=str(tmp_path / "few.json"))
    (tmp_path / "empty").mkdir()
    assert "holds no question files" in refuses(data=str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "tantivy", None)
    assert refuses(data=data) == bm25.INSTALL


def test_the_command_plays_checks_and_measures(data):
    def run(*args, said=""):
        return subprocess.run([sys.executable, "-m", "envs.searchqa", *args], cwd=REPO, input=said,
                              capture_output=True, text=True)
    played = run("--data", data, said="search[novel]\nanswer[x]\n")
    assert played.stdout.startswith("Where was the author")
    assert "Lost, score 0.00, f1 0.00." in played.stdout and not played.stderr
    assert re.search(r"^bridge +60 ", run("--data", data, "--check").stdout, re.MULTILINE)
    assert json.loads(run("--index", "50").stdout)["passages"] == 50
    assert run("--data", "absent").stderr.count("\n") == 1


def test_atod_runs_from_end_to_end(command, data):
    code, out, err = command(*MOVING["atod"], "--env", "searchqa", "--data", data, "--level", "1",
                             "--max-new", "24", "--threads", "1")
    assert code == 0 and not errors(err) and "bridge" in out and len(metrics()) == 4


# ---- real files ----

@pytest.fixture
def real():
    """The folder or file of SEARCHQA_DATA, else of ../shared/data/searchqa."""
    if not REAL.exists():
        pytest.skip(f"no published question sets at {REAL}: set SEARCHQA_DATA to a file or a "
                    "folder of them")
    return REAL


def test_real_files_are_read_and_the_contract_holds(real):
    splits = files.read_splits(str(real))
    assert all(splits.values())
    for level in adapter.LEVELS:
        check_env("searchqa", data=str(real), level=level)
