"""The models a run starts from: a checkpoint, a run's folder, or a folder of public weights.

Read them, hold them against what you asked for, and see whether all of it fits into memory. What
makes a model that is not there yet is in sft.py (`starting_points`).
"""
import os

import torch

import chat
import lora
import run
import tokenizer
import weights
from lib import memory
from model import GPT, GPTConfig
from sampler import choose_compile, sampling_dtype


# ---- read a model ----

def load_models(paths, device, rank, context=0, dtype=torch.float32):
    """{role: path} -> {role: model}; says what is known of each warm start. context, dtype: of
    public weights; a checkpoint has its own."""
    models = {}
    for role, path in paths.items():
        models[role], _, state = load_model(path, device, context, dtype)
        run.check_finite(models[role].state_dict(), f"{path} (the {role})")
        if rank == 0 and weights.is_folder(path):
            print(f"{role}: {models[role].n_params():,} parameters of {path}")
        if rank == 0 and "target" in state:
            missed = f": it did NOT reach {state['target']}, expect little"
            short = "" if state["reached"] else missed
            print(f"{role}: {models[role].n_params():,} parameters, success {state['solo']:.2f} "
                  f"after {state['steps']} steps{short}")
    return models


def load_model(path, device="cpu", context=0, dtype=torch.float32):
    """A checkpoint (a file, or a run's folder) or a folder of public weights -> model, tokenizer,
    what the checkpoint holds. A run that trained adapters gives the model that they make."""
    try:
        if weights.is_folder(path):
            tok = chat.load(path)
            return GPT.from_pretrained(path, context, dtype, tok.n_vocab).to(device), tok, {}
        path = checkpoint_of(path)
        state = run.load(path)
        tok = tokenizer.from_state(state["tokenizer"])
        model = restored(state)
        if tok.n_vocab != model.cfg.vocab_size:
            raise ValueError(f"{tok.n_vocab} tokens, a model of {model.cfg.vocab_size}")
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise run.Stop(f"{path} holds no model of this project ({why})") from None
    return model.to(device), tok, state


def restored(state):
    """What a checkpoint holds -> its model; adapters are merged into the weights under them."""
    rank = lora.rank_in(state["model"])
    if not rank:
        model = GPT(GPTConfig(**state["model_config"]))
        model.load_state_dict(state["model"])
        return model
    origin = list(state["origins"].values())[0] if state["origins"] else ""
    base, _, _ = load_model(origin, context=state["model_config"]["context"])
    if source_hash(origin, base) != state["made_of"]["the base"]:
        raise ValueError(f"the weights in {origin} are not those that its adapters were made for")
    senior = lora.adapt(base, rank)
    run.load_trained(senior, state["model"])
    return lora.merged(senior).requires_grad_(True)


def source_hash(path, model):
    """A hash of a model that is not trained, whatever dtype it was loaded in: of its files where
    those are public weights, else of its weights as bf16 has them."""
    if weights.is_folder(path):
        return weights.fingerprint(path)
    return run.content_hash({name: x.bfloat16() for name, x in model.state_dict().items()})


def read_shape(path, context):
    """A checkpoint or a folder of public weights -> tokenizer, GPTConfig. The weights of a folder
    are not read."""
    if not weights.is_folder(path):
        model, tok, _ = load_model(path)
        return tok, model.cfg
    try:
        tok = chat.load(path)
        shape = GPTConfig(**weights.read_config(path, vocab=tok.n_vocab))
    except ValueError as error:
        raise run.Stop(str(error)) from None
    if context > shape.context:
        raise run.Stop(f"--context {context} is more than the {shape.context} tokens of {path}")
    shape.context = context
    return tok, shape


def checkpoint_of(path):
    """A checkpoint, or a run's folder -> the file"""
    return os.path.join(path, "ckpt.pt") if os.path.isdir(path) else path


def is_public(start):
    """Is it a folder of public weights, or a run that began with one?"""
    if not start or not isinstance(start, str):
        return False
    if weights.is_folder(start):
        return True
    state = run.load(checkpoint_of(start))  # the model under its adapters is not needed
    vocabulary = state.get("tokenizer") if isinstance(state, dict) else None
    return isinstance(vocabulary, dict) and vocabulary.get("name") == "folder"


def freeze(model):
    """A frozen model's forward passes keep nothing for a backward pass."""
    for p in model.parameters():
        p.requires_grad_(False)
    return model


# ---- does it fit what you asked, and into memory? ----

def check_shape(cfg, role, path, shape):
    """Stop when you asked for a size that the given model does not have. Public weights take a
    shorter context."""
    own = {"junior": "junior_", "teacher": "teacher_"}.get(role, "")
    asked = {"context": cfg.context} if not weights.is_folder(path) else {}
    for name in ("layers", "width"):
        value = getattr(cfg, own + name)
        asked[own + name] = 0 if value == getattr(type(cfg), own + name) else value
    for name, value in asked.items():
        has = getattr(shape, name.removeprefix(own))
        if value and value != has:
            raise run.Stop(f"{run.flag(name)} {value}, but {path} has {has}; "
                           f"leave out {run.flag(name)}")


def check_memory(cfg, env, device, shapes, roles, twice):
    """Stop when a run does not fit into memory; --dry-run prints what takes how much, and ends."""
    if not shapes:
        return
    (first, trained), *others = shapes.items()  # the one that is trained, then what is frozen
    start = roles[first]
    rank = adapter_rank(cfg, start)
    size = 2 if sampling_dtype(cfg, device) == torch.bfloat16 else 4
    if twice and not rank:
        others = [("junior", trained)]
    frozen = {}  # role -> its shape, bytes of a weight
    for role, shape in others:  # a junior in fp32 has a copy that samples; a teacher only scores
        copy = 2 if size == 2 and role == "junior" else 0
        frozen[role] = (shape, size if is_public(roles.get(role, start)) else 4 + copy)
    new = cfg.max_new or env.first.max_new
    parts = memory.plan(cfg, trained, frozen, decoded_rows(cfg, env),
                        max(1, trained.context - new), size, rank, pair=twice and rank > 0)
    memory.check(parts, device, cfg.dry_run, is_public(start))


def adapter_rank(cfg, start):
    """--lora, or its default: 16 for public weights, else 0, which trains all weights."""
    wanted = getattr(cfg, "lora", 0)
    return wanted if wanted >= 0 else 16 if is_public(start) else 0


# ---- how it is sampled ----

def decoded_rows(cfg, env):
    """How many texts a run decodes side by side: --rows, or else all of an update. A world of many
    turns is evaluated 256 games at a time."""
    episodes = cfg.prompts * cfg.group // run.world_size() if hasattr(cfg, "group") else 128
    games = 256 if env.first.max_turns > 1 else 0
    most = max(episodes, getattr(cfg, "test_chains", 1), games)
    return min(cfg.rows, most) if cfg.rows else env.at_once(most)


def sampler_options(cfg, env, device):
    """How the samplers of a run are made."""
    rows = decoded_rows(cfg, env)
    decode_steps = cfg.steps * env.first.max_turns * (cfg.max_new or env.first.max_new)
    compiled = choose_compile(cfg.compile, device, decode_steps)
    return {"rows": rows, "compile": compiled, "dtype": sampling_dtype(cfg, device)}
