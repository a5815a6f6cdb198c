"""In: a type in words, as JSON Schema, Python, Java, JavaScript or ToolBench writes it. Out: JSON Schema for it.

``README.md`` beside this file lists what JSON Schema cannot say exactly.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from typing import Any

from toolformer.calls import MAX_DEPTH

TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_WORDS = {
    "string": "str string char character text date datetime time bytes binary enum callable function",
    "integer": "int integer long short byte",
    "number": "float number double decimal",
    "boolean": "bool boolean",
    "array": "list array arraylist tuple set frozenset sequence iterable",
    "object": "dict object hashmap map mapping",
    "null": "none null nonetype",
    "": "any",  # no type at all: JSON Schema's way to say any
}
ALIAS = {word: kind for kind, words in _WORDS.items() for word in words.split()}
_MORE = {  # what a word says beyond its kind
    "char": {"minLength": 1, "maxLength": 1},
    "character": {"minLength": 1, "maxLength": 1},
    "set": {"uniqueItems": True},
    "frozenset": {"uniqueItems": True},
    "binary": {"format": "binary"},
}
_PHRASES = {
    "date (yyyy-mm-dd)": {"type": "string", "format": "date"},
    "time (24-hour hh:mm)": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
}
_OPTIONAL = re.compile(r",\s*(?:optional|required|default)\b")
_DEFAULT = re.compile(r",\s*default")
_SAYS = re.compile(r"^(?:[=:]|is|to)\s*")
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def kind_of(value: Any) -> str:
    """JSON Schema's name for the type of a JSON value."""
    return _KINDS.get(type(value), "null")


def brief(value: Any) -> str:
    """A value in at most 80 characters, for an error."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_optional(text: str) -> bool:
    """Whether Python type text says that the argument may be left out.

    >>> is_optional("str, optional"), is_optional("Optional[int]"), is_optional("List[int]")
    (True, True, False)
    """
    rest = text[len(_without_rest(text)) :]
    return "optional" in rest or "default" in rest or text.strip().startswith(("Optional[", "typing.Optional["))


def default_in(text: str) -> dict[str, Any]:
    """The default that type text states, as a keyword of a schema; none where it states none that can be read.

    >>> default_in("str, optional, default 'London'"), default_in("int, default=3"), default_in("int, optional")
    ({'default': 'London'}, {'default': 3}, {})
    """
    found = _DEFAULT.search(text)
    if found is None:
        return {}
    value = _SAYS.sub("", text[found.end() :].strip(), count=1)
    try:
        return {"default": ast.literal_eval(value)}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return {}


def _without_rest(text: str) -> str:
    found = _OPTIONAL.search(text)
    return text[: found.start()] if found else text


def type_to_schema(text: str, place: str = "type") -> dict[str, Any]:
    """JSON Schema for a type in words: JSON Schema's, Python's (``List[int]``) or Java's (``ArrayList<String>``).

    ``Optional[int]`` as a whole is an argument that may be left out, not one that may be null; inside it may be null.

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
    plain = _without_rest(text).strip()
    if not plain:
        return {}
    if plain.lower() in _PHRASES:
        return dict(_PHRASES[plain.lower()])
    if plain.endswith("[]") and not plain.endswith("[]" * MAX_DEPTH):
        return {"type": "array", "items": type_to_schema(plain[:-2], place)}
    try:
        node = ast.parse(plain.replace("<", "[").replace(">", "]"), mode="eval").body
        if isinstance(node, ast.Subscript) and _name(node.value) == "Optional":
            node = node.slice
        return _from_syntax(node)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        near = difflib.get_close_matches(plain.lower(), ALIAS, n=1)
        hint = f"; did you mean {ALIAS[near[0]] or 'any'!r}?" if near else ""
        known = f"JSON Schema wants one of {', '.join(TYPES)}"
        raise ValueError(f"{place} is {brief(text)}; {known}{hint}") from None


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _from_syntax(node: ast.expr) -> dict[str, Any]:
    """One node of Python's type grammar; ``ValueError`` for anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return union([_from_syntax(node.left), _from_syntax(node.right)])
    if isinstance(node, ast.Constant) and node.value is None:
        return {"type": "null"}
    if not isinstance(node, ast.Subscript):
        return _word(_name(node).lower())
    head = _name(node.value)
    inside = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if head == "Literal":
        values = [ast.literal_eval(item) for item in inside]
        return {"enum": values} if not all(isinstance(v, str) for v in values) else {"type": "string", "enum": values}
    if head in ("Union", "Optional"):
        return union([_from_syntax(item) for item in inside] + [{"type": "null"}] * (head == "Optional"))
    outer = ALIAS.get(head.lower())
    if outer == "string":  # Callable[[float], float]: what it takes is not for a schema to say
        return {"type": "string"}
    if outer == "object":
        return {"type": "object", "additionalProperties": _from_syntax(inside[-1])}
    if outer != "array":
        raise ValueError(head)
    items = [_from_syntax(item) for item in inside if not (isinstance(item, ast.Constant) and item.value is ...)]
    if head.lower() != "tuple" or len(items) < len(inside):
        return {**_word(head.lower()), "items": union(items)}
    alike = all(item == items[0] for item in items)
    each = {"items": items[0]} if alike else {"prefixItems": items}
    return {"type": "array", **each, "minItems": len(items), "maxItems": len(items)}


def _word(word: str) -> dict[str, Any]:
    if word not in ALIAS:
        raise ValueError(word)
    return {"type": ALIAS[word], **_MORE.get(word, {})} if ALIAS[word] else {}


def union(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema that admits what any of ``parts`` admits, as short as it goes."""
    parts = [part for i, part in enumerate(parts) if part not in parts[:i]]
    if not parts or {} in parts:
        return {}
    if {"type": "number"} in parts:
        parts = [part for part in parts if part != {"type": "integer"}]
    if len(parts) == 1:
        return parts[0]
    if all(set(part) == {"type"} for part in parts):
        return {"type": [part["type"] for part in parts]}
    return {"anyOf": parts}


def as_typed(value: Any, kind: str) -> Any:
    """``value`` as one of ``kind`` where it is text that spells exactly one; else as it is.

    >>> as_typed("True", "boolean"), as_typed("10", "integer"), as_typed("dontcare", "integer"), as_typed("1", "string")
    (True, 10, 'dontcare', '1')
    """
    if not isinstance(value, str) or kind in ("string", "null", ""):
        return value
    try:
        read = json.loads(value.lower() if kind == "boolean" else value)
    except (ValueError, RecursionError):
        return value
    fits = kind_of(read) == kind or (kind == "number" and kind_of(read) == "integer")
    return read if fits and not (isinstance(read, float) and read - read != 0) else value  # not NaN, not infinite
