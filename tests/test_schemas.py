"""In: tool descriptions in all dialects, good and broken, and real ones. Out: schemas, clear errors, typed equality."""

import gzip
import itertools
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer.records import Tool, ToolCall
from toolformer.schemas import (
    TYPES,
    is_optional,
    parameters_of,
    required_of,
    shorten,
    tool_from_flat,
    tool_from_lists,
    tool_from_mcp,
    tool_from_openai,
    type_to_schema,
    validate,
    values_equal,
    values_equal_lenient,
    without_defaults,
)

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


# --- dialects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str", STRING),
        ("str, optional", STRING),
        ("str, optional, default 'London'", STRING),
        ("Optional[int]", INTEGER),
        ("int | None", {"type": ["integer", "null"]}),
        ("typing.List[int]", {"type": "array", "items": INTEGER}),
        ("List[List[float]]", {"type": "array", "items": {"type": "array", "items": NUMBER}}),
        ("List[Union[int, float]]", {"type": "array", "items": NUMBER}),
        ("Union[str, int]", {"type": ["string", "integer"]}),
        ("Union[str, List[str]]", {"anyOf": [STRING, {"type": "array", "items": STRING}]}),
        ("Union[int, any]", {}),
        ("Dict", {"type": "object"}),
        ("dict", {"type": "object"}),
        ("Dict[str, int]", {"type": "object", "additionalProperties": INTEGER}),
        ("Tuple[float, float]", {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}),
        ("Tuple[int, ...]", {"type": "array", "items": INTEGER}),
        ("tuple", {"type": "array"}),
        ("set", {"type": "array", "uniqueItems": True}),
        ("Set[int]", {"type": "array", "uniqueItems": True, "items": INTEGER}),
        ("Tuple[str, int]", {"type": "array", "prefixItems": [STRING, INTEGER], "minItems": 2, "maxItems": 2}),
        ("List[Optional[int]]", {"type": "array", "items": {"type": ["integer", "null"]}}),
        ("STRING", STRING),
        ("NUMBER", NUMBER),
        ("BOOLEAN", {"type": "boolean"}),
        ("DATE (YYYY-MM-DD)", {"type": "string", "format": "date"}),
        ("TIME (24-hour HH:MM)", {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}),
        ("char", {"type": "string", "minLength": 1, "maxLength": 1}),
        ("long", INTEGER),
        ("double", NUMBER),
        ("HashMap", {"type": "object"}),
        ("Array", {"type": "array"}),
        ("float", NUMBER),
        ("any", {}),
        ("", {}),
        ("bool", {"type": "boolean"}),
        ("None", {"type": "null"}),
        ("Callable[[float], float]", STRING),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("ArrayList<String>", {"type": "array", "items": STRING}),
        ("HashMap<String, Integer>", {"type": "object", "additionalProperties": INTEGER}),
        ("String[]", {"type": "array", "items": STRING}),
        *((name, {"type": name}) for name in TYPES),
    ],
)
def test_type_text(text: str, schema: dict[str, Any]) -> None:
    assert type_to_schema(text) == schema
    jsonschema.Draft202012Validator.check_schema(type_to_schema(text))


@pytest.mark.parametrize(
    "text", ["strng", "List[", "Foo", "List[Foo]", "1 + 1", "lambda: 0", "[" * 5000, "a.b", "x(y)"]
)
def test_unknown_type_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="^file:3 is .*; JSON Schema wants one of") as error:
        type_to_schema(text, "file:3")
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'string'"):
        type_to_schema("strng")


def test_optional_is_read_from_the_text() -> None:
    assert [is_optional(t) for t in ("int, optional", "Optional[int]", "int, default 3", "int", "Tuple[int, int]")] == [
        True,
        True,
        True,
        False,
        False,
    ]


BARE = {
    "name": "book",
    "description": "Book a table.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where"}, "seats": {"type": "integer", "default": 2}},
        "required": ["city"],
    },
}
BOOK = Tool(BARE["name"], BARE["description"], BARE["parameters"])


def test_all_dialects_give_the_same_tool() -> None:
    python = json.loads(json.dumps(BARE).replace('"object"', '"dict"').replace('"string"', '"str"'))
    mcp = {**{k: v for k, v in BARE.items() if k != "parameters"}, "inputSchema": BARE["parameters"], "title": "Book"}
    flat = {
        **BARE,
        "parameters": {"city": {"type": "str", "description": "Where"}, "seats": {"type": "int", "default": 2}},
    }
    for tool in (
        tool_from_openai(BARE, "x"),
        tool_from_openai({"type": "function", "function": BARE}, "x"),
        tool_from_openai(python, "x"),
        tool_from_mcp(mcp, "x"),
        tool_from_flat(flat, "x"),
    ):
        assert (tool.text, tool.id) == (BOOK.text, BOOK.id)
    assert parameters_of(BOOK) == BARE["parameters"]["properties"]
    assert required_of(BOOK) == ("city",)


