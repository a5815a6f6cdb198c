"""In: requests with the tools on offer. Out: a model that writes the call, or the reply (stage 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from toolformer.data.batches import CallBatch
from toolformer.model.losses import linear_cross_entropy, pointer_loss
from toolformer.stages.base import Stage, rebuild_loss
from toolformer.stages.gist_contrast import contrast_loss


class ToolCalling(Stage):
    """Next token of the call or the reply, with pointer, contrast and auto-encoding beside it.

    Args:
        pointer_weight: of the tool choice at each call start.
        contrast_weight: of stage 1.5's loss.
        rebuild_weight: of stage 1's loss, on every ``rebuild_every``-th batch.
        temperature: InfoNCE's tau.
    """

    def __init__(
        self,
        model,
        prompts,
        *,
        pointer_weight: float = 1.0,
        contrast_weight: float = 0.1,
        rebuild_weight: float = 0.1,
        rebuild_every: int = 20,
        temperature: float = 0.07,
        **kw,
    ):
        super().__init__(model, prompts, **kw)
        self.pointer_weight, self.contrast_weight = pointer_weight, contrast_weight
        self.rebuild_weight, self.rebuild_every, self.temperature = rebuild_weight, rebuild_every, temperature

    def losses(self, batch: CallBatch, gists: Tensor) -> dict[str, Tensor]:
        """``call`` (next token), ``pointer``, ``contrast``, ``rebuild`` and their weighted sum."""
        model = self.model
        memory, memory_mask = model.memory(gists, batch.tool_index)
        states = model.decode(batch.input_ids, memory=memory, memory_mask=memory_mask).last_hidden_state
        total, count = linear_cross_entropy(states[:, :-1], model.lm_head.weight, batch.labels[:, 1:])
        parts = {"call": total / count.clamp(min=1)}
        weights = {"call": 1.0}
        needs_request = self.contrast_weight or (model.pointer is not None and model.pointer.query != "decoder")
        request = model.encode_request(batch.prompt_ids, batch.prompt_mask) if needs_request else None
        if model.pointer is not None and self.pointer_weight:
            at = states.gather(1, batch.call_starts.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
            parts["pointer"] = pointer_loss(model.point(at, request, gists, batch.tool_index), batch.call_targets)
            weights["pointer"] = self.pointer_weight
        if self.contrast_weight:
            parts["contrast"] = contrast_loss(model, batch, gists, self.temperature, True, request)
            weights["contrast"] = self.contrast_weight
        if self.rebuild_weight and self.trainer.global_step % self.rebuild_every == 0:
            parts["rebuild"] = rebuild_loss(model, batch.tools, gists)
            weights["rebuild"] = self.rebuild_weight
        parts["loss"] = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return parts
