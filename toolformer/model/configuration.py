"""In: the numbers that shape a model. Out: a validated ``ToolFormerConfig`` that every part of the model reads.

The base class is the library's Qwen2 configuration; its ``num_hidden_layers`` is the decoder's depth.
"""

from __future__ import annotations

from typing import Any

from transformers import Qwen2Config

CHOICES = {
    "gate": ("tanh", "none"),
    "encoder_attention": ("causal", "bidirectional"),
    "pointer_query": ("decoder", "encoder", "both"),
    "forms": ("none", "required", "all"),
}
COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "encoder_layers",
    "encoder_offset",
    "decoder_offset",
    "num_gists",
    "pooling_depth",
    "pointer_size",
)

SWITCHES = ("pooling_segments", "no_tool_gist", "copy_head", "pointer", "focus", "tie_word_embeddings")


class ToolFormerConfig(Qwen2Config):
    """Shape of one ToolFormerMicro.

    Args:
        tie_word_embeddings: one table for encoder, decoder and output head; false = the head has its own.
        encoder_layers: layers of the schema encoder.
        encoder_offset: index of the Qwen layer that becomes the encoder's first, when weights are converted.
        decoder_offset: the same for the decoder (its depth is ``num_hidden_layers``).
        num_gists: K, vectors per tool.
        gate: ``tanh`` (a learned scalar per layer, as in Flamingo) or ``none`` (always 1).
        gate_init: where the scalar starts: 0 leaves pretrained layers as they were; fresh weights need no such care.
        encoder_attention: ``causal`` as published, or ``bidirectional``.
        pooling_depth: 1 = one cross-attention as published; more adds blocks with residual and MLP.
        pooling_segments: gist k starts out at the k-th part of the schema, instead of at all of it.
        no_tool_gist: one learned vector that is always in the memory, so that attention has somewhere to go.
        copy_head: mix the vocabulary's distribution with one over the tokens that already stand in the conversation
            (See et al. 2017): small models then copy values long before their layers learn to.
        pointer: score the tools present, and "no call", where a call may start.
        pointer_query: where the pointer's query comes from: the decoder's state, the encoded request, or their sum.
        focus: where a call is written, the decoder sees the gists of one tool alone: of the one that the pointer chose,
            or of the one that the call has named. What a call says then depends on no other tool.
        forms: calls are written as forms, null where nobody has said a value: ``none``, ``required`` (those parameters,
            and what was said), or ``all``. A call that lacks a required value is a draft: a question is asked instead.
        pointer_size: width of the space in which requests and tools meet.
        pointer_temperature: divides the cosine similarity (InfoNCE's tau).
    """

    model_type = "toolformer_micro"

    tie_word_embeddings: bool = True
    encoder_layers: int = 6
    encoder_offset: int = 0
    decoder_offset: int = 6
    num_gists: int = 8
    gate: str = "tanh"
    gate_init: float = 0.0
    encoder_attention: str = "causal"
    pooling_depth: int = 1
    pooling_segments: bool = False
    no_tool_gist: bool = False
    copy_head: bool = False
    pointer: bool = True
    pointer_query: str = "both"
    focus: bool = False
    forms: str = "none"
    pointer_size: int = 128
    pointer_temperature: float = 0.07

    def __post_init__(self, **kwargs):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"model.{key} is {getattr(self, key)!r}; use one of {', '.join(allowed)}")
        for key in COUNTS:
            least = 0 if key.endswith("offset") else 1
            if type(value := getattr(self, key)) is not int or value < least:
                raise ValueError(f"model.{key} is {value!r}; it must be an integer of at least {least}")
        for key in SWITCHES:
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"model.{key} is {getattr(self, key)!r}; it must be true or false")
        if self.focus and not self.pointer:
            raise ValueError("model.focus is True and model.pointer is False; the focus is what the pointer chose")
        if self.pointer_temperature <= 0:
            raise ValueError(f"model.pointer_temperature is {self.pointer_temperature}; it must be above 0")
        for key, of in (("hidden_size", "num_attention_heads"), ("num_attention_heads", "num_key_value_heads")):
            if getattr(self, key) % getattr(self, of):
                raise ValueError(f"model.{key} is {getattr(self, key)}; model.{of} {getattr(self, of)} must divide it")
        if self.use_sliding_window:
            raise ValueError("model.use_sliding_window is True; only full attention is supported")
        super().__post_init__(**kwargs)

    def encoder(self) -> Qwen2Config:
        """The library configuration of the encoder's stack."""
        known = Qwen2Config().to_dict().keys() - {"layer_types", "model_type"}
        shape: dict[str, Any] = {k: v for k, v in self.to_dict().items() if k in known}
        shape["num_hidden_layers"] = self.encoder_layers
        config = Qwen2Config(**shape)
        config._attn_implementation = self._attn_implementation
        return config
