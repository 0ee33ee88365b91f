"""Supervised fine-tuning on a world's demonstrations: a method, and the others' warm start.

    python train.py --method sft --skill senior

Cross-entropy on the demonstrator's tokens; what the environment says is context. A warm start ends
at a target accuracy and not after a number of steps, because on these tasks learning is a plateau
and then a jump. Warm starts are made once and kept (lib/cache.py); models are read in lib/start.py.
"""
import dataclasses
import functools
import hashlib
import os
import sys
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

import envs
import run
import tokenizer
from lib.cache import cached, cached_side_by_side
from lib.start import (check_memory, check_shape, load_model, load_models, read_shape,
                       sampler_options)
from lib.terminal import print_episodes
from model import (GPT, GPTConfig, apply_gradients, by_length, sampled_length, small_config,
                   token_logp, zero_gradients)
from rollout import (Sampling, check_prompts, evaluate, final_tasks, open_env, solo_table,
                     worst_family)
from run import Count, CountOr0, Layers, Positive, Rate, Width, all_sum, in_range
from sampler import Sampler


@dataclass
class ModelConfig(run.Config):
    """Model and warm start"""
    tokenizer: str = "trained"  # trained (on the world's text), or tiktoken's name of one: gpt2
    context: CountOr0 = 0  # tokens an episode may take; 0: the world's own default
    layers: Layers = 2  # of the model that is trained, where it is made here
    width: Width = 96  # of the model that is trained, where it is made here
    cache: str = "out/warm"  # folder where warm starts are kept
    sft_lr: Rate = 2e-3  # AdamW's learning rate on demonstrations
    sft_rows: Count = 32  # demonstrations a step
    warm_steps: CountOr0 = 0  # a warm start gives up after so many steps; 0: the world's default
    bf16: bool = False  # sample in bf16 on a CPU too; faster only where it multiplies bf16
    recompute: bool = False  # compute activations twice: less memory, a third more work
    grad_clip: Positive = 1.0  # largest gradient norm
    micro_rows: Count = 64  # rows a forward and backward pass holds; does not change the result


@dataclass
class PolicyConfig(ModelConfig):
    """How a policy plays"""
    level: CountOr0 = 0  # difficulty, in a world that has levels; 0: the world's own default
    turns: in_range(int, least=0, most=10_000) = 0  # turns of a game; 0: the world's own default
    max_new: CountOr0 = 0  # tokens a turn may take; 0: the world's own default
    rows: CountOr0 = 0  # texts decoded side by side: fewer take less memory; 0: all of an update
    dry_run: bool = False  # print how much memory the run would take, and end
    temperature: in_range(float, above=0, most=1000) = 1.0  # of sampling (tandem paper: 0.6)


@dataclass
class Config(PolicyConfig):
    """Supervised fine-tuning"""
    method = "sft"
    senior: str = ""  # start from this checkpoint or run; empty: from random weights
    skill: str = "senior"  # whose demonstrations; each world has its own players
    test_chains: Count = 4  # completions a task in the final table, for pass@1 and pass@N


WEIGHT_DECAY = 0.1  # AdamW's, on demonstrations; it shortens the plateau before addition is learned


# ---- demonstrations ----

def demonstration_row(env, tok, task, split, seed, skill, context):
    """Replay a demonstration -> (ids, mask); None when it does not fit. mask: 1 on what the player
    wrote, and on what a world of prose said: it teaches much where demonstrations are few."""
    (observation, answers), = env.demos([task], split, seed, skill)
    prose = int(env.first.prose)
    ids = tok.encode_turn("user", observation, first=True)
    mask = [0] + [prose] * (len(ids) - 1)
    for answer, step in envs.replay(env.first, answers):
        said = tok.encode_turn("assistant", answer)
        ids, mask = ids + said, mask + [1] * len(said)
        if step.done:
            break
        heard = tok.encode_turn("user", step.observation)
        ids, mask = ids + heard, mask + [prose] * len(heard)
    return (ids, mask) if len(ids) <= context else None


def demonstration_batch(env, tok, step, rows, seed, skill, context, device="cpu"):
    """-> tokens [R, T], mask [R, T]. Step s of a run always sees the same demonstrations. A rank
    that has none joins the others with an empty row."""
    n = env.first.tasks("train")
    tasks = [seed * 10**7 + step * rows + i for i in range(rows)]
    if dist.is_initialized():
        tasks = tasks[dist.get_rank()::dist.get_world_size()]
    tasks = [task if n is None else task % n for task in tasks]
    found = [demonstration_row(env, tok, task, "train", f"{seed} {step}", skill, context)
             for task in tasks]
    fitting = [row for row in found if row is not None]
    if not all_sum(torch.tensor(len(fitting), device=device)):
        raise run.Stop(f"no demonstration fits a context of {context} tokens; raise --context")
    return padded(fitting or [([0], [0])], device)


