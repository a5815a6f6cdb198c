"""In: a source of rows. Out: cases: what is asked, with which tools, and whose gists stand for them.

The controls of METRICS are made here: masked names, foreign gists, no gists, the needed tool taken away. Every choice
depends on the seed and the row's id alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from torch import Tensor

from toolformer.data.masking import Rows, mask_rows
from toolformer.inference.engine import Engine, Request
from toolformer.records import Example, Tool

VARIANTS = ("plain", "masked")
MEMORIES = ("real", "foreign", "zero", "missing")


class SplitSource(Protocol):
    """What can be evaluated on: the built-in world or a corpus on disk.

    Of the sources in ``selects_only`` gold says which tools are right, and no arguments.
    """

    selects_only: frozenset[str]

    def split(self, name: str, rows: int, *, tools_per_request: int) -> tuple[list[Tool], list[Example]]:
        """At most ``rows`` examples of a frozen split, and the tools they offer."""


class Case(NamedTuple):
    """One request as it is put to the model: ``shown`` are the tools whose gists it gets, one for each of ``tools``.

    ``shown`` is None where all gists are zero.
    """

    example: Example
    tools: list[Tool]
    shown: list[Tool] | None


class Gists:
    """The gists of distinct tools, each encoded once."""

    def __init__(self, engine: Engine, tools: Sequence[Tool]):
        self.tools = list({tool.id: tool for tool in tools}.values())
        self.place = {tool.id: i for i, tool in enumerate(self.tools)}
        self.table = engine.encode(self.tools)  # (U, K, D)

    def of(self, tools: Sequence[Tool]) -> Tensor:
        """``(N, K, D)`` in the order of ``tools``."""
        return self.table[[self.place[tool.id] for tool in tools]]

    def request(self, case: Case) -> Request:
        """The case with its gists."""
        if case.shown is None:
            gists = self.table.new_zeros(len(case.tools), *self.table.shape[1:])
        else:
            gists = self.of(case.shown)
        return Request(case.example.messages, case.tools, gists)


def split_rows(source: SplitSource, name: str, rows: int, tools_per_request: int, seed: int) -> Rows:
    """The rows of a split with their tools in an order that says nothing about which is right."""
    tools, examples = source.split(name, rows, tools_per_request=tools_per_request)
    catalog = {tool.id: tool for tool in tools}
    out: Rows = []
    for example in examples:
        offered = [catalog[id_] for id_ in example.tools]
        random.Random(f"order:{seed}:{example.id}").shuffle(offered)
        out.append((example, offered))
    return out


def varied(rows: Rows, variant: str, seed: int) -> Rows:
    """The rows as they are, or each alone under fresh random names."""
    if variant == "plain":
        return rows
    return [mask_rows([row], 1.0, random.Random(f"{seed}:{row[0].id}"))[0] for row in rows]


def distinct_tools(rows: Rows) -> list[Tool]:
    """Every tool on offer, once."""
    return list({tool.id: tool for _, tools in rows for tool in tools}.values())


def cases(rows: Rows, memory: str, pool: Sequence[Tool], seed: int) -> list[Case]:
    """The rows under one memory; ``pool`` is where foreign gists come from."""
    if memory == "real":
        return [Case(example, tools, tools) for example, tools in rows]
    if memory == "zero":
        return [Case(example, tools, None) for example, tools in rows]
    if memory == "foreign":
        return [Case(example, tools, foreign(example, tools, pool, seed)) for example, tools in rows]
    if memory == "missing":
        return [without_gold(example, tools) for example, tools in rows if example.calls]
    raise ValueError(f"evaluation.memories has {memory!r}; use some of {', '.join(MEMORIES)}")


def without_gold(example: Example, tools: Sequence[Tool]) -> Case:
    """The same request where the tools it needs are not on offer: no call is right."""
    needed = {call.name for call in example.calls}
    left = [tool for tool in tools if tool.name not in needed]
    ids = tuple(tool.id for tool in left)
    return Case(replace(example, tools=ids, calls=(), stratum="tool_missing"), left, left)


def foreign(example: Example, tools: Sequence[Tool], pool: Sequence[Tool], seed: int) -> list[Tool]:
    """As many tools that are not among the row's: none shares a name or a description with them."""
    names, texts = {tool.name for tool in tools}, {tool.description for tool in tools}
    rng = random.Random(f"foreign:{seed}:{example.id}")
    drawn = rng.sample(pool, min(len(pool), 4 * len(tools)))  # enough in all but tiny pools
    for candidates in (drawn, pool):
        others = [tool for tool in candidates if tool.name not in names and tool.description not in texts]
        if len(others) >= len(tools):
            return others[: len(tools)] if candidates is drawn else rng.sample(others, len(tools))
    raise ValueError(
        f"evaluation.memories has foreign, but beside the {len(tools)} tools of row {example.id} the split has only "
        f"{len(others)}; evaluate more rows or leave foreign out"
    )
