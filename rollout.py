"""From tasks to training rows: episodes of one turn or of many, played side by side.

A question with a verifiable answer is a game of one turn, so this is the only rollout there is. What it hands over, `Rows`, is all
that a loss ever sees: ids as they were sampled, their log-probs, and which of them the model wrote.

Letters: N prompts, G group, E = N * G episodes, R rows (an episode has more than one when it outgrew its context), T tokens.
"""
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Rows:
    """A batch of training rows. Token t's entries stand at column t; each row is one contiguous context."""
    tokens: torch.Tensor  # [R, T] int64
    mask: torch.Tensor  # [R, T] bool: sampled, not forced. The end token is an action: it is in the mask
    behaviour_logp: torch.Tensor  # [R, T] log-prob when sampled, 0 elsewhere
    turn_of_token: torch.Tensor  # [R, T] int64: the turn it was sampled in; -1 for what the environment said
    episode: torch.Tensor  # [R] int64
    group: torch.Tensor  # [R] int64: which prompt
    author: torch.Tensor | None = None  # [R, T] bool: the senior wrote it (tandem only)
    opens: torch.Tensor | None = None  # [R, T] bool: its author was drawn before it (tandem only)
    branch: torch.Tensor | None = None  # [R, T] int64: answers to one prompt that share a row; 0 the prompt, 1, 2, ... the answers

    def __getitem__(self, index):
        return Rows(*(None if x is None else x[index] for x in vars(self).values()))

    def columns(self, T):
        """The first T columns."""
        return Rows(*(x if x is None or x.dim() == 1 else x[:, :T] for x in vars(self).values()))