def padded(rows, device="cpu"):
    """[(ids, mask)] -> tokens [R, T], mask [R, T] bool"""
    tokens = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True)
    mask = pad_sequence([torch.tensor(mask) for _, mask in rows], batch_first=True)
    return tokens.to(device), mask.to(device).bool()


# ---- one update ----

def update(model, optimizer, tokens, mask, *, micro_rows=64, grad_clip=1.0):
    """One optimiser step on cross-entropy, mean over the global batch's tokens -> statistics."""
    zero_gradients(model)
    total, loss = all_sum(mask.float().sum()), torch.zeros((), device=tokens.device)
    length = sampled_length(mask)  # [R]
    for part, T in by_length(length, length.nonzero()[:, 0], micro_rows):
        weight = mask[part][:, :T].float() / total.clamp(min=1e-8)  # [R, T]
        logp = token_logp(model, tokens[part][:, :T], wanted=weight != 0)  # [R, T]
        partial = -(weight * logp).sum()
        partial.backward()
        loss += partial.detach()
    all_sum(loss)
    done = apply_gradients(model, optimizer, grad_clip, loss)
    return {**done, "loss": float(loss), "tokens": len(tokens) * tokens.shape[1]}


def make_optimizer(model, lr):
    return torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)


def imitate(model, optimizer, env, tok, number, *, lr, rows, seed, skill, **how):
    """Step `number` on demonstrations. The learning rate rises linearly over the first 50 steps."""
    for group in optimizer.param_groups:
        group["lr"] = lr * min(1, (number + 1) / 50)
    device = model.embed.weight.device
    batch = demonstration_batch(env, tok, number, rows, seed, skill, model.cfg.context, device)
    return update(model, optimizer, *batch, **how)


# ---- warm starts: train on demonstrations until a target accuracy ----

def warm_recipe(cfg, env, tok, layers, width, skill, target):
    """Everything a warm start depends on. Other demonstrations make another warm start."""
    context = cfg.context or env.first.context
    n = min(200, env.first.tasks("train") or 200)
    demos = env.demos(range(n), "train", 0, skill)
    check_demos(cfg, env, tok, skill, [answers for _, answers in demos if answers])
    options = {name: value for name, value in env.options.items() if name != "data"}
    return {"name": f"{skill}-{cfg.env}-{cfg.seed}", "env": cfg.env, "env_options": options,
            "tokenizer": tok.state(),
            "model": dataclasses.asdict(small_config(tok.n_vocab, context, layers, width)),
            "skill": skill, "target": target if target >= 0 else env.first.targets[skill],
            "warm_steps": cfg.warm_steps or env.first.warm_steps,
            "max_new": cfg.max_new or env.first.max_new,
            "lr": cfg.sft_lr, "rows": cfg.sft_rows, "seed": cfg.seed,
            "data": env.first.fingerprint(), "rules": env.rules(skill),
            "demos": hashlib.sha256(repr(demos).encode()).hexdigest()}


def check_demos(cfg, env, tok, skill, demos):
    """Stop where no demonstration can be learned or said."""
    if not demos:
        raise run.Stop(f"{cfg.env} has no demonstrations of skill {skill!r}: its demo() gives "
                       "none; see envs/guess.py")
    new = cfg.max_new or env.first.max_new
    # the end of a turn is a token too, but one that a cut does no harm to
    longest = [max(len(tok.encode_turn("assistant", text)) for text in texts) for texts in demos]
    shortest = min(longest) - 1
    if shortest > new:
        raise run.Stop(f"a turn of {cfg.env} may take {new} tokens, its demonstrations take "
                       f"{shortest} and more; raise --max-new")


