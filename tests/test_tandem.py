"""Two authors, one chain: its exact distribution by enumeration, the loss mask, and the metrics by hand."""
import itertools
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import envs
import grpo
import tandem
import tokenizer
from conftest import errors
from model import GPT, GPTConfig
from sampler import Sampler, uniform
from tandem import TandemSampler, next_author


def tiny(seed, vocab=4, context=4, width=8):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocab, context, layers=1, heads=1, kv_heads=1, width=width, head_width=8, ffn_width=16))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)  # further from uniform
    return model


class Words:
    """A vocabulary in which given ids end a word and others hold a newline."""
    def __init__(self, spaces=(2,), newlines=(3,)):
        self.ids = {" ": list(spaces), "\n": list(newlines)}

    def word_boundary_ids(self, mark=" "):
        return self.ids[mark]


def start(sampler, rows, prompt=(0,), schedule=None, what="test"):
    """Every row starts with the same prompt. schedule: arguments of set_schedule."""
    if schedule is not None:
        sampler.set_schedule(*schedule)
    sampler.start()
    sampler.feed(list(range(rows)), [list(prompt)] * rows)
    sampler.seed([(0, what, 0, row, 0) for row in range(rows)])
    return sampler


def test_next_author_by_hand():
    yes, no = True, False
    #        author since boundary coin -> author since
    cases = [(yes, 0, no, no, yes, 1),  # inside a word the author stays
             (no, 1, no, yes, no, 2),
             (yes, 1, yes, no, no, 0),  # a boundary redraws
             (yes, 1, yes, yes, yes, 0),  # and it is no toggle
             (no, 0, yes, no, no, 0),
             (yes, 3, no, no, no, 0),  # max_gap = 4 tokens in all
             (yes, 2, no, no, yes, 3),
             (no, 9, no, yes, yes, 0)]
    author, since, boundary, coin, *expected = (torch.tensor(column) for column in zip(*cases))
    found = next_author(author, since, boundary, coin, max_gap=4)
    assert [x.tolist() for x in found] == [x.tolist() for x in expected]


# ---- the exact distribution of (authors, tokens): vocabulary 4, three tokens ----

def exact_chain(senior, junior, p, redraw):
    """{(authors, tokens): probability}, by a walk over all coins and tokens. redraw(token, since) after a token, where since
    counts the tokens since the last draw; None in place of p: the other author takes over."""
    found, chance = Counter(), {}
    for prefix in itertools.chain(*(itertools.product(range(4), repeat=n) for n in range(3))):
        for author, model in ((True, senior), (False, junior)):
            chance[prefix, author] = model(torch.tensor([[0, *prefix]]))[0, -1].detach().double().softmax(-1).tolist()

    def walk(authors, tokens, since, weight):  # authors holds that of the next token too
        if len(tokens) == 3:
            found[authors[:3], tokens] += weight
            return
        for token in range(4):
            one = weight * chance[tokens, authors[-1]][token]
            if not redraw(token, since + 1):
                walk(authors + (authors[-1],), tokens + (token,), since + 1, one)
            elif p is None:
                walk(authors + (not authors[-1],), tokens + (token,), 0, one)
            else:
                walk(authors + (True,), tokens + (token,), 0, one * p)
                walk(authors + (False,), tokens + (token,), 0, one * (1 - p))

    for author, weight in ((True, 1.0 if p is None else p), (False, 0.0 if p is None else 1 - p)):
        walk((author,), (), 0, weight)
    return found


def chi_square(observed, exact, n):
    """Statistic and degrees of freedom; cells that expect fewer than 8 are one cell."""
    assert not [cell for cell in observed if not exact[cell]]  # nothing impossible
    cells = [cell for cell in exact if exact[cell] * n >= 8]
    pairs = [(observed[cell], exact[cell] * n) for cell in cells]
    pairs.append((n - sum(o for o, _ in pairs), n - sum(e for _, e in pairs)))
    return sum((o - e) ** 2 / e for o, e in pairs if e > 8), len(pairs) - 1


