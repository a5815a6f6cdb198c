"""In: a Qwen2/Qwen2.5 checkpoint (folder or hub id) or one of ours. Out: a ToolFormerMicro with those weights.

Qwen layers [encoder_offset, +encoder_layers) become the encoder, [decoder_offset, +decoder layers) the decoder; the
final norm goes to both; gates, cross-attention, gist pooling and pointer are new.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, Qwen2Config
from transformers.utils import cached_file, logging
from transformers.utils.hub import get_checkpoint_shard_files

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.modeling import ToolFormerMicro

NEW_PARTS = re.compile(r"gist_pool\.|pointer\.|no_tool$|copy_head\.|decoder\.layers\.\d+\.cross_attn")
LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def from_qwen(
    source: str,
    *,
    decoder_layers: int = 12,
    dtype: torch.dtype = torch.float32,
    vocab_size: int | None = None,
    **shape: Any,
) -> ToolFormerMicro:
    """Build a ToolFormerMicro from Qwen2-family weights of any size.

    Args:
        source: local folder or hub id that holds ``config.json`` and safetensors, in one file or in shards.
        decoder_layers: depth of the decoder.
        dtype: of the parameters.
        vocab_size: tokens of the tokenizer in use; the checkpoint's table stays as it is and must have a row for each.
        **shape: further fields of ``ToolFormerConfig``.

    Raises:
        ValueError: another architecture, layers the checkpoint does not have, or weights that do not fit.
    """
    qwen = _config(source)
    if not isinstance(qwen, Qwen2Config) or isinstance(qwen, ToolFormerConfig):
        raise ValueError(f"{source}: model_type is {qwen.model_type!r}; weights are read from Qwen2 and Qwen2.5 models")
    if vocab_size is not None and vocab_size > qwen.vocab_size:
        raise ValueError(
            f"{source}: vocab_size is {qwen.vocab_size}, the tokenizer has {vocab_size} tokens; "
            "take the tokenizer that belongs to the weights"
        )
    base = {k: v for k, v in qwen.to_dict().items() if k not in ("layer_types", "architectures", "model_type")}
    fields: dict[str, Any] = {**base, "num_hidden_layers": decoder_layers, **_known(shape)}
    config = ToolFormerConfig(**fields)
    for part, first, count in _spans(config):
        if first + count > qwen.num_hidden_layers:
            raise ValueError(
                f"{source}: model.{part}_offset {first} + {count} layers is outside its {qwen.num_hidden_layers} layers"
            )
    model = ToolFormerMicro(config)
    _load(model, source, _weights(source, config))
    return model.to(dtype)


def fresh(
    *, vocab_size: int, eos_token_id: int, pad_token_id: int, bag_of_words: bool = False, **shape: Any
) -> ToolFormerMicro:
    """A ToolFormerMicro with random weights; ``shape`` are fields of ``ToolFormerConfig``.

    ``bag_of_words``: see ``start_as_bag_of_words``.
    """
    ids: dict[str, Any] = {"vocab_size": vocab_size, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    model = ToolFormerMicro(ToolFormerConfig(**_known(shape), **ids))
    if bag_of_words:
        start_as_bag_of_words(model)
    return model


@torch.no_grad()
def start_as_bag_of_words(model: ToolFormerMicro) -> None:
    """Initial values under which words are what meets words before anything is learned.

    The branches of the encoder's layers end in 0, so its states start as embeddings; pooling and cross-attention pass
    on what they attend to, so gists start as means of embeddings; so does the pointer's projection, so requests start
    near the tools that share their words.
    """
    encoder: list[Any] = list(model.encoder.layers)
    for layer in encoder:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    decoder: list[Any] = list(model.decoder.layers)
    for attention in (model.gist_pool.attn, *(layer.cross_attn for layer in decoder)):
        groups, width = attention.num_key_value_groups, attention.head_dim
        nn.init.orthogonal_(attention.v_proj.weight)
        values = attention.v_proj.weight.unflatten(0, (-1, width)).repeat_interleave(groups, 0) / groups
        attention.o_proj.weight.copy_(values.flatten(0, 1).T)  # o(v(x)) is x, or its part in the span of the values
    if model.copy_head is not None:
        nn.init.orthogonal_(model.copy_head.query.weight)
        model.copy_head.key.weight.copy_(model.copy_head.query.weight)
    if model.pointer is not None:
        nn.init.orthogonal_(model.pointer.proj.weight)
        for part in (model.pointer.no_call, model.pointer.state_proj):
            if part is not None:
                nn.init.zeros_(part.weight)


def load_backbone(path: str) -> ToolFormerMicro:
    """A folder written by ``save_pretrained``, in safetensors; anything else is refused by name."""
    config = _config(path)
    if not isinstance(config, ToolFormerConfig):
        raise ValueError(f"{path}: model_type is {config.model_type!r}; wanted a toolformer_micro folder (…/backbone)")
    _check_shapes(path, config)
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is told below, in one line
    try:
        loaded: Any = ToolFormerMicro.from_pretrained(
            path, output_loading_info=True, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # the library checks little: what is wrong shows as any kind of error
        raise ValueError(f"{path}: weights cannot be read ({_first_line(error)}); copy the folder again") from error
    finally:
        logging.set_verbosity(said)
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys"):
        if info[kind]:
            raise ValueError(
                f"{path}: {kind} {sorted(map(str, info[kind]))[:3]}; the weights do not belong to this config.json"
            )
    return model


def _check_shapes(path: str, config: ToolFormerConfig) -> None:
    """Config and weights belong together; asked before memory is taken for whatever the config says."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for file in _files(path):
            with safe_open(file, framework="pt") as shard:
                shapes |= {key: tuple(shard.get_slice(key).get_shape()) for key in shard.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: weights cannot be read ({_first_line(error)}); copy the folder again") from error
    if config.num_hidden_layers + config.encoder_layers > len(shapes):
        layers = f"{config.encoder_layers} + {config.num_hidden_layers}"
        raise ValueError(f"{path}: config.json has {layers} layers, the weights are {len(shapes)} tensors; copy both")
    try:
        with torch.device("meta"):
            own = {key: tuple(value.shape) for key, value in ToolFormerMicro(config).state_dict().items()}
    except Exception as error:  # the library checks little: what is wrong shows as any kind of error
        raise ValueError(f"{path}: config.json makes no model ({_first_line(error)}); copy the folder again") from error
    wrong = sorted(key for key in own.keys() & shapes.keys() if own[key] != shapes[key])
    if wrong:
        raise ValueError(
            f"{path}: mismatched_keys {wrong[:3]}; the weights do not belong to this config.json "
            f"({wrong[0]} is {shapes[wrong[0]]}, by the config {own[wrong[0]]})"
        )


def _known(shape: dict[str, Any]) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(ToolFormerConfig)}
    for key in shape.keys() - fields:
        raise ValueError(f"model.{key} is {shape[key]!r}; there is no such field")
    return shape