def train_warm(recipe, data="", device="cpu", position=0):
    """Make a warm start -> a checkpoint. data: where the world's data lies; the recipe has a hash
    of it, because the same data elsewhere make the same warm start.

    It ends at the target accuracy on sampled valid tasks, or after warm_steps with what it has. It
    is evaluated every 25 steps, and every 5 once it is near. position: the progress bar's line."""
    env = envs.Batch(recipe["env"], data=data, **recipe["env_options"])
    tok = tokenizer.from_state(recipe["tokenizer"])
    target, limit, skill = recipe["target"], recipe["warm_steps"], recipe["skill"]
    # in games it is near later, because an evaluation takes as long as ten steps
    near = target * (0.8 if env.first.max_turns > 1 else 0.5)
    torch.manual_seed(recipe["seed"])
    model = GPT(GPTConfig(**recipe["model"])).to(device)
    optimizer, sampler = make_optimizer(model, recipe["lr"]), Sampler(model, env.at_once(128))
    how = {name: recipe[name] for name in ("lr", "rows", "seed", "skill")}
    solo, accuracy, done = 0.0, 0.0, 0
    with tqdm(total=limit, desc=f"warm start: {skill}", position=position, mininterval=1) as bar:
        while done < limit:
            stats = imitate(model, optimizer, env, tok, done, **how)
            done += 1
            bar.update()
            if done % 25 == 0 or (accuracy > near and done % 5 == 0) or done == limit:
                solo, accuracy = success_rate(sampler, env, tok, recipe["seed"], recipe["max_new"])
                bar.set_postfix(loss=f"{stats['loss']:.3f}", solo=f"{solo:.2f}",
                                worst=f"{accuracy:.2f}", target=target)
                if accuracy >= target:
                    break
    return {"model": {k: v.cpu() for k, v in model.state_dict().items()},
            "model_config": dataclasses.asdict(model.cfg), "tokenizer": recipe["tokenizer"],
            "solo": solo, "steps": done, "target": target, "reached": accuracy >= target}


