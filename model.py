"""GPT: a decoder-only transformer, small enough to read, general enough for public weights.

Pre-norm RMSNorm, rotary positions, grouped-query attention (optional QK-norm, optional QKV bias,
head width apart from width), SwiGLU, tied or untied embeddings: the shape of Llama, Qwen2.5 and
Qwen3. `model(tokens)` gives logits, `token_logp(model, tokens)` the log-probs that a loss needs;
the sampler adds `positions` and a `cache`. Left out: dropout, sharding.

Letters: B rows, T tokens, S slots, V vocabulary, D width, H heads, K kv_heads, C head width. """
import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import weights

# cuDNN's attention plans anew for each shape, tens of milliseconds, and texts grow all the time
torch.backends.cuda.enable_cudnn_sdp(False)


@dataclass
class GPTConfig:
    vocab_size: int = 258  # tokenizer.n_vocab
    context: int = 64  # longest row, tokens
    layers: int = 2
    heads: int = 3
    kv_heads: int = 3  # fewer than heads: grouped-query attention
    width: int = 96
    head_width: int = 32
    ffn_width: int = 256  # SwiGLU's inner width
    rope_base: float = 10000.0
    rope_llama3: tuple = ()  # Llama 3.1: factor, low and high frequency factor, original context
    norm_eps: float = 1e-6
    qk_norm: bool = False  # Qwen3
    qkv_bias: bool = False  # Qwen2.5
    tied: bool = True  # the output head is the embedding


