"""In: tool descriptions in several dialects, argument values. Out: `Tool`s with JSON-Schema parameters, typed equality.

Everything that has to know what a schema means: reading, checking, comparing by type, and shortening without silence.
"""

from __future__ import annotations

import ast
import copy
import difflib
import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from toolformer.calls import MAX_DEPTH
from toolformer.records import Tool, ToolCall

Schema = Mapping[str, Any]

TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_WORDS = {
    "string": "str string char character text date datetime bytes callable function",
    "integer": "int integer long short",
    "number": "float number double decimal",
    "boolean": "bool boolean",
    "array": "list array arraylist tuple set frozenset sequence iterable",
    "object": "dict object hashmap map mapping",
    "null": "none null nonetype",
    "": "any",  # no type at all: JSON Schema's way to say any
}
_ALIAS = {word: kind for kind, words in _WORDS.items() for word in words.split()}
_OPTIONAL = re.compile(r"(?s)(?P<type>.*?)\s*(?P<rest>,\s*(?:optional|required|default)\b.*)?$")
_BRANCHES = ("anyOf", "oneOf", "allOf")
_SHAPE = {"type", "properties", "required", "items", "prefixItems", "additionalProperties", "enum", "const", *_BRANCHES}


# --- reading dialects -------------------------------------------------------------------------------------------------


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
        raise _wrong(place, "parameters", flat, "a map of parameter names to types is wanted")
    for name, spec in flat.items():
        if not isinstance(spec, Mapping):
            raise _wrong(place, f"parameters.{name}", spec, "an object with type and description is wanted")
    required = [
        name for name, spec in flat.items() if "default" not in spec and not is_optional(str(spec.get("type", "")))
    ]
    schema = {"type": "object", "properties": flat, "required": fields.get("required", required)}
    return _tool({**fields, "parameters": schema}, "parameters", place)


def _fields(row: Any, key: str, place: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise _wrong(place, "tool", row, "an object with name, description and parameters is wanted")
    if not isinstance(row.get("name"), str):
        raise _wrong(place, "name", row.get("name"), "a text is wanted")
    description = row.get("description")
    return {**row, "description": "" if description is None else description, key: row.get(key, {})}


def _tool(row: Any, key: str, place: str) -> Tool:
    fields = _fields(row, key, place)
    where = f"{place}: tool {fields['name']!r}"
    schema = fields[key] if fields[key] is not None else {}
    if isinstance(schema, Mapping):
        schema = {"type": "object", "properties": {}, **schema}
        schema = {k: v for k, v in schema.items() if k != "$schema"}
    parameters = _canonical(schema, where, key, schema, 0)
    parameters = {k: v for k, v in parameters.items() if k not in ("$defs", "definitions")}
    tool = Tool(fields["name"], fields["description"], parameters)
    validate(tool, place)
    return tool


def _canonical(schema: Any, where: str, path: str, root: Any, depth: int) -> dict[str, Any]:
    """``schema`` with JSON-Schema type names and without references, the order of its keys kept."""
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise _wrong(where, path, schema, "a schema (an object) is wanted")
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{where}: {path[:80]}: schemas are nested more than {MAX_DEPTH} deep; does it refer to itself?"
        )
    if "$ref" in schema:
        target = _resolve(schema["$ref"], where, path, root)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _canonical({**target, **rest}, where, path, root, depth + 1)

    def inner(value: Any, name: str) -> dict[str, Any]:
        return _canonical(value, where, f"{path}.{name}", root, depth + 1)

    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type":
            out.update(_type(value, where, f"{path}.type"))
        elif key == "properties" and isinstance(value, Mapping):
            out[key] = {name: inner(spec, f"properties.{name}") for name, spec in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, Mapping)):
            out[key] = inner(value, key)
        elif key in (*_BRANCHES, "prefixItems") and isinstance(value, Sequence):
            out[key] = [inner(spec, f"{key}[{i}]") for i, spec in enumerate(value)]
        else:
            out[key] = value
    return out


def _resolve(reference: Any, where: str, path: str, root: Any) -> Schema:
    target: Any = root if str(reference).startswith("#/") else None
    for part in str(reference)[2:].split("/"):
        target = target.get(part) if isinstance(target, Mapping) else None
    if not isinstance(target, Mapping):
        raise _wrong(where, f"{path}.$ref", reference, "a reference into the same schema is wanted (#/$defs/...)")
    return target


def _type(value: Any, where: str, path: str) -> dict[str, Any]:
    if isinstance(value, str):
        return type_to_schema(value, f"{where}: {path}")
    if isinstance(value, Sequence) and value and all(isinstance(kind, str) for kind in value):
        return _union([type_to_schema(kind, f"{where}: {path}") for kind in value])
    raise _wrong(where, path, value, f"JSON Schema wants one of {', '.join(TYPES)}, or a list of them")


