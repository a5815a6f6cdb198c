"""In: a seed. Out: rows of all kinds: right, wrong, missed, extra, broken calls, with defaults and accepted values."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from toolformer.calls import Malformed
from toolformer.metrics import Row
from toolformer.records import Tool, ToolCall

POINT = {"type": "object", "properties": {"k": {"type": "integer"}, "d": {"type": "number", "default": 1}}}
SCHEMA = {
    "type": "object",
    "properties": {
        "i": {"type": "integer"},
        "n": {"type": ["number", "null"]},
        "s": {"type": "string", "default": "a"},
        "l": {"type": "array", "items": {"type": "number"}},
        "o": POINT,
    },
    "required": ["i"],
}
EMPTY = {"type": "object", "properties": {}}
F = Tool("f", "", SCHEMA)
G = Tool("g", "", {**SCHEMA, "properties": {k: SCHEMA["properties"][k] for k in "is"}, "required": []})
OTHER_F = Tool("f", "another f", {**SCHEMA, "required": ["i", "s"]})
H = Tool("h", "", EMPTY)
STRATA = ["small_talk", "near_miss", "tool_missing", "parameter_missing", ""]
VALUES: dict[str, list[Any]] = {
    "i": [1, 2, 1.0, True, "a"],
    "n": [1, 1.0, None, 0.5],
    "s": ["a", "A ", "\u00e9", "e\u0301", 1],
    "l": [[], [1], [1.0, 2], [1, 1]],
    "o": [{}, {"k": 1}, {"k": 1, "d": 1.0}, {"d": 2}],
    "z": [1, "a"],
}


def call(draw: random.Random, name: str, gold: bool) -> ToolCall:
    """A call with up to three arguments from few values, so that hits are common."""
    keys = draw.sample(sorted(VALUES), draw.randint(0, 3))
    if name == "h":
        keys = keys[:1] if draw.random() < 0.2 else []
    arguments = {key: draw.choice(VALUES[key]) for key in keys}
    if not gold:
        return ToolCall(name, arguments)
    accepted = {key: [draw.choice(VALUES[key])] for key in keys if draw.random() < 0.25}
    return ToolCall(name, arguments, accepted, tuple(key for key in keys if draw.random() < 0.2))


def make_row(draw: random.Random) -> Row:
    """A row of any kind: calls right, wrong, missing, extra, broken, of unknown tools; strata; shared requests."""
    tools = [draw.choice([F, OTHER_F]), G, H][: draw.randint(1, 3)]
    names = [tool.name for tool in tools]
    gold = [call(draw, draw.choice(names), True) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
    predicted: list[ToolCall] | Malformed = []
    kind = draw.random()
    if kind < 0.1:
        predicted = Malformed("broken", 0)
    elif kind < 0.3:
        predicted = [ToolCall(c.name, c.arguments) for c in gold]
    elif kind < 0.9:
        for c in gold:
            arguments = {k: draw.choice([v, *VALUES[k]]) for k, v in c.arguments.items() if draw.random() < 0.8}
            predicted.append(ToolCall(c.name, arguments) if draw.random() < 0.8 else call(draw, c.name, False))
        if draw.random() < 0.3:
            predicted.append(call(draw, draw.choice([*names, "unknown"]), False))
        if predicted and draw.random() < 0.3:
            predicted.pop(draw.randrange(len(predicted)))
        draw.shuffle(predicted)
    return Row(gold, predicted, tools, "" if gold else draw.choice(STRATA), draw.choice(["", "", "r1", "r2"]))


def make_rows(seed: int, n: int) -> list[Row]:
    """``n`` rows, a function of the seed."""
    draw = random.Random(seed)
    return [make_row(draw) for _ in range(n)]


seeds = st.integers(0, 2**40)
one_row = seeds.map(lambda seed: make_row(random.Random(seed)))
rows = st.lists(one_row, max_size=6)
