"""Tandem RL (arXiv 2606.28166): a trained senior and a frozen, weaker junior take turns writing one chain of thought.

    python train.py --method tandem

The author of the next token is drawn anew at word boundaries; the team's verifiable reward drives GRPO on the tokens the
senior wrote. The paper's claim: the senior alone becomes as accurate as GRPO makes it (pass@4 54.9 against 55.6), and
besides its chain can be handed over (the team of both: 54.7 against 52.4), drifts less from the junior, and is one that
the junior can follow. What tandem adds to GRPO is one state a row (author, tokens since redraw) and one mask:

    mask = sampled and the senior wrote it                     (made in the decode step, used once, in the loss)

On `arithmetic` a word is a line, and the longest run without a redraw is the six tokens of a line. In a game of many turns every turn
of the model begins with a redraw.
"""
import math
from dataclasses import dataclass

import torch

import grpo
from sampler import Sampler, draw, row_key, uniform

SCHEDULES = ("word", "step", "token", "chunk", "alternate")


@dataclass
class Config:
    p: float = 0.5  # chance that a redraw makes the senior the author (paper: 0.5)
    schedule: str = "word"  # when the author is redrawn: word (the paper), step (at newlines), token, chunk (every max_gap tokens), alternate (hand over at newlines)
    max_gap: int = 0  # word, chunk: longest run of tokens without a redraw; 0: what the environment proposes (paper: 32)
    junior_weight: float = 0.0  # weight of the junior's tokens in the loss (paper: 0)


def next_author(author, since, boundary, coin, *, max_gap=32):
    """Who writes the next token, called after one is emitted (paper, word schedule). author [B] bool (the senior), since [B] int
    (tokens since the last redraw), boundary [B] bool (the emitted token ends a word), coin [B] bool -> author, since.

    A redraw, not a toggle: the same author may go on."""
    since = since + 1
    redraw = boundary | (since >= max_gap)
    return torch.where(redraw, coin, author), torch.where(redraw, 0, since)


class TandemSampler(Sampler):
    """Both models' steps and the author's draw in one graph. Adds, for each token: wrote [B, S+1] (by the senior), opens [B, S+1]
    (the author was drawn before it), junior_logp [B, S+1]. `logp` is the senior's, whoever wrote the token."""

    def __init__(self, senior, junior, rows, *, compile=False, dtype=torch.float32):
        super().__init__(senior, rows, compile=compile, dtype=dtype, junior=junior)
        device = self.tokens.device
        self.add(**{name: torch.ones(rows, dtype=torch.bool, device=device) for name in ("author", "fresh")},
                 **{name: torch.zeros(rows, dtype=torch.long, device=device) for name in ("since", "author_key")},
                 **{name: torch.zeros_like(self.tokens, dtype=torch.bool) for name in ("wrote", "opens")},
                 junior_logp=torch.zeros_like(self.logp))
        self.per_token += ["wrote", "opens"]
        self.boundary = torch.zeros_like(self.is_stop)
        self.p = torch.ones(1, device=device)
        self.max_gap = torch.ones(1, dtype=torch.long, device=device)
        self.toggle = torch.zeros(1, dtype=torch.bool, device=device)

    def set_schedule(self, name, tok, mark, max_gap, p):
        """How the author changes from now on (paper, and the strategies of its code)."""
        if name not in SCHEDULES:
            raise ValueError(f"unknown schedule {name!r}; one of: {' '.join(SCHEDULES)}")
        self.boundary.fill_(name == "token")
        if name == "word":
            self.boundary[tok.word_boundary_ids(mark)] = True
        if name in ("step", "alternate"):
            self.boundary[tok.word_boundary_ids("\n")] = True
        self.max_gap.fill_(max_gap if name in ("word", "chunk") else self.context + 1)
        self.toggle.fill_(name == "alternate")
        self.p.fill_(p)

    def seed(self, names):
        super().seed(names)
        self.author_key[:len(names)] = torch.tensor([row_key("author", *name) for name in names], device=self.key.device)
        self.author.copy_(self.toggle | (uniform(self.author_key, self.count) < self.p))  # alternate: the senior first
        self.fresh.fill_(True)
        self.since.zero_()

    def feed(self, rows, ids):
        """What the environment says ends a word: the author of the next turn is drawn anew (alternate: hands over, unless that has
        just been done)."""
        super().feed(rows, ids)
        rows = torch.as_tensor(list(rows), dtype=torch.long, device=self.tokens.device)
        drawn = uniform(self.author_key[rows], self.count[rows]) < self.p
        self.author[rows] = torch.where(self.toggle, self.author[rows] ^ ~self.fresh[rows], drawn)
        self.fresh[rows] = True
        self.since[rows] = 0

    def step(self):
        senior, junior = self.logits(0).log_softmax(-1), self.logits(1).log_softmax(-1)  # [B, V] each
        token = draw(torch.where(self.author[:, None], senior, junior).exp(), uniform(self.key, self.count))
        at = token[:, None]
        active = self.emit(token, {"logp": senior.gather(1, at)[:, 0], "junior_logp": junior.gather(1, at)[:, 0],
                                   "wrote": self.author, "opens": self.fresh})
        coin = torch.where(self.toggle, ~self.author, uniform(self.author_key, self.count) < self.p)
        author, since = next_author(self.author, self.since, self.boundary[token], coin, max_gap=self.max_gap)
        self.author.copy_(torch.where(active, author, self.author))
        self.fresh.copy_(torch.where(active, since == 0, self.fresh))
        self.since.copy_(torch.where(active, since, self.since))


