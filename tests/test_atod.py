"""ATOD: its equations by hand and by enumeration, what its advantages touch, and what the command
refuses."""
import dataclasses
import itertools
from pathlib import Path
from typing import get_args

import pytest
import torch

import atod
import envs
import grpo
import rollout
import tokenizer
from atod import Config, hybrid_advantage, schedule, t_dur, turn_means
from conftest import errors, house_tokenizer, outcome
from lib.terminal import turns_of
from model import GPT, GPTConfig, token_logp
from rollout import Rows, Sampling
from sampler import Sampler


def choices(name):
    return get_args(next(f.type for f in dataclasses.fields(Config) if f.name == name))


def tiny(vocab=4, context=4, seed=0):
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocab, context, layers=1, heads=1, kv_heads=1, width=8, head_width=8,
                         ffn_width=16))


# ---- the equations ----

def test_the_papers_example_of_turn_weights():
    d = torch.tensor([.101, .228, .022, .019, .138])
    h = torch.tensor([.037, .025, .010, .006, .008])
    # the paper's .15 is of unrounded inputs
    assert t_dur(d, h).tolist() == pytest.approx([1.00, 1.00, .14, 0, .60], abs=.006)


def test_turn_weights_of_flat_short_and_empty_trajectories():
    assert t_dur(torch.tensor([.3]), torch.tensor([.1])).tolist() == [.75]  # one turn
    nearly = torch.full((3,), .3) + torch.tensor([0, 1e-9, 0])  # a range below 1e-8
    assert t_dur(torch.full((3,), .3), nearly).tolist() == [.75] * 3

    # the empty turn is out of min and max
    valid = torch.tensor([True, False, True, True])
    weight = t_dur(torch.tensor([1., 99., 2., 3.]), torch.tensor([0., -99., 0., 0.]), valid)
    assert weight.tolist() == pytest.approx([.5, 0, .75, 1])
    empty = t_dur(torch.tensor([[5.]]), torch.tensor([[5.]]), torch.tensor([[False]]))
    assert empty.tolist() == [[0]]

    d, h = torch.rand(50, 7), torch.rand(50, 7)
    weight, ones = t_dur(d, h), torch.ones(50)
    assert weight.min() >= 0
    assert torch.equal(weight.amax(1), ones)  # the turn with the largest d has weight 1
    moved = t_dur(d * 9 + 4, h * 3 - 1)  # only the place within the trajectory counts
    torch.testing.assert_close(moved, weight, rtol=0, atol=1e-5)


def test_two_ranks_weigh_turns_as_one_process_does(monkeypatch):
    """The mean weight of --weights uniform, and the statistics, are over all ranks."""
    rows, _, _, _ = played()
    teacher_logp, outcome = rows.behaviour_logp - 0.5, torch.zeros(int(rows.episode.max()) + 1)
    cfg = Config(weights="uniform")
    _, one = atod.token_advantages(rows, teacher_logp, outcome, cfg, 3)
    seen = []

    def doubled(x):  # another rank with rows like these
        seen.append(x.clone())
        return 2 * x
    monkeypatch.setattr(atod.run, "all_sum", doubled)
    _, two = atod.token_advantages(rows, teacher_logp, outcome, cfg, 3)
    assert two == pytest.approx(one) and len(seen) == 2
    assert float(seen[0][0] / seen[0][1]) == pytest.approx(one["mean_w"])
    assert float(seen[1][0] / seen[1][-1]) == pytest.approx(one["disagreement"]) == 0.5


def test_the_schedule_at_its_ends_in_the_middle_and_beyond():
    low = pytest.approx(.1)
    found = [schedule(s, 80) for s in (0, 40, 80, 81, 150, 10**9)]
    assert found == [(1, 1), (pytest.approx(.55), 1.5)] + [(low, 2)] * 4
    assert schedule(79, 80)[0] > .1 and schedule(0, 0) == (1, 1) and schedule(1, 0) == (low, 2)
    mixes = {mix: atod.coefficients(Config(mix=mix, steps=151), 40) for mix in choices("mix")}
    assert mixes == {"annealed": schedule(40, 80), "fixed": (1, 1), "opd": (1, 0), "grpo": (0, 1)}


def test_turn_means_by_hand():
    values, turn = torch.tensor([[9., 1., 3., 9., 5., 0.]]), torch.tensor([[-1, 0, 0, -1, 2, -1]])
    assert turn_means(values, turn, 4).tolist() == [[2, 0, 5, 0]]


