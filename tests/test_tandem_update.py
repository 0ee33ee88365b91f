"""What tandem makes of a batch: the loss mask, how the writing was shared, the metrics by hand, and
that with p = 1 it is GRPO."""
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import envs
import grpo
import rollout
import run
import sft
import tandem
import tokenizer
import train
from conftest import MOVING, errors, metrics, tiny as options
from rollout import Rows, Sampling
from sampler import Sampler
from tandem import Config, TandemSampler
from test_tandem import tiny

TOK = tokenizer.train(["1+2=3\n#3", "5-4=1\n#1"] * 3, 270)


def team_rows(p=0.5):
    """A batch that a random team wrote on `arithmetic`."""
    models = tiny(0, TOK.n_vocab, 64), tiny(1, TOK.n_vocab, 64)
    team = TandemSampler(*models, 8)
    team.set_schedule("chunk", TOK, "\n", 3, p)
    names = [(0, "test", 0, task, sample) for task in range(2) for sample in range(4)]
    rows, _ = rollout.rollout(team, envs.Batch("arithmetic"), TOK, [0, 1], "train", names,
                              Sampling(4, max_new=20))
    return team, rows


# ---- the loss ----

def test_a_missing_author_mask_is_an_error():
    _, rows = team_rows()
    rows.author = None
    with pytest.raises(ValueError, match="author"):
        tandem.loss_mask(rows)


def test_loss_mask_is_what_the_senior_sampled_and_a_weight_for_the_junior():
    _, rows = team_rows()
    assert not (rows.author & ~rows.mask).any()
    mask, weighted = tandem.loss_mask(rows), tandem.loss_mask(rows, 0.25)
    assert torch.equal(mask, (rows.mask & rows.author).float())
    assert torch.equal(weighted, mask + 0.25 * (rows.mask & ~rows.author))
    assert 0 < mask.sum() < weighted.sum()


def test_logits_at_the_juniors_positions_get_exactly_no_gradient():
    team, rows = team_rows()
    seen, advantage = [], torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -1.0, 1.0, -2.0])[:, None]

    def keep(module, inputs, output):
        seen.append(output)
        output.retain_grad()
    team.models[0].norm.register_forward_hook(keep)
    for weight in (0.0, 0.5):
        mask = tandem.loss_mask(rows, weight)
        weights = grpo.token_weights(mask)
        grpo.loss(team.models[0], rows, weights, advantage, grpo.Config())[0].backward()
        touched = seen[-1].grad.abs().sum(-1) > 0  # [R, T]: column t - 1 predicts token t
        expected = rows.mask & (rows.author | (weight > 0))
        assert torch.equal(touched[:, :-1], expected[:, 1:])


# ---- p = 1 ----

def test_with_p_one_tandem_is_grpo_number_by_number_and_the_junior_rests(command):
    """Two updates of both, of the same warm start: every number that both write is the same."""
    changes = "--env guess --warm-steps 60 --group 4 --steps 2 --minibatches 2".split()
    found, weights, calls = {}, {}, []
    for name in ("grpo", "tandem"):
        args = options("--cache", "warm", "--method", name, *changes, "--out", name)
        if name == "tandem":
            args += ["--p", "1"]
        method, cfg = train.read_options(args)
        r = train.start(method, cfg)
        if name == "tandem":
            junior = r.team.sources[1]
            junior.embed.register_forward_pre_hook(lambda *_: calls.append(1))
        found[name] = []
        for _ in range(2):
            found[name].append(method.step(r))
            r.step += 1
        weights[name] = r.model.state_dict()
    assert not calls
    for one, other in zip(found["grpo"], found["tandem"]):
        assert one["grad_norm"] > 0 and other["senior_share"] == 1
        timed = {name for name in one if name.startswith("time_") or name.endswith("_per_s")}
        for name in one.keys() - timed:
            assert one[name] == other[name], name
    assert all(torch.equal(x, weights["tandem"][name]) for name, x in weights["grpo"].items())
    assert any(not torch.equal(x, r.warm[name]) for name, x in weights["grpo"].items())