def go_on(cfg, env, device, start, what, update, lr, limit, target=None):
    """Train a warm start further: `limit` updates, or until the target, tested every 5
    -> a checkpoint. update(model, optimizer, sampler, tok, step); what: the progress bar's title"""
    model, tok, state = load_model(start, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    sampler = Sampler(model, env.at_once(128))
    with tqdm(total=limit, desc=what, file=sys.stderr, mininterval=1) as bar:
        for step in range(limit + 1):
            if step == limit or (target is not None and step % 5 == 0):
                success, _ = success_rate(sampler, env, tok, cfg.seed, cfg.max_new)
                bar.set_postfix(success=f"{success:.2f}", target=target)
                if step == limit or success >= target:
                    break
            update(model, optimizer, sampler, tok, step)
            bar.update()
    weights = {name: x.cpu() for name, x in model.state_dict().items()}
    return {**state, "model": weights, "solo": success, "target": target,
            "reached": target is None or success >= target, "steps": state["steps"] + step}


def finished(cfg, env, device, start, role, finish, settings):
    """What follows the demonstrations, made once -> its path. start: the warm start's path;
    finish(cfg, env, device, start) makes the checkpoint, settings are all it depends on besides."""
    recipe = {"name": f"{role}-{cfg.env}-{cfg.seed}", "start": os.path.basename(start), **settings}
    return cached(recipe, functools.partial(finish, cfg, env, device, start), cfg.cache)


def success_rate(sampler, env, tok, seed, max_new):
    """On sampled valid tasks -> success, and the success that must reach the target: in a world of
    every_family, the worst family's (a senior must know both notations)."""
    problems = 256 if env.first.max_turns * env.first.max_new < 200 else 32
    how = Sampling(max_new=max_new)
    found, _, episodes = evaluate(sampler, env, tok, how, "valid", problems, 1, seed)
    solo = found["pass@1"]
    return solo, worst_family(episodes) if env.first.every_family else solo


# ---- the models a run starts from ----

def open_tokenizer(cfg, env):
    """The vocabulary of --tokenizer; a trained one learns from what a world and its players say."""
    try:
        if cfg.tokenizer != "trained":
            return tokenizer.load(cfg.tokenizer)
        n = min(500, env.first.tasks("train") or 500)
        demos = env.demos(range(n), "train", 0, "senior")
        texts = [text for question, answers in demos for text in (question, *(answers or []))]
        return tokenizer.of_world(env.first, texts)
    except ValueError as error:
        raise run.Stop(str(error)) from None


def starting_points(cfg, env, device, roles, twice=False):
    """Make the warm starts that a run needs. roles: {role: a checkpoint's path, or (layers, width,
    skill, target) of a warm start}, the trained model's first; twice: its start is a frozen model
    of the run too -> tokenizer, {role: path}."""
    given = {role: start for role, start in roles.items() if isinstance(start, str)}
    wanted = {role: start for role, start in roles.items() if role not in given}
    for _, _, skill, _ in wanted.values():
        check_skill(cfg, env, skill)
    wished = cfg.context or env.first.context
    found = {role: read_shape(path, wished) for role, path in given.items()}
    tok = next(iter(found.values()))[0] if found else open_tokenizer(cfg, env)
    if any(tokenizer.content(other) != tokenizer.content(tok) for other, _ in found.values()):
        raise run.Stop(f"{' and '.join(given.values())} differ in vocabulary; "
                       f"{' and '.join(given)} must share one")
    shapes = {role: found[role][1] if role in found
              else small_config(tok.n_vocab, wished, *start[:2]) for role, start in roles.items()}
    check_memory(cfg, env, device, shapes, roles, twice)
    if not cfg.resume:
        for role, path in given.items():
            check_shape(cfg, role, path, shapes[role])
        context = min([wished, *(shape.context for shape in shapes.values())])
        check_prompts(env, tok, context, cfg.max_new or env.first.max_new)
    recipes = [warm_recipe(cfg, env, tok, *start) for start in wanted.values()]
    jobs = [(recipe, functools.partial(train_warm, recipe, cfg.data, device, i))
            for i, recipe in enumerate(recipes)]
    made = dict(zip(wanted, cached_side_by_side(jobs, cfg.cache, device)))
    return tok, {role: given.get(role) or made[role] for role in roles}


def check_skill(cfg, env, skill):
    if skill not in env.first.targets:
        known = " ".join(env.first.targets)
        why = f"one of: {known}" if known else "give it demo() and targets, as envs/guess.py has"
        raise run.Stop(f"{cfg.env} has no demonstrations of skill {skill!r}; {why}")


# ---- the method ----

@dataclass(kw_only=True)
class Run(run.Run):
    env: envs.Batch
    solo: Sampler  # the model alone


def setup(cfg):
    """Options -> Run. The model starts from random weights, or from a checkpoint."""
    env = open_env(cfg)
    check_skill(cfg, env, cfg.skill)
    here = run.begin(cfg)
    device, rank = here["device"], here["rank"]
    tok, paths = starting_points(cfg, env, device, {"senior": cfg.senior} if cfg.senior else {})
    context = cfg.context or env.first.context
    if cfg.senior:
        model = load_models(paths, device, rank, context)["senior"]
    else:
        shape = small_config(tok.n_vocab, context, cfg.layers, cfg.width)
        made = {"senior": (cfg.layers, cfg.width)}
        check_memory(cfg, env, device, {"senior": shape}, made, False)
        torch.manual_seed(cfg.seed)
        model = GPT(shape).to(device)
    run.join_ranks(device)
    model.recompute = cfg.recompute
    how = sampler_options(cfg, env, device)
    return Run(cfg=cfg, **here, env=env, data=env.first.fingerprint(), tok=tok, model=model,
               origins=paths, compiled=how["compile"], optimizer=make_optimizer(model, cfg.sft_lr),
               solo=Sampler(model, **how))


def step(r):
    """One batch of demonstrations -> statistics for metrics.jsonl."""
    cfg, lap = r.cfg, run.stopwatch()
    stats = imitate(r.model, r.optimizer, r.env, r.tok, r.step, lr=cfg.sft_lr, rows=cfg.sft_rows,
                    seed=cfg.seed, skill=cfg.skill, micro_rows=cfg.micro_rows,
                    grad_clip=cfg.grad_clip)
    seconds = lap()
    return {**stats, "time_update": seconds, "tokens_per_s": stats["tokens"] / seconds}


def look(r):
    """The model alone on valid tasks, three replies to samples.txt -> what metrics.jsonl gets."""
    cfg, n = r.cfg, r.cfg.eval_problems
    found, _, episodes = evaluate(r.solo, r.env, r.tok, cfg, "valid", n, 1, cfg.seed)
    run.add_samples(r, [(f"valid task {e['task']}, reward {e['reward']:g}",
                         f"{r.env.first.reset(e['task'], 'valid')}\n{e['text']}")
                        for e in episodes[:3]])
    shown = ("private", "boxed", "malformed", "truncated", "turns")
    return {"solo": found["pass@1"],
            **{f"solo_{name}": found[name] for name in shown if name in found}}


def report(r):
    """The final table: the model alone before and after, on tasks that nobody has looked at."""
    print_report(r, measure)


def measure(r, n):
    """The model alone on n tasks of the final split -> {metric: (mean, standard error or None)}"""
    cfg = r.cfg
    found, _, _ = evaluate(r.solo, r.env, r.tok, cfg, cfg.final_split, n, cfg.test_chains, cfg.seed)
    return solo_table(found, r.env)


def print_report(r, measure, try_next=()):
    """measure(r, n) before and after, printed and in result.json. try_next: methods to name."""
    cfg, n = r.cfg, final_tasks(r)
    columns = {when: measure(r, n) for when in run.before_and_after(r)}
    run.write_result(r, {"n": n, "chains": cfg.test_chains, "seconds": r.seconds, **columns})
    teams = any("handoff" in name for name in columns["after"])
    half = f" (handoff: {run.tasks_of('handoff', n)} problems)" if teams else ""
    print(f"\n{n} {cfg.final_split} problems x {cfg.test_chains} chains{half}, "
          f"temperature {cfg.temperature:g}, 95% intervals")
    run.print_table(columns, n)
    run.print_next(r, *try_next)


def show(r, n):
    """n completions before and after training."""
    for when in run.before_and_after(r):
        print_episodes(f"{when}: the model alone", r.solo, r, n)
