"""Adapters: zero is the base to the bit, one pass is two models, and only adapters are trained."""
import copy

import pytest
import torch

import grpo
import lora
import run
import tokenizer
from model import GPT, small_config, trained
from rollout import Rows
from tandem import TandemSampler
from sampler import Sampler

TOK = tokenizer.train(["1+2=3\n#3"] * 3, 270)
TEXTS = [TOK.encode("1+2="), TOK.encode("7-3+1"), TOK.encode("4"), TOK.encode("9-9-9")]


def models(moved=0.0, layers=2):
    """A random base and its senior; `moved`: how far its adapters are from zero."""
    torch.manual_seed(0)
    base = GPT(small_config(TOK.n_vocab, 48, layers, 64))
    senior = lora.adapt(base, 4, seed=1)
    for name, p in senior.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(p, std=moved)
    return base, senior


def batch(rows=6, length=12):
    tokens = torch.randint(0, TOK.n_vocab, (rows, length))
    mask = torch.arange(length).expand(rows, -1) >= 4
    row = torch.arange(rows)
    return Rows(tokens, mask, torch.zeros(rows, length), torch.where(mask, 0, -1), row, row // 2)


def test_adapters_of_zero_are_the_base_to_the_bit():
    base, senior = models()
    tokens = batch().tokens
    assert torch.equal(senior(tokens), base(tokens))


def test_the_formula_of_an_adapter():
    base, senior = models(moved=0.1)
    x, one = torch.randn(3, 5, 64), senior.blocks[1].attn.qkv
    by_hand = base.blocks[1].attn.qkv(x) + 16 / 4 * x @ one.a.T @ one.b.T
    torch.testing.assert_close(one(x), by_hand)
    assert len(trained(senior)) == 2 * 2 * 4  # a and b of four maps in two blocks
    names = run.trained_state(senior)
    assert all(name.endswith((".a", ".b")) for name in names) and lora.rank_in(names) == 4
    assert lora.rank_in(base.state_dict()) == 0
    for strange in (1.5, None, [], {3: 4}, {"blocks.0.attn.qkv.a": 1.5}):
        assert lora.rank_in(strange) == 0


def test_rows_of_a_pair_are_the_two_models():
    base, senior = models(moved=0.1)
    tokens = batch().tokens
    both = lora.paired(senior)(tokens.repeat_interleave(2, 0))
    torch.testing.assert_close(both[0::2], senior(tokens), rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1::2], base(tokens), rtol=0, atol=1e-5)
    assert (both[0::2] - both[1::2]).abs().max() > 0.1  # they do differ


def tandem_text(sampler):
    """Feed, sample, shrink, feed again, sample: what a game of two turns does."""
    sampler.set_schedule("token", TOK, " ", 8, 0.5)
    sampler.start()
    sampler.feed(range(4), TEXTS)
    sampler.select([0, 0, 1, 1, 2, 3])
    sampler.seed([(0, "lora", i) for i in range(6)])
    sampler.sample(6, TOK.stop_ids)
    sampler.select([0, 2, 3, 5])
    sampler.feed([1, 3], [TOK.encode("+1"), TOK.encode("-2")])
    sampler.sample(6, TOK.stop_ids)
    n = int(sampler.length.max())
    names = ("tokens", "wrote", "logp", "junior_logp")
    return {name: getattr(sampler, name)[:, :n].clone() for name in names}


@pytest.mark.parametrize("compiled", [False, True])
def test_one_pass_writes_what_two_models_write(compiled):
    if compiled and not __import__("shutil").which("g++"):
        pytest.skip("no C++ compiler")
    base, senior = models(moved=0.1)
    one = tandem_text(TandemSampler(senior, base, 6, pair=lora.paired(senior), compile=compiled))
    two = tandem_text(TandemSampler(senior, base, 6))
    rows = len(two["tokens"])
    assert torch.equal(one["tokens"][:rows], two["tokens"])
    assert torch.equal(one["wrote"][:rows], two["wrote"]) and one["wrote"].any()
    for name in ("logp", "junior_logp"):
        torch.testing.assert_close(one[name][:rows], two[name], rtol=0, atol=1e-4)
    assert (two["logp"] - two["junior_logp"]).abs().max() > 0.01


def test_a_cache_taken_over_from_the_team_changes_nothing():
    base, senior = models(moved=0.1)
    team = TandemSampler(senior, base, 4, pair=lora.paired(senior))
    tandem_text(TandemSampler(senior, base, 6))
    texts = []
    for pool in (None, team):
        sampler = Sampler(senior, 4, pool=pool)
        sampler.start()
        sampler.feed(range(4), TEXTS)
        sampler.seed([(0, "solo", i) for i in range(4)])
        sampler.sample(8, TOK.stop_ids)
        texts.append(sampler.tokens.clone())
    assert torch.equal(*texts)
    assert sampler.caches[0][0][0].data_ptr() == team.caches[0][0][0].data_ptr()


def test_an_update_changes_adapters_and_nothing_else():
    base, senior = models()
    before = copy.deepcopy(base.state_dict())
    cfg = grpo.Config(lr=1e-2)
    optimizer = grpo.make_optimizer(senior, cfg, "cpu")
    rows, advantage = batch(), torch.tensor([1.0, -1.0] * 3)
    for _ in range(2):  # the first moves b alone, because b is zero
        grpo.update(senior, optimizer, rows, rows.mask.float(), advantage, cfg)
    assert all(torch.equal(x, before[name]) for name, x in base.state_dict().items())
    moved = [name for name, x in run.trained_state(senior).items()
             if not torch.equal(x, run.trained_state(models()[1])[name])]
    assert len(moved) == 16
    assert len(optimizer.state) == 16


def test_merged_weights_are_the_senior():
    base, senior = models(moved=0.1)
    before, tokens = copy.deepcopy(base.state_dict()), batch().tokens
    alone = lora.merged(senior)
    torch.testing.assert_close(alone(tokens), senior(tokens), rtol=1e-4, atol=1e-4)
    assert set(alone.state_dict()) == set(before)
    assert all(torch.equal(x, before[name]) for name, x in base.state_dict().items())


def test_a_base_in_bf16_keeps_its_adapters_in_fp32():
    torch.manual_seed(0)
    from sampler import as_dtype
    base = as_dtype(GPT(small_config(TOK.n_vocab, 48, 2, 64)), torch.bfloat16)
    senior = lora.adapt(base, 4)
    assert {p.dtype for p in trained(senior)} == {torch.float32}
    rows, cfg = batch(), grpo.Config()
    stats = grpo.update(senior, grpo.make_optimizer(senior, cfg, "cpu"), rows, rows.mask.float(),
                        torch.tensor([1.0, -1.0] * 3), cfg)
    assert stats["skipped"] == 0 and stats["grad_norm"] > 0
    assert base.embed.weight.dtype == torch.bfloat16


def test_a_pair_in_another_dtype_is_refused():
    base, senior = models()
    with pytest.raises(ValueError, match="decode in the dtype"):
        TandemSampler(senior, base, 2, pair=lora.paired(senior), dtype=torch.bfloat16)
