"""What a rollout hands over, replayed turn by turn; tasks; and how a model is evaluated."""
import math
from types import SimpleNamespace

import pytest
import torch

import envs
import grpo
import rollout
import tokenizer
from envs.guess import Guess
from lib import terminal
from model import GPT, GPTConfig, token_logp
from rollout import Sampling
from sampler import Sampler

TOK = tokenizer.train(["1+2=3\n#3", "more", "less", "guess"] * 3, 270)


def liking(likes, by, context, layers=1):
    """A random model whose logits of the tokens `likes` are raised."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOK.n_vocab, context, layers=layers, heads=1, kv_heads=1, width=16,
                          head_width=16, ffn_width=16))
    bias = torch.zeros(TOK.n_vocab).index_fill_(0, torch.tensor(list(likes)), by)
    model.head.register_forward_hook(lambda module, inputs, output: output + bias)
    return model, bias


def play(name, tasks=6, group=4, likes=(), by=6.0, context=48, **options):
    model, _ = liking(likes, by, context)
    cfg, sampler = Sampling(group, temperature=1.5, **options), Sampler(model, tasks * group + 2)
    names = [(0, "test", 0, task, sample) for task in range(tasks) for sample in range(group)]
    return model, cfg, *rollout.rollout(sampler, envs.Batch(name), TOK, list(range(tasks)),
                                        "train", names, cfg)


def scores(model, rows, temperature):
    return grpo.score(model, rows, grpo.Config(temperature=temperature))


def replay(name, rows, episodes, row):
    """Play a row's sampled tokens again, turn by turn -> the row's tokens and turns as they should
    be."""
    env, episode = envs.make(name), episodes[row]
    ids = TOK.encode_turn("user", env.reset(episode["task"], "train"), first=True)
    turns, reward = [-1] * len(ids), 0.0
    for turn in range(episode["turns"]):
        own = rows.tokens[row, rows.turn_of_token[row] == turn].tolist()
        ended = own[-1] == TOK.end_id
        text = TOK.decode(own[:-1] if ended else own)
        step = env.step(text)
        ids, turns, reward = ids + own, turns + [turn] * len(own), reward + step.reward
        if turn + 1 < episode["turns"]:
            assert not step.done
            heard = [] if ended else [TOK.end_id]
            heard += TOK.encode_turn("user", step.observation)
            ids, turns = ids + heard, turns + [-1] * len(heard)
    assert (text, reward) == (episode["text"], episode["reward"])
    return ids, turns


@pytest.mark.parametrize("name, context, likes", [
    ("arithmetic", 64, [TOK.end_id]),
    ("guess", 48, [TOK.end_id, *map(ord, "149")])])
def test_rollout_keeps_sampled_ids_and_marks_exactly_them(name, context, likes):
    model, cfg, rows, episodes = play(name, likes=likes, context=context)
    lost = ends = 0
    for row in range(24):
        ids, turns = replay(name, rows, episodes, row)
        padding = [-1] * (rows.tokens.shape[1] - len(ids))
        assert rows.tokens[row, :len(ids)].tolist() == ids
        assert rows.turn_of_token[row].tolist() == turns + padding
        assert rows.mask[row].tolist() == [t >= 0 for t in turns + padding]
        assert rows.behaviour_logp[row].ne(0).tolist() == rows.mask[row].tolist()
        own = [i for i, t in zip(ids, turns) if t == 0]
        ends += own[-1] == TOK.end_id
        lost += TOK.encode(TOK.decode(own)) != own
    assert lost > 0 and ends > 0  # encoding the text again would change ids; ends are in the mask
    assert rows.episode.tolist() == list(range(24)) and rows.author is None
    assert rows.group.tolist() == [e["task"] for e in episodes] == [i // 4 for i in range(24)]
    if name == "guess":
        assert {e["turns"] for e in episodes} >= {2, 4}
        assert {e["reward"] for e in episodes} == {0.0, 1.0}
    expected = scores(model, rows, cfg.temperature) * rows.mask
    torch.testing.assert_close(rows.behaviour_logp, expected, rtol=0, atol=1e-5)


def test_answers_that_do_not_end_are_counted_as_truncated():
    _, _, rows, episodes = play("arithmetic", context=64, likes=[TOK.end_id], max_new=3, by=3.0)
    ended = (rows.tokens.eq(TOK.end_id) & rows.mask).any(1).tolist()
    assert [e["truncated"] for e in episodes] == [not e for e in ended] and len(set(ended)) == 2
    share = rollout.summary(episodes, 4)["truncated"]
    assert share == pytest.approx(1 - sum(ended) / 24)


@pytest.mark.parametrize("context", [16, 20])
def test_a_game_that_outgrows_its_context_goes_on_in_a_new_row_with_the_goal_and_its_latest_turns(context):
    cfg, digits = Sampling(4), [TOK.end_id, *map(ord, "0123456789")]
    model, _ = liking(digits, 4.0, 48)
    names = [(3, "play", 0, task, sample) for task in range(6) for sample in range(4)]
    rows, episodes = rollout.rollout(Sampler(model, 24, context=context), envs.Batch("guess"), TOK,
                                     list(range(6)), "train", names, cfg)
    assert rows.tokens.shape[1] <= context
    assert not any(e["truncated"] for e in episodes if e["reward"])
    taken = [(rows.episode == e).sum().item() for e in range(24)]
    assert taken == [e["contexts"] for e in episodes] and len(set(taken)) > 1
    assert rows.episode.tolist() == sorted(rows.episode.tolist())
    goal = TOK.encode_turn("user", "guess", first=True)
    for e in range(24):
        mine = rows[rows.episode == e]
        turns = [[t for t in row.tolist() if t >= 0] for row in mine.turn_of_token]
        # each turn sampled once, in order
        played = [t for row in turns for t in dict.fromkeys(row)]
        assert played == list(range(episodes[e]["turns"]))
        for tokens, row in zip(mine.tokens, mine.turn_of_token):
            for turn in set(row.tolist()) - {-1}:  # the context cuts none
                said = tokens[row == turn]
                assert said[-1] in TOK.stop_ids or len(said) == 4
        for i, (tokens, mask) in enumerate(zip(mine.tokens.tolist(), mine.mask.tolist())):
            assert tokens[:len(goal)] == goal and not any(mask[:len(goal)])
            if i:  # what is repeated of the row before is its end, and not sampled anew
                start = mask.index(True)
                before = mine.tokens[i - 1].tolist()
                last = max(j for j, m in enumerate(mine.mask[i - 1].tolist()) if m)
                repeated = tokens[len(goal):start]
                assert len(goal) < start
                assert any(repeated[:k] == before[last + 1 - k:last + 1]
                           for k in range(1, len(repeated) + 1))
    expected = scores(model, rows, cfg.temperature)
    torch.testing.assert_close(rows.behaviour_logp, expected, rtol=0, atol=1e-5)

    # goal and a turn do not fit
    short = Sampler(model, 24, context=len(goal) + 2)
    _, hopeless = rollout.rollout(short, envs.Batch("guess"), TOK, list(range(6)), "train", names,
                                  cfg)
    assert all(e["truncated"] and e["turns"] == 1 for e in hopeless if not e["success"])


def test_an_episode_of_several_rows_is_shown_whole_under_its_own_grade(capsys):
    model, _ = liking([TOK.end_id, *map(ord, "0123456789")], 4.0, 48)
    sampler, env = Sampler(model, 4, context=16), envs.Batch("guess")
    cfg = SimpleNamespace(final_split="test", seed=0, max_new=0, temperature=1.0)
    r = SimpleNamespace(env=env, tok=TOK, cfg=cfg)
    _, _, episodes = rollout.evaluate(sampler, env, TOK, cfg, "test", 6, 1, 0)
    assert max(e["contexts"] for e in episodes) > 1
    terminal.print_episodes("title", sampler, r, 6)
    shown = capsys.readouterr().out.split("=== title\n")[1].split("\n\n")[:6]
    for game, episode in zip(shown, episodes):
        *said, grade = game.splitlines()
        assert said.count("guess") == episode["contexts"]
        assert grade.startswith("right" if episode["reward"] else "wrong")


def test_a_long_game_equals_its_turns_replayed_one_by_one():
    """50 turns: the sampler's log-probs, of rows that leave and move as others end, against a full
    forward of each prefix alone."""
    class Long(Guess):
        max_turns = 50

        def step(self, text):
            step = super().step(text)
            step.done = "3" in text or self.turn == 50
            return step
    model, bias = liking([TOK.end_id, *map(ord, "12456789")], 5.0, 400, layers=2)
    bias[ord("3")] = 2.8
    env = envs.Batch("guess")
    env.envs = [Long()]
    env.first = env.envs[0]
    rows, episodes = rollout.rollout(Sampler(model, 12), env, TOK, [0, 1, 2], "train",
                                     [("long", i) for i in range(12)], Sampling(4))
    turns = [e["turns"] for e in episodes]
    assert max(turns) == 50 and len(set(turns)) > 3 and all(e["contexts"] == 1 for e in episodes)
    row = turns.index(50)
    for turn in range(50):  # what it saw, with the turn behind it
        at = (rows.turn_of_token[row] == turn).nonzero()[:, 0]
        own = token_logp(model, rows.tokens[row:row + 1, :int(at[-1]) + 1])[0, at]
        torch.testing.assert_close(rows.behaviour_logp[row, at], own, rtol=0, atol=1e-5)


def test_garbage_scores_zero_and_never_raises():
    for name in ("arithmetic", "guess"):
        *_, episodes = play(name, likes=range(128, 256), by=9.0, context=64)  # bytes, no text
        assert all(e["reward"] == 0 and not e["success"] for e in episodes)


# ---- tasks ----

def test_every_epoch_of_a_finite_set_has_each_task_once_in_an_order_of_its_own():
    class Few:
        def tasks(self, split):
            return {"train": 10}[split]
    env = envs.Batch("guess")
    env.first = Few()
    drawn = [task for step in range(5) for task in rollout.train_tasks(env, step, 4, seed=3)]
    first, second = drawn[:10], drawn[10:]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert drawn == [t for step in range(10) for t in rollout.train_tasks(env, step, 2, seed=3)]


def test_seeds_of_an_infinite_set_share_no_task_among_them_or_with_demonstrations():
    env, seen = envs.Batch("guess"), set()
    for seed in (0, 1):
        tasks = {t for step in range(50) for t in rollout.train_tasks(env, step, 16, seed)}
        assert len(tasks) == 800 and not tasks & seen
        assert min(tasks) >= seed * 10**7 + 5 * 10**6 and max(tasks) < (seed + 1) * 10**7
        seen |= tasks


# ---- evaluation ----

def test_evaluation_gives_pass_at_k_over_problems_and_repeats_itself():
    model, _ = liking([TOK.end_id, *map(ord, "0123456789")], 4.0, 48)
    first, second = (
        rollout.evaluate(Sampler(model, rows), envs.Batch("guess"), TOK, Sampling(temperature=1.5),
                         "valid", 5, 4, seed=3)
        for rows in (8, 21))
    texts = [[e["text"] for e in found[2]] for found in (first, second)]
    assert texts[0] == texts[1]  # whatever the number of rows
    won = [[e["success"] for e in first[2][i:i + 4]] for i in range(0, 20, 4)]
    metrics, share = first[0], torch.tensor([sum(w) / 4 for w in won])
    assert metrics["pass@1"] == pytest.approx(sum(map(sum, won)) / 20)
    assert metrics["pass@4"] == pytest.approx(sum(map(any, won)) / 5)
    error = float(share.std(correction=0)) / math.sqrt(5)
    assert metrics["pass@1_se"] == pytest.approx(error, abs=1e-6)
    assert 0 < metrics["pass@1"] < metrics["pass@4"] and metrics["n"] == 5


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_rows_that_are_over_make_room_for_the_next_episodes(rows):
    model, _ = liking([TOK.end_id, *TOK.encode("0123456789")], 3.0, 48)
    played = []
    for rows in (rows, 20):
        sampler = Sampler(model, rows)
        feed, sampler.fed = sampler.feed, 0

        def counted(rows, ids):
            sampler.fed += 1
            feed(rows, ids)
        sampler.feed = counted
        streams = rollout.streams_of(0, "test", 0, range(5), 4)
        made, episodes = rollout.rollout(sampler, envs.Batch("guess"), TOK, range(5), "train",
                                         streams, Sampling(4, 6, 1.0))
        played.append((made, episodes, sampler.fed))
    (few, episodes, feeds), (all_rows, expected, _) = played
    assert [e["text"] for e in episodes] == [e["text"] for e in expected]
    assert episodes == expected and feeds > 5
    assert torch.equal(few.tokens, all_rows.tokens) and torch.equal(few.episode, all_rows.episode)
    assert torch.equal(few.turn_of_token, all_rows.turn_of_token)
    torch.testing.assert_close(few.behaviour_logp, all_rows.behaviour_logp, rtol=0, atol=1e-5)


def test_a_reward_that_is_not_success_has_a_row_of_its_own_in_the_table():
    env = envs.Batch("guess")
    for reward, shown in ((1.0, False), (0.4, True)):
        episodes = [{"task": 0, "reward": won * reward, "success": won, "turns": 2} for won in (True, False)]
        table = rollout.solo_table({"k": 2, **rollout.summary(episodes, 2)}, env)
        assert ("reward" in table) == shown
    assert table["reward"] == (0.2, None) and table["solo pass@1"][0] == 0.5


def test_the_family_that_does_worst_counts_where_it_is_not_rare():
    won = [("a", 1)] * 5 + [("b", 1), ("b", 0)] * 4 + [("rare", 0)]
    episodes = [{"family": family, "reward": float(w), "success": bool(w)} for family, w in won]
    assert rollout.worst_family(episodes) == 0.5
    assert rollout.worst_family([{"reward": 1.0}, {"reward": 0.0}]) == 0.5
    episodes = [{**e, "family": f"{i}"} for i, e in enumerate(episodes)]  # every family is rare
    assert rollout.worst_family(episodes) == pytest.approx(9 / 14)


# ---- few tasks, many prompts ----

class Few(Guess):
    def tasks(self, split):
        return 5


def few():
    env = envs.Batch("guess")
    env.first = Few()
    return env


def test_a_finite_set_is_gone_through_epoch_after_epoch_however_many_prompts():
    for n in (1, 4, 5, 16, 23):
        seen = [t for step in range(6) for t in rollout.train_tasks(few(), step, n, 3)]
        assert len(seen) == 6 * n
        for first in range(0, len(seen) - 4, 5):
            assert sorted(seen[first:first + 5]) == [0, 1, 2, 3, 4]


def test_a_task_that_comes_up_twice_has_other_random_numbers_the_second_time():
    streams = rollout.streams_of(0, "train", 7, [3, 1, 3], 2)
    assert len(set(streams)) == 6
    assert streams[:4] == [(0, "train", 7, task, i) for task in (3, 1) for i in (0, 1)]
    assert streams[4:] == [(0, "train", 7, 3, 2), (0, "train", 7, 3, 3)]


def test_ranks_share_tasks_and_streams_as_one_process_has_them():
    def tasks_of(rank, world):
        cfg = grpo.Config(env="guess", prompts=12, group=2)
        return rollout.next_tasks(SimpleNamespace(cfg=cfg, env=few(), step=1, rank=rank, world=world))
    tasks, streams = tasks_of(0, 1)
    parts = [tasks_of(rank, 3) for rank in range(3)]
    assert [task for i in range(4) for part in parts for task in [part[0][i]]] == tasks
    assert sorted(x for part in parts for x in part[1]) == sorted(streams)
    assert len(set(streams)) == 24
