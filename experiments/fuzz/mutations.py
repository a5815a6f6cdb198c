"""In: a random generator and a valid text, JSON value or file. Out: the same, broken in a way worth trying."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

NASTY = (
    *("", " ", "\0", "\ud83d", "\u202e", "\ufeff", "\u2028", "e\u0301", "\u00e9", "\U0001f600", "__proto__", "{}"),
    *('"', "\\", "\n", "</tool_call>", "<tool_call>", "<script>", "../x", "NaN", "x" * 300, "(a+)+$", "(" * 300),
    *("a{99999999999999999999}", "(?=a)b", "[", "#/$defs/a", "#", "#/properties", "List[int]", "str, optional"),
    *("int" + "[]" * 40, "Optional[Union[int, str]]", "object", "string", "integer", "array", "null", "Literal['a']"),
)
NUMBERS = (0, -1, 1, 2, 7, 65, 10**9, 10**30, -(2**63), 0.1, -0.0, 1e308, 5e-324, float("nan"), float("inf"))
KEYWORDS = (
    *("type", "properties", "required", "items", "prefixItems", "additionalProperties", "enum", "const", "anyOf"),
    *("oneOf", "allOf", "not", "if", "then", "else", "$ref", "$defs", "definitions", "pattern", "patternProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "minItems", "maxItems", "minLength", "multipleOf", "uniqueItems"),
    *("default", "format", "contains", "propertyNames", "dependentSchemas", "$id", "$schema", "$dynamicRef"),
    *("name", "description", "parameters", "inputSchema", "function", "arguments", "role", "content", "tool_calls"),
    *("id", "reply", "stratum", "calls", "model_type", "num_hidden_layers", "vocab_size", "auto_map", "dtype"),
)
SCRAPS = (
    *('{"', '": ', ", ", "{", "}", "[", "]", '"', "\\u", "\\ud83d", "\\", "NaN", "-Infinity", "1e999", "9" * 30, "01"),
    *("-", "null", "true", '"name"', '"arguments"', "<tool_call>", "</tool_call>", "<tool_call", "\n", " ", "\t", "\r"),
    *("\x1c", "\u00a0", "\u2003", "\ufeff", "\0", "\ud800", "\U0001f600", "e\u0301", "<|im_end|>"),
)


def scalar(rng: Random) -> Any:
    """A leaf that a reader might stumble over."""
    return rng.choice((rng.choice(NASTY), rng.choice(NUMBERS), rng.choice((None, True, False))))


def nested(rng: Random, value: Any) -> Any:
    """``value`` inside many lists or objects; now and then more of them than Python can recurse into."""
    for _ in range(rng.choice((1, 3, 20, 63, 64, 65, 70, 200)) if rng.random() < 0.98 else 5_000):
        value = [value] if rng.random() < 0.5 else {rng.choice(("a", "items", "properties", "not")): value}
    return value


def other(rng: Random, value: Any) -> Any:
    """Something to stand in the place of ``value``."""
    kind = rng.randrange(8)
    if kind < 4:
        return scalar(rng)
    if kind == 4:
        return rng.choice(([], {}, [value], {"a": value}, [value, value], {"$ref": rng.choice(NASTY)}))
    if kind == 5 and rng.random() < 0.2:
        return nested(rng, value)
    if kind == 5 and rng.random() < 0.02:
        return rng.choice(([value] * 3_000, list(range(3_000)), {f"k{i}": value for i in range(3_000)}))
    if isinstance(value, str):
        return rng.choice((text(rng, value), value * rng.choice((2, 9, 400)), value.upper(), [value]))
    return copy.copy(value) if kind == 6 else {rng.choice(KEYWORDS): value}


def new_key(rng: Random) -> str:
    """A key that means something to some reader, or that none expects."""
    return rng.choice(KEYWORDS if rng.random() < 0.8 else NASTY)


def containers(value: Any) -> list[Any]:
    """Every list and object inside ``value``, itself included; not below what is nested beyond reason."""
    found, queue = [], [value]
    while queue and len(found) < 2_000:
        here = queue.pop()
        if isinstance(here, dict | list):
            found.append(here)
            queue += here.values() if isinstance(here, dict) else here
    return found


def json_value(rng: Random, value: Any) -> Any:
    """Changes ``value`` in place at one to three places; returns it (or what took its place)."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [place for place in containers(value) if place]
        if not places or rng.random() < 0.01:
            return other(rng, value)
        place = rng.choice(places)
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        what = rng.randrange(6)
        if what == 0:
            del place[key]
        elif what == 1 and isinstance(place, dict):
            place[new_key(rng)] = place[key] if rng.random() < 0.3 else other(rng, place[key])
        elif what == 2 and isinstance(place, list):
            place.insert(key, other(rng, place[key]))
        elif what == 3 and isinstance(place, dict):
            place[new_key(rng)] = place.pop(key)
        else:
            place[key] = other(rng, place[key])
    return value


def text(rng: Random, seed: str) -> str:
    """``seed`` with one to four edits: cut, doubled, moved, scraps put in or over."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        a, b = sorted((rng.randint(0, len(seed)), rng.randint(0, len(seed))))
        if rng.random() < 0.6:
            b = min(b, a + rng.choice((0, 1, 1, 2, 5)))
        what = rng.randrange(6)
        if what == 0:
            seed = seed[:a] + seed[b:]
        elif what == 1:
            seed = seed[:b] + seed[a:]
        elif what == 2:
            seed = seed[:a] + rng.choice(SCRAPS) + seed[b:]
        elif what == 3:
            seed = seed[:a] + rng.choice(SCRAPS) * rng.choice((1, 2, 2, 2, 70, 1_100)) + seed[a:]
        elif what == 4:
            seed = seed[:a] + chr(rng.randrange(rng.choice((127, 0x250, 0x11_0000)))) + seed[b:]
        else:
            seed = seed[b:] + seed[a:b] + seed[:a]
    return seed


def json_text(rng: Random, value: Any) -> str:
    """``value`` as JSON, at times with a key twice, odd spaces, or edits that no value could say."""
    try:
        written = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    except (RecursionError, ValueError):
        written = "[" * 3_000 + "]" * 3_000
    if rng.random() < 0.1:
        at = written.find("{", rng.randint(0, len(written))) + 1
        if at:
            written = written[:at] + f'"{rng.choice(KEYWORDS)}": {json.dumps(scalar(rng))}, ' + written[at:]
    return text(rng, written) if rng.random() < 0.2 else written


def data(rng: Random, seed: bytes) -> bytes:
    """A file with flipped bits, lengths set to extremes, parts cut out, doubled or overwritten."""
    out = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 8))):
        a = rng.randrange(len(out) + 1) if rng.random() < 0.7 else rng.randrange(min(len(out), 64) + 1)
        size = rng.choice((1, 2, 8, 64, len(out) // 3))
        what = rng.randrange(6)
        if what < 2 and a < len(out):
            out[a] ^= 1 << rng.randrange(8)
        elif what == 2:
            out[a : a + 8] = rng.choice((0, 1, 2**31 - 1, 2**63 - 1, 2**64 - 1, len(out))).to_bytes(8, "little")
        elif what == 3:
            del out[a : a + size]
        elif what == 4:
            out[a:a] = out[a : a + size]
        else:
            del out[a:]
    return bytes(out)
