"""Words in every script: training's `re` and the encoder's Rust cut alike, so that a frequent word
becomes one token; and every text round-trips."""
import random
import re
import unicodedata

import pytest

import tokenizer

WORDS = """हिन्दी क्षत्रिय বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം ગુજરાતી ਪੰਜਾਬੀ සිංහල ภาษาไทย
สวัสดี ລາວ မြန်မာ ខ្មែរ བོད་སྐད العَرَبِيَّة عربي می‌خواهم اردو שָׁלוֹם עברית 한국어 日本語 にほんご 汉语 ελληνικά русский ქართული
հայերեն አማርኛ Việt café naïve Straße İstanbul Ångström""".split()
WORDS += [unicodedata.normalize("NFD", word) for word in WORDS]
FIXED = {  # what an ASCII text is cut into: as it always was
    "The cat's 12 hats,\n\n  <<3+4=7>> cost_of $1.50": [
        "The", " cat", "'", "s", " ", "1", "2", " hats", ",", "\n\n ", " <<", "3", "+", "4",
        "=", "7", ">>", " cost", "_", "of", " $", "1", ".", "5", "0"],
    "a  b\t\tc \n": ["a", " ", " b", "\t", "\t", "c", " \n"],
    "__init__ [x]\\^`{~}": ["__", "init", "__", " [", "x", "]\\^`{~}"]}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_seen_50_times_is_one_token(word):
    for text in (f"a {word} b", f"a {word}, b", f"1 {word}.\n"):
        tok = tokenizer.train([text] * 50)
        assert len(tok.encode(f" {word}")) == 1
        assert tok.decode(tok.encode(text)) == text


def test_frequent_words_are_tokens_in_prose():
    text = " ".join(f"x {word} y" for word in WORDS)
    tok = tokenizer.train([text] * 5, 512 + len(WORDS), tokenizer.frequent([text] * 5))
    assert all(len(tok.encode(f" {word}")) == 1 for word in WORDS)


@pytest.mark.parametrize("text", FIXED)
def test_ascii_is_cut_as_it_always_was(text):
    assert re.findall(tokenizer.PATTERN, text) == FIXED[text]


def odd_text(rng):
    ends = 128, 0x300, 0x1000, 0x3000, 0x110000
    points = [rng.randrange(rng.choice(ends)) for _ in range(60)]
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


def test_python_and_rust_cut_any_text_alike():
    """Every piece is made a token: encoding finds just these."""
    rng = random.Random(0)
    for text in [*FIXED, " ".join(WORDS), *(odd_text(rng) for _ in range(300))]:
        pieces = re.findall(tokenizer.PATTERN, text)
        assert "".join(pieces) == text
        tok = tokenizer.train([text], 300 + len(pieces), words=pieces)
        found = [tok.encoding.decode_single_token_bytes(token) for token in tok.encode(text)]
        assert found == [piece.encode() for piece in pieces], text


def test_every_character_is_in_one_class():
    one = re.compile(tokenizer.PATTERN)
    for number in range(0x110000):
        if not 0xD800 <= number < 0xE000:
            assert one.fullmatch(chr(number)), hex(number)


def test_blanks_and_digits_of_other_scripts():
    for number in range(0x3001):
        found = chr(number)
        if found.isspace() and number not in range(0x1C, 0x20):
            assert re.fullmatch(f"[{tokenizer.BLANK}]", found), hex(number)
    for text in ("٣٤", "४२", "๑๒", "１２", "12"):
        assert re.findall(tokenizer.PATTERN, text) == list(text)
