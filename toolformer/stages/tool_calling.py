"""In: requests with the tools on offer. Out: a model that writes the call, or the reply (stage 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from toolformer.data.batches import NEAREST, CallBatch
from toolformer.data.masking import Rows
from toolformer.inference.engine import Engine, Request, answered
from toolformer.metrics import Row
from toolformer.metrics.answers import ExactMatch
from toolformer.metrics.selection import ToolSelectionAccuracy
from toolformer.model.losses import pointer_loss
from toolformer.model.packing import pack
from toolformer.stages.base import Encoded, Stage, offered_tools, schema_rows
from toolformer.stages.gist_contrast import contrast_loss
from toolformer.stages.sharding import gathered


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
        with gathered(self.model), torch.autocast(self.device.type, enabled=False):  # caches are of the weights' dtype
            gists = engine.encode(tools)
            requests = [Request(e.messages, offered, gists[[place[t.id] for t in offered]]) for e, offered in rows]
            answers = answered(engine, requests, "free" if self.model.pointer is None else "pointed")
        self.answers.update(
            [Row(e.calls, a.said, offered, e.stratum) for (e, offered), a in zip(rows, answers, strict=True)]
        )

    def on_validation_epoch_end(self) -> None:
        """TSA and EM of all generated answers."""
        for name, value in self.answers.compute().items():
            self.log(f"validation/{name}", value)
        self.answers.reset()

    @property
    def reads_requests(self) -> bool:
        """Where contrast, pointer or copy head are there to read them."""
        model = self.model
        return bool(self.contrast_weight) or model.needs_request or model.copy_head is not None

    def losses(self, batch: CallBatch, encoded: Encoded) -> dict[str, Tensor]:
        """``call`` (next token), ``whether``, ``pointer``, ``contrast``, ``rebuild`` and their weighted sum."""
        model = self.model
        calls, schemas = pack(batch.input_ids, batch.attention_mask), None
        rows, seen = calls, self.seen(batch, encoded)
        if self.rebuild_weight and self.every(self.rebuild_every):  # in the same pass: the decoder reads one long row
            schemas, own = schema_rows(batch.tools)
            rows, seen = calls + schemas, torch.cat([seen, own])
        states = model.decode_packed(rows, encoded.gists, seen)
        states, rebuilt = states[: len(calls.ids)], states[len(calls.ids) :]
        begins = calls.begins
        at = batch.prompt_mask.nonzero()
        reading = None if encoded.reading is None else (encoded.reading, begins[at[:, 0]] + at[:, 1])
        total, count = model.packed_loss(states, calls, batch.labels[batch.attention_mask], reading)
        parts = {"call": total / count.clamp(min=1)}
        weights = {"call": 1.0}
        if model.pointer is not None and self.pointer_weight:
            called = called_before(batch.call_targets, batch.tool_index.shape[1])
            deciding = states[begins[:, None] + batch.call_starts]  # (B, P, D)
            scores = model.point(deciding, encoded.request, encoded.gists, batch.tool_index, called)
            parts["whether"], parts["pointer"] = pointer_loss(scores, batch.call_targets)
            weights |= {"whether": self.whether_weight, "pointer": self.pointer_weight}
        if self.contrast_weight:
            parts["contrast"] = contrast_loss(model, batch, encoded, self.temperature, True)
            weights["contrast"] = self.contrast_weight
        if schemas is not None:
            parts["rebuild"] = self.rebuilt(batch.tools, schemas, rebuilt)
            weights["rebuild"] = self.rebuild_weight
        parts["loss"] = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return parts

    def seen(self, batch: CallBatch, encoded: Encoded) -> Tensor:
        """Whose gists each token of the requests sees, packed: ``(N, U)``."""
        mask = batch.attention_mask
        row = mask.nonzero()[:, 0]
        seen = offered_tools(batch)[row]
        if not self.model.config.focus or not batch.tool_index.shape[1]:
            return seen
        assert encoded.request is not None
        nearest = self.model.nearest(encoded.request, encoded.gists, batch.tool_index)[:, None]
        focus = torch.where(batch.focus == NEAREST, nearest, batch.focus)[mask]
        only = batch.tool_index[row, focus.clamp(min=0)][:, None]
        return seen & ((focus[:, None] < 0) | (only == torch.arange(seen.shape[1], device=seen.device)))


def called_before(targets: Tensor, tools: int) -> Tensor:
    """Which of N tools were called at an earlier decision: ``targets (B, P)`` as in ``CallBatch`` -> ``(B, P, N)``."""
    calls = targets[..., None] == torch.arange(1, tools + 1, device=targets.device)
    return calls.int().cumsum(1) > calls
