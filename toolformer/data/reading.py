"""In: a source and its folder. Out: its rows, tools and what was set aside as tables in a folder, each row checked.

A row is kept only if gold scores 1 against itself: every call fits its tool and is read back as it was written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toolformer.data.corpus import ROWS, Unfit, check, check_gold, columns, request
from toolformer.data.near import Grams, grams
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.data.tables import TableWriter
from toolformer.records import Example, Tool, example_to_json, tool_to_json
from toolformer.schemas import validate

CHUNK = 4096
READ = pa.schema(
    [
        *ROWS,
        ("place", pa.string()),
        ("upstream", pa.string()),
        ("gold", pa.list_(pa.string())),  # ids of the tools that are called
        ("grams", pa.list_(pa.uint64())),  # of the request: toolformer/data/near.py
    ]
)
ASIDE = pa.schema([("source", pa.string()), ("place", pa.string()), ("reason", pa.string()), ("text", pa.string())])
TOOLS = pa.schema(
    [
        ("id", pa.string()),
        ("tool", pa.string()),
        ("domain", pa.string()),
        ("family", pa.string()),
        ("function", pa.string()),
        ("wording", pa.int64()),
    ]
)


def read_source(source: Source, folder: Path, out: Path, progress: Callable[[int], object] = lambda rows: None) -> None:
    """Write ``rows.arrow``, ``tools.arrow``, ``set_aside.arrow`` and ``counts.json`` into ``out``.

    ``progress`` is told how many rows were read since the last time.

    Raises:
        FileNotFoundError, ValueError: a file of the source is missing or broken as a whole.
    """
    tools = _Tools(source)
    counts: Counter[str] = Counter()
    with (
        TableWriter(out / "rows.arrow", READ) as rows,
        TableWriter(out / "set_aside.arrow", ASIDE) as aside,
    ):
        for found in _chunks(source.read(folder)):
            kept: list[tuple[Found, tuple[str, ...]]] = []
            for row in found:
                if isinstance(row, Found):
                    try:
                        kept.append((row, tools.checked(row)))
                        continue
                    except Unfit as unfit:
                        row = SetAside(row.place, unfit.reason, json.dumps(example_to_json(row.example)))
                aside.add([source.name], [row.place], [row.reason], [row.text])
                counts[row.reason] += 1
            if kept:
                rows.add(*_columns(kept))
            progress(len(found))
    for offered in source.tools(folder) if source.tools else ():
        tools.known(offered)
    with TableWriter(out / "tools.arrow", TOOLS) as table:
        for id_, offered in tools.found.items():
            schema = json.dumps(tool_to_json(offered.tool), ensure_ascii=False)
            table.add([id_], [schema], [offered.domain], [offered.family], [offered.function], [offered.wording])
    counted = {"rows": rows.written, "tools": len(tools.found), "set_aside": dict(sorted(counts.items()))}
    (out / "counts.json").write_text(json.dumps(counted, indent=1, ensure_ascii=False) + "\n")


def _chunks(rows: Iterator[Found | SetAside]) -> Iterator[list[Found | SetAside]]:
    chunk: list[Found | SetAside] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _columns(kept: list[tuple[Found, tuple[str, ...]]]) -> list[Any]:
    """The columns of ``READ``."""
    examples = [row.example for row, _ in kept]
    said: Grams = grams([request(example) for example in examples])
    lists = pa.ListArray.from_arrays(pa.array(said.starts, pa.int32()), pa.array(said.values))
    return [
        *columns(examples),
        [row.place for row, _ in kept],
        [row.upstream for row, _ in kept],
        [list(gold) for _, gold in kept],
        lists,
    ]


class _Tools:
    """The tools of a source, each validated once; a row is checked against those it offers."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: dict[str, Offered] = {}
        self.unfit: dict[str, str] = {}

    def known(self, offered: Offered) -> str:
        """The id of a tool that is fit to be in the catalog; what the source first said of it stays."""
        id_ = offered.tool.id
        if id_ in self.unfit:
            raise Unfit("a tool is no valid schema", self.unfit[id_])
        if id_ not in self.found:
            try:
                validate(offered.tool, self.source.name)
            except ValueError as error:
                self.unfit[id_] = str(error)
                raise Unfit("a tool is no valid schema", str(error)) from error
            family = offered.family or id_
            self.found[id_] = offered._replace(family=family, function=offered.function or family)
        return id_

    def checked(self, row: Found) -> tuple[str, ...]:
        """The ids of the tools that gold calls.

        Raises:
            Unfit: the row cannot be used.
        """
        example: Example = row.example
        ids = tuple(map(self.known, row.offered))
        if ids != example.tools:
            raise Unfit("its tools are not those it offers", f"{row.place}: offers {ids}, names {example.tools}")
        catalog = {offered.tool.id: offered.tool for offered in row.offered}
        if not example.messages or not example.messages[-1].content.strip():
            raise Unfit("the request is empty", f"{row.place}: row {example.id}: its last message is empty")
        check(example, catalog, row.place)
        check_gold(example, catalog, row.place, chosen=self.source.selects_only)
        by_name = {tool.name: tool for tool in catalog.values()}
        called = dict.fromkeys(by_name[call.name] for call in example.calls)
        if not self.source.selects_only:
            for call in example.calls:
                _fits(by_name[call.name], dict(call.arguments), row.place)
        return tuple(tool.id for tool in called)


def _fits(tool: Tool, arguments: Mapping[str, Any], place: str) -> None:
    if not _validator(tool).is_valid(arguments):
        wrong = next(_validator(tool).iter_errors(arguments))
        raise Unfit("an argument does not fit its schema", f"{place}: call of {tool.name}: {wrong.message:.200}")


@lru_cache(maxsize=1 << 14)
def _validator(tool: Tool) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(tool.parameters)


def gram_sets(column: pa.ChunkedArray) -> Grams:
    """The column ``grams`` of a table as sets."""
    flat = column.combine_chunks()
    flat = flat if isinstance(flat, pa.ListArray) else flat.chunk(0)
    starts = flat.offsets.to_numpy().astype(np.int64)
    return Grams(flat.values.to_numpy()[starts[0] : starts[-1]], starts - starts[0])