def is_optional(text: str) -> bool:
    """Whether Python type text says that the argument may be left out.

    >>> is_optional("str, optional"), is_optional("Optional[int]"), is_optional("List[int]")
    (True, True, False)
    """
    rest = cast(re.Match[str], _OPTIONAL.match(text)).group("rest") or ""
    return "optional" in rest or "default" in rest or text.strip().startswith(("Optional[", "typing.Optional["))


def type_to_schema(text: str, place: str = "type") -> dict[str, Any]:
    """JSON Schema for a type in words: JSON Schema's, Python's (``List[int]``) or Java's (``ArrayList<String>``).

    Raises:
        ValueError: the text names no known type.

    >>> type_to_schema("str, optional"), type_to_schema("List[Union[int, float]]")
    ({'type': 'string'}, {'type': 'array', 'items': {'type': 'number'}})
    >>> type_to_schema("Tuple[float, float]")
    {'type': 'array', 'items': {'type': 'number'}, 'minItems': 2, 'maxItems': 2}
    >>> type_to_schema("any"), type_to_schema("Dict")
    ({}, {'type': 'object'})
    """
    if text in TYPES:
        return {"type": text}
    plain = cast(re.Match[str], _OPTIONAL.match(text)).group("type").strip()
    if not plain:
        return {}
    if plain.endswith("[]"):
        return {"type": "array", "items": type_to_schema(plain[:-2], place)}
    try:
        return _from_syntax(ast.parse(plain.replace("<", "[").replace(">", "]"), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        near = difflib.get_close_matches(plain.lower(), _ALIAS, n=1)
        hint = f"; did you mean {_ALIAS[near[0]] or 'any'!r}?" if near else ""
        known = f"JSON Schema wants one of {', '.join(TYPES)}"
        raise ValueError(f"{place} is {_brief(text)}; {known}{hint}") from None


def _from_syntax(node: ast.expr) -> dict[str, Any]:
    """One node of Python's type grammar; ``ValueError`` for anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_from_syntax(node.left), _from_syntax(node.right)])
    if isinstance(node, ast.Constant) and node.value is None:
        return {"type": "null"}
    if not isinstance(node, ast.Subscript):
        word = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if word.lower() not in _ALIAS:
            raise ValueError(word)
        kind = _ALIAS[word.lower()]
        return {"type": kind} if kind else {}
    head = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    inside = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if head == "Literal":
        values = [ast.literal_eval(item) for item in inside]
        return {"enum": values} if not all(isinstance(v, str) for v in values) else {"type": "string", "enum": values}
    if head in ("Union", "Optional"):  # an optional argument is one that may be left out, not one that may be null
        return _union([_from_syntax(item) for item in inside])
    outer = _ALIAS.get(head.lower())
    if outer == "string":  # Callable[[float], float]: what it takes is not for a schema to say
        return {"type": "string"}
    if outer == "object":
        return {"type": "object", "additionalProperties": _from_syntax(inside[-1])}
    if outer != "array":
        raise ValueError(head)
    items = [_from_syntax(item) for item in inside if not (isinstance(item, ast.Constant) and item.value is ...)]
    out = {"type": "array", "items": _union(items)}
    fixed = head.lower() == "tuple" and len(items) == len(inside)
    return {**out, "minItems": len(items), "maxItems": len(items)} if fixed else out


def _union(parts: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [part for i, part in enumerate(parts) if part not in parts[:i]]
    if {} in parts:
        return {}
    if {"type": "number"} in parts:
        parts = [part for part in parts if part != {"type": "integer"}]
    if len(parts) == 1:
        return parts[0]
    if all(set(part) == {"type"} for part in parts):
        return {"type": [part["type"] for part in parts]}
    return {"anyOf": parts}


# --- checking ---------------------------------------------------------------------------------------------------------


def validate(tool: Tool, place: str) -> None:
    """Refuses a tool whose parameters are no JSON Schema that the rest of the project can work with.

    Raises:
        ValueError: one line with ``place``, the tool, the field, its value and what is wanted.
    """
    where = f"{place}: tool {tool.name!r}"
    if not isinstance(tool.name, str) or not tool.name.strip():
        raise _wrong(place, "name", tool.name, "a text that is not empty is wanted")
    if not isinstance(tool.description, str):
        raise _wrong(where, "description", tool.description, "a text is wanted")
    if not isinstance(tool.parameters, Mapping) or tool.parameters.get("type") != "object":
        raise _wrong(where, "parameters", tool.parameters, 'a schema with "type": "object" is wanted')
    _check(tool.parameters, where, "parameters", 0)
    import jsonschema  # 0.2 s that most users of this module do not need

    try:
        json.dumps(tool.parameters, allow_nan=False, ensure_ascii=False).encode()
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
    except jsonschema.SchemaError as error:
        path = "parameters" + error.json_path[1:]
        raise _wrong(where, path, error.instance, f"JSON Schema refuses it: {error.message[:80]}") from None
    except (TypeError, ValueError) as error:  # among them half a surrogate pair
        raise ValueError(f"{where}: parameters are no JSON: {error}; use plain JSON values") from None


def _check(schema: Any, where: str, path: str, depth: int) -> None:
    if not isinstance(schema, Mapping):
        raise _wrong(where, path, schema, "a schema (an object) is wanted")
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{where}: {path[:80]}: schemas are nested more than {MAX_DEPTH} deep; does it refer to itself?"
        )
    if "$ref" in schema:
        raise _wrong(where, f"{path}.$ref", schema["$ref"], "put the schema itself there (tool_from_mcp does)")
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, Sequence) else [kinds]:
        if kind not in TYPES:
            alias = _ALIAS.get(str(kind).lower())
            hint = f"; did you mean {alias!r}?" if alias else ""
            raise _wrong(where, f"{path}.type", kind, f"JSON Schema wants one of {', '.join(TYPES)}{hint}")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise _wrong(where, f"{path}.properties", properties, "an object of name: schema is wanted")
    required = schema.get("required", [])
    if not isinstance(required, list | tuple):
        raise _wrong(where, f"{path}.required", required, "a list of property names is wanted")
    for name in required:
        if name not in properties:
            near = difflib.get_close_matches(str(name), [str(known) for known in properties], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; properties are {_brief(list(properties))}"
            raise _wrong(where, f"{path}.required", name, f"there is no such property{hint}")
    if len(set(required)) < len(required):
        raise _wrong(where, f"{path}.required", required, "name each property once")
    if "enum" in schema and not (isinstance(schema["enum"], list | tuple) and schema["enum"]):
        raise _wrong(where, f"{path}.enum", schema["enum"], "a list of at least one value is wanted")
    if isinstance(schema.get("pattern"), str):
        try:
            re.compile(schema["pattern"])
        except re.error as error:
            raise _wrong(where, f"{path}.pattern", schema["pattern"], f"no regular expression: {error}") from None
    for name, inner in _inner(schema):
        _check(inner, where, f"{path}.{'.'.join(map(str, name))}", depth + 1)


def _inner(schema: Schema) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The schemas directly inside ``schema`` with the keys that lead to them."""
    for name, spec in schema.get("properties", {}).items():
        yield ("properties", name), spec
    if "items" in schema:
        yield ("items",), schema["items"]
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield ("additionalProperties",), schema["additionalProperties"]
    for key in (*_BRANCHES, "prefixItems"):
        branches = schema.get(key, [])
        for i, spec in enumerate(branches if isinstance(branches, Sequence) else []):
            yield (key, i), spec


def _wrong(where: str, field: str, value: Any, remedy: str) -> ValueError:
    return ValueError(f"{where}: {field} is {_brief(value)}; {remedy}")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schema of each parameter by name, in declared order."""
    return dict(tool.parameters.get("properties", {}))


def gaps(call: ToolCall, tool: Tool) -> list[str]:
    """Required parameters whose value is null though their schema knows no null: the call is a draft."""
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
    kinds = _kinds(schema)
    return not kinds or "null" in kinds


def required_of(tool: Tool) -> tuple[str, ...]:
    """The names of the parameters that a call must give."""
    return tuple(tool.parameters.get("required", ()))


# --- comparing --------------------------------------------------------------------------------------------------------


def values_equal(gold: Any, predicted: Any, schema: Schema) -> bool:
    """Typed equality of two values of one parameter, recursive by ``schema``.

    A boolean is never a number; ``1 == 1.0`` only where the schema says number; strings exact after Unicode NFC;
    arrays in order; null is not absent; an optional property left out equals its default.

    >>> values_equal(1, 1.0, {"type": "number"}), values_equal(1, 1.0, {"type": "integer"}), values_equal(1, True, {})
    (True, False, False)
    >>> values_equal({"n": 2}, {}, {"type": "object", "properties": {"n": {"type": "integer", "default": 2}}})
    True
    """
    return _equal(gold, predicted, schema, _nfc)


def values_equal_lenient(gold: Any, predicted: Any, schema: Schema) -> bool:
    """As ``values_equal``, strings by BFCL's rule: lower case, without `` ,./-_*^``, single quotes as double quotes.

    >>> values_equal_lenient("April 1, 2024", "april 1 2024", {"type": "string"})
    True
    """
    return _equal(gold, predicted, schema, _loose)


_BFCL = str.maketrans({**{mark: None for mark in " ,./-_*^"}, "'": '"'})


def _nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _loose(text: str) -> str:
    return _nfc(_nfc(text).lower().translate(_BFCL))


def _equal(gold: Any, predicted: Any, schema: Schema, text: Callable[[str], str]) -> bool:
    if isinstance(gold, str) and isinstance(predicted, str):
        return text(gold) == text(predicted)
    if isinstance(gold, bool) or isinstance(predicted, bool) or gold is None or predicted is None:
        return gold is predicted
    if isinstance(gold, int | float) and isinstance(predicted, int | float):
        same_kind = type(gold) is type(predicted) or any("number" in _kinds(part) for part in _parts(schema))
        return same_kind and gold == predicted
    if isinstance(gold, list | tuple) and isinstance(predicted, list | tuple):
        if len(gold) != len(predicted):
            return False
        return all(
            _equal(g, p, item_schema(schema, i), text) for i, (g, p) in enumerate(zip(gold, predicted, strict=True))
        )
    if isinstance(gold, Mapping) and isinstance(predicted, Mapping):
        gold, predicted = without_defaults(gold, schema), without_defaults(predicted, schema)
        return gold.keys() == predicted.keys() and all(
            _equal(gold[key], predicted[key], property_schema(schema, key), text) for key in gold
        )
    return False


def without_defaults(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """``values`` without the optional properties that state their default: saying it and leaving it out are the same.

    >>> without_defaults({"city": "Bern", "days": 1}, {"properties": {"city": {}, "days": {"default": 1}}})
    {'city': 'Bern'}
    """
    required = {name for part in _parts(schema) for name in part.get("required", ())}
    out = {}
    for key, value in values.items():
        spec = property_schema(schema, key)
        if key in required or "default" not in spec or not values_equal(spec["default"], value, spec):
            out[key] = value
    return out


def property_schema(schema: Schema, key: str) -> Schema:
    """The schema of property ``key``, wherever in ``schema`` it stands; ``{}`` where nothing is said."""
    for part in _parts(schema):
        if key in part.get("properties", {}):
            return part["properties"][key]
    return next((p["additionalProperties"] for p in _parts(schema) if _is_map(p, "additionalProperties")), {})


def item_schema(schema: Schema, position: int) -> Schema:
    """The schema of an array's item at ``position``; ``{}`` where nothing is said."""
    for part in _parts(schema):
        if position < len(part.get("prefixItems", ())):
            return part["prefixItems"][position]
        if _is_map(part, "items"):
            return part["items"]
    return {}


def _parts(schema: Schema) -> Iterator[Schema]:
    yield schema
    for key in _BRANCHES:
        for branch in schema.get(key, ()):
            yield from _parts(branch)


def _kinds(schema: Schema) -> Sequence[str]:
    kinds = schema.get("type", ())
    return (kinds,) if isinstance(kinds, str) else kinds


def _is_map(schema: Schema, key: str) -> bool:
    return isinstance(schema.get(key), Mapping)


# --- shortening -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shortened:
    """A schema text within a limit, and the fields that had to go for it, in the order they went."""

    text: str
    dropped: list[str]


def shorten(tool: Tool, count: Callable[[str], int], limit: int) -> Shortened:
    """The canonical text of ``tool`` in at most ``limit`` tokens (by ``count``), and all that was dropped for it.

    Dropped, from the tail, only as much as needed: parameter descriptions, then annotations (default, examples and
    whatever else is not names, types or enums), then the tool's description, then enums. Names and types stay.

    Raises:
        ValueError: names and types alone are over the limit.
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
    if drops > len(steps):
        least = count(text(len(steps)))
        raise ValueError(f"tool {tool.name!r}: names and types alone are {least} tokens; raise the limit of {limit}")
    return Shortened(text(drops), [".".join(map(str, path)) for path in steps[:drops]])


def _fields_of(schema: Schema, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every keyword of ``schema`` and of the schemas inside it, outer before inner, in declared order."""
    start = path or ("parameters",)
    for key, value in schema.items():
        yield (*start, key), value
    for inner, spec in _inner(schema):
        if isinstance(spec, Mapping):
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
            kinds = sorted({_kind_of(item) for item in value})
            holder["type"] = kinds[0] if len(kinds) == 1 else kinds
    return Tool(tool.name, row["description"], row["parameters"])


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