def one_parameter(**spec: Any) -> dict[str, Any]:
    tool = tool_from_openai({"name": "f", "parameters": {"type": "dict", "properties": {"x": spec}}}, "x")
    return parameters_of(tool)["x"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"type": "boolean", "enum": ["True", "False"]}, {"type": "boolean", "enum": [True, False]}),
        (
            {"type": "integer", "enum": ["1", "2", "any"], "default": "1"},
            {"type": ["integer", "string"], "enum": [1, 2, "any"], "default": 1},
        ),
        ({"type": "integer", "enum": [1, "1"]}, {"type": "integer", "enum": [1]}),
        ({"type": "float", "enum": [1, 2.5]}, {"type": "number", "enum": [1, 2.5]}),
        ({"type": "integer", "default": "dontcare"}, {"type": "integer", "default": "dontcare"}),
        ({"type": "string", "default": "10"}, {"type": "string", "default": "10"}),
        ({"type": "number", "default": "Infinity"}, {"type": "number", "default": "Infinity"}),
        ({"type": "int", "nullable": True, "enum": [1]}, {"type": ["integer", "null"], "enum": [1, None]}),
        ({"anyOf": [STRING, INTEGER], "nullable": True}, {"anyOf": [STRING, INTEGER, {"type": "null"}]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        ({"type": "int", "minimum": 0, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 0}),
        ({"type": "int", "maximum": 9, "exclusiveMaximum": False}, {"type": "integer", "maximum": 9}),
        ({"type": "array", "enum": ["a"]}, {"type": "array", "items": {"enum": ["a"]}}),
        ({"type": "array", "items": {"type": "str"}, "enum": ["a"]},
         {"type": "array", "items": {"type": "string", "enum": ["a"]}}),
        ({"type": "array", "enum": [["a"], ["b"]]}, {"type": "array", "enum": [["a"], ["b"]]}),
        ({"type": "str", "choices": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"type": "str", "examples": "a"}, {"type": "string", "examples": ["a"]}),
        ({"type": "dict", "required": ["n"]}, {"type": "object", "required": ["n"], "properties": {"n": {}}}),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_read_as_it_is_meant(written: dict[str, Any], read: dict[str, Any]) -> None:
    assert one_parameter(**written) == read
    assert one_parameter(**read) == read  # reading twice changes nothing


def test_a_default_in_the_type_text_is_kept() -> None:
    flat = {"name": "f", "parameters": {"city": {"type": "str, optional, default 'Bern'"}, "n": {"type": "int"}}}
    tool = tool_from_flat(flat, "x")
    assert parameters_of(tool) == {"city": {"type": "string", "default": "Bern"}, "n": INTEGER}
    assert required_of(tool) == ("n",)


def test_lists_of_parameters() -> None:
    row = {
        "name": "f",
        "required_parameters": [{"name": "id", "type": "NUMBER", "description": "Which", "default": "7"}],
        "optional_parameters": [
            {"name": "sort", "type": "STRING", "description": "", "default": ""},
            {"name": "id", "type": "STRING", "description": "again", "default": ""},
        ],
    }
    tool = tool_from_lists(row, "x")
    assert parameters_of(tool) == {
        "id": {"type": "number", "description": "Which", "default": 7},
        "sort": {"type": "string", "description": ""},
    }
    assert required_of(tool) == ("id",)
    with pytest.raises(ValueError, match=r"x: optional_parameters\[0\] is 'id'; an object with name and type"):
        tool_from_lists({"name": "f", "optional_parameters": ["id"]}, "x")


def test_a_tool_without_parameters() -> None:
    for row in ({"name": "ping"}, {"name": "ping", "parameters": None}, {"name": "ping", "parameters": {}}):
        tool = tool_from_openai(row, "x")
        assert (parameters_of(tool), required_of(tool)) == ({}, ())


def test_local_references_are_put_in_place() -> None:
    point = {"type": "object", "properties": {"x": NUMBER}, "required": ["x"]}
    schema = {
        "$defs": {"Point": point},
        "properties": {
            "at": {"$ref": "#/$defs/Point", "description": "Where"},
            "all": {"items": {"$ref": "#/$defs/Point"}},
        },
    }
    tool = tool_from_mcp({"name": "go", "inputSchema": schema}, "x")
    assert parameters_of(tool) == {"at": {**point, "description": "Where"}, "all": {"items": point}}
    assert "$defs" not in tool.parameters


# --- errors -----------------------------------------------------------------------------------------------------------


def broken(**change: Any) -> dict[str, Any]:
    return {**BARE, "parameters": {**BARE["parameters"], **change}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("book", "tool is 'book'"),
        ({"description": "x"}, "name is None"),
        ({"name": 3}, "name is 3"),
        ({"name": "  "}, "name is '  '"),
        ({"name": "f", "description": ["x"]}, "description is ['x']"),
        ({"name": "f", "parameters": [1]}, "parameters is [1]"),
        ({"name": "f", "parameters": {"type": "string"}}, "parameters is {'type': 'string'"),
        (broken(type="objekt"), "parameters.type is 'objekt'"),
        (broken(properties=["city"]), "parameters.properties is ['city']"),
        (broken(properties={"city": "string"}), "parameters.properties.city is 'string'"),
        (broken(properties={"city": {"type": "strng"}}), "parameters.properties.city.type is 'strng'"),
        (broken(properties={"city": {"type": 7}}), "parameters.properties.city.type is 7"),
        (broken(properties={"city": {"type": []}}), "parameters.properties.city.type is []"),
        (broken(properties={"city": {"type": "array", "items": 3}}), "parameters.properties.city.items is 3"),
        (broken(required=["cty"]), "parameters.required is 'cty'; there is no such property; did you mean 'city'?"),
        (broken(required="city"), "parameters.required is 'city'"),
        (broken(required=True), "parameters.required is True"),
        (broken(required=["city", "city"]), "name each property once"),
        (broken(properties={"city": {"enum": []}}), "parameters.properties.city.enum is []"),
        (broken(properties={"city": {"enum": "a"}}), "parameters.properties.city.enum is 'a'"),
        (broken(properties={"city": {"pattern": "("}}), "parameters.properties.city.pattern is '('"),
        (broken(properties={"city": {"minimum": "1"}}), "parameters.properties.city.minimum is '1'"),
        (broken(properties={"city": {"$ref": "#/$defs/City"}}), "parameters.properties.city.$ref is '#/$defs/City'"),
        (broken(properties={"city": {"$ref": "http://x/y"}}), "$ref is 'http://x/y'"),
        (broken(properties={"city": {"$ref": "#/properties/city"}}), "does it refer to itself"),
        (broken(properties={"city": {"default": float("nan")}}), "parameters are no JSON"),
    ],
)
def test_a_broken_tool_is_refused_with_place_field_and_value(row: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        tool_from_openai(row, "tools.json:12")
    message = str(error.value)
    assert message.startswith("tools.json:12: ")
    assert said in message or said in message.replace("\\'", "'")
    assert "\n" not in message and len(message) < 400


def test_validate_wants_json_schema_types() -> None:
    validate(BOOK, "x")
    with pytest.raises(
        ValueError, match="x: tool 'f': parameters.properties.a.type is 'str'; .* did you mean 'string'"
    ):
        validate(Tool("f", "", {"type": "object", "properties": {"a": {"type": "str"}}}), "x")
    with pytest.raises(ValueError, match=r"\$ref"):
        validate(Tool("f", "", {"type": "object", "properties": {"a": {"$ref": "#/x"}}}), "x")


ODD = ["", "string", 1, True, None, [], ["a"], ["a", "a"], {}, {"a": {}}, {"a": STRING}, [1, 1], [STRING]]


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("key", ["type", "properties", "required", "items", "enum", "description", "default", "title"])
def test_validate_refuses_whatever_json_schema_refuses(key: str, inner: bool) -> None:
    """It asks JSON Schema's own schema only where its own checks leave something open."""
    for value in ODD:
        schema = {"properties": {"a": {}}, key: value}
        parameters: Any = {"type": "object", "properties": {"b": schema}} if inner else {"type": "object", **schema}
        if not jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA).is_valid(parameters):
            with pytest.raises(ValueError, match="x: tool 'f': "):
                validate(Tool("f", "", parameters), "x")


def test_flat_parameters_that_are_none() -> None:
    with pytest.raises(ValueError, match="x:1: parameters is 3"):
        tool_from_flat({"name": "f", "parameters": 3}, "x:1")
    with pytest.raises(ValueError, match="x:1: parameters.a is 'int'"):
        tool_from_flat({"name": "f", "parameters": {"a": "int"}}, "x:1")


# --- equality ---------------------------------------------------------------------------------------------------------

WITH_DEFAULT = {"type": "object", "properties": {"n": {**INTEGER, "default": 2}, "k": STRING}}


@pytest.mark.parametrize(
    ("gold", "predicted", "schema", "same"),
    [
        (1, 1, INTEGER, True),
        (1, 1.0, INTEGER, False),
        (1, 1.0, NUMBER, True),
        (1, 1.0, {"type": ["number", "null"]}, True),
        (1, 1.0, {"anyOf": [STRING, NUMBER]}, True),
        (1, 1.0, {}, False),
        (1, True, NUMBER, False),
        (0, False, {}, False),
        (True, True, {}, True),
        (1, "1", {}, False),
        (2**53 + 1, float(2**53), NUMBER, False),
        ("é", unicodedata.normalize("NFD", "é"), STRING, True),
        ("a", "A", STRING, False),
        ("a", "a ", STRING, False),
        (None, None, STRING, True),
        (None, "", STRING, False),
        (None, 0, {}, False),
        ([1, 2], [1, 2], {}, True),
        ([1, 2], [2, 1], {}, False),
        ([1], [1, 1], {}, False),
        ([1], [1.0], {"items": NUMBER}, True),
        ([1, 1], [1, 1.0], {"prefixItems": [INTEGER, NUMBER]}, True),
        ([1, 1], [1.0, 1], {"prefixItems": [INTEGER, NUMBER]}, False),
        ([], {}, {}, False),
        ({"a": 1}, {"a": 1}, {}, True),
        ({"a": 1}, {"b": 1}, {}, False),
        ({"a": None}, {}, {}, False),
        ({"a": 1}, {"a": 1.0}, {"additionalProperties": NUMBER}, True),
        ({"n": 2}, {}, WITH_DEFAULT, True),
        ({}, {"n": 2}, WITH_DEFAULT, True),
        ({"n": 3}, {}, WITH_DEFAULT, False),
        ({"n": 2}, {}, {**WITH_DEFAULT, "required": ["n"]}, False),
        ([{"n": 2}], [{}], {"items": WITH_DEFAULT}, True),
        ({"o": {"n": 2}}, {"o": {}}, {"properties": {"o": WITH_DEFAULT}}, True),
    ],
)
def test_typed_equality(gold: Any, predicted: Any, schema: dict[str, Any], same: bool) -> None:
    assert values_equal(gold, predicted, schema) is same
    assert values_equal(predicted, gold, schema) is same
    assert values_equal_lenient(gold, predicted, schema) or not same


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ("New York", "new-york"),
        ("April 1, 2024", "april 1 2024"),
        ("it's", 'IT"S'),
        ("a/b_c*d^e.", "abcde"),
        (["A "], ["a"]),
    ],
)
def test_lenient_equality_follows_bfcl(gold: Any, predicted: Any) -> None:
    assert values_equal_lenient(gold, predicted, {}) and not values_equal(gold, predicted, {})
    assert not values_equal_lenient("a", "b", {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 0.5]) | st.sampled_from(["", "a", "A"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("nk"), inner, max_size=2),
    max_leaves=5,
)


