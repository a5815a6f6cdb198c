"""In: rows of BFCL with their category. Out: whether each is right by BFCL's own rules, and the leaderboard's table.

The rules are those that BFCL publishes for single turns ("AST evaluation"), written anew; ``mistake`` states them. They
are more lenient than METRICS' exact match (strings lose case and punctuation) and in two places stricter (no parameter
that gold does not list, no default spelled out unless it is listed). A category is the second part of an example's id:
``bfcl-v4/<category>/<id>``.

One thing differs. Upstream takes every Java and JavaScript value as source text; here values of the declared type
count too, as our models read JSON Schemas. Source text is read as upstream reads it, but for texts in a ``String[]``
and lists of ``Object``: upstream keeps their quotation marks, so that no answer would be right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from toolformer.calls import Malformed
from toolformer.metrics.bfcl_source_text import read_java, read_javascript
from toolformer.metrics.intervals import wilson
from toolformer.metrics.rows import Row
from toolformer.records import Tool, ToolCall, call_from_json

_PYTHON = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
_DROPPED = str.maketrans({**{mark: None for mark in " ,./-_*^"}, "'": '"'})
_READERS = {"simple_java": read_java, "simple_javascript": read_javascript}


def category_of(example_id: str) -> str:
    """The category in an example's id.

    >>> category_of("bfcl-v4/parallel/parallel_7")
    'parallel'
    """
    return example_id.split("/")[1]


# --- one row ----------------------------------------------------------------------------------------------------------


def mistake(row: Row, category: str) -> str:
    """What is wrong with the answer, in a word or two; "" where BFCL counts it as right.

    irrelevance: right is no call that can be read. relevance: right is any call that can be read. All else: as many
    calls as gold, and for each gold call, in gold's order, one of those left that is right; order does not matter.

    >>> from toolformer.records import Tool
    >>> tools = [Tool("f", "", {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]})]
    >>> mistake(Row([ToolCall("f", {"day": "April 1, 2024"})], [ToolCall("f", {"day": "april 1 2024"})], tools), "multiple")
    ''
    >>> mistake(Row([ToolCall("f", {"day": "today"})], [ToolCall("f", {})], tools), "multiple")
    'missing required'
    """  # noqa: E501
    calls = [] if isinstance(row.predicted, Malformed) else row.predicted
    if "irrelevance" in category:
        return "called" if calls else ""
    if "relevance" in category:
        return "" if calls else "not called"
    if isinstance(row.predicted, Malformed):
        return "malformed"
    if len(calls) != len(row.gold):
        return "number of calls"
    schemas = {tool.name: tool.parameters for tool in row.tools}
    left = list(calls)
    for gold in row.gold:
        found = [call_mistake(gold, call, schemas[gold.name], category) for call in left]
        if "" not in found:
            return found[0] if len(row.gold) == 1 else "no match"
        del left[found.index("")]
    return ""


def call_mistake(gold: ToolCall, given: ToolCall, schema: Mapping[str, Any], category: str) -> str:
    """What is wrong with one call beside one gold call; "" where nothing is.

    The name is gold's; no required parameter is missing; each parameter is declared, listed by gold, of its type and
    has an accepted value; what gold lists is there unless it may be left out.
    """
    if given.name != gold.name:
        return "name"
    if any(name not in given.arguments for name in schema.get("required", ())):
        return "missing required"
    listed = {*gold.arguments, *gold.accepted, *gold.omittable}
    for name, value in given.arguments.items():
        if name not in schema.get("properties", {}) or name not in listed:
            return "unexpected parameter"
        if wrong := _value_mistake(value, _answers(gold, name), schema["properties"][name], category):
            return wrong
    if any(name not in given.arguments and "" not in _answers(gold, name) for name in listed):
        return "missing optional"
    return ""


def _answers(gold: ToolCall, name: str) -> list[Any]:
    """What BFCL lists for a parameter; "" means that it may be left out."""
    first = [gold.arguments[name]] if name in gold.arguments else []
    return [*first, *gold.accepted.get(name, ()), *([""] if name in gold.omittable else [])]


def _value_mistake(value: Any, answers: Sequence[Any], spec: Mapping[str, Any], category: str) -> str:
    """A value is of its parameter's type, an integer also where a number is wanted, or of the first answer's type.

    In the second case it stands for a variable and has to equal an answer exactly, as does one whose first answer is of
    another type; else texts are compared without case and punctuation, also in lists and as values of objects.
    """
    expected, inner = _python_types(spec)
    if category in _READERS:
        inner = None  # upstream's readers make items of the right type or none
        value = _READERS[category](value, expected) if isinstance(value, str) and expected is not str else value
    if expected is float and type(value) is int:
        value = float(value)
    likely = next((type(answer) for answer in answers if answer != ""), None)
    if type(value) is not expected and (likely is None or type(value) is not likely):
        return "type"
    if type(value) is list and expected is list and inner and not _items_fit(value, answers, inner):
        return "type"
    is_variable = likely not in (None, expected) or type(value) is not expected
    if not is_variable and expected in (str, list, dict):
        right = any(_same(value, answer) for answer in answers)
    else:
        right = value in answers
    return "" if right else "value"


def _python_types(spec: Mapping[str, Any]) -> tuple[type, type | None]:
    """The type of a parameter and of an array's items; no type is BFCL's "any", which is text."""
    kinds = next((part["type"] for part in (spec, *spec.get("anyOf", ())) if "type" in part), "")
    expected = _PYTHON.get(kinds if isinstance(kinds, str) else kinds[0], str)
    return expected, _python_types(spec["items"])[0] if expected is list and "items" in spec else None


def _items_fit(value: list[Any], answers: Sequence[Any], inner: type) -> bool:
    """Whether all items are of type ``inner``, or of the type of the first item of some accepted list."""
    for answer in answers:
        if not isinstance(answer, list):
            return True  # upstream checks the items against lists alone
        likely = next((type(item) for item in answer if item != ""), None)
        if all(type(item) in (inner, likely) for item in value):
            return True
    return False


def _same(value: Any, answer: Any) -> bool:
    """Equal where texts lose case and punctuation: as the value, as an item of a list, as a value of an object.

    An empty list is what upstream makes of "may be left out" where a list is wanted.
    """
    if isinstance(value, str) and isinstance(answer, str):
        return _standard(value) == _standard(answer)
    if isinstance(value, list) and (isinstance(answer, list) or answer == ""):
        answer = answer or []
        return len(value) == len(answer) and all(
            _same(v, a) if isinstance(v, dict) and isinstance(a, dict) else _standard(v) == _standard(a)
            for v, a in zip(value, answer, strict=True)
        )
    if isinstance(value, dict) and isinstance(answer, dict):
        return value.keys() == answer.keys() and all(_standard(value[k]) == _standard(answer[k]) for k in value)
    return False


def _standard(value: Any) -> Any:
    return value.translate(_DROPPED).lower() if isinstance(value, str) else value


# --- the table --------------------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """A line of the table. ``missing`` are categories that belong to it and have no row; None = no row at all."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    missing: tuple[str, ...] = ()


