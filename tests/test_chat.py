"""A public folder's tokenizer and chat template: the ids of `tokenizers` and of transformers, no
text that becomes a special token, and one line for every folder that is no good."""
import json
import random
import shutil
import sys
import time

import pytest

NEEDS = "pip install -e '.[hf]'"
tokenizers = pytest.importorskip("tokenizers", reason=NEEDS)
pytest.importorskip("jinja2", reason=NEEDS)
from tokenizers import (decoders, models, normalizers, pre_tokenizers, processors,  # noqa: E402
                        trainers)

import chat  # noqa: E402

TEXT = ["The cat sat on the mat, and the cat's mat sat on 12 or 345 cats.\n\nHow many cats?\n",
        "Η γάτα κάθεται στο χαλί. Кошка сидит на ковре. القطة على السجادة ١٢٣\n",
        "बिल्ली चटाई पर बैठी है। แมวนั่งบนเสื่อ 猫坐在垫子上 고양이 ネコ\n", "🙂👩‍👩‍👧 é ß ﬁ\t½\r\n\n\n",
        "user assistant system You are a helpful assistant named 1 + 2 = 3 #### 4\n"]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*" \
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CHATML = ("{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
TEMPLATES = {
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' "
               "%}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
               "Hugging Face<|im_end|>\n' }}{% endif %}" + CHATML,
    "qwen2.5": """{%- if tools %}
    {{- raise_exception('tools') }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "assistant" and not message.tool_calls %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content ="
              " '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ "
              "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content "
              "= bos_token + content %}{% endif %}{{ content }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n'"
              " }}{% endif %}",
    "llama2": "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + "
              "'[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] "
              "+ ' ' + eos_token }}{% endif %}{% endfor %}",
    # an added token stands before the answer (H2O-Danube)
    "danube": "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|prompt|>' + "
              "message['content'] + eos_token }}{% else %}{{ '<|answer|>' + message['content'] + "
              "eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|answer|>' }}"
              "{% endif %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
               "{{ '[INST]' + message['content'] + '[/INST]' }}{% else %}"
               "{{ message['content'] + eos_token }}{% endif %}{% endfor %}"}
SPECIALS = {  # bos, eos, others
    "smollm2": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "qwen2.5": (None, "<|im_end|>", "<|endoftext|>", "<|im_start|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>",
               "<|end_header_id|>"),
    "llama2": ("<s>", "</s>", "<unk>"),
    "danube": ("<s>", "</s>", "<unk>", "<|prompt|>", "<|answer|>"),
    "mistral": ("<s>", "</s>", "<unk>", "[INST]", "[/INST]")}
BYTE_LEVEL, SENTENCE_PIECE = ("smollm2", "qwen2.5", "llama3"), ("llama2", "danube", "mistral")


def trained(family):
    """A small tokenizer with the parts of its family's."""
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=family == "llama3"))
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family == "smollm2")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if family == "smollm2":
        first = pre_tokenizers.Digits(individual_digits=True)
        alphabet = alphabet[:235]  # SmolLM2's lacks 21 of the 256 bytes
    elif family in ("llama2", "danube"):
        library.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif family == "mistral":
        library.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", False)
    else:
        digits = "{1,3}" if family == "llama3" else ""
        first = pre_tokenizers.Split(tokenizers.Regex(WORDS % digits), "isolated")
    if family == "qwen2.5":
        library.normalizer = normalizers.NFC()
    if family in BYTE_LEVEL:
        library.pre_tokenizer = pre_tokenizers.Sequence([first, bytewise])
        library.decoder = decoders.ByteLevel()
    specials = [token for token in SPECIALS[family] if token]
    alphabet = alphabet if family in BYTE_LEVEL else []
    texts = TEXT if family in ("qwen2.5", "llama3") else TEXT[:1] + TEXT[4:5]
    library.train_from_iterator(texts * 3, trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False))
    if family == "qwen2.5":
        library.add_tokens([tokenizers.AddedToken("<tool_call>", normalized=False, special=False)])
    if family not in ("smollm2", "qwen2.5"):
        bos = specials[0]
        library.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, 0)])
    spec = json.loads(library.to_str())
    if family in SENTENCE_PIECE:
        fall_back_to_bytes(spec)
    return spec


