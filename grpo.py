"""GRPO, group relative policy optimisation (arXiv 2402.03300): the baseline, and what all three papers start from.

    python train.py --method grpo

Sample G responses to each of N prompts, let the environment reward them, and call a response good when it beat its group:

    advantage_i = (r_i - mean(r)) / (std(r) + eps)
    loss = -sum_t w_t min(ratio_t A, clip(ratio_t, 1 - clip_low, 1 + clip_high) A),   ratio_t = pi(a_t) / pi_behaviour(a_t)

The functions come in the order the data flows: rollout (rollout.py) -> group_advantages -> loss -> update -> evaluate. The first six here
are pure functions on tensors. Letters: N prompts, G group, R = N * G rows, T tokens, V vocabulary.

Left out: a value network (the group's mean is the baseline), an entropy bonus, top-k sampling, a learned reward. With one update a batch (the default) the
ratio is 1 and the clip never acts; `--minibatches 2` is the paper's setting, where it does.
"""
import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint

from rollout import Rows, episode_rewards, rollout, train_tasks  # noqa: F401: the first thing GRPO does; callers say grpo.rollout


@dataclass
class Config:
    steps: int = 200  # batches of prompts, each an update or more (sft: batches of demonstrations)
    prompts: int = 16  # N, prompts an update over all ranks (tandem paper: 16)
    group: int = 8  # G, responses a prompt (tandem paper: 8)
    minibatches: int = 1  # updates a batch of prompts (tandem paper: 2, of 8 prompts each)
    lr: float = 3e-4  # AdamW's learning rate (tandem paper: 1e-6 for 4B parameters)
    clip_low: float = 0.2  # the ratio is clipped to [1 - clip_low, 1 + clip_high] (tandem paper: 0.2)
    clip_high: float = 0.2  # see clip_low
    temperature: float = 1.0  # of sampling in training and evaluation, and so of the scored distribution (paper: 0.6)
    kl: float = 0.0  # coefficient of the k3 KL penalty to a reference (the paper: 0)
    kl_to: str = "warm"  # the reference of --kl: "warm", the senior's own warm start, or "junior"
    grad_clip: float = 1.0  # largest gradient norm
    micro_rows: int = 64  # rows a forward and backward pass holds in memory; does not change the result
    max_new: int = 0  # tokens a turn may take; 0: what the environment proposes


# ---- the equations ----

def group_advantages(rewards, *, valid=None, eps=1e-6, std=True):
    """rewards: [N, G] -> advantages [N, G]. valid: [N, G] bool, episodes that count (an engine may have died); the others
    get 0. A group whose valid rewards are all equal gets exactly 0, where rounding would leave noise over eps."""
    valid = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    n = valid.sum(1, keepdim=True)  # [N, 1]
    mean = (rewards * valid).sum(1, keepdim=True) / n.clamp(min=1)
    advantage = (rewards - mean) * valid
    if std:
        advantage = advantage / ((advantage.square().sum(1, keepdim=True) / (n - 1).clamp(min=1)).sqrt() + eps)
    highest = rewards.masked_fill(~valid, -math.inf).amax(1, keepdim=True)
    lowest = rewards.masked_fill(~valid, math.inf).amin(1, keepdim=True)
    return torch.where(highest > lowest, advantage, 0.0)


def token_weights(mask, *, per="token", total=None):
    """mask: [R, T], 0 where a token does not count (fractions allowed) -> weights of that shape that sum to 1 over the global
    batch. per "token": every token weighs the same; "sequence": every row does. total: the mask's sum (or number of
    non-empty rows) over the global batch, where these rows are only a part of it."""
    mask = mask.float()
    if per == "token":
        return mask / torch.as_tensor(mask.sum() if total is None else total).clamp(min=1e-8)
    if per != "sequence":
        raise ValueError(f"per is 'token' or 'sequence', not {per!r}")
    length = mask.sum(1, keepdim=True)
    return mask / length.clamp(min=1e-8) / torch.as_tensor((length > 0).sum() if total is None else total).clamp(min=1)


