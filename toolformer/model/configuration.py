"""In: the numbers that shape a model. Out: a validated ``ToolFormerConfig`` that every part of the model reads.

The base class is the library's Qwen2 configuration; its ``num_hidden_layers`` is the decoder's depth.
"""

from __future__ import annotations

from transformers import Qwen2Config

CHOICES = {
    "gate": ("tanh", "none"),
    "encoder_attention": ("causal", "bidirectional"),
    "pointer_query": ("decoder", "encoder", "both"),
}


class ToolFormerConfig(Qwen2Config):
    """Shape of one ToolFormerMicro.

    Args:
        encoder_layers: layers of the schema encoder.
        encoder_offset: index of the Qwen layer that becomes the encoder's first, when weights are converted.
        decoder_offset: the same for the decoder (its depth is ``num_hidden_layers``).
        num_gists: K, vectors per tool.
        gate: ``tanh`` (a learned scalar per layer that starts at 0, as in Flamingo) or ``none`` (always 1).
        encoder_attention: ``causal`` as published, or ``bidirectional``.
        pooling_depth: 1 = one cross-attention as published; more adds blocks with residual and MLP.
        no_tool_gist: one learned vector that is always in the memory, so that attention has somewhere to go.
        pointer: score the tools present, and "no call", where a call may start.
        pointer_query: where the pointer's query comes from: the decoder's state, the encoded request, or their sum.
        pointer_size: width of the space in which requests and tools meet.
        pointer_temperature: divides the cosine similarity (InfoNCE's tau).
    """

    model_type = "toolformer_micro"

    encoder_layers: int = 6
    encoder_offset: int = 0
    decoder_offset: int = 6
    num_gists: int = 8
    gate: str = "tanh"
    encoder_attention: str = "causal"
    pooling_depth: int = 1
    no_tool_gist: bool = False
    pointer: bool = True
    pointer_query: str = "both"
    pointer_size: int = 128
    pointer_temperature: float = 0.07

    def __post_init__(self, **kwargs):
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"model.{key} is {getattr(self, key)!r}; use one of {', '.join(allowed)}")
        for key in ("encoder_layers", "num_gists", "pooling_depth", "pointer_size", "num_hidden_layers"):
            if getattr(self, key) < 1:
                raise ValueError(f"model.{key} is {getattr(self, key)}; it must be at least 1")
        super().__post_init__(**kwargs)

    def encoder(self) -> Qwen2Config:
        """The library configuration of the encoder's stack."""
        shape = {k: v for k, v in self.to_dict().items() if k in Qwen2Config().to_dict() and k != "layer_types"}
        config = Qwen2Config(**{**shape, "num_hidden_layers": self.encoder_layers})
        config._attn_implementation = self._attn_implementation
        return config
