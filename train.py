"""The one entry point.

    python train.py --method tandem                                  # from nothing to the table, minutes on two CPU cores
    python train.py --method grpo --junior auto                      # the baseline, graded by the same junior
    python train.py --method tandem --env gsm8k --data PATH/train.jsonl --steps 3
    torchrun --nproc_per_node=2 train.py --method grpo               # data parallel: each rank rolls out its own prompts

The loop: warm start -> (rollout -> score -> update) x steps -> table on held-out problems. The algorithms are in grpo.py and
tandem.py; what is only housekeeping is in run.py. Every option is a field of a Config dataclass: --help lists them all.
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

import envs
import grpo
import run
import sft
import tandem
import tokenizer
from model import GPT, small_config
from sampler import Sampler

METHODS = ("sft", "grpo", "tandem")


@dataclass
class Config:
    senior: str = ""  # the trained model's start: a checkpoint; empty: its warm start is made and cached
    junior: str = ""  # the frozen junior: a checkpoint, or auto to make one (tandem does); grpo is then graded by it too
    junior_skill: str = "junior"  # what a junior made here has seen: junior (the plain notation) or graded (a little of the private one)
    tokenizer: str = "trained"  # trained (on the environment's text) or a public one by tiktoken's name: gpt2, ...
    context: int = 0  # tokens an episode may take; 0: what the environment proposes
    layers: int = 2  # of the senior
    width: int = 96  # of the senior, a multiple of 32
    junior_layers: int = 2  # of the junior
    junior_width: int = 64  # of the junior, a multiple of 32
    cache: str = "out/warm"  # where warm starts are kept


GROUPS = {"every run (run.py)": run.Config, "models (train.py)": Config, "sft and warm start (sft.py)": sft.Config,
          "grpo and tandem (grpo.py)": grpo.Config, "tandem (tandem.py)": tandem.Config}


# ---- set-up ----

def read_options(argv):
    given, values = run.parse(argv, GROUPS)
    if values["method"] not in METHODS:
        raise run.Stop(f"unknown method {values['method']!r}; one of: {' '.join(METHODS)}")
    out = values["out"] or f"out/{values['method']}-{values['env']}-{values['seed']}"
    stored = run.resume_values(out, given, values) if values["resume"] else None
    if values["resume"] and stored is None:
        print(f"nothing to resume in {out}: starting from the beginning")
    values = stored or {**values, "out": out}
    check(values)
    return values, stored is not None


def check(v):
    """Impossible combinations, in one line each."""
    least = {"steps": 1, "prompts": 1, "minibatches": 1, "micro_rows": 1, "eval_problems": 1, "test_chains": 1,
             "save_every": 1, "eval_every": 1, "layers": 1, "junior_layers": 1, "sft_rows": 1}
    for name, smallest in least.items():
        if v[name] < smallest:
            raise run.Stop(f"--{name.replace('_', '-')} is at least {smallest}")
    if v["group"] < 2 and v["method"] != "sft":
        raise run.Stop("--group is at least 2: a response is judged against its siblings")
    if v["prompts"] % v["minibatches"]:
        raise run.Stop(f"--minibatches {v['minibatches']} does not divide --prompts {v['prompts']}")
    if not v["temperature"] > 0:
        raise run.Stop("--temperature is above 0: training scores the distribution it samples from")
    if not 0 <= v["p"] <= 1:
        raise run.Stop("--p is a probability")
    if v["schedule"] not in tandem.SCHEDULES:
        raise run.Stop(f"unknown schedule {v['schedule']!r}; one of: {' '.join(tandem.SCHEDULES)}")
    if v["kl_to"] not in ("warm", "junior"):
        raise run.Stop(f"--kl-to is warm or junior, not {v['kl_to']!r}")
    if v["kl"] and v["kl_to"] == "junior" and v["method"] == "grpo" and not v["junior"]:
        raise run.Stop("--kl-to junior needs --junior (auto makes one)")
    if v["final_split"] not in ("valid", "test"):
        raise run.Stop(f"--final-split is test or valid, not {v['final_split']!r}")
    for name in ("width", "junior_width"):
        if v[name] % 32 or v[name] < 32:
            raise run.Stop(f"--{name.replace('_', '-')} is a multiple of 32")


def open_env(v):
    """-> envs.Batch, its options. Stop when it does not exist or lacks something."""
    options = {"data": v["data"]}
    try:
        env = envs.Batch(v["env"], **options)
    except ValueError as error:
        raise run.Stop(str(error)) from None
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
        return tokenizer.train([text for question, answers in demos for text in (question, *(answers or []))])
    except ValueError as error:
        raise run.Stop(str(error)) from None


def check_prompts(env, tok, context, max_new):
    """Every prompt must leave room for an answer: look at all of a finite set, and at 1,000 of an infinite one."""
    for split in envs.SPLITS:
        for task in range(env.first.tasks(split) or 1000):
            n = len(tok.encode_turn("user", env.first.reset(task, split), first=True))
            if n + min(max_new, context) > context:
                raise run.Stop(f"{split} task {task} has {n} tokens; with --max-new {max_new} it does not fit --context {context}")


def open_models(v, env, options, device, rank):
    """-> senior, junior or None, tokenizer, the checkpoint files they came from. Makes the warm starts that are missing."""
    paths = {"senior": v["senior"], "junior": v["junior"]}
    given = [sft.load_model(p)[1] for p in (v["senior"], v["junior"]) if p not in ("", "auto")]
    tok = given[0] if given else open_tokenizer(v, env)
    context, max_new = v["context"] or env.first.context, v["max_new"] or env.first.max_new
    check_prompts(env, tok, context, max_new)
    settings = dataclasses.asdict(run.build(sft.Config, v))
    wanted = {}
    if not v["senior"] and v["method"] != "sft":
        wanted["senior"] = (small_config(tok.n_vocab, context, v["layers"], v["width"]), v["skill"], v["target"])
    if v["junior"] == "auto":
        wanted["junior"] = (small_config(tok.n_vocab, context, v["junior_layers"], v["junior_width"]), v["junior_skill"], -1.0)
    recipes = [sft.Recipe(v["env"], options, tok.state(), dataclasses.asdict(cfg), {**settings, "skill": skill, "target": target},
                          v["seed"]) for cfg, skill, target in wanted.values()]
    if rank == 0:
        paths.update(zip(wanted, sft.warm_start(recipes, v["cache"], device, torch.get_num_threads())))
    if dist.is_initialized():
        shared = [paths]
        dist.broadcast_object_list(shared)
        paths = shared[0]
    models = {}
    for role, path in paths.items():
        if not path:
            continue
        models[role], its, state = sft.load_model(path, device)
        if its.state() != tok.state():
            raise run.Stop(f"{path} has another vocabulary; senior and junior must share one")
        if models[role].cfg.context < env.first.max_new:
            raise run.Stop(f"{path} has a context of {models[role].cfg.context} tokens, too short for {v['env']}")
        if rank == 0 and "target" in state:
            short = "" if state["accuracy"] >= state["target"] else f": it did NOT reach {state['target']}, expect little"
            print(f"{role}: {models[role].n_params():,} parameters, solo {state['solo']:.2f} after {state['steps']} steps{short}")
    if "senior" not in models:
        torch.manual_seed(v["seed"])
        models["senior"] = GPT(small_config(tok.n_vocab, context, v["layers"], v["width"])).to(device)
    if "junior" in models and models["junior"].cfg.context != models["senior"].cfg.context:
        raise run.Stop("senior and junior have different contexts; make them with the same --context")
    for p in (models["junior"].parameters() if "junior" in models else ()):
        p.requires_grad_(False)
    return models["senior"], models.get("junior"), tok, paths


# ---- one update of each method ----

def train_tasks(env, step, n, seed):
    """The training tasks of an update: the same for every arm of a seed; a finite set is gone through in a shuffled order."""
    first, total = step * n, env.first.tasks("train")
    if total is None:
        return [seed * 10**7 + first + i for i in range(n)]
    order = {e: torch.randperm(total, generator=torch.Generator().manual_seed(seed * 1000 + e)).tolist()
             for e in {first // total, (first + n - 1) // total}}
    return [order[(first + i) // total][(first + i) % total] for i in range(n)]


def rl_step(step, model, reference, optimizer, sampler, env, tok, cfg, team, v, rank, world):
    """Rollout, scoring, update. -> statistics, times in seconds"""
    clock = [time.perf_counter()]
    tasks = train_tasks(env, step, cfg.prompts, v["seed"])[rank::world]
    names = [(v["seed"], "train", step, task, sample) for task in tasks for sample in range(cfg.group)]
    rows, episodes = grpo.rollout(sampler, env, tok, tasks, "train", names, cfg)
    clock.append(time.perf_counter())
    rewards, valid = grpo.episode_rewards(episodes, cfg.group, rows.tokens.device)
    advantages = grpo.group_advantages(rewards, valid=valid)  # [N, G]
    mask = rows.mask.float() * valid.flatten()[:, None]
    if v["method"] == "tandem":
        mask = tandem.loss_mask(rows, team.junior_weight) * valid.flatten()[:, None]
    reference_logp = grpo.score(reference, rows, cfg) if cfg.kl else None
    clock.append(time.perf_counter())
    all_stats = []
    for part in torch.arange(len(tasks)).chunk(cfg.minibatches):
        index = torch.isin(rows.group.cpu(), part).nonzero()[:, 0].to(mask.device)
        all_stats.append(grpo.update(model, optimizer, rows[index], mask[index], advantages.flatten()[index], cfg,
                                     None if reference_logp is None else reference_logp[index]))
    clock.append(time.perf_counter())
    stats = {k: sum(s.get(k, 0.0) for s in all_stats) / len(all_stats) for k in set().union(*all_stats)}
    stats["mismatch_max"] = all_stats[0].get("mismatch_max", 0.0)  # before the first update of the batch: rounding only
    played = grpo.summary(episodes, cfg.group)
    stats.update({k: x for k, x in played.items() if not k.startswith("pass@")}, success=played["pass@1"],
                 zero_variance=float((advantages == 0).all(1).float().mean()), tokens=int(rows.mask.sum()))
    if v["method"] == "tandem":
        shared = tandem.author_stats(sampler, rows)
        if tandem.share_is_off(shared, team.p) and team.schedule != "alternate":
            tqdm.write(f"warning: the senior won {shared['senior_draws']:.2f} of {shared['redraws']} draws at p = {team.p}", file=sys.stderr)
        stats.update(shared)
    times = dict(zip(("rollout", "scoring", "update"), (b - a for a, b in zip(clock, clock[1:]))))
    return stats, times


def sft_step(step, model, optimizer, env, tok, settings, cfg, v):
    began = time.perf_counter()
    stats = sft.step(model, optimizer, env, tok, step, v["seed"], settings, cfg)
    return stats, {"update": time.perf_counter() - began}


# ---- the run ----

def train(argv):
    v, resumed = read_options(argv)
    if v["method"] == "tandem" and not v["junior"]:
        v["junior"] = "auto"
    torch.set_num_threads(v["threads"] or min(4, os.cpu_count() or 1))
    v["threads"] = torch.get_num_threads()
    device = run.choose_device(v["device"])
    rank, world = run.start_ranks(device)
    cfg, team, settings = (run.build(c, v) for c in (grpo.Config, tandem.Config, sft.Config))
    if cfg.prompts // cfg.minibatches % world:
        raise run.Stop(f"{world} ranks do not divide the {cfg.prompts // cfg.minibatches} prompts of an update")
    env, options = open_env(v)
    v["test_problems"] = min(v["test_problems"] or env.first.problems, env.first.tasks(v["final_split"]) or math.inf)
    if not resumed and rank == 0:
        run.open_folder(v["out"], v)
    began = time.time()
    if rank == 0:
        announce(v, env)
    senior, junior, tok, paths = open_models(v, env, options, device, rank)
    warm = {k: x.clone() for k, x in senior.state_dict().items()}
    model, rows = senior, cfg.prompts * cfg.group // world
    reference = junior
    if cfg.kl and cfg.kl_to == "warm":
        reference = GPT(senior.cfg).to(device)
        reference.load_state_dict(warm)
    optimizer = sft.make_optimizer(model, settings) if v["method"] == "sft" else torch.optim.AdamW(
        model.parameters(), lr=cfg.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=device.startswith("cuda"))
    compiled = run.choose_compile(v["compile"], device, cfg.steps * env.first.max_turns * (cfg.max_new or env.first.max_new))
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32  # of the sampler; the trained weights are fp32
    solo = Sampler(model, rows, compile=compiled, dtype=dtype)
    both = tandem.TandemSampler(model, junior, rows, compile=compiled, dtype=dtype) if junior is not None else None
    first, skipped = 0, 0
    state = run.load_last(v["out"]) if resumed else None
    if state is not None:
        if state["threads"] != v["threads"] or state["compiled"] != compiled:
            raise run.Stop(f"this run had --threads {state['threads']} and compile {'on' if state['compiled'] else 'off'}; a resumed run keeps them")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, warm, skipped = state["step"], state["warm"], state["skipped"]
    if resumed and rank == 0:
        run.cut_log(v["out"], first)
        print(f"resumed at step {first} of {cfg.steps}")

    def checkpoint(step):
        if rank == 0:
            run.save(os.path.join(v["out"], "ckpt.pt"), {
                "model": model.state_dict(), "model_config": dataclasses.asdict(model.cfg), "tokenizer": tok.state(), "warm": warm,
                "optimizer": optimizer.state_dict(), "step": step, "skipped": skipped, "threads": v["threads"], "compiled": compiled,
                "junior": paths["junior"], "options": v}, keep_previous=True)

    came, bad, accuracy = run.catch_signals(), 0, math.nan
    with tqdm(total=cfg.steps, initial=first, desc=v["method"], disable=rank > 0, file=sys.stderr, mininterval=1) as bar:
        for step in range(first, cfg.steps):
            if v["method"] == "tandem":
                both.set_schedule(team.schedule, tok, env.first.mark, team.max_gap or env.first.max_gap, team.p)
            if v["method"] == "sft":
                stats, times = sft_step(step, model, optimizer, env, tok, settings, cfg, v)
            else:
                stats, times = rl_step(step, model, reference, optimizer, both if v["method"] == "tandem" else solo, env, tok, cfg,
                                       team, v, rank, world)
            bad = bad + 1 if stats["skipped"] else 0
            skipped += stats["skipped"]
            if bad == 10:
                raise run.Stop(f"ten updates in a row were not finite; the last good state is {v['out']}/ckpt.pt: lower --lr and start anew from it "
                               "with --senior")
            now = step + 1
            if rank == 0:
                line = {"step": now, "wall": time.time() - began, **{f"time_{k}": x for k, x in times.items()}, **stats, "skipped": skipped}
                if "rollout" in times:
                    line["tokens_per_s"] = stats["tokens"] / times["rollout"]
                if now % v["eval_every"] == 0:
                    found, batches, episodes = grpo.evaluate(solo, env, tok, cfg, "valid", v["eval_problems"], 1, v["seed"])
                    accuracy = line["solo"] = found["pass@1"]
                    line.update({f"solo_{k}": found[k] for k in ("private", "malformed", "truncated", "turns") if k in found})
                    write_samples(v["out"], now, env, episodes)
                run.log(v["out"], line)
                bar.set_postfix(reward=f"{stats.get('reward', math.nan):.2f}", solo=f"{accuracy:.2f}",
                                tok_s=f"{line.get('tokens_per_s', 0):,.0f}")
            bar.update()
            if now % v["save_every"] == 0 or now == cfg.steps or came:
                checkpoint(now)
            if came and now < cfg.steps:
                bar.close()
                print(f"stopped at step {now} of {cfg.steps}, saved. Go on with:\n  python train.py --resume --out {shlex.quote(v['out'])}")
                return 128 + came[0]
    if rank == 0:
        final_table(v, cfg, team, env, tok, model, warm, solo, both, time.time() - began)
    return 0


def announce(v, env):
    """What will happen, and how long it takes."""
    print(f"{v['method']} on {v['env']}, {v['steps']} updates, {v['threads']} threads, output in {v['out']}")
    if v["env"] == "arithmetic" and v["device"] in ("auto", "cpu"):
        print("With the default settings this takes about 4 minutes on two CPU cores, 1 of them for a warm start that is made once.")


def write_samples(out, step, env, episodes):
    with open(os.path.join(out, "samples.txt"), "a", encoding="utf-8") as file:
        for e in episodes[:3]:
            file.write(f"--- step {step}, valid task {e['task']}, reward {e['reward']:g}\n{env.first.reset(e['task'], 'valid')}\n{e['text']}\n")


def final_table(v, cfg, team, env, tok, model, warm, solo, both, seconds):
    """Every metric before and after, on problems nobody has looked at. Also written to result.json."""
    trained, columns = {k: x.clone() for k, x in model.state_dict().items()}, {}
    for name, weights in (("before", warm), ("after", trained)):
        model.load_state_dict(weights)
        columns[name] = tandem.evaluate(solo, both, env, tok, cfg, team, v["final_split"], v["test_problems"], v["test_chains"], v["seed"])
    n = v["test_problems"]
    run.write(os.path.join(v["out"], "result.json"), json.dumps({"n": n, "chains": v["test_chains"], "seconds": seconds, **columns}, indent=1))
    print(f"\n{n} {v['final_split']} problems x {v['test_chains']} chains (handoff: {max(1, n // 2)} problems), temperature {cfg.temperature:g}, 95% intervals")
    print(f"{'':24}{'before':>18}{'after':>18}")
    for name in columns["after"]:
        print(f"{name:24}" + "".join(f"{cell(columns[c].get(name), n if 'hand' not in name else n // 2):>18}" for c in columns))
    print(f"{seconds:.0f} s in all but this table\n\nnext:\n  python sample.py {v['out']}\n  python train.py --method "
          f"{'grpo --junior auto' if v['method'] == 'tandem' else 'tandem'} --env {v['env']} --seed {v['seed']}"
          + (f" --data {shlex.quote(v['data'])}" if v["data"] else ""))


def cell(pair, n):
    """(mean, standard error over n problems) -> "0.912 +- 0.013"; at 0 or 1, where the error is 0, the rule of three."""
    if pair is None:
        return "-"
    mean, error = pair
    half = 1.96 * error or (3 / n if mean in (0.0, 1.0) else 0.0)
    return f"{mean:.3f} +- {half:.3f}" if half else f"{mean:.3f}"


def main(argv=None):
    try:
        return train(argv)
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    except OSError as error:
        print(f"error: {error}; what was saved before is untouched, --resume goes on from it", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; whatever was saved is kept. The same command with --resume goes on", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
