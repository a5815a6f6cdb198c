"""In: the content of a metrics.json. Out: the results as an aligned text table or as Markdown.

Imports the standard library only, so that a table costs no start-up time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

SPLITS = ("validation", "test_seen", "test_held_out", "test_unseen", "test_bfcl")
VARIANTS = ("plain", "masked")
DECODINGS = ("free", "constrained", "pointed")
MEMORIES = ("real", "foreign", "zero", "missing", "swapped", "edited")
COLUMNS = {"tsa": "TSA", "em": "EM", "pf1": "PF1", "vr": "VR", "fpr": "FPR"}
GAP = "-"

Summary = Mapping[str, Any]


class Cell(NamedTuple):
    """One evaluated combination: where it stands in metrics.json, and its summary."""

    split: str
    variant: str
    decoding: str
    memory: str
    summary: Summary


def in_order(names: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """The keys of ``names``: those of ``order`` first and in that order, then the others as they come."""
    return [name for name in order if name in names] + [name for name in names if name not in order]


def cells(metrics: Mapping[str, Any]) -> Iterator[Cell]:
    """All evaluated combinations of a metrics.json, in reading order."""
    splits = metrics.get("splits", {})
    for split in in_order(splits, SPLITS):
        for variant in in_order(splits[split], VARIANTS):
            decodings = splits[split][variant]
            for decoding in in_order(decodings, DECODINGS):
                for memory in in_order(decodings[decoding], MEMORIES):
                    yield Cell(split, variant, decoding, memory, decodings[decoding][memory])


def number(summary: Summary | None, metric: str, part: str = "value") -> float | None:
    """One number of a summary, or None where it was not measured (absent, NaN, or over no rows)."""
    entry = (summary or {}).get(metric)
    if not isinstance(entry, Mapping):
        return float(entry) if isinstance(entry, int | float) and part == "value" else None
    value = entry.get(part)
    if value is None or entry.get("n") == 0 or not math.isfinite(value):
        return None
    return float(value)


def short(value: float) -> str:
    """Three decimals without the leading zero: .893, 1.000."""
    return f"{value:.3f}".removeprefix("0")


def with_interval(summary: Summary | None, metric: str, form: str = "{value:.3f} {low}-{high}") -> str:
    """A value with its 95% interval, `0.912 .893-.928`; a dash where nothing was measured."""
    value, low, high = (number(summary, metric, part) for part in ("value", "low", "high"))
    if value is None:
        return GAP
    if low is None or high is None:
        return f"{value:.3f}"
    return form.format(value=value, low=short(low), high=short(high))


def split_title(split: str) -> str:
    """`test_held_out` -> `held-out tools`-like words for a reader."""
    words = {
        "test_seen": "seen tools",
        "test_held_out": "held-out requests",
        "test_unseen": "unseen tools",
        "test_bfcl": "BFCL",
    }
    return words.get(split, split.replace("_", " "))


def rows_line(summary: Summary | None) -> str:
    """How many rows stand behind a summary, and what guessing would give."""
    parts = []
    with_call, without = number(summary, "tsa", "n"), number(summary, "fpr", "n")
    if with_call is not None:
        parts.append(f"{with_call:,.0f} requests that need a call")
    if without is not None:
        parts.append(f"{without:,.0f} that do not")
    chance = number(summary, "chance")
    if chance is not None:
        parts.append(f"chance {chance:.3f}")
    return ", ".join(parts)


def aligned(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows of text as lines with columns of equal width, left aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        (indent + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def table(metrics: Mapping[str, Any]) -> str:
    """The results as plain text: a block per split and variant, a line per decoding; then the controls."""
    found = list(cells(metrics))
    if not found:
        return "no results: metrics.json holds no split"
    head = ("", *COLUMNS.values())
    rows: list[Sequence[str]] = [head]
    titles: dict[int, str] = {}
    place: tuple[str, str] | None = None
    for cell in found:
        if cell.memory != "real":
            continue
        if place != (cell.split, cell.variant):
            place = (cell.split, cell.variant)
            titles[len(rows)] = f"{cell.split}, {cell.variant} names ({rows_line(cell.summary)})"
        rows.append((f"  {cell.decoding}", *(with_interval(cell.summary, metric) for metric in COLUMNS)))
    out = []
    for index, line in enumerate(aligned(rows)):
        out += ["", titles[index]] if index in titles else []
        out.append(line)
    return "\n".join([*out, *control_lines(found), *composability_lines(metrics)])


def control_lines(found: Sequence[Cell]) -> list[str]:
    """The controls as text: TSA with other gists on the same requests, and calls where the tool was removed."""
    rows = [
        (
            f"{c.split}, {c.variant}, {c.decoding}",
            *(with_interval(summary, "tsa") + choice(summary) for summary in (c.real, c.foreign, c.zero)),
            c.chance,
            with_interval(c.missing, "fpr"),
        )
        for c in controls(found)
    ]
    if not rows:
        return []
    head = ("controls (TSA)", "its gists", "foreign gists", "zero gists", "chance", "tool removed: calls anyway")
    note = (
        ["[ ] = the tool the pointer picks when it must call one"]
        if any("[" in cell for row in rows for cell in row)
        else []
    )
    return ["", *aligned([head, *rows]), *note]


def choice(summary: Summary | None) -> str:
    """What the pointer picks when it may not say "no call", in brackets; empty where nothing pointed."""
    value = number(summary, "choice")
    return "" if value is None else f" [{value:.3f}]"


class Control(NamedTuple):
    """One combination with its controls side by side; a control that was not run is None."""

    split: str
    variant: str
    decoding: str
    real: Summary | None
    foreign: Summary | None
    zero: Summary | None
    missing: Summary | None

    @property
    def chance(self) -> str:
        """What guessing among the tools on offer gives."""
        value = number(self.real, "chance")
        return GAP if value is None else f"{value:.3f}"


def controls(found: Sequence[Cell]) -> list[Control]:
    """The combinations for which at least one control was run."""
    groups: dict[tuple[str, str, str], dict[str, Summary]] = {}
    for cell in found:
        groups.setdefault((cell.split, cell.variant, cell.decoding), {})[cell.memory] = cell.summary
    return [
        Control(*place, *(by_memory.get(memory) for memory in ("real", "foreign", "zero", "missing")))
        for place, by_memory in groups.items()
        if set(by_memory) - {"real"}
    ]


def composability_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Order, number of tools and hot swap, a line each; nothing where it was not measured."""
    found = metrics.get("composability") or {}
    lines = []
    if order := found.get("order"):
        lines.append(
            f"tool order         {order['changed_decisions']} of {order['rows']} decisions change when the tools are "
            f"permuted (largest logit difference {order['max_logit_delta']:.1e})"
        )
    scaling = [point for point in found.get("scaling") or [] if number(point.get("present"), "tsa") is not None]
    if scaling:
        lines.append(
            "number of tools    TSA "
            + ", ".join(f"{number(point['present'], 'tsa'):.3f} of {point['tools']}" for point in scaling)
        )
    if swap := found.get("hot_swap"):
        same = "stay bit-identical" if swap.get("other_gists_identical") else "CHANGE"
        lines.append(
            f"hot swap           other tools' gists {same}; the call follows the edit "
            f"{with_interval(swap, 'follows_edit')} ({swap.get('rows', 0)} rows)"
            + (f", with the old gists {with_interval(swap, 'stale')}" if swap.get("stale") else "")
        )
    return ["", *lines] if lines else []