def test_a_run_at_p_one_is_graded_by_a_team_in_which_both_write(command):
    assert tandem.handoffs(Config(p=1.0)) == {
        "step handoff": ("alternate", 1.0), "training handoff": ("word", 0.5)}
    assert tandem.handoffs(Config(p=0.7, schedule="chunk"))["training handoff"] == ("chunk", 0.7)
    assert command(*MOVING["tandem"], "--p", "1", "--steps", "1")[0] == 0
    after = json.loads(Path("o/result.json").read_text())["after"]
    assert after["kl"][0] > 0 and {"step handoff pass@2", "training handoff pass@2"} <= set(after)


# ---- annealed: p of an update ----

def test_p_stays_for_its_share_of_the_updates_and_ends_where_it_is_told():
    late = Config(steps=201, p=0.5, p_end=1.0)
    found = [tandem.p_at(late, step) for step in (0, 100, 150, 200)]
    assert found[:2] == [0.5, 0.5] and found[3] == 1.0
    assert found[2] == pytest.approx(0.5 + 0.5 * (150 - 100.5) / (200 - 100.5))
    early = Config(steps=201, p=0.5, p_end=1.0, p_from=0.0)
    assert [tandem.p_at(early, step) for step in (0, 100, 200)] == [0.5, 0.75, 1.0]
    assert {tandem.p_at(Config(steps=201, p=0.3), step) for step in (0, 100, 200)} == {0.3}
    short = Config(steps=20, p_end=1.0, p_from=0.96)  # the last update is at p_end in any case
    assert [tandem.p_at(short, step) for step in (0, 18, 19)] == [0.5, 0.5, 1.0]
    assert tandem.p_at(Config(steps=1, p_end=1.0), 0) == 1.0
    # the same senior tokens as p = .625 all along
    mean = sum(tandem.p_at(Config(steps=200, p_end=1.0), step) for step in range(200)) / 200
    assert mean == pytest.approx(0.625, abs=0.002)


def test_an_annealed_run_ends_with_the_senior_alone(command):
    code, _, err = command("--method", "tandem", "--env", "guess", "--p-end", "1", "--steps", "4")
    assert code == 0 and "draws at p" not in err
    lines = metrics()
    assert [line["p"] for line in lines] == pytest.approx([0.5, 0.5, 0.5, 1.0])
    assert lines[-1]["senior_share"] == 1.0 > lines[0]["senior_share"]


# ---- metrics ----

def test_author_stats_by_hand(monkeypatch):
    mask = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0]]).bool()
    author = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    opens = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0]]).bool()  # the last is no sample
    rows = SimpleNamespace(tokens=torch.zeros(2, 6), mask=mask, author=author, opens=opens)
    assert tandem.author_stats(rows, "word", 0.5) == {
        "p": 0.5, "senior_share": 2 / 6, "redraws": 4, "senior_draws": 1 / 4, "run_length": 6 / 4}

    # another rank, whose senior wrote nothing
    monkeypatch.setattr(run, "all_sum", lambda x: x + torch.tensor([6, 0, 4, 0]))
    assert tandem.author_stats(rows, "chunk", 0.125) == {
        "p": 0.125, "senior_share": 2 / 12, "redraws": 8, "senior_draws": 1 / 8, "run_length": 12 / 8}


def test_a_broken_coin_is_noticed_and_a_fair_one_is_not(capsys):
    for p in (0.5, 0.75, 1.0):
        rows = team_rows(p)[1]
        stats = tandem.author_stats(rows, "word", p)
        assert stats["redraws"] > 40 and stats["run_length"] <= 3
        assert not tandem.share_is_off(stats, p) and not capsys.readouterr().err
        assert tandem.share_is_off(stats, 0.05)
        tandem.author_stats(rows, "alternate", 0.05)  # which has no coin
        assert not capsys.readouterr().err
        tandem.author_stats(rows, "word", 0.05)
        assert "draws at p = 0.05" in capsys.readouterr().err
    assert tandem.share_is_off({"senior_draws": 0.55, "redraws": 10_000}, 0.5)
    assert not tandem.share_is_off({"senior_draws": 0.55, "redraws": 100}, 0.5)


