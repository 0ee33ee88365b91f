"""The CUDA path: a replayed graph, both authors, updates, resume. Skipped where there is no GPU;
with REHEARSE=1 in the environment the same lines run on a CPU, where they hold as well.

    python -m pytest -m gpu
"""
import json
import os
import signal
from pathlib import Path

import pytest
import torch

import grpo
import run
import train
from conftest import MOVING, errors, interrupt_at, metrics, poison, tiny
from model import GPT, GPTConfig, token_logp
from sampler import Sampler, uniform
from tandem import TandemSampler, next_author

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(
    DEVICE == "cpu" and not os.environ.get("REHEARSE"),
    reason="needs a GPU; REHEARSE=1 runs it on the CPU")]
VOCAB, CONTEXT, EDGE = 37, 32, 1e-5
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0], [3, 3]]


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """On a CPU: what torch.compile sees, without the minutes of generating code. runs/gpu.sh sets
    WITHOUT_COMPILE where it does not work: then CUDA graphs hold the eager step."""
    compiled = torch.compile
    if os.environ.get("WITHOUT_COMPILE"):
        monkeypatch.setattr(torch, "compile", lambda f, **how: f)
    elif DEVICE == "cpu":
        monkeypatch.setattr(torch, "compile", lambda f, **how: compiled(f, backend="eager", **how))
    torch._dynamo.reset()


