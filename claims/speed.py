"""What bench.py measures: the samplers, the limit of a decode step, a profile.

A sampler here is a function without arguments that decodes and returns how many tokens it sampled.
bench.py prints what these functions find.
"""
import contextlib
import gc
import importlib.util
import statistics
import tempfile
import time

import torch
from torch.nn.functional import linear

import weights
from model import GPT, GPTConfig
from sampler import Sampler, copy_as
from tandem import TandemSampler

# Name -> (vocabulary, context, layers, heads, kv heads, width, head width, feed-forward width),
# prompt tokens, new tokens
SIZES = {name: (GPTConfig(*shape), prompt, new) for name, shape, prompt, new in (
    ("toy", (64, 72, 4, 4, 4, 128, 32, 352), 8, 64),
    ("10m", (512, 144, 6, 6, 6, 384, 64, 1024), 16, 128),
    ("124m", (50304, 320, 12, 12, 12, 768, 64, 2048), 64, 256),
    ("124m-2k", (50304, 2048, 12, 12, 12, 768, 64, 2048), 512, 1536))}
# the public configurations of Qwen3-0.6B and Qwen3-4B, with a short context and random weights
QWEN3 = {"rope_base": 1e6, "qk_norm": True}
SIZES["0.6b"] = GPTConfig(151936, 320, 28, 16, 8, 1024, 128, 3072, **QWEN3), 64, 256
SIZES["4b"] = GPTConfig(151936, 320, 36, 32, 8, 2560, 128, 9728, **QWEN3), 64, 256


# ---- the samplers: each is a function () -> sampled tokens ----

def ours(model, prompts, new, junior=None, turns=1, kind=Sampler, **how):
    """Our sampler. turns > 1: as many tokens in all, with three tokens of the environment's behind
    every turn but the last."""
    rows = len(prompts)
    how = {"dtype": model.embed.weight.dtype, **how}
    sampler = TandemSampler(model, junior, rows, **how) if junior else kind(model, rows, **how)
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
    sample.sampler = sampler
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


def transformers_model(cfg, device, dtype, folder=""):
    """Hugging Face's model: the weights of a folder, or random ones, made on the device."""
    from transformers import AutoConfig, AutoModelForCausalLM
    if folder:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    theirs = weights.written_config(cfg)
    config = AutoConfig.for_model(theirs.pop("model_type"), **theirs)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def transformers_generate(model, prompts, new, static):
    """Hugging Face's `generate`, with its growing cache, or with its static one and the compiled
    step that goes with it. Where 16 GiB would not hold all scores, it gives no log-probs."""
    from transformers import CompileConfig
    device = model.device.type
    tokens = torch.tensor(prompts, device=device)
    scores = 4 * len(prompts) * new * model.config.vocab_size  # bytes: it keeps them of all steps
    logps = scores < 2**34
    how = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": True, "temperature": 1.0,
           "top_k": 0, "top_p": 1.0, "eos_token_id": None, "pad_token_id": 0,
           "output_scores": logps, "return_dict_in_generate": True,
           "attention_mask": torch.ones_like(tokens)}
    if static:
        config = CompileConfig(mode="reduce-overhead" if device == "cuda" else "default")
        config._compile_all_devices = True  # otherwise it compiles on GPUs only
        how.update(cache_implementation="static", compile_config=config)

    @torch.no_grad()
    def sample():
        with cudnn_attention():  # its default
            out = model.generate(tokens, **how)
        if logps:
            model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
        return new * len(prompts)
    return sample


@contextlib.contextmanager
def cudnn_attention():
    """model.py switches it off; PyTorch has it on."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


# ---- the limit ----

def timed(work, device):
    """-> what work() returns, the seconds it took"""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    began = time.perf_counter()
    found = work()
    wait()
    return found, time.perf_counter() - began


def captured(work):
    """work() as a CUDA graph: small kernels one after another, without the host between them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the warm-up that a capture needs
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def step_seconds(work, device, times=10):
    """Median seconds of work(); on a GPU without the host's part: `times` of them in one graph."""
    if not device.startswith("cuda"):
        return seconds_of(work, device)
    return seconds_of(captured(lambda: [work() for _ in range(times)]), device) / times


LEAST = 0.2  # seconds that a small measurement is repeated for


def seconds_of(work, device):
    """Median seconds of work(), repeated for at least LEAST seconds."""
    times = [timed(work, device)[1]]  # the first, a warm-up, is left out below
    while sum(times[1:]) < LEAST or len(times) < 4:
        times.append(timed(work, device)[1])
    return statistics.median(times[1:])


