"""In: gists. Out: what the decoder's layers and the pointer see of them, projected once a tool.

Letters as in ``model.modeling``; L decoder layers, G heads of keys, H their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from toolformer.model.modeling import ToolFormerMicro

MOST = 4096  # tools that are kept; 98 kB each at the full size in float32


class ProjectedTools:
    """Keys and values of every gist for every decoder layer: found again by the gists' content, whoever asks."""

    def __init__(self, model: ToolFormerMicro):
        self.model = model
        self._forget()

    def _forget(self) -> None:
        config, model = self.model.config, self.model
        none = torch.zeros(config.hidden_size) if model.no_tool is None else model.no_tool
        self._weights = self._versions()
        self._places: dict[bytes, int] = {}
        self._slots = self._project(none.to(model.device, model.dtype)[None])  # (1 + U*K, L, 2, G, H), first "no tool"
        self.points = torch.zeros(0, config.pointer_size, device=model.device)  # (U, E)

    def _versions(self) -> list[tuple[int, int]]:
        """Another list whenever a weight has changed that the projections are made with."""
        layers: list[Any] = list(self.model.decoder.layers)
        weights = [weight for layer in layers for weight in layer.cross_attn.parameters()]
        weights += [] if self.model.pointer is None else list(self.model.pointer.parameters())
        weights += [] if self.model.no_tool is None else [self.model.no_tool]
        return [(weight.data_ptr(), weight._version) for weight in weights]

    def places(self, gists: Sequence[Tensor]) -> list[tuple[int, ...]]:
        """Where the tools of each request stand, by their gists ``(N, K, D)``; new ones are projected.

        Places hold until the next call.
        """
        if len(self._places) > MOST or self._weights != self._versions():
            self._forget()
        found: dict[int, tuple[int, ...]] = {}
        new: list[Tensor] = []
        for each in gists:
            if id(each) not in found:
                names = [blake2b(gist, digest_size=16).digest() for gist in _bytes(each)]
                for name, gist in zip(names, each, strict=True):
                    if name not in self._places:
                        self._places[name] = len(self._places)
                        new.append(gist)
                found[id(each)] = tuple(self._places[name] for name in names)
        if new:
            self._add(torch.stack(new).to(self.model.device, self.model.dtype))
        return [found[id(each)] for each in gists]

    def _add(self, gists: Tensor) -> None:
        """``(U, K, D)`` behind those that are there; room doubles, so that adding stays cheap."""
        last, per = len(self._places), self.model.config.num_gists
        first = last - len(gists)
        if last > len(self.points):
            room = max(last, 2 * len(self.points))
            slots = self._slots.new_zeros(1 + room * per, *self._slots.shape[1:])
            points = self.points.new_zeros(room, self.points.shape[1])
            slots[: len(self._slots)], points[: len(self.points)] = self._slots, self.points
            self._slots, self.points = slots, points
        self._slots[1 + first * per : 1 + last * per] = self._project(gists.flatten(0, 1))
        if self.model.pointer is not None:
            self.points[first:last] = self.model.embed(gists)

    def _project(self, memory: Tensor) -> Tensor:
        """``(S, D)`` -> keys and values ``(S, L, 2, G, H)``."""
        layers: list[Any] = [layer.cross_attn for layer in self.model.decoder.layers]
        both = [torch.stack([layer.k_proj(memory), layer.v_proj(memory)], 1) for layer in layers]
        return torch.stack(both, 1).unflatten(-1, (-1, layers[0].head_dim))

    def keys_and_values(self, index: Tensor) -> Tensor:
        """Places ``(B, N)``, -1 = no tool there -> ``(L, 2, B, G, M, H)``, with ``no_tool_gist`` one slot more."""
        per = self.model.config.num_gists
        slots = 1 + index.clamp(min=0)[..., None] * per + torch.arange(per, device=index.device)
        slots = slots.flatten(1)
        if self.model.no_tool is not None:
            slots = F.pad(slots, (1, 0))
        return self._slots[slots].permute(2, 3, 0, 4, 1, 5)


def _bytes(gists: Tensor) -> Any:
    """The bytes of each tool's gists, a row each."""
    return gists.detach().contiguous().flatten(1).view(torch.uint8).cpu().numpy() if len(gists) else ()