@pytest.mark.parametrize("schedule, max_gap, redraw, p", [
    ("word", 2, lambda token, since: token == 2 or since >= 2, 0.6),
    ("step", 2, lambda token, since: token == 3, 0.6),
    ("token", 2, lambda token, since: True, 0.3),
    ("chunk", 2, lambda token, since: since >= 2, 0.6),
    ("alternate", 2, lambda token, since: token == 3, None)])
def test_authors_and_tokens_follow_the_exact_chain(schedule, max_gap, redraw, p):
    senior, junior = tiny(0), tiny(1)
    exact = exact_chain(senior, junior, p, redraw)
    assert sum(exact.values()) == pytest.approx(1)
    n, authors_and_tokens = 60_000, Counter()
    sampler = TandemSampler(senior, junior, 15_000)
    for batch in range(4):
        start(sampler, 15_000, schedule=(schedule, Words(), " ", max_gap, 0.5 if p is None else p), what=batch)
        sampler.sample(3, ())
        wrote, tokens, opens = (x[:, 1:4].tolist() for x in (sampler.wrote, sampler.tokens, sampler.opens))
        authors_and_tokens.update(zip(map(tuple, wrote), map(tuple, tokens)))
        for row in range(100):  # `opens` marks exactly the tokens before which the author was drawn
            since, expected = 0, [True]
            for token in tokens[row][:2]:
                expected.append(redraw(token, since + 1))
                since = 0 if expected[-1] else since + 1
            assert opens[row] == expected
    for keep in (lambda cell: cell, lambda cell: cell[1]):  # jointly, and summed over authors
        seen, true = Counter(), Counter()
        for total, part in ((seen, authors_and_tokens), (true, exact)):
            for cell, value in part.items():
                total[keep(cell)] += value
        statistic, freedom = chi_square(seen, true, n)
        assert freedom > 20 and statistic < freedom + 4.5 * math.sqrt(2 * freedom)


def test_with_p_one_or_zero_one_of_the_two_writes_alone_and_as_in_a_sampler_of_its_own():
    senior, junior = tiny(0, 9, 30), tiny(1, 9, 30)
    team = TandemSampler(senior, junior, 6)
    for p, author in ((1.0, senior), (0.0, junior)):
        start(team, 6, schedule=("word", Words(), " ", 3, p)).sample(20, (8,))
        alone = start(Sampler(author, 6), 6)
        alone.sample(20, (8,))
        assert torch.equal(team.length, alone.length) and torch.equal(team.tokens[:, :-1], alone.tokens[:, :-1])
        for row in range(6):
            assert team.wrote[row, 1:team.length[row]].eq(p == 1).all()


def test_alternation_begins_with_the_senior_and_hands_over_exactly_at_newlines():
    team = TandemSampler(tiny(0, 6, 30), tiny(1, 6, 30), 20)
    team.set_schedule("token", Words(), " ", 1, 0.5)  # nothing of it lingers
    start(team, 20, schedule=("alternate", Words([1], [3, 5]), " ", 2, 0.5)).sample(29, ())
    handed = team.tokens[:, 1:29].eq(3) | team.tokens[:, 1:29].eq(5)
    assert team.wrote[:, 1].all() and 0.1 < handed.float().mean() < 0.9
    assert torch.equal(team.wrote[:, 2:30] ^ team.wrote[:, 1:29], handed)


def test_no_run_between_redraws_is_longer_than_max_gap():
    team = TandemSampler(tiny(0, 6, 40), tiny(1, 6, 40), 20)
    start(team, 20, schedule=("word", Words([2]), " ", 4, 0.5)).sample(39, ())
    runs = [len(run) for row in team.opens[:, 1:40].tolist() for run in "".join("|" if o else "." for o in row).split("|")[1:]]
    assert max(runs) == 3 and {0, 1, 2} <= set(runs)  # tokens after the one that opens the run


