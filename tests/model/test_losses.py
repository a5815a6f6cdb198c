"""In: random scores. Out: whether each loss is what its definition, written out in loops, says."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from toolformer.model import losses
from toolformer.model.losses import info_nce, linear_cross_entropy, pointer_loss


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
def test_next_token_loss_in_chunks_or_at_once(monkeypatch: pytest.MonkeyPatch, chunk: int):
    torch.manual_seed(0)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    labels = torch.randint(0, 11, (3, 7)).masked_fill(torch.rand(3, 7) < 0.4, -100)
    found, wanted = [], []
    for out in (found, wanted):
        torch.manual_seed(1)
        hidden, weight = torch.randn(3, 7, 4, requires_grad=True), torch.randn(11, 4, requires_grad=True)
        if out is found:
            total, count = linear_cross_entropy(hidden, weight, labels)
            assert int(count) == int((labels != -100).sum())
        else:
            flat = F.linear(hidden, weight).flatten(0, 1)
            total = F.cross_entropy(flat, labels.flatten(), ignore_index=-100, reduction="sum")
        total.backward()
        out += [total, hidden.grad, weight.grad]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_to_learn_is_zero_and_not_nan():
    hidden, weight = torch.randn(2, 3, 4, requires_grad=True), torch.randn(11, 4, requires_grad=True)
    total, count = linear_cross_entropy(hidden, weight, torch.full((2, 3), -100))
    (total / count.clamp(min=1)).backward()
    assert total.item() == 0 and hidden.grad.abs().sum() == 0
    scores = torch.randn(2, 3, 4, requires_grad=True)
    sum(pointer_loss(scores, torch.full((2, 3), -1))).backward()
    assert scores.grad.abs().sum() == 0
    query = torch.randn(2, 3, requires_grad=True)
    everyone = torch.ones(2, 5, dtype=torch.bool)
    for positive, allowed in ((~everyone, everyone), (everyone, everyone), (everyone, ~everyone)):
        query.grad = None
        loss = info_nce(query, torch.randn(5, 3), positive, allowed, 0.1)
        loss.backward()
        assert loss.item() == 0 and query.grad.abs().sum() == 0


def test_info_nce_in_loops():
    torch.manual_seed(0)
    query, keys = F.normalize(torch.randn(6, 4), dim=-1), F.normalize(torch.randn(9, 4), dim=-1)
    positive, allowed, tau = torch.rand(6, 9) < 0.25, torch.rand(6, 9) < 0.7, 0.07
    positive[2] = False
    rows = []
    for b in range(6):
        score = [math.exp(float(query[b] @ keys[u]) / tau) for u in range(9)]
        against = sum(score[u] for u in range(9) if allowed[b, u] and not positive[b, u])
        each = [-math.log(score[u] / (score[u] + against)) for u in range(9) if positive[b, u]]
        rows += [sum(each) / len(each)] if each else []
    found = info_nce(query, keys, positive, allowed, tau)
    assert found.item() == pytest.approx(sum(rows) / len(rows), rel=1e-4)


def test_pointer_loss_counts_decisions_not_rows():
    scores = torch.randn(2, 3, 4)
    scores[1, :, 3] = float("-inf")  # the second row has two tools
    targets = [[3, 1, 0], [2, -1, -1]]
    whether, which = [], []
    for b, row in enumerate(targets):
        for p, target in enumerate(row):
            shares = scores[b, p].softmax(-1)
            if target >= 0:
                whether.append(-(shares[0] if target == 0 else 1 - shares[0]).log())
            if target > 0:
                later = {t for t in row[p:] if t > 0}  # several calls have no order
                which.append(-(sum(shares[t] for t in later) / (1 - shares[0])).log())
    found = pointer_loss(scores, torch.tensor(targets))
    torch.testing.assert_close(found[0], torch.stack(whether).mean())
    torch.testing.assert_close(found[1], torch.stack(which).mean())
