"""In: a tool. Out: an error that names place, field, value and remedy where its parameters are no JSON Schema for us.

Also what a schema is made of: the schemas inside it, its parameters, which of them a call must give.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from toolformer.calls import MAX_DEPTH, deeper_than
from toolformer.records import Tool
from toolformer.schemas.type_text import ALIAS, TYPES, brief

Schema = Mapping[str, Any]

BRANCHES = ("anyOf", "oneOf", "allOf")
# Where JSON Schema has schemas inside a schema: one, a list of them, a map of names to them.
ONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
ONE += ("unevaluatedItems", "unevaluatedProperties")
LISTS = (*BRANCHES, "prefixItems")
_PLAIN = {"type": str, "properties": dict, "required": list, "items": dict, "enum": list, "description": str}
MAPS = ("properties", "patternProperties", "dependentSchemas")


def validate(tool: Tool, place: str) -> None:
    """Refuses a tool whose parameters are no JSON Schema that the rest of the project can work with.

    Raises:
        ValueError: one line with ``place``, the tool, the field, its value and what is wanted.
    """
    where = f"{place}: tool {tool.name!r}"
    if not isinstance(tool.name, str) or not tool.name.strip():
        raise wrong(place, "name", tool.name, "a text that is not empty is wanted")
    if not isinstance(tool.description, str):
        raise wrong(where, "description", tool.description, "a text is wanted")
    for field, text in (("name", tool.name), ("description", tool.description)):
        if any("\ud800" <= mark <= "\udfff" for mark in text):
            raise wrong(where, field, text, "a text without halves of surrogate pairs is wanted")
    if not isinstance(tool.parameters, Mapping) or tool.parameters.get("type") != "object":
        raise wrong(where, "parameters", tool.parameters, 'a schema with "type": "object" is wanted')
    if deeper_than(tool.parameters, 4 * MAX_DEPTH):
        raise ValueError(f"{where}: parameters are nested more than {4 * MAX_DEPTH} deep; do they hold themselves?")
    _check(tool.parameters, where, "parameters", 0)
    try:
        f"{tool.name}{tool.description}".encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place}: tool {ascii(tool.name)}: half of a surrogate pair; use whole characters") from None
    try:
        text = json.dumps(tool.parameters, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:  # among them half a surrogate pair
        raise ValueError(f"{where}: parameters are no JSON: {error}; use plain JSON values") from None
    if not _all_said(tool.parameters) and (refusal := _refusal(text)):
        path, value, message = refusal
        raise wrong(where, path, value, f"JSON Schema refuses it: {message}")


@lru_cache(maxsize=1 << 14)  # 2 ms a schema; public data repeat a tool in row after row
def _refusal(parameters: str) -> tuple[str, Any, str] | None:
    """Where and why JSON Schema refuses the schema of this text."""
    import jsonschema  # 0.2 s that most users of this module do not need

    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(parameters))
    except jsonschema.SchemaError as error:
        return f"parameters{error.json_path[1:]}", error.instance, error.message[:80]
    return None


def _all_said(schema: Schema) -> bool:
    """Whether ``_check`` has said all that JSON Schema's own schema would say, which takes 100 times as long."""
    plain = all(key == "default" or isinstance(value, _PLAIN.get(key, ())) for key, value in schema.items())
    return plain and all(_all_said(inner) for _, inner in inner_schemas(schema))


def _check(schema: Any, where: str, path: str, depth: int) -> None:
    if not isinstance(schema, Mapping):
        raise wrong(where, path, schema, "a schema (an object) is wanted")
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{where}: {path[:80]}: schemas are nested more than {MAX_DEPTH} deep; does it refer to itself?"
        )
    for key in ("$ref", "$dynamicRef"):
        if key in schema:
            raise wrong(where, f"{path}.{key}", schema[key], "put the schema itself there (tool_from_mcp does)")
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, Sequence) else [kinds]:
        if kind not in TYPES:
            alias = ALIAS.get(str(kind).lower())
            hint = f"; did you mean {alias!r}?" if alias else ""
            raise wrong(where, f"{path}.type", kind, f"JSON Schema wants one of {', '.join(TYPES)}{hint}")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise wrong(where, f"{path}.properties", properties, "an object of name: schema is wanted")
    required = schema.get("required", [])
    if not isinstance(required, list | tuple):
        raise wrong(where, f"{path}.required", required, "a list of property names is wanted")
    for name in required:
        if not isinstance(name, str) or name not in properties:
            near = difflib.get_close_matches(str(name)[:80], [str(known)[:80] for known in properties], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; properties are {brief(list(properties))}"
            raise wrong(where, f"{path}.required", name, f"there is no such property{hint}")
    if len(set(required)) < len(required):
        raise wrong(where, f"{path}.required", required, "name each property once")
    if "enum" in schema and not (isinstance(schema["enum"], list | tuple) and schema["enum"]):
        raise wrong(where, f"{path}.enum", schema["enum"], "a list of at least one value is wanted")
    for key in ("pattern", "patternProperties"):
        said = schema.get(key)
        for pattern in [said] if isinstance(said, str) else said if isinstance(said, Mapping) else ():
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise wrong(where, f"{path}.{key}", pattern, f"no regular expression: {error}") from None
    for name, inner in inner_schemas(schema):
        _check(inner, where, f"{path}.{'.'.join(map(str, name))}", depth + 1)


def inner_schemas(schema: Schema) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The schemas directly inside ``schema`` with the keys that lead to them."""
    for key in MAPS:
        inside = schema.get(key)
        for name, spec in inside.items() if isinstance(inside, Mapping) else ():
            yield (key, name), spec
    for key in ONE:
        if isinstance(schema.get(key), Mapping) or (key == "items" and key in schema):
            yield (key,), schema[key]
    for key in LISTS:
        branches = schema.get(key, [])
        for i, spec in enumerate(branches if isinstance(branches, Sequence) else []):
            yield (key, i), spec


def wrong(where: str, field: str, value: Any, remedy: str) -> ValueError:
    """The error that all of this package raises: where, which field, its value, and what is wanted."""
    return ValueError(f"{where}: {field} is {brief(value)}; {remedy}")


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schema of each parameter by name, in declared order."""
    return dict(tool.parameters.get("properties", {}))


def required_of(tool: Tool) -> tuple[str, ...]:
    """The names of the parameters that a call must give."""
    return tuple(tool.parameters.get("required", ()))


def kinds_of(schema: Schema) -> Sequence[str]:
    """The types that a schema names; none where it names none."""
    kinds = schema.get("type", ())
    return (kinds,) if isinstance(kinds, str) else kinds
