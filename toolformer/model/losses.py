"""In: hidden states, scores and targets. Out: scalar losses; the next-token loss as a sum and a count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NEVER = -1e4  # a logit that stands for probability 0 and stays finite
CHUNK_ELEMENTS = 1 << 26  # logits held at once: 256 MB in fp32


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Next-token loss without the full logits: ``hidden (..., D)``, ``weight (V, D)``, ``labels (...)``, -100 = none.

    Returns the summed loss and the number of supervised tokens. Ignored rows never reach the output layer; what is left
    goes in chunks that are recomputed in the backward pass, unless one chunk holds it all.
    """
    keep = labels != -100
    rows, targets = hidden[keep], labels[keep]
    count = torch.tensor(len(targets), device=hidden.device)
    size = max(1, CHUNK_ELEMENTS // weight.shape[0])
    if len(rows) <= size:
        return _summed_loss(rows, weight, targets), count
    parts = [
        checkpoint(_summed_loss, rows[i : i + size], weight, targets[i : i + size], use_reentrant=False)
        for i in range(0, len(rows), size)
    ]
    return torch.stack(parts).sum(), count


def _summed_loss(rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(rows, weight).float(), targets, reduction="sum")


def copy_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, scores: Tensor, following: Tensor, gate: Tensor
) -> tuple[Tensor, Tensor]:
    """The same loss for the mixture of writing and copying (See et al. 2017, eq. 9).

    ``hidden (R, D)`` and ``labels (R,)`` are supervised rows; ``scores (R, T)`` says how much each earlier position is
    attended to (-inf = not at all), ``following (R, T)`` which token stands behind it, ``gate (R,)`` the logit of
    copying.
    """
    write = -F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="none")
    scores = scores.float()
    right = following == labels[:, None]
    copy = scores.masked_fill(~right, NEVER).logsumexp(-1) - scores.logsumexp(-1)
    gate = gate.float()
    loss = -torch.logaddexp(F.logsigmoid(-gate) + write, F.logsigmoid(gate) + copy)
    return loss.sum(), torch.tensor(len(labels), device=labels.device)


def info_nce(query: Tensor, keys: Tensor, positive: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4) with several positives: mean over rows of the mean over positives.

    ``query (B, E)`` and ``keys (U, E)`` have unit length; ``positive (B, U)`` marks the tools a request needs,
    ``allowed (B, U)`` the ones that may serve as negatives. Each positive competes with the negatives alone. Rows
    without a positive do not count.
    """
    scores = (query @ keys.T).float() / temperature
    negatives = scores.masked_fill(positive | ~allowed, float("-inf")).logsumexp(-1, keepdim=True)
    loss = torch.logaddexp(scores, negatives) - scores
    per_row = (loss * positive).sum(-1) / positive.sum(-1).clamp(min=1)
    return per_row.sum() / positive.any(-1).sum().clamp(min=1)


def pointer_loss(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Whether to call, and which tool: ``scores (B, P, 1 + N)``, ``targets (B, P)``, -1 = no decision there.

    Two cross-entropies, each the mean over its decisions. Calls are a multiset: at each decision any tool that is
    called there or later is right.
    """
    tools = scores[..., 1:].float().clamp(min=NEVER)  # a request without tools has -inf alone: its loss is 0, not NaN
    decided, call = targets >= 0, targets > 0
    if not decided.any() or not tools.shape[-1]:
        return scores[..., :1].sum() * 0.0, scores[..., :1].sum() * 0.0
    any_tool = tools.logsumexp(-1)
    whether = F.binary_cross_entropy_with_logits((any_tool - scores[..., 0].float())[decided], call[decided].float())
    later = torch.zeros_like(tools).scatter_(-1, (targets - 1).clamp(min=0)[..., None], call[..., None].float())
    right = later.flip(1).cummax(1).values.flip(1).bool()
    which = (any_tool - tools.masked_fill(~right, NEVER).logsumexp(-1))[call]
    return whether, which.mean() if len(which) else scores[..., :1].sum() * 0.0
