"""In: a model's trainable parameters. Out: an optimiser and a schedule that survive a checkpoint."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


class MuonAdamW(Optimizer):
    """Muon for the matrices inside the layers, AdamW for embeddings, norms, biases, gates: one optimiser to its caller.

    AdamW is the library's and shares this object's groups and state, so that one ``state_dict`` holds all. Muon is
    the library's update (``torch.optim.Muon``) with all matrices of one shape orthogonalised together, as small ones
    one by one are mostly overhead. Its size is matched to AdamW's (Liu et al. 2025, section 2.2): one learning rate
    serves both.
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], *, momentum: float = 0.95, **adamw: Any
    ):
        plain: dict[str, Any] = {**adamw, "weight_decay": 0.0}
        self._adamw = AdamW(others, fused=True, **plain)
        shared = {k: v for k, v in self._adamw.param_groups[0].items() if k != "params"}
        muon = {"lr": adamw["lr"], "weight_decay": adamw["weight_decay"], "momentum": momentum}
        groups = [{"params": matrices, "muon": True, **muon}, {"params": others, "muon": False, **shared}]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """One step of both; AdamW's groups and state are rebound as loading a checkpoint replaces them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._adamw.state = self.state
        self._adamw.step()
        for group in self.param_groups:
            if group["muon"]:
                self._muon(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Any]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                by_shape[p.shape].append(p)
        for shape, params in by_shape.items():
            grads = [p.grad for p in params]
            for p in params:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            kept = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_lerp_(kept, grads, 1 - group["momentum"])
            updates = orthogonalised(torch.stack(torch._foreach_lerp(grads, kept, group["momentum"])))  # Nesterov
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            rate = group["lr"] * 0.2 * math.sqrt(max(shape))
            torch._foreach_add_(params, list(updates.to(params[0].dtype).unbind()), alpha=-rate)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Each of ``matrices (N, R, C)`` with its singular values moved near 1: Newton-Schulz (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.775, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = in_fast_numbers(matrices)
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def in_fast_numbers(x: Tensor) -> Tensor:
    """bf16 on a GPU and on a CPU with AMX; other CPUs multiply faster in fp32."""
    return x.bfloat16() if x.is_cuda or torch.cpu._is_amx_tile_supported() else x.float()


def build_optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> Optimizer:
    """``adamw`` or ``muon`` over the parameters that require gradients; vectors and scalars are not decayed."""
    trained = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise ValueError("stage.freeze leaves nothing to train; remove a pattern")
    matrices = [p for key, p in trained if is_matrix(key, p)]
    rest = [p for key, p in trained if not is_matrix(key, p)]
    if name == "muon" and matrices:
        if not rest:
            raise ValueError("stage.freeze leaves only matrices to train, and muon wants others too; use adamw")
        return MuonAdamW(matrices, rest, lr=lr, weight_decay=weight_decay, betas=betas)
    if name in ("adamw", "muon"):
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimizer = AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=True)
        optimizer._step_supports_amp_scaling = False  # let the trainer unscale and clip, as with any other optimiser
        return optimizer
    raise ValueError(f"stage.optimizer is {name!r}; use adamw or muon")


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps one hidden vector to another, as Muon assumes; tables, queries and scores do not."""
    return (
        parameter.ndim == 2
        and min(parameter.shape) > 1
        and not any(table in name for table in ("embed_tokens", "lm_head", "queries"))
    )


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int, floor: float = 0.0) -> LambdaLR:
    """Linear warm-up over ``warmup`` steps, then a cosine to ``floor`` of the peak at step ``total``."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / max(1, warmup)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)
