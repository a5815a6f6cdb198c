"""In: rows of requests with their tools. Out: the same rows, tool and parameter names replaced by random identifiers.

Descriptions, types, values and requests stay; gold calls are renamed alike. What a name gives away is gone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from toolformer.records import Example, Tool, ToolCall

Rows = list[tuple[Example, list[Tool]]]
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


class Masked(NamedTuple):
    """A tool under a random name, and the new name of each parameter: ``{old: (new, names of nested keys)}``."""

    tool: Tool
    names: dict[str, Any]


def identifier(rng: random.Random, taken: set[str]) -> str:
    """Two random syllables that are not yet in ``taken``, e.g. ``kuvo``."""
    while (name := "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(2))) in taken:
        pass
    taken.add(name)
    return name


def mask_tool(tool: Tool, rng: random.Random, taken: set[str]) -> Masked:
    """One tool under a fresh name."""
    name = identifier(rng, taken)
    parameters, names = _mask_object(tool.parameters, rng, set())
    return Masked(Tool(name, tool.description, parameters), names)


def mask_call(call: ToolCall, masked: Masked) -> ToolCall:
    """The call under the names of its masked tool."""
    names = masked.names
    return ToolCall(
        masked.tool.name,
        _rename(call.arguments, names),
        {names[k][0]: [_rename(v, names[k][1]) for v in values] for k, values in call.accepted.items()},
        tuple(names[k][0] for k in call.omittable),
    )


def mask_tools(tools: list[Tool], share: float, rng: random.Random) -> list[Tool]:
    """Tools alone, each masked with probability ``share``."""
    taken = {tool.name for tool in tools}
    return [mask_tool(tool, rng, taken).tool if rng.random() < share else tool for tool in tools]


def mask_rows(rows: Rows, share: float, rng: random.Random) -> Rows:
    """Mask each distinct tool with probability ``share``; a tool is masked alike in all the rows that hold it."""
    tools = {tool.id: tool for _, row_tools in rows for tool in row_tools}
    taken = {tool.name for tool in tools.values()}
    masked = {id_: mask_tool(tool, rng, taken) for id_, tool in tools.items() if rng.random() < share}
    out: Rows = []
    for example, row_tools in rows:
        by_name = {tool.name: masked.get(tool.id) for tool in row_tools}
        new_tools = [masked[tool.id].tool if tool.id in masked else tool for tool in row_tools]
        calls = tuple(mask_call(c, m) if (m := by_name[c.name]) is not None else c for c in example.calls)
        out.append((replace(example, tools=tuple(tool.id for tool in new_tools), calls=calls), new_tools))
    return out


def _mask_object(schema: Mapping[str, Any], rng: random.Random, taken: set[str]) -> tuple[dict[str, Any], dict]:
    names: dict[str, Any] = {}
    properties = {}
    for key, value in schema.get("properties", {}).items():
        new = identifier(rng, taken)
        inner, nested = _mask_schema(value, rng)
        properties[new], names[key] = inner, (new, nested)
    out = dict(schema)
    if "properties" in schema:
        out["properties"] = properties
    if "required" in schema:
        out["required"] = [names[key][0] for key in schema["required"]]
    return out, names


def _mask_schema(schema: Any, rng: random.Random) -> tuple[Any, dict]:
    if not isinstance(schema, Mapping):
        return schema, {}
    if "properties" in schema:
        return _mask_object(schema, rng, set())
    if isinstance(schema.get("items"), Mapping):
        items, names = _mask_schema(schema["items"], rng)
        return {**schema, "items": items}, names
    return dict(schema), {}


def _rename(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping) and names:
        return {names[k][0] if k in names else k: _rename(v, names[k][1] if k in names else {}) for k, v in value.items()}
    if isinstance(value, list):
        return [_rename(item, names) for item in value]
    return value
