"""In: tool descriptions made to break a reader. Out: whether each is refused in time, by name, or read rightly."""

import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from toolformer.records import Tool
from toolformer.schemas import fits, read_tool, shorten, tool_from_flat, tool_from_openai, type_to_schema, validate
from toolformer.schemas.type_text import default_in


def tool(**parameters: Any) -> dict[str, Any]:
    return {"name": "f", "description": "", "parameters": parameters}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def doubling(levels: int) -> dict[str, Any]:
    """Definitions of which each holds the next one twice."""
    node = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**node, f"d{levels}": {}}, "properties": {"x": {"$ref": "#/$defs/d0"}}}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (tool(required=[["a"]]), r"required is \['a'\]; there is no such property"),
        (tool(required=[{}]), r"required is \{\}; there is no such property"),
        (tool(required=["n" * 100_000], properties={"m" * 100_000: {}}), "there is no such property"),
        (tool(properties={"x": {"pattern": "(" * 5_000 + ")" * 5_000}}), "no regular expression"),
        (tool(properties={"x": {"pattern": "a{99999999999999}"}}), "no regular expression"),
        (tool(properties={"x": {"patternProperties": {"(": {}}}}), "no regular expression"),
        (tool(properties={"x": {"default": nested(900)}}), "nested more than 256 deep"),
        (tool(properties={"x": {"default": nested(100_000)}}), "nested more than 256 deep"),
        (tool(properties={"x": {"type": "int" + "[]" * 5_000}}), "JSON Schema wants one of"),
        (tool(properties={"x": {"type": "a" + ".a" * 50_000}}), "JSON Schema wants one of"),
        (tool(properties={"x": {"not": {"$ref": "#/nowhere"}}}), "a reference into the same schema is wanted"),
        (tool(properties={"x": {"$dynamicRef": "#a"}}), "put the schema itself there"),
        (tool(**doubling(25)), "more than 1000 references"),
        ({**tool(), "name": "\ud83d"}, "name is '.ud83d'; a text without halves"),
        ({**tool(), "description": "\ud83d"}, "description is '.ud83d'; a text without halves"),
    ],
    ids=range(15),
)
def test_it_is_refused_at_once(row: Any, why: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=why) as caught:
        read_tool(row, "tools.json:3")
    assert str(caught.value).startswith("tools.json:3") and len(str(caught.value)) < 600
    assert time.perf_counter() - started < 5


def test_references_are_put_in_place_wherever_schemas_may_stand() -> None:
    inner = {"not": {"$ref": "#/$defs/a"}, "patternProperties": {"^x": {"type": "dict"}}, "contains": {"type": "int"}}
    read = read_tool(tool(**{"$defs": {"a": {"type": "str"}}, "properties": {"x": inner}}), "x:1").parameters
    assert read["properties"]["x"] == {
        "not": {"type": "string"},
        "patternProperties": {"^x": {"type": "object"}},
        "contains": {"type": "integer"},
    }
    assert Draft202012Validator(read).is_valid({"x": "a"}) is False


def test_what_a_schema_of_another_kind_holds_goes_whole() -> None:
    """Its enum is not looked for again after the schema around it has gone."""
    row = tool(properties={"x": {"type": "string", "if": {"enum": ["a"]}, "then": {"description": "b"}}})
    assert "enum" not in shorten(read_tool(row, "x:1"), len, 110).text


def test_a_tool_made_by_hand_is_held_to_the_same() -> None:
    for parameters in ({"default": nested(900)}, {"default": nested(100_000)}):
        with pytest.raises(ValueError, match="x:1: tool 'f': parameters are nested"):
            validate(Tool("f", "", {"type": "object", **parameters}), "x:1")


@pytest.mark.parametrize(
    "text", [" " * 20_000 + "b", ", " * 20_000, ", default" + " " * 20_000 + "\n\n", "[]" * 20_000]
)
def test_type_texts_take_linear_time(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match="x:1"):
        type_to_schema("a" + text + "!", "x:1")
    default_in("a" + text)
    tool_from_flat({"name": "f", "parameters": {"x": {"type": "str, optional" + text, "description": ""}}}, "x:1")
    assert time.perf_counter() - started < 5


def test_default_texts_that_are_no_values() -> None:
    assert default_in("str, default {[]: 1}") == default_in("str, default " + "(" * 5_000) == {}
    assert default_in("int, default: 3") == default_in("int, default is 3") == {"default": 3}


def test_a_list_of_nothing_is_a_list_of_anything() -> None:
    assert type_to_schema("List[()]") == {"type": "array", "items": {}}


def test_long_enums_take_linear_time() -> None:
    started = time.perf_counter()
    values = [*map(str, range(10_000)), *(f"k{i}" for i in range(10_000))]
    read = tool_from_openai(tool(properties={"x": {"type": "integer", "enum": values}}), "x:1")
    assert len(read.parameters["properties"]["x"]["enum"]) == 20_000
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a*)*b$", "a*a*a*a*a*a*a*a*b$"])
def test_patterns_are_matched_in_linear_time(pattern: str) -> None:
    read = read_tool(tool(properties={"x": {"type": "string", "pattern": pattern}}), "x:1")
    started = time.perf_counter()
    assert not fits(read, {"x": "a" * 5_000 + "!"})
    assert time.perf_counter() - started < 5


def test_patterns_judge_as_they_should() -> None:
    read = read_tool(tool(properties={"x": {"pattern": "^[a-z]+$"}, "y": {"pattern": "^(?=a)"}}), "x:1")
    assert fits(read, {"x": "abc", "y": "b"}) and fits(read, {"x": 3}) and not fits(read, {"x": "ABC"})
    names = tool(patternProperties={"^x": {"type": "integer"}}, additionalProperties=False)
    assert fits(read_tool(names, "x:1"), {"x": "not judged"})
