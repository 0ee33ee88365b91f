"""Load and save public weights: the Llama, Qwen2 (2.5) and Qwen3 families, Hugging Face format.

    model = GPT.from_pretrained("Qwen2.5-0.5B")   # config.json, *.safetensors in one file or shards
    save_pretrained(model, "my-model")            # transformers' AutoModelForCausalLM can load it

The three families are one architecture here (model.py): Qwen2 has biases at queries, keys and
values, Qwen3 normalises queries and keys. Their checkpoints hold three matrices where ours has one
(`qkv`) and two where ours has one (`gate_up`); apart from that only names differ. Needs `pip
install safetensors`, the extra `hf`. Every error is a ValueError of one line. Left out: tokenizers,
sliding windows, quantised weights, rope scalings other than Llama 3's. """
import json
import os
from pathlib import Path

import torch

import run

# model_type -> what it adds
FAMILIES = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}}
UNSUPPORTED = {  # setting -> the only value that this model can do
    "use_sliding_window": False, "attention_bias": False, "mlp_bias": False,
    "quantization_config": None, "partial_rotary_factor": 1.0, "hidden_act": "silu"}
LLAMA3 = (  # GPTConfig.rope_llama3, in order
    "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


# ---- config.json ----

def read_config(folder, context=0):
    """config.json -> a GPTConfig's fields. context: longest row in tokens; 0: the model's own."""
    path = Path(folder) / "config.json"
    try:
        their = json.loads(path.read_text(encoding="utf-8"))
        family = their["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no model's configuration "
                         f"({type(error).__name__}: {error})") from None
    if family not in FAMILIES:
        raise ValueError(f"{path}: unknown architecture {family!r}; one of: {' '.join(FAMILIES)}")
    for name, only in UNSUPPORTED.items():
        if their.get(name, only) != only:
            raise ValueError(f"{path}: {name} = {their[name]!r} is not supported")
    if set(their.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError(f"{path}: layers with sliding windows are not supported")
    rope = their.get("rope_parameters")
    if not rope:  # the older spelling
        rope = {"rope_theta": their.get("rope_theta", 10000.0), **(their.get("rope_scaling") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"{path}: rope scaling {kind!r} is not supported")
    try:
        heads = their["num_attention_heads"]
        return {
            "vocab_size": their["vocab_size"],
            "context": context or their["max_position_embeddings"],
            "layers": their["num_hidden_layers"],
            "heads": heads,
            "kv_heads": their.get("num_key_value_heads") or heads,
            "width": their["hidden_size"],
            "head_width": their.get("head_dim") or their["hidden_size"] // heads,
            "ffn_width": their["intermediate_size"],
            "rope_base": float(rope["rope_theta"]),
            "rope_llama3": tuple(float(rope[name]) for name in LLAMA3) if kind == "llama3" else (),
            "norm_eps": their.get("rms_norm_eps", 1e-6),
            "tied": their.get("tie_word_embeddings", False),
            **FAMILIES[family]}
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}") from None


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
        if index.exists():
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
    used = {"lm_head.weight"} if model.cfg.tied else set()
    for name, ours in model.state_dict().items():
        if name == "head.weight" and model.cfg.tied:
            continue
        pieces = []
        for their, rows in their_names(name, model.cfg):
            if their not in found:
                raise ValueError(f"{folder} lacks the tensor {their}")
            shape = found[their].get_slice(their).get_shape()
            wanted = [rows or ours.shape[0], *ours.shape[1:]]
            if shape != wanted:
                raise ValueError(f"{folder}: {their} has shape {shape}, "
                                 f"the configuration says {wanted}")
            pieces.append(found[their].get_tensor(their).to(dtype))
            used.add(their)
        state[name] = torch.cat(pieces)
    extra = [name for name in found
             if name not in used and not name.endswith("rotary_emb.inv_freq")]
    if extra:
        raise ValueError(f"{folder} has tensors that this model has no place for: "
                         f"{', '.join(sorted(extra)[:3])}")
    if model.cfg.tied:
        state["head.weight"] = state["embed.weight"]
    return state


def save_pretrained(model, folder):
    """Write config.json and model.safetensors, each whole or not at all."""
    torch_format, folder = library().torch, Path(folder)
    tensors = {}
    for name, x in model.state_dict().items():
        if not (name == "head.weight" and model.cfg.tied):
            theirs = their_names(name, model.cfg)
            pieces = x.cpu().split([rows or len(x) for _, rows in theirs])
            tensors.update({their: piece.contiguous() for (their, _), piece in zip(theirs, pieces)})
    config = json.dumps(written_config(model.cfg), indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    torch_format.save_file(tensors, folder / "model.safetensors.tmp", metadata={"format": "pt"})
    os.replace(folder / "model.safetensors.tmp", folder / "model.safetensors")
    run.write(str(folder / "config.json"), config)