def full_forwards_agree(team, schedule):
    start(team, len(team.tokens), schedule=schedule)
    team.sample(6, (8,))
    team.feed([1, 3], [[4, 5], [6]])  # a second turn
    team.sample(7, (8,))
    with torch.no_grad():
        for model, own in zip(team.models, (team.logp, team.junior_logp)):
            full = grpo.token_logp(model, team.tokens[:, :-1])
            assert own.ne(0).sum() > 40
            torch.testing.assert_close(own[:, :-1], full * own[:, :-1].ne(0), rtol=0, atol=1e-5)
    inside = torch.arange(team.context) < team.length[:, None]
    return team.tokens[:, :-1] * inside, team.wrote[:, :-1] * inside, team.opens[:, :-1] * inside


WORD = ("word", Words([2, 5]), " ", 3, 0.5)


def test_log_probs_of_both_models_equal_full_forwards_whoever_wrote():
    _, wrote, _ = full_forwards_agree(TandemSampler(tiny(0, 9, 20), tiny(1, 9, 20, width=16), 8), WORD)
    assert 0.2 < wrote.float().mean() < 0.8


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_equals_eager_under_every_schedule_in_one_graph():
    models = tiny(0, 9, 20), tiny(1, 9, 20)
    eager, compiled = TandemSampler(*models, 8), TandemSampler(*models, 8, compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for schedule in (WORD, ("alternate", *WORD[1:]), ("chunk", *WORD[1:4], 0.9)):
        for a, b in zip(full_forwards_agree(eager, schedule), full_forwards_agree(compiled, schedule)):
            assert torch.equal(a, b)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1


def test_rows_write_the_same_side_by_side_one_after_the_other_and_when_copied():
    plain, other = (start(TandemSampler(tiny(0, 9, 40), tiny(1, 9, 40), 16), 16, schedule=WORD) for _ in range(2))
    order = [4, 1, 1, 5, *range(4, 16)]
    for turn in range(3):
        plain.sample(9, (8,))
        for row in reversed(range(16)):
            other.sample(9, (8,), rows=[row])  # the others wait
        if turn == 1:
            other.select(order)
    for name in ("tokens", "wrote", "opens"):
        assert torch.equal(getattr(other, name)[:, :-1], getattr(plain, name)[order, :-1])


# ---- the loss ----

TOK = tokenizer.train(["1+2=3\n#3", "5-4=1\n#1"] * 3, 270)


def team_rows(p=0.5):
    """A batch that a random team wrote on `arithmetic`."""
    models = tiny(0, TOK.n_vocab, 64), tiny(1, TOK.n_vocab, 64)
    team = TandemSampler(*models, 8)
    team.set_schedule("chunk", TOK, "\n", 3, p)
    names = [(0, "test", 0, task, sample) for task in range(2) for sample in range(4)]
    rows, _ = grpo.rollout(team, envs.Batch("arithmetic"), TOK, [0, 1], "train", names, grpo.Config(group=4, max_new=20))
    return team, rows


def test_a_missing_author_mask_and_an_unknown_schedule_are_errors():
    team, rows = team_rows()
    with pytest.raises(ValueError, match="unknown schedule"):
        team.set_schedule("words", Words(), " ", 2, 0.5)
    rows.author = None
    with pytest.raises(ValueError, match="author"):
        tandem.loss_mask(rows)


def test_loss_mask_is_what_the_senior_sampled_and_a_weight_for_the_junior():
    _, rows = team_rows()
    assert not (rows.author & ~rows.mask).any()
    mask, weighted = tandem.loss_mask(rows), tandem.loss_mask(rows, 0.25)
    assert torch.equal(mask, (rows.mask & rows.author).float())
    assert torch.equal(weighted, mask + 0.25 * (rows.mask & ~rows.author)) and 0 < mask.sum() < weighted.sum()


def test_logits_at_the_juniors_positions_get_exactly_no_gradient():
    team, rows = team_rows()
    seen, advantage = [], torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -1.0, 1.0, -2.0])
    team.models[0].norm.register_forward_hook(lambda module, inputs, output: seen.append(output) or output.retain_grad())
    for weight in (0.0, 0.5):
        mask = tandem.loss_mask(rows, weight)
        grpo.loss(team.models[0], rows, grpo.token_weights(mask), advantage, grpo.Config())[0].backward()
        touched = seen[-1].grad.abs().sum(-1) > 0  # [R, T]: column t - 1 predicts token t
        assert torch.equal(touched[:, :-1], (rows.mask & (rows.author | (weight > 0)))[:, 1:])


