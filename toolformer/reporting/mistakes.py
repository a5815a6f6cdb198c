"""In: the rows of a predictions.jsonl. Out: the wrong ones by kind, some of each to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Answer = Mapping[str, Any]

KINDS = {
    "tool": "wrong tool",
    "arguments": "wrong arguments",
    "none": "no call, one was needed",
    "called": "called, none was needed",
    "malformed": "malformed",
}
PER_GROUP = 8  # answers shown per split, names, decoding and kind


class Mistakes(NamedTuple):
    """The answers to show, and how many there were of each (split, variant, decoding, kind)."""

    shown: list[Answer]
    counts: dict[tuple[str, str, str, str], int]
    answers: int


def kind_of(row: Answer) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    gold, predicted = row["gold"], row.get("predicted")
    if not gold:
        return "called" if predicted or "malformed" in row else None
    if row["outcome"].get("em"):
        return None
    if "malformed" in row:
        return "malformed"
    if not predicted:
        return "none"
    same = sorted(call["name"] for call in gold) == sorted(call["name"] for call in predicted)
    return "arguments" if same else "tool"


def mistakes(rows: Iterable[Answer], per_group: int = PER_GROUP) -> Mistakes:
    """The first wrong answers of every group, with the model's own gists; the counts are of all."""
    shown: list[Answer] = []
    counts: dict[tuple[str, str, str, str], int] = {}
    answers = 0
    for row in rows:
        if row.get("memory", "real") != "real":
            continue
        answers += 1
        kind = kind_of(row)
        if kind is None:
            continue
        group = (row["split"], row["variant"], row["decoding"], kind)
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= per_group:
            shown.append(row)
    return Mistakes(shown, counts, answers)
