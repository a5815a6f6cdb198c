r"""In: rows. Out: whether the right tools were called: TSA, its three complements, micro, macro, and chance.

Rows with gold calls split into four shares: $TSA + WTR + MFR + FNR = 1$. $names(\cdot)$ is a multiset of tool names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from toolformer.metrics.rows import Row
from toolformer.metrics.share import Counts, Share, among, yes


def selection(row: Row) -> str:
    """Which of the four shares a row with gold calls belongs to: tsa, wtr, mfr or fnr; without gold calls: "".

    >>> from toolformer.calls import Malformed
    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {}), Tool("g", "", {})]
    >>> f, g = ToolCall("f", {}), ToolCall("g", {})
    >>> [selection(Row([f], answer, tools)) for answer in ([f], [g], [f, f], Malformed("", 0), [])]
    ['tsa', 'wtr', 'wtr', 'mfr', 'fnr']
    """
    v = row.verdict
    if not v.gold_calls:
        return ""
    if v.malformed:
        return "mfr"
    if not v.predicted_calls:
        return "fnr"
    return "tsa" if v.named == v.gold_calls == v.predicted_calls else "wtr"


def selected_right(row: Row) -> Counts:
    """1 of 1 where the predicted names are gold's."""
    return yes(selection(row) == "tsa", row.verdict.gold_calls > 0)


def selected_wrong(row: Row) -> Counts:
    """1 of 1 where calls were made and their names are not gold's."""
    return yes(selection(row) == "wtr", row.verdict.gold_calls > 0)


def malformed(row: Row) -> Counts:
    """1 of 1 where a call was due and the text attempts one that cannot be read."""
    return yes(selection(row) == "mfr", row.verdict.gold_calls > 0)


def no_call(row: Row) -> Counts:
    """1 of 1 where a call was due and none was made."""
    return yes(selection(row) == "fnr", row.verdict.gold_calls > 0)


def named_calls(row: Row) -> Counts:
    """Gold calls with a predicted call of the same name, of all gold calls."""
    return among(row.verdict.named, row.verdict.gold_calls)


def chance(row: Row) -> Counts:
    """What naming one of the row's tools blindly would get: 1 / the number of tools."""
    applies = row.verdict.gold_calls > 0
    return Counts(1 / len(row.tools) if applies else 0.0, float(applies), int(applies))


class ToolSelectionAccuracy(Share):
    r"""$TSA = |\{r : names(P_r) = names(G_r)\}| / |\{r : G_r \ne \emptyset\}|$.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, g, tools = ToolCall("f", {}), ToolCall("g", {}), [Tool("f", "", {}), Tool("g", "", {})]
    >>> ToolSelectionAccuracy()([Row([f, g], [g, f], tools), Row([f], [g], tools), Row([], [g], tools)]).item()
    0.5
    """

    key = "tsa"
    counts = staticmethod(selected_right)


class WrongToolRate(Share):
    r"""$WTR = |\{r : P_r \ne \emptyset, names(P_r) \ne names(G_r)\}| / |\{r : G_r \ne \emptyset\}|$.

    >>> from toolformer.records import Tool, ToolCall
    >>> WrongToolRate()([Row([ToolCall("f", {})], [ToolCall("h", {})], [Tool("f", "", {})])]).item()
    1.0
    """

    key = "wtr"
    higher_is_better = False
    counts = staticmethod(selected_wrong)


class MalformedRate(Share):
    r"""$MFR = |\{r : P_r\ \mathrm{malformed}, G_r \ne \emptyset\}| / |\{r : G_r \ne \emptyset\}|$.

    >>> from toolformer.calls import parse
    >>> from toolformer.records import Tool, ToolCall
    >>> MalformedRate()([Row([ToolCall("f", {})], parse('<tool_call>{"name": "f"'), [Tool("f", "", {})])]).item()
    1.0
    """

    key = "mfr"
    higher_is_better = False
    counts = staticmethod(malformed)


class FalseNegativeRate(Share):
    r"""$FNR = |\{r : P_r = \emptyset, G_r \ne \emptyset\}| / |\{r : G_r \ne \emptyset\}|$.

    >>> from toolformer.records import Tool, ToolCall
    >>> FalseNegativeRate()([Row([ToolCall("f", {})], [], [Tool("f", "", {})])]).item()
    1.0
    """

    key = "fnr"
    higher_is_better = False
    counts = staticmethod(no_call)


class ToolSelectionMicro(Share):
    r"""$\sum_r |names(P_r) \cap names(G_r)| / \sum_r |G_r|$, by calls rather than by rows.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, g, tools = ToolCall("f", {}), ToolCall("g", {}), [Tool("f", "", {}), Tool("g", "", {})]
    >>> ToolSelectionMicro()([Row([f, f, g, g], [f, g, g, g], tools)]).item()
    0.75
    """

    key = "tsa_micro"
    counts = staticmethod(named_calls)


class Chance(Share):
    r"""$\frac{1}{R} \sum_{r : G_r \ne \emptyset} 1 / |T_r|$: what TSA falls to when the tools are not read.

    >>> from toolformer.records import Tool, ToolCall
    >>> Chance()([Row([ToolCall("f", {})], [], [Tool("f", "", {}), Tool("g", "", {})])]).item()
    0.5
    """

    key = "chance"
    interval = "bootstrap"
    counts = staticmethod(chance)


class ToolSelectionMacro(Metric):
    r"""$\frac{1}{|T|} \sum_t named_t / gold_t$: the mean over gold tools (by id) of the share of their calls named.

    >>> from toolformer.records import Tool, ToolCall
    >>> f, g, tools = ToolCall("f", {}), ToolCall("g", {}), [Tool("f", "", {}), Tool("g", "", {})]
    >>> ToolSelectionMacro()([Row([f], [f], tools), Row([f], [f], tools), Row([g], [f], tools)]).item()
    0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    key = "tsa_macro"

    tsa_macro_counts: list[Tensor]  # each (calls, 3): tool id, named, gold

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # a list, not a sum: how many tools there are is not known beforehand, and a table by hash would merge some
        self.add_state("tsa_macro_counts", [], dist_reduce_fx="cat")

    def update(self, rows: Sequence[Row]) -> None:
        """Adds rows, in any grouping and order."""
        lines = [(_signed(tool), named, gold) for row in rows for tool, named, gold in row.verdict.tools]
        self.tsa_macro_counts.append(torch.tensor(lines, dtype=torch.long, device=self.device).reshape(-1, 3))

    def sync(self, *args: Any, **options: Any) -> None:
        """As the library's; a process without rows takes part too, which an empty list would not."""
        if isinstance(self.tsa_macro_counts, list) and not self.tsa_macro_counts:
            self.update([])
        super().sync(*args, **options)

    def compute(self) -> Tensor:
        """The mean over tools, a float64 scalar; NaN without a gold call."""
        counts = self.tsa_macro_counts
        if isinstance(counts, list):  # a process group hands over one tensor instead
            counts = torch.cat([torch.zeros(0, 3, dtype=torch.long, device=self.device), *counts])
        lines = counts.reshape(-1, 3)
        _, tool = lines[:, 0].unique(return_inverse=True)
        sums = torch.zeros(int(tool.max()) + 1 if len(tool) else 0, 2, dtype=torch.float64, device=lines.device)
        sums.index_add_(0, tool, lines[:, 1:].double())
        return (sums[:, 0] / sums[:, 1]).mean()


def _signed(tool_id: str) -> int:
    return int(tool_id, 16) - 2**63
