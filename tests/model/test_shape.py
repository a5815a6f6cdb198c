"""In: configurations. Out: whether the model has the published size, and with closed gates is the library's Qwen2."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from model.tiny import SHAPE, inputs, randomise, remember
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from toolformer.model import ToolFormerConfig, ToolFormerMicro, from_qwen

CONF = Path(__file__).parents[2] / "conf/model"
QWEN = {  # config.json of Qwen2.5-0.5B
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def published() -> ToolFormerConfig:
    shape: dict[str, Any] = {}
    for name in ("qwen2.5-0.5b", "published"):
        shape |= yaml.safe_load((CONF / f"{name}.yaml").read_text())
    shape = {k: v for k, v in shape.items() if k not in ("defaults", "source") and not k.startswith("_")}
    return ToolFormerConfig(**QWEN, num_hidden_layers=shape.pop("decoder_layers"), **shape)


def size(*parts: nn.Module | nn.Parameter) -> int:
    parameters = [p for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    return sum(p.numel() for p in parameters)


def test_published_size_by_part():
    with torch.device("meta"):
        model = ToolFormerMicro(published())
    layers = model.decoder.layers
    parts = {
        "embeddings": size(model.embed_tokens),
        "encoder layers": size(model.encoder.layers),
        "decoder layers of Qwen": size(*(p for x in layers for p in (x.self_attn, x.mlp))),
        "their norms": size(*(n for x in layers for n in (x.input_layernorm, x.post_attention_layernorm))),
        "cross-attention": size(*(x.cross_attn for x in layers)),
        "norms before it": size(*(x.cross_attn_layernorm for x in layers)),
        "gates": size(*(x.cross_attn_gate for x in layers)),
        "gist pooling": size(model.gist_pool),
        "final norms": size(model.encoder.norm, model.decoder.norm),
    }
    assert parts == {
        "embeddings": 136_134_656,
        "encoder layers": 89_474_304,
        "decoder layers of Qwen": 178_927_104,
        "their norms": 21_504,
        "cross-attention": 22_033_920,
        "norms before it": 10_752,
        "gates": 12,
        "gist pooling": 1_844_224,
        "final norms": 1_792,
    }
    assert size(model) == sum(parts.values()) == 428_448_268
    assert model.config.num_gists * model.config.hidden_size * 2 == 14_336  # bytes of a tool in bf16


def test_the_head_is_the_table_unless_told_otherwise():
    tied, apart = (ToolFormerMicro(ToolFormerConfig(**SHAPE, tie_word_embeddings=tie)) for tie in (True, False))
    assert tied.lm_head.weight is tied.embed_tokens.weight
    assert ToolFormerMicro(ToolFormerConfig(**SHAPE)).lm_head.weight.shape == tied.embed_tokens.weight.shape
    assert size(apart) == size(tied) + SHAPE["vocab_size"] * SHAPE["hidden_size"]
    assert size(ToolFormerMicro(ToolFormerConfig(**SHAPE))) == size(tied)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Qwen2ForCausalLM]:
    """A random Qwen2 of six layers, and a folder with it."""
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    config = Qwen2Config(**{k: SHAPE[k] for k in keys}, num_hidden_layers=6, tie_word_embeddings=True)
    model = Qwen2ForCausalLM(config)
    randomise(model)
    folder = str(tmp_path_factory.mktemp("qwen"))
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_closed_gates_leave_the_librarys_layers_bitwise(qwen, dtype: torch.dtype, attention: str):
    folder, whole = qwen
    ours = from_qwen(folder, encoder_layers=1, decoder_layers=3, decoder_offset=2, num_gists=3, dtype=dtype).eval()
    ours.set_attn_implementation(attention)
    library = copy.deepcopy(whole).to(dtype).eval()
    library.model.layers, library.config.num_hidden_layers = library.model.layers[2:5], 3
    library.set_attn_implementation(attention)
    for position, layer in enumerate(library.model.layers):
        layer.self_attn.layer_idx = position  # its place in the cache
    batch = inputs()
    told = remember(ours, batch)
    assert all(gate == 0 for gate in ours.gates()) and told["memory"].dtype == dtype
    for mask in (torch.ones_like(batch.attention_mask).long(), batch.attention_mask.long()):
        wanted = library(batch.input_ids, attention_mask=mask).logits
        assert torch.equal(ours(batch.input_ids, attention_mask=mask, **told).logits, wanted)
        assert torch.equal(ours(batch.input_ids, attention_mask=mask).logits, wanted)
    ours.decoder.layers[0].cross_attn_gate.fill_(0.5)
    assert not torch.equal(ours(batch.input_ids, attention_mask=mask, **told).logits, wanted)
