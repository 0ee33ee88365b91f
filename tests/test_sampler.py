"""Random numbers, the draw, and that all ways to compute a row's tokens agree: compiled, eager
cache, full forward."""
import copy
import random
import shutil

import pytest
import torch

import grpo
import sampler as module
from model import GPT, GPTConfig, token_logp
from sampler import Sampler, choose_compile, draw, generate, row_key, sampling_dtype, uniform

VOCAB = 11
COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def tiny(seed=0, context=24, **options):
    """A random model whose norms and biases are not 1 and 0 either, and whose distribution is far
    from uniform."""
    torch.manual_seed(seed)
    cfg = dict(vocab_size=VOCAB, context=context, layers=2, heads=2, kv_heads=2, width=16,
               head_width=8, ffn_width=24)
    model = GPT(GPTConfig(**{**cfg, **options}))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.3 if p.dim() == 1 else 0.15))
    return model


def names(n, what="test"):
    return [(0, what, 0, i, 0) for i in range(n)]


def start(sampler, prompts, what="test"):
    sampler.start()
    sampler.feed(list(range(len(prompts))), prompts)
    sampler.seed(names(len(prompts), what))
    return sampler


def texts(sampler):
    return [row[:n].tolist() for row, n in zip(sampler.tokens, sampler.length)]


def behaviour(sampler, model=None):
    """What the sampler recorded and the log-probs of a full forward on the same text, over all
    columns."""
    inside = torch.arange(sampler.context) < sampler.length[:, None]
    with torch.no_grad():
        full = token_logp(model or sampler.models[0], sampler.tokens[:, :-1])
    return sampler.logp[:, :-1] * inside, full * inside


PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0], [3, 3]]


# ---- random numbers and the draw ----

def test_uniform_numbers_have_the_right_mean_variance_and_histogram():
    key = torch.tensor([row_key("token", *name) for name in names(400)])
    u = torch.stack([uniform(key, torch.full_like(key, c)) for c in range(100)], 1)  # [400, 100]
    assert u.min() >= 0 and u.max() < 1 and torch.equal(u * 2**24, (u * 2**24).round())
    assert abs(u.mean() - 0.5) < 4 / (12 * u.numel()) ** 0.5
    assert abs(u.var() - 1 / 12) < 4 / (180 * u.numel()) ** 0.5
    count = torch.histc(u, 64, 0, 1)
    assert ((count - 625) ** 2 / 625).sum() < 63 + 5 * 126**0.5  # chi-square
    assert u.unique().numel() > u.numel() - 150  # 40,000 draws of 2^24 values: about 48 coincide


@pytest.mark.parametrize("shift", [(0, 1), (0, 2), (1, 0), (1, 1), (1, -1)])
def test_neighbouring_keys_and_counts_are_not_correlated(shift):
    named = torch.tensor([row_key(i) for i in range(400)])
    for key in (torch.arange(400), torch.arange(400) << 31, named):
        u = torch.stack([uniform(key, torch.full_like(key, c)) for c in range(100)], 1)
        a, b = u[1:, 1:-1].flatten(), u.roll(shift, (0, 1))[1:, 1:-1].flatten()
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / len(a) ** 0.5
        assert (a == b).float().mean() < 0.001


def test_uniform_depends_on_all_of_the_key_and_only_on_key_and_count():
    key = torch.tensor([row_key("a")])
    flipped = torch.cat([key ^ (1 << bit) for bit in range(62)])
    u, zero = uniform(flipped, torch.zeros_like(flipped)), torch.zeros(1, dtype=torch.long)
    assert u.unique().numel() == 62 and not u.eq(uniform(key, zero)).any()
    assert torch.equal(u[7:8], uniform(flipped[7:8], zero))
    table = uniform(flipped[:, None], torch.arange(3))  # [62, 1] and [3] -> [62, 3], as in ahead()
    assert torch.equal(table[:, 0], u) and table.unique().numel() == 3 * 62


LAST = 1 - 2.0**-24


