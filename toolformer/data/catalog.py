"""In: the tools of all sources, as they were read. Out: one catalog by id, and which tools must stay on one side.

The same name may carry different schemas, so a tool is its id. Tools of one name or with nearly the same schema are
alike; with those of one family they form a group, which is trained on, or not, as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from toolformer.data.corpus import Kin
from toolformer.data.near import clusters, grams, joined
from toolformer.data.tables import pc
from toolformer.records import Tool, tool_from_json


@dataclass(frozen=True)
class Catalog:
    """Every tool of every source, in the order of sources and rows.

    ``alike[i]`` is the place of the first tool that is like tool i, ``groups[i]`` that of the first tool of its group;
    ``owners[i]`` are the places of the sources that have tool i.
    """

    tools: list[Tool]
    kin: list[Kin]
    owners: list[set[int]]
    alike: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.tools)

    @cached_property
    def ids(self) -> pa.Array:
        """The tools' ids."""
        return pa.array([tool.id for tool in self.tools])

    @cached_property
    def families(self) -> np.ndarray:
        """A number for each tool, the same for wordings of one tool."""
        return codes(kin.family for kin in self.kin)

    def places(self, ids: pa.Array) -> np.ndarray:
        """Where in the catalog each id stands."""
        found = pc.index_in(ids, value_set=self.ids)
        assert not found.null_count  # every tool that a row names was read with it
        return found.to_numpy().astype(np.int64)


def codes(values: Iterable[str]) -> np.ndarray:
    """A number for each value, equal for equal ones, in order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def write_catalog(folder: Path, names: Sequence[str], tables: Sequence[pa.Table], near: float) -> None:
    """Work out which tools of the sources' tables ``tools.arrow`` are alike, and their groups."""
    tools, kin, _ = _merged(names, tables)
    alike = clusters(grams([tool.text for tool in tools]), near)
    alike = _joined_by(alike, codes(tool.name.casefold() for tool in tools))
    np.save(folder / "alike.npy", alike)
    np.save(folder / "groups.npy", _joined_by(alike, codes(k.family for k in kin)))


def _joined_by(labels: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Clusters after those of one key were joined."""
    first = np.full(len(labels), len(labels))
    np.minimum.at(first, keys, np.arange(len(labels)))
    return joined(labels, np.arange(len(labels)), first[keys])


def read_catalog(folder: Path, names: Sequence[str], tables: Sequence[pa.Table]) -> Catalog:
    """The catalog of the sources' tables with what ``write_catalog`` found."""
    return Catalog(*_merged(names, tables), np.load(folder / "alike.npy"), np.load(folder / "groups.npy"))


def _merged(names: Sequence[str], tables: Sequence[pa.Table]) -> tuple[list[Tool], list[Kin], list[set[int]]]:
    """Every tool once; what the first source says of it stays."""
    places: dict[str, int] = {}
    tools: list[Tool] = []
    kin: list[Kin] = []
    owners: list[set[int]] = []
    for number, (name, table) in enumerate(zip(names, tables, strict=True)):
        for row in table.to_pylist():
            if row["id"] not in places:
                places[row["id"]] = len(tools)
                tools.append(tool_from_json(json.loads(row["tool"])))
                kin.append(Kin(row["family"], row["function"], row["wording"], row["domain"], name))
                owners.append(set())
            owners[places[row["id"]]].add(number)
    return tools, kin, owners
