"""One whole GRPO update beside TRL's: rollout, rewards, advantages, loss, optimiser step.

    python bench.py update
    python bench.py update --size smollm2 --senior FOLDER    # a folder of public weights

Both train the same model from the same weights, on the same questions and in the same shapes: fp32,
AdamW, the token-level clipped loss, no KL term, one update a batch, temperature 1, no end token. An
update here is `grpo.step`, whole. TRL's is a turn of its own `trainer.train()`, with logging,
checkpoints and gradient checkpointing off. The two take turns, because TRL's callback runs our
update behind each of its own.

The reward is a hash of the reply, so that every group has variance. A group without any is skipped
by our update and not by TRL's: then ours would look better, and it would prove nothing. The share
of groups with variance is printed; it must be 1 for both.

Beside them: tandem's update with a junior of equal size and, for public weights, adapters. Left
out: GPUs, several processes, and TRL with vLLM, which is another program for the rollout.
"""
import copy
import importlib.util
import statistics
import tempfile
import time
import zlib
from contextlib import redirect_stdout
from importlib.metadata import version
from sys import stderr

import torch

import chat
import envs
import grpo
import lora
import sft
import tandem
import weights
from claims.speed import spread, timed
from envs.arithmetic import Arithmetic
from lib.start import freeze
from lib.surface import BYTES
from model import GPT, small_config
from rollout import train_tasks
from sampler import Sampler
from tandem import TandemSampler

SIZES = {  # name -> the options of a method that its shape takes
    "toy": {"layers": 2, "width": 96, "prompts": 16, "group": 8, "max_new": 48},
    "toy4": {"layers": 4, "width": 128, "prompts": 16, "group": 8, "max_new": 48},
    "smollm2": {"prompts": 4, "group": 4, "max_new": 16, "lr": 1e-6}}
WARM = 2  # updates of each that are not counted
RANK = 16  # of adapters
CACHE = "dynamic"  # of TRL's generation; it does not compile the static one, which is no faster
PACKAGES = ("trl", "transformers", "safetensors", "tokenizers")
INSTALL = "pip install -e '.[bench]'"


def missing():
    """The packages that TRL's side lacks here."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


# ---- what both train on ----

def reward_of(text):
    """A number in [0, 1) that no two replies share, but by chance."""
    return zlib.crc32(text.encode(errors="replace")) / 2**32


class Hashed(Arithmetic):
    """The toy's questions, with a reward that tells all replies apart."""

    def step(self, text):
        return envs.Step("", reward_of(text), True, {"success": False})


def open_world():
    env = envs.Batch("arithmetic")
    env.first = env.envs[0] = Hashed()
    return env


def open_start(cfg, env, folder):
    """-> tokenizer, model: public weights, or random ones of the toy's shape."""
    if not folder:
        tok = sft.open_tokenizer(cfg, env)
        torch.manual_seed(0)
        model = GPT(small_config(tok.n_vocab, env.first.context, cfg.layers, cfg.width))
    else:
        tok = chat.load(folder)
        context = max(map(len, questions(cfg, env, tok, 1))) + cfg.max_new
        model = GPT.from_pretrained(folder, context, vocab=tok.n_vocab)
    tok.stop_ids = ()  # a reply ends when it is full
    return tok, model


def questions(cfg, env, tok, updates):
    """The ids of every prompt, in order."""
    tasks = [task for step in range(updates)
             for task in train_tasks(env, step, cfg.prompts, cfg.seed)]
    texts = [env.first.reset(task, "train") for task in tasks]
    return [tok.encode_turn("user", text, first=True) for text in texts]


# ---- ours: each way is a function () -> the update's statistics ----

def ours(method, cfg, env, tok, model, **more):
    """Updates of grpo or tandem, as train.py makes them."""
    run = method.Run(cfg=cfg, env=env, tok=tok, model=model, origins={}, device="cpu", rank=0,
                     world=1, compiled=False, began=0.0,
                     optimizer=grpo.make_optimizer(model, cfg, "cpu"), **more)

    def update():
        found = method.step(run)
        run.step += 1
        return found
    return update


