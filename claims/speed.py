"""What bench.py measures: the samplers, the limit of a decode step, its tricks, a tree, a profile.

A sampler here is a function without arguments that decodes and returns how many tokens it sampled.
bench.py prints what these functions find.
"""
import importlib.util
import statistics
import tempfile
import time

import torch
from torch.nn.functional import linear

import grpo
import imagine
import weights
import worldmodel
from envs import record
from model import GPT, GPTConfig, small_config
from rollout import training_rows
from sampler import Sampler
from tandem import TandemSampler

# Name -> (vocabulary, context, layers, heads, kv heads, width, head width, feed-forward width),
# prompt tokens, new tokens
SIZES = {name: (GPTConfig(*shape), prompt, new) for name, shape, prompt, new in (
    ("toy", (64, 72, 4, 4, 4, 128, 32, 352), 8, 64),
    ("10m", (512, 144, 6, 6, 6, 384, 64, 1024), 16, 128),
    ("124m", (50304, 320, 12, 12, 12, 768, 64, 2048), 64, 256))}


# ---- the samplers: each is a function () -> sampled tokens ----

def ours(model, prompts, new, junior=None, turns=1, **how):
    """Our sampler. turns > 1: as many tokens in all, with three tokens of the environment's behind
    every turn but the last."""
    rows = len(prompts)
    sampler = TandemSampler(model, junior, rows, **how) if junior else Sampler(model, rows, **how)
    streams = [("bench", i) for i in range(rows)]

    def sample():
        sampler.start()
        sampler.seed(streams)
        sampler.feed(range(rows), prompts)
        for turn in range(turns):
            sampler.sample(new // turns, ())
            if turn + 1 < turns:
                sampler.feed(range(rows), [[1, 2, 3]] * rows)
        return int(sampler.count.sum())
    return sample


def without_cache(model, prompts, new):
    """As in nanoGPT: the whole text through the model for every token."""
    @torch.no_grad()
    def sample():
        tokens, logps = torch.tensor(prompts, device=model.embed.weight.device), []
        for _ in range(new):
            logp = model(tokens)[:, -1].log_softmax(-1)
            token = torch.multinomial(logp.exp(), 1)
            logps.append(logp.gather(1, token))
            tokens = torch.cat([tokens, token], 1)
        return new * len(prompts)
    return sample


def transformers_generate(folder, prompts, new, static):
    """Hugging Face's `generate` on the same weights, with its growing cache, or with its static one
    and the compiled step that goes with it."""
    from transformers import AutoModelForCausalLM, CompileConfig
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    tokens = torch.tensor(prompts, device=device)
    how = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": True, "temperature": 1.0,
           "top_k": 0, "top_p": 1.0, "eos_token_id": None, "pad_token_id": 0, "output_scores": True,
           "return_dict_in_generate": True, "attention_mask": torch.ones_like(tokens)}
    if static:
        config = CompileConfig(mode="reduce-overhead" if device == "cuda" else "default")
        config._compile_all_devices = True  # otherwise it compiles on GPUs only
        how.update(cache_implementation="static", compile_config=config)

    @torch.no_grad()
    def sample():
        out = model.generate(tokens, **how)
        model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
        return new * len(prompts)
    return sample


# ---- the limit ----

def timed(work, device):
    """-> what work() returns, the seconds it took"""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    began = time.perf_counter()
    found = work()
    wait()
    return found, time.perf_counter() - began


def seconds_of(work, device, least=0.2):
    """Median seconds of work(), repeated for at least `least` seconds."""
    times = [timed(work, device)[1]]  # the first, a warm-up, is left out below
    while sum(times[1:]) < least or len(times) < 4:
        times.append(timed(work, device)[1])
    return statistics.median(times[1:])