SIMPLE = ("simple_python", "simple_java", "simple_javascript")
NON_LIVE = ("multiple", "parallel", "parallel_multiple")
LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
IRRELEVANCE = ("irrelevance", "live_irrelevance")
RELEVANCE = ("live_relevance",)


def table(rows: Iterable[tuple[str, Row]]) -> list[Score]:
    """Accuracy by category and by the leaderboard's groups, from example ids and rows, with 95% intervals.

    Simple is the mean of its languages and Non-Live AST that of Simple and the three others; Live AST weighs its
    categories by their rows; Irrelevance is the mean of both kinds. A category's interval is Wilson's, a mean's is made
    of those (Zou and Donner 2008). What has no row is left out of a mean and named.
    """
    right: dict[str, list[bool]] = {name: [] for name in (*SIMPLE, *NON_LIVE, *LIVE, *IRRELEVANCE, *RELEVANCE)}
    for example_id, row in rows:
        category = category_of(example_id)
        if category not in right:
            raise ValueError(f"row {example_id}: category is {category!r}; it is one of {', '.join(right)}")
        right[category].append(not mistake(row, category))
    one = {name: _rate(name, hits) for name, hits in right.items()}
    simple = _mean("Simple", [one[name] for name in SIMPLE])
    live = _rate("Live AST", [hit for name in LIVE for hit in right[name]], [name for name in LIVE if not right[name]])
    return [
        _mean("Non-Live AST", [simple, *(one[name] for name in NON_LIVE)]),
        simple,
        *(one[name] for name in (*SIMPLE, *NON_LIVE)),
        live,
        *(one[name] for name in LIVE),
        _mean("Irrelevance", [one[name] for name in IRRELEVANCE]),
        *(one[name] for name in IRRELEVANCE),
        _mean("Relevance", [one[name] for name in RELEVANCE]),
    ]


def _rate(name: str, hits: Sequence[bool], missing: Sequence[str] = ()) -> Score:
    if not hits:
        return Score(name, None, None, None, 0, tuple(missing) or (name,))
    return Score(name, sum(hits) / len(hits), *wilson(sum(hits), len(hits)), len(hits), tuple(missing))


def _mean(name: str, parts: Sequence[Score]) -> Score:
    missing = tuple(one for part in parts for one in part.missing)
    there = [part for part in parts if part.value is not None]
    if not there:
        return Score(name, None, None, None, 0, missing)
    values, lows, highs = ([float(getattr(part, field) or 0.0) for part in there] for field in ("value", "low", "high"))
    value = sum(values) / len(there)
    below = math.hypot(*(v - low for v, low in zip(values, lows, strict=True))) / len(there)
    above = math.hypot(*(high - v for v, high in zip(values, highs, strict=True))) / len(there)
    return Score(name, value, value - below, value + above, sum(part.n for part in there), missing)


def markdown(scores: Sequence[Score]) -> str:
    """The table as Markdown, lines without a row left out; below it what is missing from which group."""
    lines = ["| BFCL | accuracy | n |", "|---|---|---|"]
    for score in scores:
        if score.value is not None:
            lines.append(f"| {score.name} | {score.value:.3f} ({score.low:.3f}-{score.high:.3f}) | {score.n} |")
    groups = [score for score in scores if score.missing and score.missing != (score.name,)]
    return "\n".join([*lines, "", *(f"{group.name}: no rows of {', '.join(group.missing)}." for group in groups)])


def row_of(prediction: Mapping[str, Any], tools: Sequence[Tool]) -> Row:
    """The row that a line of ``predictions.jsonl`` judges; ``tools`` are those that its request was offered."""
    gold = [call_from_json(call) for call in prediction["gold"]]
    if "malformed" in prediction:
        return Row(gold, Malformed(prediction["malformed"], 0), tools, prediction["stratum"])
    return Row(gold, [call_from_json(call) for call in prediction["predicted"]], tools, prediction["stratum"])