def _spans(config: ToolFormerConfig) -> tuple[tuple[str, int, int], ...]:
    """Which Qwen layers go where: part, first, count."""
    return (
        ("encoder", config.encoder_offset, config.encoder_layers),
        ("decoder", config.decoder_offset, config.num_hidden_layers),
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _config(source: str):
    if Path(source).is_absolute() and not Path(source).is_dir():
        raise FileNotFoundError(f"{source}: no such model folder; give a folder with config.json or a hub id")
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)  # None would ask on the terminal
    except Exception as error:  # the library checks little: what is wrong shows as any kind of error
        why = _first_line(error)
        raise ValueError(f"{source}: no readable config.json ({why}); give a model folder or a hub id") from error


def _weights(source: str, config: ToolFormerConfig) -> dict[str, Tensor]:
    """The tensors of a safetensors checkpoint that ``config`` has a place for, under our names."""
    tensors: dict[str, Tensor] = {}
    try:
        for file in _files(source):
            with safe_open(file, framework="pt") as shard:
                for key in shard.keys():
                    tensors.update((name, shard.get_tensor(key)) for name in _places(key, config))
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{source}: model.safetensors cannot be read ({_first_line(error)}); copy the checkpoint again"
        ) from error
    if config.tie_word_embeddings or "lm_head.weight" not in tensors:  # a tied checkpoint holds its table once
        if (table := tensors.get("embed_tokens.weight")) is not None:
            tensors["lm_head.weight"] = table
    return tensors


def _files(source: str) -> list[str]:
    """The safetensors files of a checkpoint: one, or the shards that its index lists."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    one = cached_file(source, "model.safetensors", **quiet)
    index = None if one is not None else cached_file(source, "model.safetensors.index.json", **quiet)
    if one is None and index is None:
        raise ValueError(f"{source}: model.safetensors is missing; save the checkpoint in safetensors format")
    if one is not None:
        return [one]
    try:
        return get_checkpoint_shard_files(source, index)[0]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = _first_line(error)
        raise ValueError(f"{source}: the index cannot be read ({why}); copy the checkpoint again") from error


def _places(key: str, config: ToolFormerConfig) -> list[str]:
    """Our names for a Qwen weight: none, one, or two where encoder and decoder share a layer."""
    key = key.removeprefix("model.")  # saved without its head, a model has no such prefix
    if key in ("embed_tokens.weight", "lm_head.weight"):
        return [key]
    if key == "norm.weight":
        return ["encoder.norm.weight", "decoder.norm.weight"]
    match = LAYER.fullmatch(key)
    layer = int(match[1]) if match else -1
    return [
        f"{part}.layers.{layer - first}.{match[2]}"
        for part, first, count in _spans(config)
        if match and first <= layer < first + count
    ]


def _load(model: ToolFormerMicro, source: str, tensors: dict[str, Tensor]) -> None:
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