@pytest.mark.parametrize("temperature, micro_rows", [(1.0, 128), (0.7, 1)])
def test_legibility_drift_and_exact_kl_by_hand(temperature, micro_rows):
    senior, junior = tiny(0, 5, 6), tiny(1, 5, 6)
    tokens = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = [[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]]
    mask = torch.tensor(mask).bool()
    problem = torch.tensor([0, 0, 1])  # its chains are not independent
    rows = Rows(tokens, mask, *[torch.zeros(3, 6)] * 2, torch.arange(3), problem)
    sums = {"legibility": [0.0] * 3, "log_ratio": [0.0] * 3, "kl": [0.0] * 3}

    def chances(model, row, t):
        logits = model(tokens[row:row + 1, :t])[0, -1].detach() / temperature
        return logits.double().softmax(-1).tolist()
    for row, t in mask.nonzero().tolist():
        p, q = (chances(model, row, t) for model in (senior, junior))
        token = int(tokens[row, t])
        sums["legibility"][row] -= math.log(q[token])
        sums["log_ratio"][row] += math.log(p[token] / q[token])
        sums["kl"][row] += sum(a * math.log(a / b) for a, b in zip(p, q))
    other = rows[2:]
    other.group = torch.tensor([0])  # a batch counts its problems anew
    found = tandem.follow(senior, junior, [rows[:2], other], temperature, micro_rows)
    for name, by_chain in sums.items():
        mean = sum(by_chain) / 8
        first, second, third = (total - mean * n for total, n in zip(by_chain, (4, 3, 1)))
        error = math.hypot(first + second, third) / 8
        assert found[name] == (pytest.approx(mean, abs=1e-5), pytest.approx(error, abs=1e-5))


def graded(k, rows=16):
    """What tandem.measure looks at of a run."""
    senior = tiny(0, TOK.n_vocab, 64)
    team = TandemSampler(senior, tiny(1, TOK.n_vocab, 64), rows)
    cfg = Config(test_chains=k, final_split="valid")
    return SimpleNamespace(cfg=cfg, env=envs.Batch("arithmetic"), tok=TOK, team=team,
                           solo=Sampler(senior, rows))


def test_retention_is_handoff_over_solo_on_the_same_problems(monkeypatch):
    won = {False: [1, 1, 1, 0, 1, 1, 1, 1],  # 4 problems x 2 chains alone
           True: [1, 0, 0, 0]}  # the first 2 problems as a team

    def played(sampler, *_):
        team = isinstance(sampler, TandemSampler)
        episodes = [{"reward": float(w), "success": bool(w)} for w in won[team]]
        return {"n": len(episodes) // 2, "k": 2, **rollout.summary(episodes, 2)}, [], episodes
    monkeypatch.setattr(tandem, "evaluate", played)
    monkeypatch.setattr(tandem, "follow", lambda *_: {})
    found = tandem.measure(graded(2), 4)
    assert found["retention@1"][0] == pytest.approx((1 / 4) / (3 / 4))
    assert found["retention@2"][0] == pytest.approx(0.5 / 1.0)


def test_a_team_that_never_succeeds_retains_nothing(monkeypatch):
    def played(sampler, *_):
        won = 0.0 if isinstance(sampler, TandemSampler) else 1.0
        episodes = [{"reward": won, "success": bool(won)}] * 4
        return {"n": 2, "k": 2, **rollout.summary(episodes, 2)}, [], episodes
    monkeypatch.setattr(tandem, "evaluate", played)
    monkeypatch.setattr(tandem, "follow", lambda *_: {})
    assert tandem.measure(graded(2), 2)["retention@1"] == (0, 0)


def test_evaluation_returns_every_metric_of_the_paper():
    r = graded(4)
    found = tandem.measure(r, 6)
    expected = {"malformed", "truncated", "legibility", "log_ratio", "kl"}
    handed = ("solo", "step handoff", "training handoff")
    expected |= {f"{what} pass@{k}" for what in handed for k in (1, 4)}
    assert expected <= set(found)
    assert "retention@1" not in found  # nobody was right: nothing to retain
    assert all(math.isfinite(x or 0.0) for value in found.values() for x in value)
    assert found["kl"][0] > 0 and found["legibility"][0] > 0 and found["truncated"][0] > 0.5
    alone = sft.measure(r, 6)  # where there is no junior
    assert "kl" not in alone and alone["solo pass@1"] == found["solo pass@1"]


# ---- the command ----

def test_in_a_world_of_one_notation_the_junior_is_only_smaller(command):
    code, out, err = command("--method", "tandem", "--env", "guess", "--steps", "1")
    assert (code, errors(err)) == (0, []) and "step handoff pass@1" in out
    assert json.loads(Path("o/config.json").read_text())["junior_skill"] == "senior"