def test_the_hybrid_advantage_by_hand():
    log_ratio = torch.tensor([[7., 1., -2., 7., 3.]], requires_grad=True)
    turn = torch.tensor([[-1, 0, 0, -1, 1]])
    weight, outcome = torch.tensor([[.5, .25]], requires_grad=True), torch.tensor([-1.])
    found = hybrid_advantage(log_ratio, weight, turn, outcome, .8, 2.)
    expected = [0, .8 * .5 * 1 - 2, .8 * .5 * -2 - 2, 0, .8 * .25 * 3 - 2]
    assert found.tolist() == [pytest.approx(expected)] and not found.requires_grad
    for w in (torch.zeros(1, 2), torch.ones(1, 2)):  # the weights touch the teacher's term only
        reward_alone = hybrid_advantage(log_ratio, w, turn, outcome, 0., 2.)
        assert reward_alone.tolist() == [[0, -2, -2, 0, -2]]


def test_the_expected_gradient_of_opd_is_the_reverse_kl_per_token_on_prefixes_held_fixed():
    """Sum over all 64 sequences x of p(x) sum_t Delta_t grad log p(x_t | x_<t)
    = - sum over prefixes of p(prefix) grad KL(student || teacher)."""
    student, teacher = tiny(seed=0), tiny(seed=1)
    tokens = torch.tensor([[0, *x] for x in itertools.product(range(4), repeat=3)])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    turn = torch.where(mask, 0, -1)
    with torch.no_grad():
        old, reference = token_logp(student, tokens), token_logp(teacher, tokens)
    p = old.sum(1).exp()  # of each sequence
    assert float(p.sum()) == pytest.approx(1)
    rows = Rows(tokens, mask, old, turn, torch.arange(64), torch.arange(64))
    cfg = Config(mix="opd", weights="one", steps=10)
    advantage, _ = atod.token_advantages(rows, reference, torch.randn(64), cfg, 3)
    grpo.loss(student, rows, mask * p[:, None], advantage, cfg)[0].backward()
    found = [x.grad.clone() for x in student.parameters()]
    student.zero_grad()
    kl = grpo.exact_kl(student(tokens[:, :-1]), teacher(tokens[:, :-1]).detach())  # [64, 3]
    (kl * p[:, None]).sum().backward()
    assert max(g.abs().max() for g in found) > 1e-2
    for g, x in zip(found, student.parameters()):
        torch.testing.assert_close(g, x.grad, rtol=0, atol=1e-5)


# ---- from a rollout to advantages ----

def played(context=200, turns=6, seed=0, tasks=3, group=4):
    """Three houses x 4 episodes by a random student -> rows, episodes, student, teacher"""
    tok, env = house_tokenizer(), envs.Batch("house", turns=turns)
    student, teacher = (GPT(GPTConfig(tok.n_vocab, 200, layers=1, heads=1, kv_heads=1, width=w,
                                      head_width=16, ffn_width=16)) for w in (16, 32))
    bias = torch.zeros(tok.n_vocab).index_fill_(0, torch.tensor([tok.end_id]), 5.0)
    student.head.register_forward_hook(lambda module, inputs, output: output + bias)
    names = [(seed, "play", task, sample) for task in range(tasks) for sample in range(group)]
    sampler = Sampler(student, tasks * group, context=context)
    rows, episodes = rollout.rollout(sampler, env, tok, list(range(tasks)), "train", names,
                                     Sampling(group))
    return rows, episodes, student, teacher


@pytest.mark.parametrize("weights", choices("weights"))
def test_advantages_of_a_rollout_are_a_plain_loop(weights):
    rows, _, _, teacher = played(context=45)
    assert len(rows.tokens) > 12  # some games outgrew their context
    cfg, outcome = Config(weights=weights, steps=100), torch.randn(12)
    teacher_logp = grpo.score(teacher, rows, cfg)
    found, stats = atod.token_advantages(rows, teacher_logp, outcome, cfg, 20)
    kappa, rho = schedule(20, 53)

    def delta(at):
        return float(teacher_logp[at] - rows.behaviour_logp[at])
    units = {}  # episode -> {turn, or token: [(row, column)]}
    for row, column in rows.mask.nonzero().tolist():
        mine = units.setdefault(int(rows.episode[row]), {})
        unit = len(mine) if weights == "token" else int(rows.turn_of_token[row, column])
        mine.setdefault(unit, []).append((row, column))
    weight = {}
    for episode, mine in units.items():
        d = [sum(abs(delta(at)) for at in turn) / len(turn) for turn in mine.values()]
        h = [sum(-float(rows.behaviour_logp[at]) for at in turn) / len(turn)
             for turn in mine.values()]
        of_units = t_dur(torch.tensor(d), torch.tensor(h)).tolist()
        weight.update({(episode, k): w for k, w in zip(mine, of_units)})
    mean = sum(weight.values()) / len(weight)
    assert stats["mean_w"] == pytest.approx(mean, abs=1e-5) and 0.1 < mean < 0.95

    expected = torch.zeros_like(found)
    for episode, mine in units.items():
        for k, turn in mine.items():
            w = {"one": 1.0, "uniform": mean}.get(weights, weight[episode, k])
            for at in turn:
                expected[at] = kappa * w * delta(at) + rho * outcome[episode]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not found[~rows.mask].any()