@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-30, 1e30])
def test_tokens_of_probability_zero_are_never_drawn_at_either_end(scale):
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(4000, 9, generator=generator)
    probs *= torch.rand(4000, 9, generator=generator) < 0.4
    last = torch.eye(9).flip(0) * 1e-6 + torch.eye(9)
    probs = torch.cat([probs[probs.sum(1) > 0], torch.eye(9), last]) * scale
    for u in (0.0, LAST):
        token = draw(probs, torch.full((len(probs),), u))
        possible = probs > 0
        end = possible.int().argmax(1) if u == 0 else 8 - possible.flip(1).int().argmax(1)
        assert possible.gather(1, token[:, None]).all()
        if u == 0:
            assert torch.equal(token, end)  # the first possible token
    wide = torch.tensor([[0.0, 1.0, 2.0, 0.0, 1.0, 0.0]]) * scale
    drawn = [draw(wide, torch.tensor([u])).item() for u in (0.0, 0.2, 0.3, 0.7, 0.8, LAST)]
    assert drawn == [1, 1, 2, 2, 4, 4]


def test_draw_follows_the_distribution():
    probs = torch.tensor([0.0, 0.4, 0.1, 0.3, 0.0, 0.2])
    u = (torch.arange(10000) + 0.5) / 10000  # every quantile once
    count = torch.bincount(draw(probs.expand(10000, 6) * 7, u), minlength=6)
    assert (count - probs * 10000).abs().max() <= 1


# ---- every way to the same tokens and log-probs ----

@pytest.mark.parametrize("options", [
    {}, {"kv_heads": 1}, {"heads": 4, "kv_heads": 2, "qk_norm": True}, {"qkv_bias": True},
    {"tied": False, "head_width": 4}], ids=str)
