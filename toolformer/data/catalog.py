"""In: the tools of all sources, as they were read. Out: one catalog by id, and which tools must stay on one side.

The same name may carry different schemas, so a tool is its id. Tools of one family, of one name or with nearly the same
schema form a group: a group is trained on, or not, as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toolformer.data.corpus import Kin
from toolformer.data.near import clusters, grams, joined
from toolformer.records import Tool, tool_from_json


@dataclass(frozen=True)
class Catalog:
    """Every tool of every source, in the order of sources and rows.

    ``groups[i]`` is the place of the first tool of tool i's group; ``owners[i]`` are the places of the sources that
    have tool i.
    """

    tools: list[Tool]
    kin: list[Kin]
    owners: list[set[int]]
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


def build_catalog(names: Sequence[str], tables: Sequence[pa.Table], near: float) -> Catalog:
    """The catalog of the sources' tables ``tools.arrow``; what the first of them says of a tool stays."""
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
    groups = clusters(grams([tool.text for tool in tools]), near)
    for key in (codes(tool.name.casefold() for tool in tools), codes(k.family for k in kin)):
        first = np.full(len(tools), len(tools))
        np.minimum.at(first, key, np.arange(len(tools)))
        groups = joined(groups, np.arange(len(tools)), first[key])
    return Catalog(tools, kin, owners, groups)