def test_every_episode_weighs_the_same_whatever_its_rows_and_a_failed_one_nothing():
    rows, episodes, *_ = played(context=45)
    valid = torch.ones(12, dtype=torch.bool)
    valid[5] = False
    weight = atod.trajectory_mean(rows, valid)
    total = torch.zeros(12).index_add_(0, rows.episode, weight.sum(1))
    torch.testing.assert_close(total, valid.float(), rtol=0, atol=1e-5)
    assert not weight[~rows.mask].any() and max(e["contexts"] for e in episodes) > 1
    for e in range(12):
        assert len(set(weight[(rows.episode == e)[:, None] & rows.mask].tolist())) == 1


def test_observations_never_have_gradient():
    rows, _, student, teacher = played()
    cfg = Config(steps=10)
    teacher_logp = grpo.score(teacher, rows, cfg)
    advantage, _ = atod.token_advantages(rows, teacher_logp, torch.randn(12), cfg, 5)
    seen = []

    def keep(module, inputs, output):
        seen.append(output)
        output.retain_grad()
    student.norm.register_forward_hook(keep)
    weight = atod.trajectory_mean(rows, torch.ones(12))
    grpo.loss(student, rows, weight, advantage, cfg)[0].backward()
    touched = (seen[0].grad.abs().sum(-1) > 0)[:, :-1]  # column t - 1 predicts token t
    assert torch.equal(touched, (rows.mask & (advantage != 0))[:, 1:])
    assert touched.any() and not touched.all()


def test_the_text_of_turns_and_their_weights():
    rows, episodes, *_ = played(context=45)
    tok = house_tokenizer()
    for index, episode in enumerate(episodes):
        turns = turns_of(rows[rows.episode == index], tok)
        assert [k for *_, k in turns] == list(range(episode["turns"]))
        assert turns[0][0].startswith("goal")
        assert turns[-1][1].replace("<|end|>", "") == episode["text"]


# ---- the command ----

@pytest.mark.parametrize("args", [
    "--mix fixed", "--weights token", "--weights uniform --minibatches 2",
    "--weights one --context 60"])
def test_every_arm_runs_from_nothing_to_the_table(command, args):
    code, out, err = command("--method", "atod", "--turns", "3", *args.split())
    assert code == 0 and not errors(err)
    for column in ("teacher", "before", "after", "after, greedy"):
        assert column in out
    assert "success" in out and "T-DUR" in out


def test_grpo_beside_them_is_the_same_code_with_another_mix(command):
    code, out, _ = command("--method", "atod", "--mix", "grpo", "--turns", "3")
    assert code == 0 and "atod on house" in out and "teacher, greedy" in out


def test_opd_is_atod_with_its_mix_and_weights(command):
    assert command("--method", "opd", "--turns", "3")[0] == 0
    own = "--method atod --turns 3 --mix opd --weights one --out other".split()
    assert command(*own)[0] == 0
    assert outcome() == outcome("other")
    assert Path("o/samples.txt").read_text() == Path("other/samples.txt").read_text()


def test_a_teacher_of_another_size_will_do_and_one_of_another_vocabulary_is_one_line(command):
    tok = house_tokenizer()
    other = tokenizer.train(["other words"], 300)
    for name, t in (("same.pt", tok), ("other.pt", other)):
        cfg = GPTConfig(t.n_vocab, 192, layers=3, heads=2, kv_heads=1, width=32, head_width=16,
                        ffn_width=32)
        torch.save({"model": GPT(cfg).state_dict(), "model_config": dataclasses.asdict(cfg),
                    "tokenizer": t.state()}, name)
    args = "--method opd --turns 3 --teacher-layers 3 --teacher same.pt --student".split()
    code, _, err = command(*args, "other.pt")
    assert code == 2 and len(errors(err)) == 1 and "vocabular" in err
    assert command(*args, "same.pt", "--out", "p")[0] == 0


@pytest.mark.parametrize("args, word", [
    ("--env guess --student-player restless", "plays the house alone"), ("--mix half", "mix"),
    ("--weights heavy", "weights"), ("--anneal 2", "--anneal"), ("--kl 1", "--kl"),
    ("--teacher-width 33", "teacher-width"), ("--senior x.pt", "--senior"),
    ("--junior x.pt", "--junior"), ("--env guess", "expert"), ("--minibatches 3", "--minibatches")])
def test_what_atod_refuses_is_one_line(command, args, word):
    code, _, err = command("--method", "atod", *args.split())
    assert code == 2 and len(errors(err)) == 1 and word in err


def test_a_teacher_that_reads_less_than_the_student_writes_is_one_line(command):
    short = "--method", "atod", "--turns", "1", "--steps", "1", "--out", "short"
    assert command(*short)[0] == 0
    code, _, err = command("--method", "atod", "--turns", "3", "--steps", "1", "--teacher", "short")
    assert code == 2 and "lower --turns or --context" in errors(err)[0]
