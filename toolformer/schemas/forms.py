"""In: a call and its tool. Out: the call as a form with every parameter, null where no value is said; and back.

Parameters whose schema has null among its values keep it as a value: of them a form has those alone that are set.
"""

from __future__ import annotations

from dataclasses import replace

from toolformer.records import Tool, ToolCall
from toolformer.schemas.checking import Schema, kinds_of, parameters_of, required_of


def form(call: ToolCall, tool: Tool) -> ToolCall:
    """The call with every parameter, in the schema's order."""
    declared, given = parameters_of(tool), call.arguments
    every = {key: given.get(key) for key, schema in declared.items() if key in given or not admits_null(schema)}
    return replace(call, arguments=every | {key: value for key, value in given.items() if key not in declared})


def filled(call: ToolCall, tool: Tool) -> ToolCall:
    """Inverse of ``form``: the call without the parameters that have no value."""
    declared = parameters_of(tool)
    said = {k: v for k, v in call.arguments.items() if v is not None or admits_null(declared.get(k, {}))}
    return replace(call, arguments=said)


def gaps(call: ToolCall, tool: Tool) -> list[str]:
    """Required parameters without a value: the call is a draft."""
    declared = parameters_of(tool)
    empty = [key for key in required_of(tool) if key in call.arguments and call.arguments[key] is None]
    return [key for key in empty if not admits_null(declared.get(key, {}))]


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
