"""In: requests with their tools' schema tokens. Out: the same tokens as the engine writes, the way published code does.

Every schema is padded to the limit and encoded again for each request; the whole sequence is read again for every
token; the gists are projected to keys and values again in every layer each time; nothing is kept between tokens,
requests or programs. The model is ours, with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from toolformer.data.batches import pad
from toolformer.model import ToolFormerMicro


def encode(model: ToolFormerMicro, schemas: Sequence[Sequence[int]], limit: int) -> Tensor:
    """Gists ``(N, K, D)`` of the tools of one request: one batch, each schema padded to ``limit`` tokens."""
    ids, mask = pad(schemas)
    wide = max(0, limit - ids.shape[1])
    return model.encode_tools(*(F.pad(x, (0, wide)).to(model.device) for x in (ids, mask)))


@torch.inference_mode()
def answer(
    model: ToolFormerMicro,
    prompt: Sequence[int],
    schemas: Sequence[Sequence[int]],
    *,
    limit: int,
    new_tokens: int,
    on_token: Callable[[int], object],
) -> None:
    """Greedy, ``new_tokens`` tokens, each told to ``on_token``."""
    gists = encode(model, schemas, limit)
    memory, memory_mask = model.memory(gists, torch.arange(len(schemas), device=model.device)[None])
    ids = torch.tensor([prompt], device=model.device)
    for _ in range(new_tokens):
        logits = model(ids, memory=memory, memory_mask=memory_mask, use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        on_token(int(ids[0, -1]))
