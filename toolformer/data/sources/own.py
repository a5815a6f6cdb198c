"""In: a JSON Lines file of one's own requests, in OpenAI's shapes. Out: rows to evaluate a model on.

A line: ``{"tools": [...], "messages": [{"role", "content"}, ...], "calls": [{"name", "arguments"}, ...]}``. Tools are
written as for OpenAI or MCP; no calls mean that a plain reply is right; ``id`` and ``reply`` may be added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolformer.calls import render
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.schemas import read_tool

ROLES = ("system", "user", "assistant", "tool")
KEYS = ("tools", "messages", "calls", "id", "reply", "stratum")


def read(path: str | Path) -> Iterator[tuple[str, Example, list[Tool]]]:
    """The rows of the file in its order, each with the place where it stands.

    Raises:
        ValueError: names file, line, field and value of the first row that cannot be read.
    """
    for number, line in enumerate(_lines(Path(path)), start=1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, *_row(_json(line, place), place, f"{Path(path).stem}-{number}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def _json(line: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{place}: no JSON: {error}; write one object a line") from error
    if not isinstance(row, Mapping):
        raise ValueError(f"{place}: is a {type(row).__name__}; write an object with tools, messages and calls")
    for key in row:
        if key not in KEYS:
            raise ValueError(f"{place}: has the field {key!r}; the fields are {', '.join(KEYS)}")
    for key in ("tools", "messages", "calls"):
        if not isinstance(row.get(key), list):
            raise ValueError(f"{place}: {key} is {row.get(key)!r:.80}; a list is wanted")
    return row


def _row(row: Mapping[str, Any], place: str, name: str) -> tuple[Example, list[Tool]]:
    tools = [read_tool(tool, f"{place}: tools[{i}]") for i, tool in enumerate(row["tools"])]
    messages = tuple(_message(turn, f"{place}: messages[{i}]") for i, turn in enumerate(row["messages"]))
    if not messages or messages[-1].role not in ("user", "tool"):
        last = messages[-1].role if messages else None
        raise ValueError(
            f"{place}: the last message's role is {last!r}; end where the model shall answer: user or tool"
        )
    calls = tuple(_call(call, f"{place}: calls[{i}]") for i, call in enumerate(row["calls"]))
    texts = {key: row.get(key, default) for key, default in (("id", name), ("reply", ""), ("stratum", ""))}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{place}: {key} is {value!r}; text is wanted")
    ids = tuple(tool.id for tool in tools)
    return Example(texts["id"], messages, ids, calls, texts["reply"], "own", texts["stratum"]), tools


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
        role = turn.get("role") if isinstance(turn, Mapping) else turn
        raise ValueError(f"{place}: role is {role!r}; use one of {', '.join(ROLES)}")
    if turn.get("tool_calls"):  # what the assistant called earlier in the conversation
        return Message(turn["role"], render([_call(c, f"{place}.tool_calls") for c in turn["tool_calls"]]))
    if not isinstance(turn.get("content"), str):
        raise ValueError(f"{place}: content is {turn.get('content')!r:.80}; text is wanted")
    return Message(turn["role"], turn["content"])


def _call(call: Any, place: str) -> ToolCall:
    """``{"name", "arguments"}``, in OpenAI's ``{"function": ...}`` or not; arguments as an object or as its text."""
    inner = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise ValueError(f"{place}: is {call!r:.80}; an object with name and arguments is wanted")
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: arguments is no JSON: {error}; write an object") from error
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{place}: arguments is {arguments!r:.80}; an object is wanted")
    return ToolCall(inner["name"], arguments)
