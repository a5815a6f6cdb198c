"""In: a tool as OpenAI, MCP, BFCL, xLAM, Seal-Tools, API-Bank or ToolBench describes it. Out: a checked ``Tool``.

No parameter, type, enum, default, required flag or nested property is lost; ``README.md`` beside this file lists what
JSON Schema says in another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolformer.calls import MAX_DEPTH, deeper_than
from toolformer.records import Tool
from toolformer.schemas.checking import LISTS, MAPS, ONE, Schema, validate, wrong
from toolformer.schemas.type_text import TYPES, as_typed, default_in, is_optional, kind_of, type_to_schema, union

MOST_REFERENCES = 1_000  # of one tool; where each level refers twice to the next, no memory would hold them all


def read_tool(row: Any, place: str) -> Tool:
    """A tool in MCP's form where it has an ``inputSchema``, else in OpenAI's."""
    mcp = isinstance(row, Mapping) and "inputSchema" in row
    return tool_from_mcp(row, place) if mcp else tool_from_openai(row, place)


def tool_from_openai(row: Any, place: str) -> Tool:
    """A tool from OpenAI's form, with or without the ``{"type": "function"}`` wrapper; BFCL's Python-ish types too.

    Raises:
        ValueError: names ``place``, the field and its value.

    >>> tool_from_openai({"type": "function", "function": {"name": "ping", "description": "Ping a host.",
    ...     "parameters": {"type": "dict", "properties": {"host": {"type": "str"}}, "required": ["host"]}}}, "x:1").text
    '{"name": "ping", "description": "Ping a host.", "parameters": {"type": "object", "properties": {"host": {"type": "string"}}, "required": ["host"]}}'
    """  # noqa: E501
    if isinstance(row, Mapping) and "function" in row:
        row = row["function"]
    return _tool(row, "parameters", place)


def tool_from_mcp(row: Any, place: str) -> Tool:
    """A tool from the Model Context Protocol's form (``inputSchema``), local ``$ref``s put in their place.

    Raises:
        ValueError: names ``place``, the field and its value.
    """
    return _tool(row, "inputSchema", place)


def tool_from_flat(row: Any, place: str) -> Tool:
    """A tool whose ``parameters`` map names to ``{type: Python text, description, default?}`` (xLAM, Seal-Tools).

    Required are those that ``row["required"]`` lists; without such a list those neither optional nor with a default.

    Raises:
        ValueError: names ``place``, the field and its value.
    """
    fields = _fields(row, "parameters", place)
    flat = fields["parameters"]
    if not isinstance(flat, Mapping):
        raise wrong(place, "parameters", flat, "a map of parameter names to types is wanted")
    properties = {}
    for name, spec in flat.items():
        if not isinstance(spec, Mapping):
            raise wrong(place, f"parameters.{name}", spec, "an object with type and description is wanted")
        properties[name] = {**spec, **default_in(str(spec.get("type", ""))), **spec}
    required = [
        name
        for name, spec in properties.items()
        if "default" not in spec and not is_optional(str(spec.get("type", "")))
    ]
    schema = {"type": "object", "properties": properties, "required": fields.get("required", required)}
    return _tool({**fields, "parameters": schema}, "parameters", place)


def tool_from_lists(row: Any, place: str) -> Tool:
    """A tool whose ``required_parameters`` and ``optional_parameters`` list ``{name, type, description, default}``.

    ToolBench's form; ``name`` and ``description`` are the caller's to give. A default of "" is none. Of two parameters
    of one name the first is kept: they are one argument of a call.

    Raises:
        ValueError: names ``place``, the field and its value.
    """
    fields = _fields(row, "parameters", place)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for key in ("required_parameters", "optional_parameters"):
        for i, spec in enumerate(fields.get(key, [])):
            if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
                raise wrong(place, f"{key}[{i}]", spec, "an object with name and type is wanted")
            if spec["name"] in properties:
                continue
            kept = {k: v for k, v in spec.items() if k != "name" and not (k == "default" and v == "")}
            properties[spec["name"]] = kept
            required += [spec["name"]] if key == "required_parameters" else []
    schema = {"type": "object", "properties": properties, "required": required}
    return _tool({**fields, "parameters": schema}, "parameters", place)


def _fields(row: Any, key: str, place: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise wrong(place, "tool", row, "an object with name, description and parameters is wanted")
    if deeper_than(row, 4 * MAX_DEPTH):  # two levels a schema, and values inside it
        raise ValueError(f"{place}: tool is nested more than {4 * MAX_DEPTH} deep; does it hold itself?")
    if not isinstance(row.get("name"), str):
        raise wrong(place, "name", row.get("name"), "a text is wanted")
    description = row.get("description")
    return {**row, "description": "" if description is None else description, key: row.get(key, {})}


def _tool(row: Any, key: str, place: str) -> Tool:
    fields = _fields(row, key, place)
    where = f"{place}: tool {fields['name']!r}"
    parameters = canonical(fields[key] if fields[key] is not None else {}, where, key)
    tool = Tool(fields["name"], fields["description"], parameters)
    validate(tool, place)
    return tool


def canonical(schema: Any, where: str, path: str, root: Any = None) -> dict[str, Any]:
    """The parameters' schema with JSON-Schema type names and local references put in place, the order of keys kept.

    References are looked up in ``root``, by default the schema itself.

    Raises:
        ValueError: names ``where``, the field and its value.
    """
    if isinstance(schema, Mapping):
        schema = {"type": "object", "properties": {}, **schema}
        schema = {k: v for k, v in schema.items() if k != "$schema"}
    out = _canonical(schema, where, path, schema if root is None else root, 0, iter(range(MOST_REFERENCES)))
    return {k: v for k, v in out.items() if k not in ("$defs", "definitions")}


def _canonical(schema: Any, where: str, path: str, root: Any, depth: int, references: Iterator[int]) -> dict[str, Any]:
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise wrong(where, path, schema, "a schema (an object) is wanted")
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{where}: {path[:80]}: schemas are nested more than {MAX_DEPTH} deep; does it refer to itself?"
        )
    if "$ref" in schema:
        if next(references, None) is None:
            raise ValueError(f"{where}: {path[:80]}: more than {MOST_REFERENCES} references; write the schemas out")
        target = resolve(schema["$ref"], where, path, root)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _canonical({**target, **rest}, where, path, root, depth + 1, references)

    def inner(value: Any, name: str) -> dict[str, Any]:
        return _canonical(value, where, f"{path}.{name}", root, depth + 1, references)

    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type":
            out.update(_type(value, where, f"{path}.type"))
        elif key in MAPS and isinstance(value, Mapping):
            out[key] = {name: inner(spec, f"{key}.{name}") for name, spec in value.items()}
        elif key == "items" or (key in ONE and isinstance(value, Mapping)):
            out[key] = inner(value, key)
        elif key in LISTS and isinstance(value, Sequence):
            out[key] = [inner(spec, f"{key}[{i}]") for i, spec in enumerate(value)]
        elif key == "examples" and not isinstance(value, list):
            out[key] = [value]
        elif key == "choices" and isinstance(value, list) and "enum" not in schema:
            out["enum"] = value
        else:
            out[key] = value
    return _agreed(out)


def _agreed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without what contradicts itself: text that spells a typed value, an array's enum of items, ...

    An enum value or a default written as text becomes the value that it spells. Enum values that are still not of the
    type widen the type. Names that are required where no property is declared are declared, of any type.
    """
    if "nullable" in schema:  # OpenAPI 3.0's word
        schema = _nullable(schema)
    for key, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):  # its words too
        if isinstance(schema.get(key), bool):
            exclusive = schema.pop(key)
            schema = {key if exclusive and name == bound else name: value for name, value in schema.items()}
    kind, values = schema.get("type"), schema.get("enum")
    if isinstance(kind, str) and "default" in schema:
        schema["default"] = as_typed(schema["default"], kind)
    if isinstance(kind, str) and isinstance(values, list) and values:
        if kind == "array" and not any(isinstance(value, list) for value in values):
            del schema["enum"]
            items = schema.get("items", {})
            schema["items"] = _agreed({**items, "enum": values}) if "enum" not in items else items
        else:
            values = [as_typed(value, kind) for value in values]
            schema["enum"] = list({(type(v), repr(v)): v for v in values}.values())
            other = [{"type": found} for found in dict.fromkeys(kind_of(v) for v in values if not _is(v, kind))]
            schema.update(union([{"type": kind}, *other]) if other else {})
    required = schema.get("required")
    if isinstance(required, list) and not schema.get("properties") and all(isinstance(r, str) for r in required):
        schema.update({"properties": {name: {} for name in required}} if required else {})
    return schema


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in schema.items() if key != "nullable"}
    if schema["nullable"] is not True:
        return out
    if isinstance(out.get("type"), str) and out["type"] != "null":
        out["type"] = [out["type"], "null"]
    if isinstance(out.get("enum"), list) and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    for key in ("anyOf", "oneOf"):
        if isinstance(out.get(key), list) and {"type": "null"} not in out[key]:
            out[key] = [*out[key], {"type": "null"}]
    return out


def _is(value: Any, kind: str) -> bool:
    found = kind_of(value)
    if {found, kind} == {"integer", "number"}:  # 1.0 is an integer too
        return kind == "number" or float(value).is_integer()
    return found == kind


def resolve(reference: Any, where: str, path: str, root: Any) -> Schema:
    """What a local reference (``#/$defs/City``) leads to in ``root``."""
    target: Any = root if str(reference).startswith("#/") else None
    for part in str(reference)[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")  # RFC 6901
        target = target.get(part) if isinstance(target, Mapping) else None
    if not isinstance(target, Mapping):
        raise wrong(where, f"{path}.$ref", reference, "a reference into the same schema is wanted (#/$defs/...)")
    return target


def _type(value: Any, where: str, path: str) -> dict[str, Any]:
    if isinstance(value, str):
        return type_to_schema(value, f"{where}: {path}")
    if isinstance(value, Sequence) and value and all(isinstance(kind, str) for kind in value):
        return union([type_to_schema(kind, f"{where}: {path}") for kind in value])
    raise wrong(where, path, value, f"JSON Schema wants one of {', '.join(TYPES)}, or a list of them")
