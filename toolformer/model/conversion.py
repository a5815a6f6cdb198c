"""In: a Qwen2/Qwen2.5 checkpoint (folder or hub id) or one of ours. Out: a ToolFormerMicro with those weights.

Qwen layers [encoder_offset, +encoder_layers) become the encoder, [decoder_offset, +decoder layers) the decoder; the
final norm goes to both; gates, cross-attention, gist pooling and pointer are new.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, Qwen2Config
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.modeling import ToolFormerMicro

NEW_PARTS = re.compile(r"gist_pool\.|pointer\.|no_tool$|lm_head\.|decoder\.layers\.\d+\.cross_attn")
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def from_qwen(source: str, *, decoder_layers: int = 12, dtype: torch.dtype = torch.float32, **shape: Any):
    """Build a ToolFormerMicro from Qwen2-family weights.

    Args:
        source: local folder or hub id that holds ``config.json`` and safetensors.
        decoder_layers: depth of the decoder.
        dtype: of the parameters.
        **shape: further fields of ``ToolFormerConfig``.

    Raises:
        ValueError: another architecture, layers the checkpoint does not have, or weights that do not fit.
    """
    qwen = _config(source)
    if not isinstance(qwen, Qwen2Config) or isinstance(qwen, ToolFormerConfig):
        raise ValueError(f"{source}: model_type is {qwen.model_type!r}; weights are read from Qwen2 and Qwen2.5 models")
    base = {k: v for k, v in qwen.to_dict().items() if k not in ("layer_types", "architectures", "model_type")}
    config = ToolFormerConfig(**{**base, "num_hidden_layers": decoder_layers, **shape, "tie_word_embeddings": True})
    for part, first, count in (
        ("encoder", config.encoder_offset, config.encoder_layers),
        ("decoder", config.decoder_offset, config.num_hidden_layers),
    ):
        if first < 0 or first + count > qwen.num_hidden_layers:
            raise ValueError(
                f"{source}: model.{part}_offset {first} + {count} layers is outside its {qwen.num_hidden_layers} layers"
            )
    model = ToolFormerMicro(config)
    _load(model, source, _renamed(_weights(source), config))
    return model.to(dtype)


def load_backbone(path: str) -> ToolFormerMicro:
    """A folder written by ``save_pretrained``; anything else is refused by name."""
    config = _config(path)
    if not isinstance(config, ToolFormerConfig):
        raise ValueError(f"{path}: model_type is {config.model_type!r}; wanted a toolformer_micro folder (…/backbone)")
    model, info = ToolFormerMicro.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    wrong = {k: sorted(map(str, info[k])) for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[k]}
    if wrong:
        first = next(iter(wrong.items()))
        raise ValueError(f"{path}: {first[0]} {first[1][:3]}; the weights do not belong to this config.json")
    return model


def _config(source: str):
    if Path(source).is_absolute() and not Path(source).is_dir():
        raise FileNotFoundError(f"{source}: no such model folder; give a folder with config.json or a hub id")
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"{source}: no readable config.json ({why}); give a model folder or a hub id") from error


def _weights(source: str) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors checkpoint, in one file or in shards."""
    one = cached_file(source, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    index = cached_file(source, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    if one is None and index is None:
        raise ValueError(f"{source}: model.safetensors is missing; save the checkpoint in safetensors format")
    files = [one] if one is not None else get_checkpoint_shard_files(source, index)[0]
    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as shard:
            tensors.update({key: shard.get_tensor(key) for key in shard.keys()})
    return tensors


def _renamed(tensors: dict[str, torch.Tensor], config: ToolFormerConfig) -> dict[str, torch.Tensor]:
    out = {}
    for key, value in tensors.items():
        if key == "model.embed_tokens.weight":
            out["embed_tokens.weight"] = value
        elif key == "model.norm.weight":
            out["encoder.norm.weight"] = out["decoder.norm.weight"] = value
        elif match := LAYER.fullmatch(key):
            layer = int(match[1])
            for part, first, count in (
                ("encoder", config.encoder_offset, config.encoder_layers),
                ("decoder", config.decoder_offset, config.num_hidden_layers),
            ):
                if first <= layer < first + count:
                    out[f"{part}.layers.{layer - first}.{match[2]}"] = value
    return out


def _load(model: ToolFormerMicro, source: str, tensors: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    for key, value in tensors.items():
        if key not in own or own[key].shape != value.shape:
            want = tuple(own[key].shape) if key in own else "absent"
            raise ValueError(f"{source}: {key} has shape {tuple(value.shape)}, the model wants {want}")
    missing, _ = model.load_state_dict(tensors, strict=False)
    lost = [key for key in missing if not NEW_PARTS.match(key)]
    if lost:
        raise ValueError(f"{source}: {len(lost)} weights are missing, first {lost[0]}; is the checkpoint whole?")
    model.tie_weights()
