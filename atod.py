"""ATOD (arXiv 2606.27814): on-policy distillation, annealed into reinforcement learning and aimed
at the turns that need a teacher.

    python train.py --method atod

A small student plays multi-turn games. A larger teacher scores what the student itself wrote
(on-policy distillation, OPD). That dense signal makes way for the sparse reward (GRPO) as training
goes on, so that the student can end up better than its teacher. Turns where the two disagree, or
where the student is unsure, get more of the teacher's signal (T-DUR). The paper's claim: average
success of a 0.6B student 70.6, its teacher 68.9, OPD alone 67.7, GRPO alone 33.2.

    A_t     = kappa(s) w_k(t) Delta_t + rho(s) A^GRPO
    Delta_t = log pi_T(a_t) - log pi_theta(a_t)   on the student's own tokens

This file, in the order the data flows: the equations (pure functions on tensors) -> from a rollout
to advantages -> teacher and student -> the method: setup, step (one update), look, report, show ->
metrics. Rollout and clipped loss are GRPO's (grpo.py). `--mix grpo` is reward alone; `--method opd`
is distillation alone, short for `--mix opd --weights one`. Letters: E episodes, R rows (an episode
has more than one when it outgrew its context), T tokens, K turns, N prompts, G group.

Left out: a KL term (the paper has none), a teacher with other tokens (Delta needs the same).
"""
import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch

import grpo
import run
import sft
from lib.start import freeze, load_models, sampler_options
from lib.terminal import turns_of, weighed_text
from model import GPT
from rollout import (Sampling, episode_rewards, evaluate, final_tasks, next_tasks, open_env,
                     rollout, streams_of, succeeded, train_tasks)
from run import Count, CountOr0, Layers, Rate, Share, Width
from sampler import Sampler

Mix = Literal["annealed", "fixed", "opd", "grpo"]
Weights = Literal["tdur", "one", "uniform", "token"]


@dataclass
class Config(grpo.RLConfig):
    """ATOD"""
    method = "atod"
    env: str = "house"
    steps: Count = 240
    prompts: Count = 4
    lr: Rate = 5e-4
    width: Width = 64
    sft_lr: Rate = 3e-3
    warm_steps: CountOr0 = 3000
    test_problems: CountOr0 = 1024
    eval_every: Count = 40
    turns: CountOr0 = 0  # turns a game may take; 0: 12 in the house, elsewhere the world's default
    mix: Mix = "annealed"  # opd: rho = 0; grpo: kappa = 0; fixed: both 1; annealed: the paper's
    anneal: Share = 0.53  # T, the share of the steps that anneal (paper: 80 of 150 steps)
    weights: Weights = "tdur"  # tdur (paper), one: w = 1, uniform: its mean, token: tdur of tokens
    teacher: str = "auto"  # the frozen teacher: a checkpoint or a run; auto: made once and cached
    teacher_layers: Layers = 2  # of a teacher made here
    teacher_width: Width = 96  # of a teacher made here
    teacher_skill: Rate = 0.55  # success at which the teacher's demonstrations end
    teacher_target: Rate = 0.65  # success at which its reinforcement ends: short of perfect
    student: str = ""  # what is trained: a checkpoint or a run; empty: made once and cached
    student_skill: Rate = 0.65  # success at which the student's demonstrations end
    student_habits: CountOr0 = 80  # steps on the demonstrations of a player with a bad habit
    student_player: Literal["careless", "restless"] = "careless"  # that player (restless: house)


@dataclass
class OPD(Config):
    """On-policy distillation alone: --method atod --mix opd --weights one"""
    method = "opd"
    mix: Mix = "opd"
    weights: Weights = "one"


# ---- the equations ----

def schedule(step, anneal_steps):
    """p = min(s / T, 1);  kappa = max(0.1, 1 - 0.9 p);  rho = 1 + p (paper, schedule).

    -> kappa, the coefficient of distillation, and rho, that of the reward"""
    p = min(step / max(1, anneal_steps), 1.0)
    return max(0.1, 1 - 0.9 * p), 1 + p


