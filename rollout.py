"""From tasks to training rows: play episodes of one or many turns side by side, and evaluate them.

A question with a verifiable answer is a game of one turn, so this is the only rollout. A loss sees
nothing but its `Rows`: ids as they were sampled, their log-probs, and which the model wrote.

Letters: N prompts, G group, E = N * G episodes, R rows (one or more an episode), T tokens. """
import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

import envs
import run
from model import by_prompt


# ---- what a loss sees ----

@dataclass
class Rows:
    """A batch of training rows, each one contiguous context. Column t is about token t."""
    tokens: torch.Tensor  # [R, T] int64
    mask: torch.Tensor  # [R, T] bool: sampled, not forced (an end token is sampled too)
    behaviour_logp: torch.Tensor  # [R, T] log-prob when sampled, 0 elsewhere
    turn_of_token: torch.Tensor  # [R, T] int64: its turn; -1 where the environment speaks
    episode: torch.Tensor  # [R] int64
    group: torch.Tensor  # [R] int64: which prompt
    author: torch.Tensor | None = None  # [R, T] bool: the senior wrote it (tandem only)
    opens: torch.Tensor | None = None  # [R, T] bool: its author was drawn before it (tandem only)
    branch: torch.Tensor | None = None  # [R, T] int64: 0 prompt; 1, 2, ... replies; -1 padding

    def __getitem__(self, index):
        return Rows(*(None if x is None else x[index] for x in vars(self).values()))

    def columns(self, T):
        """The first T columns."""
        return Rows(*(x if x is None or x.dim() == 1 else x[:, :T] for x in vars(self).values()))


# ---- tasks ----

def open_env(cfg):
    """The environment that the options name -> envs.Batch. Stop when it cannot be opened."""
    names = ("level", "text", "turns")
    options = {name: getattr(cfg, name) for name in names if getattr(cfg, name)}
    try:
        return envs.Batch(cfg.env, data=cfg.data, **options)
    except ValueError as error:
        raise run.Stop(str(error)) from None


def check_prompts(env, tok, context, max_new):
    """Stop when a prompt leaves no room for an answer, among the first 1,000 or 10,000 tasks."""
    for split in envs.SPLITS:
        total = min(env.first.tasks(split) or 1000, 10_000)
        for first in range(0, total, 32):  # side by side: engines may be slow
            tasks = range(first, min(first + 32, total))
            for task, text in zip(tasks, env.reset_many(tasks, split)):
                n = len(tok.encode_turn("user", text, first=True))
                if n + min(max_new, context) > context:
                    raise run.Stop(f"{split} task {task} has {n} tokens; with --max-new {max_new} "
                                   f"it does not fit --context {context}")


