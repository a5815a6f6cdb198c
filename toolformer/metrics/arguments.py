r"""In: rows. Out: whether the arguments were right: parameter F1 in three readings, value recall and precision.

A pair is a (key, value) of a call; TP, FP, FN are pairs of aligned calls, with all pairs of calls that stay alone.
"""

from __future__ import annotations

from toolformer.metrics.rows import Row
from toolformer.metrics.share import Counts, Share, among, of_arguments


@of_arguments
def pair_f1(row: Row) -> Counts:
    """2 TP of 2 TP + FP + FN; every row is in n."""
    v = row.verdict
    return Counts(2 * v.tp, 2 * v.tp + v.fp + v.fn, 1)


@of_arguments
def row_f1(row: Row) -> Counts:
    """F1 of this row, of 1; rows where no call was due and none attempted do not count.

    Where no pair is wanted or given, right names are 1 and anything else is 0.
    """
    v = row.verdict
    if not (v.gold_calls or v.predicted_calls or v.malformed):
        return Counts(0.0, 0.0, 0)
    pairs = pair_f1(row)
    if pairs.whole:
        return Counts(pairs.part / pairs.whole, 1.0, 1)
    return Counts(float(v.named == v.gold_calls == v.predicted_calls and not v.malformed), 1.0, 1)


@of_arguments
def named_pair_f1(row: Row) -> Counts:
    """As ``pair_f1`` with correctly named calls alone, as published; n is the number of those calls."""
    v = row.verdict
    return Counts(2 * v.tp, 2 * v.tp + v.aligned_fp + v.aligned_fn, v.named)


@of_arguments
def pair_recall(row: Row) -> Counts:
    """Right pairs of all gold pairs."""
    return among(row.verdict.tp, row.verdict.tp + row.verdict.fn)


@of_arguments
def value_recall(row: Row) -> Counts:
    """Gold leaf values that the aligned calls hold, of all gold leaf values."""
    return among(row.verdict.found_leaves, row.verdict.gold_leaves)


@of_arguments
def value_precision(row: Row) -> Counts:
    """Predicted leaf values that gold holds, of all predicted leaf values."""
    return among(row.verdict.right_leaves, row.verdict.predicted_leaves)


class ParameterF1(Share):
    r"""$PF1 = 2TP / (2TP + FP + FN)$, sums over all rows: a missed call is all FN, a wrong or extra call all FP.

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {"properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}})]
    >>> gold = [ToolCall("f", {"x": 1, "y": 2})]
    >>> rows = [Row(gold, [ToolCall("f", {"x": 1, "y": 3})], tools), Row(gold, [], tools), Row([], gold, tools)]
    >>> round(ParameterF1()(rows).item(), 3)  # TP 1, FP 1 + 2, FN 1 + 2
    0.25
    """

    key = "pf1"
    interval = "bootstrap"
    counts = staticmethod(pair_f1)


class ParameterF1Macro(Share):
    r"""$\frac{1}{R} \sum_r 2TP_r / (2TP_r + FP_r + FN_r)$ over rows where a call was due or attempted.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, tools = ToolCall("f", {"x": 1}), [Tool("f", "", {})]
    >>> ParameterF1Macro()([Row([f], [f], tools), Row([f], [f, f], tools), Row([], [], tools)]).item()  # 1 and 2/3
    0.8333333333333333
    """

    key = "pf1_macro"
    interval = "bootstrap"
    counts = staticmethod(row_f1)


class ParameterF1Named(Share):
    r"""$2TP / (2TP + FP + FN)$ over correctly named calls only: the published, conditional reading. Print its n.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, tools = ToolCall("f", {"x": 1}), [Tool("f", "", {})]
    >>> ParameterF1Named()([Row([f], [f], tools), Row([f], [], tools)]).item()
    1.0
    """

    key = "pf1_named"
    interval = "bootstrap"
    counts = staticmethod(named_pair_f1)


class ParameterRecall(Share):
    r"""$TP / (TP + FN)$ over all rows. Value recall minus this is the naming gap: right values under wrong keys.

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {})]
    >>> ParameterRecall()([Row([ToolCall("f", {"x": 1, "y": 2})], [ToolCall("f", {"x": 1, "z": 2})], tools)]).item()
    0.5
    """

    key = "pf1_recall"
    interval = "bootstrap"
    counts = staticmethod(pair_recall)


class ValueRecall(Share):
    r"""$VR = \sum |leaves(P) \cap leaves(G)| / \sum |leaves(G)|$, multisets of aligned calls; a missed call finds 0.

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {})]
    >>> ValueRecall()([Row([ToolCall("f", {"x": [1, 2]})], [ToolCall("f", {"y": 2, "z": 2})], tools)]).item()
    0.5
    """

    key = "vr"
    interval = "bootstrap"
    counts = staticmethod(value_recall)


class ValuePrecision(Share):
    r"""$VP = \sum |leaves(P) \cap leaves(G)| / \sum |leaves(P)|$, all predicted calls in the denominator.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, tools = ToolCall("f", {"x": 1}), [Tool("f", "", {})]
    >>> ValuePrecision()([Row([f], [f, ToolCall("g", {"x": 1})], tools)]).item()
    0.5
    """

    key = "vp"
    interval = "bootstrap"
    counts = staticmethod(value_precision)