def test_author_stats_by_hand():
    rows = SimpleNamespace(tokens=torch.zeros(2, 6), mask=torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0]]).bool(),
                           author=torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool())
    rows.opens = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0]]).bool()  # the last one is not sampled
    stats = tandem.author_stats(rows)
    assert stats == {"senior_share": 2 / 6, "redraws": 4, "senior_draws": 1 / 4, "run_length": 6 / 4}


def test_a_broken_coin_is_noticed_and_a_fair_one_is_not():
    for p in (0.5, 0.75, 1.0):
        stats = tandem.author_stats(team_rows(p)[1])
        assert stats["redraws"] > 40 and stats["run_length"] <= 3 and not tandem.share_is_off(stats, p)
        assert tandem.share_is_off(stats, 0.05)
    assert tandem.share_is_off({"senior_draws": 0.55, "redraws": 10_000}, 0.5)
    assert not tandem.share_is_off({"senior_draws": 0.55, "redraws": 100}, 0.5)


@pytest.mark.parametrize("temperature, micro_rows", [(1.0, 128), (0.7, 1)])
def test_legibility_drift_and_exact_kl_by_hand(temperature, micro_rows):
    senior, junior = tiny(0, 5, 6), tiny(1, 5, 6)
    tokens = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]]).bool()
    rows = grpo.Rows(tokens, mask, *[torch.zeros(3, 6)] * 2, *[torch.zeros(3)] * 2)
    sums = {"legibility": [0.0] * 3, "log_ratio": [0.0] * 3, "kl": [0.0] * 3}
    for row, t in mask.nonzero().tolist():
        with torch.no_grad():
            p, q = ((m(tokens[row:row + 1, :t])[0, -1] / temperature).double().softmax(-1).tolist() for m in (senior, junior))
        token = int(tokens[row, t])
        sums["legibility"][row] -= math.log(q[token])
        sums["log_ratio"][row] += math.log(p[token] / q[token])
        sums["kl"][row] += sum(a * math.log(a / b) for a, b in zip(p, q))
    found = tandem.follow(senior, junior, [rows[:2], rows[2:]], temperature, micro_rows)
    for name, by_chain in sums.items():
        mean = sum(by_chain) / 8
        error = math.sqrt(sum((total - mean * n) ** 2 for total, n in zip(by_chain, (4, 3, 1)))) / 8
        assert found[name] == (pytest.approx(mean, abs=1e-5), pytest.approx(error, abs=1e-5))


def test_retention_is_handoff_over_solo_on_the_same_problems(monkeypatch):
    won = {False: [1, 1, 1, 0, 1, 1, 1, 1], True: [1, 0, 0, 0]}  # 4 problems x 2 chains alone, the first 2 problems as a team

    def played(sampler, *_):
        episodes = [{"reward": float(w), "success": bool(w)} for w in won[isinstance(sampler, TandemSampler)]]
        return grpo.summary(episodes, 2), [], episodes
    monkeypatch.setattr(grpo, "evaluate", played)
    monkeypatch.setattr(tandem, "follow", lambda *_: {})
    senior = tiny(0, TOK.n_vocab, 64)
    found = tandem.evaluate(Sampler(senior, 8), TandemSampler(senior, tiny(1, TOK.n_vocab, 64), 8), envs.Batch("arithmetic"), TOK,
                            grpo.Config(), tandem.Config(), "valid", 4, 2, seed=0)
    assert found["retention@1"][0] == pytest.approx((1 / 4) / (3 / 4)) and found["retention@2"][0] == pytest.approx(0.5 / 1.0)


