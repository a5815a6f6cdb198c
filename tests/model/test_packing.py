"""In: random rows. Out: whether packed attention stays within its rows, and gradients derived by hand are right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, apply_rotary_pos_emb

from toolformer.model.kernels import Norm, Rotation
from toolformer.model.packing import attend_padded, attend_rows, pack, padded

LENGTHS = [3, 1, 6, 4]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attend", [attend_rows, attend_padded])  # of a CPU, and of a GPU
def test_no_row_sees_another(attend, causal: bool):
    torch.manual_seed(0)
    packed = [torch.randn(1, sum(LENGTHS), 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight, results = torch.randn(1, sum(LENGTHS), 2, 4, dtype=torch.float64), []

    def alone(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = []
        for q, k, v in zip(*(x[0].split(LENGTHS) for x in (query, key, value)), strict=True):
            scores = torch.einsum("qhd,khd->hqk", q, k) / 3
            if causal:
                scores = scores.masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), float("-inf"))
            out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
        return torch.cat(out)[None]

    for way in (lambda *x: attend(*x, LENGTHS, causal=causal, scaling=1 / 3), alone):
        mixed = way(*packed)
        results.append([mixed, *torch.autograd.grad((mixed * weight).sum(), packed)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("left", [True, False])
def test_packing_and_padding_are_inverse(left: bool):
    mask = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    mask = mask.flip(1) if left else mask
    ids = torch.arange(24).reshape(4, 6) + 1
    rows = pack(ids, mask)
    assert rows.lengths == LENGTHS and torch.equal(padded(rows.ids, mask), ids * mask)
    assert rows.rows.tolist() == [i for i, n in enumerate(LENGTHS) for _ in range(n)]
    assert rows.positions.tolist() == [j for n in LENGTHS for j in range(n)] and rows.begins.tolist() == [0, 3, 4, 10]
    both = rows + rows
    assert both.lengths == LENGTHS * 2 and both.rows[14:].tolist() == [i + 4 for i in rows.rows.tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_the_librarys(dtype: torch.dtype):
    torch.manual_seed(0)
    norm, results = Qwen2RMSNorm(8, eps=1e-3), []
    with torch.no_grad():
        norm.weight += torch.randn(8)
    norm = norm.to(dtype)
    x, weight = torch.randn(5, 3, 8).to(dtype).requires_grad_(), torch.randn(5, 3, 8).to(dtype)
    for way in (norm, lambda x: Norm.apply(x, norm.weight, norm.variance_epsilon)):
        found = way(x)
        results.append([found, *torch.autograd.grad((found * weight).sum(), [x, norm.weight])])
    assert torch.equal(results[0][0], results[1][0]), "bit for bit"
    for wanted, found in zip(*results, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, wanted)


def test_the_rotation_is_the_librarys():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(2, 5, 4, dtype=torch.float64).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    wanted, _ = apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)
    torch.testing.assert_close(Rotation.apply(x, cos[:, :, None], sin[:, :, None]), wanted)
    assert torch.autograd.gradcheck(lambda x: Rotation.apply(x, cos[:, :, None], sin[:, :, None]), x)
    assert F.mse_loss(wanted, x) > 0.1