def model_of(seed=0, **options):
    """A random model whose distribution is far from uniform, with grouped queries."""
    torch.manual_seed(seed)
    cfg = dict(vocab_size=VOCAB, context=CONTEXT, layers=2, heads=4, kv_heads=2, width=64,
               head_width=16, ffn_width=96, qk_norm=True)
    model = GPT(GPTConfig(**{**cfg, **options}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    return model.to(DEVICE)


def start(sampler, prompts=PROMPTS, what="test"):
    sampler.start()
    sampler.feed(list(range(len(prompts))), prompts)
    sampler.seed([(0, what, 0, i, 0) for i in range(len(prompts))])
    return sampler


def texts(sampler):
    return [row[:n].tolist() for row, n in zip(sampler.tokens, sampler.length)]


@torch.no_grad()
def next_logp(model, ids):
    """[T] -> log-probs of the token behind each, [T, V], by a full forward without a cache."""
    return model(torch.tensor([ids], device=DEVICE))[0].log_softmax(-1)


def check_row(model, ids, prompt, logp, key, first=0):
    """A row was drawn from its own uniforms: each token is the one at u, or u lies within EDGE of
    its share. And its log-probs are those of a full forward, to 1e-4."""
    found = next_logp(model, ids)
    for t in range(prompt, len(ids)):
        count = torch.tensor([first + t - prompt], device=DEVICE)
        u = float(uniform(key[None], count)) if key is not None else None
        cdf = found[t - 1].double().exp().cumsum(0)
        low = float(cdf[ids[t] - 1]) if ids[t] else 0.0
        if u is not None:
            assert low - EDGE <= u * float(cdf[-1]) <= float(cdf[ids[t]]) + EDGE
        assert abs(float(logp[t] - found[t - 1, ids[t]])) < 1e-4


def same(a, b, model):
    """Two samplers drew the same, up to the first token whose uniform lies within EDGE of an
    edge; log-probs agree up to there. -> how many rows are the same to their end"""
    equal = 0
    for row, (one, other) in enumerate(zip(texts(a), texts(b))):
        until = next((t for t, (x, y) in enumerate(zip(one, other)) if x != y), len(one))
        torch.testing.assert_close(a.logp[row, :until], b.logp[row, :until], rtol=0, atol=1e-4)
        equal += until == len(one)
        if until < len(one):  # else check_row fails for one of them
            cdf = next_logp(model, one[:until])[-1].double().exp().cumsum(0)
            u = float(uniform(a.key, a.count - (a.length - until))[row]) * float(cdf[-1])
            assert (cdf - u).abs().min() < EDGE
    return equal


# ---- a replayed graph, eager steps, a full forward ----

def test_a_replayed_graph_equals_eager_steps_and_a_full_forward_and_follows_the_weights():
    model = model_of()
    eager, graph = Sampler(model, 4), Sampler(model, 4, compile=True)
    seen = []
    for update in range(2):
        for sampler in (eager, graph):
            start(sampler).sample(12, (0,))
        assert same(eager, graph, model) >= 3
        for row, ids in enumerate(texts(graph)):
            check_row(model, ids, len(PROMPTS[row]), graph.logp[row], graph.key[row])
        seen.append(texts(graph))
        with torch.no_grad():  # in place, as an optimiser does
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)
    assert seen[0] != seen[1]
    assert DEVICE == "cpu" or graph.graph is not None


def test_feed_select_clear_and_refill_between_replays():
    model = model_of()
    eager, graph = Sampler(model, 4), Sampler(model, 4, compile=True)
    for sampler in (eager, graph):
        start(sampler).sample(5, ())
        sampler.feed([2, 0], [[5, 6], [7]])
        sampler.sample(3, (), rows=[0, 1, 2])
        sampler.select([3, 1, 3, 0])
        sampler.clear([2])
        sampler.feed([2], [[9, 9, 9]])
        sampler.sample(4, (), temperature=1.0)
    assert same(eager, graph, model) >= 3
    lengths = [len(ids) for ids in texts(graph)]
    assert lengths == [2 + 5 + 4, 1 + 5 + 3 + 4, 3 + 4, 3 + 5 + 1 + 3 + 4]
    for row, ids in enumerate(texts(graph)):  # all that was sampled, forced tokens apart
        found = next_logp(model, ids)
        for t in range(1, len(ids)):
            logp = float(graph.logp[row, t])
            if row != 2 and logp:  # row 2 still holds log-probs of what was cleared
                assert abs(logp - float(found[t - 1, ids[t]])) < 1e-4


def test_a_longer_text_stops_at_its_end_token_and_at_the_context():
    graph = Sampler(model_of(), 4, compile=True)
    before = start(graph).sample(40, (0, 1))
    for ids, first in zip(texts(graph), before.tolist()):
        assert not set(ids[first:-1]) & {0, 1}
        assert ids[-1] in (0, 1) or len(ids) == CONTEXT
    graph.sample(1, ())
    assert int(graph.length.max()) <= CONTEXT


def test_in_bf16_it_stays_close_to_the_fp32_model():
    model = model_of()
    sampler = start(Sampler(model, 64, compile=True, dtype=torch.bfloat16), PROMPTS * 16)
    sampler.sample(16, ())
    gaps = []
    for row, ids in enumerate(texts(sampler)):
        found, first = next_logp(model, ids), len(PROMPTS[row % 4])
        wanted = found[range(first - 1, len(ids) - 1), ids[first:]]
        gaps.append(wanted - sampler.logp[row, first:len(ids)])
    gap = torch.cat(gaps)
    assert gap.abs().max() > 0 and grpo.k3_kl(torch.zeros_like(gap), gap).mean() < 1e-3


class Words:
    def word_boundary_ids(self, mark=" "):
        return list(range(0, VOCAB, 3))


def test_both_authors_their_coins_and_both_log_probs():
    senior, junior = model_of(0), model_of(1)
    team = TandemSampler(senior, junior, 4, compile=True)
    team.set_schedule("word", Words(), " ", 4, 0.5)
    for turn in ("warm up, then capture", "replay"):
        start(team, what=turn).sample(14, ())
        for row, ids in enumerate(texts(team)):
            prompt = len(PROMPTS[row])
            check_row(senior, ids, prompt, team.logp[row], None)
            check_row(junior, ids, prompt, team.junior_logp[row], None)
            check_authors(team, row, ids, prompt, (senior, junior))


def check_authors(team, row, ids, prompt, models):
    """Walk the coins of a row: who wrote each token, where the author was drawn, and that the token
    is the one at u in the author's distribution."""
    found = [next_logp(model, ids).double().exp().cumsum(1) for model in models]

    def coin(count):
        count = torch.tensor([count], device=DEVICE)
        return uniform(team.author_key[row:row + 1], count) < 0.5
    author, since, opens = coin(0), torch.zeros(1, dtype=torch.long, device=DEVICE), True
    for t in range(prompt, len(ids)):
        assert bool(team.wrote[row, t]) == bool(author) and bool(team.opens[row, t]) == opens
        u = float(uniform(team.key[row:row + 1], torch.tensor([t - prompt], device=DEVICE)))
        cdf = found[0 if bool(author) else 1][t - 1]
        low = float(cdf[ids[t] - 1]) if ids[t] else 0.0
        assert low - EDGE <= u * float(cdf[-1]) <= float(cdf[ids[t]]) + EDGE
        boundary = torch.tensor([ids[t] % 3 == 0], device=DEVICE)
        author, since = next_author(author, since, boundary, coin(t - prompt + 1), max_gap=4)
        opens = bool(since == 0)


def test_a_nan_among_the_weights_stops_sampling():
    model = model_of()
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        start(Sampler(model, 4, compile=True)).sample(4, ())


def test_chunks_of_the_head_add_up_their_gradients_in_fp32(monkeypatch):
    """A cast of the weights that all chunks shared would sum them in bf16: off by 1% here."""
    gpt = model_of(vocab_size=1000)
    tokens = torch.randint(1000, (32, CONTEXT), device=DEVICE)
    weight = torch.randn(tokens.shape, device=DEVICE)

    def gradient():
        gpt.zero_grad()
        (token_logp(gpt, tokens) * weight).sum().backward()
        return gpt.head.weight.grad.clone()
    whole = gradient()
    monkeypatch.setattr("model.LOGITS", 8 * 1000)
    assert (gradient() - whole).norm() < 3e-3 * whole.norm()


# ---- whole runs ----

METHODS = ["tandem", "atod", "worldmodel"]


@pytest.mark.parametrize("method", METHODS)
def test_updates_of_a_run(command, method):
    """The weights move, nothing is skipped, and sampling is what is trained but for bf16."""
    graph = ("--compile", "on" if method == "tandem" and DEVICE == "cuda" else "off")
    assert command(*MOVING[method], "--device", DEVICE, *graph)[0] == 0
    lines = metrics()
    assert len(lines) == 4 and lines[-1]["skipped"] == 0
    assert max(line["grad_norm"] for line in lines) > 0
    assert max(line["mismatch_kl"] for line in lines) < 1e-2
    assert json.loads(Path("o/result.json").read_text())


def test_a_run_that_goes_on_ends_where_an_uninterrupted_one_does(command, monkeypatch):
    """Not bit for bit: on a GPU sums have no fixed order."""
    how = (*MOVING["tandem"], "--device", DEVICE, "--compile", "off")
    assert command(*how, "--out", "straight")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert command(*how)[0] == 128 + signal.SIGINT
    code, out, _ = command("--resume")
    assert code == 0 and "resumed at step 2 of 4" in out
    straight, resumed = run.load("straight/ckpt.pt"), run.load("o/ckpt.pt")
    moved = off = 0.0
    for name, x in straight["model"].items():
        moved += float((x - straight["warm"][name]).abs().sum())
        off += float((x - resumed["model"][name]).abs().sum())
    assert resumed["step"] == 4 and moved > 0 and off < 0.1 * moved


def test_updates_that_are_not_finite_stop_the_run(command, monkeypatch):
    poison(monkeypatch)
    how = (*MOVING["tandem"], "--device", DEVICE, "--compile", "off", "--steps", "12")
    code, _, err = command(*how)
    assert code == 2 and "ten updates in a row were not finite" in errors(err)[0]


def test_memory_stays_flat_over_updates(tmp_path, monkeypatch, cache):
    """The peak of each of 50 updates on a GPU; on a CPU a few show that the loop runs."""
    monkeypatch.chdir(tmp_path)
    updates = 50 if DEVICE == "cuda" else 3
    args = (*MOVING["tandem"], "--device", DEVICE, "--compile", "on", "--cache", cache)
    method, cfg = train.read_options(tiny(*args))
    r, peaks = method.setup(cfg), []
    for r.step in range(updates):
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        method.step(r)
        if DEVICE == "cuda":
            peaks.append(torch.cuda.max_memory_allocated())
    # the first updates have rows as long as any: what comes later is a leak
    assert not peaks or max(peaks[-10:]) <= 1.02 * max(peaks[:10])
