"""In: a corpus folder. Out: what a data card says beside counts: lengths, types of arguments, tools and calls a row.

Of a long split, rows at even distances are looked at; the counts of rows themselves are exact and stand elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toolformer.data.corpus import Examples, Kin, read_tools
from toolformer.records import Example, Tool
from toolformer.schemas import parameters_of

LOOKED_AT = 20_000  # rows of a split
POINTS = (0, 5, 10, 25, 50, 75, 90, 95, 99, 100)


def statistics(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """By split and by kind of tool; each distribution as its percentiles ``POINTS``."""
    tools, kin = read_tools(folder / "tools.parquet")
    return {
        "percentiles": list(POINTS),
        "splits": {name: _split(Examples(folder / f"{name}.arrow", tools), tools) for name in names},
        "tools": _tools(tools, kin),
    }


def _split(rows: Examples, tools: dict[str, Tool]) -> dict[str, Any]:
    step = max(1, -(-len(rows) // LOOKED_AT))
    examples = list(_every(rows, step))
    calls = [call for example in examples for call in example.calls]
    return {
        "looked_at": len(examples),
        "words": _percentiles(sum(len(turn.content.split()) for turn in example.messages) for example in examples),
        "messages": _percentiles(len(example.messages) for example in examples),
        "tools": _percentiles(len(example.tools) for example in examples),
        "calls": _counted(str(min(len(example.calls), 5)) for example in examples),
        "arguments": _percentiles(len(call.arguments) for call in calls),
        "argument_types": _counted(_types(examples, tools)),
        "said": _said(examples),
    }


def _every(rows: Examples, step: int) -> Iterable[Example]:
    start = 0
    for batch in rows.table.to_batches():
        places = np.arange(-start % step, batch.num_rows, step)
        start += batch.num_rows
        if len(places):
            yield from rows.read(batch.take(pa.array(places)))


def _percentiles(values: Iterable[int]) -> list[float]:
    found = np.fromiter(values, np.int64)
    return np.percentile(found, POINTS, method="lower").astype(int).tolist() if len(found) else []


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _types(examples: Iterable[Example], tools: dict[str, Tool]) -> Iterable[str]:
    """For each argument that gold gives, the type that its schema names."""
    for example in examples:
        by_name = {tools[id_].name: tools[id_] for id_ in example.tools}
        for call in example.calls:
            declared = parameters_of(by_name[call.name])
            for key in call.arguments:
                kind = declared[key].get("type", "any")
                yield "enum" if "enum" in declared[key] else kind if isinstance(kind, str) else "several"


def _said(examples: Iterable[Example]) -> dict[str, int]:
    """How many text arguments there are, and how many stand in the request as they are."""
    texts = verbatim = 0
    for example in examples:
        request = "\n".join(turn.content for turn in example.messages).casefold()
        for call in example.calls:
            values = [value for value in call.arguments.values() if isinstance(value, str)]
            texts += len(values)
            verbatim += sum(value.casefold() in request for value in values)
    return {"texts": texts, "verbatim": verbatim}


def _tools(tools: dict[str, Tool], kin: dict[str, Kin]) -> dict[str, Any]:
    """By use and source: how many, how long their schemas are, how many parameters they have."""
    out: dict[str, Any] = {}
    for use in sorted({one.use for one in kin.values()}):
        mine = [tools[id_] for id_, one in kin.items() if one.use == use]
        out[use] = {
            "sources": _counted(kin[tool.id].source for tool in mine),
            "domains": len({(kin[tool.id].source, kin[tool.id].domain) for tool in mine}),
            "names": len({tool.name for tool in mine}),
            "characters": _percentiles(len(tool.text) for tool in mine),
            "parameters": _percentiles(len(parameters_of(tool)) for tool in mine),
        }
    return out
