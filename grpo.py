"""GRPO, group relative policy optimisation (arXiv 2402.03300): what all three papers start from.

    python train.py --method grpo

Sample G completions of each of N prompts, let the environment reward them, and call a completion
good when it beat its group:

    advantage_i = (r_i - mean(r)) / (std(r) + eps)
    ratio_t     = pi(a_t) / pi_behaviour(a_t)
    loss        = -sum_t w_t min(ratio_t A, clip(ratio_t, 1 - clip, 1 + clip) A)

This file, in the order the data flows: the equations (pure functions on tensors) -> loss -> update
-> the method: setup, step (one update), look, report, show. How text is played is in rollout.py.
Letters: N prompts, G group, R rows (N * G of them when no episode outgrows its context), T tokens,
V vocabulary.

Left out: a value network (the group's mean is the baseline), an entropy bonus, top-k sampling, a
learned reward. With one update a batch (the default) the ratio is 1 and the clip never acts;
`--minibatches 2` is the paper's setting, where it does. """
import math
from dataclasses import dataclass

import torch

import lora
import run
import sft
from lib.share import mostly_prompt, share_prompts
from lib.start import adapter_rank, freeze, load_models, sampler_options
from model import (GPT, apply_gradients, by_length, sampled_length, token_logp, trained,
                   zero_gradients)
from rollout import episode_rewards, next_tasks, open_env, pass_at_k, rollout, summary  # noqa: F401
from run import Count, Rate, Several, all_max, all_sum, gathered, in_range
from sampler import Sampler, as_dtype, sampling_dtype


@dataclass
class RLConfig(sft.PolicyConfig):
    """Reinforcement learning (GRPO)"""
    prompts: Count = 16  # N, prompts an update over all ranks (tandem paper: 16)
    group: Several = 8  # G, completions a prompt, judged against each other (tandem paper: 8)
    minibatches: Count = 1  # updates a batch of prompts (tandem paper: 2, of 8 prompts each)
    lr: Rate = 3e-4  # AdamW's learning rate (tandem paper: 1e-6 for 4B parameters)
    clip: Rate = 0.2  # the ratio is clipped to [1 - clip, 1 + clip] (tandem paper: 0.2)


@dataclass
class Config(RLConfig):
    """The policy"""
    method = "grpo"
    senior: str = ""  # start from this checkpoint or run; empty: from a warm start, made once
    skill: str = "senior"  # whose demonstrations a warm start learns; each world has its players
    target: float = -1.0  # valid success that ends the warm start; below 0: the world's default
    lora: in_range(int, least=-1, most=4096) = -1  # adapters' rank; 0: all train; -1: 16 if folder
    kl: Rate = 0.0  # weight of the k3 KL penalty to the warm start (tandem paper: 0)
    test_chains: Count = 4  # completions a task in the final table, for pass@1 and pass@N


# ---- the equations ----

def group_advantages(rewards, *, valid=None, eps=1e-6, std=True):
    """advantage_i = (r_i - mean(r)) / (std(r) + eps) within a group. rewards: [N, G] -> [N, G].

    valid: [N, G] bool, episodes that count (an engine may have died); the others get 0. A group
    whose valid rewards are all equal gets exactly 0, where rounding would leave noise over eps."""
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    valid = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    rewards = rewards.masked_fill(~valid, 0.0)  # 0 * NaN would be NaN
    n = valid.sum(1, keepdim=True)  # [N, 1]
    mean = rewards.sum(1, keepdim=True) / n.clamp(min=1)
    advantage = (rewards - mean) * valid
    if std:
        variance = advantage.square().sum(1, keepdim=True) / (n - 1).clamp(min=1)
        advantage = advantage / (variance.sqrt() + eps)
    highest = rewards.masked_fill(~valid, -math.inf).amax(1, keepdim=True)
    lowest = rewards.masked_fill(~valid, math.inf).amin(1, keepdim=True)
    return torch.where(highest > lowest, advantage, 0.0)


