"""In: the folder of StableToolBench's solvable queries (Guo et al. 2024). Out: requests and the real APIs they need.

Gold is a set of APIs without arguments, so only the choice is judged. Schemas are upstream's, required parameters
included: a gold call without them is right all the same, as ``selects_only`` says. An API is named
``<api_name>_for_<tool_name>`` as in ToolBench's prompts, in lower case with ``_`` for all else; two candidates of one
request that come out with the same name cannot be told apart, and the request is set aside. A gold API that is listed
twice is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolformer.data.sources.files import read_list
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, ToolCall
from toolformer.schemas import tool_from_lists

NAME = "stabletoolbench"
FILES = (
    "G1_instruction.json",
    "G1_category.json",
    "G1_tool.json",
    "G2_instruction.json",
    "G2_category.json",
    "G3_instruction.json",
)
BROKEN = "row: not as upstream"


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The requests of the six groups."""
    for name in FILES:
        group = name.split(".")[0]
        for number, row in enumerate(read_list(folder / name), start=1):
            yield _row(f"{name}:{number}", row, group)


def _row(place: str, row: Any, group: str) -> Found | SetAside:
    text = json.dumps(row, ensure_ascii=False)
    match row:
        case {"query": str(query), "query_id": int(id_), "api_list": [_, *_] as apis, "relevant APIs": [_, *_] as gold}:
            pass
        case _:
            return SetAside(place, BROKEN, text)
    if not query.strip() or not all(map(_is_api, apis)) or not all(map(_is_pair, gold)):
        return SetAside(place, BROKEN, text)
    try:
        offered = {(api["tool_name"], api["api_name"]): _offered(api, place) for api in apis}
    except ValueError:
        return SetAside(place, "tool: its schema cannot be read", text)
    names = [o.tool.name for o in offered.values()]
    if len(set(names)) < len(names):
        return SetAside(place, "tool: two candidates of one name", text)
    wanted = dict.fromkeys((tool, name) for tool, name in gold)
    if not all(pair in offered for pair in wanted):
        return SetAside(place, "gold: an API that is not among the candidates", text)
    example = Example(
        f"{NAME}/{group}/{id_}",
        (Message("user", query.strip()),),
        tuple(o.tool.id for o in offered.values()),
        tuple(ToolCall(offered[pair].tool.name, {}) for pair in wanted),
        "",
        NAME,
    )
    return Found(place, example, tuple(offered.values()), "test")


def _is_api(api: Any) -> bool:
    match api:
        case {
            "category_name": str(),
            "tool_name": str(),
            "api_name": str(),
            "api_description": str() | None,
            "required_parameters": [*_],
            "optional_parameters": [*_],
        }:
            return True
    return False


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)


def _offered(api: Mapping[str, Any], place: str) -> Offered:
    row = {
        "name": f"{_plain(api['api_name'])}_for_{_plain(api['tool_name'])}",
        "description": api["api_description"].strip() if api["api_description"] else "",
        "required_parameters": api["required_parameters"],
        "optional_parameters": api["optional_parameters"],
    }
    return Offered(tool_from_lists(row, place), api["category_name"])


def _plain(name: str) -> str:
    """``/api/Tracking/`` -> ``api_tracking``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


SOURCE = Source(
    name=NAME,
    licence="Apache-2.0",
    url="https://github.com/THUNLP-MT/StableToolBench",
    read=read,
    selects_only=True,
    evaluates_only=True,
)
