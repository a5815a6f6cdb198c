"""In: texts of all kinds. Out: whether the small tokenizer gives them back and spells a value alike everywhere."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from data.tiny_rows import TOOLS, prompts, rows, texts, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer.calls import render
from toolformer.data.prompts import MARKS
from toolformer.data.tokenizer import PIECES, from_rows, train_tokenizer
from toolformer.data.toolworld import ToolWorld
from toolformer.records import Message, ToolCall

ANY = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=40)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=ANY | st.lists(st.sampled_from(["{", '"', '": "', " ", "\n", "7", "ä", *MARKS])).map("".join))
def test_any_text_comes_back(text: str):
    """After Unicode NFC, which typed equality applies as well."""
    of = tokenizer()
    ids = of.encode(text, add_special_tokens=False)
    assert of.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)
    assert all(0 <= i < len(of) for i in ids)


@pytest.mark.parametrize("spaces", PIECES)
def test_digits_stand_alone(spaces: str):
    of = train_tokenizer([*texts(), *(str(n) * 3 for n in range(1000))], vocab_size=500, spaces=spaces)
    for token, id_ in of.get_vocab().items():
        if any(c.isdigit() for c in token):
            assert len(of.decode([id_]).strip()) == 1, token
    assert of.tokenize("1987") == ["1", "9", "8", "7"]


def test_marks_are_single_tokens_and_the_end_is_the_end():
    of = tokenizer()
    assert of.eos_token == "<|im_end|>" and of.pad_token == "<|endoftext|>" and of.eos_token_id != of.pad_token_id
    for mark in MARKS:
        assert of.tokenize(f"a{mark}b") == ["a", mark, "b"]


def inside(part: list[int], whole: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


WORD = st.text("abcdeXYZ0123456789äß", min_size=1, max_size=8)
VALUE = st.lists(WORD, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([" ", "-", ", ", "/", ":", "@", ".", "_"]).map(lambda between: between.join(parts))
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(value=VALUE)
def test_a_value_is_spelled_alike_in_request_and_call(value: str):
    of, value = prompts(), unicodedata.normalize("NFC", value)
    own = of.ids(value)
    for request in (f"go to {value} now", f"{value}, please", f"Is it {value}?", f"from {value}."):
        assert inside(own, of.prompt([Message("user", request)])), request
    for said in (value, [value, "x"], ["x", value], {"b": value}):
        for more in ({}, {"b": 1}, {"b": "x"}):
            assert inside(own, of.ids(render([ToolCall("f", {"a": said, **more})]))), said


@settings(max_examples=60, deadline=None, derandomize=True)
@given(number=st.integers(-10_000, 10_000) | st.decimals(0, 99, places=2).map(float))
def test_a_number_is_spelled_alike(number: float):
    of = prompts()
    for arguments in ({"a": number}, {"a": [number, 1]}, {"b": 1, "a": number, "c": "x"}):
        assert inside(of.ids(str(number)), of.ids(render([ToolCall("f", arguments)])))


def test_names_are_spelled_alike_in_schema_and_call():
    of = prompts()
    for example, tools in rows():
        for call in example.calls:
            schema = of.schema(next(tool for tool in tools if tool.name == call.name))
            answer = of.answer(example)
            for name in (call.name, *call.arguments):
                assert inside(of.ids(name), list(schema)) and inside(of.ids(name), answer), name


def test_a_schema_takes_few_tokens():
    skeleton = sum(len(prompts().schema(tool)) for tool in TOOLS)
    assert skeleton < sum(len(tool.text) for tool in TOOLS) / 3


def test_the_vocabulary_is_as_large_as_asked_and_the_same_each_time():
    sizes = [len(train_tokenizer(texts(), vocab_size=size)) for size in (300, 350, 420)]
    assert sizes == [300, 350, 420] and all(a < b for a, b in pairwise(sizes))
    again = train_tokenizer(texts(), vocab_size=420)
    assert again.get_vocab() == tokenizer().get_vocab()


def test_trained_on_a_source():
    world = ToolWorld(seed=0)
    of = from_rows(world, vocab_size=700, rows=64)
    assert len(of) == 700 and of.get_vocab() == from_rows(world, vocab_size=700, rows=64).get_vocab()


def test_unknown_spaces_are_refused():
    with pytest.raises(ValueError, match="tokenizer.spaces is 'none'; use one of isolated, prefix"):
        train_tokenizer(texts(), spaces="none")
