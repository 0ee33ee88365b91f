"""What train.py needs to run `--method atod`, `--method opd`, and grpo beside them: teacher and student made from nothing, a look, the table.

The algorithm is in atod.py, the rollout in grpo.py; an update is policy.py's, with the teacher in it. A teacher is taught by demonstrations
and then by reward, and stopped short of perfect. A student has learned the skill too, and then bad habits (a careless player's
demonstrations): it could do better, and mostly does not, so there is something to distil and something to reinforce.
"""
import dataclasses
import hashlib
import json
import os
import shlex
import sys
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

import atod
import grpo
import policy
import run
import sft
from sampler import Sampler


@dataclass
class Config:
    teacher: str = ""  # a checkpoint, or auto to make one (opd and atod do); grpo then starts from the same student and has the same table
    student: str = ""  # what is trained: a checkpoint; empty: it is made, of --layers and --width, and cached
    teacher_layers: int = 2  # of a teacher made here
    teacher_width: int = 96  # of a teacher made here, a multiple of 32
    teacher_skill: float = 0.55  # success at which the teacher's demonstrations end
    teacher_target: float = 0.65  # and success at which its reinforcement ends: short of perfect
    student_skill: float = 0.65  # success at which the student's demonstrations end
    student_habits: int = 80  # steps on a careless player's demonstrations that follow


LIMIT = 200  # updates after which a teacher's reinforcement gives up
HABIT_LR = 3e-4  # AdamW's learning rate for bad habits


def check(v):
    """Options that do not go together, in one line each."""
    policy.check(v)
    for name, choices in {"mix": atod.MIXES, "weights": atod.WEIGHTS}.items():
        if v[name] not in choices:
            raise run.Stop(f"unknown {name} {v[name]!r}; one of: {' '.join(choices)}")
    if not 0 <= v["anneal"] <= 1:
        raise run.Stop("--anneal is a share of the steps, 0 to 1")
    if v["kl"]:
        raise run.Stop(f"{v['method']} has no KL term; leave out --kl")
    if v["teacher_width"] % 32 or v["teacher_width"] < 32:
        raise run.Stop("--teacher-width is a multiple of 32")
    if v["junior"] or v["senior"]:
        raise run.Stop(f"{v['method']} has a --student and a --teacher; leave out --senior and --junior")


# ---- teacher and student ----

def open_models(v, env, options, device, rank):
    """-> student, teacher, tokenizer, the checkpoint files they came from. Makes what is missing, the demonstrations' part side by side."""
    settings, given, wanted = run.build(sft.Config, v), {}, {}
    for role, layers, width in (("student", v["layers"], v["width"]), ("teacher", v["teacher_layers"], v["teacher_width"])):
        if v[role] not in ("", "auto"):
            given[role] = v[role]
        else:
            wanted[role] = layers, width, dataclasses.replace(settings, skill="expert", target=v[f"{role}_skill"])
    if wanted and "expert" not in env.first.targets:
        raise run.Stop(f"{v['env']} has no expert to learn from; give --teacher and --student checkpoints")
    tok, paths = policy.make_models(v, env, options, device, rank, given, wanted)
    if rank == 0:
        paths.update({role: finished(role, paths[role], v, env, device) for role in wanted})
    paths = policy.from_first(paths)
    models = policy.load_models(paths, device, rank)
    for p in models["teacher"].parameters():
        p.requires_grad_(False)
    return models["student"], models["teacher"], tok, paths


def finished(role, start, v, env, device):
    """What comes behind the demonstrations, made once: a teacher's reward, a student's bad habits. -> the checkpoint's path"""
    finish, settings = {"teacher": (reinforce, [v["teacher_target"], v["max_new"], dataclasses.asdict(grpo.Config())]),
                        "student": (spoil, [v["student_habits"], HABIT_LR, dataclasses.asdict(sft.Config())])}[role]  # not the options of the run
    demos = repr(env.demos(range(50), "train", 0, "careless")) if role == "student" else ""  # another player is another student
    name = hashlib.sha256(json.dumps([os.path.basename(start), settings, demos]).encode()).hexdigest()[:10]
    path = os.path.join(v["cache"], f"{role}-{v['env']}-{v['seed']}-{name}.pt")
    if not os.path.exists(path):
        sft.apart(finish, start, path, v, device, torch.get_num_threads())
    return path


