"""In: JSON Lines of one's own requests, in OpenAI's shapes. Out: rows to train a model on, or to evaluate it on.

A line: ``{"tools": [...], "messages": [{"role", "content"}, ...], "calls": [{"name", "arguments"}, ...]}``. Tools are
written as for OpenAI or MCP; where ``mine.jsonl`` has none, they are those of ``mine.tools.json`` (or ``.yaml``) beside
it. No calls mean that a plain reply is right. Without ``calls`` the last message is the answer, as in OpenAI's format
for fine-tuning: its ``tool_calls``, or its content as the reply. ``id``, ``reply`` and ``stratum`` may be added.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from toolformer.calls import render
from toolformer.data.sources import own_tools
from toolformer.data.sources.files import strict_json
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.schemas import read_tool

NAME = "own"
ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {"developer": "system", "function": "tool"}
KEYS = ("tools", "messages", "calls", "id", "reply", "stratum", "parallel_tool_calls")
UPSTREAM = ("train", "dev", "test")  # a file of such a name says to which split its rows belong


class BrokenRow(ValueError):
    """A line that is no row; ``reason`` is the same for all lines that are broken in the same way."""

    def __init__(self, said: str, reason: str):
        super().__init__(said)
        self.reason = reason


def read(path: str | Path) -> Iterator[tuple[str, Example, list[Tool]]]:
    """The rows of the file in its order, each with the place where it stands.

    Raises:
        ValueError: names file, line, field and value of the first row that cannot be read.
    """
    file = _File(Path(path))
    for number, line in file.lines:
        yield f"{path}:{number}", *file.row(line, number)


def rows(root: Path) -> Iterator[Found | SetAside]:
    """Every line of the folder's ``*.jsonl`` that is not blank. Rows of ``dev.jsonl`` and ``test.jsonl`` are of those.

    An id names file and line, since ids that people give need not differ from file to file.
    """
    paths = sorted(root.glob("*.jsonl"))
    if not paths:
        raise FileNotFoundError(f"{root}: holds no *.jsonl; write your requests there, one a line")
    for path in paths:
        file = _File(path)
        upstream = path.stem if path.stem in UPSTREAM else "train"
        for number, line in file.lines:
            place = f"{path.name}:{number}"
            try:
                example, tools = file.row(line, number)
            except BrokenRow as error:
                yield SetAside(place, error.reason, line)
                continue
            example = replace(example, id=f"{NAME}/{path.stem}/{number}")
            yield Found(place, example, tuple(Offered(tool) for tool in tools), upstream)


def tools(root: Path) -> Iterator[Offered]:
    """The tools of the side files."""
    for path in sorted(root.glob("*.tools.*")):
        yield from (Offered(tool) for tool in own_tools.read(path).tools)


SOURCE = Source(NAME, "LicenseRef-own", "", rows, tools=tools)


class _File:
    """A file of rows with the tools that its rows share."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line that is not blank with its number."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
        return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())

    @cached_property
    def tools(self) -> list[Tool]:
        """Those of the side file; none without one."""
        for suffix in (".tools.json", ".tools.yaml", ".tools.yml"):
            path = self.path.with_suffix(suffix)
            if path.is_file():
                return own_tools.read(path).tools
        return []

    def row(self, line: str, number: int) -> tuple[Example, list[Tool]]:
        """The row of a line and its tools; ``BrokenRow`` says what is wrong with it."""
        place = f"{self.path}:{number}"
        shared = self.tools
        with _broken("row: no object of the known fields"):
            row = _json(line, place)
        with _broken("tools: cannot be read"):
            tools = [read_tool(tool, f"{place}: tools[{i}]") for i, tool in enumerate(_list(row, "tools", place))]
            tools = tools if "tools" in row else shared
        with _broken("calls: cannot be read"):
            messages, calls, reply = _answer(row, place)
        with _broken("messages: cannot be read"):
            turns = tuple(message(turn, f"{place}: messages[{i}]") for i, turn in enumerate(messages))
            if not turns or turns[-1].role not in ("user", "tool"):
                last = turns[-1].role if turns else None
                raise ValueError(
                    f"{place}: the last message's role is {last!r}; end where the model shall answer: user or tool"
                )
        with _broken("row: id, reply or stratum is no text"):
            said = {"id": f"{self.path.stem}-{number}", "reply": reply, "stratum": ""}
            said |= {key: row[key] for key in said if key in row}
            for key, value in said.items():
                if not isinstance(value, str):
                    raise ValueError(f"{place}: {key} is {value!r}; text is wanted")
        ids = tuple(tool.id for tool in tools)
        return Example(said["id"], turns, ids, calls, said["reply"], NAME, said["stratum"]), tools