def fall_back_to_bytes(spec):
    """SentencePiece's way: a character without a token becomes its bytes."""
    size = len(spec["model"]["vocab"])
    spec["model"]["vocab"].update((f"<0x{b:02X}>", size + b) for b in range(256))
    spec["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    spec["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{family: a folder as it is published}"""
    made = {}
    for family, template in TEMPLATES.items():
        folder = tmp_path_factory.mktemp(family)
        bos, eos = SPECIALS[family][:2]
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos,
                  "eos_token": eos, "clean_up_tokenization_spaces": False}
        if family == "qwen2.5":
            config["chat_template"] = [{"name": "default", "template": template}]
        elif family == "llama3":
            (folder / "chat_template.jinja").write_text(template)
            config["eos_token"] = {"__type": "AddedToken", "content": eos, "special": True}
        else:
            config["chat_template"] = template
        write(folder, "tokenizer.json", trained(family))
        write(folder, "tokenizer_config.json", config)
        write(folder, "generation_config.json", {"eos_token_id": [1, 2]})
        made[family] = folder
    return made


def write(folder, name, value):
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")


@pytest.fixture(params=TEMPLATES)
def family(request):
    return request.param


@pytest.fixture
def tok(folders, family):
    return chat.load(folders[family])


@pytest.fixture
def theirs(folders, family):
    """transformers' tokenizer of the same folder"""
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folders[family])


RANGES = [(0x20, 0x7f), (0xa0, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x500),
          (0x600, 0x700), (0x900, 0x980), (0xe00, 0xe80), (0x3040, 0x3100), (0x4e00, 0x9fff),
          (0xac00, 0xd7a3), (0x1f300, 0x1fad0), (0, 0x20), (0x7f, 0xa0), (0x2000, 0x2070)]
CHUNKS = ["\n\n", "\n\n\n", "\r\n", "  ", "\t", "\xa0", "\u3000", "2024", "1,080", " the", "'s",
          "👩‍👩‍👧", "é", "e\u0301", "ﬁ", "\0", "<|", "|>"]


def random_text(rng):
    parts = []
    for _ in range(rng.randrange(12)):
        low, high = rng.choice(RANGES)
        letters = "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 5)))
        parts.append(rng.choice([letters, letters, rng.choice(CHUNKS)]))
    return "".join(parts)


def random_texts(n):
    rng = random.Random(0)
    return [random_text(rng) for _ in range(n)]


def same_ids(tok, texts):
    """-> ids of the library itself, which ours must equal"""
    library = tokenizers.Tokenizer.from_file(f"{tok.folder}/tokenizer.json")
    expected = [e.ids for e in library.encode_batch_fast(texts, add_special_tokens=False)]
    for text, ids in zip(texts, expected):
        assert tok.encode(text) == ids, repr(text)
    return expected


# ---- text and ids ----

def test_random_texts_have_the_ids_of_both_libraries(tok, theirs):
    texts = random_texts(10_000)
    expected = same_ids(tok, texts)
    assert theirs(texts, add_special_tokens=False)["input_ids"] == expected
    for text, ids in zip(texts, expected):
        assert tok.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False), repr(text)


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_published_problems_have_the_ids_of_both_libraries(tok, theirs, math_files):
    texts = {value for path in math_files.values()
             for line in path.read_text(encoding="utf-8").splitlines()
             for value in json.loads(line).values() if isinstance(value, str)}
    texts = sorted(texts)
    expected = same_ids(tok, texts)
    some = theirs(texts[::10], add_special_tokens=False)["input_ids"]  # it wraps the library
    assert some == expected[::10]


