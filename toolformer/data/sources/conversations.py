"""In: a conversation with tools, as turns. Out: a row for each answer in it: calls, or a plain answer.

A plain answer is a row without a call. Its stratum is read off the conversation: what is followed by a call asked for a
value (``parameter_missing``), an apology wants for a tool (``tool_missing``), another answer to the user is
``small_talk``; an answer that words the result of a call has none. All rows of a conversation share a ``pattern``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from toolformer.calls import render
from toolformer.data.sources.call_rows import BROKEN, UnusableError, row, texts
from toolformer.data.sources.source import Found, Offered, SetAside
from toolformer.records import Example, Message, Tool, ToolCall

_ASKS = re.compile(r"(?i)\bplease (provide|tell|specify|share|enter)\b|\b(could|can) you (provide|tell|specify)\b")
_APOLOGISES = re.compile(r"(?i)\b(sorry|apologi[sz]e|(un|not )able to|do(es)?n[o']t have the|none of the|can(no|')t)\b")


class Turn(NamedTuple):
    """What was said in one turn; ``role`` is system, user, assistant or tool."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()


def rows(
    conversation: str,
    place: str,
    values: Any,
    read: Callable[[Any], Turn],
    tools: Mapping[str, Tool],
    *,
    text: str,
    known: tuple[Message, ...] = (),
) -> Iterator[Found | SetAside]:
    """Every answer of ``conversation`` (its id), at ``<place>:<number of the turn>``.

    ``known`` stands before the first turn. After a turn that ``read`` refuses no answer can be used. A conversation
    without an answer is one row.
    """
    turns = [_turn(value, read) for value in values] if isinstance(values, list) else []
    answers = [at for at, turn in enumerate(turns) if not isinstance(turn, Turn) or turn.role == "assistant"]
    if not answers:
        yield SetAside(place, BROKEN if not turns else "conversation: no answer", text)

    def found(at: int) -> Found:
        before = [turn for turn in turns[: at + 1] if isinstance(turn, Turn)]
        if len(before) <= at:
            raise UnusableError(next(str(turn) for turn in turns if not isinstance(turn, Turn)))
        turn = before.pop()
        if not before or before[-1].role not in ("user", "tool"):
            raise UnusableError("answer: it follows no request")
        messages = (*known, *(Message(t.role, render(t.calls) if t.calls else t.content) for t in before))
        example = Example(
            f"{conversation}/{at + 1}",
            messages,
            tuple(tool.id for tool in tools.values()),
            turn.calls,
            "" if turn.calls else turn.content.strip(),
            conversation.split("/")[0],
            "" if turn.calls or before[-1].role == "tool" else _stratum(turn.content, turns[at + 1 :]),
            conversation,
        )
        return Found(f"{place}:{at + 1}", example, tuple(map(Offered, tools.values())))

    for at in answers:
        yield row(f"{place}:{at + 1}", at, found, json.dumps(values[: at + 1], default=str))


def _turn(value: Any, read: Callable[[Any], Turn]) -> Turn | UnusableError:
    try:
        turn = read(value)
        if turn.calls:
            render(turn.calls)
        else:
            texts(turn.content)
    except UnusableError as error:
        return error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return UnusableError(BROKEN)
    return turn


def _stratum(answer: str, later: Sequence[Turn | UnusableError]) -> str:
    following = next((turn for turn in later if isinstance(turn, Turn) and turn.role == "assistant"), None)
    if following and following.calls:
        return "parameter_missing"
    if _APOLOGISES.search(answer):
        return "tool_missing"
    return "parameter_missing" if _ASKS.search(answer) else "small_talk"