def turn_means(values, turn_of_token, n_turns):
    """values: [..., T]; turn_of_token: [..., T], -1 where the environment speaks -> mean of each
    turn's tokens [..., K], 0 for an empty turn."""
    turns = torch.arange(n_turns, device=values.device)
    mine = (turn_of_token[..., None] == turns).to(values.dtype)  # [..., T, K]
    return (values[..., None] * mine).sum(-2) / mine.sum(-2).clamp(min=1)


def t_dur(disagreement, uncertainty, valid=None):
    """Turn weights (paper, T-DUR): d_k = mean |log pi_theta - log pi_T| and h_k = mean(-log
    pi_theta) of turn k's tokens, [..., K] each. Both are scaled to [0, 1] within the trajectory
    (range below 1e-8: 0.5), then a soft or:

        w_k = 1 - (1 - d~_k)(1 - h~_k)

    valid: [..., K] bool, turns that have tokens; the others get 0 -> weights [..., K] in [0, 1]"""
    valid = torch.ones_like(disagreement, dtype=torch.bool) if valid is None else valid

    def scaled(x):
        low = x.masked_fill(~valid, torch.inf).amin(-1, keepdim=True)
        span = x.masked_fill(~valid, -torch.inf).amax(-1, keepdim=True) - low
        return torch.where(span < 1e-8, 0.5, (x - low) / span.clamp(min=1e-8))
    weight = 1 - (1 - scaled(disagreement)) * (1 - scaled(uncertainty))
    return torch.where(valid, weight, 0.0)


def hybrid_advantage(log_ratio, turn_weight, turn_of_token, outcome_advantage, kappa, rho):
    """A_t = kappa w_k(t) Delta_t + rho A^GRPO (paper, hybrid advantage).

    log_ratio: [..., T], Delta = log pi_T - log pi_theta of the sampled tokens; turn_weight: [...,
    K]; turn_of_token: [..., T]; outcome_advantage: [...], the trajectory's -> [..., T], 0 where the
    environment speaks. A constant: no gradient goes through it."""
    weight = turn_weight.gather(-1, turn_of_token.clamp(min=0))  # [..., T]
    advantage = kappa * weight * log_ratio + rho * outcome_advantage[..., None]
    return torch.where(turn_of_token >= 0, advantage, 0.0).detach()


# ---- from a rollout to advantages ----

def coefficients(cfg, step):
    """kappa and rho of an arm at an update."""
    fixed = {"fixed": (1.0, 1.0), "opd": (1.0, 0.0), "grpo": (0.0, 1.0)}
    return fixed.get(cfg.mix) or schedule(step, round(cfg.anneal * cfg.steps))


def token_units(rows, n_episodes):
    """Each sampled token's number within its episode, over all its rows: [R, T], -1 elsewhere."""
    count = rows.mask.sum(1)
    before = count.cumsum(0) - count  # [R]: in earlier rows, which are in the order of episodes
    start = torch.full_like(before, int(count.sum()))[:n_episodes]
    start = start.scatter_reduce(0, rows.episode, before, "amin")  # [E]
    number = (before - start[rows.episode])[:, None] + rows.mask.cumsum(1) - 1
    return torch.where(rows.mask, number, -1)


def unit_weights(rows, log_ratio, unit, n_episodes):
    """T-DUR over whole episodes, in one row or more. unit: [R, T], rows.turn_of_token or
    token_units -> weights, valid, d, h: [E, K] each.

    Our reading: pi_theta is the policy that sampled, not the one that later minibatches update."""
    K = int(unit.max()) + 1

    def means(x):  # a unit is sampled in one row only, so rows add up
        return x.new_zeros(n_episodes, K).index_add_(0, rows.episode, turn_means(x, unit, K))
    d = means(log_ratio.abs())
    h = means(-rows.behaviour_logp)
    valid = means(rows.mask.float()) > 0
    return t_dur(d, h, valid), valid, d, h