def small_config(vocab_size, context, layers, width):
    """The usual proportions: heads of 32, a feed-forward of 8/3 of the width, rounded up to 32s."""
    return GPTConfig(vocab_size, context, layers, heads=width // 32, kv_heads=width // 32,
                     width=width, head_width=32, ffn_width=-(-width * 8 // 3 // 32) * 32)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        # queries, keys and values come from one multiplication
        heads = cfg.heads + 2 * cfg.kv_heads
        self.qkv = nn.Linear(cfg.width, heads * cfg.head_width, bias=cfg.qkv_bias)
        self.out = nn.Linear(cfg.heads * cfg.head_width, cfg.width, bias=False)
        if cfg.qk_norm:
            self.q_norm = nn.RMSNorm(cfg.head_width, cfg.norm_eps)
            self.k_norm = nn.RMSNorm(cfg.head_width, cfg.norm_eps)

    def forward(self, x, cos, sin, cache, rows, positions, slots, mask):
        B, T, _ = x.shape
        H, K = self.cfg.heads, self.cfg.kv_heads
        qkv = self.qkv(x).view(B, T, H + 2 * K, -1)
        q_and_k, v = qkv.split([H + K, K], dim=2)  # [B, T, H + K, C], [B, T, K, C]
        if self.cfg.qk_norm:
            q, k = q_and_k.split([H, K], dim=2)
            q_and_k = torch.cat([self.q_norm(q), self.k_norm(k)], dim=2)
        q, k = rotate(q_and_k, cos, sin).split([H, K], dim=2)
        # write the new keys and values into their slots, then attend to the slots so far
        if cache is not None:
            keys, values = cache  # [B_all, K, S, C] each: a head's slots lie together, fast to read
            at = (torch.arange(B, device=x.device) if rows is None else rows)[:, None]
            keys[at, :, positions] = k
            values[at, :, positions] = v
            k, v = keys[:, :, :slots], values[:, :, :slots]
            k, v = (k, v) if rows is None else (k[rows], v[rows])  # [B, K, S, C]
        else:
            k, v = k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask,
                                           is_causal=mask is None, enable_gqa=K != H)
        return self.out(y.transpose(1, 2).reshape(B, T, -1))  # [B, H, T, C] -> [B, T, D]


def rotate(x, cos, sin):
    """Rotary position embedding (arXiv 2104.09864), halves paired as in Llama's public weights.
    x: [B, T, H, C]; cos, sin: [B, T, 1, C/2], always fp32."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)


def rope_table(cfg):
    """-> cos, sin: [context + 1, C/2] each; the last row is the cache's scrap slot.

    Llama 3 stretches long wavelengths: those above original context / low factor by `factor`, those
    below original context / high factor not at all, with a ramp between."""
    # radians a token
    frequency = cfg.rope_base ** (-torch.arange(0, cfg.head_width, 2) / cfg.head_width)
    if cfg.rope_llama3:
        factor, low, high, original = cfg.rope_llama3
        kept = ((original * frequency / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (kept + (1 - kept) / factor)
    angle = torch.arange(cfg.context + 1)[:, None] * frequency
    return angle.cos(), angle.sin()


class SwiGLU(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        # gate and up in one multiplication
        self.gate_up = nn.Linear(cfg.width, 2 * cfg.ffn_width, bias=False)
        self.down = nn.Linear(cfg.ffn_width, cfg.width, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.attn_norm = nn.RMSNorm(cfg.width, cfg.norm_eps)
        self.attn = Attention(cfg)
        self.ffn_norm = nn.RMSNorm(cfg.width, cfg.norm_eps)
        self.ffn = SwiGLU(cfg)

    def forward(self, x, *attention):  # what Attention.forward takes behind x
        x = x + self.attn(self.attn_norm(x), *attention)
        return x + self.ffn(self.ffn_norm(x))


class GPT(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.vocab_size, cfg.width)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = nn.RMSNorm(cfg.width, cfg.norm_eps)
        self.head = nn.Linear(cfg.width, cfg.vocab_size, bias=False)
        # in training: keep a block's input only and compute it again in the backward pass
        self.recompute = False
        if cfg.tied:
            self.head.weight = self.embed.weight
        cos, sin = rope_table(cfg)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(self._init)
        for name, p in self.named_parameters():
            # they add to the residual stream 2 * layers times
            if name.endswith(("attn.out.weight", "ffn.down.weight")):
                nn.init.normal_(p, std=(2 * cfg.layers * cfg.width) ** -0.5)

    def _init(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.cfg.width ** -0.5)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)

    def hidden(self, tokens, positions=None, cache=None, rows=None, slots=None, mask=None):
        """Everything before the output head. tokens: [B, T] -> [B, T, D]. With nothing else, a row
        is one text. positions [B, T] and mask [B, 1, T, T] (bool: who sees whom) let a row hold
        several texts that share a prompt.

        With a cache (keys and values, [B_all, K, S, C] each, for every layer): tokens stand at
        `positions` [B, T] of the cache rows `rows` [B] (None: all, in order); their keys and values
        are written there, and each attends to the slots up to its own position. slots: how many
        slots are in use (None: all of them)."""
        if cache is None:
            if positions is None:
                positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        else:
            slots = slots or cache[0][0].shape[2]
            slot = torch.arange(slots, device=tokens.device)
            mask = slot <= positions[:, None, :, None]  # [B, 1, T, S]
        cos = self.cos[positions][:, :, None]  # [B, T, 1, C/2]
        sin = self.sin[positions][:, :, None]
        x = self.embed(tokens)  # [B, T, D]
        for i, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, None, rows, positions, slots, mask,
                               use_reentrant=False)
            else:
                layer_cache = None if cache is None else cache[i]
                x = block(x, cos, sin, layer_cache, rows, positions, slots, mask)
        return self.norm(x)

    def forward(self, tokens, *cached):
        """tokens: [B, T] ids -> logits [B, T, V], fp32."""
        return self.head(self.hidden(tokens, *cached)).float()

    @classmethod
    def from_pretrained(cls, folder, context=0, dtype=torch.float32, vocab=0):
        """Load Llama, Qwen2.5 or Qwen3 weights from a folder in Hugging Face format (weights.py).

        context: longest row in tokens; 0: the model's own. vocab: how many ids the tokenizer has;
        the rest of a padded vocabulary is left out, so that it is never drawn; 0: keep it all.
        ValueError in one line for an unknown architecture, for missing, extra or misshapen tensors,
        and for a tokenizer of more ids than the model has."""
        cfg = GPTConfig(**weights.read_config(folder, context, vocab))
        with torch.device("meta"):  # draw nothing that would be overwritten
            model = cls(cfg)
        model.cos, model.sin = rope_table(cfg)
        model.load_state_dict(weights.read_tensors(folder, model, dtype), assign=True)
        if cfg.tied:
            model.head.weight = model.embed.weight
        return model

    def n_params(self):
        return sum(p.numel() for p in self.parameters())


# ---- log-probs, for a loss ----

def token_logp(model, tokens, temperature=1.0, wanted=None, branch=None):
    """Log-prob of each token given those before it: [R, T] -> [R, T], 0 for the first.

    wanted: [R, T] bool, the tokens you ask for (None: all); the others get 0. The output head and
    its softmax, much of a small model's work, run on these alone. branch: Rows.branch, where some
    completions share a prompt: each follows the prompt's last token and sees none of the others."""
    slot = torch.arange(tokens.shape[1], device=tokens.device)
    before, packed = (slot - 1).expand_as(tokens), {}  # [R, T]: the place of the token before it
    if branch is not None:
        before, packed = branched(branch, slot)
    wanted = torch.ones_like(tokens, dtype=torch.bool) if wanted is None else wanted.clone()
    wanted[:, 0] = False
    row, column = wanted.nonzero(as_tuple=True)  # [n] each
    # no cache: weights are cast for each chunk of head_logp, whose gradients add up in fp32 then
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.device.type == "cuda",
                        cache_enabled=False):
        x = model.hidden(tokens, **packed)[row, before[row, column]]  # [n, D]
        logp = head_logp(model.head, x, tokens[row, column], temperature)  # [n]
    return logp.new_zeros(tokens.shape).index_put((row, column), logp)


