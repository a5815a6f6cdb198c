"""In: records of all shapes. Out: they survive JSON, and a tool's id is its schema and nothing else."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer.records import (
    Example,
    Message,
    Tool,
    ToolCall,
    call_from_json,
    call_to_json,
    example_from_json,
    example_to_json,
    tool_from_json,
    tool_to_json,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
maps = st.dictionaries(st.text(max_size=4), values, max_size=3)
calls = st.builds(
    ToolCall,
    name=st.text(max_size=5),
    arguments=maps,
    accepted=st.dictionaries(st.text(max_size=4), st.lists(values, max_size=2), max_size=2),
    omittable=st.lists(st.text(max_size=4), max_size=2).map(tuple),
)
texts = st.text(max_size=8)
examples = st.builds(
    Example,
    id=texts,
    messages=st.lists(st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=texts)).map(tuple),
    tools=st.lists(texts, max_size=3).map(tuple),
    calls=st.lists(calls, max_size=2).map(tuple),
    reply=texts,
    source=texts,
    stratum=texts,
    pattern=texts,
)


@given(examples)
def test_an_example_survives_json(example: Example) -> None:
    assert example_from_json(json.loads(json.dumps(example_to_json(example)))) == example


@given(calls)
def test_a_call_survives_json(call: ToolCall) -> None:
    assert call_from_json(json.loads(json.dumps(call_to_json(call)))) == call


@given(st.builds(Tool, name=texts, description=texts, parameters=maps))
def test_a_tool_survives_json_with_its_id(tool: Tool) -> None:
    again = tool_from_json(json.loads(json.dumps(tool_to_json(tool))))
    assert (again, again.id, again.text) == (tool, tool.id, tool.text)


def test_one_name_with_two_schemas_is_two_tools() -> None:
    first = Tool("search", "Search.", {"type": "object", "properties": {"q": {"type": "string"}}})
    second = dataclasses.replace(first, parameters={"type": "object", "properties": {"q": {"type": "integer"}}})
    assert first.id != second.id
    assert len({first, second, dataclasses.replace(first)}) == 2


def test_the_order_of_properties_is_part_of_a_tool() -> None:
    one = Tool("f", "", {"type": "object", "properties": {"a": {}, "b": {}}})
    other = Tool("f", "", {"type": "object", "properties": {"b": {}, "a": {}}})
    assert one.text.index('"a"') < one.text.index('"b"')
    assert one.id != other.id


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Tool("f", "", {}).name = "g"  # ty: ignore[invalid-assignment]
