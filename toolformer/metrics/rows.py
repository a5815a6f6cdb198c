"""In: the gold and the predicted calls of one request with its tools. Out: what was right and wrong in it, as counts.

Everything METRICS counts is counted here, once per row; the metrics only add it up.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from toolformer.calls import Malformed
from toolformer.records import Tool, ToolCall
from toolformer.schemas import (
    fits,
    item_schema,
    parameters_of,
    property_schema,
    required_of,
    values_equal,
    values_equal_lenient,
    without_defaults,
)

Equal = Callable[[Any, Any, Mapping[str, Any]], bool]
NO_CALL_STRATA = ("small_talk", "near_miss", "tool_missing", "parameter_missing")


@dataclass(frozen=True)
class Row:
    """One request as judged: gold calls, what was parsed from the answer, the tools on offer.

    ``request`` groups rows that ask the same thing, for intervals clustered by request; empty = a request of its own.
    ``names_only``: gold says which tools are right and leaves arguments out, so nothing about arguments is counted.
    """

    gold: Sequence[ToolCall]
    predicted: list[ToolCall] | Malformed
    tools: Sequence[Tool]
    stratum: str = ""
    request: str = ""
    names_only: bool = False

    @cached_property
    def verdict(self) -> Verdict:
        """The counts of this row.

        Raises:
            ValueError: two tools share a name, or a gold call names none of the tools.
        """
        return _judge(self)


class Verdict(NamedTuple):
    """The counts of one row. A pair is a (key, value) of a call, a leaf a value that is no list and no object."""

    malformed: bool
    gold_calls: int
    predicted_calls: int
    named: int  # gold calls with a predicted call of the same name
    exact: int  # aligned calls that are equal
    exact_lenient: int
    tp: int  # pairs of aligned calls; those of calls left alone are in fp and fn as well
    fp: int
    fn: int
    aligned_fp: int
    aligned_fn: int
    gold_leaves: int
    found_leaves: int
    predicted_leaves: int
    right_leaves: int
    valid_calls: int
    unknown_names: int
    keys: int
    unknown_keys: int
    required: int
    missing_required: int
    tools: tuple[tuple[str, int, int], ...]  # per gold tool: id, named, gold calls


class Pair(NamedTuple):
    """Two calls of one tool side by side: ``found`` gold leaves were given or rightly left out, ``right`` given."""

    exact: bool
    tp: int
    fp: int
    fn: int
    found: int
    right: int


# --- two calls --------------------------------------------------------------------------------------------------------


def compare(gold: ToolCall, predicted: ToolCall, schema: Mapping[str, Any], equal: Equal = values_equal) -> Pair:
    """The pairs and leaves of two calls of the same tool, whose ``parameters`` are ``schema``.

    A gold pair is right if the prediction states an accepted value under its key, or leaves the key out where gold
    allows that or its default is accepted. Leaves are matched under right keys first, then wherever they stand.

    >>> schema = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}}
    >>> compare(ToolCall("f", {"city": "Bern", "days": 1}), ToolCall("f", {"city": "Bern"}), schema)
    Pair(exact=True, tp=1, fp=0, fn=0, found=1, right=1)
    >>> compare(ToolCall("f", {"city": "Bern", "days": 2}), ToolCall("f", {"town": "Bern", "days": 3}), schema)
    Pair(exact=False, tp=0, fp=2, fn=2, found=1, right=1)
    """  # noqa: E501
    wanted, given = gold_pairs(gold, schema), without_defaults(predicted.arguments, schema)
    tp = stated = found = right = 0
    left: list[tuple[Any, Mapping[str, Any]]] = []  # gold leaves not under their key, each with its schema
    open_: list[Any] = []
    for key, value in wanted.items():
        spec = property_schema(schema, key)
        accepted = [value, *gold.accepted.get(key, ())]
        if key in given:
            ok = any(equal(candidate, given[key], spec) for candidate in accepted)
            stated += ok
        else:
            implied = "default" in spec and key not in schema.get("required", ())
            ok = key in gold.omittable or (implied and any(equal(a, spec["default"], spec) for a in accepted))
        tp += ok
        own = _leaves(value, spec)
        found += len(own) if ok else 0
        right += len(_leaves(given[key], spec)) if ok and key in given else 0
        if not ok:
            left += own
            open_ += [leaf for leaf, _ in _leaves(given[key], spec)] if key in given else []
    open_ += [
        leaf for key in given if key not in wanted for leaf, _ in _leaves(given[key], property_schema(schema, key))
    ]
    elsewhere = _matched(left, open_, equal)
    fp, fn = len(given) - stated, len(wanted) - tp
    return Pair(fp == 0 and fn == 0, tp, fp, fn, found + elsewhere, right + elsewhere)


def gold_pairs(gold: ToolCall, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that gold asks for: stated defaults are left out, but where other values are accepted too."""
    bare = without_defaults(gold.arguments, schema)
    return {key: value for key, value in gold.arguments.items() if key in bare or gold.accepted.get(key)}