def reinforce(start, path, v, device, threads):
    """A teacher: GRPO until v["teacher_target"]."""
    def update(model, optimizer, sampler, env, tok, cfg, step):
        tasks = grpo.train_tasks(env, 100_000 + step, cfg.prompts, v["seed"])  # not the student's
        names = [(v["seed"], "teacher", step, task, sample) for task in tasks for sample in range(cfg.group)]
        rows, episodes = grpo.rollout(sampler, env, tok, tasks, "train", names, cfg)
        rewards, valid = grpo.episode_rewards(episodes, cfg.group, device)
        advantage = grpo.group_advantages(rewards, valid=valid).flatten()[rows.episode]
        grpo.update(model, optimizer, rows, rows.mask.float(), advantage, cfg)
    train_on(start, path, v, device, threads, "teacher: reward", update, grpo.Config().lr, LIMIT, v["teacher_target"])


def spoil(start, path, v, device, threads):
    """A student: v["student_habits"] steps on a careless player's demonstrations, at a small learning rate, for the skill is to stay."""
    def update(model, optimizer, sampler, env, tok, cfg, step):
        tokens, mask = sft.demonstration_batch(env, tok, 100_000 + step, sft.Config.sft_rows, v["seed"], "careless", model.cfg.context, device)
        sft.update(model, optimizer, tokens, mask, cfg)
    train_on(start, path, v, device, threads, "student: bad habits", update, HABIT_LR, v["student_habits"])


def train_on(start, path, v, device, threads, what, update, lr, limit, target=None):
    """Go on with a checkpoint for `limit` updates, or until the target, looked at every 5 updates; save, unless another process did so meanwhile."""
    torch.set_num_threads(threads)
    with sft.locked(path + ".lock"):
        if os.path.exists(path):
            return
        (env, _), (model, tok, state), cfg = policy.open_env(v), sft.load_model(start, device), grpo.Config(max_new=v["max_new"])
        optimizer, sampler = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0), Sampler(model, 128)
        with tqdm(total=limit, desc=what, file=sys.stderr, mininterval=1) as bar:
            for step in range(limit + 1):
                if step == limit or (target is not None and step % 5 == 0):
                    success, _ = sft.graded(sampler, env, tok, cfg, v["seed"])
                    bar.set_postfix(success=f"{success:.2f}", target=target)
                    if step == limit or success >= target:
                        break
                update(model, optimizer, sampler, env, tok, cfg, step)
                bar.update()
        run.save(path, {**state, "model": {k: x.cpu() for k, x in model.state_dict().items()}, "solo": success, "target": target,
                        "reached": target is None or success >= target, "steps": state["steps"] + step})


def prepare(v, device, rank, world):
    """Options -> policy.Run, teacher and student made."""
    v["teacher"] = v["teacher"] or "auto"
    if v["method"] != "atod":  # what the method means; atod's own arms say it themselves
        v["mix"], v["weights"] = v["method"], "one"
    return policy.prepare(v, device, rank, world, open_models)


restored, update = policy.restored, policy.rl_step


# ---- what is shown ----

def bar(r, stats):
    return {"success": f"{stats['success']:.2f}", "valid": f"{r.accuracy:.2f}", "kappa": f"{stats['kappa']:.2f}", "steps_s": f"{stats['agent_steps_per_s']:,.0f}"}


def look(r):
    """Sampled episodes of the fixed valid tasks, three of them into samples.txt. -> what to add to the line of metrics"""
    found = atod.evaluate(r.solo, r.env, r.tok, r.cfg, "valid", r.v["eval_problems"], r.v["seed"], r.cfg.temperature)
    r.accuracy = found["success"][0]
    _, batches, episodes = grpo.evaluate(r.solo, r.env, r.tok, r.cfg, "valid", 3, 1, r.v["seed"])
    with open(os.path.join(r.v["out"], "samples.txt"), "a", encoding="utf-8") as file:
        for e, tokens in zip(episodes, batches[0].tokens.tolist()):
            file.write(f"--- step {r.step}, valid task {e['task']}, reward {e['reward']:g}\n{r.tok.decode(tokens).rstrip(chr(0))}\n")
    return {f"valid {name}": mean for name, (mean, _) in found.items()}


