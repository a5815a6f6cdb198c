"""In: the folder of NLU-Evaluation-Data (Liu et al. 2019). Out: utterances as calls of 54 tools, or as small talk.

The tools are written by hand in ``nlu_tools.yaml``: upstream names intents and slots and describes neither. An intent
is a scenario (the tool's domain) and what is to be done. Values are spans of the utterance, so parameters are texts; a
slot that often has two values in one utterance, such as the currencies of a conversion, is a list of texts, in the
order in which they are said. Elsewhere an utterance with two values for a slot is set aside, and so is one with a slot
that an intent has by mistake or by chance. ``general_*`` intents are small talk: no call is right.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from toolformer.data.sources.files import read_text
from toolformer.data.sources.slot_tools import Part, SlotTool, read_slot_tools, template_of, text_of
from toolformer.data.sources.source import Found, SetAside, Source
from toolformer.records import Example, Message

NAME = "nlu-evaluation-data"
FOLDERS = {"train": "trainset", "test": "testset"}
TOOLS = Path(__file__).with_name("nlu_tools.yaml")
SMALL_TALK = tuple(
    f"general_{intent}"
    for intent in "affirm commandstop confirm dontcare explain joke negate praise quirky repeat".split()
)
HEADER = ["answerid", "scenario", "intent", "answer_annotation", "answer_from_anno", "answer_from_user"]
_MARKED = re.compile(r"\[([^\[\]:]*) : ([^\[\]]*)\]")


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of both splits, intent by intent."""
    tools = read_slot_tools(TOOLS, lambda intent: intent.split("_")[0])
    for split, name in FOLDERS.items():
        for intent in sorted([*tools, *SMALL_TALK]):
            path = folder / name / f"{intent}.csv"
            lines = [line.rstrip("\r") for line in read_text(path).rstrip("\n").split("\n")]
            if lines[:1] != [";".join(HEADER)]:
                raise ValueError(f"{path}:1: the columns are {lines[:1]}, not {HEADER}; download the file again")
            for number, line in enumerate(lines[1:], start=2):
                yield _row(f"{name}/{path.name}:{number}", line, intent, tools.get(intent), split, number)


def _row(place: str, line: str, intent: str, tool: SlotTool | None, split: str, number: int) -> Found | SetAside:
    try:
        fields = next(csv.reader([line], delimiter=";"), [])
    except csv.Error:  # a field of more than 131,072 characters
        fields = []
    if len(fields) != len(HEADER) or f"{fields[1]}_{fields[2]}" != intent:
        return SetAside(place, "row: not as upstream", line)
    parts = _parts(fields[3])
    said = text_of(parts)
    if not said or any(mark in said for mark in "[]"):
        return SetAside(place, "row: the annotation cannot be read", line)
    call = tool.call(parts) if tool else None
    if isinstance(call, str):
        return SetAside(place, call, line)
    example = Example(
        f"{NAME}/{split}/{intent}/{number}",
        (Message("user", said),),
        (tool.offered.tool.id,) if tool else (),
        (call,) if call else (),
        "",
        NAME,
        "" if tool else "small_talk",
        template_of(intent, parts),
    )
    return Found(place, example, (tool.offered,) if tool else (), split)


def _parts(annotation: str) -> list[Part]:
    parts, at = [], 0
    for mark in _MARKED.finditer(annotation):
        parts += [Part(annotation[at : mark.start()]), Part(mark[2].strip(), mark[1].strip())]
        at = mark.end()
    return [*parts, Part(annotation[at:])]


SOURCE = Source(name=NAME, licence="CC-BY-4.0", url="https://github.com/xliuhw/NLU-Evaluation-Data", read=read)
