"""In: files and functions that describe tools, good and broken. Out: whether every parameter is there, errors clear."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import yaml

from toolformer.data.sources import openapi, own
from toolformer.data.sources.own_tools import read, tool_from
from toolformer.data.sources.source import Found
from toolformer.schemas import parameters_of, required_of

STATE = {"type": "object", "properties": {"state": {"type": "string", "enum": ["on", "off"]}}, "required": ["state"]}
LAMP = {"name": "lamp", "description": "Switch the lamp.", "parameters": STATE}
RADIO = {"name": "radio", "description": "Switch the radio.", "inputSchema": STATE}
API = """
openapi: 3.0.3
info: {title: Library, version: "1"}
paths:
  /shelves/{id}/books:
    parameters:
      - {name: id, in: path, required: true, description: Which shelf, schema: {type: integer, minimum: 1}}
      - {name: page, in: query, schema: {type: integer, default: 1}}
    get:
      operationId: list_books
      summary: List the books on a shelf.
      parameters:
        - {name: page, in: query, description: Page of the list, schema: {type: integer, default: 0}}
        - $ref: '#/components/parameters/Since'
        - {name: X-Reader, in: header, required: true, schema: {type: string}}
        - {name: Authorization, in: header, schema: {type: string}}
        - {name: session, in: cookie, required: true, schema: {type: string}}
        - {name: filter, in: query, content: {application/json: {schema: {type: object, properties: {new: {type: boolean}}}}}}
      responses: {200: {description: ok}}
    post:
      summary: Put a book on a shelf
      description: It stays there until it is lent.
      requestBody: {$ref: '#/components/requestBodies/Book'}
    patch:
      operationId: sort_books
      requestBody: {required: true, content: {application/json: {schema: {type: array, items: {type: string}}}}}
  /covers:
    put: {operationId: upload_cover, requestBody: {content: {image/png: {schema: {type: string}}}}}
  /trees:
    get: {operationId: tree, parameters: [{name: t, in: query, schema: {$ref: '#/components/schemas/Tree'}}]}
    put: {operationId: list_books}
    head: {operationId: elsewhere, parameters: [{$ref: 'other.yaml#/x'}]}
components:
  parameters:
    Since: {name: since, in: query, schema: {type: string, format: date, default: 2024-01-31, enum: [2024-01-31, no]}}
  requestBodies:
    Book:
      required: true
      content:
        application/json; charset=utf-8:
          schema:
            allOf:
              - $ref: '#/components/schemas/Title'
              - type: object
                required: [copies]
                properties:
                  id: {type: string, readOnly: false, description: Of the book}
                  number: {type: integer, readOnly: true}
                  copies: {type: integer, exclusiveMinimum: true, minimum: 0}
                  size: {type: string, nullable: true, enum: [small, large]}
                  authors: {type: array, items: {$ref: '#/components/schemas/Author'}}
  schemas:
    Title: {type: object, required: [title], properties: {title: {type: string}}}
    Author: {type: object, required: [name], properties: {name: {type: string}, born: {type: integer}}}
    Tree: {type: object, properties: {left: {$ref: '#/components/schemas/Tree'}}}
