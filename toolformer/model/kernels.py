"""In: rows of vectors. Out: their norm, and their rotation, as the library computes them; the way back by hand.

Autograd would keep and pass over several times what two lines of algebra need once. Letters as in ``model.packing``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm


class Norm(torch.autograd.Function):
    """``y = w n``, ``n = x r``, ``r = rsqrt(mean(x^2) + eps)``; so ``dx = r (g - n mean(g n))`` with ``g = w dy``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """In fp32, as the library does."""
        wide = x.to(torch.float32)
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        normed = wide * scale
        ctx.dtype = x.dtype
        ctx.save_for_backward(normed, scale, weight)
        return weight * normed.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """``dw`` is the sum of ``dy n``."""
        (grad,), (normed, scale, weight) = grads, ctx.saved_tensors
        down = (weight * grad).to(scale.dtype)
        x = torch.addcmul(down, normed, (down * normed).mean(-1, keepdim=True), value=-1).mul_(scale)
        return x.to(ctx.dtype), (grad * normed.to(ctx.dtype)).flatten(0, -2).sum(0), None


class RowNorm(Qwen2RMSNorm):
    """The library's norm in training."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``(..., D)`` -> ``(..., D)``."""
        return Norm.apply(hidden_states, self.weight, self.variance_epsilon)


class Rotation(torch.autograd.Function):
    """``y = x cos + turn(x) sin``, where ``turn`` swaps the halves, the second with its sign changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """``x (..., H, d)``, ``cos`` and ``sin (..., 1, d)`` as the library's, whose halves are equal."""
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Back by the same angle."""
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