def train_tasks(env, step, n, seed):
    """An update's n training tasks, equal for all methods. A finite set is reshuffled per epoch."""
    first, total = step * n, env.first.tasks("train")
    if total is None:  # the second half of the seed's numbers: the first is for demonstrations
        return [seed * 10**7 + 5 * 10**6 + first + i for i in range(n)]
    order = {}
    for epoch in range(first // total, (first + n - 1) // total + 1):
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        order[epoch] = torch.randperm(total, generator=generator).tolist()
    return [order[(first + i) // total][(first + i) % total] for i in range(n)]


def next_tasks(r):
    """The tasks of this rank in the update, and the random stream of each of their episodes."""
    cfg = r.cfg
    r.env.seconds = 0.0  # counts what the environment takes of this update
    tasks = train_tasks(r.env, r.step, cfg.prompts, cfg.seed)
    streams = streams_of(cfg.seed, "train", r.step, tasks, cfg.group)
    mine = range(r.rank, len(tasks), r.world)  # of this rank
    return ([tasks[i] for i in mine],
            [stream for i in mine for stream in streams[i * cfg.group:(i + 1) * cfg.group]])


def final_tasks(r):
    """How many tasks the final table takes: as many as were asked for, or as there are."""
    wanted = r.cfg.test_problems or r.env.first.problems
    return min(wanted, r.env.first.tasks(r.cfg.final_split) or wanted)


def streams_of(seed, purpose, step, tasks, group):
    """Names of random streams (Sampler.seed), one an episode, in order. A task that comes up twice
    in an update (few tasks, many prompts) gets other numbers the second time."""
    times, streams = Counter(), []
    for task in tasks:
        first = times[task] * group
        times[task] += 1
        streams += [(seed, purpose, step, task, first + sample) for sample in range(group)]
    return streams


# ---- play ----

@dataclass
class Sampling:
    """How to play; the Config of a method that plays has these fields too."""
    group: int = 1  # episodes of each task
    max_new: int = 0  # tokens a turn may take; 0: the world's own default
    temperature: float = 1.0  # 0: greedy


class Episode:
    """One episode while it is played."""

    def __init__(self, task, goal):
        self.goal = goal  # ids of the first observation
        self.rows = [new_row(goal)]  # training rows; the last one is being written
        self.turns = []  # ids of each turn: what the model said, then what it was told
        self.renewed = False  # the last reply is a whole new row
        self.result = {"task": task, "reward": 0.0, "turns": 0, "contexts": 1, "truncated": False}


def rollout(sampler, env, tok, tasks, split, streams, cfg):
    """Play `cfg.group` episodes of each task side by side, a turn at a time. env: envs.Batch;
    streams: a random stream for each of the E episodes; cfg: Sampling, or a Config with its fields.

    What the environment says enters as forced tokens, encoded once. Episodes that are over leave
    the batch; where there are more episodes than rows, the next one takes the row: of 3 on 2 rows
    0 and 1 begin, and when 1 is over, row_of is {0: 0, 2: 1}. One that outgrows its context goes on
    in a new row: the first observation (the goal) and its latest turns, prefilled afresh, because
    the cached keys have seen what was dropped.

    -> Rows in the order of their episodes; a dict for each episode: task, reward, turns, contexts
    (rows it took), text (of its last turn), and what Step.info held."""
    G, E = cfg.group, len(tasks) * cfg.group
    max_new = cfg.max_new or env.first.max_new

    # first observations: a group's prompt is prefilled once, then its cache is copied
    observations = env.reset_many([task for task in tasks for _ in range(G)], split)
    goals = [tok.encode_turn("user", text, first=True) for text in observations[::G]]
    episodes = [Episode(tasks[e // G], goals[e // G]) for e in range(E)]
    begun = min(E, sampler.rows)
    some = goals[:(begun - 1) // G + 1]
    sampler.start()
    sampler.feed(range(len(some)), some)
    sampler.select([e // G for e in range(begun)])
    sampler.seed(streams[:begun])
    row_of = {e: e for e in range(begun)}  # the sampler's row of each episode that goes on

    while row_of:
        # the model speaks, then the environment; a few turns will do where episodes wait for a row
        enough = len(row_of) if begun == E else -(-len(row_of) // 8)
        said = speak(sampler, tok, row_of, max_new, cfg.temperature, enough)
        steps = env.step_many(list(said), [new["text"] for new in said.values()])

        # what comes next for each episode that goes on: ids to feed, or a whole new row
        replies, free = {}, []
        for (e, new), step in zip(said.items(), steps):
            reply = next_turn(episodes[e], new, step, tok, sampler.context, max_new,
                              env.first.max_turns)
            if reply:
                replies[e] = reply
            else:
                free.append(row_of.pop(e))

        # drop those that are over, unless they are few: to copy the cache costs about a turn
        few = 0 < len(row_of) <= 0.75 * len(sampler.length)
        if few and begun == E and not sampler.compile:
            sampler.select(list(row_of.values()))
            row_of = {e: i for i, e in enumerate(row_of)}

        # what the environment said becomes part of the rows; those that are free begin anew
        new = range(begun, min(E, begun + len(free)))
        begun = new.stop
        row_of.update(zip(new, free))
        replies.update((e, episodes[e].goal) for e in new)
        sampler.clear([row_of[e] for e in replies if e in new or episodes[e].renewed])
        sampler.feed([row_of[e] for e in replies], list(replies.values()))
        sampler.seed(streams[new.start:new.stop], [row_of[e] for e in new])
    return stack(episodes, G, sampler), [episode.result for episode in episodes]


def speak(sampler, tok, row_of, max_new, temperature, enough):
    """Sample a turn of each episode that goes on, until `enough` turns are over -> of those
    {episode: {the sampler's names: a value for each token, "ended": by an end token?, "text":
    without it, "filled": length of the row}}. The next call goes on with the other turns."""
    rows = list(row_of.values())
    before = sampler.sample(max_new, tok.stop_ids, temperature=temperature, rows=rows,
                            enough=enough).tolist()
    after, over = sampler.length.tolist(), sampler.finished.tolist()
    row_of = {e: b for e, b in row_of.items() if over[b]}
    low = min(before[b] for b in row_of.values())
    high = max(after[b] for b in row_of.values())
    columns = {name: getattr(sampler, name)[:, low:high].tolist() for name in sampler.per_token}
    said = {}
    for e, b in row_of.items():
        new = {name: column[b][before[b] - low:after[b] - low] for name, column in columns.items()}
        ids = new["tokens"]
        new["ended"] = bool(ids) and ids[-1] in tok.stop_ids
        new["text"] = tok.decode(ids[:-1] if new["ended"] else ids)
        new["filled"] = after[b]
        said[e] = new
    return said


def next_turn(episode, new, step, tok, context, max_new, max_turns):
    """Write a turn and what the environment answered -> ids to feed, None when it is over."""
    reply = record_turn(episode, new, step, tok)
    room = context - max_new  # a turn that the context cuts is no command
    episode.renewed = new["filled"] + len(reply) > room
    if step.done:
        return None
    if episode.renewed:
        reply = latest(episode.goal, episode.turns, min(context // 2, room))
        if len(reply) >= context:  # not even the goal and one turn fit
            episode.result["truncated"] = True
            return None
    if episode.result["turns"] == max_turns:
        return None
    if episode.renewed:
        episode.rows.append(new_row(reply))
        episode.result["contexts"] += 1
    else:
        append(episode.rows[-1], {"tokens": reply})
    return reply


def record_turn(episode, new, step, tok):
    """Write a turn into the episode's row and result -> ids of what the environment said to it."""
    result = episode.result
    turn = result["turns"]
    append(episode.rows[-1], new, turn)
    truncated = result["truncated"] or step.info.get("truncated", False) or not new["ended"]
    reward = result["reward"] + step.reward
    result.update(step.info, text=new["text"], turns=turn + 1, reward=reward, truncated=truncated)
    reply = ([] if new["ended"] else [tok.end_id]) + tok.encode_turn("user", step.observation)
    episode.turns.append(new["tokens"] + reply)
    return reply


def latest(goal, turns, room):
    """The goal and as many of the last turns as there is room for; at least one."""
    kept, room = [], room - len(goal)
    for turn in reversed(turns):
        if kept and len(turn) > room:
            break
        kept, room = turn + kept, room - len(turn)
    return goal + kept


def new_row(prompt):
    row = {"tokens": [], "turn": [], "logp": [], "wrote": [], "opens": []}
    append(row, {"tokens": prompt})
    return row


def append(row, new, turn=-1):
    """Add tokens to a row: sampled in a turn, with what the sampler knows of each, or forced."""
    n = len(new["tokens"])
    for name in ("tokens", "logp", "wrote", "opens"):
        row[name] += new.get(name, [0] * n)
    row["turn"] += [turn] * n


def stack(episodes, group, sampler):
    """The rows of all episodes -> Rows of tensors, padded to the longest."""
    device = sampler.tokens.device
    rows = [row for episode in episodes for row in episode.rows]
    number = [e for e, episode in enumerate(episodes) for _ in episode.rows]

    def column(name, dtype, padding=0):
        made = [torch.tensor(row[name], dtype=dtype) for row in rows]
        return pad_sequence(made, batch_first=True, padding_value=padding).to(device)
    turn = column("turn", torch.long, -1)
    episode = torch.tensor(number, device=device)
    author, opens = (column(name, torch.bool) if name in sampler.per_token else None
                     for name in ("wrote", "opens"))
    return Rows(column("tokens", torch.long), turn >= 0, column("logp", torch.float), turn,
                episode, episode // group, author, opens)


def episode_rewards(episodes, group, device="cpu"):
    """-> rewards [N, G], valid [N, G] (False where the environment's engine failed)"""
    rewards = torch.tensor([e["reward"] for e in episodes], device=device)
    valid = torch.tensor([not e.get("engine_failed", False) for e in episodes], device=device)
    return rewards.view(-1, group), valid.view(-1, group)


# ---- from completions of many prompts to rows ----

def training_rows(replies, advantage, device="cpu", longest=256):
    """[Reply], advantage of each -> Rows, advantage of each token [R, T], number of tokens sampled.

    Two savings, both exact for a pure policy gradient with one update a batch. Equal replies to a
    prompt become one with the sum of their advantages, and a reply with advantage 0 is dropped. And
    replies to a prompt share a row of up to `longest` tokens: the prompt once, then the replies,
    none of which sees the others (Rows.branch)."""
    merged = {}
    for reply, a in zip(replies, advantage.tolist()):
        key = tuple(reply.prompt), tuple(reply.ids)
        merged[key] = (reply, merged[key][1] + a if key in merged else a)
    kept = [(reply, a) for reply, a in merged.values() if a and reply.ids]
    if not kept:  # every group was of equals: one row without an advantage, for the update to count
        kept = [(next(reply for reply in replies if reply.ids), 0.0)]

    # the answers to one prompt, in as many rows as they need
    rows = by_prompt([(tuple(reply.prompt), len(reply.ids), (reply, a)) for reply, a in kept],
                     longest)

    def column(of_prompt, of_reply, padding=0):
        """Values of a prompt's tokens and of its answers' -> [R, T]"""
        made = []
        for prompt, row in rows:
            values = of_prompt(prompt)
            for number, (reply, a) in enumerate(row, 1):
                values = values + of_reply(reply, a, number)
            made.append(torch.tensor(values))
        return pad_sequence(made, batch_first=True, padding_value=padding).to(device)
    tokens = column(list, lambda reply, a, number: reply.ids)
    branch = column(lambda p: [0] * len(p), lambda reply, a, number: [number] * len(reply.ids), -1)
    logp = column(lambda p: [0.0] * len(p), lambda reply, a, number: reply.logp)
    token_advantage = column(lambda p: [0.0] * len(p), lambda reply, a, number: [a] * len(reply.ids))
    mask, row = branch > 0, torch.arange(len(rows), device=device)
    made = Rows(tokens, mask, logp, torch.where(mask, 0, -1), row, row, branch=branch)
    return made, token_advantage, sum(len(reply.ids) for reply in replies)


# ---- evaluation ----

def evaluate(sampler, env, tok, cfg, split, n, k, seed):
    """k completions of each of a split's first n tasks -> metrics, [Rows], episodes. metrics:
    pass@1, pass@k, their standard errors over tasks, means of what the environment reports."""
    n = min(n, env.first.tasks(split) or n)
    cfg = Sampling(k, cfg.max_new, cfg.temperature)
    chunk = max(1, sampler.rows // k)
    batches, episodes = [], []
    for first in range(0, n, chunk):
        tasks = list(range(first, min(n, first + chunk)))
        streams = streams_of(seed, "evaluation", 0, tasks, k)
        rows, played = rollout(sampler, env, tok, tasks, split, streams, cfg)
        batches.append(rows)
        episodes += played
    return {"n": n, "k": k, **summary(episodes, k)}, batches, episodes


def pass_at_k(n, c, k):
    """Chance that any of k samples is right when c of n are, without bias (arXiv 2107.03374)."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n; got n = {n}, c = {c}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def succeeded(episode):
    """What the environment says; where it says nothing, any reward."""
    return bool(episode.get("success", episode["reward"] > 0))


def summary(episodes, k):
    """Episodes, k of a task -> {"pass@1", "pass@1_se", "pass@k", "pass@k_se", mean reward, ...}"""
    won = [[succeeded(e) for e in episodes[i:i + k]] for i in range(0, len(episodes), k)]
    out = {}
    for j in {1, k}:
        score = torch.tensor([pass_at_k(k, sum(w), j) for w in won], dtype=torch.double)
        out[f"pass@{j}"] = score.mean().item()
        out[f"pass@{j}_se"] = (score.var(correction=0) / len(score)).sqrt().item()
    names = {name for e in episodes for name, value in e.items()
             if isinstance(value, (bool, int, float))}
    for name in sorted(names - {"success", "task"}):
        values = [float(e[name]) for e in episodes if name in e]
        out[name] = sum(values) / len(values)
    return out


def worst_family(episodes, least=0.1):
    """Success rate of the family (Step.info's) that does worst, among those that hold a share of
    `least` of the episodes or more; without families, of all."""
    families = {}
    for e in episodes:
        families.setdefault(e.get("family"), []).append(succeeded(e))
    rates = [sum(won) / len(won) for won in families.values() if len(won) >= least * len(episodes)]
    return min(rates, default=sum(map(sum, families.values())) / len(episodes))


def solo_table(metrics, env):
    """evaluate()'s metrics -> what the final table says of a model alone: {name: (mean, error)}"""
    ks = sorted({1, metrics["k"]})
    out = {f"solo pass@{j}": (metrics[f"pass@{j}"], metrics[f"pass@{j}_se"]) for j in ks}
    names = ["private", "boxed", "malformed", "truncated", "turns"]
    if abs(metrics["reward"] - metrics["pass@1"]) > 1e-9:  # a reward that is no success or failure
        names.insert(0, "reward")
    for name in names:
        if name in metrics and (name != "turns" or env.first.max_turns > 1):
            out[name] = (metrics[name], None)
    return out