@given(json_values, json_values, st.sampled_from([{}, NUMBER, WITH_DEFAULT, {"items": WITH_DEFAULT}]))
def test_equality_is_reflexive_and_symmetric(a: Any, b: Any, schema: dict[str, Any]) -> None:
    assert values_equal(a, a, schema)
    assert values_equal(a, b, schema) == values_equal(b, a, schema)
    assert not values_equal(a, b, schema) or values_equal_lenient(a, b, schema)
    if isinstance(a, dict):
        assert values_equal(a, without_defaults(a, schema), schema)


# --- shortening -------------------------------------------------------------------------------------------------------

LONG = Tool(
    "book_table",
    "Book a table in a restaurant.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "City of the restaurant"},
            "kind": {"enum": ["thai", "greek"], "description": "Kind of food", "default": "thai"},
            "at": {
                "type": "object",
                "description": "Time",
                "properties": {"description": {"type": "string", "description": "Inner", "examples": ["noon"]}},
                "required": ["description"],
            },
        },
        "required": ["city"],
    },
)
ORDER = [
    "parameters.properties.at.properties.description.description",
    "parameters.properties.at.description",
    "parameters.properties.kind.description",
    "parameters.properties.city.description",
    "parameters.properties.at.properties.description.examples",
    "parameters.properties.kind.default",
    "description",
    "parameters.properties.kind.enum",
]


