"""In: a JSON Schema. Out: a value of it, written as a training target is: keys in the schema's order."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

TEXTS = (
    "",
    "Bern",
    "a b",
    'say "hi"',
    "back\\slash",
    "line\nbreak",
    "caf\u00e9",
    "\U0001f600",
    "1",
    "null",
    "{",
    "<b>",
)


class Unsampled(Exception):
    """The schema says too much for this sampler; nothing is wrong with it."""


def sample(rng: Random, schema: Any, depth: int = 0) -> Any:
    """A value that most likely fits; the caller asks a validator."""
    if not isinstance(schema, Mapping) or depth > 12:
        raise Unsampled
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return sample(rng, rng.choice(schema[key]), depth + 1)
    kind = schema.get("type", "string")
    return _of_kind(rng, kind if isinstance(kind, str) else rng.choice(kind), schema, depth)


def _of_kind(rng: Random, kind: str, schema: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties", {})
        wanted = [key for key in properties if key in schema.get("required", ()) or (depth < 4 and rng.random() < 0.5)]
        return {key: sample(rng, properties[key], depth + 1) for key in wanted}
    if kind == "array":
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", least + 2), least + 2)
        if least > 20 or most < least:
            raise Unsampled
        first = schema.get("prefixItems", [])
        return [
            sample(rng, first[i] if i < len(first) else schema.get("items", {}), depth + 1)
            for i in range(rng.randint(int(least), int(most)))
        ]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", schema.get("exclusiveMinimum", -5)), schema.get("maximum", 1e6)
        return int(low) + rng.randint(0, 9) if kind == "integer" or rng.random() < 0.5 else min(low + 0.5, high)
    return {"string": rng.choice(TEXTS), "boolean": rng.random() < 0.5, "null": None}[kind]