def clipped_loss(logp, behaviour_logp, advantage, weight, *, clip_low=0.2, clip_high=0.2):
    """PPO's clipped surrogate (arXiv 1707.06347, eq. 7). All [R, T] -> scalar, the sum of weight * loss over tokens."""
    log_ratio = torch.where(weight != 0, logp - behaviour_logp, 0.0)  # mask before exp: inf * 0 is NaN
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
    return -(weight * surrogate).sum()


def k3_kl(logp, reference_logp):
    """Schulman's k3 estimate of KL(policy || reference) on the policy's own samples. [R, T] each -> [R, T], >= 0."""
    log_ratio = reference_logp - logp
    return log_ratio.exp() - 1 - log_ratio


def exact_kl(logits, reference_logits):
    """KL(policy || reference) of next-token distributions, in nats. [R, T, V] each -> [R, T]."""
    logp, reference = logits.log_softmax(-1), reference_logits.log_softmax(-1)
    return torch.where(logp > -math.inf, logp.exp() * (logp - reference), 0.0).sum(-1)


def pass_at_k(n, c, k):
    """Chance that at least one of k samples is right when c of n are: unbiased (Chen et al. 2021, arXiv 2107.03374)."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n; got n = {n}, c = {c}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


# ---- loss and update ----

def token_logp(model, tokens, temperature=1.0, wanted=None, branch=None):
    """tokens: [R, T] -> log-prob of each token given those before it, [R, T]; 0 for the first. wanted: [R, T] bool, the tokens that it is
    asked for (None: all), 0 elsewhere: the output head and its softmax, a good part of a small model's work, run on those alone.
    branch: Rows.branch, where several answers share a prompt: each goes on from the prompt's last token and sees no other answer."""
    slot = torch.arange(tokens.shape[1], device=tokens.device)
    before, packed = (slot - 1).expand_as(tokens), {}  # [R, T]: where the token before it stands
    if branch is not None:
        prompt = (branch == 0).sum(1, keepdim=True)  # [R, 1]
        first = (branch > 0) & (branch != branch.roll(1, 1))  # an answer begins
        start = torch.where(first, slot, 0).cummax(1).values
        before = torch.where(first, prompt - 1, before)
        seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])  # [R, T, T]: [who, whom]
        packed = {"positions": torch.where(branch > 0, prompt + slot - start, slot), "mask": (seen & (slot <= slot[:, None]))[:, None]}
    wanted = torch.ones_like(tokens, dtype=torch.bool) if wanted is None else wanted.clone()
    wanted[:, 0] = False
    row, column = wanted.nonzero(as_tuple=True)  # [n] each
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.device.type == "cuda"):
        logp = head_logp(model.head, model.hidden(tokens, **packed)[row, before[row, column]], tokens[row, column], temperature)  # [n]
    return logp.new_zeros(tokens.shape).index_put((row, column), logp)


LOGITS = 2**24  # held at once