def turns_of(rows, index, tok):
    """The turns of an episode as text, from its rows in order: [(what the environment said before, what the model said, its turn)]"""
    out, heard = [], []
    mine = (rows.episode == index).nonzero()[:, 0].tolist()
    for row in mine:
        said, heard, last = [], [], -1
        for token, turn in zip(rows.tokens[row].tolist(), rows.turn_of_token[row].tolist()):
            if turn >= 0:
                if turn != last:
                    out.append((tok.decode(heard), [], turn))
                    heard, last = [], turn
                out[-1][1].append(token)
            else:
                heard.append(token)
    return [(before, tok.decode(said), turn) for before, said, turn in out]


@torch.no_grad()
def weighed(r, split, task, temperature=1.0):
    """One episode, and where T-DUR puts its weight: [(heard, said, w, d, h)], the episode's dict"""
    cfg = dataclasses.replace(r.cfg, group=1, temperature=temperature)
    rows, episodes = grpo.rollout(r.solo, r.env, r.tok, [task], split, [(r.v["seed"], "weighed", task)], cfg)
    log_ratio = torch.where(rows.mask, grpo.score(r.teacher, rows, cfg) - rows.behaviour_logp, 0.0)
    w, _, d, h = (x[0].tolist() for x in atod.unit_weights(rows, log_ratio, rows.turn_of_token, 1))
    return [(heard, said, w[k], d[k], h[k]) for heard, said, k in turns_of(rows, 0, r.tok)], episodes[0]


def strip(turns):
    """Those turns as text, a bar for the weight of each."""
    return "\n".join(f"{heard.replace('<|turn|>', '').replace('<|end|>', '').strip():50} > {said.replace('<|end|>', ''):22} "
                     f"w {w:.2f} {'#' * round(10 * w):10}  d {d:.3f}  h {h:.3f}" for heard, said, w, d, h in turns)


def final_table(r):
    """Teacher, and student before and after, sampled and greedy, on tasks nobody has looked at. Also written to result.json."""
    v, n, seconds, columns, strips = r.v, r.problems, time.time() - r.began, {}, {}
    trained = {k: x.clone() for k, x in r.model.state_dict().items()}
    teacher = Sampler(r.teacher, r.solo.rows)
    for name, weights in (("teacher", None), ("before", r.warm), ("after", trained)):
        if weights is not None:
            r.model.load_state_dict(weights)
            turns, episode = weighed(r, v["final_split"], 0)
            strips[name] = {"turns": turns, "won": grpo.succeeded(episode)}
        for how, temperature in (("", r.cfg.temperature), (", greedy", 0.0)):
            columns[name + how] = atod.evaluate(teacher if weights is None else r.solo, r.env, r.tok, r.cfg, v["final_split"], n, v["seed"], temperature)
    with open(os.path.join(v["out"], "metrics.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    looks = [(line["valid success"], line["step"]) for line in lines if "valid success" in line]
    times = {k: sum(line[k] for line in lines) for k in lines[0] if k.startswith("time_")}
    run.write(os.path.join(v["out"], "result.json"), json.dumps(
        {"n": n, "seconds": seconds, "times": times, "looks": looks, "columns": columns, "strips": strips}, indent=1))
    print(f"\n{n} {v['final_split']} tasks, an episode each, at temperature {r.cfg.temperature:g} or greedy, 95% intervals")
    run.print_table(columns, n)
    if looks:
        print("valid success, last look %.3f; best %.3f, at step %d" % (looks[-1][0], *max(looks)))
    for name, found in strips.items():
        print(f"\n{v['final_split']} task 0 {name} training, {'won' if found['won'] else 'lost'}: what it was told, what it did, and the teacher's weight (T-DUR)")
        print(strip(found["turns"]))
    print(f"\n{seconds:.0f} s to the end of training, {time.time() - r.began:.0f} s with this table; of the updates "
          + ", ".join(f"{k[5:]} {x:.0f} s" for k, x in times.items())
          + f"\n\nnext:\n  python sample.py {shlex.quote(v['out'])}")
    for other in ({"atod", "opd"} - {v["method"]} if v["method"] != "grpo" else {"atod"}):
        print(f"  python train.py --method {other} --env {v['env']} --seed {v['seed']}")
