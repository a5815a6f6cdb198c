"""In: columns, portion by portion. Out: an Arrow file that grows on disk, and the same file mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made when it is imported: no checker knows them
PORTION = 4096  # rows in a record batch: the same bytes however many are added at a time


class TableWriter:
    """A table that is written while it is made; memory holds one portion.

    Use it as a context manager: a file that was left by an error is not closed, and cannot be read.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.written = path, schema, 0
        self.buffer: list[pa.RecordBatch] = []
        self.waiting = 0

    def __enter__(self) -> Self:
        self.file = pa.OSFile(str(self.path), "wb")
        self.sink = pa.ipc.new_file(self.file, self.schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush(1)
            self.sink.close()
        self.file.close()

    def add(self, *columns: Sequence[Any] | pa.Array) -> None:
        """Rows as one list for each column of the schema."""
        arrays = [
            column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        self.add_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Rows that are in Arrow's form already."""
        self.buffer.append(batch)
        self.waiting += batch.num_rows
        self.written += batch.num_rows
        if self.waiting >= PORTION:
            self._flush(PORTION)

    def _flush(self, least: int) -> None:
        table = pa.Table.from_batches(self.buffer, self.schema).combine_chunks()
        whole = table.num_rows - (table.num_rows % PORTION if least > 1 else 0)
        for start in range(0, whole, PORTION):
            for batch in table.slice(start, min(PORTION, whole - start)).to_batches():
                self.sink.write_batch(batch)
        rest = table.slice(whole)
        self.buffer, self.waiting = rest.to_batches(), rest.num_rows


def mapped(path: Path) -> pa.Table:
    """The table of an Arrow file, mapped into memory: what is not looked at is not loaded.

    Raises:
        ValueError: names the file that is missing, cut off or no table.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}:1: cannot be read: {error}; prepare the corpus again") from error


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
