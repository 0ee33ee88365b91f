"""The methods that train a policy on an environment: sft, grpo and tandem.

What a method is to the loop in train.py, this module in plain functions: check (its impossible options), prepare (options -> Run,
warm starts made), restored (what a resumed run has to put back), update (one update), look (the evaluation every --eval-every
updates), bar (what the progress bar shows) and final_table. The algorithms are in sft.py, grpo.py and tandem.py.
"""
import dataclasses
import json
import math
import os
import shlex
import sys
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from tqdm import tqdm

import atod
import envs
import grpo
import run
import sft
import tandem
import tokenizer
from model import GPT, small_config
from sampler import Sampler


@dataclass
class Config:
    senior: str = ""  # the trained model's start: a checkpoint; empty: its warm start is made and cached
    junior: str = ""  # the frozen junior: a checkpoint, or auto to make one (tandem does); grpo is then graded by it too
    junior_skill: str = "junior"  # what a junior made here has seen: junior (the plain notation; in a world of one what the senior has seen) or graded (a little of the private one)
    tokenizer: str = "trained"  # trained (on the environment's text) or a public one by tiktoken's name: gpt2, ...
    level: int = 0  # of house, 1 to 4; 0: what it proposes (worldmodel: see --levels)
    turns: int = 0  # of house, how many a game may take; 0: what the level proposes
    text: str = ""  # of house: terse (3 to 8 words, each a token) or plain (English as in ALFWorld); empty: terse
    context: int = 0  # tokens an episode may take; 0: what the environment proposes
    layers: int = 2  # of the senior
    width: int = 96  # of the senior, a multiple of 32
    junior_layers: int = 2  # of the junior
    junior_width: int = 64  # of the junior, a multiple of 32
    cache: str = "out/warm"  # where warm starts are kept
    bf16: bool = False  # sample in bf16 on a CPU too, as on CUDA: where the processor multiplies bf16 itself it is faster, elsewhere slower
    recompute: bool = False  # compute activations again in the backward pass instead of keeping them: less memory, a third more work


# ---- set-up ----

def check(v):
    """Options that do not go together, in one line each."""
    if v["group"] < 2 and v["method"] != "sft":
        raise run.Stop("--group is at least 2: a response is judged against its siblings")
    if v["prompts"] % v["minibatches"]:
        raise run.Stop(f"--minibatches {v['minibatches']} does not divide --prompts {v['prompts']}")
    if not (0 < v["temperature"] < math.inf and v["grad_clip"] > 0):
        raise run.Stop("--temperature (training scores the distribution it samples from) and --grad-clip are above 0")
    if not 0 <= v["p"] <= 1:
        raise run.Stop("--p is a probability")
    if v["kl_to"] == "junior" and (not v["kl"] or (v["method"] == "grpo" and not v["junior"])):
        raise run.Stop("--kl-to junior needs a weight (--kl 0.2) and a --junior (auto makes one)")
    for name in ("width", "junior_width"):
        if v[name] % 32 or v[name] < 32:
            raise run.Stop(f"--{name.replace('_', '-')} is a multiple of 32")


def open_env(v):
    """-> envs.Batch, its options. Stop when it does not exist or lacks something."""
    options = {"data": v["data"], **{name: v[name] for name in ("level", "text", "turns") if v[name]}}
    try:
        env = envs.Batch(v["env"], **options)
    except TypeError:
        raise run.Stop(f"{v['env']} knows no --level, --text or --turns") from None
    except ValueError as error:
        raise run.Stop(str(error)) from None
    if v["junior_skill"] == Config.junior_skill and "junior" not in env.first.targets:
        v["junior_skill"] = "senior"  # a world of one notation: a junior made here is the smaller model
    for skill in [v["skill"]] + ([v["junior_skill"]] if v["junior"] == "auto" else []):
        if skill not in env.first.targets:
            raise run.Stop(f"{v['env']} has no demonstrations of skill {skill!r}; one of: {' '.join(env.first.targets)}")
    return env, options


def open_tokenizer(v, env):
    try:
        if v["tokenizer"] != "trained":
            return tokenizer.load(v["tokenizer"])
        n = min(500, env.first.tasks("train") or 500)
        demos = env.demos(range(n), "train", 0, "senior")
        texts = [text for question, answers in demos for text in (question, *(answers or []))]
        return tokenizer.of_world(env.first, texts)
    except ValueError as error:
        raise run.Stop(str(error)) from None


