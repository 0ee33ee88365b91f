"""Sampling: a static cache, one fused step a token, and random numbers that belong to the episode.

RL spends most of its time here. A decode step -- embed, layers with cache update, logits, draw,
log-prob of the drawn token, finished flags -- is one function without a host synchronisation,
compiled into a graph for each quarter of the cache on a CPU, and into one, captured, on CUDA. All
state lives in tensors that the step changes in place.

Invariant between calls: row b's text is tokens[b, :length[b]]; keys and values of all of it but the
last token are in the cache. So `feed` (forced tokens) and `sample` (drawn ones) mix freely, which
is what a game of many turns needs.

The draw is an inverse CDF on one uniform a token, hashed from (row key, tokens sampled so far):
resuming, batching and neighbours do not change a row's luck. Left out on purpose: top-k and top-p,
which would make the sampled distribution differ from the scored one. """
import copy
import hashlib
import importlib.util
import os
import shutil
from dataclasses import dataclass

import torch


def row_key(*name):
    """(stream, run seed, purpose, update, task, sample) -> 62 bits that seed its random numbers."""
    digest = hashlib.blake2b(" ".join(map(str, name)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def mix(x):
    """A 32-bit integer hash (xor-shift and multiply) on int64 tensors that hold 0 .. 2^32 - 1. Both
    multipliers are below 2^31, so no product leaves int64."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x2C1B3C6D) & 0xFFFFFFFF
    return x ^ (x >> 16)


def uniform(key, count):
    """key, count: int64, of shapes that broadcast -> fp32 in [0, 1), multiples of 2^-24, the same
    anywhere."""
    high, low = key >> 31, key & 0x7FFFFFFF
    bits = mix(mix(mix(low + count * 0x9E3779B1 & 0xFFFFFFFF) ^ high) + low & 0xFFFFFFFF)
    return (bits >> 8).float() * 2.0**-24


def draw(probs, u):
    """Inverse CDF. probs: [B, V], which need not sum to 1; u: [B] in [0, 1) -> token [B]: the first
    whose cumulated probability exceeds u * total. One of probability 0 is never drawn."""
    cdf = probs.cumsum(-1)
    if cdf.device.type == "cpu":  # summed in order, so it never falls and can be searched
        place = torch.searchsorted(cdf, (u * cdf[:, -1])[:, None], right=True)[:, 0]
        return place.clamp(max=probs.shape[1] - 1)  # of NaN there is no place
    cdf = torch.where(probs > 0, cdf, -1.0)
    return (cdf > u[:, None] * cdf.amax(-1, keepdim=True)).int().argmax(-1)


def empty_cache(cfg, rows, context, device, dtype):
    """Keys and values of every layer, [B, K, S + 1, C] each; padding goes to slot S, the scrap."""
    shape = (rows, cfg.kv_heads, context + 1, cfg.head_width)
    return [tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in "kv")
            for _ in range(cfg.layers)]


def copy_as(model, dtype):
    """A copy with parameters of another dtype."""
    return as_dtype(copy.deepcopy(model), dtype)


def as_dtype(model, dtype):
    """The model with parameters of another dtype; the rotary tables stay fp32."""
    for p in model.parameters():
        p.data = p.data.to(dtype)
    return model


def pooled(cache, rows):
    """The first rows of another sampler's cache, as this one's."""
    return [[(keys[:rows], values[:rows]) for keys, values in cache]]


class Sampler:
    """B rows that grow side by side. `models` holds one model; TandemSampler adds the junior.

    tokens [B, S+1] int64, length [B], logp [B, S+1] (behaviour log-prob of each sampled token, else
    0), count [B] (tokens sampled so far in the episode), finished [B]. B is as many rows as are in
    use: all after start(), fewer after a select() of fewer."""

    def __init__(self, model, rows, *, compile=False, dtype=torch.float32, junior=None, pair=None,
                 context=0, pool=None):
        """dtype: of weights and cache. A model of another dtype is copied, and the copy refreshed
        at start(). pair: model and junior as one tree (lora.py), which decodes both at once.
        context: slots of a row; 0: as many as the model can take. pool: another sampler with as
        many rows, whose cache this one takes over whenever it starts."""
        self.sources = [model] if junior is None else [model, junior]
        self.models = [source if source.embed.weight.dtype == dtype else copy_as(source, dtype)
                       for source in ([pair] if pair else self.sources)]
        if pair and pair.embed.weight.dtype != dtype:
            raise ValueError("adapters decode in the dtype of the weights that they adapt")
        self.running = len(self.models)  # how many of them are run
        self.lanes = 2 if pair else 1  # cache rows of a text: the senior's, then the junior's
        device = model.embed.weight.device
        self.context, self.rows = context or model.cfg.context, rows

        # the state: a tensor with a row for each text
        self.whole = {"caches": pooled(pool.whole["caches"][0], rows) if pool else [
            empty_cache(m.cfg, rows * self.lanes, self.context, device, m.embed.weight.dtype)
            for m in self.models]}
        slots, long = self.context + 1, dict(dtype=torch.long, device=device)  # + 1: scrap
        self.add(
            tokens=torch.zeros(rows, slots, **long), logp=torch.zeros(rows, slots, device=device),
            luck=torch.zeros(rows, slots, device=device),  # uniforms of a call's tokens
            **{name: torch.zeros(rows, **long)
               for name in ("length", "began", "limit", "count", "key", "counted")},
            finished=torch.ones(rows, dtype=torch.bool, device=device),
            open=torch.zeros(rows, dtype=torch.bool, device=device))  # in the middle of a turn
        self.per_token = ["tokens", "logp"]  # what is known of each token, [B, S+1] each
        self.use(rows)

        # what a call of sample() sets
        self.is_stop = torch.zeros(model.cfg.vocab_size, dtype=torch.bool, device=device)
        self.temperature = torch.ones(1, device=device)
        self.slots = None  # how many cache slots to attend to; None: all
        self.compile, self.decode, self.graph = compile, self.step, None
        if compile:
            torch._dynamo.config.recompile_limit = 64  # of all samplers together
            self.decode = torch.compile(self.step, fullgraph=True, dynamic=False)

    def add(self, **state):
        """Tensors that have an entry for each row."""
        self.whole.update(state)
        for name, x in state.items():
            setattr(self, name, x)

    def use(self, n):
        """Only the first n rows take part from here on. What the others hold is lost."""
        for name, x in self.whole.items():
            if name != "caches":
                setattr(self, name, x[:n])
        n = n * self.lanes
        self.caches = [[(keys[:n], values[:n]) for keys, values in cache]
                       for cache in self.whole["caches"]]

    def cache_rows(self, rows):
        """Numbers of rows [b] -> of their rows in the cache, [b * lanes]."""
        lane = torch.arange(self.lanes, device=rows.device)
        return (rows[:, None] * self.lanes + lane).flatten()

    # ---- one token a row: everything below runs inside the graph ----

    def logits(self, which):
        """Feed every row's last token to one model -> logits of the next / temperature, [B, V];
        of a pair [2B, V], senior and junior in turn."""
        last = (self.length - 1).clamp(min=0)[:, None]  # [B, 1]; an empty row is finished anyway
        token = self.tokens.gather(1, last)  # [B, 1]
        if self.lanes == 2:
            last, token = last.repeat_interleave(2, 0), token.repeat_interleave(2, 0)  # [2B, 1]
        logits = self.models[which](token, last, self.caches[which], None, self.slots)  # [B, 1, V]
        return logits[:, 0] / self.temperature

    def step(self):
        logp = self.logits(0).log_softmax(-1)  # [B, V]
        token = draw(logp.exp(), self.next_of(self.luck))
        self.emit(token, {"logp": logp.gather(1, token[:, None])[:, 0]})

    def next_of(self, luck):
        """luck: [B, S+1], uniforms made ahead -> that of each row's next token, [B]."""
        return luck.gather(1, (self.count - self.counted)[:, None])[:, 0]

    def emit(self, token, values):
        """Append a token to unfinished rows, and `values` {name: [B]} beside it -> which rows."""
        active = ~self.finished
        # a finished row writes to the scrap slot
        slot = torch.where(active, self.length, self.context)[:, None]
        self.tokens.scatter_(1, slot, token[:, None])
        for name, value in values.items():
            getattr(self, name).scatter_(1, slot, value[:, None])
        self.length.add_(active)
        self.count.add_(active)
        self.finished.logical_or_(self.is_stop[token] | (self.length >= self.limit))
        return active

    # ---- the host's side ----

    @torch.no_grad()
    def start(self):
        """Empty all rows; from here on the models are what they are now. The last update's
        gradients are let go: nothing needs them while text is sampled."""
        for model, source in zip(self.models, self.sources):
            for p in source.parameters():
                p.grad = None
            if self.lanes == 1 and model is not source:
                for copied, p in zip(model.parameters(), source.parameters()):
                    copied.copy_(p)
        self.use(self.rows)
        for name, x in self.whole.items():
            if name != "caches":
                x.zero_()

    def seed(self, streams, rows=None):
        """Give rows (default: the first) random streams, each (run seed, purpose, update, task,
        sample): episodes begin there."""
        rows = range(len(streams)) if rows is None else rows
        long = dict(dtype=torch.long, device=self.key.device)
        at = torch.tensor(list(rows), **long)
        self.key[at] = torch.tensor([row_key("token", *name) for name in streams], **long)
        self.count[at] = 0

    @torch.no_grad()
    def feed(self, rows, ids):
        """Append forced tokens. rows: list of row numbers, ids: a list of ids for each, of any
        lengths. OverflowError when a row would outgrow its context."""
        if not rows:
            return
        device = self.tokens.device
        in_front = list(rows) == list(range(len(rows)))  # then a view of the cache is enough
        rows = torch.tensor(rows, device=device)
        before = self.length[rows]
        n = torch.tensor([len(i) for i in ids], device=device)
        if int((before + n).max()) > self.context:
            longest = int((before + n).max())
            raise OverflowError(f"{longest} tokens do not fit a context of {self.context}")

        # write the tokens behind each row's text; padding goes to the scrap slot
        offset = torch.arange(max(len(i) for i in ids), device=device)  # [T]
        padded = [list(i) + [0] * (len(offset) - len(i)) for i in ids]
        slot = torch.where(offset < n[:, None], before[:, None] + offset, self.context)  # [b, T]
        padded = torch.tensor(padded, dtype=torch.long, device=device)
        self.tokens.index_put_((rows[:, None], slot), padded)
        self.length.index_add_(0, rows, n)

        # the cache lacks the token that was last before, and gets all but the one that is last now
        start = (before - 1).clamp(min=0)
        position = start[:, None] + torch.arange(len(offset) + 1, device=device)  # [b, T + 1]
        position = torch.where(position < self.length[rows][:, None] - 1, position, self.context)
        tokens, slots = self.tokens[rows].gather(1, position), int(self.length.max())
        at, n = self.cache_rows(rows), len(rows) * self.lanes
        if self.lanes == 2:
            tokens, position = tokens.repeat_interleave(2, 0), position.repeat_interleave(2, 0)
        for model, cache in zip(self.models[:self.running], self.caches):
            if in_front:
                cache = [(keys[:n], values[:n]) for keys, values in cache]
            model.hidden(tokens, position, cache, None if in_front else at, slots)

    def select(self, indices):
        """Row i becomes a copy of row indices[i], random numbers included: seed() the copies of a
        prompt afterwards. With fewer indices than rows, the rows behind them drop out until start()
        and cost nothing (a compiled graph has a fixed shape: there they stay, unused)."""
        n = len(indices)
        if self.compile:
            indices = list(indices) + [indices[-1]] * (self.rows - n)
        indices = torch.as_tensor(indices, device=self.tokens.device)
        filled = int(self.length.max())  # slots behind it are never read
        for name in self.whole.keys() - {"caches"}:
            getattr(self, name)[:len(indices)] = getattr(self, name)[indices]
        at = self.cache_rows(indices)
        for cache in self.caches:
            for x in (x for layer in cache for x in layer):
                x[:len(at), :, :filled] = x[at, :, :filled]
        self.use(len(indices))

    def clear(self, rows):
        """Empty these rows; how many tokens their episodes have sampled is kept."""
        self.length[rows] = 0
        self.open[rows] = False

    def ahead(self, luck, key, max_new):
        """Make the uniforms of the next tokens: hashed token by token they cost as much as a
        layer of a small model."""
        token = torch.arange(min(max_new + 1, luck.shape[1]), device=luck.device)
        luck[:, :len(token)] = uniform(key[:, None], self.count[:, None] + token)

    @torch.no_grad()
    def sample(self, max_new, stop_ids, *, temperature=1.0, rows=None, enough=None):
        """Decode up to max_new tokens in `rows` (default: all), each until one of stop_ids or the
        end of its context. Returns the lengths before, [B]: row b's new tokens are tokens[b,
        before[b]:length[b]]. temperature 0: greedy.

        enough: stop as soon as so many of the rows are finished. The next call goes on with the
        turns of the others, with the lengths before and the limits that they began with."""
        before = torch.where(self.open, self.began, self.length)
        self.began.copy_(before)
        chosen = torch.ones_like(self.finished)
        if rows is not None:
            chosen.zero_()[torch.tensor(rows, device=chosen.device)] = True
        self.limit.copy_((before + max_new).clamp(max=self.context))
        self.finished.copy_(~chosen | (self.length >= self.limit))
        self.is_stop.zero_()[list(stop_ids)] = True
        self.temperature.fill_(max(temperature, 1e-6))  # all the mass on the largest logit
        self.counted.copy_(self.count)
        self.ahead(self.luck, self.key, max_new)
        longest, writing = int(self.length.max()), int(chosen.sum())
        left = 0 if enough is None else writing - enough
        for i in range(max_new):
            # to ask waits for the device: every fourth token will do, a finished row writes nothing
            if i % 4 == 0 and int((~self.finished).sum()) <= left:
                break
            self.slots = self.slots_for(longest + i)  # an upper bound, which need not be asked for
            self.run_step()
        if not bool(torch.isfinite(self.logp).all()):
            raise FloatingPointError("the model's log-probs are not finite")
        self.open.copy_(~self.finished)
        return before

    def slots_for(self, longest):
        """How many cache slots a step attends to, for texts of up to `longest` tokens. A compiled
        graph has a fixed number: on a CPU there are four graphs, one for each quarter of the cache;
        on CUDA there is one, which reads all of it (None)."""
        if not self.compile:
            return min(longest, self.context)
        if self.tokens.device.type == "cuda":
            return None
        quarter = -(-self.context // 4)
        return min(-(-longest // quarter) * quarter, self.context)

    def run_step(self):
        if self.tokens.device.type != "cuda" or not self.compile:
            return self.decode()
        # warm up on a side stream, with every row finished so that no text changes; then capture
        if self.graph is None:
            finished = self.finished.clone()
            self.finished.fill_(True)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.decode()
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.decode()
            self.finished.copy_(finished)
        self.graph.replay()


# ---- many prompts at once, a few completions of each ----

@dataclass
class Reply:
    """A completion, and the prompt that it answers."""
    prompt: list
    ids: list  # the end token included, where there is one
    logp: list
    ended: bool

    @property
    def body(self):
        return self.ids[:-1] if self.ended else self.ids


def generate(sampler, prompts, k, max_new, streams, stop_ids, temperature=1.0):
    """k completions of each prompt, in order -> [Reply]. streams: a random stream for each prompt.
    A prompt is prefilled once, from position 0; its completions go on from copies of its cache."""
    replies, per = [], sampler.rows // k  # prompts at a time
    for first in range(0, len(prompts), per):
        some = prompts[first:first + per]
        n = len(some) * k
        sampler.start()
        sampler.feed(range(len(some)), some)
        sampler.select([row // k for row in range(n)])
        sampler.seed([(*name, i) for name in streams[first:first + per] for i in range(k)])
        before = sampler.sample(max_new, stop_ids, temperature=temperature, rows=range(n)).tolist()
        tokens, logp = sampler.tokens.tolist(), sampler.logp.tolist()
        after = sampler.length.tolist()
        for row in range(n):
            new = slice(before[row], after[row])
            ids = tokens[row][new]
            ended = bool(ids) and ids[-1] in stop_ids
            replies.append(Reply(some[row // k], ids, logp[row][new], ended))
    return replies


# ---- whether to compile, and in which precision ----

def choose_compile(wanted, device, decode_steps):
    """Whether to compile the decode step. auto: when that (10 to 40 s on a CPU) pays for itself."""
    if wanted == "off":
        return False
    compilers = [os.environ.get("CXX", "g++"), "clang++", "cl"]
    if device != "cpu":  # a little C starts Triton's kernels
        compilers = [os.environ.get("CC", "gcc"), "clang"]
    missing = not any(map(shutil.which, compilers)) and f"found no {' or '.join(compilers)}"
    if device == "mps":
        missing = "it is not used on mps"
    elif device != "cpu" and not importlib.util.find_spec("triton"):
        missing = "triton is not installed"
    if missing:
        print(f"compile: off ({missing})")
        return False
    if wanted == "auto" and device == "cpu" and decode_steps < 50_000:
        print(f"compile: off ({decode_steps:,} decode steps are too few; --compile on forces it)")
        return False
    return True


def sampling_dtype(cfg, device):
    """The dtype of weights and cache while sampling. The weights that are trained stay fp32."""
    return torch.bfloat16 if cfg.bf16 or device.startswith("cuda") else torch.float32