def test_cache_equals_full_forward(options):
    model = tiny(**options)
    sampler = start(Sampler(model, 4), PROMPTS)
    before = sampler.sample(12, (0,))
    own, full = behaviour(sampler)
    assert (sampler.length > before + 3).any() and own.min() < -1
    sampled = (torch.arange(24) >= before[:, None]) & (torch.arange(24) < sampler.length[:, None])
    assert torch.equal(own != 0, sampled)
    torch.testing.assert_close(own, full * sampled, rtol=0, atol=1e-5)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_compiled_equals_eager_follows_the_weights_and_compiles_once():
    model = tiny(layers=1, width=32, heads=1, kv_heads=1, head_width=32, ffn_width=32)
    eager, compiled = Sampler(model, 4), Sampler(model, 4, compile=True)

    def both(*args, **options):
        for sampler in (eager, compiled):
            start(sampler, PROMPTS).sample(*args, **options)
        assert texts(eager) == texts(compiled)
        torch.testing.assert_close(eager.logp, compiled.logp, rtol=0, atol=1e-5)
        return texts(compiled)

    first = both(9, (0,))
    own, full = behaviour(compiled)
    torch.testing.assert_close(own, full * own.ne(0), rtol=0, atol=1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 1
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    assert both(9, (0,)) != first
    both(7, (1, 2), temperature=0.6, rows=[2, 0])
    assert 2 <= len({compiled.slots_for(n) for n in range(1, 25)}) <= 4
    assert all(n <= compiled.slots_for(n) <= 24 for n in range(1, 25))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_the_sampled_distribution_is_the_models():
    """4,000 rows draw one token each: shares against the softmax, at temperature 1 and at 2."""
    model = tiny(context=4)
    for temperature in (1.0, 2.0):
        sampler = start(Sampler(model, 4000), [[3, 1]] * 4000)
        sampler.sample(1, (), temperature=temperature)
        share = torch.bincount(sampler.tokens[:, 2], minlength=VOCAB) / 4000
        with torch.no_grad():
            exact = (model(torch.tensor([[3, 1]]))[0, -1] / temperature).softmax(-1)
        error = (exact * (1 - exact) / 4000).sqrt()
        assert exact.max() > 0.15 and ((share - exact).abs() < 4.5 * error).all()


def test_tokens_of_a_row_do_not_depend_on_its_neighbours_or_its_place():
    model = tiny()
    sampler = start(Sampler(model, 4), PROMPTS)
    sampler.sample(10, (0,))
    expected = texts(sampler)
    sampler.start()
    order, others = [3, 0], [[8, 8, 8, 8], [9]]
    sampler.feed([0, 1, 2, 3], [PROMPTS[3], others[0], PROMPTS[0], others[1]])
    sampler.seed([names(4)[3], (5,), names(4)[0], (6,)])
    sampler.sample(10, (0,))
    assert [texts(sampler)[row] for row in (0, 2)] == [expected[row] for row in order]


def test_turns_of_any_mix_of_rows_equal_one_full_forward():
    """Feed some rows, feed others, sample, feed again, in any order, with ids of any number, up to
    the context's end."""
    model, dice = tiny(context=24), random.Random(0)

    def some_ids(n):
        return [dice.randrange(VOCAB) for _ in range(n)]
    for trial in range(6):
        sampler = Sampler(model, 5)
        sampler.start()
        order = dice.sample(range(5), 5)
        sampler.feed(order, [some_ids(dice.randint(1, 4)) for _ in order])
        sampler.seed(names(5, trial))
        sampled = torch.zeros(5, 24, dtype=torch.bool)
        for _ in range(12):
            rows = dice.sample(range(5), dice.randint(1, 5))
            room = {row: 24 - int(sampler.length[row]) for row in rows}
            ids = [some_ids(min(room[row], dice.choice([0, 1, 2, 5]))) for row in rows]
            ids[0] = ids[0] or ([7] if room[rows[0]] else [])
            expected = {row: texts(sampler)[row] + new for row, new in zip(rows, ids)}
            if any(ids):
                sampler.feed(rows, ids)
                assert {row: texts(sampler)[row] for row in rows} == expected
            n, some = dice.randint(1, 4), dice.sample(range(5), dice.randint(1, 5))
            before = sampler.sample(n, (0,), rows=some)
            column = torch.arange(24)
            sampled |= (column >= before[:, None]) & (column < sampler.length[:, None])
        own, full = behaviour(sampler)
        torch.testing.assert_close(own, full * sampled, rtol=0, atol=1e-5)
        assert sampler.length.max() == 24


def test_feeding_nothing_changes_nothing():
    plain, fed = (start(Sampler(tiny(), 4), PROMPTS) for _ in range(2))
    fed.feed([2, 0], [[], []])
    for sampler in (plain, fed):
        sampler.sample(6, ())
    assert texts(plain) == texts(fed)


def test_a_row_that_outgrows_its_context_is_an_error_and_changes_nothing():
    sampler = start(Sampler(tiny(context=10), 4), PROMPTS)
    sampler.sample(2, ())
    state = copy.deepcopy(sampler.whole)
    with pytest.raises(OverflowError, match="11 tokens .* context of 10"):
        sampler.feed([0, 2], [[1], [1, 2]])
    leaves = torch.utils._pytree.tree_leaves
    for old, new in zip(leaves(state), leaves(sampler.whole)):
        assert torch.equal(old, new)
    sampler.feed([2, 0], [[1], [1]])  # exactly full
    before = sampler.sample(5, ())
    assert sampler.length.tolist() == [10, 8, 10, 9] and before.tolist() == [6, 3, 10, 4]
    own, full = behaviour(sampler)
    torch.testing.assert_close(own, full * own.ne(0), rtol=0, atol=1e-5)


# ---- select, stopping, temperature, bf16 ----

def test_a_shared_prompt_is_the_same_as_one_prompt_a_row():
    model = tiny()
    plain = start(Sampler(model, 4), [PROMPTS[0], PROMPTS[0], PROMPTS[2], PROMPTS[2]])
    shared = Sampler(model, 4)
    shared.start()
    shared.feed([0, 1], [PROMPTS[0], PROMPTS[2]])
    shared.select([0, 0, 1, 1])
    shared.seed(names(4))
    for sampler in (plain, shared):
        sampler.sample(8, (0,))
    assert texts(plain) == texts(shared) and texts(plain)[0] != texts(plain)[1]
    torch.testing.assert_close(plain.logp, shared.logp, rtol=0, atol=1e-5)


def test_compaction_in_the_middle_of_an_episode_continues_the_same_episodes():
    plain, compacted = (start(Sampler(tiny(), 4), PROMPTS) for _ in range(2))
    for sampler in (plain, compacted):
        sampler.sample(6, (0, 5, 9))
    assert len(set(plain.count.tolist())) > 2
    compacted.select([3, 1, 3, 3])
    for sampler, rows in ((plain, [3, 1]), (compacted, [0, 1])):
        sampler.feed(rows, [[5, 6], [7]])
        sampler.sample(8, (), rows=rows)
    assert texts(compacted)[:2] == [texts(plain)[3], texts(plain)[1]]
    torch.testing.assert_close(compacted.logp[:2], plain.logp[[3, 1]], rtol=0, atol=1e-5)


def test_temperature_zero_takes_the_largest_logit():
    model = tiny()
    sampler = start(Sampler(model, 4), PROMPTS)
    sampler.sample(8, (), temperature=0)
    for prompt, text in zip(PROMPTS, texts(sampler)):
        while len(prompt) < len(text):
            with torch.no_grad():
                prompt = prompt + [int(model(torch.tensor([prompt]))[0, -1].argmax())]
        assert text == prompt
    assert sampler.logp.min() > -1e-4
    sampler.sample(2, (), temperature=1.0)  # and the next call is not greedy
    assert sampler.logp.min() < -0.1


def test_rows_stop_at_a_stop_token_or_the_limit_and_others_stay_as_they_are():
    sampler = start(Sampler(tiny(context=60), 5), [[1, 2]] * 4)  # a fifth row that nobody fed
    stops, ends = (3, 8), 0
    for turn in range(8):
        old = texts(sampler)
        before = sampler.sample(4, stops, rows=[3, 0, 1])
        assert before.tolist() == [len(text) for text in old]
        for row in (0, 1, 3):
            new = texts(sampler)[row][before[row]:]
            assert texts(sampler)[row][:before[row]] == old[row] and 1 <= len(new) <= 4
            assert not set(new[:-1]) & set(stops) and (new[-1] in stops or len(new) == 4)
            ends += new[-1] in stops
        assert (texts(sampler)[2], texts(sampler)[4]) == (old[2], old[4]) == ([1, 2], [])
    lengths = sampler.length.tolist()
    assert 0 < ends < 24 and sampler.count.tolist() == [n - 2 if n > 2 else 0 for n in lengths]
    before = sampler.sample(20, ())  # the stop ids of the call before do not linger
    new = [text[n:-1] for text, n in zip(texts(sampler), before)]
    assert sampler.length[2] == 22 and any(set(stops) & set(ids) for ids in new)


def test_a_bf16_sampler_stays_close_to_its_fp32_model_and_follows_its_weights():
    model = tiny()
    sampler = Sampler(model, 64, dtype=torch.bfloat16)
    for update in range(2):
        start(sampler, [PROMPTS[i % 4] for i in range(64)]).sample(12, ())
        own, full = behaviour(sampler, model)
        gap = (full - own)[own != 0]
        assert gap.abs().max() > 0 and grpo.k3_kl(torch.zeros_like(gap), gap).mean() < 1e-3
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)