# ---- the loss: GRPO's, on the senior's tokens ----

def loss_mask(rows, junior_weight=0.0):
    """Which tokens the loss counts: [R, T] fp32, 1 where the senior wrote, junior_weight where the junior did, 0 elsewhere. It
    is the numerator's and the denominator's mask. ValueError without an author mask: that would train plain GRPO in silence."""
    if rows.author is None:
        raise ValueError("tandem needs rows with an author mask, as TandemSampler writes it")
    return rows.mask * torch.where(rows.author, 1.0, junior_weight)


def author_stats(rows):
    """How the team shared the writing. -> senior_share (of tokens), redraws, senior_draws (share of the redraws that chose the
    senior), run_length (tokens between redraws)."""
    opens = rows.opens & rows.mask
    redraws, tokens = int(opens.sum()), int(rows.mask.sum())
    return {"senior_share": float((rows.author & rows.mask).sum()) / max(1, tokens), "redraws": redraws,
            "senior_draws": float((opens & rows.author).sum()) / max(1, redraws), "run_length": tokens / max(1, redraws)}


def share_is_off(stats, p, sigmas=5.0):
    """True when the share of redraws that chose the senior is too far from p for their number: the coin is broken."""
    return abs(stats["senior_draws"] - p) > sigmas * math.sqrt(max(p * (1 - p), 1e-9) / max(1, stats["redraws"]))


# ---- metrics ----

@torch.no_grad()
def follow(senior, junior, batches, temperature=1.0, micro_rows=128):
    """How well the junior follows chains that the senior wrote alone. -> {name: (mean, standard error over chains)}:
    legibility, the junior's nats per token; log_ratio, the mean of log senior - log junior on the sampled tokens (the paper's
    drift); kl, the exact KL(senior || junior) per token."""
    chains = {"legibility": [], "log_ratio": [], "kl": []}
    lengths = []
    for rows in (batch[i:i + micro_rows] for batch in batches for i in range(0, len(batch.tokens), micro_rows)):
        mask = rows.mask[:, 1:].float()  # [R, T-1]
        logits = [model(rows.tokens[:, :-1]) / temperature for model in (senior, junior)]  # [R, T-1, V] each
        own, others = (x.log_softmax(-1).gather(2, rows.tokens[:, 1:, None])[..., 0] for x in logits)
        lengths.append(mask.sum(1))
        for name, value in (("legibility", -others), ("log_ratio", own - others), ("kl", grpo.exact_kl(*logits))):
            chains[name].append((value * mask).sum(1))
    length = torch.cat(lengths).cpu().double()
    out = {}
    for name, sums in chains.items():  # a ratio of sums; its standard error by linearisation
        total = torch.cat(sums).cpu().double()
        mean = total.sum() / length.sum()
        out[name] = (mean.item(), ((total - mean * length).square().sum().sqrt() / length.sum()).item())
    return out


def evaluate(solo, team, env, tok, cfg, tandem_cfg, split, n, k, seed):
    """Every metric of the paper for one senior, on n problems with k chains each (teams: half the problems). solo: Sampler of
    the senior; team: TandemSampler of senior and junior, or None: then the senior's own metrics only. -> {name: (mean,
    standard error or None)}"""
    alone, batches, episodes = grpo.evaluate(solo, env, tok, cfg, split, n, k, seed)
    out = {f"solo pass@{j}": (alone[f"pass@{j}"], alone[f"pass@{j}_se"]) for j in sorted({1, k})}
    for name in ("private", "malformed", "truncated", "turns"):
        if name in alone and (name != "turns" or env.first.max_turns > 1):
            out[name] = (alone[name], None)
    if team is None:
        return out
    for label, schedule in (("step handoff", "alternate"), ("training handoff", tandem_cfg.schedule)):
        team.set_schedule(schedule, tok, env.first.mark, tandem_cfg.max_gap or env.first.max_gap, tandem_cfg.p)
        metrics, _, _ = grpo.evaluate(team, env, tok, cfg, split, max(1, n // 2), k, seed)
        for j in sorted({1, k}):
            out[f"{label} pass@{j}"] = (metrics[f"pass@{j}"], metrics[f"pass@{j}_se"])
    same = grpo.summary(episodes[:max(1, n // 2) * k], k)  # the senior alone on the team's problems
    for j in sorted({1, k}):
        (a, da), b, db = out[f"step handoff pass@{j}"], same[f"pass@{j}"], same[f"pass@{j}_se"]
        if a and b:  # without a success there is nothing to retain
            out[f"retention@{j}"] = (a / b, a / b * math.hypot(da / a, db / b))
    out.update(follow(team.sources[0], team.sources[1], batches, cfg.temperature, cfg.micro_rows))
    return out