def test_shortening_says_all_that_it_drops_in_the_documented_order() -> None:
    assert shorten(LONG, len, len(LONG.text)) == shorten(LONG, len, 10**6)
    seen = []
    for limit in itertools.count(len(LONG.text), -1):
        short = shorten(LONG, len, limit)
        if len(short.text) > limit:
            break
        seen.append(short)
        row = json.loads(short.text)
        assert list(row["parameters"]["properties"]) == ["city", "kind", "at"] and row["name"] == "book_table"
        assert row["parameters"]["properties"]["at"]["properties"]["description"]["type"] == "string"
    assert {tuple(short.dropped) for short in seen} == {tuple(ORDER[:n]) for n in range(len(ORDER) + 1)}
    assert (seen[0].text, seen[0].dropped) == (LONG.text, [])
    assert json.loads(seen[-1].text)["parameters"]["properties"]["kind"] == {"type": "string"}
    assert json.loads(LONG.text)["description"]  # the tool itself is as it was


def test_names_and_types_stay_also_over_the_limit() -> None:
    short = shorten(LONG, len, 50)
    assert len(short.text) > 50 and short.dropped == ORDER
    assert list(json.loads(short.text)["parameters"]["properties"]) == ["city", "kind", "at"]


# --- real schemas -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("TOOLFORMER_DATA", "")
    if not folder:
        pytest.skip("TOOLFORMER_DATA is not set: no real rows to try")
    return Path(folder)


