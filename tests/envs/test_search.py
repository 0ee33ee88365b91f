"""What a search finds that other rules would leave out: stop words alone, names in scripts without
spaces; and that the rest is ranked as without them."""
import random
import unicodedata

import pytest

pytest.importorskip("tantivy", reason="pip install 'tantivy>=0.27'")

from envs.lib import bm25  # noqa: E402

TEXTS = ["It\nA novel by Stephen King.", "The Who\nA band of London.", "To be or not to be",
         "Paris is a town.", "東京都庁舎は新宿にある。", "大阪城は大阪市にある。", "山田太郎（俳優）",
         "กรุงเทพมหานครเป็นเมืองหลวง", "서울은 한국의 수도이다", "မန္တလေးမြို့", "Café Müller", "plain"]


@pytest.fixture(scope="module")
def index():
    return bm25.in_memory(TEXTS)


def found(index, query, k=12):
    return [number for number, *_ in bm25.search(index, query, k)]


@pytest.mark.parametrize("query, first", [
    ("It", 0), ("it", 0), ("IT?", 0), ("the", 1), ("to be or not to be", 2), ("not", 2),
    ("is it", None), ("東京", 4), ("新宿", 4), ("大阪城", 5), ("山田太郎", 6), ("太郎 山田", 6), ("俳優", 6),
    ("กรุงเทพ", 7), ("서울", 8), ("수도", 8), ("မန္တလေး", 9), ("the 山田", 6), ("cafe", 10),
    (unicodedata.normalize("NFD", "Café"), 10), (unicodedata.normalize("NFD", "서울"), 8),
    ("caf\u00e9\ud83d", 10), ("\ufeffplain", 11)])
def test_what_a_query_finds_first(index, query, first):
    assert found(index, query)[:1] == [first] if first is not None else found(index, query)


@pytest.mark.parametrize("query", ["", " ", "?!", "。", "qqqq", "\ud83d", "\0", "的"])
def test_a_query_without_a_word_that_is_there_finds_nothing(index, query):
    assert found(index, query) == []


def test_stop_words_beside_others_do_not_count(index):
    for query in ("the town of paris", "it is a novel by the king"):
        kept = " ".join(word for word in query.split() if word not in bm25.STOP_WORDS)
        assert bm25.search(index, query, 12) == bm25.search(index, kept, 12) != []


def test_any_unicode_is_searched_without_an_error(index):
    for start in range(0, 0x110000, 997):
        bm25.search(index, "".join(map(chr, range(start, min(start + 60, 0x110000)))), 3)


def test_texts_may_hold_anything():
    texts = ["\ud83d half", "nul\0nul", "\ufeffmark", "e\u0301tude", "x" * 100_000, ""]
    index = bm25.in_memory(texts)
    assert [found(index, query) for query in ("half", "mark", "étude", "etude")] == [
        [0], [2], [3], [3]]


def test_a_flipped_byte_of_an_index_is_noticed_in_one_line(tmp_path):
    path = tmp_path / "index"
    bm25.build([f"text {i} river hill word{i % 7} 東京" for i in range(300)], str(path))
    rng, tried, refused = random.Random(0), 0, 0
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for at in (rng.randrange(len(whole)) for _ in range(8 if whole else 0)):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)])
                             + whole[at + 1:])
            tried += not file.name.endswith(".lock")  # those are empty, and nobody reads them
            try:
                bm25.open_index(str(path))
            except ValueError as error:
                refused += 1
                assert str(error).startswith(str(path)) and "\n" not in str(error)
        file.write_bytes(whole)
    assert refused == tried > 30 and len(found(bm25.open_index(str(path)), "river", 300)) == 300
