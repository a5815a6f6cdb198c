r"""In: rows. Out: whether predicted calls fit the tools on offer, whatever gold says.

All are ratios over calls that could be read; malformed answers have their own rate.
"""

from __future__ import annotations

from toolformer.metrics.rows import Row
from toolformer.metrics.share import Counts, Share, among


def valid_calls(row: Row) -> Counts:
    """Calls whose arguments fit the schema of a tool on offer, of all predicted calls."""
    return among(row.verdict.valid_calls, row.verdict.predicted_calls)


def unknown_names(row: Row) -> Counts:
    """Calls that name no tool on offer, of all predicted calls."""
    return among(row.verdict.unknown_names, row.verdict.predicted_calls)


def unknown_keys(row: Row) -> Counts:
    """Argument keys that the tool does not have, of all keys of calls that name a tool on offer."""
    return among(row.verdict.unknown_keys, row.verdict.keys)


def missing_required(row: Row) -> Counts:
    """Required parameters left out, of all that calls of tools on offer had to give."""
    return among(row.verdict.missing_required, row.verdict.required)


class SchemaValidRate(Share):
    r"""$|\{p : p\ \mathrm{fits\ its\ tool}\}| / |P|$: known name, no unknown key, valid by JSON Schema (draft 2020-12).

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {"type": "object", "properties": {"x": {"type": "integer"}}})]
    >>> SchemaValidRate()([Row([], [ToolCall("f", {"x": 1}), ToolCall("f", {"x": "1"})], tools)]).item()
    0.5
    """

    key = "schema_valid"
    counts = staticmethod(valid_calls)


class HallucinatedNames(Share):
    r"""$|\{p : name(p) \notin T\}| / |P|$.

    >>> from toolformer.records import Tool, ToolCall
    >>> HallucinatedNames()([Row([], [ToolCall("f", {}), ToolCall("g", {})], [Tool("f", "", {})])]).item()
    0.5
    """

    key = "hallucinated_names"
    higher_is_better = False
    counts = staticmethod(unknown_names)


class HallucinatedKeys(Share):
    r"""$|\{k : k \notin properties\}| / |keys|$ over calls whose tool is on offer.

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {"type": "object", "properties": {"x": {}}})]
    >>> HallucinatedKeys()([Row([], [ToolCall("f", {"x": 1, "z": 1})], tools)]).item()
    0.5
    """

    key = "hallucinated_keys"
    higher_is_better = False
    counts = staticmethod(unknown_keys)


class MissingRequired(Share):
    r"""$|\{k \in required : k \notin p\}| / |required|$ over calls whose tool is on offer.

    >>> from toolformer.records import Tool, ToolCall
    >>> tools = [Tool("f", "", {"type": "object", "properties": {"x": {}, "y": {}}, "required": ["x", "y"]})]
    >>> MissingRequired()([Row([], [ToolCall("f", {"x": 1})], tools)]).item()
    0.5
    """

    key = "missing_required"
    higher_is_better = False
    counts = staticmethod(missing_required)