def token_weights(mask, *, total=None):
    """Every token weighs the same: mask [R, T], 0 where a token does not count (fractions allowed)
    -> weights [R, T] that sum to 1 over the global batch. total: the mask's sum over that batch,
    where these rows are a part of it."""
    mask = mask.float()
    return mask / torch.as_tensor(mask.sum() if total is None else total).clamp(min=1e-8)


def clipped_loss(logp, behaviour_logp, advantage, weight, *, clip_low=0.2, clip_high=0.2):
    """-sum_t w_t min(ratio_t A, clip(ratio_t, 1 - clip_low, 1 + clip_high) A): PPO's clipped
    surrogate (arXiv 1707.06347, eq. 7). All [R, T] -> scalar."""
    log_ratio = torch.where(weight != 0, logp - behaviour_logp, 0.0)  # before exp: inf * 0 is NaN
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    return -(weight * surrogate).sum()


def k3_kl(logp, reference_logp):
    """Schulman's k3 estimate of KL(policy || reference) on the policy's samples: [R, T], >= 0."""
    log_ratio = reference_logp - logp
    return log_ratio.exp() - 1 - log_ratio


def exact_kl(logits, reference_logits):
    """KL(policy || reference) of next-token distributions, in nats. [R, T, V] each -> [R, T]."""
    logp, reference = logits.log_softmax(-1), reference_logits.log_softmax(-1)
    return torch.where(logp > -math.inf, logp.exp() * (logp - reference), 0.0).sum(-1)


# ---- loss and update ----

@torch.no_grad()
def score(model, rows, cfg):
    """Log-probs of a frozen model on a batch's sampled tokens: [R, T], 0 elsewhere."""
    out = torch.zeros_like(rows.behaviour_logp)
    length, every_row = sampled_length(rows.mask), torch.arange(len(out), device=out.device)
    for part, T in by_length(length, every_row, cfg.micro_rows):
        tokens, mask = rows.tokens[part, :T], rows.mask[part, :T]
        out[part, :T] = token_logp(model, tokens, cfg.temperature, mask)
    return out


def loss(model, rows, weight, advantage, cfg, reference_logp=None):
    """A micro-batch's share of the batch's loss. weight (of token_weights), advantage, and
    reference_logp for the KL term: [R, T] each -> scalar, statistics (weighted sums; a maximum)."""
    logp = token_logp(model, rows.tokens, cfg.temperature, weight != 0, rows.branch)  # [R, T]
    policy = clipped_loss(logp, rows.behaviour_logp, advantage, weight,
                          clip_low=cfg.clip, clip_high=cfg.clip)
    total, kl = policy, torch.zeros_like(policy)
    if reference_logp is not None:
        counted = (torch.where(weight != 0, x, 0.0) for x in (logp, reference_logp))
        kl = (weight * k3_kl(*counted)).sum()
        total = policy + cfg.kl * kl
    with torch.no_grad():
        # 0 before the first update
        gap = torch.where(rows.mask & (weight != 0), logp - rows.behaviour_logp, 0.0)
        outside = torch.where(advantage > 0, gap.exp() - 1 > cfg.clip, 1 - gap.exp() > cfg.clip)
        outside &= advantage != 0
        mismatch = k3_kl(-gap, torch.zeros_like(gap))
        stats = {"loss": total, "policy_loss": policy, "kl": kl, "nll": -(weight * logp).sum(),
                 "clip_share": (weight * outside).sum(), "mismatch_kl": (weight * mismatch).sum(),
                 "mismatch_max": gap.abs().max(), "weight": weight.sum()}
    return total, {name: x.detach() for name, x in stats.items()}


STATISTICS = ("loss", "policy_loss", "kl", "nll", "clip_share", "mismatch_kl", "mismatch_max",
              "weight")
PER_TOKEN = ("kl", "nll", "clip_share", "mismatch_kl")  # means over the tokens that were trained


