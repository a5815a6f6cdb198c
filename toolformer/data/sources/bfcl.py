"""In: the folder of BFCL v4, single turn (Patil et al. 2025). Out: its requests with gold calls; for evaluation alone.

The category of a row is in its id: ``bfcl-v4/<category>/<upstream's id>``. Names keep their dots.

Gold lists accepted values per parameter, and "" where it may be left out. An argument is the first value that fits the
parameter's schema, in the schema's order; the others are ``accepted``. Where a parameter may be left out and no listed
value fits (``[""]``, ``["", null]``), it is left out, and so is one that the tool does not have. That a required
parameter may be left out is ignored, as in the official rules. An object lists accepted values per key; all its
combinations are accepted.

Java and JavaScript: "any" is text, so ``new Path('/x')`` stays as it is. Where a variable's name stands for an integer,
an array or a map, no JSON value is right, and the row is set aside. live_relevance names no call and only says that
some call is due: set aside. live_irrelevance rows want no call: ``tool_missing``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from toolformer.data.sources.files import json_lines
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.schemas import parameters_of, required_of, tool_from_openai

NAME = "bfcl-v4"
FILES = {
    "simple_python": "BFCL_v4_simple_python.json",
    "multiple": "BFCL_v4_multiple.json",
    "parallel": "BFCL_v4_parallel.json",
    "parallel_multiple": "BFCL_v4_parallel_multiple.json",
    "simple_java": "BFCL_v4_simple_java.json",
    "simple_javascript": "BFCL_v4_simple_javascript.json",
    "live_multiple": "BFCL_v4_live_multiple.json",
    "live_irrelevance": "BFCL_v4_live_irrelevance.json",
    "live_relevance": "BFCL_v4_live_relevance.json",
}
WITHOUT_GOLD = ("live_irrelevance", "live_relevance")
COMBINATIONS = 256  # of the accepted values of one object or list of objects
BROKEN = "row: not as upstream"


class _UnusableError(ValueError):
    """Why a row's gold cannot be used."""


def read(folder: Path) -> Iterator[Found | SetAside]:
    """The rows of all nine files."""
    for category, name in FILES.items():
        gold = {} if category in WITHOUT_GOLD else _gold(folder / "possible_answer" / name)
        for number, text, row in json_lines(folder / name):
            yield _row(f"{name}:{number}", text, row, category, gold)


def _gold(path: Path) -> dict[str, Any]:
    rows = [row for _, _, row in json_lines(path)]
    return {
        row["id"]: row.get("ground_truth") for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)
    }


def _row(place: str, text: str, row: Any, category: str, gold: Mapping[str, Any]) -> Found | SetAside:
    match row:
        case {"id": str(id_), "question": [[_, *_] as turns], "function": [*functions]}:
            messages = [_message(turn) for turn in turns]
        case _:
            return SetAside(place, BROKEN, text)
    if None in messages or turns[-1]["role"] != "user":
        return SetAside(place, "row: messages that cannot be read", text)
    if category == "live_relevance":
        return SetAside(place, "gold: some call is due, and none is named", text)
    try:
        tools = {tool.name: tool for tool in (tool_from_openai(function, place) for function in functions)}
    except ValueError:
        return SetAside(place, "tool: its schema cannot be read", text)
    if len(tools) < len(functions):
        return SetAside(place, "tool: two of one name", text)
    try:
        calls = () if category in WITHOUT_GOLD else _calls(gold.get(id_), tools)
    except _UnusableError as error:
        return SetAside(place, str(error), text)
    offered = tuple(Offered(tool) for tool in tools.values())
    ids = tuple(tool.id for tool in tools.values())
    stratum = "tool_missing" if category == "live_irrelevance" else ""
    example = Example(f"{NAME}/{category}/{id_}", tuple(filter(None, messages)), ids, calls, "", NAME, stratum)
    return Found(place, example, offered, "test")


def _message(turn: Any) -> Message | None:
    match turn:
        case {"role": "system" | "user" | "assistant" as role, "content": str(said)} if said.strip():
            return Message(role, said)
    return None


def _calls(truth: Any, tools: Mapping[str, Tool]) -> tuple[ToolCall, ...]:
    if not isinstance(truth, list) or not truth:
        raise _UnusableError("gold: there is none")
    calls = []
    for call in truth:
        if not isinstance(call, dict) or len(call) != 1:
            raise _UnusableError("gold: not as upstream")
        ((name, arguments),) = call.items()
        if name not in tools:
            raise _UnusableError("gold: a call of no tool on offer")
        if not isinstance(arguments, dict) or not all(isinstance(v, list) and v for v in arguments.values()):
            raise _UnusableError("gold: not as upstream")
        calls.append(_call(tools[name], arguments))
    return tuple(calls)


def _call(tool: Tool, listed: Mapping[str, list[Any]]) -> ToolCall:
    """The call whose arguments are the first accepted values that fit, with all others beside them."""
    declared, required = parameters_of(tool), required_of(tool)
    if any(name not in declared and "" not in values for name, values in listed.items()):
        raise _UnusableError("gold: a parameter that the tool does not have")
    arguments, accepted, omittable = {}, {}, []
    for name in (name for name in declared if name in listed):
        spec = Draft202012Validator(declared[name])
        may_omit = "" in listed[name] and name not in required
        answers = [answer for answer in listed[name] if answer != "" or not may_omit]
        values = [value for answer in answers for value in _combinations(answer)]
        fitting = [value for value in values if spec.is_valid(value)]
        omittable += [name] if may_omit else []
        if fitting:
            arguments[name] = fitting[0]
        elif not may_omit:
            raise _UnusableError("gold: no accepted value fits its parameter")
        if others := _others(values, arguments.get(name), name in arguments):
            accepted[name] = others
    return ToolCall(tool.name, arguments, accepted, tuple(omittable))


def _others(values: list[Any], chosen: Any, is_chosen: bool) -> list[Any]:
    """What is accepted beside ``chosen``, each once; 1, 1.0 and true are three values."""
    distinct = {json.dumps(value): value for value in values}
    if is_chosen:
        del distinct[json.dumps(chosen)]
    return list(distinct.values())


def _combinations(answer: Any) -> list[Any]:
    """The values that an accepted answer stands for: itself, unless it is or lists objects of accepted values."""
    if isinstance(answer, dict):
        choices = [value if isinstance(value, list) and value else [value] for value in answer.values()]
        _limit([len(values) for values in choices])
        chosen = [dict(zip(answer, values, strict=True)) for values in product(*choices)]
        return [{key: value for key, value in one.items() if value != ""} for one in chosen]
    if isinstance(answer, list) and answer and all(isinstance(item, dict) for item in answer):
        each = [_combinations(item) for item in answer]
        _limit([len(values) for values in each])
        return [list(items) for items in product(*each)]
    return [answer]


def _limit(sizes: list[int]) -> None:
    total = 1
    for size in sizes:
        total *= size
        if total > COMBINATIONS:
            raise _UnusableError("gold: too many combinations are accepted")


SOURCE = Source(
    name=NAME,
    licence="Apache-2.0",
    url="https://github.com/ShishirPatil/gorilla",
    read=read,
    evaluates_only=True,
    hub="gorilla-llm/Berkeley-Function-Calling-Leaderboard",
)
