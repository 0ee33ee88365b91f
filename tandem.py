"""Tandem RL (arXiv 2606.28166): a trained senior and a frozen, weaker junior write one chain of
thought together.

    python train.py --method tandem

The author of the next token is drawn anew at word boundaries; the team's verifiable reward drives
GRPO on the tokens that the senior wrote. The paper's claim: the senior alone becomes as accurate as
GRPO makes it (pass@4 54.9 against 55.6), and on top of that its chain can be handed over (the team
of both: 54.7 against 52.4), drifts less from the junior, and is one that the junior can follow.
What tandem adds to GRPO (grpo.py) is one state a row (author, tokens since the last redraw) and one
mask, made in the decode step and used once, in the loss:

    mask = sampled and the senior wrote it

This file, in the order the data flows: next_author -> TandemSampler -> loss_mask -> the method:
setup, step (one update), look, report, show -> metrics. With --p 1 the senior writes everything:
that is GRPO, graded by the junior.

On `arithmetic` a word is a line, and the longest run without a redraw is the six tokens of a line.
In a game of many turns every turn of the model begins with a redraw. Letters: N prompts, G group, R
rows, T tokens, B sampler rows, S cache slots, V vocabulary. """
import math
import sys
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from tqdm import tqdm

import grpo
import lora
import run
import sft
import weights
from lib.start import freeze, is_public, load_models, sampler_options
from lib.terminal import print_episodes
from model import LOGITS
from rollout import (episode_rewards, evaluate, next_tasks, open_env, rollout, solo_table,
                     summary)
from run import CountOr0, Layers, Rate, Share, Width, in_range
from sampler import Sampler, copy_as, draw, row_key, sampling_dtype, uniform

Schedule = Literal["word", "step", "token", "chunk", "alternate"]


@dataclass
class Config(grpo.Config):
    """Tandem"""
    method = "tandem"
    p: Share = 0.5  # chance that a redraw makes the senior the author (paper: 0.5)
    p_end: in_range(float, least=-1, most=1) = -1.0  # p of the last update; -1: p stays (paper)
    p_from: Share = 0.5  # share of the updates after which p moves linearly to --p-end
    schedule: Schedule = "word"  # new draw by word, line (step), token, max-gap (chunk); or in turn
    max_gap: CountOr0 = 0  # longest run without a redraw (paper: 32); 0: the world's own default
    junior: str = "auto"  # frozen: a run, a folder; self: senior's start; auto: made, or self
    junior_skill: str = "junior"  # whose demonstrations it learns (a world of one notation: senior)
    junior_target: float = -1.0  # success that ends its warm start; below 0: the world's default
    junior_layers: Layers = 2  # of a junior made here
    junior_width: Width = 64  # of a junior made here
    junior_weight: Rate = 0.0  # weight of the junior's tokens in the loss (paper: 0)
    kl_to: Literal["warm", "junior"] = "warm"  # reference of --kl: senior's warm start, or junior


# ---- who writes the next token ----

def next_author(author, since, boundary, coin, *, max_gap=32):
    """Who writes the next token, called after one is emitted (paper, word schedule). author [B]
    bool (the senior), since [B] int (tokens since the last redraw), boundary [B] bool (the emitted
    token ends a word), coin [B] bool -> author, since.

    A redraw, not a toggle: the same author may go on."""
    since = since + 1
    redraw = boundary | (since >= max_gap)
    return torch.where(redraw, coin, author), torch.where(redraw, 0, since)


