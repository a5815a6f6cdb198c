"""In: a row with tools and gold calls, as upstream wrote it. Out: ``Found`` where gold fits its tools, or ``SetAside``.

What sources of calls with arguments share: lines that may each be broken, tools of one name, and the check of gold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from toolformer.calls import parse, render
from toolformer.data.sources.files import read_text
from toolformer.data.sources.source import Found, SetAside
from toolformer.records import Example, Tool, ToolCall, example_to_json
from toolformer.schemas import fits, parameters_of

BROKEN = "row: not as upstream"
SCHEMA = "tool: its schema cannot be read"
SAME_NAME = "tool: two of one name and two schemas"
NAME = "gold: a tool that is not offered"
UNDECLARED = "gold: an argument that its tool does not declare"
PLACEHOLDER = "gold: a placeholder instead of a value"
ARGUMENTS = "gold: arguments that the schema refuses"
UNWRITABLE = "row: text or values that JSON cannot hold"

_PLACEHOLDER = re.compile(r"\s*|<[^<>]+>|your_\w+")  # nothing, <trial_id of Trial A>, your_api_key


class UnusableError(ValueError):
    """A row that is set aside; says why, in words that name no value."""


def lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Each line that is not blank with its number and its JSON: None where it is no JSON or no UTF-8."""
    # Latin-1 gives every byte a character, so one bad byte breaks its line and not the file
    for number, line in enumerate(read_text(path, "latin-1").split("\n"), start=1):
        if line.strip():
            raw = line.encode("latin-1")
            try:
                yield number, raw.decode(), json.loads(raw)
            except (ValueError, RecursionError):
                yield number, raw.decode(errors="replace"), None


def row(place: str, value: Any, build: Callable[[Any], Found], text: str | None = None) -> Found | SetAside:
    """What ``build`` makes of an upstream's row, checked; ``text`` is the row as it was found."""
    try:
        return fitting(build(value))
    except UnusableError as error:
        reason = str(error)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        reason = BROKEN
    return SetAside(place, reason, json.dumps(value) if text is None else text)


def distinct(read: Callable[[Any, str], Tool], rows: Sequence[Any]) -> dict[str, Tool]:
    """The tools by name; one that is listed twice is one.

    Raises:
        UnusableError: a schema cannot be read, or two tools of one name differ.
    """
    try:
        tools = [once(read, row) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnusableError(SCHEMA) from error
    found: dict[str, Tool] = {}
    for tool in tools:
        if found.setdefault(tool.name, tool) != tool:
            raise UnusableError(SAME_NAME)
    return found


def once(read: Callable[[Any, str], Tool], row: Any) -> Tool:
    """What ``read`` makes of ``row``: checking a schema takes milliseconds, and most tools are offered in many rows."""
    return _once(read, json.dumps(row))


@cache
def _once(read: Callable[[Any, str], Tool], text: str) -> Tool:
    return read(json.loads(text), "tool")


def texts(*values: Any) -> None:
    """Refuses what is no text, or blank."""
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise UnusableError(BROKEN)


def fitting(found: Found) -> Found:
    """The row with its gold arguments in their schemas' order.

    Raises:
        UnusableError: gold is not of the tools on offer, or nobody could write the row down.
    """
    tools = {offered.tool.name: offered.tool for offered in found.offered}
    calls = tuple(_ordered(call, tools) for call in found.example.calls)
    said = "\n".join(message.content for message in found.example.messages)
    if any(_is_placeholder(value, said) for call in calls for value in call.arguments.values()):
        raise UnusableError(PLACEHOLDER)
    example = replace(found.example, calls=calls)
    if not _writable(example, tools.values()):
        raise UnusableError(UNWRITABLE)
    for call in calls:
        if not fits(tools[call.name], call.arguments):
            raise UnusableError(ARGUMENTS)
    return found._replace(example=example)


def _ordered(call: ToolCall, tools: Mapping[str, Tool]) -> ToolCall:
    if call.name not in tools:
        raise UnusableError(NAME)
    declared = parameters_of(tools[call.name])
    if not set(call.arguments) <= set(declared):
        raise UnusableError(UNDECLARED)
    return replace(call, arguments={key: call.arguments[key] for key in declared if key in call.arguments})


def _is_placeholder(value: Any, said: str) -> bool:
    """Whether it stands for a value that nobody said; an HTML tag that was said looks like one and is none."""
    if not isinstance(value, str) or not _PLACEHOLDER.fullmatch(value):
        return False
    return not value.strip() or value not in said


def _writable(example: Example, tools: Any) -> bool:
    """Whether all of it is JSON in UTF-8, and gold is read back as it was written."""
    try:
        json.dumps(example_to_json(example), ensure_ascii=False, allow_nan=False).encode()
        "".join(tool.text for tool in tools).encode()
        return not example.calls or parse(render(example.calls)) == list(example.calls)
    except (ValueError, TypeError, RecursionError):
        return False
