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
SCARCE = 2000  # of the 4,900 names of two syllables

# {old name: (new name, the same for the properties inside)}; None stands for keys that a schema does not name
Names = dict[str | None, tuple[str, "Names"]]


class Masked(NamedTuple):
    """A tool under a random name, and the new names of its parameters."""

    tool: Tool
    names: Names


def identifier(rng: random.Random, taken: set[str]) -> str:
    """Two random syllables that are not yet in ``taken``, e.g. ``kuvo``; three where those become scarce."""
    syllables = 2 if len(taken) < SCARCE else 3
    while (name := "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(syllables))) in taken:
        pass
    taken.add(name)
    return name


def mask_tool(tool: Tool, rng: random.Random, taken: set[str]) -> Masked:
    """One tool under a fresh name."""
    names: Names = {}
    name = identifier(rng, taken)
    return Masked(Tool(name, tool.description, _mask_schema(tool.parameters, names, rng)), names)


def mask_call(call: ToolCall, masked: Masked) -> ToolCall:
    """The call under the names of its masked tool."""
    names = masked.names
    return ToolCall(
        masked.tool.name,
        _rename(call.arguments, names),
        {_new(k, names): [_rename(v, _inside(k, names)) for v in values] for k, values in call.accepted.items()},
        tuple(_new(k, names) for k in call.omittable),
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

        def renamed(call: ToolCall) -> ToolCall:
            return call if (new := by_name[call.name]) is None else mask_call(call, new)  # noqa: B023  # used at once

        calls = tuple(map(renamed, example.calls))
        draft = None if example.draft is None else renamed(example.draft)
        ids = tuple(tool.id for tool in new_tools)
        out.append((replace(example, tools=ids, calls=calls, draft=draft), new_tools))
    return out


def _mask_schema(schema: Any, names: Names, rng: random.Random) -> Any:
    """``schema`` with its properties renamed; ``names`` is filled, and the branches of one schema share it."""
    if not isinstance(schema, Mapping):
        return schema
    out = {key: value for key, value in schema.items() if key != "title"}  # a title is the name, spelled nicely
    if "properties" in schema:
        taken = {*schema["properties"], *(new for new, _ in names.values())}
        for key in schema["properties"]:
            if key not in names:
                names[key] = (identifier(rng, taken), {})
        out["properties"] = {
            _new(key, names): _mask_schema(inner, names[key][1], rng) for key, inner in schema["properties"].items()
        }
    for key in ("items", "anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(key)
        if isinstance(inner, list | tuple):
            out[key] = [_mask_schema(one, names, rng) for one in inner]
        elif key in schema:
            out[key] = _mask_schema(inner, names, rng)
    if isinstance(schema.get("additionalProperties"), Mapping):
        values = names.setdefault(None, ("", {}))[1]
        out["additionalProperties"] = _mask_schema(schema["additionalProperties"], values, rng)
    if "required" in schema:
        out["required"] = [_new(key, names) for key in schema["required"]]
    for key in ("default", "const", "enum", "examples"):
        if key in schema:
            out[key] = _rename(schema[key], names)
    return out


def _new(key: str, names: Names) -> str:
    return names[key][0] if key in names else key


def _inside(key: str, names: Names) -> Names:
    return names.get(key, names.get(None, ("", {})))[1]


def _rename(value: Any, names: Names) -> Any:
    if isinstance(value, Mapping):
        return {_new(key, names): _rename(inner, _inside(key, names)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rename(item, names) for item in value]
    return value
