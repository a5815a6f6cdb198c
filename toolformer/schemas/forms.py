"""In: a call and its tool. Out: the call as a form, null where no value is said; and back.

A form has the required parameters and those that are said, or all of them. Parameters whose schema has null among its
values keep it as a value: of them a form has those alone that are set.
"""

from __future__ import annotations

from dataclasses import replace

from toolformer.records import Tool, ToolCall
from toolformer.schemas.checking import Schema, kinds_of, parameters_of, required_of


def form(call: ToolCall, tool: Tool, kind: str = "all") -> ToolCall:
    """The call with its required parameters, or ``all``, in the schema's order."""
    declared, given = parameters_of(tool), call.arguments
    every = {key: given.get(key) for key in declared if key in given or key in blanks(tool, kind)}
    return replace(call, arguments=every | {key: value for key, value in given.items() if key not in declared})


def blanks(tool: Tool, kind: str) -> list[str]:
    """The parameters that may be null in a form though their schema knows no null: the required ones, or ``all``."""
    declared = parameters_of(tool)
    keys = required_of(tool) if kind == "required" else declared
    return [key for key in keys if not admits_null(declared.get(key, {}))]


def filled(call: ToolCall, tool: Tool) -> ToolCall:
    """Inverse of ``form``: the call without the parameters that have no value."""
    declared = parameters_of(tool)
    said = {k: v for k, v in call.arguments.items() if v is not None or admits_null(declared.get(k, {}))}
    return replace(call, arguments=said)


def gaps(call: ToolCall, tool: Tool) -> list[str]:
    """Required parameters without a value: the call is a draft."""
    given = call.arguments
    return [key for key in blanks(tool, "required") if key in given and given[key] is None]


def admits_null(schema: Schema) -> bool:
    """Whether null is a value of the schema as far as its types and listed values say.

    >>> [admits_null(s) for s in ({"type": "string"}, {"type": ["string", "null"]}, {"enum": ["a", None]}, {})]
    [False, True, True, True]
    """
    if "enum" in schema:
        return None in schema["enum"]
    if "const" in schema:
        return schema["const"] is None
    if any(key in schema for key in ("anyOf", "oneOf")):
        return any(map(admits_null, [*schema.get("anyOf", ()), *schema.get("oneOf", ())]))
    kinds = kinds_of(schema)
    return not kinds or "null" in kinds
