"""In: gists of any number of tools, requests as token ids. Out: the few tools that each request is nearest to.

A first pass before the decoder: a cosine in the space in which stage 1.5 brings requests and tools together. Letters as
in ``model.modeling``; E is the width of that space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from toolformer.data.batches import pad
from toolformer.model.modeling import ToolFormerMicro
from toolformer.records import Tool

BATCH = 64  # requests read together


class Near(NamedTuple):
    """A tool, and the cosine between it and a request."""

    tool: Tool
    score: float


class Router:
    """One unit vector for each tool that may be called, kept as one matrix ``(N, E)``.

    Its rows are in the order of the tools' ids, and equal scores are too: in which order tools were added, or what was
    removed in between, changes nothing.
    """

    def __init__(self, model: ToolFormerMicro):
        self.model = model
        self.tools: list[Tool] = []  # one for each row
        self.matrix = self._embed(torch.zeros(0, model.config.num_gists, model.config.hidden_size))

    def add(self, tools: Sequence[Tool], gists: Sequence[Tensor]) -> None:
        """Tools that are not there yet, with their gists ``(K, D)`` each."""
        joined = [*self.tools, *tools]
        order = sorted(range(len(joined)), key=lambda i: joined[i].id)
        rows = [self._embed(own[None]) for own in gists]  # one by one: a product of many rounds otherwise than of few
        self.matrix = torch.cat([self.matrix, *rows])[order]
        self.tools = [joined[i] for i in order]

    def remove(self, tools: Sequence[Tool]) -> None:
        """Tools that are there; the rows of the others stay bit for bit as they are."""
        gone = {tool.id for tool in tools}
        keep = [i for i, tool in enumerate(self.tools) if tool.id not in gone]
        self.matrix, self.tools = self.matrix[keep], [self.tools[i] for i in keep]

    @torch.inference_mode()
    def nearest(self, prompts: Sequence[Sequence[int]], k: int) -> list[list[Near]]:
        """The ``k`` tools that each prompt is nearest to, all where there are fewer, nearest first.

        A request for several things lies between them. So a tool is as near as it is to the request's embedding or to
        that of any one of the request's gists, whichever is nearer: each of them reads another part of the request.

        Raises:
            ValueError: ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        found: list[list[Near]] = []
        for start in range(0, len(prompts), BATCH):
            ids, mask = (t.to(self.model.device) for t in pad(prompts[start : start + BATCH], left=True))
            request = self.model.encode_request(ids, mask)  # (B, K, D)
            queries = self.model.embed(torch.stack([request.mean(1), *request.unbind(1)], 1).flatten(0, 1)[:, None])
            scores = (queries @ self.matrix.T).unflatten(0, (len(request), -1)).amax(1)  # (B, N)
            for row in scores:
                places = _best(row, k)
                found.append(
                    [Near(self.tools[i], score) for i, score in zip(places.tolist(), row[places].tolist(), strict=True)]
                )
        return found

    @torch.inference_mode()
    def _embed(self, gists: Tensor) -> Tensor:
        return self.model.embed(gists.to(self.model.device, self.model.dtype))


def _best(scores: Tensor, k: int) -> Tensor:
    """Where the ``k`` highest scores ``(N,)`` stand, the highest first, equal ones in their order.

    Sorting them all would take longer than the matrix product.
    """
    least = scores.topk(min(k, len(scores))).values[-1:]
    places = (scores >= least).nonzero()[:, 0]
    return places[scores[places].sort(descending=True, stable=True).indices[:k]]
