"""Textual belief states (arXiv 2606.27681): a world model whose memory is facts that it writes.

    python train.py --method worldmodel

Read beliefs.py first: the three formulations (stateless, leaky, strict), who sees what, states as
text and the warm start.

The paper's claim: strict predicts one step as well as the others, its states are far better
(state.F1 .57 against .37 of leaky in ScienceWorld, 30 facts), and so are its rollouts of many
steps, for which it needs nothing but its state. It is trained by *factorized GRPO*: a tree of A
states, B next states of each, C observations of each of those; rewards stand at the leaves, a
parent's reward is the mean of its children's, and each sample is judged against its siblings.

This file, in the order the data flows: reward -> advantages of the tree -> sampling a tree -> the
method: setup, step (one update), look, report, show. The games it learns from are in
envs/record.py; imagined steps, metrics and the tests of mediation in imagine.py.

Left out: the *strict embedding* arm (soft tokens instead of text, an ELBO). Model and sampler take
token ids only; a second path for vectors through both would be a hundred lines for one method.
"""
import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from tqdm import tqdm

import beliefs
import grpo
import imagine
import run
import sft
from beliefs import WorldModel, parse_state  # noqa: F401  the paper's functions in one place
from envs import record
from envs.record import coverage, fact_f1
from rollout import training_rows
from run import Count, CountOr0, Layers, Rate, Several, gathered, in_range

TERMS = ("format", "sup", "dedup")


@dataclass
class Config(sft.ModelConfig):
    """World model"""
    method = "worldmodel"
    env: str = "house"
    steps: Count = 100
    layers: Layers = 3
    warm_steps: CountOr0 = 2000
    eval_problems: Count = 100
    test_problems: CountOr0 = 256
    senior: str = ""  # start from this checkpoint or run; empty: from a warm start, made once
    formulation: Literal["stateless", "leaky", "strict"] = "strict"  # what sees the history
    lessons: Literal["all", "own"] = "all"  # of the warm start: all prompts, or only its own
    prompts: Count = 8  # N, examples an update over all ranks (stateless: --sft-rows, cheaper)
    A: Several = 4  # states a history (paper: 4)
    B: Several = 4  # next states of each state (paper: 4)
    C: Several = 4  # observations of each next state (paper: 4)
    group: Several = 20  # leaky: answers an example
    flat: bool = False  # strict by plain GRPO: as many samples, in chains that share an advantage
    lr: Rate = 1e-4  # AdamW's learning rate (paper: 1e-6 for 4B parameters)
    window: in_range(int, least=0, most=40) = 4  # past observations in a prompt; 0: all that fit
    levels: str = "2,3"  # levels of the world that the games come from
    terms: str = "format,sup,dedup"  # of the reward: gamma below, s' holds what comes, no repeats
    gamma: Rate = 0.5  # a malformed state on the branch: the reward is gamma * obs.F1 (paper: 0.5)
    bonus: Rate = 0.1  # weight of dedup + sup (paper: 0.1)
    scale: Literal["group", "batch", "none"] = "batch"  # group: std (paper), batch: rms
    max_state: CountOr0 = 0  # tokens of a state; 0: the world's own default
    # Not options: replies are scored as sampled, and with one update a batch the clip never acts.
    temperature, clip = 1.0, 0.2


# ---- reward ----

def dedup(state):
    """R_dedup = 1 - duplicate pairs / pairs of a list of facts."""
    pairs = math.comb(len(state), 2)
    duplicates = sum(math.comb(state.count(fact), 2) for fact in set(state))
    return 1.0 - duplicates / pairs if pairs else 1.0


def supervision(state, next_state, stated):
    """R_sup = Cov(s', o') + [Cov(s', o') - Cov(s, o')]: s' holds what comes, more than s."""
    return 2 * coverage(next_state, stated) - coverage(state, stated)


def branch_reward(obs_f1, well_formed, dedup=0.0, ablation=0.0, sup=0.0, *, gamma=0.5, weight=0.1):
    """R_obs + weight (R_dedup + R_abl + R_sup); gamma R_obs when a state is malformed (paper)."""
    return obs_f1 + weight * (dedup + ablation + sup) if well_formed else gamma * obs_f1


def judge(w, cfg, text, stated, states):
    """A branch's reward. text: its observation; stated: the true one's facts; states: s, s'."""
    terms, well_formed = cfg.terms.split(","), None not in states
    no_duplicates = sup = 0.0
    if well_formed and "dedup" in terms:
        no_duplicates = (dedup(states[0]) + dedup(states[1])) / 2
    if well_formed and "sup" in terms:
        sup = supervision(*states, stated)
    obs_f1 = fact_f1(w.language.parse(text), stated)
    gamma = cfg.gamma if "format" in terms else 1.0
    return branch_reward(obs_f1, well_formed, no_duplicates, sup=sup, gamma=gamma, weight=cfg.bonus)


