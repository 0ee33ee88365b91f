"""What bench.py measures besides: what each trick of a decode step is worth, and a tree's cost."""
import torch

import beliefs
import grpo
import imagine
import worldmodel
from claims.speed import SIZES, in_turn, timed, without_cache
from envs import record
from model import GPT, small_config
from rollout import training_rows
from sampler import Sampler


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
    worlds = beliefs.open_worlds(cfg)
    first = next(iter(worlds.values()))
    tok = beliefs.open_tokenizer(cfg, worlds, first)
    tok.stop_ids = ()  # a reply ends when it is full
    torch.manual_seed(0)
    model = GPT(small_config(tok.n_vocab, 256, cfg.layers, cfg.width))  # of the default size
    form, sampler = imagine.FORMULATIONS["strict"], Sampler(model, examples * SAMPLES)
    sizes = cfg.window, STATE, OBSERVATION
    w = beliefs.WorldModel(model, tok, first.language, form, *sizes, sampler)
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
