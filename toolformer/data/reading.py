"""In: a source and its folder. Out: its rows, tools and what was set aside as tables in a folder, each row checked.

A row is kept only if gold scores 1 against itself: every call fits its tool and is read back as it was written.
"""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from toolformer.data.corpus import ROWS, Unfit, check, check_gold, columns, request
from toolformer.data.near import Grams, grams
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.data.steps import made
from toolformer.data.tables import TableWriter, one_array
from toolformer.records import example_to_json, tool_to_json
from toolformer.schemas import fits, validate

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


class Job(NamedTuple):
    """A source, its folder, and where its rows go."""

    source: Source
    folder: Path
    out: Path

    def run(self, progress: Callable[[int], object]) -> None:
        """Read the source; the folder is there when all of it was read."""
        gc.disable()  # a third of the time went into looking for cycles among parsed rows, which have none
        try:
            made(self.out, lambda part: read_source(self.source, self.folder, part, progress))
        finally:
            gc.enable()


def read_all(jobs: Sequence[Job], workers: int, progress: bool) -> None:
    """Read sources, ``workers`` at a time, the largest first."""
    from tqdm import tqdm

    def size(job: Job) -> int:
        return sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())

    ordered = sorted(jobs, key=size, reverse=True)
    with tqdm(desc="read", unit="row", disable=not progress or not jobs) as bar:
        if workers == 1 or len(jobs) < 2:
            for number, job in enumerate(ordered, start=1):
                bar.set_postfix_str(f"{job.source.name}, {number} of {len(jobs)} sources")
                job.run(bar.update)
            return
        fresh = get_context("spawn")  # nothing of this process, and none of its threads, in the workers
        counter = fresh.Value("q", 0)
        with ProcessPoolExecutor(workers, fresh, _begin, (counter,)) as pool:
            running = {pool.submit(_run, job) for job in ordered}
            while running:
                done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(counter.value - bar.n)
                bar.set_postfix_str(f"{len(jobs) - len(running)} of {len(jobs)} sources", refresh=False)
                for job in done:
                    job.result()


_counter: Any = None  # in a worker: rows read by all of them


def _begin(counter: Any) -> None:
    """A worker ends with the process that started it, even when that is killed."""
    global _counter
    _counter = counter
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _run(job: Job) -> None:
    def count(rows: int) -> None:
        with _counter.get_lock():
            _counter.value += rows

    job.run(count)


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
            kept, said = [], []
            for row in found:
                try:
                    row = row if isinstance(row, SetAside) else tools.checked(row)
                except Unfit as unfit:
                    assert isinstance(row, Found)
                    text = json.dumps(example_to_json(row.example), default=str)
                    row = SetAside(row.place, unfit.reason, text)
                if isinstance(row, SetAside):
                    aside.add([source.name], [row.place], [row.reason], [row.text.encode(errors="replace").decode()])
                    counts[row.reason] += 1
                else:
                    kept.append(row.values)
                    said.append(row.request)
            if kept:
                rows.add(*map(list, zip(*kept, strict=True)), _sets(grams(said)))
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


def _sets(said: Grams) -> pa.Array:
    """The column ``grams``."""
    return pa.ListArray.from_arrays(pa.array(said.starts, pa.int32()), pa.array(said.values))


class _Fit(NamedTuple):
    """A row that can be used: its columns but for the last, and what is said in it."""

    values: list[Any]
    request: str


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

    def checked(self, row: Found) -> _Fit:
        """The row, if it can be used.

        Raises:
            Unfit: it cannot.
        """
        example = replace(row.example, source=self.source.name)
        ids = tuple(map(self.known, row.offered))
        if ids != example.tools:
            raise Unfit("its tools are not those it offers", f"{row.place}: offers {ids}, names {example.tools}")
        catalog = {offered.tool.id: offered.tool for offered in row.offered}
        try:
            values = [column[0] for column in columns([example])]
            "".join(value for value in values if isinstance(value, str)).encode()
        except (TypeError, ValueError) as error:  # half a surrogate pair, or a value that JSON does not have
            raise Unfit("the row is no JSON text", f"{row.place}: row {example.id!r}: {error}") from error
        if not example.messages or not example.messages[-1].content.strip():
            raise Unfit("the request is empty", f"{row.place}: row {example.id}: its last message is empty")
        check(example, catalog, row.place)
        check_gold(example, catalog, row.place, chosen=self.source.selects_only)
        by_name = {tool.name: tool for tool in catalog.values()}
        called = dict.fromkeys(by_name[call.name] for call in example.calls)
        if not self.source.selects_only:
            for call in example.calls:
                if not fits(by_name[call.name], call.arguments):
                    message = f"{row.place}: call of {call.name}: {call.arguments!r:.200} does not fit its schema"
                    raise Unfit("an argument does not fit its schema", message)
        return _Fit([*values, row.place, row.upstream, [tool.id for tool in called]], request(example))


def gram_sets(column: pa.ChunkedArray) -> Grams:
    """The column ``grams`` of a table as sets."""
    flat = one_array(column)
    starts = flat.offsets.to_numpy().astype(np.int64)
    return Grams(flat.values.to_numpy()[starts[0] : starts[-1]], starts - starts[0])