def token_advantages(rows, teacher_logp, outcome, cfg, step):
    """teacher_logp: [R, T]; outcome: [E], GRPO's -> the hybrid advantages [R, T], statistics over
    all ranks."""
    n, E = rows.mask.sum(), len(outcome)
    log_ratio = torch.where(rows.mask, teacher_logp - rows.behaviour_logp, 0.0)  # Delta, [R, T]
    kappa, rho = coefficients(cfg, step)

    # w: a weight for each turn of an episode, [E, K]
    unit = token_units(rows, E) if cfg.weights == "token" else rows.turn_of_token  # [R, T]
    weight, valid, _, _ = unit_weights(rows, log_ratio, unit, E)
    of_weights, turns = run.all_sum(torch.stack([weight.sum(), valid.sum()]))
    mean_w = of_weights / turns
    if cfg.weights == "one":
        weight = valid * 1.0
    if cfg.weights == "uniform":
        weight = valid * mean_w

    # A = kappa w Delta + rho A^GRPO; each term apart, for statistics of its size
    def term(kappa, rho):
        return hybrid_advantage(log_ratio, weight[rows.episode], unit, outcome[rows.episode],
                                kappa, rho)
    opd, reward = term(kappa, 0.0), term(0.0, rho)
    sizes = {"disagreement": log_ratio.abs(), "teacher_kl": -log_ratio, "A_opd": opd.abs(),
             "A_grpo": reward.abs()}
    *sums, n = run.all_sum(torch.stack([*(x.sum() for x in sizes.values()), n]))
    stats = {"kappa": kappa, "rho": rho, "mean_w": float(mean_w),
             **{name: float(x / n) for name, x in zip(sizes, sums)}}
    return opd + reward, stats


def trajectory_mean(rows, valid):
    """A token's weight in the loss: 1 / its episode's number of tokens; every episode counts the
    same (paper: token mean per trajectory). valid: [E] bool, episodes that count -> [R, T]"""
    length = torch.zeros(len(valid), device=rows.mask.device)
    length.index_add_(0, rows.episode, rows.mask.sum(1).float())  # [E]
    return rows.mask * (valid / length.clamp(min=1))[rows.episode, None]


# ---- teacher and student ----
# A teacher is taught by demonstrations and then by reward, and stopped short of perfect. A student
# has learned the skill too, and then a bad habit (a careless player's demonstrations): it could do
# better and mostly does not, so there is something to distil and something to reinforce.

LIMIT = 200  # updates after which a teacher's reinforcement gives up
HABIT_LR = 3e-4  # AdamW's learning rate for bad habits: small, because the skill is to stay


def starting_models(cfg, env, device, rank):
    """-> tokenizer, student, teacher, the checkpoints they come from. Makes what is missing: the
    demonstrations' part side by side, then a teacher's reward and a student's bad habits."""
    student = cfg.student or (cfg.layers, cfg.width, "expert", cfg.student_skill)
    teacher = cfg.teacher
    if teacher == "auto":
        teacher = (cfg.teacher_layers, cfg.teacher_width, "expert", cfg.teacher_skill)
    tok, paths = sft.starting_points(cfg, env, device, {"student": student, "teacher": teacher})
    if not cfg.student:
        demos = env.demos(range(50), "train", 0, cfg.student_player)  # another player's student
        settings = {"habits": cfg.student_habits, "lr": HABIT_LR, "demos": repr(demos)}
        start = paths["student"]
        paths["student"] = sft.finished(cfg, env, device, start, "student", spoil, settings)
    if cfg.teacher == "auto":
        settings = {"target": cfg.teacher_target, "max_new": cfg.max_new}
        start = paths["teacher"]
        paths["teacher"] = sft.finished(cfg, env, device, start, "teacher", reinforce, settings)
    models = load_models(paths, device, rank, cfg.context or env.first.context)
    needed, has = (models[role].cfg.context for role in ("student", "teacher"))
    if has < needed:
        raise run.Stop(f"the teacher reads {has} tokens, the student writes up to {needed}; lower "
                       "--turns or --context, or give another --teacher")
    return tok, models["student"], freeze(models["teacher"]), paths


def reinforce(cfg, env, device, start):
    """A teacher: GRPO until its success is cfg.teacher_target -> a checkpoint."""
    how = grpo.RLConfig(max_new=cfg.max_new)  # not the run's options: every arm has this teacher

    def update(model, optimizer, sampler, tok, step):
        tasks = train_tasks(env, 100_000 + step, how.prompts, cfg.seed)  # not the student's
        streams = streams_of(cfg.seed, "teacher", step, tasks, how.group)
        rows, episodes = rollout(sampler, env, tok, tasks, "train", streams, how)
        rewards, valid = episode_rewards(episodes, how.group, device)
        advantage = grpo.group_advantages(rewards, valid=valid).flatten()[rows.episode]
        grpo.update(model, optimizer, rows, rows.mask.float(), advantage, how)
    return sft.go_on(cfg, env, device, start, "teacher: reward", update, how.lr, LIMIT,
                     cfg.teacher_target)


