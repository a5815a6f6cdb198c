"""In: a few hundred broken inputs for each surface, and hypothesis' own. Out: whether each is read rightly or refused.

The same inputs by the million: ``python -m experiments.fuzz.run``.
"""

from __future__ import annotations

import json
import random
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.fuzz.run import FINDINGS, SHARES, outcome
from toolformer.data.own_rows import OwnRows
from toolformer.schemas import fits, read_tool, type_to_schema

INPUTS = {"call parser": 2_000, "schema dialects": 300, "corpus reader": 100, "grammar builder": 40}
INPUTS |= {"checkpoint reader": 15}


@pytest.mark.parametrize("surface", SHARES)
def test_broken_inputs_are_read_rightly_or_refused_by_name(surface: str, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.fuzz.run.MADE", {})
    found = [outcome(surface, 1, index, tmp_path) for index in range(INPUTS[surface])]
    assert [said for kind, said in found if kind in FINDINGS] == []
    assert {kind for kind, _ in found} == {"accepted", "refused"}, "the inputs are too tame, or too wild"


def test_what_is_wrong_is_found(tmp_path, monkeypatch):
    """A reader that loses, invents or raises is told from one that does not."""

    def lost(rng: random.Random) -> str:
        raise AssertionError("a row was lost")

    def raises(rng: random.Random) -> str:
        raise KeyError("name")

    def endless(rng: random.Random) -> str:
        while True:
            pass

    monkeypatch.setattr("experiments.fuzz.run.SECONDS", 0.05)
    for once, kind in ((lost, "wrong"), (raises, "other error"), (endless, "hang")):
        monkeypatch.setattr("experiments.fuzz.run.MADE", {"call parser": once})
        assert outcome("call parser", 0, 0, tmp_path)[0] == kind


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
keywords = st.sampled_from(["type", "properties", "required", "items", "enum", "anyOf", "not", "pattern", "$ref", "a"])
schemas = st.recursive(
    st.dictionaries(keywords, values, max_size=3) | st.sampled_from([{"type": "string"}, {"$ref": "#/properties/a"}]),
    lambda inner: st.dictionaries(keywords, inner | st.dictionaries(keywords, inner) | st.lists(inner, max_size=2)),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({"name": st.text()}, optional={"parameters": schemas | values, "description": values}))
def test_any_description_is_a_tool_or_refused_with_its_place(row: Any) -> None:
    try:
        tool = read_tool(row, "x:1")
    except ValueError as error:
        assert str(error).startswith("x:1")
        return
    assert read_tool(json.loads(tool.text), "x:2").id == tool.id
    fits(tool, {"a": 1})


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("intstr[]<>,.| ()'\"\\0:=default")) | st.text())
def test_any_type_text_is_a_schema_or_refused_with_its_place(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's parser has opinions of what it reads
        try:
            schema = type_to_schema(text, "x:1")
        except ValueError as error:
            assert str(error).startswith("x:1")
            return
    assert isinstance(schema, dict)


@settings(max_examples=60, deadline=None)
@given(st.binary() | st.dictionaries(st.sampled_from(["tools", "messages", "calls", "id"]), values).map(
    lambda row: json.dumps(row).encode()))  # fmt: skip
def test_any_file_of_rows_is_refused_with_its_place(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        OwnRows(str(path))
    assert str(caught.value).startswith(str(path))
