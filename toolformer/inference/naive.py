"""In: requests with their tools. Out: the same answers as the engine's, by the plainest means: to compare with.

One request at a time; every token is chosen after the whole sequence was computed anew. Nothing is kept or batched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from toolformer.data.batches import ALL
from toolformer.inference.engine import Engine
from toolformer.inference.writing import Decoding, Request, Row
from toolformer.records import Tool


class NaiveEngine(Engine):
    """An ``Engine`` without caches, batches, buckets and forced tokens; ``batch_size`` is not used."""

    @torch.inference_mode()
    def encode(self, tools: Sequence[Tool], batch_size: int = 1) -> Tensor:
        """Gists ``(U, K, D)``, one tool after the other."""
        device = self.model.device
        schemas = [torch.tensor([self.prompts.schema(tool)], device=device) for tool in tools]
        gists = [self.model.encode_tools(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in schemas]
        none = self.model.encode_tools(*[torch.zeros(0, 0, dtype=torch.long, device=device)] * 2)
        return torch.cat([none, *gists])

    def _write(self, rows: Sequence[Row], progress: Callable[[int], object]) -> None:
        for row in rows:
            row.begin(self._nearest(row))
            while not row.ended:
                self._step(row)
            progress(1)

    @torch.inference_mode()
    def first(self, requests: Sequence[Request], decoding: Decoding) -> list[tuple[Tensor, list[float]]]:
        """As the engine's."""
        out = []
        for row in self._rows(requests, decoding):
            row.begin(self._nearest(row))
            ids, states = self._states(row)
            scores = self._scores(row, states).tolist() if decoding == "pointed" else []
            out.append((self._logits_at_end(row, ids, states).cpu(), scores))
        return out

    def _step(self, row: Row) -> None:
        """One more token."""
        ids, states = self._states(row)
        if row.starts:
            scores = self._scores(row, states)
            scores[0] += self.no_call_bias * (row.calls == 0)
            row.decide(scores.double().softmax(-1).tolist())
        logits = self._logits_at_end(row, ids, states)
        if row.over:
            row.push(self.prompts.end)
            return
        if row.matcher is not None:
            allowed = torch.from_numpy(self.grammar.allowed([row.matcher], self.vocab_size))[0]
            logits = logits.masked_fill(~allowed.to(logits.device), float("-inf"))
        row.push(int(logits.argmax()))

    def _gists(self, row: Row) -> tuple[Tensor, Tensor]:
        """Gists ``(N, K, D)`` and the index ``(1, N)`` under which the model looks them up."""
        gists = row.request.gists.to(self.model.device, self.model.dtype)
        return gists, torch.arange(len(gists), device=gists.device)[None]

    def _prompt(self, row: Row) -> tuple[Tensor, Tensor]:
        """The prompt ``(1, T)`` and its mask."""
        ids = torch.tensor([row.prompt], device=self.model.device)
        return ids, torch.ones_like(ids, dtype=torch.bool)

    def _nearest(self, row: Row) -> int:
        if not (self.model.config.focus and row.decides):
            return ALL
        return int(self.model.nearest(self.model.encode_request(*self._prompt(row)), *self._gists(row)))

    def _states(self, row: Row) -> tuple[Tensor, Tensor]:
        """All of prompt and answer ``(1, T)``, and the decoder's states ``(1, T, D)``."""
        ids, looks = torch.tensor(row.unread, device=self.model.device).T[:, None]
        memory, memory_mask = self.model.memory(*self._gists(row))
        if self.model.config.focus:
            memory_mask = self.model.focused(memory_mask, looks)
        return ids, self.model.decode(ids, memory=memory, memory_mask=memory_mask, use_cache=False)

    def _scores(self, row: Row, states: Tensor) -> Tensor:
        """The pointer's scores ``(1 + N,)`` at the end."""
        request = self.model.encode_request(*self._prompt(row)) if self.model.needs_request else None
        gists, index = self._gists(row)
        called = torch.tensor([[[place in row.called for place in range(len(gists))]]], device=states.device)
        return self.model.point(states[:, -1:], request, gists, index, called)[0, 0]

    def _logits_at_end(self, row: Row, ids: Tensor, states: Tensor) -> Tensor:
        """``(V,)``, with what may be copied."""
        reading = None if self.model.copy_head is None else self.model.read(*self._prompt(row))
        logits = self.model.next_token_logits(states, ids, None, None, last=1, reading=reading)[0, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