def check_prompts(env, tok, context, max_new):
    """Every prompt must leave room for an answer: look at those of a finite set, 10,000 at most, and at 1,000 of an infinite one."""
    for split in envs.SPLITS:
        total = min(env.first.tasks(split) or 1000, 10_000)
        for first in range(0, total, 32):  # a slow engine's side by side
            tasks = range(first, min(first + 32, total))
            for task, text in zip(tasks, env.reset_many(tasks, split)):
                n = len(tok.encode_turn("user", text, first=True))
                if n + min(max_new, context) > context:
                    raise run.Stop(f"{split} task {task} has {n} tokens; with --max-new {max_new} it does not fit --context {context}")


def make_models(v, env, options, device, rank, given, wanted):
    """given: {role: checkpoint file or folder}; wanted: {role: (layers, width, sft.Config)}, warm starts that are made where they are missing.
    -> tokenizer, {role: file}"""
    found = [sft.load_model(path)[:2] for path in given.values()]
    tok = found[0][1] if found else open_tokenizer(v, env)
    if any(its.state() != tok.state() for _, its in found):
        raise run.Stop(f"{' and '.join(given.values())} differ in vocabulary; {' and '.join(given)} must share one")
    context, max_new = v["context"] or env.first.context, v["max_new"] or env.first.max_new
    check_prompts(env, tok, min([context] + [model.cfg.context for model, _ in found]), max_new)
    recipes = [sft.make_recipe(v["env"], options, env, tok, small_config(tok.n_vocab, context, layers, width), settings, v["seed"])
               for layers, width, settings in wanted.values()]
    paths = dict(given)
    if rank == 0:
        paths.update(zip(wanted, sft.warm_start(recipes, v["cache"], device, torch.get_num_threads())))
    return tok, from_first(paths)


def from_first(value):
    """Rank 0's value, in every rank."""
    if not dist.is_initialized():
        return value
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]


def load_models(paths, device, rank):
    """-> {role: model}, what is known of each said"""
    models = {}
    for role, path in paths.items():
        models[role], _, state = sft.load_model(path, device)
        if rank == 0 and "target" in state:
            short = "" if state["reached"] else f": it did NOT reach {state['target']}, expect little"
            print(f"{role}: {models[role].n_params():,} parameters, success {state['solo']:.2f} after {state['steps']} steps{short}")
    return models


def open_models(v, env, options, device, rank):
    """-> senior, junior or None, tokenizer, the checkpoint files they came from. Makes the warm starts that are missing."""
    settings, wanted = run.build(sft.Config, v), {}
    if not v["senior"] and v["method"] != "sft":
        wanted["senior"] = v["layers"], v["width"], settings
    if v["junior"] == "auto":
        wanted["junior"] = v["junior_layers"], v["junior_width"], dataclasses.replace(settings, skill=v["junior_skill"], target=-1.0)
    given = {role: v[role] for role in ("senior", "junior") if v[role] not in ("", "auto")}
    tok, paths = make_models(v, env, options, device, rank, given, wanted)
    models = load_models(paths, device, rank)
    if "senior" not in models:
        torch.manual_seed(v["seed"])
        context = v["context"] or env.first.context
        models["senior"] = GPT(small_config(tok.n_vocab, context, v["layers"], v["width"])).to(device)
    if "junior" in models and models["junior"].cfg.context != models["senior"].cfg.context:
        raise run.Stop("senior and junior have different contexts; make them with the same --context")
    for p in (models["junior"].parameters() if "junior" in models else ()):
        p.requires_grad_(False)
    return models["senior"], models.get("junior"), tok, paths


@dataclass
class Run:
    """What the loop and the functions below work with."""
    v: dict  # every option
    cfg: grpo.Config
    tandem_cfg: tandem.Config
    sft_cfg: sft.Config
    env: envs.Batch
    tok: tokenizer.Tokenizer
    model: GPT  # the senior: what is trained
    warm: dict  # its weights at the start
    reference: GPT | None  # of the KL term
    optimizer: torch.optim.Optimizer
    solo: Sampler  # the senior alone
    team: tandem.TandemSampler | None  # senior and junior
    paths: dict  # the checkpoints they started from
    device: str
    rank: int
    world: int
    compiled: bool
    problems: int  # of the final table
    began: float  # when, in seconds since the epoch, less what earlier parts of a resumed run took
    teacher: GPT | None = None  # opd, atod, and grpo beside them (agent.py)
    atod_cfg: atod.Config | None = None
    step: int = 0  # batches done
    skipped: int = 0  # updates left out, for they were not finite
    accuracy: float = math.nan  # solo, on valid problems, last time it was looked at


