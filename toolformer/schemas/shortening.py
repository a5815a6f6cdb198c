"""In: a tool, a count of tokens and a limit. Out: its schema text within the limit, and what had to go for it."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer.records import Tool
from toolformer.schemas.checking import BRANCHES, Schema, inner_schemas
from toolformer.schemas.type_text import kind_of

_SHAPE = {"type", "properties", "required", "items", "prefixItems", "additionalProperties", "enum", "const", *BRANCHES}


@dataclass(frozen=True)
class Shortened:
    """A schema text within a limit, and the fields that had to go for it, in the order they went."""

    text: str
    dropped: list[str]


def shorten(tool: Tool, count: Callable[[str], int], limit: int) -> Shortened:
    """The canonical text of ``tool`` in at most ``limit`` tokens (by ``count``), and all that was dropped for it.

    Dropped, from the tail, only as much as needed: parameter descriptions, then annotations (default, examples and
    whatever else is not names, types or enums), then the tool's description, then enums. Names and types stay, also
    where they alone are over the limit.
    """
    if count(tool.text) <= limit:
        return Shortened(tool.text, [])
    fields = [path for path, _ in _fields_of(tool.parameters, ())]
    tail = fields[::-1]
    steps = [path for path in tail if path[-1] == "description"]
    steps += [path for path in tail if path[-1] not in _SHAPE and path[-1] != "description"]
    steps += [("description",)] if tool.description else []
    steps += [path for path in tail if path[-1] == "enum"]

    def text(drops: int) -> str:
        return _without(tool, steps[:drops]).text

    drops = bisect_left(range(len(steps) + 1), True, key=lambda n: count(text(n)) <= limit)
    drops = min(drops, len(steps))
    return Shortened(text(drops), [".".join(map(str, path)) for path in steps[:drops]])


def _fields_of(schema: Schema, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every keyword of ``schema`` and of the schemas inside it, outer before inner, in declared order."""
    start = path or ("parameters",)
    for key, value in schema.items():
        yield (*start, key), value
    for inner, spec in inner_schemas(schema):
        if isinstance(spec, Mapping) and inner[0] in _SHAPE:  # any other goes whole
            yield from _fields_of(spec, (*start, *inner))


def _without(tool: Tool, paths: Sequence[tuple[Any, ...]]) -> Tool:
    row: dict[str, Any] = {"description": tool.description, "parameters": copy.deepcopy(dict(tool.parameters))}
    for path in paths:
        if path == ("description",):
            row["description"] = ""
            continue
        holder = row
        for key in path[:-1]:
            holder = holder[key]
        value = holder.pop(path[-1])
        if path[-1] == "enum" and "type" not in holder:
            kinds = sorted({kind_of(item) for item in value})
            holder["type"] = kinds[0] if len(kinds) == 1 else kinds
    return Tool(tool.name, row["description"], row["parameters"])
