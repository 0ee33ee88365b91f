"""What the log-probs of a loss are, whatever saves memory or work, and how a batch is cut."""
import pytest
import torch

import grpo
import model
from model import GPT, GPTConfig, by_length, token_logp
from test_grpo import gradient, random_rows, tiny


def test_the_log_prob_of_a_token_is_that_of_the_logits_before_it():
    gpt = tiny(6, 9)
    tokens = torch.randint(6, (3, 9), generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 0.7):
        expected = torch.zeros(3, 9)
        for row in range(3):
            for t in range(1, 9):  # of each prefix alone
                logits = gpt(tokens[row:row + 1, :t])[0, -1] / temperature
                expected[row, t] = logits.log_softmax(-1)[tokens[row, t]]
        found = token_logp(gpt, tokens, temperature)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        wanted = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < 0.5
        some = token_logp(gpt, tokens, temperature, wanted)
        torch.testing.assert_close(some, expected * wanted, rtol=0, atol=1e-5)


def test_completions_that_share_a_row_do_not_see_each_other():
    gpt, prompt = tiny(6, 20), [1, 2, 3]
    answers = [[4, 5, 0], [2], [5, 5, 1, 3]]
    row = prompt + [token for answer in answers for token in answer]
    branch = [0] * 3 + [number for number, answer in enumerate(answers, 1) for _ in answer]
    shared = token_logp(gpt, torch.tensor([row + [0]]), branch=torch.tensor([branch + [-1]]))[0]
    first = 3
    for answer in answers:
        alone = token_logp(gpt, torch.tensor([prompt + answer]))[0, 3:]
        found = shared[first:first + len(answer)]
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
        first += len(answer)


@pytest.mark.parametrize("change", ["chunks", "recompute"])
def test_what_saves_memory_changes_no_gradient(monkeypatch, change):
    """Logits in chunks of two tokens, activations computed twice: the same loss and gradient, and
    less is kept for the backward pass."""
    gpt = GPT(GPTConfig(50, 9, layers=3, heads=1, kv_heads=1, width=8, head_width=8, ffn_width=16))
    rows = random_rows(gpt)
    advantage = torch.linspace(-1, 1, len(rows.tokens))[:, None]

    def backward():
        gpt.zero_grad()
        kept = []

        def keep(x):
            kept.append(x.shape)
            return x
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss, _ = grpo.loss(gpt, rows, grpo.token_weights(rows.mask), advantage, grpo.Config())
        loss.backward()
        return loss.detach(), gradient(gpt), kept
    expected = backward()
    if change == "chunks":
        monkeypatch.setattr(model, "LOGITS", 100)
    else:
        gpt.recompute = True
    found = backward()
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-5, atol=1e-6)

    n = int(rows.mask.sum())
    big = {"chunks": lambda shape: shape == (n, 50),  # all logits
           "recompute": lambda shape: len(shape) == 3 and shape[-1] == 16}[change]  # in SwiGLU
    assert any(map(big, expected[2])) and not any(map(big, found[2]))


def test_rows_of_like_length_share_a_micro_batch():
    torch.manual_seed(0)
    for n in (1, 7, 8, 9, 40, 120):
        length, index = torch.randint(1, 100, (n,)), torch.randperm(n)[:max(1, 2 * n // 3)]
        parts = list(by_length(length, index, 16))
        assert sorted(i for part, _ in parts for i in part.tolist()) == sorted(index.tolist())
        for part, longest in parts:
            assert longest == length[part].max() and len(part) <= 16
            assert len(part) <= 8 or length[part].sum() >= 0.85 * longest * len(part)
    none = torch.tensor([], dtype=torch.long)
    assert list(by_length(torch.tensor([3]), none, 16)) == []
