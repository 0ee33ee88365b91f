"""What train.py needs to run `--method worldmodel`: options that do not go together, the warm start, an update, a look, the table.

The algorithm is in worldmodel.py, its data in trajectories.py, its metrics in imagine.py; policy.py is the same for the other methods.
"""
import dataclasses
import hashlib
import json
import math
import os
import random
import shlex
import sys
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

import envs
import grpo
import imagine
import mediation
import recorded
import run
import sft
import tokenizer
import trajectories
import worldmodel
from model import GPT, small_config


# ---- set-up ----

def check(v):
    """Options that do not go together, in one line each."""
    for name, choices in {"formulation": worldmodel.FORMULATIONS, "scale": worldmodel.SCALES}.items():
        if v[name] not in choices:
            raise run.Stop(f"unknown {name} {v[name]!r}; one of: {' '.join(choices)}")
    unknown = [term for term in v["terms"].split(",") if term and term not in worldmodel.TERMS]
    if unknown:
        raise run.Stop(f"unknown term {unknown[0]!r} in --terms; a list with commas of: {' '.join(worldmodel.TERMS)}")
    for name in "ABC":
        if v[name] < 2 and not v["flat"] and v["formulation"] == "strict":
            raise run.Stop(f"--{name} is at least 2: a sample is judged against its siblings (--flat needs none)")
    if v["flat"] and (v["formulation"] != "strict" or v["chain"] > 1):
        raise run.Stop("--flat is plain GRPO on the strict pipeline, with one transition; leave out --chain")
    if v["chain"] > 1 and v["formulation"] != "strict":
        raise run.Stop("--chain is for --formulation strict: the others see their own past instead")
    if v["minibatches"] > 1 or v["kl"] or v["temperature"] != 1:
        raise run.Stop("worldmodel takes one update a batch, no KL term and temperature 1; leave out --minibatches, --kl, --temperature")
    if not v["grad_clip"] > 0:
        raise run.Stop("--grad-clip is above 0")
    if v["group"] < 2 and v["formulation"] == "leaky":
        raise run.Stop("--group is at least 2: a response is judged against its siblings")
    if "abl" in v["terms"].split(",") and v["formulation"] != "strict":
        raise run.Stop("--terms abl is for --formulation strict: it decodes from states without a history")
    if v["window"] > 40:
        raise run.Stop("--window is at most 40: no trajectory here is longer; 0 shows all that fits")
    if v["width"] % 32 or v["width"] < 32:
        raise run.Stop("--width is a multiple of 32")


def open_envs(v):
    """-> {level: environment}, and its module, which is the language of facts."""
    try:
        text = {"text": v["text"]} if v["text"] else {}
        found = {int(level): envs.make(v["env"], data=v["data"], level=int(level), **text) for level in v["levels"].split(",")}
    except TypeError:
        raise run.Stop(f"{v['env']} is no text world with facts; use --env house, textworld or scienceworld") from None
    except ValueError as error:
        raise run.Stop(f"--env {v['env']} --levels {v['levels']}: {error}") from None
    first = next(iter(found.values()))
    if v["plan"] and not hasattr(first, "plausible"):
        raise run.Stop(f"--plan is for --env house: {v['env']} does not tell which commands an imagined state allows")
    for level, env in found.items():
        if hasattr(env, "record_turns"):
            os.makedirs(v["cache"], exist_ok=True)
            with sft.locked(os.path.join(v["cache"], f"games-{v['env']}-{level}.lock")):
                env.records = recorded.record(env, v["env"], level, v["cache"])
    return found, sys.modules[type(first).__module__]


def open_tokenizer(v, found, language):
    """The world's words are tokens; so are the roles."""
    if v["tokenizer"] != "trained":
        try:
            return tokenizer.load(v["tokenizer"], mediation.ROLES)
        except ValueError as error:
            raise run.Stop(str(error)) from None
    moments = [m for e in trajectories.examples(found, range(200), "train", "words") for m in e.past + e.future]
    texts = [text for m in moments for text in (m.action, m.text, worldmodel.state_text(sorted(m.facts), language))]
    return tokenizer.of_world(next(iter(found.values())), texts, mediation.ROLES)


# ---- warm start: the format of all five prompts, on partial and noisy states ----