"""  # noqa: E501


def write(folder: Path, content: Any, name: str = "tools.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "content",
    [
        [LAMP, RADIO],
        [{"type": "function", "function": LAMP}, RADIO],
        {"tools": [LAMP, RADIO]},
        {"model": "m", "functions": [LAMP, RADIO]},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [LAMP, RADIO]}},
    ],
)
def test_tools_in_every_wrapping(tmp_path: Path, content: Any):
    found = read(write(tmp_path, content))
    assert [tool.name for tool in found.tools] == ["lamp", "radio"] and found.left_out == []
    assert all(tool.parameters == STATE for tool in found.tools)


def test_a_page_of_a_servers_tools_says_that_there_are_more(tmp_path: Path):
    found = read(write(tmp_path, {"result": {"tools": [RADIO], "nextCursor": "p2"}}))
    assert len(found.tools) == 1 and "nextCursor is 'p2'" in found.left_out[0]


def test_an_openapi_document(tmp_path: Path):
    tools, left_out = read(write(tmp_path, API, "api.yaml"))
    listed, put, sort = tools
    assert (listed.name, listed.description) == ("list_books", "List the books on a shelf.")
    assert parameters_of(listed) == {
        "id": {"type": "integer", "minimum": 1, "description": "Which shelf"},
        "page": {"type": "integer", "default": 0, "description": "Page of the list"},
        "since": {"type": "string", "format": "date", "default": "2024-01-31", "enum": ["2024-01-31", "no"]},
        "filter": {"type": "object", "properties": {"new": {"type": "boolean"}}},
        "X-Reader": {"type": "string"},
    }
    assert required_of(listed) == ("id", "X-Reader")
    assert put.name == "post_shelves_id_books"
    assert put.description == "Put a book on a shelf. It stays there until it is lent."
    assert parameters_of(put) == {
        "id": {"type": "integer", "minimum": 1, "description": "Which shelf"},
        "page": {"type": "integer", "default": 1},
        "title": {"type": "string"},
        "body_id": {"type": "string", "description": "Of the book"},
        "copies": {"type": "integer", "exclusiveMinimum": 0},
        "size": {"type": ["string", "null"], "enum": ["small", "large", None]},
        "authors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "born": {"type": "integer"}},
            },
        },
    }
    assert required_of(put) == ("id", "title", "copies")
    assert parameters_of(sort)["body"] == {"type": "array", "items": {"type": "string"}}
    assert required_of(sort) == ("id", "body")
    for tool in tools:
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
    reasons = [line.removeprefix(f"{tmp_path / 'api.yaml'}: ") for line in left_out]
    assert [reason.split(": ")[0] for reason in reasons] == [
        "GET /shelves/{id}/books", "POST /shelves/{id}/books", "PUT /covers", "GET /trees", "PUT /trees",
        "HEAD /trees"]  # fmt: skip
    for reason, said in zip(
        reasons,
        (
            "cookie parameter 'session' is left to the client",
            "'number' of the body is read-only",
            "requestBody is image/png; only JSON",
            "does it refer to itself?",
            "operationId is 'list_books', as of an earlier one",
            "$ref is 'other.yaml#/x'; a reference into the same",
        ),
        strict=True,
    ):
        assert said in reason


def test_json_and_yaml_are_the_same(tmp_path: Path):
    document = {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a", "summary": "Do a."}}}}
    assert read(write(tmp_path, document, "a.json")).tools == read(write(tmp_path, document, "a.yml")).tools


def test_a_path_that_is_wrong_leaves_the_others(tmp_path: Path):
    document = {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a"}}, "/b": 7, "/c": {"get": [1]}}}
    tools, left_out = read(write(tmp_path, document))
    assert [tool.name for tool in tools] == ["a"]
    assert [line.split("tools.json: ")[1] for line in left_out] == [
        "/b: is 7; an object is wanted", "/c: is [1]; an object is wanted"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", "[", "no JSON: .*write a list of tools"),
        ("t.json", f"[{'9' * 5000}]", "t.json: no JSON: .*write a list of tools"),
        ("t.json", '[{"name": "a", "name": "b"}]', "no JSON: the key 'name' occurs twice"),
        ("t.yaml", "a: [", "no YAML: .*write a list of tools"),
        ("t.json", [], r"holds \[\]; write a list of tools"),
        ("t.json", {"name": "lamp"}, "holds {'name': 'lamp'}; write a list"),
        ("t.json", [LAMP, {"description": "x"}], r"tools\[1\]: name is None"),
        ("t.json", {"swagger": "2.0", "paths": {}}, "OpenAPI is '2.0'; convert the document to version 3"),
        ("t.json", {"openapi": "3.0.0"}, "paths is None; an object of path"),
        ("t.json", {"openapi": "3.0.0", "paths": {}}, "paths holds no operation"),
        (
            "t.json",
            {"openapi": "3.0.0", "paths": {"/a": {"get": {"parameters": 3}}}},
            "/a: parameters is 3; a list is wanted",
        ),
        (
            "t.json",
            {"openapi": "3.0.0", "paths": {"/a": {"get": {"parameters": [{"name": "x", "in": "query", "schema": 3}]}}}},
            "GET /a: x: schema is 3; an object is wanted",
        ),
        (
            "t.json",
            {"openapi": "3.0.0", "paths": {"/a": {"get": {"operationId": 5}}}},
            "name is 5",
        ),
    ],
)
def test_errors_name_file_field_and_remedy(tmp_path: Path, name: str, content: Any, said: str):
    path = write(tmp_path, content, name)
    with pytest.raises(ValueError, match=said) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def reserve(title: str, copies: int = 1, size: Literal["small", "large"] = "small", shelf: int | None = None) -> str:
    """Reserve a book.

    Args:
        title: Of the book
        copies: How many
        size: Of the print
        shelf: Where it stands

    Returns:
        A number.
    """
    return f"{title}{copies}{size}{shelf}"


def test_a_python_function():
    tool = tool_from(reserve, "tools[0]")
    assert (tool.name, tool.description) == ("reserve", "Reserve a book.")
    assert parameters_of(tool) == {
        "title": {"type": "string", "description": "Of the book"},
        "copies": {"type": "integer", "description": "How many", "default": 1},
        "size": {"type": "string", "enum": ["small", "large"], "description": "Of the print", "default": "small"},
        "shelf": {"type": ["integer", "null"], "description": "Where it stands", "default": None},
    }
    assert required_of(tool) == ("title",)
    assert tool_from(tool, "x") is tool and tool_from(RADIO, "x").name == "radio"


def test_a_function_that_says_too_little_is_refused():
    def bare(x):
        return x

    def undescribed(x: int) -> int:
        """Do x."""
        return x

    for function, said in ((bare, "docstring"), (undescribed, "x")):
        with pytest.raises(ValueError, match=rf"tools\[2\]: function '{function.__name__}': .*{said}.*type hints"):
            tool_from(function, "tools[2]")


ODD = [None, 7, "x", [], {}, True, [1], {"a": 1}, {"$ref": "#/components/schemas/Tree"}, {"$ref": 3}, ["string"], [{}]]


def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document, the document itself excepted."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*at, key)
        yield from places(child, (*at, key))


def bent(document: Any, rng: random.Random) -> Any:
    """A copy with one to three odd values at random places."""
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        *way, last = rng.choice(list(places(document)))
        holder = document
        for key in way:
            holder = holder[key]
        holder[last] = copy.deepcopy(rng.choice(ODD))
    return document


def test_a_bent_document_is_read_or_refused_in_one_line():
    document = yaml.safe_load(API.replace("2024-01-31", "'2024-01-31'"))
    refused = 0
    for seed in range(150):
        try:
            tools, left_out = openapi.read(bent(document, random.Random(seed)), "x")
            assert tools and not any("\n" in line for line in left_out)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused < 30


def test_a_bent_row_is_read_or_set_aside(tmp_path: Path):
    spec = {"type": "integer", "enum": ["1", 2], "nullable": True, "default": "3", "exclusiveMinimum": True}
    items = {"type": "List[int]", "items": {"type": "str"}, "enum": ["a"], "examples": "x", "choices": ["a"]}
    schema = {"type": "object", "properties": {"a": spec, "b": items}, "required": ["a"]}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": {"a": 1}}},
    ]
    row = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}, RADIO], "messages": turns}
    lines = [json.dumps(bent(row, random.Random(seed))) for seed in range(300)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    found = list(own.SOURCE.read(tmp_path))
    assert [one.place for one in found] == [f"mine.jsonl:{number}" for number in range(1, 301)]
    assert 20 < sum(isinstance(one, Found) for one in found) < 200
