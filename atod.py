"""ATOD (arXiv 2606.27814): on-policy distillation, annealed into reinforcement learning, that looks where in an episode a teacher is needed.

    python train.py --method atod

A small student plays multi-turn games. A larger teacher scores what the student itself wrote (on-policy distillation, OPD), and that dense
signal makes way for the sparse reward (GRPO) as training goes on, so that the student can end up better than its teacher. Turns where the two
disagree, or where the student is unsure, get more of the teacher's signal (T-DUR). The paper's claim: average success of a 0.6B student 70.6,
its teacher 68.9, OPD alone 67.7, GRPO alone 33.2.

    A_t = kappa(s) w_k(t) Delta_t + rho(s) A^GRPO,   Delta_t = log pi_T(a_t) - log pi_theta(a_t) on the student's own tokens

Here, in the order the data flows: schedule -> scoring -> turn weights -> hybrid advantage -> update -> evaluate. Everything up to the update
are pure functions on tensors. Rollout and clipped loss are GRPO's (grpo.py); kappa = 1, rho = 0 is `--method opd`, kappa = 0, rho = 1 is
`--method grpo --teacher auto`. Letters: E episodes, R rows (an episode has more than one when it outgrew its context), T tokens, K turns.

Left out: a KL term (the paper has none), and teachers with another tokenizer (Delta needs the same tokens).
"""
import dataclasses
from collections import defaultdict
from dataclasses import dataclass

import torch

import grpo

MIXES = ("annealed", "fixed", "opd", "grpo")
WEIGHTS = ("tdur", "one", "uniform", "token")


@dataclass
class Config:
    mix: str = "annealed"  # of distillation and reward: annealed (the paper), fixed (kappa = rho = 1), opd (1, 0), grpo (0, 1)
    anneal: float = 0.53  # T, the share of the steps over which kappa falls and rho rises (paper: 80 of 150 steps)
    weights: str = "tdur"  # of the turns' distillation: tdur (the paper), one (none), uniform (T-DUR's mean for every turn), token (the same rule, token by token)


# ---- the equations ----

def schedule(step, anneal_steps):
    """p = min(s / T, 1);  kappa = max(0.1, 1 - 0.9 p), distillation's coefficient;  rho = 1 + p, the reward's (paper, schedule).

    -> kappa, rho"""
    p = min(step / max(1, anneal_steps), 1.0)
    return max(0.1, 1 - 0.9 * p), 1 + p


def turn_means(values, turn_of_token, n_turns):
    """values: [..., T]; turn_of_token: [..., T], -1 for what the environment said -> mean of each turn's tokens [..., K], 0 for an empty turn."""
    mine = (turn_of_token[..., None] == torch.arange(n_turns, device=values.device)).to(values.dtype)  # [..., T, K]
    return (values[..., None] * mine).sum(-2) / mine.sum(-2).clamp(min=1)


def t_dur(disagreement, uncertainty, valid=None):
    """Turn weights (paper, T-DUR): d_k = mean |log pi_theta - log pi_T| and h_k = mean(-log pi_theta) of turn k's tokens, [..., K] each.
    Both are scaled to [0, 1] within the trajectory (range below 1e-8: 0.5), then a soft or:

        w_k = 1 - (1 - d~_k)(1 - h~_k)

    valid: [..., K] bool, turns that have tokens; the others stay out of min and max. -> weights [..., K] in [0, 1], 0 for those others"""
    valid = torch.ones_like(disagreement, dtype=torch.bool) if valid is None else valid

    def scaled(x):
        low = x.masked_fill(~valid, torch.inf).amin(-1, keepdim=True)
        span = x.masked_fill(~valid, -torch.inf).amax(-1, keepdim=True) - low
        return torch.where(span < 1e-8, 0.5, (x - low) / span.clamp(min=1e-8))
    weight = 1 - (1 - scaled(disagreement)) * (1 - scaled(uncertainty))
    return torch.where(valid, weight, 0.0)


def hybrid_advantage(log_ratio, turn_weight, turn_of_token, outcome_advantage, kappa, rho):
    """A_t = kappa w_k(t) Delta_t + rho A^GRPO (paper, hybrid advantage). log_ratio: [..., T], Delta = log pi_T - log pi_theta of the
    sampled tokens; turn_weight: [..., K]; turn_of_token: [..., T]; outcome_advantage: [...], the trajectory's. -> [..., T], 0 where
    the environment spoke. A constant: no gradient goes through it. The weights touch the first term only."""
    weight = turn_weight.gather(-1, turn_of_token.clamp(min=0))  # [..., T]
    advantage = kappa * weight * log_ratio + rho * outcome_advantage[..., None]
    return torch.where(turn_of_token >= 0, advantage, 0.0).detach()