# ---- advantages of the tree ----

def relative(rewards, scale, eps=1e-6):
    """Each against its siblings: [..., G] -> [..., G]. Equals, or a group of one, get exactly 0."""
    groups = rewards.reshape(-1, rewards.shape[-1])
    advantage = grpo.group_advantages(groups, std=scale == "group", eps=eps)
    if scale == "batch":  # one scale a level: groups that differ little pull little
        advantage = advantage / (advantage.square().mean().sqrt() + eps)
    return advantage.view_as(rewards)


def factorized_advantages(leaf_rewards, *, scale="group", eps=1e-6):
    """fGRPO. [..., A, B, C] -> encode [..., A], transition [..., A, B], decode [..., A, B, C].

        V(s') = mean_c r(s, s', c),   V(s) = mean_b V(s'_b)
        advantage = (V - mean of siblings) / scale"""
    next_state_value = leaf_rewards.mean(-1)  # [..., A, B]
    state_value = next_state_value.mean(-1)  # [..., A]
    levels = (state_value, next_state_value, leaf_rewards)
    return tuple(relative(value, scale, eps) for value in levels)


# ---- ranks: each samples for its share of the examples, and all know all rewards ----

def share(items):
    """This rank's part of a list or tensor that has an item for each of an update's N examples."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    n = len(items) // ranks
    return items[rank * n:(rank + 1) * n]


def of_all_ranks(rewards):
    """[N / ranks, ...] -> [N, ...]: the rewards of all examples, in their order. The advantages
    that follow are those of one process to the bit, whatever the scale is over."""
    return torch.tensor(gathered(rewards.tolist()))


def summed(counts):
    """{name: number} of this rank -> their sums over all ranks"""
    found = gathered([counts])
    return {name: sum(each[name] for each in found) for name in counts}


# ---- strict: a tree of states, next states and observations ----

def grow(w, examples, streams, A, B, C):
    """Sample a tree for each example, in three batched calls -> replies: states [N * A], next
    states [N * A * B], observations [N * A * B * C]."""
    prompts = [w.encode_prompt(e.past) for e in examples]
    states = w.reply(prompts, A, w.max_state, [(*s, "encode") for s in streams], 1.0)

    actions = [e.future[0].action for e in examples for _ in range(A)]
    streams = [(*s, i) for s in streams for i in range(A)]
    prompts = [w.transition_prompt(s.body, action) for s, action in zip(states, actions)]
    moved = w.reply(prompts, B, w.max_state, [(*s, "transition") for s in streams], 1.0)

    actions = [action for action in actions for _ in range(B)]
    streams = [(*s, i) for s in streams for i in range(B)]
    prompts = [w.decode_prompt(s.body, action) for s, action in zip(moved, actions)]
    seen = w.reply(prompts, C, w.max_observation, [(*s, "decode") for s in streams], 1.0)
    return states, moved, seen


def tree_rewards(w, cfg, examples, states, moved, seen):
    """The rewards of the leaves: [N, A, B, C]"""
    N, A = len(examples), len(states) // len(examples)
    B, C = len(moved) // len(states), len(seen) // len(moved)
    state = [w.read_state(reply) for reply in states]
    next_state = [w.read_state(reply) for reply in moved]
    rewards = []
    for i, reply in enumerate(seen):
        stated = examples[i // (A * B * C)].future[0].stated
        branch = state[i // (B * C)], next_state[i // C]
        rewards.append(judge(w, cfg, w.tok.decode(reply.body), stated, branch))
    return torch.tensor(rewards).view(N, A, B, C)


def sample_strict(w, cfg, examples, streams):
    """-> replies, the advantage of each; over all ranks: rewards of the leaves, statistics by
    level"""
    A, B, C = cfg.A, cfg.B, cfg.C
    if cfg.flat:  # chains of state, next state and observation; as many samples as the tree
        A, B, C = max(2, (A + A * B + A * B * C) // 3), 1, 1
    states, moved, seen = grow(w, examples, streams, A, B, C)
    rewards = of_all_ranks(tree_rewards(w, cfg, examples, states, moved, seen))  # [N, A, B, C]
    if cfg.flat:
        shared = relative(rewards.mean((2, 3)), cfg.scale)  # [N, A], for all three of a chain
        levels = {"encode": shared, "transition": shared, "decode": shared}
    else:
        names = ("encode", "transition", "decode")
        levels = dict(zip(names, factorized_advantages(rewards, scale=cfg.scale)))
    advantage = torch.cat([share(x).flatten() for x in levels.values()])
    stats = {f"zero_variance_{name}": float((x == 0).all(-1).float().mean())
             for name, x in levels.items()}
    formed = gathered([w.read_state(reply) is not None for reply in states])
    stats["well_formed"] = sum(formed) / len(formed)
    return states + moved + seen, advantage, rewards, stats


# ---- leaky: one answer holds all three parts, plain GRPO ----

def sample_leaky(w, cfg, examples, streams):
    """-> replies, the advantage of each; over all ranks: rewards [N, G], statistics"""
    prompts = [w.leaky_prompt(e.past, e.future[0].action) for e in examples]
    longest = 2 * w.max_state + w.max_observation
    replies = w.reply(prompts, cfg.group, longest, [(*s, "leaky") for s in streams], 1.0)
    rewards, formed = [], []
    for i, reply in enumerate(replies):
        *states, observation = w.leaky_sections(reply.body)
        states = [w.read_section(ids) for ids in states]
        formed.append(None not in states)
        stated = examples[i // cfg.group].future[0].stated
        rewards.append(judge(w, cfg, w.tok.decode(observation or []), stated, states))
    rewards = of_all_ranks(torch.tensor(rewards).view(len(examples), cfg.group))  # [N, G]
    advantage, formed = relative(rewards, cfg.scale), gathered(formed)
    stats = {"zero_variance": float((advantage == 0).all(-1).float().mean()),
             "well_formed": sum(formed) / len(formed)}
    return replies, share(advantage).flatten(), rewards, stats


# ---- the method: setup, step, look, report, show ----

@dataclass(kw_only=True)
class Run(run.Run):
    worlds: dict  # level -> environment
    w: WorldModel
    told: bool  # that turns were dropped; only rank 0 tells


def setup(cfg):
    """Options -> Run, games recorded where the world is slow, the warm start made."""
    check(cfg)
    here = run.begin(cfg)
    device, worlds = here["device"], beliefs.open_worlds(cfg)
    w, path = beliefs.open_model(cfg, worlds, device)
    run.join_ranks(device)
    if here["rank"] == 0:
        print(f"world model: {w.model.n_params():,} parameters, warm start {path}")
    return Run(cfg=cfg, **here, worlds=worlds, w=w, tok=w.tok, model=w.model,
               told=here["rank"] > 0, origins={"senior": path},
               optimizer=grpo.make_optimizer(w.model, cfg, device),
               data=" ".join(world.fingerprint() for world in worlds.values()),
               compiled=w.sampler.compile)


def check(cfg):
    """Options that do not go together, in one line each."""
    unknown = [term for term in cfg.terms.split(",") if term and term not in TERMS]
    if unknown:
        raise run.Stop(f"unknown term {unknown[0]!r} in --terms; a list with commas of: "
                       f"{' '.join(TERMS)}")
    if cfg.flat and cfg.formulation != "strict":
        raise run.Stop("--flat is plain GRPO on the strict prompts; leave out --formulation")
    if n_examples(cfg) % run.world_size():
        raise run.Stop(f"{run.world_size()} ranks do not divide the {n_examples(cfg)} examples of "
                       "an update")


def n_examples(cfg):
    """N, of an update over all ranks."""
    return cfg.sft_rows if cfg.formulation == "stateless" else cfg.prompts


def step(r):
    """One update of the formulation on fresh examples -> statistics for metrics.jsonl."""
    cfg, w, lap = r.cfg, r.w, run.stopwatch()
    w.dropped = 0

    # N examples: a history, an action, the observation that follows; a rank takes its share
    n = n_examples(cfg)
    # the first half of the seed's numbers is for the warm start
    tasks = share([cfg.seed * 10**7 + 5 * 10**6 + r.step * n + i for i in range(n)])
    examples = record.examples(r.worlds, tasks, "train", f"update {cfg.seed}")

    # stateless learns the true observation; the others judge sampled replies against siblings
    if cfg.formulation == "stateless":
        pairs = [(w.observe_prompt(e.past, e.future[0].action),
                  w.tok.encode_turn("assistant", e.future[0].text)) for e in examples]
        stats = sft.update(r.model, r.optimizer, *beliefs.supervised(pairs, r.device),
                           micro_rows=cfg.micro_rows, grad_clip=cfg.grad_clip)
        counts = {"tokens": stats["tokens"], "sampled_tokens": 0}
    else:
        sample = sample_strict if cfg.formulation == "strict" else sample_leaky
        streams = [(cfg.seed, "train", r.step, task) for task in tasks]
        replies, advantage, rewards, found = sample(w, cfg, examples, streams)
        rows, advantage, total = training_rows(replies, advantage, r.device)
        stats = grpo.update_on(r.model, r.optimizer, rows, rows.mask.float(), advantage, cfg,
                               total=total)
        stats.pop("trained")
        stats = {**stats, **found, "reward": float(rewards.mean())}
        counts = {"sampled_tokens": total, "rows": len(rows.tokens), "replies": len(replies)}
    counts = summed({**counts, "dropped_turns": w.dropped})
    seconds = lap()
    if counts["dropped_turns"] and not r.told:
        r.told = True
        tqdm.write(f"a history is longer than the context: {counts['dropped_turns']} of its oldest "
                   "turns were dropped (dropped_turns in metrics.jsonl)", file=sys.stderr)
    return {**stats, **counts, "time_update": seconds,
            "tokens_per_s": counts["sampled_tokens"] / seconds}


def look(r):
    """Greedy predictions on valid games, the first to samples.txt -> what metrics.jsonl gets."""
    examples = held_out(r, "valid", r.cfg.eval_problems, 9)
    found = {name: mean for name, (mean, _) in imagine.measure(r.w, examples, 9).items()}
    run.add_samples(r, [("valid example 0", shown(r.w, examples[0]))])
    return {"obs H=1": found["obs H=1"], **found}


def held_out(r, split, n, future):
    """Examples of a split; every seed has its own, as long as n is at most 1,000 (the floor takes
    more, of the training games)."""
    tasks = range(1000 * r.cfg.seed, 1000 * r.cfg.seed + n)
    return record.examples(r.worlds, tasks, split, f"{split} examples", future=future, past=(4, 12))


def asked_as(w, formulation, temperature=0.0):
    """The same model, asked in another way."""
    return dataclasses.replace(w, form=imagine.FORMULATIONS[formulation], temperature=temperature)


def report(r):
    """The final table: before ("warm") and after ("trained"), greedy and sampled, on new games."""
    cfg, own, columns = r.cfg, r.cfg.formulation, {}
    horizon = r.worlds[min(r.worlds)].horizon  # steps imagined
    examples = held_out(r, cfg.final_split, cfg.test_problems or 300, horizon)
    floor = imagine.action_alone(held_out(r, "train", 2000, 1))
    for when in run.before_and_after(r):
        name = "warm" if when == "before" else "trained"
        for other in imagine.FORMULATIONS if when == "before" else ():
            if other != own and cfg.lessons == "all":  # else it knows its own prompts alone
                columns[f"{other}, {name}"] = imagine.measure(asked_as(r.w, other), examples, 1)
        w = asked_as(r.w, own)
        columns[f"{own}, {name}"] = {**imagine.measure(w, examples, horizon),
                                     **imagine.swap(w, examples, floor)}
        if own != "stateless":
            columns[f"{own}, {name}"]["history leak"] = (largest_leak(w, examples), None)
        columns[f"{own}, {name}, T=1"] = imagine.measure(asked_as(r.w, own, 1.0), examples, 1)
    update_seconds = sum(line["time_update"] for line in run.read_log(cfg.out))
    run.write_result(r, {"n": len(examples), "seconds": r.seconds, "update_seconds": update_seconds,
                         "columns": columns})
    print(f"\n{len(examples)} {cfg.final_split} trajectories, window {cfg.window or 'unbounded'}, "
          "95% intervals; greedy, or T=1 where it says so")
    # the longest column last: the table's rows take its order
    run.print_table(dict(sorted(columns.items(), key=lambda column: len(column[1]))), len(examples))
    print(f"\n{shown(r.w, examples[0])}\n")
    run.print_next(r)


def largest_leak(w, examples):
    """Exchange the history of eight examples, hold the state -> the largest change of a logit."""
    leaks = [imagine.leak(w, a, b, w.tok.encode(w.state_text(sorted(a.past[-1].needed))))
             for a, b in zip(examples[:8], examples[1:9])]
    return max(leaks, default=math.nan)


def show(r, n):
    """n examples after training, and nine imagined steps beside what really happened."""
    w = r.w
    for example in held_out(r, r.cfg.final_split, n, 9):
        print(f"\n{shown(w, example)}\n\nimagined from there on, and what was true:")
        minds = w.form.begin(w, [example.past])
        for moment in example.future:
            step, = w.form.imagine(w, minds, [moment.action])
            minds = [step.mind]
            right = fact_f1(w.language.parse(step.text), moment.stated)
            line = f"> {moment.action:24}{step.text:44}{moment.text:44}F1 {right:.2f}"
            print(run.printable(line))


def shown(w, example):
    """One prediction in words: history, state, next state, predicted and true observation."""
    after = example.future[0]
    step, = w.form.imagine(w, w.form.begin(w, [example.past]), [after.action])
    lines = [f"> {m.action}\n  {m.text}" if i else f"  {m.text}"
             for i, m in enumerate(example.past[-w.window:])]
    lines.append(f"> {after.action}")
    if w.form.name != "stateless":
        for name, state in (("state", step.state), ("next state", step.next_state)):
            text = w.state_text(state) if state else "(malformed)"
            lines.append(f"{name:12}{text}")
    text = "\n".join([*lines, f"predicted   {step.text}", f"true        {after.text}"])
    return run.printable(text)
