"""In: requests with the tools on offer. Out: a model that writes the call, or the reply (stage 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from toolformer.calls import parse
from toolformer.data.batches import NEAREST, CallBatch, length_buckets
from toolformer.data.masking import Rows
from toolformer.inference.engine import Engine, Request
from toolformer.metrics import Row
from toolformer.metrics.answers import ExactMatch
from toolformer.metrics.selection import ToolSelectionAccuracy
from toolformer.model.losses import pointer_loss
from toolformer.stages.base import Stage, encode_requests, rebuild_loss
from toolformer.stages.gist_contrast import contrast_loss


class ToolCalling(Stage):
    """Next token of the call or the reply, with pointer, contrast and auto-encoding beside it.

    Args:
        pointer_weight: of the tool choice at each call start.
        whether_weight: of the choice whether to call there.
        contrast_weight: of stage 1.5's loss.
        rebuild_weight: of stage 1's loss, on every ``rebuild_every``-th batch.
        temperature: InfoNCE's tau.
        max_new_tokens: of an answer in validation.
    """

    def __init__(
        self,
        model,
        prompts,
        *,
        pointer_weight: float = 1.0,
        whether_weight: float = 1.0,
        contrast_weight: float = 0.1,
        rebuild_weight: float = 0.1,
        rebuild_every: int = 20,
        temperature: float = 0.07,
        max_new_tokens: int = 160,
        **kw,
    ):
        super().__init__(model, prompts, **kw)
        self.max_new_tokens = max_new_tokens
        self.answers = MetricCollection({"tsa": ToolSelectionAccuracy(), "em": ExactMatch()}, compute_groups=False)
        self.pointer_weight, self.whether_weight, self.contrast_weight = pointer_weight, whether_weight, contrast_weight
        self.rebuild_weight, self.rebuild_every, self.temperature = rebuild_weight, rebuild_every, temperature

    @torch.no_grad()
    def validation_step(self, rows: Rows, batch_idx: int) -> None:
        """Losses, and the answers themselves: decoded as users will (pointed where there is a pointer, else free)."""
        super().validation_step(rows, batch_idx)
        engine = Engine(self.model, self.prompts, max_new_tokens=self.max_new_tokens)
        tools = list({tool.id: tool for _, row_tools in rows for tool in row_tools}.values())
        place = {tool.id: i for i, tool in enumerate(tools)}
        gists = engine.encode(tools)
        requests = [Request(e.messages, offered, gists[[place[t.id] for t in offered]]) for e, offered in rows]
        answers = engine.answer(requests, "free" if self.model.pointer is None else "pointed")
        self.answers.update(
            [Row(e.calls, parse(a.text), offered, e.stratum) for (e, offered), a in zip(rows, answers, strict=True)]
        )

    def on_validation_epoch_end(self) -> None:
        """TSA and EM of all generated answers."""
        for name, value in self.answers.compute().items():
            self.log(f"validation/{name}", value)
        self.answers.reset()

    def losses(self, batch: CallBatch, gists: Tensor) -> dict[str, Tensor]:
        """``call`` (next token), ``whether``, ``pointer``, ``contrast``, ``rebuild`` and their weighted sum."""
        model = self.model
        request, reading = gists.new_zeros(0), None
        if self.contrast_weight or model.needs_request or model.copy_head is not None:
            request, reading = encode_requests(model, batch, self.buckets)
        memory, memory_mask = model.memory(gists, batch.tool_index)
        if model.config.focus:
            nearest = model.nearest(request, gists, batch.tool_index)[:, None]
            memory_mask = model.focused(memory_mask, torch.where(batch.focus == NEAREST, nearest, batch.focus))
        totals, counts, deciding = [], [], []
        for rows, width in length_buckets(batch.attention_mask, self.buckets):
            inputs = {"memory": memory[rows], "memory_mask": memory_mask[rows]}
            if model.config.focus:
                inputs["memory_mask"] = inputs["memory_mask"][:, :width]
            ids = batch.input_ids[rows, :width]
            read = model.decode(ids, **inputs)
            at = batch.call_starts[rows].clamp(max=width - 1).unsqueeze(-1).expand(-1, -1, read.shape[-1])
            copied = None if reading is None else reading[rows]
            total, count = model.next_token_loss(read, ids, batch.labels[rows, :width], reading=copied)
            totals.append(total)
            counts.append(count)
            deciding.append(read.gather(1, at))
        parts = {"call": torch.stack(totals).sum() / torch.stack(counts).sum().clamp(min=1)}
        weights = {"call": 1.0}
        if model.pointer is not None and self.pointer_weight:
            called = called_before(batch.call_targets, batch.tool_index.shape[1])
            scores = model.point(torch.cat(deciding), request, gists, batch.tool_index, called)
            parts["whether"], parts["pointer"] = pointer_loss(scores, batch.call_targets)
            weights |= {"whether": self.whether_weight, "pointer": self.pointer_weight}
        if self.contrast_weight:
            parts["contrast"] = contrast_loss(model, batch, request, gists, self.temperature, True)
            weights["contrast"] = self.contrast_weight
        if self.rebuild_weight and self.every(self.rebuild_every):
            parts["rebuild"] = rebuild_loss(model, batch.tools, gists, self.buckets)
            weights["rebuild"] = self.rebuild_weight
        parts["loss"] = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return parts


def called_before(targets: Tensor, tools: int) -> Tensor:
    """Which of N tools were called at an earlier decision: ``targets (B, P)`` as in ``CallBatch`` -> ``(B, P, N)``."""
    calls = targets[..., None] == torch.arange(1, tools + 1, device=targets.device)
    return calls.int().cumsum(1) > calls
