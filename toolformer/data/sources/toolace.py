"""In: a folder with Team-ACE/ToolACE (Liu et al. 2024), or the hub. Out: a row for each answer in its conversations.

``system`` is a text with a list of functions in JSON; of several lists the longest is theirs. An answer is calls,
``[Name(key=value), ...]``, or words. One in brackets that cannot be read as calls is set aside, and so is what follows
it in the conversation; so is one that puts a call between words. Of ``system`` the time that it states is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from toolformer.data.sources import conversations
from toolformer.data.sources.call_rows import BROKEN, UnusableError, distinct
from toolformer.data.sources.call_text import read_calls
from toolformer.data.sources.conversations import Turn
from toolformer.data.sources.hub_files import read_rows
from toolformer.data.sources.source import Found, SetAside, Source
from toolformer.records import Message, Tool
from toolformer.schemas import tool_from_openai

NAME = "toolace"
HUB = "Team-ACE/ToolACE"
FILE = "data.json"
_TIME = re.compile(r"(?:Today is|The current (?:time|date) is)\s[^\n.\[]+\.?")
ROLES = {"user": "user", "assistant": "assistant", "tool": "tool"}


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The answers of all conversations; a conversation that cannot be read is one row."""
    for number, value in enumerate(read_rows(folder, HUB, FILE), start=1):
        place, text = f"{FILE}:{number}", json.dumps(value)
        try:
            tools, values = _tools(value["system"]), value["conversations"]
            time = _TIME.search(value["system"])
        except UnusableError as error:
            yield SetAside(place, str(error), text)
        except (ValueError, KeyError, TypeError, AttributeError):
            yield SetAside(place, BROKEN, text)
        else:
            known = (Message("system", time.group()),) if time else ()
            turn = partial(_turn, tools)
            name = f"{NAME}/train/{number}"
            yield from conversations.rows(name, place, values, turn, tools, text=text, known=known)


def _tools(system: str) -> dict[str, Tool]:
    """The functions that ``system`` lists."""
    decoder, found, at = json.JSONDecoder(), [], system.find("[{")
    while at >= 0:
        try:
            listed, end = decoder.raw_decode(system, at)
        except (ValueError, RecursionError):
            end = at + 2
        else:
            found.append((end - at, listed))
        at = system.find("[{", end)
    if not found:
        raise UnusableError("conversation: no tools")
    _, listed = max(found, key=lambda one: one[0])
    return distinct(_tool, listed)


def _tool(row: Any, place: str) -> Tool:
    return tool_from_openai({key: row[key] for key in ("name", "description", "parameters") if key in row}, place)


def _turn(tools: dict[str, Tool], value: Any) -> Turn:
    role, said = ROLES[value["from"]], value["value"].strip()
    if role == "assistant" and said.startswith("[") and said.endswith("]"):
        return Turn(role, "", read_calls(said, tools))
    if role == "assistant" and any(f"{name}(" in said for name in tools):
        raise UnusableError("answer: a call between words")
    return Turn(role, said)


SOURCE = Source(NAME, "Apache-2.0", f"https://huggingface.co/datasets/{HUB}", read, hub=HUB)