def spoil(cfg, env, device, start):
    """A student: cfg.student_habits steps on the demonstrations of cfg.student_player
    -> a checkpoint."""
    def update(model, optimizer, sampler, tok, step):
        batch = sft.demonstration_batch(env, tok, 100_000 + step, sft.Config.sft_rows, cfg.seed,
                                        cfg.student_player, model.cfg.context, device)
        sft.update(model, optimizer, *batch)
    return sft.go_on(cfg, env, device, start, "student: bad habits", update, HABIT_LR,
                     cfg.student_habits)


# ---- the method: setup, step, look, report, show ----

@dataclass(kw_only=True)
class Run(sft.Run):
    teacher: GPT


def setup(cfg):
    """Options -> Run, teacher and student made."""
    grpo.check(cfg)
    if cfg.student_player == "restless" and cfg.env != "house":
        raise run.Stop("--student-player restless plays the house alone; leave it out")
    if not cfg.turns and cfg.env == "house":
        cfg.turns = 12
    env = open_env(cfg)
    here = run.begin(cfg)
    device, rank = here["device"], here["rank"]
    tok, student, teacher, paths = starting_models(cfg, env, device, rank)
    run.join_ranks(device)
    how = sampler_options(cfg, env, device)
    return Run(cfg=cfg, env=env, tok=tok, model=student,
               optimizer=grpo.make_optimizer(student, cfg, device), origins=paths, **here,
               frozen={"teacher": teacher}, data=env.first.fingerprint(),
               compiled=how["compile"], solo=Sampler(student, **how), teacher=teacher)


def step(r):
    """One update -> statistics for metrics.jsonl. Unlike grpo.step: a teacher in the advantage."""
    cfg, lap, times = r.cfg, run.stopwatch(), {}

    # N tasks, G episodes each; the student plays
    tasks, streams = next_tasks(r)
    rows, episodes = rollout(r.solo, r.env, r.tok, tasks, "train", streams, cfg)
    times["time_rollout"] = lap()

    # the reward says which episode was good, the teacher which token
    rewards, valid = episode_rewards(episodes, cfg.group, r.device)  # [N, G] each
    advantages = grpo.group_advantages(rewards, valid=valid)  # [N, G]
    teacher_logp = rows.behaviour_logp  # [R, T]; reward alone asks no teacher
    if cfg.mix != "grpo":
        teacher_logp = grpo.score(r.teacher, rows, cfg)
    outcome = advantages.flatten()  # [E]
    advantage, found = token_advantages(rows, teacher_logp, outcome, cfg, r.step)  # [R, T]
    times["time_scoring"] = lap()

    # the clipped loss on what the student wrote
    mask = trajectory_mean(rows, valid.flatten())  # [R, T]
    stats = grpo.update(r.model, r.optimizer, rows, mask, advantage, cfg)
    times["time_update"] = lap()
    return {**stats, **grpo.statistics(r, rows, episodes, advantages, times), **found}


def look(r):
    """Episodes of fixed valid tasks, three of them to samples.txt -> what metrics.jsonl gets."""
    cfg = r.cfg
    found = measure(r, r.solo, "valid", cfg.eval_problems, cfg.temperature)
    _, batches, episodes = evaluate(r.solo, r.env, r.tok, cfg, "valid", 3, 1, cfg.seed)
    # an episode that outgrew its context has several rows
    parts = [batch.tokens[batch.episode == i] for batch in batches for i in batch.episode.unique()]
    texts = ["\n".join(r.tok.decode(row).rstrip("\0") for row in part.tolist()) for part in parts]
    run.add_samples(r, [(f"valid task {e['task']}, reward {e['reward']:g}", text)
                        for e, text in zip(episodes, texts)])
    return {f"valid {name}": mean for name, (mean, _) in found.items()}


