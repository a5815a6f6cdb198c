r"""In: rows. Out: whether the whole answer was right: exact match, and calls made where none was due.

$G_r$ and $P_r$ are the gold and predicted multisets of calls of row $r$; a malformed answer equals nothing.
"""

from __future__ import annotations

from toolformer.metrics.rows import Row
from toolformer.metrics.share import Counts, Share, of_arguments, yes


@of_arguments
def exact(row: Row) -> Counts:
    """1 of 1 where the calls equal gold's and gold has some."""
    return yes(_equal(row, row.verdict.exact), row.verdict.gold_calls > 0)


@of_arguments
def exact_all(row: Row) -> Counts:
    """1 of 1 where the calls equal gold's, which may be none."""
    return yes(_equal(row, row.verdict.exact), True)


@of_arguments
def exact_lenient(row: Row) -> Counts:
    """As ``exact``, strings compared by BFCL's rule."""
    return yes(_equal(row, row.verdict.exact_lenient), row.verdict.gold_calls > 0)


def _equal(row: Row, equal_calls: int) -> bool:
    v = row.verdict
    return not v.malformed and equal_calls == v.gold_calls == v.predicted_calls


def attempted(row: Row) -> Counts:
    """1 of 1 where no call was due and one was attempted, malformed included."""
    v = row.verdict
    return yes(v.malformed or v.predicted_calls > 0, v.gold_calls == 0)


def _in_stratum(row: Row, stratum: str) -> Counts:
    return attempted(row) if row.stratum == stratum else Counts(0.0, 0.0, 0)


class ExactMatch(Share):
    r"""$EM = |\{r : P_r = G_r\}| / R$ over rows with $G_r \ne \emptyset$.

    >>> from toolformer.records import Tool, ToolCall
    >>> one, two, tools = ToolCall("f", {"x": 1}), ToolCall("f", {"x": 2}), [Tool("f", "", {})]
    >>> ExactMatch()([Row([one, two], [two, one], tools), Row([one], [one, one], tools), Row([], [], tools)]).item()
    0.5
    """

    key = "em"
    counts = staticmethod(exact)


class ExactMatchAll(Share):
    r"""$|\{r : P_r = G_r\}| / R$ over all rows: staying silent where no call is due counts as right.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, tools = ToolCall("f", {"x": 1}), [Tool("f", "", {})]
    >>> ExactMatchAll()([Row([], [], tools), Row([f], [], tools)]).item()
    0.5
    """

    key = "em_all"
    counts = staticmethod(exact_all)


class ExactMatchLenient(Share):
    r"""EM with strings compared by BFCL's rule: lower case, without `` ,./-_*^``.

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {})]
    >>> ExactMatchLenient()([Row([ToolCall("f", {"x": "New York"})], [ToolCall("f", {"x": "new-york"})], tools)]).item()
    1.0
    """

    key = "em_lenient"
    counts = staticmethod(exact_lenient)


class FalsePositiveRate(Share):
    r"""$FPR = |\{r : P_r \ne \emptyset\ \mathrm{or\ malformed}\}| / R$ over rows with $G_r = \emptyset$.

    >>> from toolformer.calls import parse
    >>> FalsePositiveRate()([Row([], parse("<tool_call> oops"), []), Row([], [], [])]).item()
    0.5
    """

    key = "fpr"
    higher_is_better = False
    counts = staticmethod(attempted)


class FalsePositiveSmallTalk(Share):
    r"""FPR over rows that want no tool at all (stratum small_talk).

    >>> FalsePositiveSmallTalk()([Row([], [], [], "small_talk"), Row([], [], [], "near_miss")]).item()
    0.0
    """

    key = "fpr_small_talk"
    higher_is_better = False
    counts = staticmethod(lambda row: _in_stratum(row, "small_talk"))


class FalsePositiveNearMiss(Share):
    r"""FPR over rows that ask for something close to a tool on offer (stratum near_miss).

    >>> from toolformer.records import ToolCall
    >>> FalsePositiveNearMiss()([Row([], [ToolCall("f", {})], [], "near_miss")]).item()
    1.0
    """

    key = "fpr_near_miss"
    higher_is_better = False
    counts = staticmethod(lambda row: _in_stratum(row, "near_miss"))


class FalsePositiveToolMissing(Share):
    r"""FPR over rows whose tool was taken away (stratum tool_missing).

    >>> from toolformer.records import ToolCall
    >>> FalsePositiveToolMissing()([Row([], [ToolCall("f", {})], [], "tool_missing")]).item()
    1.0
    """

    key = "fpr_tool_missing"
    higher_is_better = False
    counts = staticmethod(lambda row: _in_stratum(row, "tool_missing"))


class FalsePositiveParameterMissing(Share):
    r"""FPR over rows where a required value is not known yet (stratum parameter_missing).

    >>> FalsePositiveParameterMissing()([Row([], [], [], "parameter_missing")]).item()
    0.0
    """

    key = "fpr_parameter_missing"
    higher_is_better = False
    counts = staticmethod(lambda row: _in_stratum(row, "parameter_missing"))
