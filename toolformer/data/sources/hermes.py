"""In: a folder with NousResearch/hermes-function-calling-v1, or the hub. Out: a row for each answer in conversations.

Files, in this order: ``func-calling-singleturn``, ``func-calling``, ``glaive-function-calling-5k``; those of JSON mode
call no tool and are not read. Tools stand in the system message between ``<tools>`` tags, calls between ``<tool_call>``
tags, as JSON or as Python writes a dict. The system message goes, as it only says how to call. Of an answer with calls
and words the calls are kept.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolformer.data.sources import conversations
from toolformer.data.sources.call_rows import BROKEN, SCHEMA, UnusableError, distinct
from toolformer.data.sources.call_text import UNREADABLE
from toolformer.data.sources.conversations import Turn
from toolformer.data.sources.hub_files import read_rows
from toolformer.data.sources.source import Found, SetAside, Source
from toolformer.records import Tool, ToolCall
from toolformer.schemas import tool_from_openai

NAME = "hermes"
HUB = "NousResearch/hermes-function-calling-v1"
FILES = ("func-calling-singleturn.json", "func-calling.json", "glaive-function-calling-5k.json")
ROLES = {"human": "user", "gpt": "assistant", "tool": "tool"}
_TOOLS = re.compile(r"<tools>\s*([\[{].*?[\]}])\s*</tools>", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESULT = re.compile(r"</?tool_response>")


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The answers of all conversations; a conversation that cannot be read is one row."""
    for name in FILES:
        for number, value in enumerate(read_rows(folder, HUB, name), start=1):
            place, text = f"{name}:{number}", json.dumps(value)
            try:
                system, *values = value["conversations"]
                tools = _tools(system)
            except UnusableError as error:
                yield SetAside(place, str(error), text)
            except (ValueError, KeyError, TypeError):
                yield SetAside(place, BROKEN, text)
            else:
                conversation = f"{NAME}/{name.removesuffix('.json')}/{number}"
                yield from conversations.rows(conversation, place, values, _turn, tools, text=text)


def _tools(system: Any) -> dict[str, Tool]:
    if system["from"] != "system":
        raise UnusableError("conversation: no tools")
    found = _TOOLS.findall(system["value"])
    if not found:
        raise UnusableError("conversation: no tools")
    listed = _literal(found[-1], SCHEMA)
    return distinct(tool_from_openai, listed if isinstance(listed, list) else [listed])


def _turn(value: Any) -> Turn:
    role, said = ROLES[value["from"]], value["value"]
    if role == "tool":
        return Turn(role, _RESULT.sub("", said).strip())
    if role == "user" or "<tool_call>" not in said:
        return Turn(role, said.strip())
    calls = [_literal(text, UNREADABLE) for text in _CALL.findall(said)]
    if len(calls) != said.count("<tool_call>"):
        raise UnusableError(UNREADABLE)
    return Turn(role, "", tuple(ToolCall(call["name"], dict(call["arguments"])) for call in calls))


def _literal(text: str, reason: str) -> Any:
    """What JSON or a Python literal says."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():  # a backslash in a description is not for us to mend
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UnusableError(reason) from error


SOURCE = Source(NAME, "Apache-2.0", f"https://huggingface.co/datasets/{HUB}", read, hub=HUB)
