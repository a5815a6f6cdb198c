"""In: the folder of MetaTool (Huang et al. 2023). Out: queries as calls of 199 tools without parameters, or no call.

Files, in this order: ``all_clean_data`` (a query and its tool), ``Task2-Subtask4`` (two tools, ten candidates; its gold
is that of ``multi_tool_query_golden.json``), ``Task2-Subtask3`` (ten candidates of which none fits: ``tool_missing``)
and ``Task1`` (whether a tool is needed: "negative" queries want none, stratum ``small_talk``; "positive" ones repeat
``all_clean_data`` and are set aside but for one). A query that upstream labels with several tools is set aside, also
where the labels stand beside queries that differ in case and spaces.

Upstream describes a tool by its name and one sentence, that of ``plugin_des.json``: the prompts misquote some. That no
tool fits was judged against the tools of this source, so those offered with such a query should come from it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolformer.data.sources.files import read_json, read_list, read_text
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall

NAME = "metatool"
PAIRS, TWO, NONE, NEEDED = "all_clean_data.csv", "Task2-Subtask4.json", "Task2-Subtask3.json", "Task1.json"
DESCRIPTIONS = "plugin_des.json"
BROKEN = "row: not as upstream"
UNKNOWN = "row: unknown tool"
_LIST = re.compile(
    r"\[List of Tools with Names and Descriptions Start\]\n(.*?)\n\[List of Tools with Names and Descriptions End\]",
    re.DOTALL,
)
_CANDIDATE = re.compile(r"^\d+\. tool name: (.*?), tool description: ", re.MULTILINE)
Tools = Mapping[str, Offered]


def tools(folder: Path) -> Iterator[Offered]:
    """All tools, in upstream's order."""
    for name, description in read_json(folder / DESCRIPTIONS, dict).items():
        if not isinstance(description, str):
            raise ValueError(f"{folder / DESCRIPTIONS}:1: {name!r} has no text; download the file again")
        yield Offered(Tool(name, description.strip(), {"type": "object", "properties": {}}))


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of the four files."""
    by_name = {offered.tool.name: offered for offered in tools(folder)}
    labels: dict[str, set[str]] = {}
    pairs = _pairs(folder / PAIRS)
    for _, fields in pairs:
        if len(fields) == 2:
            labels.setdefault(_same(fields[0]), set()).add(fields[1])
    for number, (line, fields) in enumerate(pairs, start=1):
        yield _pair(f"{PAIRS}:{line}", fields, f"{NAME}/pair/{number}", labels, by_name)
    for name, part in ((TWO, _two), (NONE, _none)):
        for number, row in enumerate(read_list(folder / name), start=1):
            yield part(f"{name}:{number}", row, number, by_name)
    for number, row in enumerate(read_list(folder / NEEDED), start=1):
        yield _needed(f"{NEEDED}:{number}", row, number, labels, by_name)


def _pairs(path: Path) -> list[tuple[int, list[str]]]:
    rows = csv.reader(io.StringIO(read_text(path), newline=""))
    if (header := next(rows, [])) != ["Query", "Tool"]:
        raise ValueError(f"{path}:1: the columns are {header}, not Query, Tool; download the file again")
    found = []
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return found
        except csv.Error:  # a field of more than 131,072 characters
            fields = [""]
        if fields:
            found.append((rows.line_num, fields))


def _same(query: str) -> str:
    return " ".join(query.casefold().split())


def _pair(place: str, fields: list[str], name: str, labels: Mapping[str, set[str]], by_name: Tools) -> Found | SetAside:
    text = ",".join(fields)
    if len(fields) != 2 or not fields[0].strip():
        return SetAside(place, BROKEN, text)
    if fields[1] not in by_name:
        return SetAside(place, UNKNOWN, text)
    if len(labels[_same(fields[0])]) > 1:
        return SetAside(place, "query: labelled with several tools", text)
    return _found(place, name, fields[0], [fields[1]], [by_name[fields[1]]], "", text)


def _two(place: str, row: Any, number: int, by_name: Tools) -> Found | SetAside:
    text = json.dumps(row, ensure_ascii=False)
    match row:
        case {"query": str(query), "tool": [str(one), str(two)], "action_prompt": str(prompt)} if query.strip():
            listed = _listed(prompt, by_name)
            if listed is None or one not in listed or two not in listed:
                return SetAside(place, UNKNOWN, text)
            return _found(place, f"{NAME}/two/{number}", query, [one, two], list(listed.values()), "", text)
    return SetAside(place, BROKEN, text)


def _none(place: str, row: Any, number: int, by_name: Tools) -> Found | SetAside:
    text = json.dumps(row, ensure_ascii=False)
    match row:
        case {"query": str(query), "tool": str(gold), "action_prompt": str(prompt)} if query.strip():
            listed = _listed(prompt, by_name)
            if listed is None:
                return SetAside(place, UNKNOWN, text)
            if gold in listed:
                return SetAside(place, "no tool fits: the gold tool is listed", text)
            return _found(place, f"{NAME}/none/{number}", query, [], list(listed.values()), "tool_missing", text)
    return SetAside(place, BROKEN, text)


def _needed(place: str, row: Any, number: int, labels: Mapping[str, set[str]], by_name: Tools) -> Found | SetAside:
    text, name = json.dumps(row, ensure_ascii=False), f"{NAME}/needed/{number}"
    match row:
        case {"query": str(query), "label": "negative"} if query.strip():
            return _found(place, name, query, [], [], "small_talk", text)
        case {"query": str(query), "label": "positive", "tool": str(tool)} if query.strip():
            if _same(query) in labels:
                return SetAside(place, "query: it is in all_clean_data", text)
            if tool not in by_name:
                return SetAside(place, UNKNOWN, text)
            return _found(place, name, query, [tool], [by_name[tool]], "", text)
    return SetAside(place, BROKEN, text)


def _listed(prompt: str, by_name: Tools) -> dict[str, Offered] | None:
    """The candidates in a prompt's list by name; None where there is no list or a name is not known."""
    part = _LIST.search(prompt)
    names = _CANDIDATE.findall(part[1]) if part else []
    return {name: by_name[name] for name in names} if names and all(name in by_name for name in names) else None


def _found(
    place: str,
    name: str,
    query: str,
    gold: Sequence[str],
    offered: Sequence[Offered],
    stratum: str,
    text: str,
) -> Found | SetAside:
    calls = tuple(ToolCall(tool, {}) for tool in gold)
    ids = tuple(o.tool.id for o in offered)
    example = Example(name, (Message("user", query.strip()),), ids, calls, "", NAME, stratum)
    return Found(place, example, tuple(offered))


SOURCE = Source(name=NAME, licence="MIT", url="https://github.com/HowieHwong/MetaTool", read=read, tools=tools)
