"""In: the folder of xLAM's calls (APIGen, Liu et al. 2024). Out: queries with one or more calls of their tools.

All ``*.jsonl`` are read, then ``xlam_function_calling_60k.json`` where it is there; without any it is fetched from the
hub, which asks to accept the data set's terms. ``answers`` and ``tools`` are JSON inside JSON. Required is a parameter
whose type does not say optional and that has no default; defaults are often mere samples, as upstream has them. One
name means different tools in different rows. Of the first 850 rows 820 are found: in 5 two tools share a name, in 22
gold is of another type, in 3 it has ``your_api_key``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from toolformer.data.sources.call_rows import UnusableError, distinct, lines, row, texts
from toolformer.data.sources.hub_files import read_rows
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, ToolCall
from toolformer.schemas import tool_from_flat

NAME = "xlam-1000"
HUB = "Salesforce/xlam-function-calling-60k"
FULL = "xlam_function_calling_60k.json"


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of all files, which are taken in the order of their names."""
    names = {path.name.removesuffix(".gz") for path in [*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]}
    full = not names or (folder / FULL).is_file()
    ids: set[Any] = set()
    for name in sorted(names):
        for number, text, value in lines(folder / name):
            place = f"{name}:{number}"
            yield row(place, value, partial(_found, place, ids), text)
    for number, value in enumerate(read_rows(folder, HUB, FULL) if full else [], start=1):
        place = f"{FULL}:{number}"
        yield row(place, value, partial(_found, place, ids))


def _found(place: str, ids: set[Any], value: Any) -> Found:
    id_, query = value["id"], value["query"]
    answers, listed = json.loads(value["answers"]), json.loads(value["tools"])
    texts(query)
    if type(id_) is not int or not isinstance(answers, list) or not isinstance(listed, list):
        raise TypeError
    if id_ in ids:
        raise UnusableError("row: its id is taken")
    ids.add(id_)
    if not answers:
        raise UnusableError("gold: no call")
    tools = distinct(tool_from_flat, listed)
    calls = tuple(ToolCall(answer["name"], dict(answer["arguments"])) for answer in answers)
    example = Example(
        f"{NAME}/train/{id_}",
        (Message("user", query.strip()),),
        tuple(tool.id for tool in tools.values()),
        calls,
        "",
        NAME,
    )
    return Found(place, example, tuple(map(Offered, tools.values())))


SOURCE = Source(NAME, "CC-BY-4.0", f"https://huggingface.co/datasets/{HUB}", read, hub=HUB)
