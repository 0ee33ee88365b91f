"""Files as people have them, for every loader: a byte order mark, CRLF, NUL, half a surrogate pair,
accents apart, brackets without end, a field of the wrong type. They are read, or refused in one
line that names the file and the place."""
import copy
import json

import pytest

from envs import gsm8k
from envs.alfworld import ALFWorld, files as alfworld_files
from envs.lib import text
from envs.math.files import read_file as read_math
from envs.searchqa import files as searchqa
from envs.webshop import files as webshop, made
from searchqa_made import COLUMNS, HOTPOT, MUSIQUE, PASSAGE, SDS, TRIVIA, TWO_WIKI

GSM = {"question": "How many?", "answer": "2+2=<<2+2=4>>4\n#### 4"}
SVAMP = {"Body": "Two cats.", "Question": "How many?", "Equation": "( 2.0 )", "Answer": 2.0}
MAWPS = {"input": "3 and 4?", "target": 7.0}
FIRST = {"iIndex": 1, "sQuestion": "3 and 4?", "lEquations": ["X=3+4"], "lSolutions": [7.0]}
ASDIV = {"body": "Seven apples, two more.", "question": "How many?", "formula": "7+2=9",
         "answer": "9 (apples)"}
ABOUT = {"attributes": ["easy clean"], "instruction": "Find me a table",
         "instruction_attributes": ["easy clean"]}
SAID = {"instruction": "i need a table.", "instruction_attributes": ["easy clean"],
        "instruction_options": ["oak"]}
WRONG = [None, True, 3, -0.5, "", "x", [], [[]], [None], [3], {}, {"x": [3]}, [{}], [["a", 3]]]
NESTED = ["[" * 100_000, '{"a":' * 100_000, '{"question": ' + "[" * 100_000]


# ---- one record of each kind, as a file, and how it is read ----

def shop(folder, table=made.TABLE, about=ABOUT, said=(SAID,)):
    contents = {"items_shuffle_1": [table], "items_ins_v2_1": {table["asin"]: about},
                "items_human_ins": {table["asin"]: said}}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return webshop.read(str(folder))


def lines_of(read):
    def go(folder, record):
        path = folder / "some.jsonl"
        path.write_text(json.dumps(record) + "\n")
        return read(str(path))
    return go


def question(path):
    """A question, and what is done with it when it is played."""
    (found,) = searchqa.read_questions(path)
    for answer in found.answers:
        searchqa.exact_match("x", answer), searchqa.f1("x", answer)
    return found


READERS = {
    "gsm8k": (GSM, lines_of(gsm8k.read_jsonl)), "svamp": (SVAMP, lines_of(gsm8k.read_jsonl)),
    "mawps": (MAWPS, lines_of(gsm8k.read_jsonl)), "asdiv": (ASDIV, lines_of(gsm8k.read_jsonl)),
    "mawps, as first published": (FIRST, lines_of(gsm8k.read_jsonl)),
    **{name: (record, lines_of(question)) for name, record in {
        "hotpot": HOTPOT, "columns": COLUMNS, "2wiki": TWO_WIKI, "musique": MUSIQUE,
        "trivia": TRIVIA, "sds": SDS, "evouna": {"question": "Q?", "golden_answer": "a/b"},
        "flashrag": {"question": "Q?", "golden_answers": ["a"]},
        "popqa": {"question": "Q?", "possible_answers": '["a"]'}}.items()},
    "corpus": ({"title": "Nile", "text": "A river."},
               lines_of(lambda path: list(searchqa.read_corpus(path)))),
    "contents": ({"contents": '"Nile"\nA river.'},
                 lines_of(lambda path: list(searchqa.read_corpus(path)))),
    "products": (made.TABLE, lambda folder, record: shop(folder, table={
        **record, "asin": record.get("asin") if isinstance(record.get("asin"), str) else "B1"})),
    "attributes": (ABOUT, lambda folder, record: shop(folder, about=record)),
    "instructions": ([SAID], lambda folder, record: shop(folder, said=record))}


