"""In: a sequence and a set of vectors. Out: what the sequence reads there; the gists of an encoded schema.

Letters as in ``model.modeling``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm, eager_attention_forward

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.packing import padded


class View(NamedTuple):
    """Which slots a position sees, as attention wants it; made once for all layers."""

    bias: Tensor  # (B, 1, T or 1, M), added to the scores
    some: Tensor  # (B, T or 1, 1) bool: whether it sees any


def view(mask: Tensor, bias: Tensor | None = None) -> View:
    """``mask (B, T or 1, M)`` bool, and what is added to the scores of its open slots."""
    some = mask.any(-1, keepdim=True)
    open_slots = mask | ~some  # a softmax over nothing is NaN: look anywhere, then count it as 0
    if bias is None:
        bias = torch.zeros((), dtype=torch.get_default_dtype(), device=mask.device)
    return View(bias.masked_fill(~open_slots, torch.finfo(bias.dtype).min)[:, None], some)


class CrossAttention(nn.Module):
    """Attention from a sequence to a set of vectors without positions; grouped heads and biases as in Qwen2."""

    def __init__(self, config: ToolFormerConfig, layer_idx: int = 0):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        assert config.num_key_value_heads is not None  # the configuration fills it in
        self.head_dim = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling, self.is_causal = self.head_dim**-0.5, False
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries)
        self.k_proj = nn.Linear(config.hidden_size, keys)
        self.v_proj = nn.Linear(config.hidden_size, keys)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self,
        hidden: Tensor,
        memory: Tensor,
        memory_mask: Tensor | View,
        cache: EncoderDecoderCache | None = None,
        packed: Tensor | None = None,
    ) -> Tensor:
        """``hidden (B, T, D)``, ``memory (B, M, D)`` -> ``(B, T, D)``.

        ``memory_mask`` is bool, ``(B, M)`` or, where each position has its own view, ``(B, T, M)``; or that as a
        ``View``. A position that may look at nothing gets zeros. Projected keys and values are kept in ``cache`` for
        the next token. Where ``memory (N, D)`` is packed rows, ``packed (B, M)`` says where their tokens stand.
        """
        if memory.shape[-2] == 0:
            return torch.zeros_like(hidden)
        if isinstance(memory_mask, Tensor):
            memory_mask = view(memory_mask[:, None] if memory_mask.dim() == 2 else memory_mask)
        query = self._heads(self.q_proj(hidden))
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer: Any = cache.cross_attention_cache.layers[self.layer_idx]
            key, value = layer.keys, layer.values
        else:
            key, value = self.k_proj(memory), self.v_proj(memory)
            if packed is not None:
                key, value = padded(key, packed), padded(value, packed)
            key, value = self._heads(key), self._heads(value)
            if cache is not None:
                key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
                cache.is_updated[self.layer_idx] = True
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        mixed, _ = attend(
            self,
            query,
            key,
            value,
            memory_mask.bias.to(query.dtype).expand(-1, -1, hidden.shape[1], -1),
            dropout=0.0,
            scaling=self.scaling,
            is_causal=False,
        )
        return self.o_proj(mixed.flatten(2)) * memory_mask.some

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, T, head_dim)


class PoolingBlock(nn.Module):
    """One further look at the schema: cross-attention and MLP, each with a residual."""

    def __init__(self, config: ToolFormerConfig):
        super().__init__()
        self.attn_norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attn = CrossAttention(config)
        self.mlp_norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Qwen2MLP(config)

    def forward(self, gists: Tensor, encoded: Tensor, mask: Tensor, packed: Tensor | None = None) -> Tensor:
        """``gists (U, K, D)`` refined by ``encoded (U, S, D)``, or ``(N, D)`` as in ``CrossAttention``."""
        gists = gists + self.attn(self.attn_norm(gists), encoded, mask, packed=packed)
        return gists + self.mlp(self.mlp_norm(gists))


class GistPooling(nn.Module):
    """K learned queries read a schema: ``(U, S, D)`` -> ``(U, K, D)``.

    With ``pooling_segments`` query k starts out at the k-th of K equal parts of the schema, and learns how sharply to
    keep to it: gists that all begin as the same average take long to become different.
    """

    def __init__(self, config: ToolFormerConfig):
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.num_gists, config.hidden_size))
        self.attn = CrossAttention(config)
        self.sharpness = nn.Parameter(torch.ones(config.num_gists)) if config.pooling_segments else None
        self.blocks = nn.ModuleList(PoolingBlock(config) for _ in range(config.pooling_depth - 1))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, encoded: Tensor, mask: Tensor) -> Tensor:
        """``encoded (U, S, D)``, or packed ``(N, D)``, and ``mask (U, S)`` -> gists of unit root mean square."""
        packed = mask if encoded.dim() == 2 else None
        seen = view(mask[:, None], self.segments(mask))
        gists = self.attn(self.queries.expand(len(mask), -1, -1), encoded, seen, packed=packed)
        for block in self.blocks:
            gists = block(gists, encoded, mask, packed)
        return self.norm(gists)

    def segments(self, mask: Tensor) -> Tensor | None:
        """How far each token lies from each gist's part of the schema: ``(U, S)`` -> ``(U, K, S)``, 0 or less."""
        if self.sharpness is None:
            return None
        count = len(self.sharpness)
        place = mask.cumsum(-1) - 0.5  # padding may be on either side
        place = place / mask.sum(-1, keepdim=True).clamp(min=1) * count  # in segments, 0 to K
        centre = torch.arange(count, device=mask.device) + 0.5
        return -self.sharpness[:, None] * (place[:, None] - centre[:, None]).square()