def solo(cfg, env, tok, model):
    sampler = Sampler(model, cfg.prompts * cfg.group)
    return ours(grpo, cfg, env, tok, model, solo=sampler)


def team(cfg, env, tok, senior, junior, pair=None):
    both = TandemSampler(senior, junior, cfg.prompts * cfg.group, pair=pair)
    return ours(tandem, cfg, env, tok, senior, solo=both, team=both)


def our_ways(cfg, env, tok, model, public):
    """-> {name: a function that makes one update}"""
    where = cfg, env, tok
    found = {"ours": solo(*where, copy.deepcopy(model))}
    if not public:
        junior = freeze(copy.deepcopy(model))
        found["ours, tandem"] = team(*where, copy.deepcopy(model), junior)
        return found
    base = copy.deepcopy(model)  # frozen by adapt()
    found["ours, LoRA"] = solo(*where, lora.adapt(base, RANK))
    senior = lora.adapt(base, RANK)
    found["ours, tandem LoRA"] = team(*where, senior, base, lora.paired(senior))
    return found


# ---- TRL's ----

def their_tokenizer(tok, folder):
    """Hugging Face's tokenizer with the ids of ours."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    if folder:
        return AutoTokenizer.from_pretrained(folder)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    library = Tokenizer(models.BPE(vocab=BYTES, merges=[]))  # the toy's has no merges
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    turn, end = (tok.decode([i]) for i in (tok.turn_id, tok.end_id))
    library.add_special_tokens([turn, end])
    return PreTrainedTokenizerFast(tokenizer_object=library, eos_token=end, pad_token=end)


def their_prompts(ids, tok, theirs):
    """Texts that their tokenizer turns into these ids. ValueError when it makes others."""
    texts = [tok.decode(one) for one in ids]
    if theirs(texts)["input_ids"] != ids:
        raise ValueError("the two tokenizers disagree about a prompt")
    return texts


def their_options(cfg, updates, folder):
    """GRPOConfig: the same update, and nothing that a user could turn off for speed."""
    from trl import GRPOConfig
    same = {"learning_rate": cfg.lr, "lr_scheduler_type": "constant", "adam_beta1": 0.9,
            "adam_beta2": 0.95, "weight_decay": 0.0, "max_grad_norm": cfg.grad_clip,
            "epsilon": cfg.clip, "beta": 0.0, "num_iterations": 1, "loss_type": "dapo",
            "scale_rewards": "group", "num_generations": cfg.group, "temperature": 1.0,
            "top_k": 0, "top_p": 1.0, "max_completion_length": cfg.max_new,
            "generation_kwargs": {"min_new_tokens": cfg.max_new}, "shuffle_dataset": False}
    rows = cfg.prompts * cfg.group
    at_once = min(rows, cfg.micro_rows)  # as many as ours takes; they divide the rows
    quick = {"per_device_train_batch_size": at_once, "bf16": False,
             "gradient_accumulation_steps": rows // at_once, "gradient_checkpointing": False,
             "cache_implementation": CACHE, "use_cpu": True, "dataloader_pin_memory": False,
             "report_to": "none", "save_strategy": "no", "logging_strategy": "no",
             "disable_tqdm": True}
    return GRPOConfig(output_dir=folder, max_steps=updates, **same, **quick)


class Clock:
    """When TRL's update began, and when its replies were there and had their rewards. Advantages
    count as update: they cannot be told apart from outside."""

    def __init__(self, cfg):
        self.cfg, self.found = cfg, []

    def start(self):
        self.began = time.perf_counter()

    def reward(self, completions, completion_ids, **others):
        """TRL's reward function; it sees to it that every group has variance."""
        self.rolled_out = time.perf_counter()
        rewards = [reward_of(text) for text in completions]
        self.rewarded = time.perf_counter()
        groups = [rewards[i:i + self.cfg.group] for i in range(0, len(rewards), self.cfg.group)]
        flat = sum(min(group) == max(group) for group in groups) / len(groups)
        self.current = {"zero_variance": flat, "tokens": sum(map(len, completion_ids))}
        return rewards

    def stop(self):
        """The update is over."""
        ended = time.perf_counter()
        times = {"seconds": ended - self.began, "time_rollout": self.rolled_out - self.began,
                 "time_scoring": self.rewarded - self.rolled_out,
                 "time_update": ended - self.rewarded}
        self.found.append({**self.current, **times})