def lesson(w, example, others, rng):
    """One demonstration -> (prompt ids, answer ids). What it asks for is drawn from the five roles."""
    role, after = rng.choice(mediation.ROLES), example.future[0]
    memory = w.cfg.window or len(example.past)
    if role in (mediation.TRANSITION, mediation.DECODE):  # a state may know more than the window shows
        memory = rng.randint(min(memory, len(example.past)), len(example.past))
    state, next_state = (as_many_as_fit(w, facts, rng) for facts in trajectories.demonstrated_states(example, others, rng, memory))
    observation, end = w.tok.encode(after.text), [w.tok.end_id]
    return {mediation.OBSERVE: lambda: (mediation.observe_prompt(w, example.past, after.action), observation + end),
            mediation.LEAKY: lambda: (mediation.leaky_prompt(w, example.past, after.action), state + w.role(mediation.TRANSITION)
                                       + next_state + w.role(mediation.DECODE) + observation + end),
            mediation.ENCODE: lambda: (mediation.encode_prompt(w, example.past), state + end),
            mediation.TRANSITION: lambda: (mediation.transition_prompt(w, state, after.action), next_state + end),
            mediation.DECODE: lambda: (mediation.decode_prompt(w, next_state, after.action), observation + end)}[role]()


def as_many_as_fit(w, facts, rng):
    """The ids of a state of these facts; of too many, some at random are left out."""
    kept = trajectories.ordered(facts, w.language.PREDICATES)
    while len(ids := w.tok.encode(worldmodel.state_text(kept, w.language))) >= w.max_state and kept:
        kept.pop(rng.randrange(len(kept)))
    return ids


def lessons(w, found, step, rows, seed):
    """The demonstrations of one step, each from a game of its own."""
    tasks = [seed * 10**7 + step * rows + i for i in range(rows)]
    batch, rng = trajectories.examples(found, tasks, "train", f"warm {seed}"), random.Random(f"warm {seed} {step}")
    others = sorted(f for e in batch[:8] for f in e.past[-1].facts)
    others = others if len(others) <= 400 else sorted(random.Random(step).sample(others, 400))  # a real world has thousands
    made = [lesson(w, example, others, rng) for example in batch]
    fitting = [m for m in made if sum(map(len, m)) <= w.model.cfg.context]  # with a small --max-state not all do
    if not fitting:
        raise run.Stop(f"no demonstration fits a context of {w.model.cfg.context} tokens; raise --context")
    return fitting


def train_warm(w, found, cfg, seed, base):
    """Supervised training of all five roles for cfg.warm_steps steps. Where the world speaks prose the prompts are learned too. -> loss at the end"""
    torch.manual_seed(seed)
    optimizer, device = sft.make_optimizer(w.model, cfg), w.model.embed.weight.device
    prompts = any(getattr(env, "prose", False) for env in found.values())
    with tqdm(total=cfg.warm_steps, desc="warm start: world model", file=sys.stderr, mininterval=1) as bar:
        for step in range(cfg.warm_steps):
            for group in optimizer.param_groups:  # up, then down to a tenth
                group["lr"] = cfg.sft_lr * min(1, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * step / cfg.warm_steps))
            stats = sft.update(w.model, optimizer, *worldmodel.padded(lessons(w, found, step, cfg.sft_rows, seed), device, prompts), base)
            if stats["skipped"]:
                raise run.Stop(f"the warm start's loss is not finite at step {step + 1}; lower --sft-lr")
            bar.update()
            bar.set_postfix(loss=f"{stats['loss']:.3f}")
    return stats["loss"]