# ---- from a rollout to advantages ----

def schedule_of(cfg, step, steps):
    """kappa, rho of an arm."""
    fixed = {"fixed": (1.0, 1.0), "opd": (1.0, 0.0), "grpo": (0.0, 1.0)}
    return fixed[cfg.mix] if cfg.mix in fixed else schedule(step, round(cfg.anneal * steps))


def token_units(rows, n_episodes):
    """Every sampled token as a unit of its own, numbered within its episode, over all the rows of it: as turn_of_token, [R, T]."""
    count = rows.mask.sum(1)
    before = count.cumsum(0) - count  # [R]: sampled tokens in earlier rows, which are in the order of their episodes
    start = torch.full_like(before, int(count.sum()))[:n_episodes].scatter_reduce(0, rows.episode, before, "amin")  # [E]
    return torch.where(rows.mask, (before - start[rows.episode])[:, None] + rows.mask.cumsum(1) - 1, -1)


def unit_weights(rows, log_ratio, unit, n_episodes):
    """T-DUR over whole episodes, whatever rows they are spread over. unit: [R, T], rows.turn_of_token or token_units. -> weights, valid,
    d, h: [E, K] each.

    Our reading: pi_theta is the policy that sampled, whose log-probs are at hand, and not the one that later minibatches have moved on to."""
    K = int(unit.max()) + 1

    def means(x):  # a unit is sampled in one row only, so rows add up
        return x.new_zeros(n_episodes, K).index_add_(0, rows.episode, turn_means(x, unit, K))
    d, h, valid = means(log_ratio.abs()), means(-rows.behaviour_logp), means(rows.mask.float()) > 0
    return t_dur(d, h, valid), valid, d, h


def advantages(rows, teacher_logp, outcome, cfg, step, steps):
    """The hybrid advantage of every token of a batch. teacher_logp: [R, T]; outcome: [E], GRPO's advantages; step of steps: of training.
    -> [R, T], statistics"""
    n, E = rows.mask.sum(), len(outcome)
    log_ratio = torch.where(rows.mask, teacher_logp - rows.behaviour_logp, 0.0)  # Delta, [R, T]
    kappa, rho = schedule_of(cfg, step, steps)
    unit = token_units(rows, E) if cfg.weights == "token" else rows.turn_of_token
    weight, valid, _, _ = unit_weights(rows, log_ratio, unit, E)
    mean = weight.sum() / valid.sum()
    if cfg.weights in ("one", "uniform"):
        weight = valid * (1.0 if cfg.weights == "one" else mean)
    parts = [hybrid_advantage(log_ratio, weight[rows.episode], unit, outcome[rows.episode], *x) for x in ((kappa, 0.0), (0.0, rho))]
    return parts[0] + parts[1], {"kappa": kappa, "rho": rho, "mean_w": float(mean), "disagreement": float(log_ratio.abs().sum() / n),
                                 "teacher_kl": float(-log_ratio.sum() / n), **{k: float(x.abs().sum() / n) for k, x in zip(("A_opd", "A_grpo"), parts)}}


def trajectory_mean(rows, valid):
    """What a token counts for in the loss: 1 / the number of its episode's tokens, so that every episode counts the same (paper: token mean
    per trajectory). valid: [E] bool, episodes whose engine did not fail. -> [R, T]"""
    length = torch.zeros(len(valid), device=rows.mask.device).index_add_(0, rows.episode, rows.mask.sum(1).float())
    return rows.mask * (valid / length.clamp(min=1))[rows.episode, None]


# ---- evaluation ----

def evaluate(sampler, env, tok, cfg, split, n, seed, temperature):
    """One episode of each of n tasks. -> {metric: (mean, standard error or None)}: success, turns, and success by family"""
    found, _, episodes = grpo.evaluate(sampler, env, tok, dataclasses.replace(cfg, temperature=temperature), split, n, 1, seed)
    out = {"success": (found["pass@1"], found["pass@1_se"]), "turns": (found["turns"], None)}
    families = defaultdict(list)
    for e in episodes:
        families[e.get("family")].append(grpo.succeeded(e))
    for family in sorted(families.keys() - {None}):
        out[family] = (sum(families[family]) / len(families[family]), None)
    return out