@torch.no_grad()
def limit(model, rows, prompt, new, device, dtype):
    """A decode step that only multiplies and reads its cache -> {"gemm_s", "cache_s", "gb_s"}"""
    matrices = [m.weight.to(dtype) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    inputs = [torch.randn(rows, w.shape[1], device=device, dtype=dtype) for w in matrices]
    gemm = step_seconds(lambda: [linear(x, w) for x, w in zip(inputs, matrices)], device)
    cfg = model.cfg
    numbers = 2 * cfg.layers * cfg.kv_heads * cfg.head_width * rows * (prompt + new / 2)
    filled = numbers * torch.finfo(dtype).bits / 8  # bytes
    # as large as all of it: a small block may stay in the processor's own cache (and on a GPU, the
    # time of a small one is that of its launch)
    least = 2**28 if device.startswith("cuda") else 1
    block = torch.ones(max(least, int(filled / 4)), device=device)
    read = seconds_of(block.sum, device) / (block.numel() * 4)  # seconds a byte
    return {"gemm_s": gemm, "cache_s": filled * read, "gb_s": 1e-9 / read}


# ---- sampling ----

def random_model(cfg, device, dtype):
    """Made where it is used, and held in one precision: 4b is large."""
    with torch.device(device):
        model = GPT(cfg)
    return model if dtype == torch.float32 else copy_as(model, dtype)


def samplers(size, rows, device, dtype, folder):
    """-> model, {name: a function that makes the sampler}, prompt tokens, new tokens. The weights
    have the dtype already, so a sampler holds no copies of them."""
    cfg, prompt, new = SIZES[size]
    torch.manual_seed(0)
    model, made = random_model(cfg, device, dtype), {}
    prompts = torch.randint(cfg.vocab_size, (rows, prompt)).tolist()

    def once(name, make):  # large ones only when they are needed
        if name not in made:
            made[name] = make()
        return made[name]

    def junior():
        return once("junior", lambda: random_model(cfg, device, dtype))
    found = {"ours compiled": lambda: ours(model, prompts, new, compile=True),
             "ours eager": lambda: ours(model, prompts, new),
             "ours tandem": lambda: ours(model, prompts, new, junior(), compile=True),
             "ours 3 turns": lambda: ours(model, prompts, new - 6, turns=3, compile=True),
             "no cache": lambda: without_cache(model, prompts, new)}
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("safetensors"):
        same = size not in ("0.6b", "4b")  # weights; to write large ones takes long
        if same:
            weights.save_pretrained(model, folder)

        def theirs(static):
            loaded = once("theirs", lambda: transformers_model(cfg, device, dtype,
                                                               folder if same else ""))
            return transformers_generate(loaded, prompts, new, static)
        found["transformers dynamic"] = lambda: theirs(False)
        found["transformers static"] = lambda: theirs(True)
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


# ---- on a GPU ----

class Captured(Sampler):
    """On a GPU: our CUDA graph of the step as PyTorch runs it, without torch.compile."""
    def __init__(self, model, rows, dtype):
        super().__init__(model, rows, compile=True, dtype=dtype)
        self.decode = self.step


def free(device):
    """Let go of what is not used any more, and count the peak of memory from here on."""
    gc.collect()  # a sampler and its compiled step hold each other
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def host_gap(sampler, prompts, new):
    """The share of a sample() in which the device waits for the host: 1 - its replays alone."""
    sampler.start()
    sampler.seed([("bench", i) for i in range(len(prompts))])
    sampler.feed(range(len(prompts)), prompts)
    _, whole = timed(lambda: sampler.sample(new, ()), "cuda")
    # every row is finished now: a replay does all of its work, and writes to the scrap slot
    sampler.finished.fill_(True)
    _, replays = timed(lambda: [sampler.graph.replay() for _ in range(new)], "cuda")
    return 1 - replays / whole


def profile(size, rows, device="cuda"):
    """The longest kernels of decoding, and the share of time in which none ran -> dict"""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    gpu = device.startswith("cuda")
    cfg, prompt, new = SIZES[size]
    prompts = torch.randint(cfg.vocab_size, (rows, prompt)).tolist()
    model = random_model(cfg, device, torch.bfloat16 if gpu else torch.float32)
    sample = ours(model, prompts, new, compile=True)
    sample()
    _, seconds = timed(sample, device)  # the profiler slows the host down, but not a kernel
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with torch.profiler.profile(activities=activities) as found:
        timed(sample, device)
    # operations and annotations count their kernels' time too: kernels alone, or it counts twice
    kind, clock = DeviceType.CPU, "self_cpu_time_total"
    if gpu:
        kind, clock = DeviceType.CUDA, "self_device_time_total"
    events = [(getattr(e, clock), e.count, e.key) for e in found.key_averages()
              if e.device_type == kind and not e.is_user_annotation]
    if not events:
        raise RuntimeError("the profiler saw no kernel")
    events.sort(reverse=True)
    idle = 1 - sum(time for time, _, _ in events) * 1e-6 / seconds
    kernels = [{"ms": time / 1e3, "count": count, "name": name[:90]}
               for time, count, name in events[:12]]
    return {"size": size, "rows": rows, "ms": 1e3 * seconds, "idle": idle, "kernels": kernels}