class TandemSampler(Sampler):
    """Both models' steps and the author's draw in one graph. It adds, for each token: wrote [B,
    S+1] (by the senior), opens [B, S+1] (the author was drawn before it), junior_logp [B, S+1].
    `logp` is the senior's, whoever wrote it."""

    def __init__(self, senior, junior, rows, **how):
        super().__init__(senior, rows, junior=junior, **how)
        device = self.tokens.device
        self.add(author=torch.ones(rows, dtype=torch.bool, device=device),
                 fresh=torch.ones(rows, dtype=torch.bool, device=device),  # author just drawn
                 since=torch.zeros(rows, dtype=torch.long, device=device),
                 author_key=torch.zeros(rows, dtype=torch.long, device=device),
                 coins=torch.zeros_like(self.luck),  # uniforms of a call's draws of the author
                 wrote=torch.zeros_like(self.tokens, dtype=torch.bool),
                 opens=torch.zeros_like(self.tokens, dtype=torch.bool),
                 junior_logp=torch.zeros_like(self.logp))
        self.per_token += ["wrote", "opens"]
        self.boundary = torch.zeros_like(self.is_stop)  # [V]: a token that ends a word
        self.p = torch.ones(1, device=device)
        self.max_gap = torch.ones(1, dtype=torch.long, device=device)
        self.toggle = torch.zeros(1, dtype=torch.bool, device=device)

    def set_schedule(self, name, tok, mark, max_gap, p):
        """How the author changes from now on (as in the paper's code). mark: of a word."""
        if name not in get_args(Schedule):
            raise ValueError(f"unknown schedule {name!r}; one of: {' '.join(get_args(Schedule))}")
        self.boundary.fill_(name == "token")
        if name == "word":
            self.boundary[tok.word_boundary_ids(mark)] = True
        if name in ("step", "alternate"):
            self.boundary[tok.word_boundary_ids("\n")] = True
        self.max_gap.fill_(max_gap if name in ("word", "chunk") else self.context + 1)
        self.toggle.fill_(name == "alternate")
        self.p.fill_(p)
        # where the senior writes all there is no junior to run (one pass decodes both all the same)
        running = 1 if self.lanes == 2 or (p == 1 and name != "alternate") else 2
        if running != self.running:
            self.running, self.graph = running, None  # a CUDA graph repeats what it captured

    def coin(self, rows):
        """The next draw of the author, from a random stream of its own. True: the senior writes."""
        return uniform(self.author_key[rows], self.count[rows]) < self.p

    def ahead(self, luck, key, max_new):
        super().ahead(luck, key, max_new)
        super().ahead(self.coins, self.author_key, max_new)

    def seed(self, streams, rows=None):
        super().seed(streams, rows)
        rows = range(len(streams)) if rows is None else rows
        long = dict(dtype=torch.long, device=self.key.device)
        at = torch.tensor(list(rows), **long)
        self.author_key[at] = torch.tensor([row_key("author", *x) for x in streams], **long)
        self.author[at] = self.toggle | self.coin(at)  # alternate: the senior first
        self.fresh[at] = True
        self.since[at] = 0

    def feed(self, rows, ids):
        """What the environment says ends a word: the author of the next turn is drawn anew
        (alternate: hands over, unless that has just been done)."""
        super().feed(rows, ids)
        rows = torch.as_tensor(list(rows), dtype=torch.long, device=self.tokens.device)
        handed_over = self.author[rows] ^ ~self.fresh[rows]
        self.author[rows] = torch.where(self.toggle, handed_over, self.coin(rows))
        self.fresh[rows] = True
        self.since[rows] = 0

    def both_logp(self):
        """Next-token log-probs of senior and junior, [B, V] each."""
        if self.lanes == 2:  # one pass over both
            senior, junior = self.logits(0).log_softmax(-1).unflatten(0, (-1, 2)).unbind(1)
            return senior, junior
        senior = self.logits(0).log_softmax(-1)
        return senior, self.logits(1).log_softmax(-1) if self.running == 2 else senior

    def step(self):
        senior, junior = self.both_logp()
        author = torch.where(self.author[:, None], senior, junior)
        token = draw(author.exp(), self.next_of(self.luck))  # [B]
        at = token[:, None]
        active = self.emit(token, {
            "logp": senior.gather(1, at)[:, 0], "junior_logp": junior.gather(1, at)[:, 0],
            "wrote": self.author, "opens": self.fresh})
        coin = torch.where(self.toggle, ~self.author, self.next_of(self.coins) < self.p)
        author, since = next_author(self.author, self.since, self.boundary[token], coin,
                                    max_gap=self.max_gap)
        self.author.copy_(torch.where(active, author, self.author))
        self.fresh.copy_(torch.where(active, since == 0, self.fresh))
        self.since.copy_(torch.where(active, since, self.since))


