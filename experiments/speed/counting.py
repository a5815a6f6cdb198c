"""In: a configuration and lengths. Out: how many operations and bytes the work needs at the least.

One multiplication and one addition are two operations; norms, activations and softmax are left out, as everywhere.
``pairs`` are the products of a query with a key: causal attention over S tokens needs ``S * (S + 1) / 2``.
Letters as in ``toolformer.model.modeling``.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import Qwen2Config

from toolformer.model import ToolFormerConfig


def causal(tokens: int, before: int = 0) -> int:
    """Pairs of ``tokens`` that see each other from left to right, and all of the ``before`` that were read before.

    >>> causal(3), causal(1, before=9)
    (6, 10)
    """
    return tokens * (tokens + 1) // 2 + tokens * before


def widths(config: Qwen2Config) -> tuple[int, int]:
    """Columns of a layer's queries, and of its keys."""
    size = config.hidden_size // config.num_attention_heads
    assert config.num_key_value_heads is not None
    return config.num_attention_heads * size, config.num_key_value_heads * size


def layer_weights(config: Qwen2Config) -> int:
    """Numbers in the matrices of one Qwen layer."""
    queries, keys = widths(config)
    return config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)


def read(config: Qwen2Config, tokens: int, pairs: int, layers: int) -> int:
    """Operations of ``layers`` Qwen layers."""
    return 2 * layers * (tokens * layer_weights(config) + 2 * pairs * widths(config)[0])


def head(config: Qwen2Config, positions: int = 1) -> int:
    """Operations of the logits of so many positions."""
    return 2 * positions * config.hidden_size * config.vocab_size


def encode(config: ToolFormerConfig, lengths: Sequence[int]) -> int:
    """Operations that make the gists of schemas of so many tokens each."""
    whole = config.encoder_attention == "bidirectional"
    layers = sum(read(config, n, n * n if whole else causal(n), config.encoder_layers) for n in lengths)
    return layers + sum(pool(config, n) for n in lengths)


def pool(config: ToolFormerConfig, tokens: int) -> int:
    """Operations of the gist pooling of one schema."""
    (queries, keys), gists = widths(config), config.num_gists
    look = 4 * config.hidden_size * (gists * queries + tokens * keys) + 4 * gists * tokens * queries
    return config.pooling_depth * look + (config.pooling_depth - 1) * 6 * gists * (
        config.hidden_size * config.intermediate_size
    )


def decode(config: ToolFormerConfig, tokens: int, pairs: int, slots: int, *, projected: int, positions: int = 1) -> int:
    """Operations of the decoder on ``tokens`` in view of ``slots`` gists.

    ``projected``: of how many gists the keys and values are computed now; ``positions``: of how many tokens the logits.
    """
    queries, keys = widths(config)
    looks = 4 * config.hidden_size * (tokens * queries + projected * keys) + 4 * tokens * slots * queries
    layers = config.num_hidden_layers
    return read(config, tokens, pairs, layers) + layers * looks + head(config, positions)


def token_numbers(config: ToolFormerConfig, before: int, slots: int) -> int:
    """Numbers that must be fetched for one more token: weights, and the keys and values of text and gists."""
    queries, keys = widths(config)
    layer = layer_weights(config) + 2 * config.hidden_size * queries + 2 * keys * (before + slots)
    return config.num_hidden_layers * layer + config.hidden_size * config.vocab_size


def text_numbers(config: Qwen2Config, before: int) -> int:
    """The same for a plain Qwen model that has read ``before`` tokens."""
    layer = layer_weights(config) + 2 * widths(config)[1] * before
    return config.num_hidden_layers * layer + config.hidden_size * config.vocab_size