def head_logp(head, x, token, temperature):
    """x: [n, D], token: [n] -> log-prob of each, [n]. No more than LOGITS logits are held at once, in the backward pass neither: of a
    large vocabulary they would be most of the memory. Chunks are computed again there."""
    def chunk(x, token):
        logits = head(x).float() / temperature  # [chunk, V]
        return logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(-1)
    n = max(1, LOGITS // head.out_features)
    if len(x) <= n:
        return chunk(x, token)
    return torch.cat([checkpoint(chunk, *parts, use_reentrant=False) for parts in zip(x.split(n), token.split(n))])


@torch.no_grad()
def score(model, rows, cfg):
    """Log-probs of a frozen model on a batch's sampled tokens: [R, T], 0 elsewhere."""
    out = torch.zeros_like(rows.behaviour_logp)
    for part, T in by_length(sampled_length(rows.mask), torch.arange(len(out), device=out.device), cfg.micro_rows):
        out[part, :T] = token_logp(model, rows.tokens[part, :T], cfg.temperature, rows.mask[part, :T])
    return out


def sampled_length(mask):
    """How long each row is up to its last token that counts: [R, T] -> [R]. Columns beyond are only padding to a loss."""
    return ((mask != 0) * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)


def per_token(advantage, like):
    """[R] or [R, T] -> [R, T], the shape of `like`"""
    return advantage if advantage.dim() == 2 else advantage[:, None].expand_as(like)


def loss(model, rows, weight, advantage, cfg, reference_logp=None):
    """A micro-batch's share of the batch's loss. weight: [R, T] from token_weights; advantage: [R] or [R, T];
    reference_logp: [R, T] for the KL term -> scalar, statistics (sums over tokens, weighted as the loss)."""
    logp = token_logp(model, rows.tokens, cfg.temperature, weight != 0, rows.branch)  # [R, T]
    advantage = per_token(advantage, logp)
    policy = clipped_loss(logp, rows.behaviour_logp, advantage, weight, clip_low=cfg.clip_low, clip_high=cfg.clip_high)
    with torch.no_grad():
        gap = torch.where(rows.mask & (weight != 0), logp - rows.behaviour_logp, 0.0)
        clipped = torch.where(advantage > 0, gap.exp() - 1 > cfg.clip_high, 1 - gap.exp() > cfg.clip_low)
        stats = {"mismatch_kl": (weight * k3_kl(-gap, torch.zeros_like(gap))).sum(), "mismatch_max": gap.abs().max(),
                 "clip_share": (weight * clipped).sum(), "nll": -(weight * logp).sum(), "weight": weight.sum()}
    total, stats["kl"] = policy, torch.zeros_like(policy)
    if reference_logp is not None:
        kl = (weight * k3_kl(*(torch.where(weight != 0, x, 0.0) for x in (logp, reference_logp)))).sum()
        stats["kl"] = kl.detach()
        total = policy + cfg.kl * kl
    return total, {"loss": total.detach(), "policy_loss": policy.detach(), **stats}


def by_length(length, index, micro_rows, waste=0.15):
    """Cut a batch into micro-batches of rows of like length. length: [R]; index: the rows to take. Yields (part of index, length of its
    longest row): a part holds micro_rows rows at most, and when it holds 8 or more, at most a share of `waste` of it is padding."""
    index = index[length[index].argsort(stable=True)]
    lengths, first = length[index].tolist(), 0
    for i in range(1, len(lengths) + 1):
        filled = sum(lengths[first:i + 1])
        if i == len(lengths) or i - first == micro_rows or (i - first >= 8 and filled < (1 - waste) * lengths[i] * (i + 1 - first)):
            yield index[first:i], lengths[i - 1]
            first = i


STATISTICS = ("loss", "policy_loss", "kl", "nll", "clip_share", "mismatch_kl", "mismatch_max", "weight")


def update(model, optimizer, rows, mask, advantage, cfg, reference_logp=None, total=None):
    """One optimiser step on a (mini-)batch. mask: [R, T], which tokens count and how much; advantage: [R], or [R, T].

    The result depends neither on the cut into micro-batches nor on the number of ranks: one normaliser, the mask's sum over
    all of them. Rows whose group has no variance pull nowhere and are skipped when there is no KL term; they stay in
    the normaliser, and a rank with nothing left still takes part in the sums below. total: the mask's sum, where some rows
    were left out before. Returns statistics."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    total = all_sum(mask.float().sum() if total is None else torch.as_tensor(float(total), device=mask.device))
    length = sampled_length(rows.mask)  # [R]
    advantage = per_token(advantage, mask)  # [R, T]
    pulls = torch.ones_like(length, dtype=torch.bool) if reference_logp is not None else ((advantage != 0) & (mask != 0)).any(1)
    stats = {name: torch.zeros((), device=mask.device) for name in STATISTICS}
    for part, T in by_length(length, pulls.nonzero()[:, 0], cfg.micro_rows):
        batch = rows[part].columns(T)
        reference = None if reference_logp is None else reference_logp[part][:, :T]
        partial, found = loss(model, batch, token_weights(mask[part][:, :T], total=total), advantage[part][:, :T], cfg, reference)
        partial.backward()
        for name, value in found.items():
            stats[name] = torch.maximum(stats[name], value) if name == "mismatch_max" else stats[name] + value
    reduce(stats)
    seen = float(stats.pop("weight"))  # the share of the batch that was looked at: not the groups without variance
    done = apply_gradients(model, optimizer, cfg.grad_clip, stats["loss"])
    return {**done, **{k: float(v) / (max(seen, 1e-8) if k in ("mismatch_kl", "clip_share", "nll", "kl") else 1) for k, v in stats.items()}}


def apply_gradients(model, optimizer, grad_clip, loss):
    """Add up the ranks' gradients, clip, step. If one, or the loss, is not finite the step is skipped: {"skipped": 1}."""
    params = list(model.parameters())
    if dist.is_initialized():  # plain all_reduce rather than the DDP wrapper: ranks may run different numbers of micro-batches
        flat = torch.cat([p.grad.flatten() for p in params])
        dist.all_reduce(flat)
        for p, g in zip(params, flat.split([p.numel() for p in params])):
            p.grad.copy_(g.view_as(p))
    norm = torch.nn.utils.clip_grad_norm_(params, grad_clip)
    if not bool(torch.isfinite(norm) & torch.isfinite(loss)):
        return {"grad_norm": float(norm), "skipped": 1}
    optimizer.step()
    return {"grad_norm": float(norm), "skipped": 0}


def all_sum(x):
    """Sum of a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def reduce(stats):
    """Statistics of a batch over all ranks, in place: sums, but for mismatch_max."""
    for name, value in stats.items() if dist.is_initialized() else ():
        dist.all_reduce(value, dist.ReduceOp.MAX if name == "mismatch_max" else dist.ReduceOp.SUM)


def gathered(items):
    """A list of every rank, one behind the other."""
    if not dist.is_initialized():
        return items
    lists = [None] * dist.get_world_size()
    dist.all_gather_object(lists, items)
    return [x for part in lists for x in part]


# ---- evaluation ----

def evaluate(sampler, env, tok, cfg, split, n, k, seed):
    """k sampled responses to each of the first n tasks of a split. Returns (metrics, [Rows], episodes); metrics has pass@1 and
    pass@k with their standard errors over problems, and the mean of every number the environment reports."""
    if k > sampler.rows:
        raise ValueError(f"{k} samples of a problem do not fit {sampler.rows} rows")
    n = min(n, env.first.tasks(split) or n)
    cfg = dataclasses.replace(cfg, group=k)
    chunk = max(1, sampler.rows // k)
    batches, episodes = [], []
    for first in range(0, n, chunk):
        tasks = list(range(first, min(n, first + chunk)))
        names = [(seed, "evaluation", 0, task, sample) for task in tasks for sample in range(k)]
        rows, played = rollout(sampler, env, tok, tasks, split, names, cfg)
        batches.append(rows)
        episodes += played
    return {"n": n, "k": k, **summary(episodes, k)}, batches, episodes


def succeeded(episode):
    """What the environment says; where it says nothing, any reward."""
    return bool(episode.get("success", episode["reward"] > 0))


def summary(episodes, k):
    """Episodes, k to a problem -> {"pass@1", "pass@1_se", "pass@k", "pass@k_se", and means of reward, turns, truncated, ...}"""
    won = [[succeeded(e) for e in episodes[i:i + k]] for i in range(0, len(episodes), k)]
    out = {}
    for j in {1, k}:
        score = torch.tensor([pass_at_k(k, sum(w), j) for w in won], dtype=torch.double)
        out[f"pass@{j}"] = score.mean().item()
        out[f"pass@{j}_se"] = (score.var(correction=0) / len(score)).sqrt().item()
    names = {name for e in episodes for name, value in e.items() if isinstance(value, (bool, int, float)) and name != "task"}
    for name in sorted(names - {"success"}):
        values = [float(e[name]) for e in episodes if name in e]
        out[name] = sum(values) / len(values)
    return out


def worst_family(episodes, least=0.1):
    """Success rate of the family of episodes (Step.info's) that does worst, of those that hold a share of at least `least`;
    without families, of all."""
    families = {}
    for e in episodes:
        families.setdefault(e.get("family"), []).append(succeeded(e))
    rates = [sum(won) / len(won) for won in families.values() if len(won) >= least * len(episodes)]
    return min(rates, default=sum(map(sum, families.values())) / len(episodes))
