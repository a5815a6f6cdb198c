"""In: rows with tools of every shape. Out: whether names, and nothing but names, are replaced, in gold alike."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from data.tiny_rows import COUNT, PIZZA, TEXT, TOOLS, TRAIN, WEATHER, row, rows, tool

from toolformer.data.masking import Rows, identifier, mask_call, mask_rows, mask_tool, mask_tools
from toolformer.data.toolworld import ToolWorld
from toolformer.records import Tool, ToolCall
from toolformer.schemas import validate

NAME = re.compile(r"([bdfgklmnprstvz][aeiou]){2,3}")
DEEP = tool(
    "plan",
    "Plan something.",
    {
        "when": {"anyOf": [TEXT, {"type": "object", "properties": {"day": TEXT, "hour": COUNT}, "required": ["day"]}]},
        "who": {"type": "array", "items": {"type": "array", "items": {"type": "object", "properties": {"day": TEXT}}}},
        "prices": {"type": "object", "additionalProperties": {"type": "object", "properties": {"cents": COUNT}}},
        "pair": {"type": "array", "prefixItems": [TEXT, {"type": "object", "properties": {"left": TEXT}}]},
        "mode": {"title": "Mode", "enum": [{"day": "x"}, "day"], "properties": {"day": TEXT}},
        "title": TEXT,
    },
    "when",
    "title",
)
PLANNED = ToolCall(
    "plan",
    {
        "when": {"day": "Monday", "hour": 3},
        "who": [[{"day": "title"}]],
        "prices": {"tea": {"cents": 250}, "hour": {"cents": 1}},
        "pair": ["left", {"left": "left"}],
        "mode": {"day": "x"},
        "title": "day",
    },
    {"when": ["Monday", {"day": "Mon", "hour": 3}]},
    ("mode",),
)
DEEP_ROW = row("plan", ["plan it"], [PLANNED], "", DEEP, WEATHER)


def masked(seed: int = 0, share: float = 1.0, these: Rows | None = None) -> Rows:
    return mask_rows([*rows(), DEEP_ROW] if these is None else these, share, random.Random(seed))


def names(schema: Any) -> set[str]:
    """All property names of a schema, wherever they stand."""
    found: set[str] = set()
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            found |= set(schema["properties"])
        for value in schema.values():
            found |= names(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= names(value)
    return found


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, list) else [value]


def without_names(schema: Any) -> Any:
    """A schema with its properties in a row: what must not change."""
    if isinstance(schema, list):
        return [without_names(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: without_names(v) for k, v in schema.items() if k not in ("properties", "required", "title")}
    for key in ("default", "enum"):
        if key in out:
            out[key] = leaves(out[key])
    if isinstance(schema.get("properties"), dict):
        out["properties"] = [without_names(v) for v in schema["properties"].values()]
        out["required"] = [list(schema["properties"]).index(name) for name in schema.get("required", [])]
    return out


def test_every_name_goes_and_nothing_else():
    for (_, before), (_, after) in zip([*rows(), DEEP_ROW], masked(), strict=True):
        for old, new in zip(before, after, strict=True):
            validate(new, "masked")
            assert new.id != old.id and new.description == old.description
            assert all(NAME.fullmatch(name) for name in {new.name, *names(new.parameters)})
            assert not names(new.parameters) & names(old.parameters) and new.name != old.name
            assert without_names(new.parameters) == without_names(old.parameters)
    plan = json.dumps(masked()[-1][1][0].parameters)
    assert "Mode" not in plan, "a title gives the name away"


def test_gold_is_renamed_alike():
    for (old, _), (new, tools) in zip([*rows(), DEEP_ROW], masked(), strict=True):
        assert (new.id, new.messages, new.reply, new.source) == (old.id, old.messages, old.reply, old.source)
        assert new.tools == tuple(tool.id for tool in tools) and len({tool.name for tool in tools}) == len(tools)
        assert len(new.calls) == len(old.calls)
        for before, after in zip(old.calls, new.calls, strict=True):
            schema = next(tool for tool in tools if tool.name == after.name).parameters
            jsonschema.validate(after.arguments, {**schema, "additionalProperties": False})
            assert leaves(after.arguments) == leaves(before.arguments)
            assert len(after.arguments) == len(before.arguments)
            assert {k: leaves(v) for k, v in after.accepted.items()}.keys() <= set(schema["properties"])
            assert [leaves(v) for v in after.accepted.values()] == [leaves(v) for v in before.accepted.values()]
            for key, values in after.accepted.items():
                for value in values:
                    jsonschema.validate(value, schema["properties"][key])
            assert set(after.omittable) <= set(after.arguments) and len(after.omittable) == len(before.omittable)


def test_nested_keys_by_hand():
    found = mask_tool(DEEP, random.Random(1), set())
    call, properties = mask_call(PLANNED, found), found.tool.parameters["properties"]
    when, who, prices, pair, mode, title = properties
    assert list(call.arguments) == [when, who, prices, pair, mode, title]
    day, hour = properties[when]["anyOf"][1]["properties"]
    assert call.arguments[when] == {day: "Monday", hour: 3} and properties[when]["anyOf"][1]["required"] == [day]
    assert call.accepted == {when: ["Monday", {day: "Mon", hour: 3}]} and call.omittable == (mode,)
    (other,) = properties[who]["items"]["items"]["properties"]
    assert call.arguments[who] == [[{other: "title"}]]
    (cents,) = properties[prices]["additionalProperties"]["properties"]
    assert call.arguments[prices] == {"tea": {cents: 250}, "hour": {cents: 1}}, "keys of a map are values"
    (left,) = properties[pair]["prefixItems"][1]["properties"]
    assert call.arguments[pair] == ["left", {left: "left"}]
    (inner,) = properties[mode]["properties"]
    assert properties[mode]["enum"] == [{inner: "x"}, "day"] and call.arguments[mode] == {inner: "x"}
    assert call.arguments[title] == "day" and found.tool.parameters["required"] == [when, title]
    address = list(mask_tool(PIZZA, random.Random(1), set()).tool.parameters["properties"].values())[1]
    street, city = address["properties"]
    assert address["default"] == {street: "Main Street 1", city: "Bern"}


def test_a_function_of_the_seed():
    assert masked(3) == masked(3)
    assert [t.id for _, tools in masked(3) for t in tools] != [t.id for _, tools in masked(4) for t in tools]


def test_one_tool_is_masked_alike_in_all_rows():
    new: dict[str, set[str]] = {}
    for (_, before), (_, after) in zip(rows(), masked(these=rows()), strict=True):
        for old, found in zip(before, after, strict=True):
            new.setdefault(old.id, set()).add(found.id)
    assert all(len(ids) == 1 for ids in new.values())
    assert len({id_ for ids in new.values() for id_ in ids}) == len(TOOLS)


def test_the_share_of_masked_tools():
    assert masked(share=0.0) == [*rows(), DEEP_ROW]
    many = [tool(f"tool_{i}", f"Number {i}.", {"a": TEXT}) for i in range(400)]
    changed = sum(a != b for a, b in zip(many, mask_tools(many, 0.3, random.Random(0)), strict=True))
    assert 80 < changed < 160
    some = masked(share=0.5, seed=1)
    kept = [t for (_, a), (_, b) in zip([*rows(), DEEP_ROW], some, strict=True) for t in a if t in b]
    assert kept and any(NAME.fullmatch(t.name) for _, tools in some for t in tools)
    for example, tools in some:
        assert {call.name for call in example.calls} <= {tool.name for tool in tools}


def test_new_names_are_fresh():
    """No random name is that of another tool or slot: ``date`` for what is no date would mislead."""
    taken = {a + b + c + d for a in "bdfgklmnprstvz" for b in "aeiou" for c in "bdfgklmnprstvz" for d in "aeiou"}
    left = set(random.Random(0).sample(sorted(taken), 3))
    for _ in range(5):
        assert len(identifier(random.Random(0), taken - left)) == 6, "three syllables where two are scarce"
    slots = {name: TEXT for name in ("date", "time", "size", "note")}
    for seed in range(300):
        new = mask_tool(Tool("go", "", {"type": "object", "properties": slots}), random.Random(seed), set()).tool
        assert not set(new.parameters["properties"]) & set(slots)
    many = [tool(f"tool_{i}", f"Number {i}.", {}) for i in range(6000)]
    assert len({t.name for t in mask_tools(many, 1.0, random.Random(0))}) == 6000


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_toolworld(seed: int):
    batch = ToolWorld(seed=seed).batch(seed, batch_size=40, pool_size=24, tools_per_request=6)
    for (old, _), (new, tools) in zip(batch, mask_rows(batch, 1.0, random.Random(seed)), strict=True):
        by_name = {tool.name: tool for tool in tools}
        for before, after in zip(old.calls, new.calls, strict=True):
            assert leaves(after.arguments) == leaves(before.arguments)
            jsonschema.validate(after.arguments, {**by_name[after.name].parameters, "additionalProperties": False})
    assert TRAIN.name not in {tool.name for _, tools in batch for tool in tools}