def report(r):
    """The final table: the teacher, and the student before and after, sampled and greedy, on tasks
    that nobody has looked at; and an episode with T-DUR's weights, before and after."""
    cfg, n, columns, strips = r.cfg, final_tasks(r), {}, {}

    def measure_both(name, sampler):
        for how, temperature in (("", cfg.temperature), (", greedy", 0.0)):
            columns[name + how] = measure(r, sampler, cfg.final_split, n, temperature)
    measure_both("teacher", Sampler(r.teacher, r.solo.rows))
    for when in run.before_and_after(r):
        turns, episode = weighed_episode(r, 0)
        strips[when] = {"turns": turns, "won": succeeded(episode)}
        measure_both(when, r.solo)

    lines = run.read_log(cfg.out)
    looks = [(line["valid success"], line["step"]) for line in lines if "valid success" in line]
    times = {name: sum(line[name] for line in lines)
             for name in lines[0] if name.startswith("time_")}
    run.write_result(r, {"n": n, "seconds": r.seconds, "times": times, "looks": looks,
                         "columns": columns, "strips": strips})
    print(f"\n{n} {cfg.final_split} tasks, an episode each, at temperature {cfg.temperature:g} "
          "or greedy, 95% intervals")
    run.print_table(columns, n)
    if looks:
        print("valid success, last look %.3f; best %.3f, at step %d" % (looks[-1][0], *max(looks)))
    for when, found in strips.items():
        won = "won" if found["won"] else "lost"
        print(f"\n{cfg.final_split} task 0 {when} training, {won}: what the student was told, what "
              "it did, and the weight of the teacher's word (T-DUR)")
        print(weighed_text(found["turns"]))
    print("\nof the updates " + ", ".join(f"{name[5:]} {x:.0f} s" for name, x in times.items()))
    run.print_next(r, "opd" if cfg.method == "atod" else "atod")


def show(r, n):
    """n episodes before and after training, with the weight that T-DUR gives each turn."""
    for when in run.before_and_after(r):
        for task in range(n):
            turns, episode = weighed_episode(r, task)
            won = "won" if succeeded(episode) else "lost"
            print(f"\n=== {r.cfg.final_split} task {task}, {when}: {won}\n{weighed_text(turns)}")


# ---- metrics ----

def measure(r, sampler, split, n, temperature):
    """One episode of each of n tasks -> success, turns, success by family: {name: (mean, error)}"""
    how = Sampling(max_new=r.cfg.max_new, temperature=temperature)
    found, _, episodes = evaluate(sampler, r.env, r.tok, how, split, n, 1, r.cfg.seed)
    out = {"success": (found["pass@1"], found["pass@1_se"]), "turns": (found["turns"], None)}
    families = defaultdict(list)
    for e in episodes:
        families[e.get("family")].append(succeeded(e))
    for family in sorted(families.keys() - {None}):
        out[family] = (sum(families[family]) / len(families[family]), None)
    return out


@torch.no_grad()
def weighed_rows(r, task):
    """A sampled episode, with T-DUR's weights -> Rows, its turns' w, d and h, its dict"""
    how = Sampling(max_new=r.cfg.max_new, temperature=r.cfg.temperature)
    streams = [(r.cfg.seed, "weighed", task)]
    rows, episodes = rollout(r.solo, r.env, r.tok, [task], r.cfg.final_split, streams, how)
    cfg = dataclasses.replace(r.cfg, temperature=r.cfg.temperature or 1.0)
    if not r.cfg.temperature:  # greedy: what it says is certain, what the model thinks is not
        rows = dataclasses.replace(rows, behaviour_logp=grpo.score(r.model, rows, cfg))
    log_ratio = torch.where(rows.mask, grpo.score(r.teacher, rows, cfg) - rows.behaviour_logp, 0.0)
    w, _, d, h = (x[0].tolist() for x in unit_weights(rows, log_ratio, rows.turn_of_token, 1))
    return rows, (w, d, h), episodes[0]


def weighed_episode(r, task):
    """The same as text -> [(heard, said, w, d, h)] by turn, its dict"""
    rows, (w, d, h), episode = weighed_rows(r, task)
    turns = [(heard, said, w[k], d[k], h[k]) for heard, said, k in turns_of(rows, r.tok)]
    return turns, episode
