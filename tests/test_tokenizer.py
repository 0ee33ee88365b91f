"""Text -> ids -> text is lossless, the vocabulary is what was promised, and no text can forge a
special token."""
import random
import re
import sys

import pytest
import tiktoken
import tiktoken.load
import tiktoken.registry

import tokenizer
from conftest import REPO

CACHE = REPO.parent / "shared/data/tiktoken_cache"
TEXTS = ["5-1=4\n4-3=1\n#1", "f-b=e\ne-d=b\n#1", "the cat sat on the mat, the cat ran",
         "go to fridge 12 and open the fridge"] * 5
AWKWARD = ["", " ", "\n", "\r\n\r\n", "a  b   c ", " \t\n x", "\x00\x01\x1b[2J\x7f\x85",
           "\u2028\u2029\u00a0\u3000", "é e\u0301 ß ﬁ", "٣٤ ² ½ Ⅳ ໓",
           "日本語 한국어 🙂👩‍👩‍👧", "\u200b\u200d\ufeff\ufffd", "\U0010ffff\U000e0001",
           "snake_case __init__ _ 1_000", "a" * 2000, " " * 2000,
           "".join(map(chr, range(256))), "3.14e-10 -7 #### 1,080", "<|end|><|turn|><|endoftext|>"]


def random_text(seed):
    """Up to 200 characters from anywhere in Unicode but the surrogates, which are no characters."""
    rng = random.Random(seed)
    ends = 128, 0x3000, sys.maxunicode + 1
    points = [rng.randrange(rng.choice(ends)) for _ in range(rng.randrange(200))]
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


@pytest.fixture(scope="module")
def tok():
    return tokenizer.train(TEXTS)


@pytest.fixture
def gpt2(monkeypatch):
    if not CACHE.is_dir():
        pytest.skip(f"no tiktoken cache at {CACHE}")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(CACHE))
    return tokenizer.load("gpt2")


# ---- a vocabulary learned here ----

@pytest.mark.parametrize("text", AWKWARD + TEXTS[:4], ids=range(len(AWKWARD) + 4))
def test_awkward_text_round_trips(tok, text):
    assert tok.decode(tok.encode(text)) == text


def test_random_unicode_round_trips(tok):
    for seed in range(300):
        text = random_text(seed)
        assert tok.decode(tok.encode(text)) == text, f"seed {seed}"


def test_python_and_rust_cut_into_the_same_pieces():
    """Training cuts with Python's re, encoding with tiktoken's Rust: a word learned as one piece is
    encoded as one."""
    text = "The cat's 12 hats,\n\n  <<3+4=7>> cost_of $1.50 #### 9\n"
    tok = tokenizer.train([text] * 2, words=dict.fromkeys(re.findall(tokenizer.PATTERN, text)))
    assert [tok.decode([i]) for i in tok.encode(text)] == re.findall(tokenizer.PATTERN, text)


def test_every_byte_is_a_token_of_its_own(tok):
    surface = [tok.encoding.decode_single_token_bytes(i) for i in range(256)]
    assert surface == [bytes([i]) for i in range(256)]


def test_training_twice_gives_the_same_vocabulary_and_order(tok):
    again = tokenizer.train(list(TEXTS))
    assert again.state() == tok.state()
    assert again.encode("the cat 123") == tok.encode("the cat 123")


def test_another_text_gives_another_vocabulary(tok):
    assert tokenizer.train(["entirely different words, words"] * 5).state() != tok.state()