# ---- the loss: GRPO's, on the senior's tokens ----

def loss_mask(rows, junior_weight=0.0):
    """Which tokens the loss counts: [R, T] fp32, 1 where the senior wrote, junior_weight where the
    junior did, 0 elsewhere. It is the mask of numerator and denominator. ValueError without an
    author mask: that would train plain GRPO in silence."""
    if rows.author is None:
        raise ValueError("tandem needs rows with an author mask, as TandemSampler writes it")
    return rows.mask * torch.where(rows.author, 1.0, junior_weight)


# ---- the method: setup, step, look, report, show ----

@dataclass(kw_only=True)
class Run(grpo.Run):
    team: TandemSampler  # senior and junior


def setup(cfg):
    """Options -> Run, both warm starts made."""
    grpo.check(cfg)
    if cfg.kl_to == "junior" and not cfg.kl:
        raise run.Stop("--kl-to junior needs a weight, as in --kl 0.2")
    if -1 < cfg.p_end < 0:
        raise run.Stop(f"--p-end {cfg.p_end} is no share; give 0 to 1, or -1 for none")
    env = open_env(cfg)
    if cfg.junior_skill == "junior" and "junior" not in env.first.targets:
        # a world of one notation: a junior made here is the smaller model
        cfg.junior_skill = "senior"
    here = run.begin(cfg)
    device, rank = here["device"], here["rank"]
    senior = cfg.senior or (cfg.layers, cfg.width, cfg.skill, cfg.target)
    roles = {"senior": senior}
    if cfg.junior != "self" and not (cfg.junior == "auto" and is_public(cfg.senior)):
        made_here = (cfg.junior_layers, cfg.junior_width, cfg.junior_skill, cfg.junior_target)
        roles["junior"] = made_here if cfg.junior == "auto" else cfg.junior
    tok, paths = sft.starting_points(cfg, env, device, roles, twice="junior" not in roles)
    senior, base = grpo.load_senior(cfg, env, paths, device, rank)
    junior, pair = load_junior(cfg, env, paths, device, rank, senior, base)
    run.join_ranks(device)
    how = sampler_options(cfg, env, device)
    team = TandemSampler(senior, junior, pair=pair, **how)
    r = Run(cfg=cfg, env=env, tok=tok, model=senior,
            optimizer=grpo.make_optimizer(senior, cfg, device), origins=paths, **here,
            frozen={"junior": junior} if junior is not base else {},
            data=env.first.fingerprint(), compiled=how["compile"],
            solo=Sampler(senior, pool=team, **how), team=team)
    if base:
        r.frozen["base"] = base
    if cfg.kl:
        r.reference = junior if cfg.kl_to == "junior" else base or grpo.warm_copy(r)
    return r


def load_junior(cfg, env, paths, device, rank, senior, base):
    """-> the junior, which is frozen; the tree that decodes both authors in one pass, where the
    junior is what the senior's adapters are for (else None)."""
    start = paths.setdefault("junior", paths["senior"])
    dtype = sampling_dtype(cfg, device) if weights.is_folder(start) else torch.float32
    if start == paths["senior"] and base:
        return base, lora.paired(senior)
    if start == paths["senior"]:
        junior = copy_as(senior, dtype)
    else:
        context = cfg.context or env.first.context
        junior = load_models({"junior": start}, device, rank, context, dtype)["junior"]
    if junior.cfg.context != senior.cfg.context:
        raise run.Stop("senior and junior differ in context; make both with the same --context")
    return freeze(junior), None


def together(r, schedule, p):
    """The team, set to this schedule. With p = 1 no junior is run, unless one pass decodes both."""
    cfg, env = r.cfg, r.env.first
    r.team.set_schedule(schedule, r.tok, env.mark, cfg.max_gap or env.max_gap, p)
    return r.team


