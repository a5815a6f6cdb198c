"""In: cases and the answers given to them. Out: the summary of their metrics, and one prediction a row for the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolformer.calls import Malformed
from toolformer.data.corpus import request
from toolformer.data.masking import Rows
from toolformer.evaluation.cases import Case
from toolformer.inference.engine import Answer, Engine, unread
from toolformer.metrics import Row, row_outcome, summary, wilson
from toolformer.records import call_to_json

Measured = dict[str, float | int | None]


def rate(hits: int, n: int) -> Measured:
    """A share with Wilson's 95% interval; None where n is 0."""
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    low, high = wilson(hits, n)
    return {"value": hits / n, "low": low, "high": high, "n": n}


def readable(engine: Engine, rows: Rows) -> Rows:
    """The rows whose requests are within the limit."""
    return [(example, tools) for example, tools in rows if not unread(engine, example.messages)]


def judged(case: Case, answer: Answer, selects_only: frozenset[str] = frozenset()) -> Row:
    """What the metrics see of a case; of the sources in ``selects_only`` the names of the called tools alone."""
    example = case.example
    names_only = example.source in selects_only
    return Row(example.calls, answer.said, case.tools, example.stratum, request(example), names_only)


def summarised(asked: Sequence[Case], answers: Sequence[Answer], rows: Sequence[Row], seed: int) -> dict[str, Measured]:
    """All metrics of one memory; answers that were cut, requests too long to read, the pointer's choice beside them."""
    found = summary(rows, seed)
    found["truncated"] = rate(sum(not (answer.finished or answer.unread) for answer in answers), len(answers))
    found["unread"] = rate(sum(bool(answer.unread) for answer in answers), len(answers))
    if any(answer.choices for answer in answers):
        found["choice"] = choice(asked, answers)
    return found


def choice(asked: Sequence[Case], answers: Sequence[Answer]) -> Measured:
    """How often the pointer's best tool at the first decision is the one the first gold call names.

    "No call" is left aside, so abstaining cannot hide a leak nor a success: without gists this is chance.
    """
    hits, n = 0, 0
    for case, answer in zip(asked, answers, strict=True):
        if case.example.calls and not answer.unread:
            shares = answer.choices[0][1:]
            best = max(range(len(shares)), key=shares.__getitem__)
            hits += case.tools[best].name == case.example.calls[0].name
            n += 1
    return rate(hits, n)


def prediction(case: Case, answer: Answer, row: Row) -> dict[str, Any]:
    """One line of predictions.jsonl, but for where it belongs."""
    out: dict[str, Any] = {
        "id": case.example.id,
        "request": request(case.example),
        "gold": [call_to_json(call) for call in case.example.calls],
    }
    if isinstance(row.predicted, Malformed):
        out["malformed"] = f"{row.predicted.reason} at {row.predicted.position}"
    else:
        out["predicted"] = [call_to_json(call) for call in row.predicted]
    out |= {"text": answer.text, "tools": [tool.name for tool in case.tools]}
    out |= {"source": case.example.source, "stratum": case.example.stratum}
    if not answer.finished and not answer.unread:
        out["truncated"] = True
    return out | {"outcome": row_outcome(row)}
