"""In: validation rows. Out: the bias of "no call" with which the pointer selects best and seldom calls in vain.

Only the first decision of each row is looked at: one forward pass, nothing is decoded. Test rows are never used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolformer.data.masking import Rows
from toolformer.evaluation.cases import Gists, cases, distinct_tools
from toolformer.inference.engine import Engine
from toolformer.records import Example, Tool

GRID = np.linspace(-20, 20, 1601)


def calibrate(engine: Engine, rows: Rows, *, most_false: float = 0.1) -> dict[str, Any]:
    """The bias that maximises the share of right first choices while at most ``most_false`` of no-call rows call.

    Where several do equally well, the middle of them. Rows for which a drafting model begins a call, as only a value is
    missing, are left out: for them it is not decided here.

    Raises:
        ValueError: the rows hold no call, or nothing but calls.
    """
    if engine.model.config.forms != "none":
        rows = [(example, tools) for example, tools in rows if example.draft is None]
    gold = np.array([bool(example.calls) for example, _ in rows])
    if gold.all() or not gold.any():
        raise ValueError(
            f"calibration: {gold.sum()} of {len(rows)} rows need a call; give rows of both kinds, or calibration_rows=0"
        )
    gists = Gists(engine, distinct_tools(rows))
    scores = engine.first_scores([gists.request(case) for case in cases(rows, "real", [], 0)])
    margin = np.array([max(s[1:], default=-np.inf) - s[0] for s in scores])  # a call is made where it exceeds the bias
    right = np.array([_right(example, tools, s) for (example, tools), s in zip(rows, scores, strict=True)])
    called = margin[:, None] > GRID  # (rows, biases)
    accuracy = (called & right[:, None])[gold].mean(0)
    false = called[~gold].mean(0)
    allowed = false <= most_false
    if not allowed.any():  # scores off the grid: hold back as much as it can
        allowed = false == false.min()
    best = np.flatnonzero(allowed & (accuracy >= accuracy[allowed].max() - 1e-12))
    at = int(best[len(best) // 2])
    return {
        "no_call_bias": float(GRID[at]),
        "rows": len(rows),
        "no_call_rows": int((~gold).sum()),
        "most_false": most_false,
        "tsa": float(accuracy[at]),
        "fpr": float(false[at]),
    }


def _right(example: Example, tools: list[Tool], scores: list[float]) -> bool:
    """Whether the best tool is the one the first gold call names."""
    best = max(range(len(tools)), key=scores[1:].__getitem__, default=None)
    return bool(example.calls) and best is not None and tools[best].name == example.calls[0].name
