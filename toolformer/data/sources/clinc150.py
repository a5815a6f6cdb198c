"""In: the folder of CLINC150 (Larson et al. 2019). Out: queries as calls of 150 tools without parameters, or no call.

What each intent does is written by hand in ``clinc150_tools.yaml``; upstream names intents alone. An out-of-scope query
asks for something that none of the 150 intents does: its stratum is ``tool_missing``, for it is no small talk, and no
near miss of what happens to be offered beside it. That no tool fits was judged against these 150 alone, so the tools
offered with such a query should come from this source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from toolformer.data.sources.files import read_json
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall

NAME = "clinc150"
DATA, DOMAINS = "data_full.json", "domains.json"
PARTS = {"train": "train", "val": "val", "test": "test", "oos_train": "train", "oos_val": "val", "oos_test": "test"}
OUT_OF_SCOPE = "oos"
TOOLS = Path(__file__).with_name("clinc150_tools.yaml")


def tools(folder: Path) -> Iterator[Offered]:
    """The 150 intents, in the order of the YAML file."""
    domains = {intent: domain for domain, intents in read_json(folder / DOMAINS, dict).items() for intent in intents}
    for name, description in yaml.safe_load(TOOLS.read_text("utf-8")).items():
        tool = Tool(name, description, {"type": "object", "properties": {}})
        yield Offered(tool, domains.get(name, ""))


def read(folder: Path) -> Iterator[Found | SetAside]:
    """In-scope queries of the three splits, then those out of scope."""
    by_name = {offered.tool.name: offered for offered in tools(folder)}
    data = read_json(folder / DATA, dict)
    for part, split in PARTS.items():
        if not isinstance(data.get(part), list):
            raise ValueError(f"{folder / DATA}:1: has no list {part!r}; download the file again")
        for number, row in enumerate(data[part], start=1):
            yield _row(f"{DATA}/{part}:{number}", row, by_name, f"{NAME}/{part}/{number}", split)


def _row(place: str, row: Any, by_name: dict[str, Offered], name: str, split: str) -> Found | SetAside:
    text = json.dumps(row, ensure_ascii=False)
    match row:
        case [str(query), str(intent)] if query.strip():
            pass
        case _:
            return SetAside(place, "row: not as upstream", text)
    if intent != OUT_OF_SCOPE and intent not in by_name:
        return SetAside(place, "row: unknown intent", text)
    offered = () if intent == OUT_OF_SCOPE else (by_name[intent],)
    example = Example(
        name,
        (Message("user", query.strip()),),
        tuple(o.tool.id for o in offered),
        tuple(ToolCall(o.tool.name, {}) for o in offered),
        "",
        NAME,
        "" if offered else "tool_missing",
    )
    return Found(place, example, offered, split)


SOURCE = Source(
    name=NAME,
    licence="CC-BY-3.0",
    url="https://github.com/clinc/oos-eval",
    read=read,
    tools=tools,
    hub="clinc/clinc_oos",
)