def test_special_tokens_in_a_text_stay_text(tok, theirs, family):
    for name in filter(None, SPECIALS[family]):
        for text in (name, f"a{name}b", f"\n\n {name}\n\n {name}{name[:-1]}"):
            ids = tok.encode(text)
            assert tok.special[name] not in ids, text
            assert ids == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
            assert tok.decode(ids) == text
            turn, plain = (tok.encode_turn("user", t, first=True) for t in (text, "x"))
            assert turn.count(tok.special[name]) == plain.count(tok.special[name])
    assert tok.decode([tok.end_id]) == SPECIALS[family][1]


def test_ordinary_added_tokens_are_read_from_a_text(folders):
    tok = chat.load(folders["qwen2.5"])
    number = tok.library.token_to_id("<tool_call>")
    assert tok.encode("a<tool_call>b") == tok.encode("a") + [number] + tok.encode("b")


def test_a_vocabulary_that_spells_a_special_token_does_not_do_it(tmp_path):
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((c, -2.0) for c in "</s>ab▁")]
    library = tokenizers.Tokenizer(models.Unigram(pieces, 0, False))
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    library.add_special_tokens(["<unk>", "</s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {"eos_token": "</s>", "unk_token": "<unk>"})
    tok = chat.load(tmp_path)
    ids = tok.encode("a</s>b</s>")
    assert tok.end_id == 1 and 1 not in ids and tok.decode(ids) == "a</s>b</s>"
    assert 1 not in tok.encode("＜/s＞")  # the normaliser spells it
    assert 0 in tok.encode("z")  # the library's own way with what it does not know


def test_stop_tokens_are_special_even_when_tokenizer_json_forgets(tmp_path, folders):
    for name in ("<|im_end|>", "<|endoftext|>"):
        folder = changed(folders["smollm2"], tmp_path / name[2:-2])
        spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        for token in spec["added_tokens"]:
            token["special"] = token["special"] and token["content"] != name
        write(folder, "tokenizer.json", spec)
        tok = chat.load(folder)
        assert tok.stop_ids == (1, 2) and not {1, 2} & set(tok.encode(f"a{name}b"))


HOSTILE = ["", "\0", "\ud800", "a\udfffb\ud83d", "\ud83d\ude42", "\ufeffx", "\U0010ffff\U000e0001",
           " " * 5000, "\n" * 5000, "a" * 5000, "\u0301" * 2000, "".join(map(chr, range(256))),
           "<0x0A>▁Ġ", "xqFIRSTqx {{ 1 }} {% raw %}", "\u202e\u200d\x1b[2J"]


def test_special_tokens_that_only_a_list_names_are_special_too(tmp_path, folders):
    """As in transformers: the text of one stays text."""
    for name, listed in (("additional_special_tokens", ["<|mark|>"]),
                         ("extra_special_tokens", {"mark": {"content": "<|mark|>"}})):
        folder = changed(folders["qwen2.5"], tmp_path / name)
        own = json.loads((folder / "tokenizer.json").read_text())
        number = 1 + max(token["id"] for token in own["added_tokens"])
        own["added_tokens"].append({**own["added_tokens"][0], "id": number, "content": "<|mark|>",
                                    "special": False})
        (folder / "tokenizer.json").write_text(json.dumps(own))
        assert number in chat.load(folder).encode("a <|mark|> b")  # an ordinary added token
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, name: listed}))
        assert number not in chat.load(folder).encode("a <|mark|> b")


def test_no_text_is_refused(tok):
    for text in HOSTILE + ["".join(HOSTILE)]:
        assert isinstance(tok.decode(tok.encode(text)), str)
        for role in ("user", "assistant"):
            turn = tok.encode_turn(role, text, first=True)
            assert all(0 <= i < tok.n_vocab for i in turn)
            tok.decode(turn)
    assert tok.encode("a\ud800b") == tok.encode("a\ufffdb")
    assert tok.encode("\ud83d\ude42") == tok.encode("🙂")


def test_all_bytes_of_a_full_vocabulary_round_trip(folders):
    tok = chat.load(folders["llama3"])
    for text in random_texts(2000) + [t for t in HOSTILE if t.isprintable()]:
        assert tok.decode(tok.encode(text)) == text