def prepare(v, device, rank, world, models=open_models):
    """Options -> Run, warm starts made. The folder is claimed once ranks and environment are accepted. models: how they are come by."""
    began = time.time()
    if v["method"] == "tandem" and not v["junior"]:
        v["junior"] = "auto"
    cfg, tandem_cfg, sft_cfg = (run.build(c, v) for c in (grpo.Config, tandem.Config, sft.Config))
    if cfg.prompts // cfg.minibatches % world:
        raise run.Stop(f"{world} ranks do not divide the {cfg.prompts // cfg.minibatches} prompts of an update")
    env, options = open_env(v)
    problems = min(v["test_problems"] or env.first.problems, env.first.tasks(v["final_split"]) or math.inf)
    if rank == 0:
        if not v["resume"]:
            run.claim_folder(v["out"])
        print(f"{v['method']} on {v['env']}, {v['steps']} updates, {torch.get_num_threads()} threads, output in {v['out']}")
        if v["env"] == "arithmetic":
            print("with the default settings about 2 minutes on two CPU cores, half of it a warm start that is made once")
    model, second, tok, paths = models(v, env, options, device, rank)
    junior, teacher = (second, None) if models is open_models else (None, second)
    warm = {k: x.clone() for k, x in model.state_dict().items()}
    reference = junior if cfg.kl and cfg.kl_to == "junior" else None
    if cfg.kl and cfg.kl_to == "warm":
        reference = GPT(model.cfg).to(device)
        reference.load_state_dict(warm)
    model.recompute = v["recompute"]
    optimizer = sft.make_optimizer(model, sft_cfg) if v["method"] == "sft" else torch.optim.AdamW(
        model.parameters(), lr=cfg.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=device.startswith("cuda"))
    compiled = run.choose_compile(v["compile"], device, cfg.steps * env.first.max_turns * (cfg.max_new or env.first.max_new))
    evaluated = 256 if env.first.max_turns > 1 else 0  # rows at once: games take many steps of little work
    sampling = {"rows": max(cfg.prompts * cfg.group // world, v["test_chains"], evaluated), "compile": compiled,
                "dtype": torch.bfloat16 if v["bf16"] or device.startswith("cuda") else torch.float32}  # what is trained stays fp32
    team = tandem.TandemSampler(model, junior, **sampling) if junior is not None else None
    return Run(v, cfg, tandem_cfg, sft_cfg, env, tok, model, warm, reference, optimizer, Sampler(model, **sampling), team, paths,
               device, rank, world, compiled, problems, began, teacher, run.build(atod.Config, v))


def restored(r):
    """Model, optimizer and r.warm are those of the checkpoint by now: put back what else depends on them."""
    if r.reference is not None and r.cfg.kl_to == "warm":  # the senior's own start
        r.reference.load_state_dict(r.warm)  # as it was, whatever --senior may hold by now


# ---- one update of each method ----

def update(r):
    return sft_step(r) if r.v["method"] == "sft" else rl_step(r)


def sft_step(r):
    began = time.perf_counter()
    stats = sft.step(r.model, r.optimizer, r.env, r.tok, r.step, r.v["seed"], r.sft_cfg, r.cfg)
    seconds = time.perf_counter() - began
    return {**stats, "time_update": seconds, "tokens_per_s": stats["tokens"] / seconds}


def rl_step(r):
    """Rollout, scoring, update. -> statistics, times in seconds among them"""
    clock, cfg, together, spent = [time.perf_counter()], r.cfg, r.v["method"] == "tandem", r.env.seconds
    tasks = grpo.train_tasks(r.env, r.step, cfg.prompts, r.v["seed"])[r.rank::r.world]
    names = [(r.v["seed"], "train", r.step, task, sample) for task in tasks for sample in range(cfg.group)]
    sampler, how = r.team if together else r.solo, r.tandem_cfg
    if together:
        r.team.set_schedule(how.schedule, r.tok, r.env.first.mark, how.max_gap or r.env.first.max_gap, how.p)
    rows, episodes = grpo.rollout(sampler, r.env, r.tok, tasks, "train", names, cfg)
    clock.append(time.perf_counter())
    rewards, valid = grpo.episode_rewards(episodes, cfg.group, rows.tokens.device)
    advantages, extra = grpo.group_advantages(rewards, valid=valid), {}  # [N, G]; an episode whose engine died does not count
    advantage, reference_logp = advantages.flatten()[rows.episode], grpo.score(r.reference, rows, cfg) if cfg.kl else None
    if r.teacher is not None:
        teacher_logp = rows.behaviour_logp if r.atod_cfg.mix == "grpo" else grpo.score(r.teacher, rows, cfg)  # grpo asks no teacher
        advantage, extra = atod.advantages(rows, teacher_logp, advantages.flatten(), r.atod_cfg, r.step, cfg.steps)
        mask = atod.trajectory_mean(rows, valid.flatten())
    else:
        mask = tandem.loss_mask(rows, how.junior_weight) if together else rows.mask.float()
        mask = mask * valid.flatten()[rows.episode, None]
    clock.append(time.perf_counter())

    updates = []
    for part in range(cfg.minibatches):  # whole groups, as N divides
        index = (rows.group * cfg.minibatches // len(tasks) == part).nonzero()[:, 0]
        updates.append(grpo.update(r.model, r.optimizer, rows[index], mask[index], advantage[index], cfg,
                                   None if reference_logp is None else reference_logp[index]))
    clock.append(time.perf_counter())

    stats = {k: sum(u.get(k, 0.0) for u in updates) / len(updates) for k in {k: 0 for u in updates for k in u}}
    stats["mismatch_max"] = updates[0].get("mismatch_max", 0.0)  # before the first update of the batch: rounding only
    flat = grpo.gathered((advantages == 0).all(1).tolist())  # of all ranks, as the episodes below
    played = grpo.summary(grpo.gathered(episodes), cfg.group)
    stats.update({k: x for k, x in played.items() if not k.startswith("pass@")}, success=played["pass@1"],
                 zero_variance=sum(flat) / len(flat), tokens=sum(grpo.gathered([int(rows.mask.sum())])), **extra)
    if together:
        shared = tandem.author_stats(rows)
        if how.schedule != "alternate" and tandem.share_is_off(shared, how.p):
            tqdm.write(f"warning: the senior won {shared['senior_draws']:.2f} of {shared['redraws']} draws at p = {how.p}",
                       file=sys.stderr)
        stats.update(shared)
    rollout, scoring, update = (b - a for a, b in zip(clock, clock[1:]))
    stats.update(time_rollout=rollout, time_environment=r.env.seconds - spent, time_scoring=scoring, time_update=update)
    return {**stats, "tokens_per_s": stats["tokens"] / rollout,
            "agent_steps_per_s": played["turns"] * len(tasks) * cfg.group * r.world / (rollout + scoring + update)}


# ---- what is shown ----

def bar(r, stats):
    return {"reward": f"{stats.get('reward', math.nan):.2f}", "solo": f"{r.accuracy:.2f}", "tok_s": f"{stats.get('tokens_per_s', 0):,.0f}"}


def look(r):
    """The senior alone on valid problems, three of its chains into samples.txt. -> what to add to the line of metrics"""
    found, _, episodes = grpo.evaluate(r.solo, r.env, r.tok, r.cfg, "valid", r.v["eval_problems"], 1, r.v["seed"])
    r.accuracy = found["pass@1"]
    with open(os.path.join(r.v["out"], "samples.txt"), "a", encoding="utf-8") as file:
        file.writelines(f"--- step {r.step}, valid task {e['task']}, reward {e['reward']:g}\n"
                        f"{r.env.first.reset(e['task'], 'valid')}\n{e['text']}\n" for e in episodes[:3])
    return {"solo": r.accuracy, **{f"solo_{k}": found[k] for k in ("private", "malformed", "truncated", "turns") if k in found}}


def final_table(r):
    """Every metric before and after, on problems nobody has looked at. Also written to result.json."""
    v, n, columns, seconds = r.v, r.problems, {}, time.time() - r.began
    trained = {k: x.clone() for k, x in r.model.state_dict().items()}
    for name, weights in (("before", r.warm), ("after", trained)):
        r.model.load_state_dict(weights)
        columns[name] = tandem.evaluate(r.solo, r.team, r.env, r.tok, r.cfg, r.tandem_cfg, v["final_split"], n, v["test_chains"], v["seed"])
    run.write(os.path.join(v["out"], "result.json"), json.dumps({"n": n, "chains": v["test_chains"], "seconds": seconds, **columns}, indent=1))
    print(f"\n{n} {v['final_split']} problems x {v['test_chains']} chains (handoff: {max(1, n // 2)} problems), temperature "
          f"{r.cfg.temperature:g}, 95% intervals")
    run.print_table(columns, n)
    print(f"{seconds:.0f} s to the end of training, {time.time() - r.began:.0f} s with this table\n\nnext:\n"
          f"  python sample.py {shlex.quote(v['out'])}")
    if "junior" in r.env.first.targets:
        other, data = "grpo --junior auto" if v["method"] == "tandem" else "tandem", f" --data {shlex.quote(v['data'])}" if v["data"] else ""
        print(f"  python train.py --method {other} --env {v['env']} --seed {v['seed']}{data}")
