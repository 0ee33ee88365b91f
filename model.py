"""GPT: a decoder-only transformer, small enough to read, general enough for public weights.

Pre-norm RMSNorm, rotary positions, grouped-query attention (optional QK-norm, optional QKV bias, head width apart from
width), SwiGLU, tied or untied embeddings: the shape of Llama, Qwen2.5 and Qwen3. `model(tokens)` is the whole
interface for training; the sampler adds `positions` and a `cache`. Left out: dropout, initialisation tricks, sharding.

Letters in shape comments: B rows, T tokens, S cache slots, V vocabulary, D width, H heads, K key-value heads, C head width.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


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
    rope_llama3: tuple = ()  # of Llama 3.1 and later: factor, low and high frequency factor, original context
    norm_eps: float = 1e-6
    qk_norm: bool = False  # Qwen3
    qkv_bias: bool = False  # Qwen2.5
    tied: bool = True  # the output head is the embedding


def small_config(vocab_size, context, layers, width):
    """A config of the usual proportions: heads of 32, feed-forward 8/3 of the width in multiples of 32."""
    return GPTConfig(vocab_size, context, layers, heads=width // 32, kv_heads=width // 32, width=width, head_width=32,
                     ffn_width=-(-width * 8 // 3 // 32) * 32)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.qkv = nn.Linear(cfg.width, (cfg.heads + 2 * cfg.kv_heads) * cfg.head_width, bias=cfg.qkv_bias)  # one multiplication for three
        self.out = nn.Linear(cfg.heads * cfg.head_width, cfg.width, bias=False)
        if cfg.qk_norm:
            self.q_norm = nn.RMSNorm(cfg.head_width, cfg.norm_eps)
            self.k_norm = nn.RMSNorm(cfg.head_width, cfg.norm_eps)

    def forward(self, x, cos, sin, cache, rows, positions, slots, mask):
        B, T, _ = x.shape
        H, K = self.cfg.heads, self.cfg.kv_heads
        q, k, v = self.qkv(x).view(B, T, H + 2 * K, -1).split([H, K, K], dim=2)  # [B, T, H, C], [B, T, K, C] twice
        if self.cfg.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:  # write the new keys and values into their slots, attend to all slots up to one's own position
            keys, values = cache  # [B_all, K, S, C] each: a head's slots lie side by side, which makes decoding's attention twice as fast
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
    """Rotary position embedding (arXiv 2104.09864), halves paired as in Llama's public weights. x: [B, T, H, C], cos and sin:
    [B, T, 1, C/2], always fp32."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)


def rope_table(cfg):
    """-> cos, sin: [context + 1, C/2] each; the last row is the cache's scrap slot. Llama 3 stretches what turns slowly: wavelengths longer
    than original context / low factor by `factor`, those shorter than original context / high factor not at all, with a ramp between."""
    frequency = cfg.rope_base ** (-torch.arange(0, cfg.head_width, 2) / cfg.head_width)  # radians a token
    if cfg.rope_llama3:
        factor, low, high, original = cfg.rope_llama3
        kept = ((original * frequency / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (kept + (1 - kept) / factor)
    angle = torch.arange(cfg.context + 1)[:, None] * frequency
    return angle.cos(), angle.sin()


class SwiGLU(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.gate_up = nn.Linear(cfg.width, 2 * cfg.ffn_width, bias=False)  # one multiplication for two
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

    def forward(self, x, *attention):
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
        self.recompute = False  # in training: keep a block's input only, and compute the block again in the backward pass
        if cfg.tied:
            self.head.weight = self.embed.weight
        cos, sin = rope_table(cfg)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(self._init)
        for name, p in self.named_parameters():
            if name.endswith(("attn.out.weight", "ffn.down.weight")):  # they add to the residual stream 2 * layers times
                nn.init.normal_(p, std=(2 * cfg.layers * cfg.width) ** -0.5)

    def _init(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.cfg.width ** -0.5)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)

    def hidden(self, tokens, positions=None, cache=None, rows=None, slots=None, mask=None):
        """Everything before the output head. tokens: [B, T] -> [B, T, D]. Without more, a row is one text. With positions [B, T] and
        mask [B, 1, T, T] (bool: who sees whom) it is what they say: several texts that share their beginning, say.

        With a cache (keys and values, [B_all, K, S, C] each, for every layer): tokens stand at `positions` [B, T] of the cache
        rows `rows` [B] (None: all, in order); their keys and values are written there, and each attends to the slots up to its
        own position. `slots`: no position that matters lies behind so many (None: look at all)."""
        if cache is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if positions is None else positions
        else:
            slots = slots or cache[0][0].shape[2]
            mask = torch.arange(slots, device=tokens.device) <= positions[:, None, :, None]  # [B, 1, T, S]
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]  # [B, T, 1, C/2]
        x = self.embed(tokens)  # [B, T, D]
        for i, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, None, rows, positions, slots, mask, use_reentrant=False)
            else:
                x = block(x, cos, sin, None if cache is None else cache[i], rows, positions, slots, mask)
        return self.norm(x)

    def forward(self, tokens, *cached):
        """tokens: [B, T] ids -> logits [B, T, V], fp32."""
        return self.head(self.hidden(tokens, *cached)).float()

    @classmethod
    def from_pretrained(cls, folder, context=0):
        """Public weights of the Llama, Qwen2.5 and Qwen3 families, from a folder in Hugging Face format: see weights.py."""
        import weights  # which imports this module
        return weights.from_pretrained(folder, context)

    def n_params(self):
        return sum(p.numel() for p in self.parameters())
