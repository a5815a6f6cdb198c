"""In: a model's trainable parameters. Out: an optimiser and a schedule that survive a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR


class MuonAdamW(Optimizer):
    """Muon for the matrices inside the layers, AdamW for embeddings, norms, biases, gates: one optimiser to its caller.

    The library's two optimisers do the work; they share this object's groups and state, so that one ``state_dict``
    holds all. Muon's update is scaled to AdamW's (Liu et al. 2025, section 2.2): one learning rate serves both.
    """

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], **adamw: Any):
        groups: list[dict[str, Any]] = [{"params": matrices, "muon": True}, {"params": others, "muon": False}]
        muon: dict[str, Any] = {
            "momentum": 0.95,
            "nesterov": True,
            "ns_coefficients": (3.4445, -4.775, 2.0315),
            "eps": 1e-7,
        }
        muon |= {"ns_steps": 5, "adjust_lr_fn": "match_rms_adamw"}
        self._muon = Muon(matrices, lr=adamw["lr"], weight_decay=adamw["weight_decay"], **muon)
        plain: dict[str, Any] = {**adamw, "weight_decay": 0.0}
        self._adamw = AdamW(others, fused=True, **plain)
        for group, part in zip(groups, (self._muon, self._adamw), strict=True):
            group |= {k: v for k, v in part.param_groups[0].items() if k != "params"}
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """One step of both; the groups and the state are rebound as loading a checkpoint replaces them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, muon in ((self._muon, True), (self._adamw, False)):
            part.param_groups = [group for group in self.param_groups if group["muon"] is muon]
            part.state = self.state
            part.step()
        return loss


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
    """Whether a parameter maps one hidden vector to another, as Muon assumes; tables and queries do not."""
    return parameter.ndim == 2 and not any(table in name for table in ("embed_tokens", "lm_head", "queries"))


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int, floor: float = 0.0) -> LambdaLR:
    """Linear warm-up over ``warmup`` steps, then a cosine to ``floor`` of the peak at step ``total``."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / max(1, warmup)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)