def lines(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def round_trip(tool: Tool) -> None:
    again = tool_from_openai(json.loads(tool.text), "again")
    assert (again.text, again.id) == (tool.text, tool.id)
    short = shorten(tool, len, max(len(tool.text) // 2, 200 + 90 * tool.text.count('"type"')))
    assert json.loads(short.text)["parameters"]["properties"].keys() == parameters_of(tool).keys()


@pytest.mark.parametrize("name", ["simple_python", "multiple", "live_multiple", "simple_java", "simple_javascript"])
def test_bfcl_schemas(data: Path, name: str) -> None:
    path = next((data / "bfcl-v4").glob(f"BFCL_v4_{name}.json*"))
    tools = 0
    for row in itertools.islice(lines(path), 0, None, 12):
        for function in row["function"]:
            round_trip(tool_from_openai(function, f"{path.name}: {row['id']}"))
            tools += 1
    assert tools >= 4


def test_bfcl_values_equal_themselves_and_not_their_neighbours(data: Path) -> None:
    folder = data / "bfcl-v4"
    for row, gold in zip(
        lines(folder / "BFCL_v4_multiple.json"), lines(folder / "possible_answer/BFCL_v4_multiple.json"), strict=True
    ):
        ((name, arguments),) = gold["ground_truth"][0].items()
        tool = next(tool_from_openai(f, row["id"]) for f in row["function"] if f["name"] == name)
        for key, accepted in arguments.items():
            for value in accepted:
                assert values_equal(value, json.loads(json.dumps(value)), parameters_of(tool)[key])
                assert not values_equal(value, [value], parameters_of(tool)[key])


def test_sgd_schemas_and_calls(data: Path) -> None:
    services = json.loads((data / "sgd" / "train" / "schema.json").read_text(encoding="utf-8"))
    tools: dict[tuple[str, str], Tool] = {}
    for service in services:
        slots = {slot["name"]: slot for slot in service["slots"]}
        for intent in service["intents"]:
            properties = {}
            for name in [*intent["required_slots"], *intent["optional_slots"]]:
                properties[name] = {"type": "string", "description": slots[name]["description"]}
                if slots[name]["is_categorical"]:
                    properties[name]["enum"] = slots[name]["possible_values"]
                if name in intent["optional_slots"]:
                    properties[name]["default"] = intent["optional_slots"][name]
            schema = {"type": "object", "properties": properties, "required": intent["required_slots"]}
            tool = Tool(intent["name"], intent["description"], schema)
            validate(tool, service["service_name"])
            round_trip(tool)
            tools[service["service_name"], intent["name"]] = tool
    path = data / "sgd" / "train" / "dialogues_001.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        frames = [(f["service"], f["service_call"]) for d in json.load(file) for t in d["turns"] for f in t["frames"]
                  if "service_call" in f]  # fmt: skip
    assert len(frames) > 50
    for service, call in frames:
        schema = tools[service, call["method"]].parameters
        bare = without_defaults(call["parameters"], schema)
        assert values_equal(call["parameters"], bare, schema) and bare.keys() <= call["parameters"].keys()
        assert set(call["parameters"]) <= set(schema["properties"])


def test_calls_are_compared_by_schema_not_by_text() -> None:
    gold, predicted = ToolCall("f", {"x": 1}), ToolCall("f", {"x": 1.0})
    assert values_equal(gold.arguments, predicted.arguments, {"properties": {"x": NUMBER}})
    assert not values_equal(gold.arguments, predicted.arguments, {"properties": {"x": INTEGER}})