def p_at(cfg, step):
    """The coin of an update: p (paper); with --p-end, p for a share p_from of the updates, then
    linearly to p_end (annealed tandem, ours)."""
    if cfg.p_end < 0:
        return cfg.p
    first = min(cfg.p_from * cfg.steps, cfg.steps - 2)  # the last update is at p_end
    done = (step - first) / (cfg.steps - 1 - first)
    return cfg.p + (cfg.p_end - cfg.p) * min(1.0, max(0.0, done))


def step(r):
    """One update -> statistics for metrics.jsonl. Unlike grpo.step: two authors, and the mask."""
    cfg, lap, times = r.cfg, run.stopwatch(), {}

    # N prompts, G chains each; both authors write
    tasks, streams = next_tasks(r)
    p = p_at(cfg, r.step)
    team = together(r, cfg.schedule, p)
    rows, episodes = rollout(team, r.env, r.tok, tasks, "train", streams, cfg)
    times["time_rollout"] = lap()

    # a chain is good when it beats its group: the team's reward
    rewards, valid = episode_rewards(episodes, cfg.group, r.device)  # [N, G] each
    advantages = grpo.group_advantages(rewards, valid=valid)  # [N, G]
    advantage = advantages.flatten()[rows.episode]  # [R]
    reference_logp = grpo.score(r.reference, rows, cfg) if cfg.kl else None  # [R, T]
    times["time_scoring"] = lap()

    # the clipped loss on what the senior wrote: all that tandem adds to GRPO
    mask = loss_mask(rows, cfg.junior_weight) * valid.flatten()[rows.episode, None]  # [R, T]
    stats = grpo.update(r.model, r.optimizer, rows, mask, advantage, cfg, reference_logp)
    times["time_update"] = lap()
    return {**stats, **grpo.statistics(r, rows, episodes, advantages, times),
            **author_stats(rows, cfg.schedule, p)}


def look(r):
    """The senior alone on valid tasks, three chains to samples.txt -> what metrics.jsonl gets."""
    return sft.look(r)


def report(r):
    """The final table: every metric of the paper before and after, on tasks not used before."""
    sft.print_report(r, measure, try_next=["grpo"])


def show(r, n):
    """n chains of the senior alone and of the team, before and after, each author in a colour."""
    for when in run.before_and_after(r):
        print_episodes(f"{when}: the senior alone", r.solo, r, n)
        for label, how in handoffs(r.cfg).items():
            print_episodes(f"{when}: the team, {label}", together(r, *how), r, n)


# ---- metrics ----

def handoffs(cfg):
    """How teams are evaluated -> {name: (schedule, p)}: hand over at every step, and by the
    schedule of training. A run at p = 1 has no team in training; it is evaluated at .5."""
    return {"step handoff": ("alternate", cfg.p),
            "training handoff": (cfg.schedule, cfg.p if cfg.p < 1 else 0.5)}


def author_stats(rows, schedule, p):
    """How the team shared the writing -> p, senior_share (of tokens), redraws, senior_draws (share
    of the redraws that chose the senior), run_length (tokens between redraws), over all ranks.
    Warns when the coin is not what p says."""
    opens = rows.opens & rows.mask
    counts = [rows.mask.sum(), (rows.mask & rows.author).sum(), opens.sum(),
              (opens & rows.author).sum()]
    tokens, seniors, redraws, won = run.all_sum(torch.stack(counts)).tolist()
    stats = {"p": p, "senior_share": seniors / max(1, tokens), "redraws": redraws,
             "senior_draws": won / max(1, redraws), "run_length": tokens / max(1, redraws)}
    if schedule != "alternate" and share_is_off(stats, p):
        tqdm.write(f"warning: the senior won {stats['senior_draws']:.2f} of {redraws} draws "
                   f"at p = {p}", file=sys.stderr)
    return stats


def share_is_off(stats, p, sigmas=5.0):
    """True when the senior won a share of so many redraws too far from p: the coin is broken."""
    sigma = math.sqrt(max(p * (1 - p), 1e-9) / max(1, stats["redraws"]))
    return abs(stats["senior_draws"] - p) > sigmas * sigma