def test_evaluation_returns_every_metric_of_the_paper():
    senior, env, cfg = tiny(0, TOK.n_vocab, 64), envs.Batch("arithmetic"), grpo.Config()
    solo, team = Sampler(senior, 16), TandemSampler(senior, tiny(1, TOK.n_vocab, 64), 16)
    found = tandem.evaluate(solo, team, env, TOK, cfg, tandem.Config(), "valid", 6, 4, seed=0)
    expected = {"malformed", "truncated", "legibility", "log_ratio", "kl"}
    expected |= {f"{what} pass@{k}" for what in ("solo", "step handoff", "training handoff") for k in (1, 4)}
    assert expected <= set(found) and "retention@1" not in found  # nobody was right: nothing to retain
    assert all(math.isfinite(x or 0.0) for value in found.values() for x in value)
    assert found["kl"][0] > 0 and found["legibility"][0] > 0 and found["truncated"][0] > 0.5
    alone = tandem.evaluate(solo, None, env, TOK, cfg, tandem.Config(), "valid", 6, 4, seed=0)
    assert "kl" not in alone and alone["solo pass@1"] == found["solo pass@1"]


# ---- games of many turns ----

@pytest.mark.parametrize("schedule, stop, ends_word", [("word", 8, False), ("step", 8, False), ("chunk", 8, False), ("token", 8, True)])
def test_a_turn_begins_with_a_redraw(schedule, stop, ends_word):
    """Whatever the schedule, and however the turn before ended: the coin of that place in the episode decides."""
    team = TandemSampler(tiny(0, 9, 60), tiny(1, 9, 60), 40)
    start(team, 40, schedule=(schedule, Words([5], [6]), " ", 50, 0.5)).sample(6, (stop,))
    before, length, author = team.count.clone(), team.length.clone(), team.author.clone()
    team.feed(range(40), [[1, 2]] * 40)
    coin = uniform(team.author_key, before) < 0.5
    team.sample(4, (stop,))
    first = (torch.arange(40), length + 2)
    assert team.opens[first].all() and torch.equal(team.wrote[first], coin) and not team.wrote[:, 0].any()
    assert (not torch.equal(author, coin)) != ends_word  # elsewhere the author of the turn before would have gone on


def test_alternation_hands_over_at_a_turns_start_and_not_twice_where_a_newline_has_just_done_so():
    team = TandemSampler(tiny(0, 9, 60), tiny(1, 9, 60), 40)
    start(team, 40, schedule=("alternate", Words([1], [6]), " ", 2, 0.5)).sample(3, ())
    last, length = team.tokens.gather(1, team.length[:, None] - 1)[:, 0], team.length.clone()
    wrote = team.wrote.gather(1, length[:, None] - 1)[:, 0]
    team.feed(range(40), [[1, 6]] * 40)  # a newline of the environment's hands nothing over
    team.sample(2, ())
    assert team.wrote[torch.arange(40), length + 2].ne(wrote).all()  # by the newline or by the turn, never by both
    assert 0 < last.eq(6).sum() < 40


def test_in_a_world_of_one_notation_the_junior_is_only_smaller(command):
    code, out, err = command("--method", "tandem", "--env", "guess", "--steps", "1")
    assert (code, errors(err)) == (0, []) and "step handoff pass@1" in out
    assert json.loads(Path("o/config.json").read_text())["junior_skill"] == "senior"
