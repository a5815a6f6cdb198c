"""In: the folder of SNIPS' custom-intent-engines benchmark. Out: its utterances as calls of seven tools.

The tools are written by hand in ``snips_tools.yaml``: upstream names intents and slots and describes neither. Values
are spans of the utterance, so all parameters are texts. An utterance that fills one slot twice is set aside, as one
parameter takes one value. ``train_PlayMusic_full.json`` is Latin-1, all others are UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolformer.data.sources.files import read_json
from toolformer.data.sources.slot_tools import Part, SlotTool, read_slot_tools, template_of, text_of
from toolformer.data.sources.source import Found, SetAside, Source
from toolformer.records import Example, Message

NAME = "snips"
FILES = {"train": "train_{}_full.json", "validate": "validate_{}.json"}
LATIN_1 = {"train_PlayMusic_full.json"}
TOOLS = Path(__file__).with_name("snips_tools.yaml")


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of both splits, intent by intent."""
    for split, pattern in FILES.items():
        for intent, tool in read_slot_tools(TOOLS, lambda intent: "").items():
            path = folder / pattern.format(intent)
            rows = read_json(path, dict, "latin-1" if path.name in LATIN_1 else "utf-8").get(intent)
            if not isinstance(rows, list):
                raise ValueError(f"{path}:1: has no list {intent!r}; download the file again")
            for number, row in enumerate(rows, start=1):
                yield _row(f"{path.name}:{number}", row, intent, tool, split, number)


def _row(place: str, row: Any, intent: str, tool: SlotTool, split: str, number: int) -> Found | SetAside:
    text = json.dumps(row, ensure_ascii=False)
    parts = _parts(row)
    if parts is None:
        return SetAside(place, "row: not as upstream", text)
    if not text_of(parts):
        return SetAside(place, "row: no text", text)
    call = tool.call(parts)
    if isinstance(call, str):
        return SetAside(place, call, text)
    example = Example(
        f"{NAME}/{split}/{intent}/{number}",
        (Message("user", text_of(parts)),),
        (tool.offered.tool.id,),
        (call,),
        "",
        NAME,
        pattern=template_of(intent, parts),
    )
    return Found(place, example, (tool.offered,), split)


def _parts(row: Any) -> list[Part] | None:
    match row:
        case {"data": [*pieces]}:
            parts = []
            for piece in pieces:
                match piece:
                    case {"text": str(said), "entity": str(slot)} if slot:
                        parts.append(Part(said, slot))
                    case {"text": str(said), **rest} if "entity" not in rest:
                        parts.append(Part(said))
                    case _:
                        return None
            return parts
    return None


SOURCE = Source(name=NAME, licence="CC0-1.0", url="https://github.com/sonos/nlu-benchmark", read=read, hub=None)
