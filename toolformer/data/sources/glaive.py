"""In: the folder of LLaMA-Factory's excerpt of glaive-function-calling-v2. Out: a row for each answer in it.

ShareGPT's layout: ``conversations`` of human, gpt, function_call and observation, ``tools`` as JSON inside JSON. A
conversation without tools is one row, for its first answer: no call, stratum ``small_talk``. Of the 191 conversations
with tools come 211 calls, of which one does not fit its tool and one has an empty value, and 349 plain answers, 211 of
them to a call's result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolformer.data.sources import conversations
from toolformer.data.sources.call_rows import BROKEN, UnusableError, distinct
from toolformer.data.sources.conversations import Turn
from toolformer.data.sources.files import read_list
from toolformer.data.sources.source import Found, SetAside, Source
from toolformer.records import ToolCall
from toolformer.schemas import tool_from_openai

NAME = "glaive-demo"
FILE = "glaive_toolcall_en_demo.json"
ROLES = {"system": "system", "human": "user", "gpt": "assistant", "observation": "tool"}


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The answers of all conversations; a conversation that cannot be read is one row."""
    for number, value in enumerate(read_list(folder / FILE), start=1):
        place, text = f"{FILE}:{number}", json.dumps(value)
        try:
            listed, values = json.loads(value["tools"] or "[]"), value["conversations"]
            tools = distinct(tool_from_openai, listed)
        except UnusableError as error:
            yield SetAside(place, str(error), text)
        except (ValueError, KeyError, TypeError, RecursionError):
            yield SetAside(place, BROKEN, text)
        else:
            found = conversations.rows(f"{NAME}/train/{number}", place, values, _turn, tools, text=text)
            if tools:
                yield from found
            else:
                yield next(found)


def _turn(value: Any) -> Turn:
    if value["from"] != "function_call":
        return Turn(ROLES[value["from"]], value["value"])
    call = json.loads(value["value"])
    return Turn("assistant", "", (ToolCall(call["name"], dict(call["arguments"])),))


SOURCE = Source(NAME, "Apache-2.0", "https://github.com/hiyouga/LLaMA-Factory", read)