def markdown_breakdown(metrics: Mapping[str, Any], decoding: str) -> str:
    """The results of one decoding by split, source and stratum, and BFCL's own table, in Markdown."""
    form = "{value:.3f} ({low}\u2013{high})"
    lines = ["| split | rows | TSA | EM | FPR |", "|---|---|---|---|---|"]
    leaderboard: list[str] = []
    found = metrics.get("breakdown", {})
    for split in in_order(found, SPLITS):
        groups = found[split].get(decoding, {})
        for kind in ("source", "stratum"):
            for name, rates in groups.get(kind, {}).items():
                values = " | ".join(with_interval(rates, metric, form) for metric in ("tsa", "em", "fpr"))
                lines.append(f"| {split_title(split)} | {kind} {name.replace('_', ' ')} | {values} |")
        leaderboard += _leaderboard(groups.get("bfcl", []))
    return "\n".join([*lines, *leaderboard])


def _leaderboard(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """BFCL's table by its own rules; what has no row here is left out, and named below."""
    there = [score for score in scores if score["value"] is not None]
    if not there:
        return []
    lines = ["", "| BFCL category | accuracy by its rules | rows |", "|---|---|---|"]
    for score in there:
        interval = f"{score['value']:.3f} ({short(score['low'])}\u2013{short(score['high'])})"
        lines.append(f"| {score['name']} | {interval} | {score['n']} |")
    missing = sorted({name for score in scores for name in score["missing"]})
    return [*lines, "", f"<sub>Not here, so not in any mean: {', '.join(missing)}.</sub>"] if missing else lines


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The results and the controls as two Markdown tables, for a README."""
    found = list(cells(metrics))
    form = "{value:.3f} ({low}\u2013{high})"
    real = [cell for cell in found if cell.memory == "real"]
    head = "| split | names | decoding | " + " | ".join(COLUMNS.values()) + " |"
    lines = [head, "|---|---|---|" + "---|" * len(COLUMNS)]
    lines += [
        f"| {split_title(cell.split)} | {cell.variant} | {cell.decoding} | "
        + " | ".join(with_interval(cell.summary, metric, form) for metric in COLUMNS)
        + " |"
        for cell in real
    ]
    if judged := controls(found):
        lines += ["", "| split | names | decoding | its gists | foreign | zero | chance | tool removed: calls anyway |"]
        lines.append("|---|---|---|---|---|---|---|---|")
        for c in judged:
            values = [with_interval(summary, "tsa", form) for summary in (c.real, c.foreign, c.zero)]
            values += [c.chance, with_interval(c.missing, "fpr", form)]
            lines.append(f"| {split_title(c.split)} | {c.variant} | {c.decoding} | " + " | ".join(values) + " |")
    return "\n".join(lines)