def update(model, optimizer, rows, mask, advantage, cfg, reference_logp=None):
    """One update for each of cfg.minibatches parts of a batch's groups -> statistics: means over
    the parts, or (PER_TOKEN) over the tokens that they trained.

    mask: [R, T], how much a token counts; advantage: [R], or [R, T] where a row's tokens differ."""
    prompts = int(rows.group.max()) + 1
    found = []
    for part in range(cfg.minibatches):  # whole groups: of 8, 0 to 3 are in part 0 of 2
        index = (rows.group * cfg.minibatches // prompts == part).nonzero()[:, 0]
        reference = None if reference_logp is None else reference_logp[index]
        found.append(update_on(model, optimizer, rows[index], mask[index], advantage[index], cfg,
                               reference))
    trained = [stats.pop("trained") for stats in found]
    out = {}
    for name in found[0]:
        weights = trained if name in PER_TOKEN else [1] * len(found)
        total = sum(n * stats[name] for n, stats in zip(weights, found))
        out[name] = total / max(sum(weights), 1e-8)
    out["skipped"] = sum(stats["skipped"] for stats in found)
    out["mismatch_max"] = found[0]["mismatch_max"]  # before the first update: rounding only
    return out


def update_on(model, optimizer, rows, mask, advantage, cfg, reference_logp=None, total=None):
    """One optimiser step -> statistics ("trained": the mask's sum over groups with variance).
    total: the mask's sum before rows were left out, if any.

    Micro-batches and the number of ranks do not change the result: the normaliser is the mask's sum
    over all ranks. Rows whose group has no variance pull nowhere and are skipped when there is no
    KL term. They stay in the normaliser, and a rank with nothing left still joins the sums."""
    zero_gradients(model)
    if total is None:
        total = mask.float().sum()
    total = all_sum(torch.as_tensor(total, dtype=torch.float, device=mask.device))
    if advantage.dim() == 1:
        advantage = advantage[:, None].expand_as(mask)  # [R] -> [R, T]
    micro_rows = cfg.micro_rows
    if rows.branch is None and mostly_prompt(rows.mask):
        # long prompts, short replies: replies to a prompt share its row, which computes the same
        # with less; a micro-batch holds as many replies as before
        apart = len(rows.tokens)
        rows, mask, advantage, reference_logp = share_prompts(rows, mask, advantage, reference_logp)
        micro_rows = max(1, micro_rows * len(rows.tokens) // apart)
    length = sampled_length(rows.mask)  # [R]
    pulls = torch.ones_like(length, dtype=torch.bool)
    if reference_logp is None:
        pulls = ((advantage != 0) & (mask != 0)).any(1)
    stats = {name: torch.zeros((), device=mask.device) for name in STATISTICS}
    for part, T in by_length(length, pulls.nonzero()[:, 0], micro_rows):
        weight = token_weights(mask[part][:, :T], total=total)
        reference = None if reference_logp is None else reference_logp[part][:, :T]
        partial, found = loss(model, rows[part].columns(T), weight, advantage[part][:, :T], cfg,
                              reference)
        partial.backward()
        for name, value in found.items():
            largest = name == "mismatch_max"
            stats[name] = torch.maximum(stats[name], value) if largest else stats[name] + value
    for name, value in stats.items():
        (all_max if name == "mismatch_max" else all_sum)(value)
    seen = float(stats.pop("weight"))  # share of the batch in the loss: groups with variance
    done = apply_gradients(model, optimizer, cfg.grad_clip, stats["loss"])
    for name, value in stats.items():
        done[name] = float(value) / (max(seen, 1e-8) if name in PER_TOKEN else 1)
    return {**done, "trained": seen * float(total)}


def statistics(r, rows, episodes, advantages, times):
    """What metrics.jsonl gets besides the update's statistics, over all ranks' episodes."""
    flat = gathered((advantages == 0).all(1).tolist())
    played = summary(gathered(episodes), r.cfg.group)
    tokens = sum(gathered([int(rows.mask.sum())]))
    turns = played["turns"] * len(advantages) * r.cfg.group * r.world
    kept = {name: x for name, x in played.items() if not name.startswith("pass@")}
    return {**kept, "success": played["pass@1"], "zero_variance": sum(flat) / len(flat),
            "tokens": tokens, **times, "time_environment": r.env.seconds,
            "tokens_per_s": tokens / times["time_rollout"],
            "agent_steps_per_s": turns / sum(times.values())}


# ---- the method: setup, step, look, report, show ----

@dataclass(kw_only=True)
class Run(sft.Run):
    reference: GPT | None = None  # of the KL term


def setup(cfg):
    """Options -> Run, the warm start made."""
    check(cfg)
    env = open_env(cfg)
    here = run.begin(cfg)
    device, rank = here["device"], here["rank"]
    start = cfg.senior or (cfg.layers, cfg.width, cfg.skill, cfg.target)
    tok, paths = sft.starting_points(cfg, env, device, {"senior": start})
    model, base = load_senior(cfg, env, paths, device, rank)
    run.join_ranks(device)
    how = sampler_options(cfg, env, device)
    r = Run(cfg=cfg, env=env, tok=tok, model=model, optimizer=make_optimizer(model, cfg, device),
            origins=paths, **here, data=env.first.fingerprint(), compiled=how["compile"],
            frozen={"base": base} if base else {}, solo=Sampler(model, **how))
    if cfg.kl:
        r.reference = base or warm_copy(r)
    return r


def load_senior(cfg, env, paths, device, rank):
    """-> the model that is trained, and the frozen weights under its adapters (None without)."""
    adapters = adapter_rank(cfg, paths["senior"])
    dtype = sampling_dtype(cfg, device) if adapters else torch.float32
    start = {"senior": paths["senior"]}
    model = load_models(start, device, rank, cfg.context or env.first.context, dtype)["senior"]
    if not adapters:
        return model, None
    base = as_dtype(model, dtype)
    return lora.adapt(base, adapters, cfg.seed), base


def check(cfg):
    """Options that do not go together, in one line each."""
    if cfg.prompts % cfg.minibatches:
        raise run.Stop(f"--minibatches {cfg.minibatches} does not divide --prompts {cfg.prompts}")
    world = run.world_size()
    if cfg.prompts // cfg.minibatches % world:
        raise run.Stop(f"{world} ranks do not divide the {cfg.prompts // cfg.minibatches} prompts "
                       "of an update")


def make_optimizer(model, cfg, device):
    model.recompute = cfg.recompute
    large = sum(p.numel() for p in trained(model)) > 10**7  # there one pass over the weights pays
    return torch.optim.AdamW(trained(model), lr=cfg.lr, betas=(0.9, 0.95), weight_decay=0.0,
                             fused=large or device.startswith("cuda"))


def warm_copy(r):
    """A frozen model with the run's first weights. It shares r.warm's tensors: a checkpoint keeps
    them, and --resume copies them back in place (lib/resume.py)."""
    model = GPT(r.model.cfg).to(r.device)
    model.load_state_dict(r.warm, assign=True)
    return freeze(model)


def step(r):
    """One update of GRPO -> statistics for metrics.jsonl."""
    cfg, lap, times = r.cfg, run.stopwatch(), {}

    # N prompts, G completions of each; the model writes alone
    tasks, streams = next_tasks(r)
    rows, episodes = rollout(r.solo, r.env, r.tok, tasks, "train", streams, cfg)
    times["time_rollout"] = lap()

    # a completion is good when it beats its group
    rewards, valid = episode_rewards(episodes, cfg.group, r.device)  # [N, G] each
    advantages = group_advantages(rewards, valid=valid)  # [N, G]
    advantage = advantages.flatten()[rows.episode]  # [R]
    reference_logp = score(r.reference, rows, cfg) if cfg.kl else None  # [R, T]
    times["time_scoring"] = lap()

    # the clipped loss on what the model wrote
    mask = rows.mask * valid.flatten()[rows.episode, None].float()  # [R, T]
    stats = update(r.model, r.optimizer, rows, mask, advantage, cfg, reference_logp)
    times["time_update"] = lap()
    return {**stats, **statistics(r, rows, episodes, advantages, times)}


def look(r):
    """The model alone on valid tasks, three replies to samples.txt -> what metrics.jsonl gets."""
    return sft.look(r)


def report(r):
    """The final table: the model alone before and after, on tasks that nobody has looked at."""
    sft.print_report(r, sft.measure, try_next=["tandem"])


def show(r, n):
    """n completions before and after training."""
    sft.show(r, n)
