"""In: rows of different lengths. Out: the same rows one behind the other, without padding, and attention within each.

Letters: N tokens in all, B rows, T tokens of the longest, H heads; others as in ``model.modeling``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from toolformer.model.kernels import Rotation


class Pack(NamedTuple):
    """Rows of tokens, one behind the other."""

    ids: Tensor  # (N,)
    lengths: list[int]  # B

    def __add__(self, other: Any) -> Pack:
        """The rows of both."""
        return Pack(torch.cat([self.ids, other.ids]), self.lengths + other.lengths)

    @property
    def begins(self) -> Tensor:
        """The place of each row's first token among the N ``(B,)``."""
        lengths = torch.tensor(self.lengths, dtype=torch.long, device=self.ids.device)
        return lengths.cumsum(0) - lengths

    @property
    def rows(self) -> Tensor:
        """The row of each token ``(N,)``."""
        lengths = torch.tensor(self.lengths, dtype=torch.long, device=self.ids.device)
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    @property
    def positions(self) -> Tensor:
        """The place of each token in its row ``(N,)``."""
        return torch.arange(len(self.ids), device=self.ids.device) - self.begins[self.rows]

    def inputs(self) -> dict[str, Any]:
        """What the library's model is told about them."""
        return {
            "position_ids": self.positions[None],
            "attention_mask": {"full_attention": None},
            "lengths": self.lengths,
        }


def pack(ids: Tensor, mask: Tensor) -> Pack:
    """``(B, T)`` and its bool mask, padded on either side."""
    return Pack(ids[mask], mask.sum(-1).tolist())


def padded(packed: Tensor, mask: Tensor) -> Tensor:
    """``(N, ...)`` -> ``(B, T, ...)``, 0 where ``mask (B, T)`` is off."""
    return packed.new_zeros(*mask.shape, *packed.shape[1:]).index_put((mask,), packed)


def attend_rows(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], *, causal: bool, scaling: float
) -> Tensor:
    """Attention within each of the packed rows: each ``(1, N, H, d)`` -> ``(1, N, H, d)``.

    On a CPU row by row, which computes nothing in vain; on a GPU all at once, as many small calls would be waiting.
    """
    if query.device.type != "cpu":
        return attend_padded(query, key, value, lengths, causal=causal, scaling=scaling)
    mixed = []
    for row in zip(*(x.split(lengths, 1) for x in (query, key, value)), strict=True):
        one = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in row), is_causal=causal, scale=scaling)
        mixed.append(one.transpose(1, 2))
    return torch.cat(mixed, 1)


def attend_padded(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], *, causal: bool, scaling: float
) -> Tensor:
    """As ``attend_rows``, in one call over padded rows."""
    ends = torch.tensor(lengths, device=query.device)
    width = torch.arange(max(lengths), device=query.device)
    mask = width < ends[:, None]
    seen = mask[:, None, None] & (width <= width[:, None]) if causal else mask[:, None, None]
    wide = (padded(x[0], mask).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(*wide, attn_mask=seen, scale=scaling)
    return mixed.transpose(1, 2)[mask][None]


class PackedAttention(Qwen2Attention):
    """The library's self-attention; with ``lengths`` over packed rows ``(1, N, D)``, none of which sees another."""

    def forward(
        self, hidden_states: Tensor, position_embeddings: Any, *args: Any, lengths: list[int] | None = None, **kw: Any
    ) -> tuple[Tensor, Tensor | None]:
        """As the library's."""
        if lengths is None:
            return super().forward(hidden_states, position_embeddings, *args, **kw)
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin = (x[:, :, None] for x in position_embeddings)
        query, key = (Rotation.apply(x, cos, sin) for x in (query, key))
        if self.num_key_value_groups > 1:
            key, value = (x.repeat_interleave(self.num_key_value_groups, 2) for x in (key, value))
        mixed = attend_rows(query, key, value, lengths, causal=self.is_causal, scaling=self.scaling)
        return self.o_proj(mixed.flatten(2)), None