def _leaves(value: Any, schema: Mapping[str, Any]) -> list[tuple[Any, Mapping[str, Any]]]:
    if isinstance(value, list | tuple) and value:
        return [leaf for i, item in enumerate(value) for leaf in _leaves(item, item_schema(schema, i))]
    if isinstance(value, Mapping) and (inner := without_defaults(value, schema)):
        return [leaf for key, item in inner.items() for leaf in _leaves(item, property_schema(schema, key))]
    return [({} if isinstance(value, Mapping) else value, schema)]


def _matched(gold: Sequence[tuple[Any, Mapping[str, Any]]], given: Sequence[Any], equal: Equal) -> int:
    """How many gold leaves find an equal value of their own among ``given``."""
    if not gold or not given:
        return 0
    same = np.array([[equal(leaf, value, schema) for value in given] for leaf, schema in gold])
    rows, columns = linear_sum_assignment(same, maximize=True)
    return int(same[rows, columns].sum())


# --- the calls of one row ---------------------------------------------------------------------------------------------


def align(
    gold: Sequence[ToolCall], predicted: Sequence[ToolCall], schema: Mapping[str, Any], equal: Equal = values_equal
) -> list[tuple[int, int, Pair]]:
    """Pairs up calls of one tool: positions and comparison of each pair, as many as the shorter side has.

    The best matching by, in this order: equal calls, right pairs, pairs saved from being counted as wrong, right
    leaves, and wrong pairs within aligned calls. It does not depend on the order of the calls.
    """
    if not gold or not predicted:
        return []
    if len(gold) == len(predicted) == 1:
        return [(0, 0, compare(gold[0], predicted[0], schema, equal))]
    ours, theirs = _sorted(gold), _sorted(predicted)  # so that a tie falls the same way whatever the order was
    table = [[compare(gold[i], predicted[j], schema, equal) for j in theirs] for i in ours]
    wanted = [len(gold_pairs(gold[i], schema)) for i in ours]
    given = [len(without_defaults(predicted[j].arguments, schema)) for j in theirs]
    scores = [
        [
            (p.exact, p.tp, wanted[i] + given[j] - p.fp - p.fn, p.found, p.right, -p.fp - p.fn)
            for j, p in enumerate(line)
        ]
        for i, line in enumerate(table)
    ]
    base = 1 + 2 * sum(max(max(map(abs, score)) for score in line) for line in scores)
    weights = [[float(sum(s * base**k for k, s in enumerate(reversed(score)))) for score in line] for line in scores]
    rows, columns = linear_sum_assignment(np.array(weights), maximize=True)
    return [(ours[i], theirs[j], table[i][j]) for i, j in zip(rows, columns, strict=True)]


