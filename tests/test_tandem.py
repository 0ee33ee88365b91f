"""Two authors, one chain: who writes the next token, its exact distribution by enumeration, and
games of many turns."""
import itertools
import math
import shutil
from collections import Counter

import pytest
import torch

from model import GPT, GPTConfig, token_logp
from sampler import Sampler, uniform
from tandem import TandemSampler, next_author

COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def tiny(seed, vocab=4, context=4, width=8):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocab, context, layers=1, heads=1, kv_heads=1, width=width, head_width=8,
                          ffn_width=16))
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
    """{(authors, tokens): probability}, by a walk over all coins and tokens. redraw(token, since)
    after a token, where since counts the tokens since the last draw; None in place of p: the other
    author takes over."""
    found, chance = Counter(), {}
    prefixes = (itertools.product(range(4), repeat=n) for n in range(3))
    for prefix in itertools.chain(*prefixes):
        for author, model in ((True, senior), (False, junior)):
            logits = model(torch.tensor([[0, *prefix]]))[0, -1].detach().double()
            chance[prefix, author] = logits.softmax(-1).tolist()

    def walk(authors, tokens, since, weight):  # authors holds that of the next token too
        if len(tokens) == 3:
            found[authors[:3], tokens] += weight
            return
        for token in range(4):
            one = weight * chance[tokens, authors[-1]][token]
            longer = tokens + (token,)
            if not redraw(token, since + 1):
                walk(authors + (authors[-1],), longer, since + 1, one)
            elif p is None:
                walk(authors + (not authors[-1],), longer, 0, one)
            else:
                walk(authors + (True,), longer, 0, one * p)
                walk(authors + (False,), longer, 0, one * (1 - p))

    walk((True,), (), 0, 1.0 if p is None else p)
    walk((False,), (), 0, 0.0 if p is None else 1 - p)
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
    how = schedule, Words(), " ", max_gap, 0.5 if p is None else p
    for batch in range(4):
        start(sampler, 15_000, schedule=how, what=batch)
        sampler.sample(3, ())
        columns = sampler.wrote, sampler.tokens, sampler.opens
        wrote, tokens, opens = (x[:, 1:4].tolist() for x in columns)
        authors_and_tokens.update(zip(map(tuple, wrote), map(tuple, tokens)))
        for row in range(100):  # `opens` marks the tokens before which the author was drawn
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
        assert torch.equal(team.length, alone.length)
        assert torch.equal(team.tokens[:, :-1], alone.tokens[:, :-1])
        for row in range(6):
            assert team.wrote[row, 1:team.length[row]].eq(p == 1).all()


def test_with_p_one_the_junior_is_not_run_and_is_when_it_may_write_again():
    """What was compiled or captured without it does not linger."""
    team, calls = TandemSampler(tiny(0, 9, 30), tiny(1, 9, 30), 6), []
    team.models[1].embed.register_forward_pre_hook(lambda *_: calls.append(1))
    for schedule, p, runs in (("word", 1.0, False), ("alternate", 1.0, True), ("word", 0.5, True),
                              ("step", 1.0, False), ("alternate", 0.5, True)):
        calls.clear()
        team.graph = "captured by a GPU"
        before = team.running
        start(team, 6, schedule=(schedule, Words([1], [3, 5]), " ", 3, p))
        assert (team.graph is None) == (team.running != before)
        team.graph = None
        team.sample(20, ())
        assert bool(calls) == runs and bool(team.wrote[:, 1:21].all()) != runs


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
    drawn = ["".join("|" if o else "." for o in row) for row in team.opens[:, 1:40].tolist()]
    runs = [len(run) for row in drawn for run in row.split("|")[1:]]
    assert max(runs) == 3 and {0, 1, 2} <= set(runs)  # tokens after the one that opens the run


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ValueError, match="unknown schedule"):
        TandemSampler(tiny(0), tiny(1), 2).set_schedule("words", Words(), " ", 2, 0.5)


# ---- every way to the same tokens and log-probs ----

def full_forwards_agree(team, schedule):
    start(team, len(team.tokens), schedule=schedule)
    team.sample(6, (8,))
    team.feed([1, 3], [[4, 5], [6]])  # a second turn
    team.sample(7, (8,))
    with torch.no_grad():
        for model, own in zip(team.models, (team.logp, team.junior_logp)):
            full = token_logp(model, team.tokens[:, :-1])
            assert own.ne(0).sum() > 40
            torch.testing.assert_close(own[:, :-1], full * own[:, :-1].ne(0), rtol=0, atol=1e-5)
    inside = torch.arange(team.context) < team.length[:, None]
    return [x[:, :-1] * inside for x in (team.tokens, team.wrote, team.opens)]


