"""What may be slow on CUDA, each as it is beside other ways to do it: a stage of runs/gpu.sh.

Small pieces are timed inside a CUDA graph, as a decode step runs them (on a CPU: as they are).
Every way's result is compared with one in double precision, or with the way it is now.
"""
import functools

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from claims import speed
from claims.speed import Captured, seconds_of, step_seconds, timed
from sampler import Sampler, draw, row_key, uniform


def variants(here):
    """Ordered by what a change would be worth for its time; a later one may find none left."""
    if not here.rehearse:
        speed.LEAST = 0.05  # graphs of small kernels are steady
    for stage in (attention, captures, draws, tails, hashes, buckets):
        for name, work in stage(here):
            with torch.no_grad():
                here.found.attempt(f"{stage.__name__}: {name}", work, here.least(2))


def in_each_way(here, title, ways, exact):
    """ways: {name: function}; exact(result) -> {name: how far off} -> (name, work) to try"""
    for name, way in ways.items():
        def work(way=way):
            error = exact(way())
            return {"us": 1e6 * step_seconds(way, here.device), **error}
        yield f"{title}, {name}", work


# ---- attention of one token to a cache: a mask and grouped queries ----

def attention(here):
    """A boolean mask together with enable_gqa may take a slow path, in fp32. cuDNN's plans every
    new shape anew, tens of milliseconds each: fast in a graph, slow where texts grow."""
    shapes = (("0.6b", 321), ("124m", 321), ("0.6b", 2048))
    for size, slots in shapes[:1] if here.rehearse else shapes:
        cfg, slots, rows = speed.SIZES[size][0], here.rows(slots), here.rows(64)
        H, K, C = cfg.heads, cfg.kv_heads, cfg.head_width
        new = functools.partial(torch.randn, device=here.device, dtype=here.dtype)
        q, k, v = new(rows, H, 1, C), new(rows, K, slots, C), new(rows, K, slots, C)
        length = torch.randint(1, slots + 1, (rows,), device=here.device)
        mask = (torch.arange(slots, device=here.device) < length[:, None])[:, None, None]
        wanted = two_products(q.double(), k.double(), v.double(), mask)

        def exact(y, wanted=wanted):
            return {"largest_difference": (y - wanted).abs().max().item()}
        ways = attention_ways(q, k, v, mask)
        if here.device == "cuda" and here.dtype == torch.bfloat16:
            ways["as it is, cuDNN's"] = with_cudnn(ways["as it is"])
        yield from in_each_way(here, f"{size}, {slots} slots", ways, exact)


def with_cudnn(way):
    def work():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):  # an error where it cannot do it
            return way()
    return work