def test_a_vocabulary_without_some_bytes_or_its_unk_token_still_encodes(tmp_path, folders):
    plain = chat.load(folders["smollm2"])
    assert plain.encode("ab") == plain.encode("a\x8fb"[:1]) + plain.encode("b")
    lost = "a\U0010ffffb"
    assert plain.decode(plain.encode(lost)) != lost  # the library drops what it has no token for
    folder = changed(folders["smollm2"], tmp_path / "f")
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    spec["model"]["unk_token"] = "missing"
    write(folder, "tokenizer.json", spec)
    assert chat.load(folder).encode(lost) == plain.encode(lost)


def test_decode_shows_what_is_no_text(tok, family):
    far = tok.n_vocab + 1000
    assert tok.decode([far, -1]) == "\ufffd\ufffd"
    assert tok.decode([*tok.encode("12"), tok.end_id, far]) == "12" + SPECIALS[family][1] + "\ufffd"
    assert tok.decode([]) == ""
    part = tok.encode("猫")[:-1]
    assert "\ufffd" in tok.decode(part) and "猫" not in tok.decode(part)


def test_unused_ids_are_holes(tmp_path, folders):
    folder = changed(folders["llama3"], tmp_path / "f")
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    size = max(spec["model"]["vocab"].values()) + 1
    spec["model"]["vocab"]["ĠĠfar"] = size + 9
    write(folder, "tokenizer.json", spec)
    tok = chat.load(folder)
    assert tok.n_vocab == size + 10 and tok.holes == set(range(size, size + 9))
    assert tok.decode([size, size + 9]) == "\ufffd  far"
    assert not chat.load(folders["llama3"]).holes


def test_word_boundaries_are_ordinary_tokens(tok):
    for mark in (" ", "\n"):
        found = tok.word_boundary_ids(mark)
        assert found and not set(found) & set(tok.special.values())
        for i in set(range(tok.n_vocab)) - tok.holes - set(tok.special.values()):
            # behind another token, because a decoder may strip the first space
            shown = tok.decode([*tok.encode("x"), i])[len(tok.decode(tok.encode("x"))):]
            assert (i in found) == (shown.startswith(mark) if mark == " " else mark in shown), shown


def test_a_special_token_with_a_space_is_no_word_boundary(tmp_path, folders):
    library = tokenizers.Tokenizer.from_file(str(folders["smollm2"] / "tokenizer.json"))
    library.add_special_tokens([" \n<pad>"])
    folder = changed(folders["smollm2"], tmp_path / "f")
    library.save(str(folder / "tokenizer.json"))
    for mark in (" ", "\n"):
        found, before = (chat.load(f).word_boundary_ids(mark) for f in (folder, folders["smollm2"]))
        assert found == before


def test_what_a_file_says_of_training_is_not_done(tmp_path, folders):
    """Truncation, padding and random cuts."""
    folder = changed(folders["smollm2"], tmp_path / "f")
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.enable_truncation(3)
    library.enable_padding(length=50, pad_id=9)
    library.model.dropout = 0.5
    library.save(str(folder / "tokenizer.json"))
    tok, plain = chat.load(folder), chat.load(folders["smollm2"])
    for text in TEXT[0].split(".") * 5:
        assert tok.encode(text) == plain.encode(text)


def test_ten_thousand_prompts_take_seconds(tok):
    start = time.perf_counter()
    for i in range(10_000):
        tok.encode_turn("user", f"Tom has {i} apples and gives away 7 of them. How many are left?")
    assert time.perf_counter() - start < 20


# ---- turns ----

CONVERSATION = ["How many cats?", "4", "\n\n and 12 mats?", "Кошка: 12\n\nउत्तर 345", " \t 猫？ \n",
                "x = 1", "a\n\n\n"]


def turns(tok, texts):
    return [tok.encode_turn("assistant" if i % 2 else "user", text, first=not i)
            for i, text in enumerate(texts)]


def official(theirs, texts):
    messages = [{"role": "assistant" if i % 2 else "user", "content": text}
                for i, text in enumerate(texts)]
    return theirs.apply_chat_template(messages, tokenize=True, return_dict=False,
                                      add_generation_prompt=True)