def their_updates(cfg, env, tok, model, public, updates, between):
    """TRL makes `updates` updates, and behind each of them between() is called -> [statistics]"""
    import transformers
    from datasets import Dataset
    from trl import GRPOTrainer
    transformers.logging.set_verbosity_error()
    clock = Clock(cfg)

    class Turns(transformers.TrainerCallback):
        def on_train_begin(self, *args, **others):
            clock.start()

        def on_step_end(self, *args, **others):
            clock.stop()
            between()
            clock.start()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(stderr):
        weights.save_pretrained(model, folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = their_tokenizer(tok, public)
        prompts = their_prompts(questions(cfg, env, tok, updates), tok, tokenizer)
        data = Dataset.from_list([{"prompt": text} for text in prompts])
        trainer = GRPOTrainer(theirs, clock.reward, their_options(cfg, updates, folder), data,
                              processing_class=tokenizer, callbacks=[Turns()])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock.found


# ---- side by side ----

def measure(size, repeats, public=""):
    """-> what `show` prints: {"size", ..., "ways": {name: {"seconds", "ratio", ...}}}"""
    cfg = tandem.Config(**SIZES[size])
    env, updates = open_world(), WARM + repeats
    tok, model = open_start(cfg, env, public)
    ways = our_ways(cfg, env, tok, model, public)
    found = {name: [] for name in ways}

    def once():
        for name, update in ways.items():
            stats, seconds = timed(update, "cpu")
            found[name].append({**stats, "seconds": seconds})
    if missing():
        for _ in range(updates):
            once()
    else:
        found["TRL"] = their_updates(cfg, env, tok, model, public, updates, once)
    counted = {name: runs[WARM:] for name, runs in found.items()}
    prompt = statistics.mean(map(len, questions(cfg, env, tok, updates)))
    return {"size": size, "parameters": model.n_params(), "prompts": cfg.prompts,
            "group": cfg.group, "prompt_tokens": round(prompt, 1), "new_tokens": cfg.max_new,
            "ways": {name: summary(runs, counted.get("TRL")) for name, runs in counted.items()}}


PARTS = {"rollout": "time_rollout", "scoring": "time_scoring", "update": "time_update"}


def summary(runs, theirs):
    """An update's medians, the share of groups with variance, and how much longer TRL takes."""
    out = {"seconds": statistics.median(run["seconds"] for run in runs)}
    for name, key in PARTS.items():
        out[name] = statistics.median(run[key] for run in runs)
    out["tokens"] = statistics.median(run["tokens"] for run in runs)
    out["variance"] = min(1 - run["zero_variance"] for run in runs)
    out["all"] = [run["seconds"] for run in runs]
    if theirs:
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(theirs, runs)]
        out.update(ratio=statistics.median(ratios), spread=[min(ratios), max(ratios)])
    return out


def versions():
    """-> {"transformers": ..., "trl": ...}, of those that are installed"""
    return {name: version(name) for name in ("transformers", "trl")
            if importlib.util.find_spec(name)}


def show(found):
    """Print the table of a size, in milliseconds."""
    print("\n{size}: {parameters:,} parameters, {prompts} prompts x {group} replies, "
          "{prompt_tokens:g} + {new_tokens} tokens".format(**found))
    print(f"{'ms an update':22}{'whole':>9}{'rollout':>9}{'scoring':>9}{'update':>9}"
          f"{'variance':>10}{'TRL / it':>10}   spread")
    for name, x in found["ways"].items():
        times = "".join(f"{1e3 * x[part]:9,.1f}" for part in ("seconds", *PARTS))
        ratio = f"{x['ratio']:10.2f}   {spread(x['spread'])}" if "ratio" in x else ""
        print(f"{name:22}{times}{x['variance']:10.2f}{ratio}", flush=True)
    if any(x["variance"] < 1 for x in found["ways"].values()):
        print("a group had no variance: this comparison proves nothing")
    if missing():
        print(f"TRL is not here ({', '.join(missing())} missing): {INSTALL}")
