"""In: schemas. Out: gists from which the decoder can write each schema again (stage 1)."""

from __future__ import annotations

from torch import Tensor

from toolformer.data.batches import CallBatch
from toolformer.stages.base import Encoded, Stage


class SchemaAutoEncoding(Stage):
    """Rebuild the schema from its gists."""

    def losses(self, batch: CallBatch, encoded: Encoded) -> dict[str, Tensor]:
        """One part: the schema's next-token loss."""
        return {"loss": self.rebuild(batch.tools, encoded.gists)}
