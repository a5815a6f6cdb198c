"""In: named tensors of a tool, and a precision. Out: one safetensors byte string, and the tensors again from it.

``given`` keeps every bit. ``bf16`` rounds. ``int8`` has one scale for each vector (the last dimension): the largest
absolute value of a vector is 127 steps, so no number is off by more than 1/254 of it, beside the rounding of its dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from safetensors.torch import load, save
from torch import Tensor

Precision = Literal["given", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SCALE = ".scale"  # no name of a tensor may hold a dot


def pack(tensors: Mapping[str, Tensor], precision: Precision) -> tuple[bytes, dict[str, str]]:
    """The bytes, and the dtype of each tensor as it was given; whole numbers are kept as they are.

    Raises:
        ValueError: a name is no identifier, or a number is not finite: a model that makes such gists is broken.
    """
    parts, dtypes = {}, {}
    for name, tensor in tensors.items():
        if not name.isidentifier():
            raise ValueError(f"tensor name is {name!r}; take letters, digits and underscores")
        tensor = tensor.detach().cpu()
        dtypes[name] = str(tensor.dtype).removeprefix("torch.")
        if not tensor.is_floating_point() or precision == "given":
            parts[name] = tensor
        elif precision == "bf16":
            parts[name] = tensor.to(torch.bfloat16)
        else:
            parts[name], parts[name + SCALE] = _quantise(tensor)
    for name, part in parts.items():
        if part.is_floating_point() and part.numel() and not part.abs().max().isfinite():  # the quick way to ask it
            raise ValueError(f"{name} holds numbers that are not finite; the model that made them is broken")
    return save({name: part.contiguous().clone() for name, part in parts.items()}), dtypes  # clone: not its whole table


def unpack(content: bytes, dtypes: Mapping[str, str]) -> dict[str, Tensor]:
    """What was packed, in the shapes and dtypes it was given in."""
    parts = load(content)
    tensors = {}
    for name, dtype in dtypes.items():
        tensor = parts[name].to(getattr(torch, dtype))
        scale = parts.get(name + SCALE)
        tensors[name] = tensor if scale is None else tensor * scale
    return tensors


def _quantise(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Steps (..., D) in int8 and the size of a step (..., 1) in the tensor's dtype; rounded first, so it is exact."""
    wide = tensor.double()
    scale = (wide.abs().amax(-1, keepdim=True) / 127).to(tensor.dtype)
    steps = torch.where(scale == 0, 0.0, wide / scale.double())
    return steps.round().clamp(-127, 127).to(torch.int8), scale