def attention_ways(q, k, v, mask):
    B, H, _, C = q.shape
    K, half = k.shape[1], max(1, k.shape[2] // 2)
    G, attend = H // K, F.scaled_dot_product_attention
    compiled = torch.compile(two_products, dynamic=False)

    def repeated():
        keys, values = (x.repeat_interleave(G, 1) for x in (k, v))
        return attend(q, keys, values, attn_mask=mask)

    def grouped():  # the heads that share a key stand where several queries would
        y = attend(q.view(B, K, G, C), k, v, attn_mask=mask)
        return y.view(B, H, 1, C)
    return {
        "as it is": lambda: attend(q, k, v, attn_mask=mask, enable_gqa=K != H),
        "repeated keys": repeated,
        "a group's heads as queries": grouped,
        "two products": lambda: two_products(q, k, v, mask),
        "two products, compiled": lambda: compiled(q, k, v, mask),
        # another result: what a form by lengths could cost at best
        "half of the slots, no mask": lambda: attend(q, k[:, :, :half], v[:, :, :half],
                                                     enable_gqa=K != H)}


def two_products(q, k, v, mask):
    B, H, _, C = q.shape
    q = q.view(B, k.shape[1], -1, C)
    scores = (q @ k.mT).float() * C**-0.5
    weight = scores.masked_fill(~mask, -torch.inf).softmax(-1).to(v.dtype)
    return (weight @ v).view(B, H, 1, C)


# ---- who captures the step ----

class ReduceOverhead(Sampler):
    """torch.compile captures, not we."""
    def __init__(self, model, rows, dtype):
        super().__init__(model, rows, compile=True, dtype=dtype)
        self.decode = torch.compile(self.step, fullgraph=True, dynamic=False,
                                    mode="reduce-overhead")

    def use(self, n):
        """It captures what is written in place only where the address stays."""
        super().use(n)
        state = [getattr(self, name) for name in self.whole if name != "caches"]
        layers = [x for cache in self.caches for layer in cache for x in layer]
        for x in state + layers:
            torch._dynamo.mark_static_address(x, guard=False)

    def run_step(self):
        torch.compiler.cudagraph_mark_step_begin()
        self.decode()


class Buckets(Captured):
    """A graph for each power of two of slots, chosen from the longest row: the host knows a bound
    without a look at the device."""
    smallest = 64

    def __init__(self, model, rows, dtype):
        super().__init__(model, rows, dtype)
        self.filled, self.graphs = 0, {}

    def sample(self, *args, **how):
        self.filled = int(self.length.max())
        return super().sample(*args, **how)

    def run_step(self):
        slots = self.smallest
        while slots < self.filled:
            slots *= 2
        self.slots = min(slots, self.context + 1)
        self.filled += 1
        self.graph = self.graphs.get(self.slots)
        super().run_step()
        self.graphs[self.slots] = self.graph


def decoding(here, size, kind, first=None):
    """Decode with this sampler -> microseconds a step; how many new tokens are those of the first
    kind before rounding draws another: the median of the rows."""
    (cfg, prompt, new), rows = speed.SIZES[size], here.rows(64)
    torch.manual_seed(0)
    model = speed.random_model(cfg, here.device, here.dtype)
    prompts = torch.randint(cfg.vocab_size, (rows, prompt)).tolist()
    sampler = kind(model, rows, dtype=here.dtype)

    def run():
        sampler.start()
        sampler.seed([("bench", i) for i in range(rows)])
        sampler.feed(range(rows), prompts)
        return timed(lambda: sampler.sample(new, ()), here.device)[1]
    once = run()
    seconds, tokens = min(run(), run()), sampler.tokens.clone()
    result = {"us_a_step": 1e6 * seconds / new, "first_s": once}
    if first is not None:
        first.setdefault(size, tokens)
        same = (tokens == first[size])[:, prompt:prompt + new]
        result["equal_tokens"] = same.cumprod(1).sum(1).median().item()
    return result


def captures(here):
    first = {}
    ours = functools.partial(Sampler, compile=True)
    for name, kind in (("eager step, captured", Captured), ("compiled, captured (as it is)", ours),
                       ("compiled, reduce-overhead", ReduceOverhead)):
        yield name, functools.partial(decoding, here, "124m", kind, first)


def buckets(here):
    first = {}
    for size in ("124m", "124m-2k"):
        for name, kind in (("one graph", Captured), ("powers of two", Buckets)):
            yield f"{size}, {name}", functools.partial(decoding, here, size, kind, first)


# ---- the draw over a large vocabulary ----

def draw_in_two(probs, u, width=128):
    """draw(), in two levels: first a block of `width` tokens, then a token of it. Sums are short,
    so they round less, and no cumulative sum is as long as the vocabulary."""
    blocks = F.pad(probs, (0, -probs.shape[1] % width)).unflatten(1, (-1, width))  # [B, V/w, w]
    total = blocks.sum(-1).cumsum(-1)  # [B, V/w]
    goal = u * total[:, -1]
    # the first block that passes the goal: of probability above 0, because the sum has grown there
    block = (total > goal[:, None]).int().argmax(-1)[:, None]  # [B, 1]
    before = total.gather(1, (block - 1).clamp(min=0)).where(block > 0, 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, width))[:, 0]  # [B, w]
    cdf = torch.where(inside > 0, inside.cumsum(-1), -1.0)
    passed = cdf > goal[:, None] - before
    # rounding may leave none: then the last one of the block
    passed = torch.where(passed.any(-1, keepdim=True), passed, cdf == cdf.amax(-1, keepdim=True))
    return block[:, 0] * width + passed.int().argmax(-1)


