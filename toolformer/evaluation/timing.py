"""In: an engine and requests. Out: milliseconds per encoded tool, to the first token, and per token.

One request at a time, after a warm-up; a GPU is waited for before each reading of the clock.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from toolformer.inference.engine import Decoding, Engine, Request
from toolformer.records import Tool

WARM_UP = 3


def timing(engine: Engine, requests: Sequence[Request], tools: Sequence[Tool], decoding: Decoding) -> dict[str, Any]:
    """Times of ``requests`` one by one; tools are encoded in one batch, as a caller does who adds them."""
    one, first = copy.copy(engine), copy.copy(engine)
    one.batch_size = first.batch_size = first.max_new_tokens = 1
    first_ms, token_ms, encode_ms = [], [], []
    for i in range(WARM_UP + 5):
        spent = _milliseconds(lambda: engine.encode(tools), engine)[1]
        encode_ms += [spent / max(1, len(tools))] if i >= WARM_UP else []
    for i, request in enumerate([*requests[:WARM_UP], *requests]):
        _, to_first = _milliseconds(lambda request=request: first.answer([request], decoding), engine)
        (answer,), whole = _milliseconds(lambda request=request: one.answer([request], decoding), engine)
        if i >= min(WARM_UP, len(requests)):
            first_ms.append(to_first)
            if len(answer.tokens) > 1:
                token_ms.append(max(0.0, whole - to_first) / (len(answer.tokens) - 1))
    return {
        "device": str(engine.model.device),
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "decoding": decoding,
        "requests": len(requests),
        "tools_encoded_together": len(tools),
        "encode_ms_per_tool": float(np.median(encode_ms)),
        "first_token_ms": _quantiles(first_ms),
        "token_ms": _quantiles(token_ms),
    }


def _milliseconds(work: Any, engine: Engine) -> tuple[Any, float]:
    _wait(engine)
    start = time.perf_counter()
    result = work()
    _wait(engine)
    return result, 1e3 * (time.perf_counter() - start)


def _wait(engine: Engine) -> None:
    if engine.model.device.type == "cuda":
        torch.cuda.synchronize(engine.model.device)


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """The median and the 95th percentile; None of nothing."""
    if not values:
        return None
    return {"p50": float(np.quantile(values, 0.5)), "p95": float(np.quantile(values, 0.95))}
