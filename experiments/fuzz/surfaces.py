"""In: a random generator. Out: how one input fared at a surface; an exception that is not the surface's own is a finding.

A surface is a function that makes what it needs once and returns the function for one input. That one answers with what
became of it, or raises: ``AssertionError`` for a wrong result that was not refused, anything else for a crash.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from experiments.fuzz import mutations
from experiments.fuzz.samples import Unsampled, sample
from toolformer.calls import CLOSE, OPEN, Malformed, parse, render
from toolformer.records import Tool, ToolCall
from toolformer.schemas import (
    fits,
    read_tool,
    shorten,
    tool_from_flat,
    tool_from_mcp,
    tool_from_openai,
    type_to_schema,
    values_equal,
)

Once = Callable[[Random], str]
PLACE = "tools.json:3"

# --- the call parser --------------------------------------------------------------------------------------------------

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"city": "Bern", "hours": 2, "exact": 2.5, "now": True, "by": None},
    {"to": {"street": "A 1", "tags": ["x", {"y": [1, [2, []]]}]}, "text": 'quote " back \\ line\n\u00e9 \U0001f600'},
    {"</tool_call>": "<tool_call>", "n": -0.0, "big": 10**30, "small": 5e-324},
]


def call_parser(folder: Path) -> Once:
    """What is rendered is read back exactly or not rendered; what is read can be rendered; nothing raises."""
    texts = [render([ToolCall("get_time", a)] * n) for a in ARGUMENTS for n in (1, 2)]

    def once(rng: Random) -> str:
        if rng.random() < 0.3:
            return _rendered(rng)
        written = mutations.text(rng, rng.choice(texts))
        read = parse(written)
        if isinstance(read, Malformed):
            assert 0 <= read.position <= len(written) and read.reason, read
            return "refused"
        assert read or (OPEN not in written and CLOSE not in written), "an attempt was taken for a plain reply"
        assert not read or _same(parse(render(read)), read), "what was read is not what it is written as"
        return "accepted"

    return once


def _rendered(rng: Random) -> str:
    arguments = mutations.json_value(rng, copy.deepcopy(rng.choice(ARGUMENTS)))
    name = rng.choice(mutations.NASTY) if rng.random() < 0.3 else "get_time"
    calls = [ToolCall(name, arguments if isinstance(arguments, dict) else {"x": arguments})] * rng.choice((1, 1, 3))
    try:
        written = render(calls)
    except ValueError as error:
        assert str(error).startswith("call of "), error
        return "refused"
    assert _same(parse(written), calls), "rendered, and read back as something else"
    return "accepted"


def _same(read: Any, calls: list[ToolCall]) -> bool:
    """Equal, and equal in text: 1 is no 1.0 and no True."""
    return read == calls and [json.dumps(call.arguments) for call in read] == [json.dumps(c.arguments) for c in calls]


# --- schema dialects --------------------------------------------------------------------------------------------------

ADDRESS = {"type": "object", "properties": {"street": {"type": "string"}, "no": {"type": "integer"}}, "required": ["no"]}
OPENAI = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a table.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where", "enum": ["Bern", "Oslo"], "default": "Bern"},
                "guests": {"type": "integer", "minimum": 1, "maximum": 12},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
                "to": ADDRESS,
                "tip": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "code": {"type": "string", "pattern": "^[a-z]+$"},
            },
            "required": ["city", "guests"],
            "additionalProperties": False,
        },
    },
}
BFCL = {
    "name": "math.area",
    "description": "Area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float", "description": "Base"},
            "pair": {"type": "tuple", "items": {"type": "int"}},
            "box": {"type": "dict", "properties": {"side": {"type": "any"}}},
        },
        "required": ["base"],
    },
}
MCP = {
    "name": "move",
    "description": None,
    "inputSchema": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}},
        "properties": {"a": {"$ref": "#/$defs/point"}, "b": {"oneOf": [{"$ref": "#/$defs/point"}, {"type": "null"}]}},
        "required": ["a"],
    },
}
FLAT = {
    "name": "search",
    "description": "Search.",
    "parameters": {
        "q": {"type": "str", "description": "What"},
        "n": {"type": "int, optional", "default": 5},
        "ids": {"type": "List[Union[int, str]]"},
        "pos": {"type": "Tuple[float, float]", "description": "Where"},
        "by": {"type": "Optional[Literal['date', 'size']]"},
    },
}
ROWS = ((OPENAI, tool_from_openai), (BFCL, tool_from_openai), (MCP, tool_from_mcp), (FLAT, tool_from_flat))
TYPES = ("str, optional", "List[Union[int, float]]", "ArrayList<String>", "Dict[str, List[int]]", "int[][]", "any | None")
TYPES += ("str, optional, default 'Bern'", "Tuple[float, ...]", "Optional[Literal['a', 1]]", "Callable[[int], str]")


def mutated_tool(rng: Random) -> Tool | None:
    """A tool made of a broken description; None where it was refused, as it should be."""
    row, reader = rng.choice(ROWS)
    try:
        return reader(mutations.json_value(rng, copy.deepcopy(row)), PLACE)
    except ValueError as error:
        assert str(error).startswith(PLACE), f"no place: {error}"
        return None


def schema_dialects(folder: Path) -> Once:
    """A tool that is accepted is read again from its own text as itself, and every use of it works."""
    def once(rng: Random) -> str:
        if rng.random() < 0.3:
            return _type_text(rng)
        tool = mutated_tool(rng)
        if tool is None:
            return "refused"
        again = read_tool(json.loads(tool.text), PLACE)
        assert again.text == tool.text and again.id == tool.id, "read again, it is another tool"
        try:
            value = sample(rng, tool.parameters)
        except Unsampled:
            value = {}
        fits(tool, value)
        assert values_equal(value, copy.deepcopy(value), tool.parameters), "a value is not equal to itself"
        limit = rng.choice((20, 200, 400))
        try:
            short = shorten(tool, len, limit)
        except ValueError as error:
            assert "raise the limit" in str(error), error
            return "accepted"
        assert len(short.text) <= limit, "longer than its limit"
        read_tool(json.loads(short.text), PLACE)
        return "accepted"

    return once


def _type_text(rng: Random) -> str:
    written = mutations.text(rng, rng.choice(TYPES))
    try:
        schema = type_to_schema(written, PLACE)
    except ValueError as error:
        assert str(error).startswith(PLACE), f"no place: {error}"
        return "refused"
    row = {"name": "f", "parameters": {"properties": {"x": schema}}}
    try:
        assert tool_from_openai(row, PLACE).parameters["properties"]["x"] == schema, "read again, it is another type"
    except ValueError as error:
        assert "nested" in str(error) or "no JSON" in str(error), error
    return "accepted"
