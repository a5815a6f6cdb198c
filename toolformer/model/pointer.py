"""In: a request and tools as gists, the decoder's state. Out: a score for each tool on offer and for "no call".

Letters as in ``model.modeling``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.losses import NEVER

HALFWAY = 0.5  # the cosine that "no call" stands for before it has learned


def nearest(request: Tensor, tools: Tensor, tool_index: Tensor) -> Tensor:
    """The tool that each request ``(B, E)`` is nearest to: its place in ``tool_index (B, N)``, -1 = no tools there.

    ``tools (U, E)`` and the requests have unit length.
    """
    if not len(tools) or not tool_index.shape[1]:
        return tool_index.new_full((len(tool_index),), -1)
    near = torch.einsum("be,bne->bn", request, tools[tool_index.clamp(min=0)])
    best = near.masked_fill(tool_index < 0, float("-inf")).argmax(-1)
    return best.masked_fill((tool_index < 0).all(-1), -1)


class ToolPointer(nn.Module):
    """Requests and tools in one space: cosine of query and pooled gist, against a score of "no call"."""

    def __init__(self, config: ToolFormerConfig):
        super().__init__()
        size = config.pointer_size
        self.temperature, self.query = config.pointer_temperature, config.pointer_query
        self.proj = nn.Linear(config.hidden_size, size, bias=False)
        self.state_proj = nn.Linear(config.hidden_size, size) if self.query != "encoder" else None
        self.ask = nn.Linear(config.hidden_size, config.hidden_size, bias=False) if self.query == "both" else None
        self.no_call = nn.Linear(config.hidden_size, 1)
        self.trust = nn.Parameter(torch.tensor(HALFWAY))  # how much the best match speaks for a call
        self.again = nn.Parameter(torch.tensor(0.0))  # added to the cosine of a tool that the answer has called before

    def embed(self, pooled: Tensor) -> Tensor:
        """Pooled gists of tools or of requests ``(..., D)`` -> unit vectors ``(..., E)``."""
        return F.normalize(self.proj(pooled).float(), dim=-1)

    def queries(self, states: Tensor, request: Tensor | None) -> Tensor:
        """Decoder states ``(B, P, D)`` and the request's gists ``(B, K, D)`` -> unit vectors ``(B, P, E)``.

        A state that knows what has been called already can ask for the part of the request that is left.
        """
        if self.state_proj is None:
            assert request is not None
            return self.embed(request.mean(1))[:, None].expand(-1, states.shape[1], -1)
        query = self.state_proj(states).float()
        if self.ask is not None:
            assert request is not None
            shares = (self.ask(states) @ request.mT * request.shape[-1] ** -0.5).softmax(-1)  # (B, P, K)
            query = query + self.embed(shares @ request) * query.shape[-1] ** 0.5
        return F.normalize(query, dim=-1)

    def scores(
        self, states: Tensor, request: Tensor | None, tools: Tensor, tool_index: Tensor, called: Tensor | None
    ) -> Tensor:
        """``states (B, P, D)``, ``tools (U, E)``, ``tool_index (B, N)`` -> ``(B, P, 1 + N)``; absent tools are -inf.

        ``called (B, P, N)`` marks the tools that the answer has called so far, None = none. Whether to call is
        read off the state; how well the best tool matches speaks for it as far as it has proved to.
        """
        tools = tools if len(tools) else tools.new_zeros(1, tools.shape[1])  # something to index where there is none
        chosen = tools[tool_index.clamp(min=0)]  # (B, N, E)
        similarity = torch.einsum("bpe,bne->bpn", self.queries(states, request), chosen)
        if called is not None:
            similarity = similarity + self.again * called
        similarity = similarity / self.temperature
        similarity = similarity.masked_fill((tool_index < 0)[:, None], NEVER)
        best = F.pad(similarity, (1, 0), value=HALFWAY / self.temperature).logsumexp(-1, keepdim=True)
        none = self.no_call(states).float() + best - self.trust * (best - HALFWAY / self.temperature)
        return torch.cat([none, similarity.masked_fill((tool_index < 0)[:, None], float("-inf"))], dim=-1)