def _sorted(calls: Sequence[ToolCall]) -> list[int]:
    keys = [json.dumps([call.arguments, call.accepted, sorted(call.omittable)], sort_keys=True) for call in calls]
    return sorted(range(len(calls)), key=keys.__getitem__)


def _judge(row: Row) -> Verdict:
    tools = {tool.name: tool for tool in row.tools}
    if len(tools) < len(row.tools):
        twice = [name for name, n in Counter(tool.name for tool in row.tools).items() if n > 1]
        raise ValueError(f"row: tool name is {twice[0]!r} more than once; names among a request's tools are unique")
    predicted = [] if isinstance(row.predicted, Malformed) else row.predicted
    gold_by, predicted_by = _by_name(row.gold), _by_name(predicted)
    count: dict[str, int] = defaultdict(int)
    per_tool = []
    for name, gold in gold_by.items():
        if name not in tools:
            raise ValueError(
                f"row: gold call is {name!r}; no tool on offer has that name, so the gold should be no call"
            )
        schema, others = tools[name].parameters, predicted_by.get(name, [])
        pairs = align(gold, others, schema)
        for i, j, pair in pairs:
            _count_pair(count, pair, gold[i], others[j], schema)
        loose = pairs if all(pair.exact for _, _, pair in pairs) else align(gold, others, schema, values_equal_lenient)
        count["exact_lenient"] += sum(pair.exact for _, _, pair in loose)
        count["gold_pairs"] += sum(len(gold_pairs(call, schema)) for call in gold)
        count["gold_leaves"] += sum(_leaf_count(gold_pairs(call, schema), schema) for call in gold)
        per_tool.append((tools[name].id, len(pairs), len(gold)))
    for call in predicted:
        _count_call(count, call, tools.get(call.name))
    fields: dict[str, Any] = {name: count[name] for name in Verdict._fields}
    fields |= {
        "malformed": isinstance(row.predicted, Malformed),
        "gold_calls": len(row.gold),
        "predicted_calls": len(predicted),
        "named": sum(named for _, named, _ in per_tool),
        "fp": count["aligned_fp"] + count["given_pairs"] - count["aligned_given"],
        "fn": count["gold_pairs"] - count["tp"],
        "tools": tuple(per_tool),
    }
    return Verdict(**fields)


def _by_name(calls: Sequence[ToolCall]) -> dict[str, list[ToolCall]]:
    out: dict[str, list[ToolCall]] = {}
    for call in calls:
        out.setdefault(call.name, []).append(call)
    return out


def _count_pair(count: dict[str, int], pair: Pair, gold: ToolCall, given: ToolCall, schema: Mapping[str, Any]) -> None:
    count["exact"] += pair.exact
    count["tp"] += pair.tp
    count["aligned_fp"] += pair.fp
    count["aligned_fn"] += pair.fn
    count["found_leaves"] += pair.found
    count["right_leaves"] += pair.right
    count["aligned_given"] += len(without_defaults(given.arguments, schema))


def _count_call(count: dict[str, int], call: ToolCall, tool: Tool | None) -> None:
    schema = tool.parameters if tool else {}
    given = without_defaults(call.arguments, schema)
    count["given_pairs"] += len(given)
    count["predicted_leaves"] += _leaf_count(given, schema)
    if tool is None:
        count["unknown_names"] += 1
        return
    known, required = parameters_of(tool), required_of(tool)
    closed = tool.parameters.get("additionalProperties", False) is False  # unlike JSON Schema: unless said to be open
    unknown = sum(key not in known for key in call.arguments) if closed else 0
    missing = sum(name not in call.arguments for name in required)
    count["keys"] += len(call.arguments)
    count["unknown_keys"] += unknown
    count["required"] += len(required)
    count["missing_required"] += missing
    count["valid_calls"] += not unknown and not missing and fits(tool, call.arguments)


def _leaf_count(pairs: Mapping[str, Any], schema: Mapping[str, Any]) -> int:
    return sum(len(_leaves(value, property_schema(schema, key))) for key, value in pairs.items())
