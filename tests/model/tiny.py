"""In: nothing. Out: small models with every weight random, and random tokens, for the tests of model and stages."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolformer.model import ToolFormerConfig, ToolFormerMicro

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "encoder_layers": 2,
    "num_hidden_layers": 2,
    "num_gists": 3,
    "pointer_size": 16,
    "gate_init": 0.7,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Move norms, biases and gates off the values they start from, where mistakes would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float32)


def tiny(seed: int = 0, **changes: Any) -> ToolFormerMicro:
    """A model of 2 + 2 layers whose gates are open, in evaluation mode."""
    torch.manual_seed(seed)
    model = ToolFormerMicro(ToolFormerConfig(**{**SHAPE, **changes}))
    randomise(model, seed)
    return model.eval()


class Inputs(NamedTuple):
    """Five schemas of different lengths; three requests with 3, 1 and 2 tools, their prompts padded on the left."""

    tool_ids: Tensor
    tool_mask: Tensor
    tool_index: Tensor
    input_ids: Tensor
    attention_mask: Tensor


def inputs(seed: int = 1) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    lengths, prompts = torch.tensor([9, 4, 12, 7, 5]), torch.tensor([6, 11, 8])
    tool_ids = torch.randint(2, SHAPE["vocab_size"], (5, 12), generator=generator)
    input_ids = torch.randint(2, SHAPE["vocab_size"], (3, 11), generator=generator)
    return Inputs(
        tool_ids,
        torch.arange(12) < lengths[:, None],
        torch.tensor([[0, 3, 2], [4, -1, -1], [1, 2, -1]]),
        input_ids,
        torch.arange(11) >= 11 - prompts[:, None],
    )


def remember(model: ToolFormerMicro, batch: Inputs) -> dict[str, Tensor]:
    """The gists of the batch as the keywords of ``forward`` and ``generate``."""
    memory, memory_mask = model.memory(model.encode_tools(batch.tool_ids, batch.tool_mask), batch.tool_index)
    return {"memory": memory, "memory_mask": memory_mask}


def logits(model: ToolFormerMicro, batch: Inputs) -> Tensor:
    """Next-token logits at the end of each prompt, ``(B, V)``."""
    mask = batch.attention_mask
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    told = remember(model, batch)
    return model(batch.input_ids, attention_mask=mask.long(), position_ids=positions, **told).logits[:, -1]