def places(value, path=()):
    """The paths to all that is in a record."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def put(record, path, value):
    record = copy.deepcopy(record)
    at = record
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return record


def without(record, path):
    record = copy.deepcopy(record)
    at = record
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return record


@pytest.mark.parametrize("name", READERS)
def test_any_field_may_be_of_the_wrong_type_or_missing(name, tmp_path):
    record, read = READERS[name]
    assert read(tmp_path, record)
    paths = [path for path in places(record) if path]
    records = [put(record, path, wrong) for path in paths for wrong in WRONG]
    records += [without(record, path) for path in paths]
    refused = 0
    for broken in records:
        try:
            read(tmp_path, broken)
        except ValueError as error:
            refused += 1
            assert str(error).startswith((str(tmp_path), "webshop: ")), (error, broken)
            assert "\n" not in str(error) and type(error) is ValueError
    assert refused > len(records) / 8


@pytest.mark.parametrize("name", [name for name in READERS if name not in (
    "products", "attributes", "instructions")])
@pytest.mark.parametrize("record", [None, 3, "x", [3], [[]], [None]])
def test_a_record_that_is_none_is_named(name, record, tmp_path):
    with pytest.raises(ValueError, match="some.jsonl"):
        READERS[name][1](tmp_path, record)


@pytest.mark.parametrize("content", NESTED, ids=range(3))
@pytest.mark.parametrize("read", [
    gsm8k.read_jsonl, searchqa.read_questions, lambda path: list(searchqa.read_corpus(path))])
def test_brackets_without_end(read, content, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        read(str(path))
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["items_shuffle_1", "items_ins_v2_1", "items_human_ins"])
@pytest.mark.parametrize("content", [NESTED[0], b"\xff\xfe[\x00", b"[\x00]", b"[\n\xe9]", b""])
def test_a_shops_file_that_is_none(name, content, tmp_path):
    shop(tmp_path)
    path = tmp_path / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        webshop.read(str(tmp_path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("broken, told", [
    ({"table": {**made.TABLE, "small_description": [None]}}, "product 1: a part of small_desc"),
    ({"table": {**made.TABLE, "customization_options": []}}, "product 1: customization_options"),
    ({"table": {**made.TABLE, "customization_options": {"Size": "7"}}}, "product 1: Size"),
    ({"about": {**ABOUT, "attributes": "easy clean"}}, "v2_1.json, B000000001: attributes is no l"),
    ({"about": {**ABOUT, "attributes": None}}, "v2_1.json, B000000001: attributes is no list"),
    ({"about": []}, "v2_1.json, B000000001: it is no object"),
    ({"said": SAID}, "human_ins.json, B000000001: it is no list"),
    ({"said": None}, "human_ins.json, B000000001: it is no list"),
    ({"said": [SAID, "i need"]}, "human_ins.json, B000000001: it is no object"),
    ({"said": [{**SAID, "instruction_options": None}]}, "instruction_options is no list"),
    ({"said": [{**SAID, "instruction_attributes": "easy clean"}]}, "instruction_attributes")])
def test_a_wrong_entry_of_a_shop_is_named_with_its_file(broken, told, tmp_path):
    with pytest.raises(ValueError) as error:
        shop(tmp_path, **broken)
    assert told in str(error.value) and str(tmp_path) in str(error.value)


# ---- text ----

ODD = "cafe\u0301\r\nA\0B\ufeff\ud83d C\rD \ude00"
READ = "caf\u00e9\nA\ufffdB\ufffd C\nD \ufffd"
FOUND = " ".join(READ.split())  # where white space is one blank


def test_any_text_comes_out_clean():
    assert text.clean(ODD) == READ and text.clean("plain\n") == "plain\n"
    assert text.parse_json(r'{"e\u0301": ["\ud83d", "\ud83d\ude00", "\u0000"]}') == {
        "é": ["\ufffd", "😀", "\ufffd"]}
    for number in range(0x110000):
        assert text.clean(chr(number)).encode() is not None


def test_odd_text_in_any_field_is_read(tmp_path):
    ((asked, solution),) = lines_of(gsm8k.read_jsonl)(tmp_path, {
        "question": ODD, "answer": f"{ODD}\r\n#### 4"})
    assert asked == READ and solution == f"{READ}\n#### 4"
    found = lines_of(question)(tmp_path, {
        **HOTPOT, "question": ODD, "answer": ODD, "context": [[ODD, [ODD]]],
        "supporting_facts": [[ODD, 0]]})
    assert (found.text, found.answers, found.titles) == (FOUND, (FOUND,), (FOUND,))
    assert found.passages == [(FOUND, FOUND)]
    table = {**made.TABLE, "name": ODD, "small_description": [ODD],
             "customization_options": {ODD: [{"value": ODD}]}}
    ((product,), (goal,)) = shop(tmp_path, table, said=[{**SAID, "instruction": ODD}])
    assert (product.name, product.bullets) == (READ, [READ]) and goal.text.startswith(READ)
    assert product.options == {READ.lower(): [FOUND.lower()]}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_other_line_ends(mark, end, tmp_path):
    def write(name, *lines):
        path = tmp_path / name
        path.write_bytes((mark + end.join(lines) + end).encode())
        return str(path)
    math = [json.dumps(record) for record in (GSM, SVAMP, MAWPS, FIRST, ASDIV)]
    for path in (write("m.jsonl", math[0], "", *math[1:]), write("m.json", "[", ",".join(math), "]")):
        assert [(asked, text.rpartition("#### ")[2]) for asked, text in gsm8k.read_jsonl(path)] == [
            ("How many?", "4"), ("Two cats. How many?", "2.0"), ("3 and 4?", "7.0"),
            ("3 and 4?", "7.0"), ("Seven apples, two more. How many?", "9")]
        assert [answer for _, answer, _ in read_math(path)] == ["4", "2", "7", "7", "9"]
    nq = json.dumps({"question": "Q?", "answer": ["a"]})
    for path in (write("q.jsonl", nq, nq), write("q.json", f"[{nq},", f"{nq}]"),
                 write("q.csv", "Question,Answer", "Q?,a", '"Q?",a'),
                 write("q.tsv", 'question\tanswer', 'Q?\ta', 'Q?\ta')):
        assert [q[:2] for q in searchqa.read_questions(path)] == [("Q?", ("a",))] * 2
    assert list(searchqa.read_corpus(write("c.jsonl", json.dumps(
        {"title": PASSAGE[0], "text": PASSAGE[1]})))) == [PASSAGE]
    shop(tmp_path)
    for name in ("items_shuffle_1", "items_ins_v2_1", "items_human_ins"):
        content = json.loads((tmp_path / f"{name}.json").read_text())
        write(f"{name}.json", *json.dumps(content, indent=1).split("\n"))
    assert webshop.read(str(tmp_path))[1][0].text.startswith("i need a table")


@pytest.mark.parametrize("content, place", [
    (b'{"question": "a", "answer": "#### 4"}\n\n{"question": "caf\xe9", "answer": "#### 4"}\n', 3),
    (b'{"question": "a", "answer": "#### 4"}\n{"question": "a\x00b", "answer": "#### 4"}\n', 2),
    (b'{"question": "a", "answer": "#### 4"}\n{"question": "\xed\xa0\xbd", "answer": "#### 4"}', 2),
    (b'{"question": "a", "answer": "#### 4"}\n{"question": " ", "answer": "#### 5"}\n', 2)])
def test_the_line_is_named(content, place, tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        gsm8k.read_jsonl(str(path))
    assert str(error.value).startswith(f"{path}, line {place}") and "\n" not in str(error.value)
    path.write_bytes(content.replace(b"####", b"").replace(b"5 apples", b"").replace(b" ", b""))
    if place == 3 or b"\x00" in content or b"\xed" in content:
        with pytest.raises(ValueError, match=f"record 1: line {place}"):
            searchqa.read_questions(str(path))


def test_games_of_alfworld_are_found_whatever_their_bytes(tmp_path):
    for number, content in enumerate((b"", b"\xff\xfe", b"\xef\xbb\xbf{}", NESTED[0].encode())):
        folder = tmp_path / f"json_2.1.1/train/pick_and_place_simple-Mug-None-Desk-{number}/trial"
        folder.mkdir(parents=True)
        (folder / "game.tw-pddl").write_bytes(content)
    assert len(alfworld_files.read_folder(tmp_path, "train")) == 4


GAME = {"pddl_domain": "(define)", "pddl_problem": "p",
        "grammar": 'x;"Your task is to: put a mug."'}


@pytest.mark.parametrize("content", [
    b"", b"\xff\xfe", b"[]", b"null", NESTED[0].encode(), b'{"grammar": "\x00"}', b"{",
    *(json.dumps({**GAME, name: wrong}).encode() for name in GAME for wrong in WRONG
      if not isinstance(wrong, str)),
    *(json.dumps({**GAME, "walkthrough": wrong}).encode() for wrong in ("look", 3, [3], {"a": 1})),
    json.dumps({**GAME, "grammar": "no task"}).encode()])
def test_a_game_of_alfworld_that_is_none_is_named(content, tmp_path):
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(content)
    task = alfworld_files.Task(str(path), "task/trial", "clean")
    env = ALFWorld({"train": [task]})
    with pytest.raises(ValueError) as error:
        env.reset(0, "train")
    assert str(error.value).startswith(f"{path}: no game in it (ValueError") and (
        "\n" not in str(error.value))
