"""In: a sequence and a set of vectors. Out: what the sequence reads there; the gists of an encoded schema.

Letters as in ``model.modeling``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm, eager_attention_forward

from toolformer.model.configuration import ToolFormerConfig


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
        memory_mask: Tensor,
        cache: EncoderDecoderCache | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """``hidden (B, T, D)``, ``memory (B, M, D)`` -> ``(B, T, D)``.

        ``memory_mask`` is bool, ``(B, M)`` or, where each position has its own view, ``(B, T, M)``; ``bias (B, T, M)``
        is added to the scores. A position that may look at nothing gets zeros. Projected keys and values are kept in
        ``cache`` for the next token.
        """
        if memory.shape[1] == 0:
            return torch.zeros_like(hidden)
        if memory_mask.dim() == 2:
            memory_mask = memory_mask[:, None]
        query = self._heads(self.q_proj(hidden))
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer: Any = cache.cross_attention_cache.layers[self.layer_idx]
            key, value = layer.keys, layer.values
        else:
            key, value = self._heads(self.k_proj(memory)), self._heads(self.v_proj(memory))
            if cache is not None:
                key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
                cache.is_updated[self.layer_idx] = True
        some = memory_mask.any(-1, keepdim=True)
        open_slots = memory_mask | ~some  # a softmax over nothing is NaN: look anywhere, then count it as 0
        if bias is None:
            bias = torch.zeros(open_slots.shape, dtype=query.dtype, device=query.device)
        bias = bias.to(query.dtype).masked_fill(~open_slots, torch.finfo(query.dtype).min)[:, None]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        mixed, _ = attend(
            self,
            query,
            key,
            value,
            bias.expand(-1, -1, hidden.shape[1], -1),
            dropout=0.0,
            scaling=self.scaling,
            is_causal=False,
        )
        return self.o_proj(mixed.flatten(2)) * some

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

    def forward(self, gists: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
        """``gists (U, K, D)`` refined by ``encoded (U, S, D)``."""
        gists = gists + self.attn(self.attn_norm(gists), encoded, mask)
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
        """``encoded (U, S, D)``, ``mask (U, S)`` -> gists of unit root mean square."""
        gists = self.attn(self.queries.expand(len(encoded), -1, -1), encoded, mask, bias=self.segments(mask))
        for block in self.blocks:
            gists = block(gists, encoded, mask)
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