def branched(branch, slot):
    """Rows of a prompt and its completions -> place of the token before each, {positions, mask}."""
    prompt = (branch == 0).sum(1, keepdim=True)  # [R, 1], its length
    first = (branch > 0) & (branch != branch.roll(1, 1))  # a completion begins
    start = torch.where(first, slot, 0).cummax(1).values
    before = torch.where(first, prompt - 1, slot - 1)
    # padding stands anywhere: a row of several completions may be longer than the context
    position = torch.where(branch > 0, prompt + slot - start, torch.where(branch < 0, 0, slot))
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])  # [R, who, whom]
    causal = slot <= slot[:, None]
    return before, {"positions": position, "mask": (seen & causal)[:, None]}


# held in memory at once; a GPU needs more of them to be busy
LOGITS = 2**27 if torch.cuda.is_available() else 2**24


def head_logp(head, x, token, temperature):
    """x: [n, D], token: [n] -> log-prob of each, [n]. No more than LOGITS logits are in memory at
    once, neither here nor in the backward pass, which computes chunks again: with a large
    vocabulary logits would be most of the memory."""
    def chunk(x, token):
        logits = head(x).float() / temperature  # [chunk, V]
        return logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(-1)
    n = max(1, LOGITS // head.out_features)
    if len(x) <= n:
        return chunk(x, token)
    chunks = zip(x.split(n), token.split(n))
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in chunks])


# ---- micro-batches ----

def sampled_length(mask):
    """[R, T] -> length of each row up to its last token that counts, [R]. The rest is padding."""
    return ((mask != 0) * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)


def by_length(length, index, micro_rows, waste=0.15):
    """Cut a batch into micro-batches of rows of similar length. length: [R]; index: the rows to
    take. Yields (part of index, length of its longest row): a part holds micro_rows rows at most,
    and when it holds more than 8, at most a share of `waste` of it is padding."""
    index = index[length[index].argsort(stable=True)]
    lengths, first = length[index].tolist(), 0
    for i in range(1, len(lengths) + 1):
        last = i == len(lengths)
        full = i - first == micro_rows
        filled = sum(lengths[first:i + 1])
        if last or full or (i - first >= 8 and filled < (1 - waste) * lengths[i] * (i + 1 - first)):
            yield index[first:i], lengths[i - 1]
            first = i


def by_prompt(completions, longest):
    """What belongs to one prompt together, in as many rows of up to `longest` tokens as it needs.
    completions: [(prompt, tokens behind it, item)] -> [(prompt, [item])], one a row"""
    rows = {}  # prompt -> its rows, each [tokens so far, [item]]
    for prompt, n, item in completions:
        mine = rows.setdefault(prompt, [])
        if not mine or mine[-1][0] + n > longest:
            mine.append([len(prompt), []])
        mine[-1][0] += n
        mine[-1][1].append(item)
    return [(prompt, items) for prompt, mine in rows.items() for _, items in mine]


# ---- one optimiser step ----

def trained(model):
    """The parameters that are trained: all, or nothing but adapters (lora.py)."""
    return [p for p in model.parameters() if p.requires_grad]


def zero_gradients(model):
    """0, not None: a rank that has nothing to train on still takes part in the sum of gradients."""
    for p in trained(model):
        p.grad = torch.zeros_like(p)


def apply_gradients(model, optimizer, grad_clip, loss):
    """Sum the ranks' gradients, clip, step unless it is not finite -> {"grad_norm", "skipped"}."""
    params = trained(model)
    # all_reduce, not the DDP wrapper: ranks may run different numbers of micro-batches
    if dist.is_initialized():
        flat = torch.cat([p.grad.flatten() for p in params])
        dist.all_reduce(flat)
        for p, g in zip(params, flat.split([p.numel() for p in params])):
            p.grad.copy_(g.view_as(p))
    norm = torch.nn.utils.clip_grad_norm_(params, grad_clip)
    if not bool(torch.isfinite(norm) & torch.isfinite(loss)):
        return {"grad_norm": float(norm), "skipped": 1}
    optimizer.step()
    return {"grad_norm": float(norm), "skipped": 0}
