"""In: two values and the schema of their parameter. Out: whether they say the same, by type.

Knows where in a schema a property or an item is described, wherever that stands.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from toolformer.schemas.checking import BRANCHES, Schema, kinds_of


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
        same_kind = type(gold) is type(predicted) or any("number" in kinds_of(part) for part in _parts(schema))
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
    for key in BRANCHES:
        for branch in schema.get(key, ()):
            yield from _parts(branch)


def _is_map(schema: Schema, key: str) -> bool:
    return isinstance(schema.get(key), Mapping)
