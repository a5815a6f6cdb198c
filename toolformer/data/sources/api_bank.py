"""In: the folder of API-Bank's level 3 training data (Li et al. 2023). Out: requests with one call, or with an answer.

A row offers the tools that upstream's ``ToolSearcher`` found for it up to there; calls and results since then are part
of the conversation, searches are not. The time of the request stands below it. ``pattern`` is the request: several rows
share it. Rows of ``lv3-response-train`` word a result: no call, no stratum. Bare words in a call (``city=New York``)
are a text. Set aside are gold searches (no tool of ours is searched for), other calls that are no Python, gold or
earlier, and tools that cannot be read. Left are 380 of the 445 rows that do not search, where 316 put all their values
into quotes, and 300 of 338 answers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from toolformer.calls import render
from toolformer.data.sources.call_rows import BROKEN, SCHEMA, UnusableError, distinct, row, texts
from toolformer.data.sources.call_text import read_calls
from toolformer.data.sources.files import read_list
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.schemas import tool_from_flat

NAME = "api-bank"
CALLS, ANSWERS = "lv3-api-train", "lv3-response-train"
SEARCH = "ToolSearcher"
_REQUEST = re.compile(r"\nUser: (?P<text>.*?)(?:TIME: (?P<time>.*))?\n")
_BARE = re.compile(r"(\b\w+)=([^'\"\[\](){},=]+)(?=, \w+=|\)\])")  # city=New York
_STEP = re.compile(
    r"\nAPI-Request: (.*?)->(.*?)(?=\nAPI-Request: |\nGenerate (?:API Request|AI Response): )", re.DOTALL
)


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of both files."""
    for split in (CALLS, ANSWERS):
        for number, value in enumerate(read_list(folder / f"{split}.json"), start=1):
            place = f"{split}.json:{number}"
            yield row(place, value, partial(_found, place, f"{NAME}/{split}/{number}", split))


def _found(place: str, id_: str, split: str, value: Any) -> Found:
    asked, output = value["input"], value["output"]
    texts(asked, output)
    request = _REQUEST.search(asked)
    if not request:
        raise UnusableError(BROKEN)
    start, _, gold = output.partition(": ")
    if start != ("API-Request" if split == CALLS else "AI") or not gold.strip():
        raise UnusableError(BROKEN)
    if split == CALLS and gold.startswith(f"[{SEARCH}("):
        raise UnusableError("gold: a search for a tool")
    text = request["text"].strip()
    time = f"\nThe current time is {request['time'].strip()}." if request["time"] else ""
    messages, found = [Message("user", text + time)], []
    for call, result in _STEP.findall(asked):
        if call.startswith(f"[{SEARCH}("):
            found += _searched(result)
        else:
            messages += [Message("assistant", _earlier(call)), Message("tool", result.strip())]
    tools = distinct(_tool, found)
    calls = _calls(gold) if split == CALLS else ()
    ids = tuple(tool.id for tool in tools.values())
    reply = "" if calls else gold.strip()
    example = Example(id_, tuple(messages), ids, calls, reply, NAME, "", f"{NAME}/{text}")
    return Found(place, example, tuple(map(Offered, tools.values())))


def _calls(text: str) -> tuple[ToolCall, ...]:
    """The calls of ``text``, where bare words may stand for texts."""
    try:
        return read_calls(text)
    except UnusableError:
        return read_calls(_BARE.sub(_quoted, text))


def _quoted(words: re.Match[str]) -> str:
    try:
        ast.literal_eval(words[2])
    except (ValueError, SyntaxError):
        return f"{words[1]}={words[2].strip()!r}"
    return words[0]


def _earlier(call: str) -> str:
    """A call of the conversation as our prompts write it."""
    try:
        return render(_calls(call))
    except ValueError as error:
        raise UnusableError("conversation: a call that cannot be read") from error


def _searched(result: str) -> list[Any]:
    """The tools that a search found: one as a Python literal, or a list of them."""
    try:
        found = ast.literal_eval(result.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UnusableError(SCHEMA) from error
    return found if isinstance(found, list) else [found]


def _tool(api: Any, place: str) -> Tool:
    if not isinstance(api, dict) or "input_parameters" not in api:
        raise ValueError(f"{place}: no tool with input_parameters")
    row = {"name": api.get("name"), "description": api.get("description")}
    return tool_from_flat({**row, "parameters": api["input_parameters"]}, place)


SOURCE = Source(NAME, "Apache-2.0", "https://github.com/AlibabaResearch/DAMO-ConvAI/tree/main/api-bank", read)