@pytest.mark.parametrize("size", [258, 300, 512])
def test_vocabulary_keeps_to_its_bound(size):
    rng = random.Random(0)
    rich = [" ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(3000))]
    tok = tokenizer.train(rich, vocab_size=size)
    assert tok.n_vocab == size  # text as rich as this fills it
    assert max(tok.encode(rich[0])) < size


def test_default_vocabulary_is_at_most_512_and_stops_where_no_pair_repeats(tok):
    assert tokenizer.train(["abcdefg"]).n_vocab == 258
    assert 258 < tok.n_vocab <= 512


def test_merging_shortens_text(tok):
    assert len(tok.encode("the cat sat")) == 3


def test_special_tokens_come_last_and_differ(tok):
    assert (tok.turn_id, tok.end_id) == (tok.n_vocab - 2, tok.n_vocab - 1)
    assert tuple(tok.stop_ids) == (tok.end_id,)


def test_one_digit_a_token_however_frequent_the_number():
    tok = tokenizer.train(["1234 1234 2024=1234 x12"] * 50)
    assert [tok.decode([i]) for i in tok.encode("1234+12")] == ["1", "2", "3", "4", "+", "1", "2"]
    assert not [r for r in tok.encoding._mergeable_ranks if len(r) > 1 and re.search(rb"[0-9]", r)]


def test_closed_vocabulary_words_are_single_tokens():
    words = ["fridge", " fridge", " countertop", "open", " été"]
    tok = tokenizer.train(TEXTS, words=words)
    assert [len(tok.encode(w)) for w in words] == [1] * len(words)
    assert len(tok.encode("open fridge")) == 2


def test_closed_vocabulary_does_not_break_the_round_trip():
    overlapping = ["ab", "bc", " the", "the", "a", "ab"]  # one byte, and one word twice
    tok = tokenizer.train(TEXTS, words=overlapping)
    for text in AWKWARD + TEXTS + ["abc abab bcab", "the then them"]:
        assert tok.decode(tok.encode(text)) == text


def test_more_words_than_the_vocabulary_holds_is_an_error():
    with pytest.raises(ValueError, match="do not hold"):
        tokenizer.train([], vocab_size=300, words=[f"w{'x' * i}" for i in range(1, 60)])


# ---- turns and special tokens ----

def test_turns_end_with_their_special_token(tok):
    assert tok.encode_turn("user", "5-1", first=True) == tok.encode("5-1") + [tok.turn_id]
    assert tok.encode_turn("assistant", "#4") == tok.encode("#4") + [tok.end_id]


def test_turns_in_a_row_decode_to_the_conversation(tok):
    ids = tok.encode_turn("user", "guess", first=True)
    ids += tok.encode_turn("assistant", "5") + tok.encode_turn("user", "more")
    assert tok.decode(ids) == "guess<|turn|>5<|end|>more<|turn|>"


def test_an_unknown_role_is_an_error(tok):
    with pytest.raises(ValueError, match="system"):
        tok.encode_turn("system", "x")


@pytest.mark.parametrize("name", tokenizer.SPECIALS)
def test_text_that_spells_a_special_token_never_yields_its_id(tok, name):
    trained_on_it = tokenizer.train([f"a {name} b"] * 50)
    for t in (tok, trained_on_it):
        ids = t.encode(f"say {name}{name} now")
        assert not {t.turn_id, t.end_id} & set(ids)
        assert t.encode_turn("assistant", name).count(t.end_id) == 1


def test_word_boundaries_are_tokens_that_begin_with_a_space_or_hold_a_newline():
    tok = tokenizer.train(TEXTS + ["x\n\n\n\ny"] * 5, words=[" fridge", "fridge"])
    surface = {i: tok.encoding.decode_single_token_bytes(i) for i in range(tok.n_vocab)}
    spaces, newlines = tok.word_boundary_ids(" "), tok.word_boundary_ids("\n")
    assert set(spaces) == {i for i, s in surface.items() if s[:1] == b" "}
    assert set(newlines) == {i for i, s in surface.items() if b"\n" in s}
    assert tok.encode(" fridge")[0] in spaces and tok.encode("fridge")[0] not in spaces
    assert {32} < set(spaces) and {10} < set(newlines)
    assert not set(newlines) & {tok.turn_id, tok.end_id}


def test_state_is_plain_and_restores_the_same_tokenizer(tok):
    state = tok.state()
    assert all(type(r) is str for r in state["ranks"])
    again = tokenizer.from_state(state)
    assert (again.state(), again.n_vocab, again.end_id) == (state, tok.n_vocab, tok.end_id)
    for text in AWKWARD + TEXTS:
        assert again.encode(text) == tok.encode(text)


# ---- public vocabularies ----

def test_half_a_surrogate_is_no_error():
    tok = tokenizer.train(["half \ud83d of a pair", "half \ud83d of a pair"])
    assert tok.decode(tok.encode("half \ud83d")) == "half \ufffd"


def test_gpt2_round_trips_and_has_our_specials_behind_its_own(gpt2):
    for text in AWKWARD + [random_text(seed) for seed in range(50)]:
        assert gpt2.decode(gpt2.encode(text)) == text
        assert not {gpt2.turn_id, gpt2.end_id} & set(gpt2.encode(text))
    assert gpt2.encode("hello world") == tiktoken.get_encoding("gpt2").encode("hello world")
    assert (gpt2.turn_id, gpt2.end_id, gpt2.n_vocab) == (50257, 50258, 50259)


def test_gpt2_state_is_its_name(gpt2):
    assert gpt2.state() == {"name": "gpt2"}
    again = tokenizer.from_state(gpt2.state())
    assert again.encode_turn("user", "hi") == gpt2.encode_turn("user", "hi")


def test_gpt2_word_boundaries_begin_with_a_space(gpt2):
    spaces = gpt2.word_boundary_ids(" ")
    assert gpt2.encode(" world")[0] in spaces and gpt2.encode("world")[0] not in spaces


@pytest.mark.parametrize("failure", [
    OSError("no route\nto host"), RuntimeError("proxy")], ids=["OSError", "another"])
def test_no_network_and_no_cache_is_one_line_naming_the_variable(monkeypatch, tmp_path, failure):
    def unreachable(*_):
        raise failure
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setattr(tiktoken.load, "read_file", unreachable)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="TIKTOKEN_CACHE_DIR") as error:
        tokenizer.load("gpt2")
    assert "\n" not in str(error.value) and "'gpt2'" in str(error.value)


def test_an_unused_id_of_a_public_vocabulary_decodes_to_a_replacement_character():
    ranks = {bytes([i]): i for i in range(256)}
    specials = {s: 300 + i for i, s in enumerate(tokenizer.SPECIALS)}
    encoding = tiktoken.Encoding("holed", pat_str=r"[\s\S]", mergeable_ranks=ranks,
                                 special_tokens=specials)
    holed = tokenizer.Tokenizer(encoding, "holed")
    assert holed.n_vocab == 302 and 280 in holed.holes
    assert holed.decode([53, 280, 54, 301]) == "5\ufffd6<|end|>"
    assert holed.word_boundary_ids(" ") == [32]


def test_unknown_name_lists_the_known_ones_in_one_line():
    with pytest.raises(ValueError, match="trained .*gpt2") as error:
        tokenizer.load("gpt5_typo")
    assert "\n" not in str(error.value) and "gpt5_typo" in str(error.value)
