"""In: judged rows of a split. Out: their rates by source and by stratum, and BFCL's own table where rows are BFCL's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toolformer.evaluation.scoring import Measured, rate
from toolformer.metrics import Row, bfcl
from toolformer.metrics.answers import attempted, exact
from toolformer.metrics.selection import selected_right
from toolformer.records import Example

RATES = {"tsa": selected_right, "em": exact, "fpr": attempted}
BFCL = "bfcl"  # the source whose rows have BFCL's categories in their ids

Judged = tuple[Example, Row]


def breakdown(rows: Sequence[Judged]) -> dict[str, Any]:
    """``{"source" | "stratum": {name: {"tsa", "em", "fpr"}}}``, and under ``bfcl`` the lines of BFCL's own table.

    A way of grouping that leaves all rows in one group is left out.
    """
    out: dict[str, Any] = {}
    keys: dict[str, Callable[[Example], str]] = {
        "source": lambda example: example.source,
        "stratum": lambda example: example.stratum or ("call" if example.calls else "no call"),
    }
    for name, key in keys.items():
        groups: dict[str, list[Row]] = {}
        for example, row in rows:
            groups.setdefault(key(example), []).append(row)
        if len(groups) > 1:
            out[name] = {group: rates(groups[group]) for group in sorted(groups)}
    theirs = [(example.id, row) for example, row in rows if example.source == BFCL]
    if theirs:
        out[BFCL] = [score._asdict() for score in bfcl.table(theirs)]
    return out


def rates(rows: Sequence[Row]) -> dict[str, Measured]:
    """TSA, EM and FPR with Wilson's intervals."""
    counted = {name: [counts(row) for row in rows] for name, counts in RATES.items()}
    return {name: rate(int(sum(c.part for c in found)), sum(c.n for c in found)) for name, found in counted.items()}
