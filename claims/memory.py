"""What fits on which card: the table of docs/models.md, from the plan that --dry-run prints.

    python -m claims.memory                      # Markdown; nothing is allocated

Tandem in one pass, adapters of rank 32, chains of 4,096 tokens behind prompts of 512, 16 x 8 of them an
update; bf16 weights and caches; activations computed twice. A card keeps 5 GB free.
"""
import tandem
from lib.memory import parameters, plan
from model import GPTConfig

PROMPT, NEW, RANK = 512, 4096, 32
CARDS = {24: 1, 80: 4}  # GB -> rows of a forward and backward pass
QWEN3 = {"rope_base": 1e6, "qk_norm": True}
LENGTH = PROMPT + NEW
SHAPES = {  # of their public config.json, without the padding of the vocabulary
    "SmolLM2-135M": GPTConfig(49152, LENGTH, 30, 9, 3, 576, 64, 1536),
    "Qwen2.5-0.5B": GPTConfig(151665, LENGTH, 24, 14, 2, 896, 64, 4864, qkv_bias=True),
    "Qwen3-0.6B": GPTConfig(151669, LENGTH, 28, 16, 8, 1024, 128, 3072, **QWEN3),
    "Llama-3.2-1B": GPTConfig(128256, LENGTH, 16, 32, 8, 2048, 64, 8192),
    "Qwen3-1.7B": GPTConfig(151669, LENGTH, 28, 16, 8, 2048, 128, 6144, **QWEN3),
    "Qwen3-4B": GPTConfig(151669, LENGTH, 36, 32, 8, 2560, 128, 9728, **QWEN3),
    "Qwen3-8B": GPTConfig(151669, LENGTH, 36, 32, 8, 4096, 128, 12288, tied=False, **QWEN3)}


def planned(shape, rows, micro_rows, rank=RANK):
    """-> {what: bytes} of tandem on this model; with rank 0 all weights train, and the junior is a
    model of its own."""
    cfg = tandem.Config(micro_rows=micro_rows, recompute=True)
    frozen = {} if rank else {"junior": (shape, 2)}
    return plan(cfg, shape, frozen, rows, PROMPT, 2, adapters=rank, pair=rank > 0)


def most_rows(shape, card, micro_rows, rank=RANK):
    """The most chains side by side that a card of so many GB takes, up to an update's 128."""
    low, high = 0, 128
    while low < high:
        rows = (low + high + 1) // 2
        fits = sum(planned(shape, rows, micro_rows, rank).values()) < (card - 5) * 1e9
        low, high = (rows, high) if fits else (low, rows - 1)
    return low


def main():
    titles = ["model", "parameters", "weights and training", "a chain"]
    titles += [f"chains at once, {card} GB" for card in CARDS]
    titles += ["all weights: weights and training"]
    print("| " + " | ".join(titles) + " |\n|---|" + "--:|" * (len(titles) - 1))
    for name, shape in SHAPES.items():
        one, full = planned(shape, 1, 1), planned(shape, 1, 1, rank=0)
        fixed, all_fixed = (sum(size for what, size in x.items() if what not in (
            "caches", "activations", "logits")) for x in (one, full))
        cells = [name, f"{parameters(shape) / 1e9:.2f} B", f"{fixed / 1e9:.1f} GB",
                 f"{one['caches'] / 1e9:.2f} GB"]
        cells += [str(most_rows(shape, card, micro)) for card, micro in CARDS.items()]
        print("| " + " | ".join([*cells, f"{all_fixed / 1e9:.0f} GB"]) + " |")


if __name__ == "__main__":
    main()