@torch.no_grad()
def limit(model, rows, prompt, new, device, dtype):
    """A decode step that only multiplies and reads its cache -> {"gemm_s", "cache_s", "gb_s"}"""
    matrices = [m.weight.to(dtype) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    inputs = [torch.randn(rows, w.shape[1], device=device, dtype=dtype) for w in matrices]
    gemm = seconds_of(lambda: [linear(x, w) for x, w in zip(inputs, matrices)], device)
    cfg = model.cfg
    numbers = 2 * cfg.layers * cfg.kv_heads * cfg.head_width * rows * (prompt + new / 2)
    filled = numbers * torch.finfo(dtype).bits / 8  # bytes
    # as large as all of it: a small block may stay in the processor's own cache
    block = torch.ones(max(1, int(filled / 4)), device=device)
    read = seconds_of(block.sum, device) / (block.numel() * 4)  # seconds a byte
    return {"gemm_s": gemm, "cache_s": filled * read, "gb_s": 1e-9 / read}


# ---- sampling ----

def samplers(size, rows, device, dtype, folder):
    """-> model, {name: a function that makes the sampler}, prompt tokens, new tokens"""
    cfg, prompt, new = SIZES[size]
    torch.manual_seed(0)
    model, junior = GPT(cfg).to(device), GPT(cfg).to(device)
    prompts = torch.randint(cfg.vocab_size, (rows, prompt)).tolist()
    reference = model if dtype == torch.float32 else GPT(cfg).to(device, dtype)
    fast, eager = {"compile": True, "dtype": dtype}, {"dtype": dtype}
    found = {"ours compiled": lambda: ours(model, prompts, new, **fast),
             "ours eager": lambda: ours(model, prompts, new, **eager),
             "ours tandem": lambda: ours(model, prompts, new, junior, **fast),
             "ours 3 turns": lambda: ours(model, prompts, new - 6, turns=3, **fast),
             "no cache": lambda: without_cache(reference, prompts, new)}
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("safetensors"):
        weights.save_pretrained(model, folder)
        found["transformers dynamic"] = lambda: transformers_generate(folder, prompts, new, False)
        found["transformers static"] = lambda: transformers_generate(folder, prompts, new, True)
    return model, found, prompt, new


def in_turn(made, repeats, device):
    """Run the samplers one after another, and all of them again -> {name: [tokens a second]}"""
    runs = [(name, timed(made[name], device)) for _ in range(repeats) for name in made]
    return {name: [tokens / s for other, (tokens, s) in runs if other == name] for name in made}


def sampling(size, rows, repeats, device, only=()):
    """-> {"size", "rows", "samplers": {name: {"tokens_s", "ratio", ...}}, "limit": {...}, ...}"""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        model, makers, prompt, new = samplers(size, rows, device, dtype, folder)
        made, first = {}, {}  # one after another: the first run shows the time of a compilation
        for name in [name for name in makers if not only or name in only]:
            made[name], making = timed(makers[name], device)
            first[name] = making + timed(made[name], device)[1]
        speeds = in_turn(made, repeats, device)
    found = limit(model, rows, prompt, new, device, dtype)
    best = rows / (found["gemm_s"] + found["cache_s"])  # tokens a second
    beside = next((name for name in ("transformers dynamic", "no cache") if name in made), None)
    table = {}
    for name in made:
        ratios = [a / b for a, b in zip(speeds[name], speeds[beside])] if beside else [1]
        speed = statistics.median(speeds[name])
        compiles = any(word in name for word in ("compiled", "tandem", "static"))
        waited = max(0.0, first[name] - rows * new / speed) if compiles else 0.0
        table[name] = {"tokens_s": speed, "ratio": statistics.median(ratios), "share": speed / best,
                       "spread": [min(ratios), max(ratios)], "compile_s": waited}
    return {"size": size, "rows": rows, "prompt": prompt, "new": new, "samplers": table,
            "limit": found, "beside": beside}


def machine():
    return {"threads": torch.get_num_threads(), "torch": torch.__version__}


def spread(ratios):
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


# ---- what each trick is worth ----

class AllSlots(Sampler):
    """Attention over the whole cache, filled or not."""
    def run_step(self):
        self.slots = None
        super().run_step()


class Looking(Sampler):
    """The host looks at the finished flags behind every token."""
    def run_step(self):
        super().run_step()
        self.finished.all().item()


class Multinomial(Sampler):
    """PyTorch's own draw in place of the inverse CDF."""
    def step(self):
        logp = self.logits(0).log_softmax(-1)
        token = torch.multinomial(logp.exp(), 1)
        self.emit(token[:, 0], {"logp": logp.gather(1, token)[:, 0]})


def group_sampler(kind, model, prompts, group, new, shared=True, **how):
    """Groups of samples of one prompt each, which is prefilled once (shared) or once a row."""
    sampler, rows = kind(model, len(prompts) * group, **how), len(prompts) * group

    def sample():
        sampler.start()
        if shared:
            sampler.feed(range(len(prompts)), prompts)
            sampler.select([i // group for i in range(rows)])
        else:
            sampler.feed(range(rows), [prompts[i // group] for i in range(rows)])
        sampler.seed([("bench", i) for i in range(rows)])
        sampler.sample(new, ())
        return int(sampler.count.sum())
    return sample


def tricks(size, repeats, device, group=8, prompts=8):
    """How much slower eager sampling gets without each trick -> {what is done instead: [ratios]}"""
    cfg, prompt, new = SIZES[size]
    torch.manual_seed(0)
    model = GPT(cfg).to(device)
    texts = torch.randint(cfg.vocab_size, (prompts, prompt)).tolist()

    def make(kind=Sampler, **how):
        return group_sampler(kind, model, texts, group, new, **how)
    made = {"as it is": make(), "compiled": make(compile=True),
            "no cache": without_cache(model, [t for t in texts for _ in range(group)], new),
            "attention to empty slots too": make(AllSlots), "torch.multinomial": make(Multinomial),
            "a look at the flags every token": make(Looking),
            "a prompt for every row": make(shared=False)}
    if device == "cpu":
        made["bf16 weights and cache"] = make(dtype=torch.bfloat16)
    in_turn(made, 1, device)  # a warm-up
    speeds = in_turn(made, repeats, device)  # of equally many tokens: ratios are those of times
    return {name: [a / b for a, b in zip(speeds["as it is"], x)] for name, x in speeds.items()}


# ---- trees ----

STATE, OBSERVATION = 56, 8  # tokens of a typical reply on house, levels 2 and 3
SAMPLES = 4 + 16 + 64  # of a tree with A = B = C = 4


def tree(repeats, examples=8):
    """Trees with A = B = C = 4, and as many samples in one stage -> {what: [seconds]}, sizes"""
    cfg = worldmodel.Config()
    worlds = worldmodel.open_worlds(cfg)
    first = next(iter(worlds.values()))
    tok = worldmodel.open_tokenizer(cfg, worlds, first)
    tok.stop_ids = ()  # a reply ends when it is full
    torch.manual_seed(0)
    model = GPT(small_config(tok.n_vocab, 256, cfg.layers, cfg.width))  # of the default size
    form, sampler = imagine.FORMULATIONS["strict"], Sampler(model, examples * SAMPLES)
    sizes = cfg.window, STATE, OBSERVATION
    w = worldmodel.WorldModel(model, tok, first.language, form, *sizes, sampler)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    batch = record.examples(worlds, range(examples), "train", "bench")
    streams = [("bench", i) for i in range(examples)]
    tokens = 4 * STATE + 16 * STATE + 64 * OBSERVATION
    flat_new = round(tokens / SAMPLES)

    def grow():
        states, moved, seen = worldmodel.grow(w, batch, streams, 4, 4, 4)
        return states + moved + seen

    def flat():
        return w.reply([w.encode_prompt(e.past) for e in batch], SAMPLES, flat_new, streams, 1.0)

    def update():  # on random advantages, as an update does
        rows, advantage, total = training_rows(replies, torch.randn(len(replies)))
        grpo.update_on(model, optimizer, rows, rows.mask.float(), advantage, cfg, total=total)
    times = {f"{kind}, {part}": [] for kind in ("tree", "flat") for part in ("sampling", "update")}
    for i in range(repeats + 1):
        for kind, sample in (("tree", grow), ("flat", flat)):
            replies, sampled = timed(sample, "cpu")
            _, updated = timed(update, "cpu")
            if i:  # the first is a warm-up
                times[f"{kind}, sampling"].append(sampled)
                times[f"{kind}, update"].append(sampled + updated)
    facts = {"samples": SAMPLES, "tokens": tokens, "flat_tokens": SAMPLES * flat_new}
    return times, {"examples": examples, **facts}


def profile(size, rows):
    """On a GPU: the five longest kernels of decoding, and the share of time in which none ran."""
    from torch.profiler import ProfilerActivity
    cfg, prompt, new = SIZES[size]
    prompts = torch.randint(cfg.vocab_size, (rows, prompt)).tolist()
    sample = ours(GPT(cfg).to("cuda"), prompts, new, compile=True, dtype=torch.bfloat16)
    sample()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        _, seconds = timed(sample, "cuda")
    kernels = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)
    idle = 1 - sum(event.self_device_time_total for event in kernels) * 1e-6 / seconds
    print(f"\n{size}, {rows} rows: {1e3 * seconds:.1f} ms, the device idle {idle:.1%}")
    for event in kernels[:5]:
        print(f"{event.self_device_time_total / 1e3:10.2f} ms {event.count:7} x  {event.key[:90]}")