WORD = ("word", Words([2, 5]), " ", 3, 0.5)


def test_log_probs_of_both_models_equal_full_forwards_whoever_wrote():
    team = TandemSampler(tiny(0, 9, 20), tiny(1, 9, 20, width=16), 8)
    _, wrote, _ = full_forwards_agree(team, WORD)
    assert 0.2 < wrote.float().mean() < 0.8


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_compiled_equals_eager_under_every_schedule_in_the_same_graphs():
    models = tiny(0, 9, 20), tiny(1, 9, 20)
    eager, compiled = TandemSampler(*models, 8), TandemSampler(*models, 8, compile=True)
    graphs = [torch._dynamo.utils.counters["stats"]["unique_graphs"]]
    for schedule in (WORD, ("alternate", *WORD[1:]), ("chunk", *WORD[1:4], 0.9)):
        pairs = zip(full_forwards_agree(eager, schedule), full_forwards_agree(compiled, schedule))
        for a, b in pairs:
            assert torch.equal(a, b)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 1 <= graphs[1] - graphs[0] <= 4 and graphs[1] == graphs[2] == graphs[3]  # of slots


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_compiled_with_and_then_without_the_junior_equals_eager_too():
    models = tiny(0, 9, 20), tiny(1, 9, 20)
    eager, compiled = TandemSampler(*models, 8), TandemSampler(*models, 8, compile=True)
    for p in (1.0, 0.5, 1.0):
        for team in (eager, compiled):
            start(team, 8, schedule=(*WORD[:4], p)).sample(12, (8,))
        assert torch.equal(eager.length, compiled.length)
        for name in ("tokens", "wrote", "opens"):
            assert torch.equal(getattr(eager, name)[:, :-1], getattr(compiled, name)[:, :-1])


def test_rows_write_the_same_side_by_side_one_after_the_other_and_when_copied():
    plain, other = (start(TandemSampler(tiny(0, 9, 40), tiny(1, 9, 40), 16), 16, schedule=WORD)
                    for _ in range(2))
    order = [4, 1, 1, 5, *range(4, 16)]
    for turn in range(3):
        plain.sample(9, (8,))
        for row in reversed(range(16)):
            other.sample(9, (8,), rows=[row])  # the others wait
        if turn == 1:
            other.select(order)
    for name in ("tokens", "wrote", "opens"):
        assert torch.equal(getattr(other, name)[:, :-1], getattr(plain, name)[order, :-1])


# ---- games of many turns ----

@pytest.mark.parametrize("schedule, stop, ends_word", [
    ("word", 8, False), ("step", 8, False), ("chunk", 8, False), ("token", 8, True)])
def test_a_turn_begins_with_a_redraw(schedule, stop, ends_word):
    """Whatever the schedule, and however the turn before ended: the coin of that place in the
    episode decides."""
    team = TandemSampler(tiny(0, 9, 60), tiny(1, 9, 60), 40)
    start(team, 40, schedule=(schedule, Words([5], [6]), " ", 50, 0.5)).sample(6, (stop,))
    before, length, author = team.count.clone(), team.length.clone(), team.author.clone()
    team.feed(range(40), [[1, 2]] * 40)
    coin = uniform(team.author_key, before) < 0.5
    team.sample(4, (stop,))
    first = (torch.arange(40), length + 2)
    assert team.opens[first].all() and torch.equal(team.wrote[first], coin)
    assert not team.wrote[:, 0].any()
    # elsewhere the author of the turn before would have gone on
    assert (not torch.equal(author, coin)) != ends_word


def test_alternation_hands_over_at_a_turns_start_and_not_twice_where_a_newline_has_done_so():
    team = TandemSampler(tiny(0, 9, 60), tiny(1, 9, 60), 40)
    start(team, 40, schedule=("alternate", Words([1], [6]), " ", 2, 0.5)).sample(3, ())
    length = team.length.clone()
    last = team.tokens.gather(1, length[:, None] - 1)[:, 0]
    wrote = team.wrote.gather(1, length[:, None] - 1)[:, 0]
    team.feed(range(40), [[1, 6]] * 40)  # a newline of the environment's hands nothing over
    team.sample(2, ())
    # by the newline or by the turn, never by both
    assert team.wrote[torch.arange(40), length + 2].ne(wrote).all()
    assert 0 < last.eq(6).sum() < 40
