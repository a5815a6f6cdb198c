"""In: rows. Out: all metrics at once: a MetricCollection, a table of values with intervals, one row's outcome.

The order here is the order of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from torchmetrics import MetricCollection

from toolformer.metrics import answers, arguments, selection, validity
from toolformer.metrics.intervals import Array, by_cluster, clusters, middle_95, resampled, wilson
from toolformer.metrics.rows import Row
from toolformer.metrics.share import Counts, Share

SHARES: tuple[type[Share], ...] = (
    selection.ToolSelectionAccuracy,
    selection.ToolSelectionMicro,
    selection.Chance,
    selection.WrongToolRate,
    selection.MalformedRate,
    selection.FalseNegativeRate,
    arguments.ParameterF1,
    arguments.ParameterF1Macro,
    arguments.ParameterF1Named,
    arguments.ParameterRecall,
    arguments.ValueRecall,
    arguments.ValuePrecision,
    answers.ExactMatch,
    answers.ExactMatchAll,
    answers.ExactMatchLenient,
    answers.FalsePositiveRate,
    answers.FalsePositiveSmallTalk,
    answers.FalsePositiveNearMiss,
    answers.FalsePositiveToolMissing,
    answers.FalsePositiveParameterMissing,
    validity.SchemaValidRate,
    validity.HallucinatedNames,
    validity.HallucinatedKeys,
    validity.MissingRequired,
)
Measured = dict[str, float | int | None]


def call_metrics(prefix: str = "") -> MetricCollection:
    """Every metric by its key; ``update`` takes a list of rows.

    Groups of metrics that share states are off: they would merge metrics that merely agree on the first batch.
    """
    metrics: dict[str, Any] = {share.key: share() for share in SHARES}
    metrics[selection.ToolSelectionMacro.key] = selection.ToolSelectionMacro()
    return MetricCollection(metrics, prefix=prefix or None, compute_groups=False)


def summary(rows: Sequence[Row], seed: int = 0) -> dict[str, Measured]:
    """Each metric as ``{"value", "low", "high", "n"}`` with its 95% interval; None where n is 0.

    >>> from toolformer.records import Tool, ToolCall
    >>> row = Row([ToolCall("f", {"x": 1})], [ToolCall("f", {"x": 1})], [Tool("f", "", {"properties": {"x": {}}})])
    >>> {key: round(value, 3) for key, value in summary([row] * 10)["em"].items()}
    {'value': 1.0, 'low': 0.722, 'high': 1.0, 'n': 10}
    """
    counted = {share.key: [share.counts(row) for row in rows] for share in SHARES}
    four = [sum(count.part for count in counted[key]) for key in ("tsa", "wtr", "mfr", "fnr")]
    assert sum(four) == sum(count.n for count in counted["tsa"])  # the four shares of rows with gold calls sum to 1
    requests = [row.request or i for i, row in enumerate(rows)]
    drawn = [share.key for share in SHARES if share.interval == "bootstrap"]
    bounds = _ratio_bounds([counted[key] for key in drawn], requests, seed)
    out: dict[str, Measured] = {}
    for share in SHARES:
        part, whole, n = (sum(column) for column in zip(*counted[share.key], strict=True)) if rows else (0, 0, 0)
        low, high = bounds[drawn.index(share.key)] if share.key in drawn else wilson(part, whole)
        out[share.key] = _measured(part / whole if whole else None, low, high, int(n))
        if share.key == "tsa_micro":
            out["tsa_macro"] = _macro(rows, requests, seed)
    return out


def _measured(value: float | None, low: float, high: float, n: int) -> Measured:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": n}
    return {"value": float(value), "low": float(low), "high": float(high), "n": n}


def _ratio_bounds(metrics: list[list[Counts]], requests: Sequence[Any], seed: int) -> list[tuple[float, float]]:
    """Bootstrap bounds of several ratios of sums, all from the same draws of requests."""
    if not requests:
        return [(0.0, 1.0)] * len(metrics)
    columns = np.array([[(count.part, count.whole) for count in metric] for metric in metrics])  # (m, rows, 2)
    sums = by_cluster(np.concatenate([columns[:, :, 0].T, columns[:, :, 1].T], 1), requests)

    def ratios(times: Array) -> Array:
        parts, wholes = np.split(times @ sums, 2, axis=1)
        return parts / np.where(wholes > 0, wholes, np.nan)

    samples = resampled(len(sums), ratios, seed)
    samples[:, np.isnan(samples).all(0)] = 0.0  # no row counts: the value is None and its bounds are not shown
    low, high = middle_95(samples)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _macro(rows: Sequence[Row], requests: Sequence[Any], seed: int) -> Measured:
    lines = [(i, tool, named, gold) for i, row in enumerate(rows) for tool, named, gold in row.verdict.tools]
    if not lines:
        return _measured(None, 0.0, 1.0, 0)
    group = clusters(requests)
    tool = clusters([tool for _, tool, _, _ in lines])
    place = (group[[i for i, *_ in lines]], tool)
    shape = (int(group.max()) + 1, int(tool.max()) + 1)
    named = coo_array(([float(named) for *_, named, _ in lines], place), shape=shape).tocsr()
    gold = coo_array(([float(gold) for *_, gold in lines], place), shape=shape).tocsr()

    def mean_over_tools(times: Array) -> Array:
        parts, wholes = times @ named, times @ gold
        drawn = (wholes > 0).sum(1)
        return (parts / np.where(wholes > 0, wholes, 1.0)).sum(1) / np.where(drawn > 0, drawn, np.nan)

    low, high = middle_95(resampled(shape[0], mean_over_tools, seed))
    value = mean_over_tools(np.ones((1, shape[0])))[0]
    return _measured(float(value), float(low), float(high), shape[1])


def row_outcome(row: Row) -> dict[str, Any]:
    """What one row got, for ``predictions.jsonl``; None where the question does not apply to it.

    >>> from toolformer.records import Tool, ToolCall
    >>> outcome = row_outcome(Row([ToolCall("f", {"x": 1})], [ToolCall("f", {"x": 2})], [Tool("f", "", {})]))
    >>> outcome["answer"], outcome["tsa"], outcome["em"], outcome["fp"], outcome["pf1"]
    ('tsa', True, False, None, 0.0)
    """
    v = row.verdict
    quiet = "fp" if v.malformed or v.predicted_calls else "silent"
    f1 = arguments.row_f1(row)
    counted = not row.names_only
    return {
        "answer": selection.selection(row) or quiet,
        "tsa": _answer(selection.selected_right(row)),
        "em": _answer(answers.exact(row)),
        "em_all": _answer(answers.exact_all(row)),
        "em_lenient": _answer(answers.exact_lenient(row)),
        "fp": _answer(answers.attempted(row)),
        "pf1": f1.part if f1.n else None,
        "pairs": {"tp": counted * v.tp, "fp": counted * v.fp, "fn": counted * v.fn},
        "values": {
            "found": counted * v.found_leaves,
            "gold": counted * v.gold_leaves,
            "predicted": counted * v.predicted_leaves,
        },
        "valid_calls": v.valid_calls,
        "unknown_names": v.unknown_names,
        "unknown_keys": v.unknown_keys,
        "missing_required": v.missing_required,
    }


def _answer(count: Counts) -> bool | None:
    return bool(count.part) if count.n else None
