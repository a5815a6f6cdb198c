"""In: requests and the schemas around them. Out: gists that lie near the requests they serve (stage 1.5)."""

from __future__ import annotations

import torch
from torch import Tensor

from toolformer.data.batches import CallBatch, collate_calls
from toolformer.data.masking import Rows
from toolformer.model.losses import info_nce
from toolformer.model.modeling import ToolFormerMicro
from toolformer.stages.base import Encoded, Stage, needed_tools, offered_tools


class GistContrast(Stage):
    """InfoNCE of request against tools, and a little auto-encoding so that the gists keep the schema.

    Args:
        temperature: InfoNCE's tau.
        rebuild_weight: of the auto-encoding loss, on every ``rebuild_every``-th batch.
        in_batch: the tools of other requests are negatives too; else only the row's own tools (its hard negatives).
    """

    def __init__(
        self,
        model,
        prompts,
        *,
        temperature: float = 0.07,
        rebuild_weight: float = 0.1,
        rebuild_every: int = 1,
        in_batch: bool = True,
        **kw,
    ):
        super().__init__(model, prompts, **kw)
        self.temperature, self.in_batch = temperature, in_batch
        self.rebuild_weight, self.rebuild_every = rebuild_weight, rebuild_every

    @property
    def reads_requests(self) -> bool:
        """Always."""
        return True

    def losses(self, batch: CallBatch, encoded: Encoded) -> dict[str, Tensor]:
        """``contrast``, ``rebuild`` and their weighted sum."""
        contrast = contrast_loss(self.model, batch, encoded, self.temperature, self.in_batch)
        parts = {"contrast": contrast, "loss": contrast}
        if self.rebuild_weight and self.every(self.rebuild_every):
            parts["rebuild"] = self.rebuild(batch.tools, encoded.gists)
            parts["loss"] = contrast + self.rebuild_weight * parts["rebuild"]
        return parts

    @torch.no_grad()
    def validation_step(self, rows: Rows, batch_idx: int) -> None:
        """Losses, and how often the nearest of the row's tools is a needed one."""
        super().validation_step(rows, batch_idx)
        batch = self.to_device(collate_calls(rows, self.prompts))
        gists = self.model.encode_tools(batch.tools.ids, batch.tools.mask)
        query = self.model.embed(self.model.encode_request(batch.prompt_ids, batch.prompt_mask))
        scores = (query @ self.model.embed(gists).T).masked_fill(~offered_tools(batch), float("-inf"))
        needed = needed_tools(batch)
        hit = needed.gather(1, scores.argmax(-1, keepdim=True))[needed.any(-1)]
        if len(hit):
            self.log("validation/nearest", hit.float().mean(), batch_size=len(hit))


def contrast_loss(
    model: ToolFormerMicro,
    batch: CallBatch,
    encoded: Encoded,
    temperature: float,
    in_batch: bool,
) -> Tensor:
    """InfoNCE between the encoded requests and the gists of the batch."""
    assert encoded.request is not None
    needed = needed_tools(batch)
    allowed = torch.ones_like(needed) if in_batch else offered_tools(batch)
    return info_nce(model.embed(encoded.request), model.embed(encoded.gists), needed, allowed, temperature)
