"""In: the folder of Seal-Tools (Wu et al. 2024). Out: instructions with one or more calls, each with five candidates.

Files, in this order: ``dev``, ``test_in_domain``, ``test_out_domain``; a row offers the five candidates that
``dataset_for_finetune`` has for it. Text that spells exactly one number or truth value of the declared type is read as
that ("40.7" for a float). Set aside are calls that refer to an earlier one's result (``API_call_0``), that hold a
placeholder ("a specific country" as ``country``) or a fraction that nobody said, values of other types, and gold that
is no candidate: 147 of the 2,054 rows.
All 4,076 tools of ``tool.jsonl`` are further tools.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from toolformer.data.sources.call_rows import PLACEHOLDER, UnusableError, distinct, lines, once, row, texts
from toolformer.data.sources.files import read_list
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.schemas import parameters_of, tool_from_flat
from toolformer.schemas.type_text import as_typed

NAME = "seal-tools"
SPLITS = ("dev", "test_in_domain", "test_out_domain")
PLACES = {"address", "area", "city", "country", "location", "region", "state"}
CANDIDATES = "tool: no candidates for this row"
_LIST = re.compile(r"\napi_list = (\[.*\])\ntask_instruction = ", re.DOTALL)
_RESULT = re.compile(r"API_call_\d")


def tools(folder: Path) -> Iterator[Offered]:
    """All tools, in upstream's order; a broken line is an error."""
    for number, _, value in lines(folder / "tool.jsonl"):
        place = f"{folder / 'tool.jsonl'}:{number}"
        try:
            offered = Offered(once(_tool, value), value["field"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{place}: no tool of Seal-Tools ({error!r}); download the file again") from error
        yield offered


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of the three files."""
    for split in SPLITS:
        candidates = _candidates(folder / "dataset_for_finetune" / f"{split}.json")
        for number, text, value in lines(folder / f"{split}.jsonl"):
            place = f"{split}.jsonl:{number}"
            yield row(place, value, partial(_found, place, split, candidates), text)


def _candidates(path: Path) -> dict[str, str]:
    """The list of candidates as upstream wrote it, by the row's id; a row that cannot be read has none."""
    found = {}
    for value in read_list(path):
        match value:
            case {"id": str(id_), "conversations": [{"value": str(prompt)}, *_]} if listed := _LIST.search(prompt):
                found[id_] = listed[1]
    return found


def _found(place: str, split: str, candidates: dict[str, str], value: Any) -> Found:
    id_, query, calling = value["id"], value["query"], value["calling"]
    texts(id_, query)
    if not isinstance(calling, list) or not calling:
        raise UnusableError("gold: no call")
    if id_ not in candidates:  # each is taken once, so that no id comes twice
        raise UnusableError(CANDIDATES)
    listed = _literal(candidates.pop(id_))
    offered = distinct(_tool, listed)
    domains = {api["api_name"]: api["field"] for api in listed}
    calls = tuple(_call(call["api"], call["parameters"], offered) for call in calling)
    if any(_RESULT.search(json.dumps(call.arguments)) for call in calls):
        raise UnusableError("gold: it refers to the result of an earlier call")
    for key, value in (pair for call in calls for pair in call.arguments.items()):
        if isinstance(value, str) and _unnamed(key, value, query):
            raise UnusableError(PLACEHOLDER)
        if isinstance(value, float) and not _said(value, query):
            raise UnusableError("gold: a number that was not said")
    ids = tuple(tool.id for tool in offered.values())
    example = Example(f"{NAME}/{split}/{id_}", (Message("user", query.strip()),), ids, calls, "", NAME)
    return Found(place, example, tuple(Offered(tool, domains[name]) for name, tool in offered.items()), split)


def _unnamed(key: str, value: str, query: str) -> bool:
    """Whether the query leaves open which one: a certain country, the specified address."""
    open_ = rf"\b(?:a|any|the) (?:specific|specified|certain|given|particular) {re.escape(value)}\b"
    return (key in PLACES and value.lower() in PLACES) or re.search(open_, query, re.IGNORECASE) is not None


def _said(value: float, query: str) -> bool:
    """Whether the query has a fraction, as it is or in percent; whole numbers and powers have too many spellings."""
    written = (f"{number:.15g}" for number in (abs(value), abs(value) * 100))
    return value % 1 == 0 or "10^" in query or any(number in query for number in written)


def _literal(text: str) -> Any:
    """A Python literal, ``[{'api_name': ...}]``."""
    try:
        with warnings.catch_warnings():  # "\d" in a description is not for us to mend
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UnusableError(CANDIDATES) from error


def _tool(api: Mapping[str, Any], place: str) -> Tool:
    row = {"name": api["api_name"], "description": api["api_description"]}
    return tool_from_flat({**row, "parameters": api["parameters"], "required": api["required"]}, place)


def _call(name: str, arguments: Mapping[str, Any], offered: Mapping[str, Tool]) -> ToolCall:
    declared = parameters_of(offered[name]) if name in offered else {}
    return ToolCall(name, {key: _typed(value, declared.get(key, {})) for key, value in arguments.items()})


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type", "")
    return as_typed(value, kind) if isinstance(kind, str) else value


SOURCE = Source(NAME, "Apache-2.0", "https://github.com/fairyshine/Seal-Tools", read, tools=tools)