@torch.no_grad()
def follow(senior, junior, batches, temperature=1.0, micro_rows=128):
    """How well the junior follows the senior's own chains -> {name: (mean, error over problems)}.

    legibility: the junior's nats per token; log_ratio: the mean of log senior - log junior on the
    sampled tokens (the paper's drift); kl: the exact KL(senior || junior) per token."""
    chains, lengths = {"legibility": [], "log_ratio": [], "kl": []}, []
    group, problems = [], 0  # which problem a row is of
    for batch in batches:
        group.append(batch.group.cpu() + problems)
        problems += int(batch.group.max()) + 1
        for first in range(0, len(batch.tokens), micro_rows):
            rows = batch[first:first + micro_rows]
            mask = rows.mask[:, 1:].float()  # [R, T-1]
            before, token = rows.tokens[:, :-1], rows.tokens[:, 1:, None]
            x = [model.hidden(before) for model in (senior, junior)]  # [R, T-1, D] each
            values = surprises(senior.head, junior.head, *x, token, temperature)
            for name, value in values.items():
                chains[name].append((value * mask).sum(1))
            lengths.append(mask.sum(1))
    length = torch.cat(lengths).cpu().double()
    out = {}
    for name, sums in chains.items():  # a ratio of sums; its standard error by linearisation
        total = torch.cat(sums).cpu().double()
        mean = total.sum() / length.sum()
        off = torch.zeros(problems).double().index_add(0, torch.cat(group), total - mean * length)
        error = off.square().sum().sqrt() / length.sum()
        out[name] = (mean.item(), error.item() or None)  # a model that is its own junior: exactly 0
    return out


def surprises(senior_head, junior_head, x, other_x, token, temperature):
    """x, other_x: [R, T, D], what senior and junior make of a text; token: [R, T, 1], what follows
    -> {name: [R, T]}. No more than LOGITS logits are in memory at once."""
    found = {"legibility": [], "log_ratio": [], "kl": []}
    columns = max(1, LOGITS // (len(x) * senior_head.out_features))
    for x, other_x, token in zip(*(part.split(columns, 1) for part in (x, other_x, token))):
        logits = senior_head(x).float() / temperature  # [R, columns, V]
        other_logits = junior_head(other_x).float() / temperature
        own, others = (y.log_softmax(-1).gather(2, token)[..., 0] for y in (logits, other_logits))
        found["legibility"].append(-others)
        found["log_ratio"].append(own - others)
        found["kl"].append(grpo.exact_kl(logits, other_logits))
    return {name: torch.cat(values, 1) for name, values in found.items()}


def measure(r, n):
    """Every metric of the paper for the senior as it is, on n tasks (teams: half of them)
    -> {name: (mean, standard error or None)}"""
    cfg, k = r.cfg, r.cfg.test_chains
    where = (r.env, r.tok, cfg, cfg.final_split)
    half, chains = run.tasks_of("handoff", n), sorted({1, k})
    alone, batches, episodes = evaluate(r.solo, *where, n, k, cfg.seed)
    out = solo_table(alone, r.env)

    # handoff: the team's success
    for label, how in handoffs(cfg).items():
        found, _, _ = evaluate(together(r, *how), *where, half, k, cfg.seed)
        for j in chains:
            out[f"{label} pass@{j}"] = (found[f"pass@{j}"], found[f"pass@{j}_se"])

    # retention: step handoff / the senior alone on the team's tasks
    same = summary(episodes[:half * k], k)
    for j in chains:
        a, a_error = out[f"step handoff pass@{j}"]
        b, b_error = same[f"pass@{j}"], same[f"pass@{j}_se"]
        if b:  # without a success alone there is nothing to retain
            out[f"retention@{j}"] = (a / b, math.hypot(a_error, a / b * b_error) / b)
    out.update(follow(*r.team.sources, batches, cfg.temperature, cfg.micro_rows))
    return out
