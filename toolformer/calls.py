"""In: tool calls, or a text that a model wrote. Out: the text of the calls, or the calls of the text.

The only renderer and the only parser, for gold and predictions alike; the form is Qwen2.5's `<tool_call>` block.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolformer.records import ToolCall

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MAX_DEPTH = 64  # objects and lists inside each other; every later recursion over arguments relies on it
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Malformed:
    """A text that attempts a call and is not one; ``position`` is the character where the reading stopped."""

    reason: str
    position: int


class _NotACallError(ValueError):
    """A refusal from inside the JSON reader."""


def render(calls: Sequence[ToolCall]) -> str:
    r"""The text of ``calls``, several joined by a line break; no call is the empty text.

    Raises:
        ValueError: it could not be read back: an argument is NaN, infinite, no JSON, or nested too deeply.

    >>> render([ToolCall("get_time", {"city": "Bern", "hours": 2})])
    '<tool_call>\n{"name": "get_time", "arguments": {"city": "Bern", "hours": 2}}\n</tool_call>'
    """
    return "\n".join(f"{OPEN}\n{_call_text(call)}\n{CLOSE}" for call in calls)


def _call_text(call: ToolCall) -> str:
    body = {"name": call.name, "arguments": dict(call.arguments)}
    if deeper_than(body["arguments"], MAX_DEPTH):
        raise ValueError(f"call of {call.name!r}: arguments are nested more than {MAX_DEPTH} deep; flatten them")
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False)
        text.encode()  # half a surrogate pair
    except (TypeError, ValueError) as error:
        raise ValueError(f"call of {call.name!r}: arguments are no JSON: {error}; use plain JSON values") from error
    return text


def parse(text: str) -> list[ToolCall] | Malformed:
    r"""The calls of ``text``; ``[]`` where no call is attempted, ``Malformed`` where one is attempted and broken.

    Strict: only white space outside calls, each call closed, valid JSON with exactly a name (text) and arguments (an
    object), no key twice, no NaN, no infinity, at most ``MAX_DEPTH`` levels. Never raises; linear time on any text.

    >>> parse("It is sunny.")
    []
    >>> parse('<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>')
    [ToolCall(name='get_time', arguments={}, accepted={}, omittable=())]
    >>> parse('Sure! <tool_call>')
    Malformed(reason='text outside a call', position=0)
    """
    if OPEN not in text and CLOSE not in text:
        return []
    calls: list[ToolCall] = []
    at = _skip(text, 0)
    while at < len(text):
        if not text.startswith(OPEN, at):
            return Malformed("text outside a call", at)
        start = _skip(text, at + len(OPEN))
        try:
            value, end = _DECODER.raw_decode(text, start)
            call = _to_call(value)
        except json.JSONDecodeError as error:
            return Malformed(f"broken JSON: {error.msg}", error.pos)
        except _NotACallError as error:
            return Malformed(str(error), start)
        except ValueError:  # Python refuses integers of more than 4,300 digits
            return Malformed("a number is too long", start)
        except RecursionError:
            return Malformed("nested too deeply", start)
        at = _skip(text, end)
        if not text.startswith(CLOSE, at):
            return Malformed("call is not closed", at)
        calls.append(call)
        at = _skip(text, at + len(CLOSE))
    return calls


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty text
    return match.end()


def _to_call(value: Any) -> ToolCall:
    if not isinstance(value, dict):
        raise _NotACallError("call is not an object")
    if set(value) != {"name", "arguments"}:
        raise _NotACallError("call has other keys than name and arguments")
    if not isinstance(value["name"], str):
        raise _NotACallError("name is not text")
    if not isinstance(value["arguments"], dict):
        raise _NotACallError("arguments are not an object")
    if deeper_than(value["arguments"], MAX_DEPTH):
        raise _NotACallError("nested too deeply")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _NotACallError("half of a surrogate pair") from None  # could not be written to any file
    return ToolCall(value["name"], value["arguments"])


def deeper_than(value: Any, levels: int) -> bool:
    """Whether more than ``levels`` objects and lists stand inside each other.

    >>> deeper_than({"a": [1]}, 2), deeper_than({"a": [1]}, 1)
    (False, True)
    """
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):  # no recursion: it would end where the question begins to matter
        inner = (item for outer in layer for item in (outer.values() if isinstance(outer, dict) else outer))
        layer = list({id(item): item for item in inner if isinstance(item, dict | list)}.values())
        if not layer:
            return False
    return bool(layer)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _NotACallError("a key occurs twice")
    return out


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotACallError("a number is too large")
    return value


def _constant(text: str) -> float:
    raise _NotACallError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