def open_world(v, found, language, device):
    """-> World, its warm start made or loaded, and the file it came from."""
    first, cfg, warm_cfg = next(iter(found.values())), run.build(worldmodel.Config, v), run.build(sft.Config, v)
    warm_cfg.warm_steps = warm_cfg.warm_steps or first.warm_steps
    if v["senior"]:
        model, tok, _ = sft.load_model(v["senior"], device)
        if tuple(tok.roles) != mediation.ROLES:
            raise run.Stop(f"{v['senior']} is no world model: its vocabulary lacks the roles")
    else:
        tok = open_tokenizer(v, found, language)
    size = {"max_state": cfg.max_state or first.max_state, "max_observation": first.max_observation}
    needed = (cfg.window or 16) * (first.max_observation + 5) + 2 * size["max_state"] + first.max_observation + 24
    if not v["senior"]:
        torch.manual_seed(v["seed"])
        model = GPT(small_config(tok.n_vocab, v["context"] or -(-needed // 64) * 64, v["layers"], v["width"])).to(device)
    if model.cfg.context < needed - (cfg.window or 16) * first.max_observation:
        raise run.Stop(f"a context of {model.cfg.context} tokens does not hold two states and an observation; raise --context to {needed}")
    decoded = 0 if cfg.formulation == "stateless" else v["steps"] * (2 * size["max_state"] + size["max_observation"])
    sampling = {"compile": run.choose_compile(v["compile"], device, decoded),
                "dtype": torch.bfloat16 if v["bf16"] or device.startswith("cuda") else torch.float32}
    w = mediation.World(model, tok, cfg, language, **size, sampling=sampling)
    if v["senior"]:
        return w, v["senior"]
    recipe = [v["env"], v["data"], v["text"], v["levels"], cfg.window, size, v["seed"], dataclasses.asdict(warm_cfg), dataclasses.asdict(model.cfg),
              tok.state(), lessons(w, found, 0, 32, v["seed"])]
    path = os.path.join(v["cache"], f"world-{v['env']}-{v['seed']}-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:10]}.pt")
    os.makedirs(v["cache"], exist_ok=True)
    with sft.locked(path + ".lock"):
        if not os.path.exists(path):
            loss = train_warm(w, found, warm_cfg, v["seed"], grpo.Config())
            run.save(path, {"model": model.state_dict(), "model_config": dataclasses.asdict(model.cfg), "tokenizer": tok.state(), "loss": loss})
    try:
        w.model.load_state_dict(sft.load_model(path)[0].state_dict())
    except run.Stop as stop:
        raise run.Stop(f"{stop}; delete it, and the same command makes it again") from None
    return w, path


@dataclass
class Run:
    """What the loop and the functions below work with."""
    v: dict  # every option
    cfg: grpo.Config
    found: dict  # level -> environment
    w: mediation.World
    warm: dict  # weights at the start
    optimizer: torch.optim.Optimizer
    paths: dict
    device: str
    compiled: bool
    began: float  # when, in seconds since the epoch, less what earlier parts of a resumed run took
    rank: int = 0
    world: int = 1
    step: int = 0
    skipped: int = 0
    seen: dict | None = None  # the last look
    told: bool = False  # that turns were dropped

    @property
    def model(self):
        return self.w.model

    @property
    def tok(self):
        return self.w.tok


def prepare(v, device, rank, world):
    """Options -> Run, warm start made."""
    began = time.time()
    if world > 1:
        raise run.Stop("worldmodel runs as one process; start it with python, not torchrun")
    found, language = open_envs(v)
    if not v["resume"]:
        run.claim_folder(v["out"])
    print(f"{v['method']} ({v['formulation']}) on {v['env']}, {v['steps']} updates, {torch.get_num_threads()} threads, output in {v['out']}")
    w, path = open_world(v, found, language, device)
    cfg, w.model.recompute = run.build(grpo.Config, v), v["recompute"]
    optimizer = torch.optim.AdamW(w.model.parameters(), lr=cfg.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=device.startswith("cuda"))
    print(f"world model: {w.model.n_params():,} parameters, warm start {path}")
    return Run(v, cfg, found, w, {k: x.clone() for k, x in w.model.state_dict().items()}, optimizer, {}, device, w.sampling["compile"], began)


def restored(r):
    pass  # nothing else depends on the weights


# ---- one update ----

def update(r):
    """Fresh examples, one update of the formulation. -> statistics"""
    began, cfg, seed = time.perf_counter(), r.w.cfg, r.v["seed"]
    n = r.v["sft_rows"] if cfg.formulation == "stateless" else r.cfg.prompts  # supervised examples cost little
    tasks = [seed * 10**7 + 5 * 10**6 + r.step * n + i for i in range(n)]  # the first half of the seed's numbers is the warm start's
    batch = trajectories.examples(r.found, tasks, "train", f"update {seed}", future=cfg.chain)
    ablate = round(cfg.abl_share * n) if "abl" in cfg.terms and r.step >= cfg.abl_from * r.v["steps"] else 0
    r.w.dropped = 0
    stats = worldmodel.update(r.w, r.optimizer, batch, [(seed, "train", r.step, task) for task in tasks], r.cfg, ablate)
    seconds = time.perf_counter() - began
    if r.w.dropped and not r.told:
        r.told = True
        tqdm.write(f"a history is longer than the context: {r.w.dropped} of its oldest turns were dropped (dropped_turns in metrics.jsonl)",
                   file=sys.stderr)
    return {**stats, "dropped_turns": r.w.dropped, "time_update": seconds, "tokens_per_s": stats["sampled_tokens"] / seconds}


def bar(r, stats):
    last = {k: f"{x:.2f}" for k, x in (r.seen or {}).items() if "H=" in k}
    sampled = {"reward": f"{stats['reward']:.2f}", "tok_s": f"{stats['tokens_per_s']:,.0f}"} if "reward" in stats else {}
    return {**sampled, **last}


# ---- what is shown ----

def held_out(r, split, n, future):
    """Every seed has its own."""
    return trajectories.examples(r.found, own_tasks(r, n), split, f"{split} examples", future=future, past=(4, 12))


def own_tasks(r, n):
    return range(1000 * r.v["seed"], 1000 * r.v["seed"] + n)


def look(r):
    """Greedy predictions on valid trajectories; the first of them into samples.txt. -> what to add to the line of metrics"""
    examples = held_out(r, "valid", r.v["eval_problems"], 9)
    found = {k: x[0] for k, x in imagine.measure(r.w, examples, 9).items()}
    r.seen = {k: found[k] for k in ("obs H=1", "obs H=9", "state s' H=1") if k in found}
    with open(os.path.join(r.v["out"], "samples.txt"), "a", encoding="utf-8") as file:
        file.write(f"--- step {r.step}, valid example 0\n{shown(r.w, examples[0])}\n")
    return found


def shown(w, example):
    """One prediction in words: history, state, next state, predicted and true observation."""
    step, after = imagine.imagine(w, imagine.begin(w, [example.past]), [example.future[0].action])[0], example.future[0]
    lines = [f"> {m.action}\n  {m.text}" if i else f"  {m.text}" for i, m in enumerate(example.past[-w.cfg.window:])]
    text = [worldmodel.state_text(s, w.language) if s is not None else None for s in (step.state, step.next_state)]
    states = [] if w.cfg.formulation == "stateless" else [f"state       {text[0] or '(malformed)'}", f"next state  {text[1] or '(malformed)'}"]
    return "\n".join([*lines, f"> {after.action}", *states, f"predicted   {step.text}", f"true        {after.text}"])


def at(w, formulation, temperature=0.0):
    """The same model, asked in another way."""
    return dataclasses.replace(w, cfg=dataclasses.replace(w.cfg, formulation=formulation), temperature=temperature)


def final_table(r):
    """Before and after, greedy and sampled, on trajectories nobody has looked at. Also written to result.json."""
    v, seconds, columns, own = r.v, time.time() - r.began, {}, r.w.cfg.formulation
    trained = {k: x.clone() for k, x in r.model.state_dict().items()}
    longest = getattr(r.found[min(r.found)], "horizon", 25)  # steps imagined
    examples = held_out(r, v["final_split"], v["test_problems"] or 300, longest)
    floor = imagine.action_alone(held_out(r, "train", 2000, 1))
    for when, weights in (("warm", r.warm), ("trained", trained)):
        r.model.load_state_dict(weights)
        for other in [f for f in worldmodel.FORMULATIONS if f != own and when == "warm"]:
            columns[f"{other}, warm"] = imagine.measure(at(r.w, other), examples, 1)
        for name, temperature in ((f"{own}, {when}", 0.0), (f"{own}, {when}, T=1", 1.0)):
            w = at(r.w, own, temperature)
            columns[name] = imagine.measure(w, examples, 1 if temperature else longest)
            if temperature == 0:
                columns[name].update(imagine.swap(w, examples, floor))
                if own != "stateless":
                    leaks = [imagine.leak(w, a, b) for a, b in zip(examples[:8], examples[1:9])]
                    columns[name]["history leak"] = (max(leaks, default=math.nan), None)
    planned = plan_table(r, v["plan"]) if v["plan"] else {}
    run.write(os.path.join(v["out"], "result.json"), json.dumps({"n": len(examples), "seconds": seconds, "update_seconds": update_seconds(v["out"]),
                                                                 "columns": columns, "plan": planned}, indent=1))
    print(f"\n{len(examples)} {v['final_split']} trajectories, window {r.w.cfg.window or 'unbounded'}, 95% intervals; greedy, or T=1 where it says so")
    run.print_table(dict(sorted(columns.items(), key=lambda c: len(c[1]))), len(examples))
    for player, result in planned.items():
        print(f"plays as {player:10} success {run.cell((result['success'], result['error']), v['plan'])}, {result['turns']:.1f} turns")
    other = "leaky" if own == "strict" else "strict"
    print(f"\n{shown(r.w, examples[0])}\n\n{seconds:.0f} s to the end of training, {time.time() - r.began:.0f} s with this table\n\nnext:\n"
          f"  python sample.py {shlex.quote(v['out'])}\n"
          f"  python train.py --method worldmodel --formulation {other} --seed {v['seed']} --out out/{other}-{v['env']}-{v['seed']}")


def update_seconds(out):
    """What the updates took, without warm start and looks."""
    with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
        return sum(json.loads(line)["time_update"] for line in file)


def plan_table(r, n):
    """Success of players on held-out houses. -> {player: {"success", "error", "turns"}}"""
    env = r.found[min(r.found)]
    games = (env, own_tasks(r, n), r.v["final_split"], r.v["seed"])
    return {"random": imagine.plan("random", *games), "expert": imagine.plan("expert", *games), "simulator": imagine.plan("simulator", *games),
            r.w.cfg.formulation: imagine.plan("model", *games, w=r.w)}