def draws(here):
    """The cumulative sum in fp32: how long it takes, and how often it draws another token than one
    in double precision would, near 1 too."""
    V, rows = (300 if here.rehearse else 151_936), here.rows(64)
    probs = (3 * torch.randn(rows, V, device=here.device)).softmax(-1)
    u = torch.rand(rows, device=here.device)
    u[:rows // 2] = 1 - 2.0**-24 * torch.randint(1, 1000, (rows // 2,), device=here.device)
    edges = probs.double().cumsum(-1)
    wanted = (edges > u[:, None] * edges[:, -1:]).int().argmax(-1)

    def exact(token):
        reached = edges.gather(1, token[:, None])[:, 0]
        missed = (reached - edges.gather(1, wanted[:, None])[:, 0]).abs()
        return {"other_tokens": (token != wanted).float().mean().item(),
                "largest_difference_of_cdf": missed.max().item(),
                "smallest_probability": probs.gather(1, token[:, None]).min().item()}
    title, ways = f"{V:,} tokens, {rows} rows", {}
    for name, way in (("as it is", draw), ("two levels", draw_in_two)):
        ways[name] = functools.partial(way, probs, u)
        ways[f"{name}, compiled"] = functools.partial(torch.compile(way, dynamic=False), probs, u)
    yield from in_each_way(here, title, ways, exact)
    def race():
        return (torch.empty_like(probs).exponential_() / probs).argmin(-1)
    yield from in_each_way(here, title, {"exponential race": race}, lambda token: {})
    # it looks at the device, which a graph does not allow
    yield f"{title}, multinomial, no graph", lambda: {
        "us": 1e6 * seconds_of(lambda: torch.multinomial(probs, 1), here.device)}


# ---- from logits to a token and its log-prob ----

def tail_as_it_is(logits, u):
    logp = logits.float().log_softmax(-1)
    token = draw(logp.exp(), u)
    return token, logp.gather(1, token[:, None])[:, 0]


def tail_by_sums(logits, u, drawn=draw):
    """The draw needs no probabilities that sum to 1, and one log-prob is wanted, not all."""
    logits = logits.float()
    highest = logits.amax(-1, keepdim=True)
    weight = (logits - highest).exp()
    token = drawn(weight, u)
    logp = logits.gather(1, token[:, None]) - highest - weight.sum(-1, keepdim=True).log()
    return token, logp[:, 0]


def tails(here):
    V, rows = (300 if here.rehearse else 151_936), here.rows(64)
    logits = (3 * torch.randn(rows, V, device=here.device)).to(here.dtype)
    u = torch.rand(rows, device=here.device)
    wanted = logits.double().log_softmax(-1)

    def exact(result):
        token, logp = result
        right = wanted.gather(1, token[:, None])[:, 0]
        return {"largest_difference": (logp - right).abs().max().item()}
    ways = {}
    for name, way in (("as it is", tail_as_it_is), ("sums", tail_by_sums),
                      ("sums, two levels", functools.partial(tail_by_sums, drawn=draw_in_two))):
        ways[name] = functools.partial(way, logits, u)
        ways[f"{name}, compiled"] = functools.partial(torch.compile(way, dynamic=False), logits, u)
    yield from in_each_way(here, f"{V:,} tokens, {rows} rows", ways, exact)


# ---- the uniforms ----

def hashes(here):
    """Hashed in the step, or looked up in a table that the host's call has filled."""
    rows, new = here.rows(64), 256
    key = torch.tensor([row_key("bench", i) for i in range(rows)], device=here.device)
    count = torch.arange(rows, device=here.device) % new
    all_counts = torch.arange(new, device=here.device)
    made = torch.stack([uniform(key, c.expand(rows)) for c in all_counts], 1)  # [B, new]
    wanted = made.gather(1, count[:, None])[:, 0]

    def exact(u):
        return {"largest_difference": (u - wanted).abs().max().item()}
    compiled = torch.compile(uniform, dynamic=False)
    ways = {"hashed": lambda: uniform(key, count),
            "hashed, compiled": lambda: compiled(key, count),
            "a table": lambda: made.gather(1, count[:, None])[:, 0]}
    yield from in_each_way(here, f"{rows} rows", ways, exact)