@contextmanager
def _broken(reason: str) -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise BrokenRow(str(error), reason) from error


def _json(line: str, place: str) -> Mapping[str, Any]:
    row = strict_json(line, f"{place}: no JSON", "write one object a line")
    if not isinstance(row, Mapping):
        raise ValueError(f"{place}: is a {type(row).__name__}; write an object with tools, messages and calls")
    for key in row:
        if key not in KEYS:
            raise ValueError(f"{place}: has the field {key!r}; the fields are {', '.join(KEYS)}")
    return row


def _list(row: Mapping[str, Any], key: str, place: str) -> list[Any]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{place}: {key} is {value!r:.80}; a list is wanted")
    return value


def _answer(row: Mapping[str, Any], place: str) -> tuple[list[Any], tuple[ToolCall, ...], str]:
    """The conversation up to the answer, and the answer: ``calls``, or what the last message says."""
    messages = _list(row, "messages", place)
    if "calls" in row:
        calls = _list(row, "calls", place)
        return messages, tuple(_call(call, f"{place}: calls[{i}]") for i, call in enumerate(calls)), ""
    last = messages[-1] if messages else None
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        raise ValueError(f"{place}: calls is missing; add it, or end messages with the assistant's answer")
    where = f"{place}: messages[{len(messages) - 1}]"
    calls = _calls(last, where)
    return messages[:-1], calls, "" if calls else _text(last, where)


def message(turn: Any, place: str) -> Message:
    """A turn as OpenAI writes it; ``tool_calls`` become the text they were written as.

    Raises:
        ValueError: names ``place``, the field and its value.
    """
    role = turn.get("role") if isinstance(turn, Mapping) else turn
    if not isinstance(role, str) or not isinstance(turn, Mapping) or role not in ROLES:
        raise ValueError(f"{place}: role is {role!r}; use one of {', '.join(ROLES)}")
    calls = _calls(turn, place)  # what the assistant called earlier in the conversation
    if not calls:
        return Message(ROLES[role], _text(turn, place))
    try:
        return Message(ROLES[role], render(calls))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _calls(turn: Mapping[str, Any], place: str) -> tuple[ToolCall, ...]:
    """A message's ``tool_calls``, or its one ``function_call`` as OpenAI once wrote it."""
    if turn.get("function_call"):
        return (_call(turn["function_call"], f"{place}.function_call"),)
    calls = turn.get("tool_calls") or []  # SDKs write null where there is none
    if not isinstance(calls, list):
        raise ValueError(f"{place}: tool_calls is {calls!r:.80}; a list is wanted")
    return tuple(_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls))


def _text(turn: Mapping[str, Any], place: str) -> str:
    """A message's content: a text, or a list of parts that are all text."""
    content = turn.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{place}: content is {content!r:.80}; text is wanted, or parts of type text")
    return "".join(texts)


def _call(call: Any, place: str) -> ToolCall:
    """``{"name", "arguments"}``, in OpenAI's ``{"function": ...}`` or not; arguments as an object or as its text."""
    inner = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise ValueError(f"{place}: is {call!r:.80}; an object with name and arguments is wanted")
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        arguments = strict_json(arguments, f"{place}: arguments is no JSON", "write an object")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{place}: arguments is {arguments!r:.80}; an object is wanted")
    return ToolCall(inner["name"], arguments)
