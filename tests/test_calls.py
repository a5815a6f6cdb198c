"""In: calls, and all sorts of text. Out: what is rendered is read back, what is broken is refused, nothing raises."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer.calls import MAX_DEPTH, Malformed, parse, render
from toolformer.records import ToolCall

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["</tool_call>", "<tool_call>\n{}", '"}}', "\\", "\n", "\u2028", "é"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
calls = st.lists(st.builds(ToolCall, name=text, arguments=st.dictionaries(text, values, max_size=4)), max_size=3)
ping = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'


def block(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


@given(calls)
def test_what_is_rendered_is_read_back(written: list[ToolCall]) -> None:
    read = parse(render(written))
    assert read == written
    assert [json.dumps(c.arguments) for c in written] == [json.dumps(c.arguments) for c in read]  # 1 stays no 1.0


@given(
    st.lists(st.sampled_from([*'{}[]",:\\ \n01-eE.ut<', "<tool_call>", "</tool_call>", ping, "NaN", "ab"])).map("".join)
)
def test_no_text_raises(scraps: str) -> None:
    read = parse(scraps)
    assert isinstance(read, list | Malformed)
    if isinstance(read, Malformed):
        assert 0 <= read.position <= len(scraps)
    elif read:
        assert parse(render(read)) == read


@given(text)
def test_text_without_a_tag_is_a_plain_reply(reply: str) -> None:
    assert parse(reply.replace("tool_call>", "")) == []


def test_several_calls_and_white_space() -> None:
    assert parse(f"  {ping}\n\n{ping} \n") == [ToolCall("ping", {}), ToolCall("ping", {})]
    assert parse('<tool_call>{"arguments":{"x":[1,{"y":null}]},"name":"f"}</tool_call>') == [
        ToolCall("f", {"x": [1, {"y": None}]})
    ]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("<tool_call>", "broken JSON"),
        ("</tool_call>", "text outside a call"),
        (f"Sure: {ping}", "text outside a call"),
        (f"{ping} Done.", "text outside a call"),
        (ping.removesuffix("</tool_call>"), "not closed"),
        (ping.removesuffix("tool_call>"), "not closed"),
        (block('{"name": "f", "arguments": {}} {}'), "not closed"),
        (block(""), "broken JSON"),
        (block('{"name": "f", "arguments": {"x": 1}'), "broken JSON"),
        (block('{"name": "f", "arguments": {"x": 1,}}'), "broken JSON"),
        (block("{'name': 'f', 'arguments': {}}"), "broken JSON"),
        (block('{"name": "f", "arguments": {"x": 01}}'), "broken JSON"),
        (block('{"name": "f", "arguments": {"x": "\n"}}'), "broken JSON"),
        (block('[{"name": "f", "arguments": {}}]'), "not an object"),
        (block('{"name": "f"}'), "other keys"),
        (block('{"name": "f", "parameters": {}}'), "other keys"),
        (block('{"name": "f", "arguments": {}, "id": 1}'), "other keys"),
        (block('{"name": 1, "arguments": {}}'), "name is not text"),
        (block('{"name": "f", "arguments": []}'), "arguments are not an object"),
        (block('{"name": "f", "arguments": "{}"}'), "arguments are not an object"),
        (block('{"name": "f", "name": "f", "arguments": {}}'), "twice"),
        (block('{"name": "f", "arguments": {"x": {"y": 1, "y": 1}}}'), "twice"),
        (block('{"name": "f", "arguments": {"x": NaN}}'), "NaN"),
        (block('{"name": "f", "arguments": {"x": -Infinity}}'), "Infinity"),
        (block('{"name": "f", "arguments": {"x": 1e999}}'), "too large"),
        (block('{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}"), "too long"),
        (block('{"name": "f", "arguments": {"x": "\\ud83d"}}'), "surrogate"),
        (block('{"name": "f", "arguments": ' + '{"x": ' * 65 + "1" + "}" * 65 + "}"), "nested too deeply"),
        (block("[" * 100_000), "nested too deeply"),
    ],
)
def test_broken_calls_are_malformed(broken: str, reason: str) -> None:
    read = parse(broken)
    assert isinstance(read, Malformed)
    assert reason in read.reason
    assert 0 <= read.position <= len(broken)


def test_the_position_is_where_the_reading_stopped() -> None:
    assert parse(f"{ping} Done.") == Malformed("text outside a call", len(ping) + 1)


def test_the_deepest_arguments_are_read() -> None:
    deep = '{"x": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert isinstance(parse(block(f'{{"name": "f", "arguments": {deep}}}')), list)


@pytest.mark.parametrize("piece", ["<tool_call>", "</tool_call>", ping, " ", "[", '"\\u00', ping + "\n"])
def test_long_texts_take_linear_time(piece: str) -> None:
    started = time.perf_counter()
    parse("<tool_call>" + piece * 20_000)
    parse(piece * 20_000)
    assert time.perf_counter() - started < 5


def test_what_is_no_json_is_not_rendered() -> None:
    for value in (float("nan"), float("inf"), {1, 2}):
        with pytest.raises(ValueError, match="call of 'f': arguments are no JSON"):
            render([ToolCall("f", {"x": value})])


def test_what_could_not_be_read_back_is_not_rendered() -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value, why in (("\ud83d", "no JSON"), ({"\ud83d": 1}, "no JSON"), (deep, "nested more than 64 deep")):
        with pytest.raises(ValueError, match=f"call of 'f': arguments are {why}"):
            render([ToolCall("f", {"x": value})])
    with pytest.raises(ValueError, match="call of '.ud83d': arguments are no JSON"):
        render([ToolCall("\ud83d", {})])