def train_tasks(env, step, n, seed):
    """The training tasks of an update: the same for every arm of a seed; a finite set is gone through in a shuffled order."""
    first, total = step * n, env.first.tasks("train")
    if total is None:  # the second half of the seed's numbers: the first is for demonstrations
        return [seed * 10**7 + 5 * 10**6 + first + i for i in range(n)]
    order = {e: torch.randperm(total, generator=torch.Generator().manual_seed(seed * 1000 + e)).tolist()
             for e in {first // total, (first + n - 1) // total}}
    return [order[(first + i) // total][(first + i) % total] for i in range(n)]


def rollout(sampler, env, tok, tasks, split, names, cfg):
    """Play `cfg.group` episodes of each task, all in step, a turn at a time. env: envs.Batch; names: whose random numbers each of the
    E = len(tasks) * group episodes uses (Sampler.seed).

    What the environment says enters as forced tokens, as it was encoded once. Episodes that are over leave the batch. One that outgrows
    its context goes on in a new row: the first observation (the goal) and its latest turns, prefilled afresh, for cached keys
    would know what was dropped.

    Returns (rows, episodes): Rows in the order of their episodes, and for each episode a dict with task, reward, turns, contexts (rows
    it took), text (of its last turn) and what Step.info held."""
    G, E = cfg.group, len(tasks) * cfg.group
    max_new, context = cfg.max_new or env.first.max_new, sampler.context
    sampler.start()
    goals = [tok.encode_turn("user", o, first=True) for o in env.reset_many([task for task in tasks for _ in range(G)], split)[::G]]
    sampler.feed(range(len(tasks)), goals)
    sampler.select([e // G for e in range(E)])  # the group's prompt is prefilled once
    sampler.seed(names)
    episodes = [{"task": tasks[e // G], "reward": 0.0, "turns": 0, "contexts": 1, "truncated": False} for e in range(E)]
    rows = [new_row(e, goals[e // G]) for e in range(E)]  # the one that each episode writes
    full, past = [], [[] for _ in range(E)]  # rows that outgrew their context; the ids of each episode's turns
    alive = list(range(E))
    at = {e: e for e in alive}  # the sampler's row of each episode that is alive
    for turn in range(env.first.max_turns):
        before = sampler.sample(max_new, tok.stop_ids, temperature=cfg.temperature, rows=list(at.values())).tolist()
        after = sampler.length.tolist()
        low, high = min(before[b] for b in at.values()), max(after[b] for b in at.values())
        found = {name: getattr(sampler, name)[:, low:high].tolist() for name in sampler.per_token}
        said = {e: {name: x[b][before[b] - low:after[b] - low] for name, x in found.items()} for e, b in at.items()}
        ended = {e: bool(new["tokens"]) and new["tokens"][-1] in tok.stop_ids for e, new in said.items()}
        texts = [tok.decode(said[e]["tokens"][:-1] if ended[e] else said[e]["tokens"]) for e in alive]
        replies, still, fresh = {}, [], {}
        for e, text, step in zip(alive, texts, env.step_many(alive, texts)):
            episode, new = episodes[e], said[e]
            append(rows[e], new, turn)
            truncated = episode["truncated"] or step.info.get("truncated", False) or not ended[e]
            episode.update(step.info, text=text, turns=turn + 1, reward=episode["reward"] + step.reward, truncated=truncated)
            replies[e] = ([] if ended[e] else [tok.end_id]) + tok.encode_turn("user", step.observation)
            past[e].append(new["tokens"] + replies[e])
            if step.done:
                continue
            if after[at[e]] + len(replies[e]) >= context:
                fresh[e] = latest(goals[e // G], past[e], context)
                if len(fresh[e]) >= context:  # not even the goal and one turn fit
                    episode["truncated"] = True
                    continue
            still.append(e)
        if not still or turn + 1 == env.first.max_turns:
            break
        if len(still) <= 0.75 * len(after) and not sampler.compile:  # copying a cache costs about a turn
            sampler.select([at[e] for e in still])
            at = {e: b for b, e in enumerate(still)}
        alive, at = still, {e: at[e] for e in still}
        for e in fresh.keys() & at.keys():
            full.append(rows[e])
            rows[e] = new_row(e, fresh[e])
            episodes[e]["contexts"] += 1
            sampler.clear([at[e]])
        for e in set(alive) - fresh.keys():
            append(rows[e], {"tokens": replies[e]})
        sampler.feed([at[e] for e in alive], [fresh.get(e, replies[e]) for e in alive])
    return stack(sorted(full + rows, key=lambda row: row["episode"]), G, sampler), episodes


def latest(goal, turns, context):
    """The goal and as many of the last turns as fill half of the context; at least one."""
    kept, room = [], context // 2 - len(goal)
    for turn in reversed(turns):
        if kept and len(turn) > room:
            break
        kept, room = turn + kept, room - len(turn)
    return goal + kept


def new_row(episode, prompt):
    row = {"episode": episode, "tokens": [], "turn": [], "logp": [], "wrote": [], "opens": []}
    append(row, {"tokens": prompt})
    return row


def append(row, new, turn=-1):
    """Add tokens to a row: sampled in a turn, with what the sampler knows of each, or forced."""
    n = len(new["tokens"])
    for name in ("tokens", "logp", "wrote", "opens"):
        row[name] += new.get(name, [0] * n)
    row["turn"] += [turn] * n


def stack(rows, group, sampler):
    """Rows of lists -> Rows of tensors"""
    def column(name, dtype, padding=0):
        made = [torch.tensor(row[name], dtype=dtype) for row in rows]
        return pad_sequence(made, batch_first=True, padding_value=padding).to(sampler.tokens.device)
    turn, episode = column("turn", torch.long, -1), torch.tensor([row["episode"] for row in rows], device=sampler.tokens.device)
    authors = [column(name, torch.bool) if name in sampler.per_token else None for name in ("wrote", "opens")]
    return Rows(column("tokens", torch.long), turn >= 0, column("logp", torch.float), turn, episode, episode // group, *authors)


def episode_rewards(episodes, group, device="cpu"):
    """-> rewards [N, G], valid [N, G] (False where the environment's engine failed)"""
    rewards = torch.tensor([e["reward"] for e in episodes], device=device).view(-1, group)
    valid = torch.tensor([not e.get("engine_failed", False) for e in episodes], device=device).view(-1, group)
    return rewards, valid
