"""In: the tables of several sources and their catalog. Out: all rows, one after another, as columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from toolformer.data.catalog import Catalog
from toolformer.data.near import Grams, ranges
from toolformer.data.reading import gram_sets
from toolformer.data.tables import one_array, pc


@dataclass(frozen=True)
class Lists:
    """A list of numbers for each row: those of row i are ``values[starts[i]:starts[i + 1]]``."""

    values: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """The length of each list."""
        return np.diff(self.starts)

    @property
    def owners(self) -> np.ndarray:
        """The row of each value."""
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)

    def any(self, flags: np.ndarray) -> np.ndarray:
        """For each row whether some of its values is flagged."""
        return np.bincount(self.owners[flags[self.values]], minlength=len(self.starts) - 1) > 0

    def all(self, flags: np.ndarray) -> np.ndarray:
        """For each row whether all of its values are flagged; true of an empty list."""
        return ~self.any(~flags)

    def of(self, row: int) -> np.ndarray:
        """The list of one row."""
        return self.values[self.starts[row] : self.starts[row + 1]]


class Pile:
    """The rows of all sources, one after another, as columns of numbers."""

    def __init__(self, names: Sequence[str], tables: Sequence[pa.Table], catalog: Catalog) -> None:
        self.names, self.catalog = tuple(names), catalog
        self.table = pa.concat_tables(tables)
        self.source = np.repeat(np.arange(len(names)), [table.num_rows for table in tables])
        self.called, self.offered = self._lists("gold"), self._lists("tools")
        # what a row is about: the tools that it calls, or the only one that it offers
        calls = self.called.sizes > 0
        sizes = np.where(calls, self.called.sizes, self.offered.sizes == 1)
        starts = np.where(calls, self.called.starts[:-1], len(self.called.values) + self.offered.starts[:-1])
        both = np.concatenate([self.called.values, self.offered.values])
        self.about = Lists(both[ranges(starts, sizes)], np.concatenate([[0], np.cumsum(sizes)]))
        patterns, texts = encode(self.table["pattern"])
        self.pattern = np.where(patterns == texts.index(""), -1, patterns) if "" in texts else patterns
        self.stratum, self.strata = encode(self.table["stratum"])
        self.said: Grams = gram_sets(self.table["grams"])

    def __len__(self) -> int:
        return self.table.num_rows

    def _lists(self, column: str) -> Lists:
        flat = one_array(self.table[column])
        starts = flat.offsets.to_numpy().astype(np.int64)
        return Lists(self.catalog.places(flat.flatten()), starts - starts[0])

    def of_upstream(self, source: int, splits: Sequence[str]) -> np.ndarray:
        """Whether each row is of one of a source's upstream splits."""
        return (self.source == source) & np.asarray(
            pc.is_in(self.table["upstream"], value_set=pa.array(list(splits), pa.string()))
        )


def encode(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A number for each text, and the texts in the order of their numbers."""
    encoded = pc.dictionary_encode(one_array(column))
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