def test_turns_join_to_the_official_rendering(tok, theirs):
    for n in range(1, len(CONVERSATION) + 1, 2):
        assert sum(turns(tok, CONVERSATION[:n]), []) == official(theirs, CONVERSATION[:n])


def test_turns_of_random_texts_join_to_the_official_rendering(tok, theirs):
    texts = random_texts(900)
    for i in range(0, 900, 3):
        texts[i + 1] = "So: " + texts[i + 1].strip() + "."
        three = texts[i:i + 3]
        assert sum(turns(tok, three), []) == official(theirs, three), three


def test_an_answer_is_its_text_and_the_end(folders):
    for family in BYTE_LEVEL:
        tok = chat.load(folders[family])
        assert tok.encode_turn("assistant", "12 cats") == tok.encode("12 cats") + [tok.end_id]
        stripped = family == "llama3"  # its template strips every text
        assert tok.encode_turn("assistant", " 4\n")[:-1] == tok.encode("4" if stripped else " 4\n")


def test_all_stop_ids_are_found(tok, family, folders, tmp_path):
    assert (tok.decode([tok.end_id]), tok.stop_ids[0]) == (SPECIALS[family][1], tok.end_id)
    assert set(tok.stop_ids) == {1, 2, tok.end_id} and len(set(tok.stop_ids)) == len(tok.stop_ids)
    folder = changed(folders[family], tmp_path / "f", generation_config={"eos_token_id": None},
                     config={"eos_token_id": 2, "other": [1]})
    assert chat.load(folder).stop_ids == tuple(dict.fromkeys([tok.end_id, 2]))