# ---- many prompts at once ----

def test_completions_of_many_prompts_are_those_of_each_prompt_alone():
    model, prompts = tiny(), PROMPTS[:3]
    streams = [(0, "generate", i) for i in range(3)]
    together = generate(Sampler(model, 9), prompts, 3, 8, streams, (0,))
    in_parts = generate(Sampler(model, 4), prompts, 3, 8, streams, (0,))  # one prompt at a time
    assert [r.ids for r in together] == [r.ids for r in in_parts]
    assert [r.prompt for r in together] == [p for p in prompts for _ in range(3)]
    assert len({tuple(r.ids) for r in together}) > 3  # siblings differ
    for reply in together:
        assert reply.ended == (reply.ids[-1] == 0) and 0 not in reply.body
        assert reply.body == (reply.ids[:-1] if reply.ended else reply.ids)
        assert reply.ended or len(reply.ids) == 8
        text = torch.tensor([reply.prompt + reply.ids])
        logp = token_logp(model, text)[0, len(reply.prompt):]
        torch.testing.assert_close(torch.tensor(reply.logp), logp, rtol=0, atol=1e-5)
    assert {reply.ended for reply in together} == {True, False}


# ---- how a run samples ----

def test_a_decode_step_is_compiled_where_that_pays_and_is_possible(monkeypatch, capsys):
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/" + name)
    assert not choose_compile("off", "cpu", 10**9)
    assert choose_compile("auto", "cpu", 50_000) and choose_compile("on", "cpu", 1)
    assert not capsys.readouterr().out
    assert not choose_compile("auto", "cpu", 49_999)
    assert "49,999 decode steps are too few" in capsys.readouterr().out
    assert not choose_compile("on", "mps", 10**9) and "mps" in capsys.readouterr().out
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert not choose_compile("on", "cpu", 10**9) and "no g++ or clang++" in capsys.readouterr().out
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: "triton is there")
    assert not choose_compile("on", "cuda", 10**9) and "no gcc or clang" in capsys.readouterr().out


def test_sampling_is_in_bf16_on_cuda_and_where_it_is_asked_for():
    assert sampling_dtype(grpo.Config(), "cpu") == torch.float32
    assert sampling_dtype(grpo.Config(bf16=True), "cpu") == torch.bfloat16
    assert sampling_dtype(grpo.Config(), "cuda:1") == torch.bfloat16
