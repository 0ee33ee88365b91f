"""LoRA, low-rank adapters on frozen weights (arXiv 2106.09685); tandem's two authors in one pass.

    python train.py --method tandem --senior FOLDER --lora 16      # FOLDER: public weights

    y = W x + (16 / rank) B A x        W: frozen; A: [rank, in] random; B: [out, rank] 0 at first

In the tandem paper the junior is a frozen copy of the senior's start. With adapters no copy is
needed: the weights with adapters are the senior, and the weights alone are the junior. So both
authors decode in one pass over 2B rows, and adapters act on the senior's rows only.

Three trees of modules hold the same tensors, so that no switch is thrown while a graph runs:

    base     the frozen weights: junior, and reference of a KL term
    senior   adapt(base): what is trained, and what decodes alone
    pair     paired(senior): decodes [2B, T] rows; row 2b is the senior's and 2b + 1 the junior's

Adapters are fp32, the frozen weights may be bf16. Left out: dropout, adapters at embeddings. """
import copy

import torch
import torch.nn.functional as F
from torch import nn

ADAPTED = (("attn", "qkv"), ("attn", "out"), ("ffn", "gate_up"), ("ffn", "down"))
SCALE = 16.0  # of the adapter's output, over its rank


class Adapted(nn.Module):
    """A frozen linear map with an adapter. x: [B, T, in] -> [B, T, out]."""

    def __init__(self, linear, a, b):
        super().__init__()
        self.linear, self.a, self.b = linear, a, b

    def low_rank(self, x):
        """(16 / rank) B A x; the adapter's weights are cast to the dtype of the activations."""
        return F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)) * (SCALE / len(self.a))

    def forward(self, x):
        return self.linear(x) + self.low_rank(x)


class Paired(Adapted):
    """The same with the adapter on every other row. x: [2B, T, in] -> [2B, T, out]."""

    def forward(self, x):
        senior, junior = self.linear(x).unflatten(0, (-1, 2)).unbind(1)  # [B, T, out] each
        senior = senior + self.low_rank(x[0::2])
        return torch.stack([senior, junior], 1).flatten(0, 1)


def shared(model):
    """A second tree of modules on the same tensors."""
    return copy.deepcopy(model, {id(x): x for x in (*model.parameters(), *model.buffers())})


def replaced(model, make):
    """A tree on the same tensors, in which make(map) stands for each map that has an adapter."""
    model = shared(model)
    for block in model.blocks:
        for part, name in ADAPTED:
            owner = getattr(block, part)
            setattr(owner, name, make(getattr(owner, name)))
    return model


def adapt(base, rank, seed=0):
    """base, which is frozen here, -> the senior: at first it is the base to the last bit."""
    base.requires_grad_(False)
    device = base.embed.weight.device
    generator = torch.Generator().manual_seed(seed)

    def adapter(linear):
        a = torch.randn(rank, linear.in_features, generator=generator) * linear.in_features ** -0.5
        b = torch.zeros(linear.out_features, rank)
        return Adapted(linear, nn.Parameter(a.to(device)), nn.Parameter(b.to(device)))
    return replaced(base, adapter)


def paired(senior):
    """The senior -> both authors in one tree: rows 2b are the senior's, 2b + 1 the base's."""
    return replaced(senior, lambda one: Paired(one.linear, one.a, one.b))


@torch.no_grad()
def merged(senior):
    """The senior -> a model without adapters, W + (16 / rank) B A in its maps."""
    def merge(one):
        linear = copy.deepcopy(one.linear)
        update = one.b @ one.a * (SCALE / len(one.a))  # [out, in]
        linear.weight.copy_(linear.weight.float() + update)
        return linear
    return replaced(senior, merge)


def rank_in(state):
    """The rank of the adapters in a checkpoint's weights; 0 where all weights were trained, and
    where it holds something else."""
    named = state.items() if isinstance(state, dict) else ()
    found = [x for name, x in named if str(name).endswith(".attn.qkv.a")]
    return len(found[0]) if found and getattr(found[0], "ndim", 0) == 2 else 0