THINKS = """{{ 'é<' | tojson }}
{% if tools is not none %}
    {{ raise_exception('tools') }}
{% endif %}
{% for message in messages %}
    {% if message.role == 'assistant' and '</think>' in message.content %}
        {%- generation %}{{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1] }}
        {%- endgeneration %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""


def test_what_was_sampled_stays_as_sampled(tmp_path, folders):
    """A template that drops the thoughts of earlier answers, and begins one for the model."""
    tok = chat.load(changed(folders["smollm2"], tmp_path / "f", template=THINKS))
    texts = ["2+2?", "2 and 2</think>4", "3+3?"]
    ids = sum(turns(tok, texts), [])
    assert tok.decode(ids) == (
        '"é<"\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<think>\n2 and 2</think>4'
        "<|im_end|>\n<|im_start|>user\n3+3?<|im_end|>\n<|im_start|>assistant\n<think>\n")


def test_a_base_model_has_turns_of_its_own(tmp_path, folders):
    said = {"smollm2": "", "qwen2.5": "", "llama3": "<|begin_of_text|>", "llama2": "<s>",
            "mistral": "<s>"}
    for family, bos in said.items():
        tok = chat.load(changed(folders[family], tmp_path / family, template=""))
        first, answer, later = turns(tok, ["2+2?", "4", "3+3?"])
        end = SPECIALS[family][1]
        assert first == ([tok.special[bos]] if bos else []) + tok.encode("2+2?\n")
        assert (tok.decode(answer), answer[-1]) == (f"4{end}", tok.end_id)
        assert (tok.decode(later), tok.end_id) == ("3+3?\n", tok.special[end])


def test_bos_is_put_where_the_settings_ask_for_it(tmp_path, folders):
    folder = changed(folders["smollm2"], tmp_path / "f", template="", add_bos_token=True)
    tok = chat.load(folder)
    assert tok.encode_turn("user", "a", first=True) == [0, *tok.encode("a\n")]
    assert tok.encode_turn("user", "a") == tok.encode("a\n")


def test_wrong_roles_are_refused(tok):
    for wrong in (lambda: tok.encode_turn("system", "x"), lambda: tok.role_id("<|obs|>")):
        with pytest.raises(ValueError, match="role"):
            wrong()


# ---- checkpoints ----

def test_a_checkpoint_finds_its_folder_again(tok):
    state = json.loads(json.dumps(tok.state()))
    again = chat.from_state(state)
    assert (again.state(), again.stop_ids, again.n_vocab) == (state, tok.stop_ids, tok.n_vocab)
    assert again.encode_turn("user", "a b", True) == tok.encode_turn("user", "a b", True)


def test_a_checkpoint_keeps_the_day_of_its_preamble(tmp_path, folders, monkeypatch):
    dated = ("{{ '<|im_start|>system\\nToday ' + strftime_now('%d %b %Y') + '<|im_end|>\\n' }}"
             + TEMPLATES["smollm2"])
    folder = changed(folders["smollm2"], tmp_path / "f", template=dated)
    tok = chat.load(folder)
    asked = tok.encode_turn("user", "a b", True)
    assert chat.datetime.now().strftime("Today %d %b %Y") in tok.decode(asked)

    class Later(chat.datetime):
        @classmethod
        def now(cls):
            return cls(2031, 1, 2)
    monkeypatch.setattr(chat, "datetime", Later)
    assert chat.from_state(tok.state()).encode_turn("user", "a b", True) == asked
    assert "Today 02 Jan 2031" in tok.decode(chat.load(folder).encode_turn("user", "a b", True))


def one_line(call, *args):
    with pytest.raises(ValueError) as error:
        call(*args)
    assert "\n" not in str(error.value) and 20 < len(str(error.value)) < 500
    return str(error.value)


def test_a_changed_or_missing_folder_is_refused(tmp_path, folders):
    folder = changed(folders["qwen2.5"], tmp_path / "f")
    state = chat.load(folder).state()
    write(folder, "config.json", {"torch_dtype": "float32"})  # says nothing about ids
    assert chat.from_state(state).state() == state
    for name, value in (("config.json", {"eos_token_id": 7}), ("special_tokens_map.json", {}),
                        ("chat_template.jinja", TEMPLATES["smollm2"])):
        write(folder, name, value)
        assert "has changed" in one_line(chat.from_state, state)
        (folder / name).unlink()
    chat.from_state(state)
    shutil.rmtree(folder)
    assert "is missing" in one_line(chat.from_state, state)


# ---- folders that are no good ----

def changed(folder, to, template=None, generation_config=None, config=None, **settings):
    """A copy of a folder with other settings. template: "": none."""
    shutil.copytree(folder, to)
    their = {**json.loads((to / "tokenizer_config.json").read_text("utf-8")), **settings}
    if template is not None:
        (to / "chat_template.jinja").unlink(missing_ok=True)
        their["chat_template"] = template
    write(to, "tokenizer_config.json", their)
    if generation_config is not None:
        write(to, "generation_config.json", generation_config)
    if config is not None:
        write(to, "config.json", config)
    return to


def spoiled(key, value):
    """tokenizer.json with one more part, or another"""
    def change(text):
        spec = json.loads(text)
        where = spec
        *path, last = key.split(".")
        for name in path:
            where = where[name]
        where[last] = value
        return json.dumps(spec)
    return change


DEEP = "[" * 100_000
REGEX = {"type": "Split", "pattern": {"Regex": "(x"}, "behavior": "Isolated", "invert": False}
PANICS = {"type": "Replace", "pattern": {"String": ""}, "content": "a"}
BAD = {  # name -> file, what it holds, a word of the error
    "no file": ("tokenizer.json", None, "save_pretrained"),
    "empty": ("tokenizer.json", "", "tokenizer.json"),
    "null": ("tokenizer.json", "null", "tokenizer.json"),
    "deep": ("tokenizer.json", DEEP, "tokenizer.json"),
    "not utf-8": ("tokenizer.json", b"\xff\xfe{", "Unicode"),
    "no vocabulary": ("tokenizer.json", spoiled("model.vocab", {}), "tokenizer.json"),
    "a vocabulary of texts": ("tokenizer.json", spoiled("model.vocab.a", "a"), "tokenizer.json"),
    "a huge id": ("tokenizer.json", spoiled("model.vocab.zz", 2**32 - 1), "ids below"),
    "a bad pattern": ("tokenizer.json", spoiled("pre_tokenizer", REGEX), "tokenizer.json"),
    "a panic": ("tokenizer.json", spoiled("normalizer", PANICS), "Panic"),
    "a panic while loading": (
        "tokenizer.json", spoiled("model.continuing_subword_prefix", "猫猫"), "Panic"),
    "settings are a list": ("tokenizer_config.json", "[]", "no JSON object"),
    "settings are deep": ("tokenizer_config.json", DEEP, "RecursionError"),
    "settings not utf-8": ("tokenizer_config.json", b"\xff", "Unicode"),
    "settings cut short": ("tokenizer_config.json", '{"eos_token"', "JSONDecodeError"),
    "a token is a number": ("tokenizer_config.json", '{"eos_token": 3}', "eos_token"),
    "a token holds a list": ("special_tokens_map.json", '{"eos_token": {"content": []}}', "eos_"),
    "a stop id is text": ("config.json", '{"eos_token_id": "2"}', "eos_token_id"),
    "a stop id is true": ("config.json", '{"eos_token_id": [2, true]}', "eos_token_id"),
    "a stop id is negative": ("generation_config.json", '{"eos_token_id": -1}', "eos_token_id"),
    "templates without a default": (
        "tokenizer_config.json", '{"chat_template": [{"name": "rag", "template": "x"}, 1]}',
        "default"),
    "a template is a number": ("tokenizer_config.json", '{"chat_template": 7}', "chat_template"),
    "a template does not compile": ("chat_template.jinja", "{% for %}\n{{", "template"),
    "a template raises": ("chat_template.jinja", "{{ raise_exception('a\nb') }}", "template"),
    "a template recurses": (
        "chat_template.jinja", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "Recursion"),
    "a template breaks out": ("chat_template.jinja", "{{ ''.__class__.__mro__[1].x() }}", "Secur"),
    "a template drops texts": ("chat_template.jinja", "hello", "every message once"),
    "a template not utf-8": ("chat_template.jinja", b"\xff", "Unicode")}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_gives_one_line(name, tmp_path, folders):
    file, value, word = BAD[name]
    folder = changed(folders["smollm2"], tmp_path / "f")
    if value is None:
        (folder / file).unlink()
    elif isinstance(value, bytes):
        (folder / file).write_bytes(value)
    else:
        old = (folder / "tokenizer.json").read_text("utf-8")
        write(folder, file, value(old) if callable(value) else value)
    assert word in one_line(chat.load, folder)


def test_a_folder_without_a_stop_token_is_refused(tmp_path, folders):
    folder = changed(folders["smollm2"], tmp_path / "f", template="", eos_token=None,
                     generation_config={}, config={"eos_token_id": 10**6})
    assert "eos_token" in one_line(chat.load, folder)
    assert "tokenizer.json" in one_line(chat.load, tmp_path / "nowhere")


@pytest.mark.parametrize("library", ["tokenizers", "jinja2"])
def test_a_missing_library_is_named(library, folders, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, library + ".sandbox", raising=False)
    message = one_line(chat.load, folders["smollm2"])
    assert library in message and NEEDS in message


# ---- a real model ----

def test_smollm2_has_the_ids_and_the_turns_of_transformers(smollm2, math_files):
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    tok, theirs = chat.load(smollm2), transformers.AutoTokenizer.from_pretrained(smollm2)
    texts = random_texts(10_000)
    for path in math_files.values():
        lines = path.read_text(encoding="utf-8").splitlines()[::5]  # all of them: equal, in 40 s
        texts += [str(value) for line in lines for value in json.loads(line).values()]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert [text for text, ids in zip(texts, expected) if tok.encode(text) != ids] == []
    said = ["Hi there", "Hello! How are you?", "What is 18 + 6?\n\nThink.", "24", "ok"]
    roles = ["user", "assistant"] * 3
    whole = theirs.apply_chat_template(
        [{"role": role, "content": text} for role, text in zip(roles, said)],
        add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    turns = [tok.encode_turn(role, text, first=not i)
             for i, (role, text) in enumerate(zip(roles, said))]
    assert sum(turns, []) == whole
