"""In: rows and a function that counts one row. Out: the ratio of the two sums over all rows, as a torchmetrics.Metric.

The only base class of the metrics: sums add up the same in any batching, any order and any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from toolformer.metrics.rows import Row


class Counts(NamedTuple):
    """What one row adds to a ratio: its part, its whole, and how many things (rows, calls, values) it adds to n."""

    part: float
    whole: float
    n: int


class Share(Metric):
    """Sum of parts / sum of wholes; NaN before the first row that counts.

    A subclass gives ``key`` (its name in results and states), ``counts`` (a pure function of a row) and ``interval``:
    wilson where the whole counts independent yes-or-no answers, bootstrap (clustered by request) elsewhere.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    key: ClassVar[str]
    counts: ClassVar[Callable[[Row], Counts]]
    interval: ClassVar[Literal["wilson", "bootstrap"]] = "wilson"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for side in ("part", "whole"):  # float64: exact for counts up to 2^53
            self.add_state(f"{self.key}_{side}", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, rows: Sequence[Row]) -> None:
        """Adds rows, in any grouping and order."""
        counted = [type(self).counts(row) for row in rows]
        part, whole = getattr(self, f"{self.key}_part"), getattr(self, f"{self.key}_whole")
        part += sum(count.part for count in counted)
        whole += sum(count.whole for count in counted)

    def compute(self) -> Tensor:
        """The ratio, a float64 scalar."""
        return getattr(self, f"{self.key}_part") / getattr(self, f"{self.key}_whole")


NOTHING = Counts(0.0, 0.0, 0)


def of_arguments(counts: Callable[[Row], Counts]) -> Callable[[Row], Counts]:
    """The same counts, of nothing where gold has no arguments to compare with."""

    @wraps(counts)
    def counted(row: Row) -> Counts:
        return NOTHING if row.names_only else counts(row)

    return counted


def yes(answer: bool, applies: bool) -> Counts:
    """One row's answer to a yes-or-no question that only some rows are asked."""
    return Counts(float(answer and applies), float(applies), int(applies))


def among(part: float, whole: float) -> Counts:
    """``part`` of ``whole`` things in one row."""
    return Counts(part, whole, int(whole))
