"""In: calls as Python-like text. Out: whether names and arguments are read, and what is no call is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer.data.sources.call_rows import UnusableError
from toolformer.data.sources.call_text import read_calls as read


def read_calls(text: str, names: tuple[str, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, dict(call.arguments)) for call in read(text, names)]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[f()]", [("f", {})]),
        ("[Market Trends API(kind='A, B', on=true)]", [("Market Trends API", {"kind": "A, B", "on": True})]),
        ("[a.b/c-d(x=[1, (2, 3)])]", [("a.b/c-d", {"x": [1, [2, 3]]})]),
        (
            "[f(x={'k': null, 'l': [False]}),\n g(y=-1.5)]",
            [("f", {"x": {"k": None, "l": [False]}}), ("g", {"y": -1.5})],
        ),
        ("[f(x='it\\'s ) here'), f(x=\"a]b\")]", [("f", {"x": "it's ) here"}), ("f", {"x": "a]b"})]),
        ("[ Tide (metric)(), Tide(x=1)]", [("Tide (metric)", {}), ("Tide", {"x": 1})]),
        ("[f(from=1, user-id='a', $top=2,)]", [("f", {"from": 1, "user-id": "a", "$top": 2})]),
        ("[f(x='[g(y=1)]')]", [("f", {"x": "[g(y=1)]"})]),
    ],
)
def test_calls_are_read(text: str, calls: list[Any]) -> None:
    assert read_calls(text, ("Tide (metric)", "Tide")) == calls


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "f()", "[f]", "[f(]", "[f(x=)]", "[f(x=1) g()]", "[f(1)]", "[f(**x)]", "[f(x=y)]", "[f(x=1, x=2)]",
        "[f(x='it's')]", "[f(x=__import__('os'))]", "[f(x=1)](y=2)", 
        "[f(x=" + "[" * 5000 + "]" * 5000 + ")]", "[(x=1)]", "[f(x={**y})]", "[, f()]", "[f(x=1,, y=2)]",
         "[f(x=2034-04-15)]",
    ],
)  # fmt: skip
def test_what_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(UnusableError, match="a call that cannot be read"):
        read_calls(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_ ./-]{0,8}[a-zA-Z]", fullmatch=True)
KEYS = st.sampled_from(["city", "from", "x-1"])


@given(st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES)), min_size=1, max_size=3))
def test_what_python_writes_is_read_back(calls: list[tuple[str, dict[str, Any]]]) -> None:
    text = ", ".join(f"{name}({', '.join(f'{key}={value!r}' for key, value in said.items())})" for name, said in calls)
    assert read_calls(f"[{text}]") == calls


@given(st.text(alphabet="[](){}'\"=,f x1\\"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert read_calls(f"[{text}]")
    except UnusableError:
        pass
