"""In: a stage on several processes. Out: its layers in shards (FSDP2), and its whole weights again.

Each layer is a shard group of its own, the rest of the model one more: a process holds a part of each, gathers a layer
when it computes with it, and keeps only its part of gradients and optimiser state.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

METHODS = ("training_step", "validation_step")  # what Lightning calls in place of ``forward``


def shard(stage: Any, device: str) -> list[str]:
    """Shards the layers of ``stage.model``, then what is left, over all processes; ``device`` is cpu or cuda.

    Returns:
        Names of the model's scalars: while in shards, they are vectors of one element.
    """
    scalars = [name for name, parameter in stage.model.named_parameters() if parameter.ndim == 0]
    for name in scalars:
        place, _, key = name.rpartition(".")
        module = stage.model.get_submodule(place)
        scalar = getattr(module, key)
        setattr(module, key, nn.Parameter(scalar.detach()[None], requires_grad=scalar.requires_grad))
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for layer in [*stage.model.encoder.layers, *stage.model.decoder.layers]:
        fully_shard(layer, mesh=mesh)
    fully_shard(stage, mesh=mesh)
    for name in METHODS:
        register_fsdp_forward_method(stage, name)
    return scalars


@contextmanager
def gathered(model: nn.Module) -> Generator[None]:
    """The weights of a model in shards are whole within: the engine calls no layer's forward, which gathers them."""
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()


def whole_weights(model: nn.Module, scalars: Sequence[str]) -> dict[str, Tensor]:
    """The state dict without shards; all processes must ask for it together."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    once: dict[int, Tensor] = {}  # tied weights stay one tensor
    found: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        origin = id(parameters.get(key, value))
        if origin not in once:
            once[origin] = whole(value).cpu()
        found[key] = once[origin]
    return found | {key: found[key].reshape(()) for key in scalars}


def whole(value: Tensor) -> Tensor:
    """A tensor, or all of one that is in shards."""
    return value.full_tensor() if isinstance(value, DTensor) else value
