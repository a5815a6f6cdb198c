"""In: the content of a metrics.json. Out: one sentence that says whether the model reads its gists.

The sentence is made from the numbers alone: masked names, since names leak; real against foreign and zero gists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from toolformer.reporting.tables import DECODINGS, SPLITS, Summary, number, split_title

CONTROLS = ("foreign", "zero")
TOLERANCE = 0.05  # how far above chance a control may lie before something other than the gists is at work


class Verdict(NamedTuple):
    """``kind`` is reads, leaks, fails or unknown."""

    kind: str
    title: str
    sentence: str


def hardest(metrics: Mapping[str, Any]) -> str | None:
    """The split that proves most: unseen tools where they were evaluated."""
    splits = metrics.get("splits") or {}
    order = ("test_unseen", *reversed(SPLITS))
    return next((split for split in order if split in splits), next(iter(splits), None))


def best_decoding(by_decoding: Mapping[str, Mapping[str, Summary]], metric: str = "tsa") -> str | None:
    """The decoding with the highest value on real gists."""
    values = {name: number(memories.get("real"), metric) for name, memories in by_decoding.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return max(known, key=known.__getitem__) if known else None


def verdict(metrics: Mapping[str, Any]) -> Verdict:
    """Judge one evaluation; every number that is named comes from ``metrics``."""
    split = hardest(metrics)
    variants = metrics.get("splits", {}).get(split, {})
    variant = "masked" if "masked" in variants else next(iter(variants), None)
    by_decoding = {n: m for n, m in variants.get(variant, {}).items() if number(m.get("real"), "tsa") is not None}
    decoding = next((name for name in reversed(DECODINGS) if name in by_decoding), next(iter(by_decoding), None))
    if split is None or decoding is None:
        return Verdict("unknown", "Not evaluated yet", "There are no results to judge.")
    memories = by_decoding[decoding]
    real, chance = number(memories["real"], "tsa"), number(memories["real"], "chance")
    assert real is not None
    controls = {name: v for name in CONTROLS if (v := number(memories.get(name), "tsa")) is not None}
    where = f"{variant} names, {split_title(split)}, {decoding}".capitalize()
    numbers = f"{where}: the right tool for {real:.2f} with its gists" + "".join(
        f", {v:.2f} with {name} ones" for name, v in controls.items()
    )
    numbers += "" if chance is None else f", chance {chance:.3f}"
    forced = {name: v for name in ("real", *CONTROLS) if (v := number(memories.get(name), "choice")) is not None}
    if "real" in forced:  # a model that often says "no call" may still know which tool it would be
        numbers += f"; where it must choose one, {', '.join(f'{v:.2f}' for v in forced.values())}"
    if len(controls) < len(CONTROLS) or chance is None:
        return Verdict(
            "unknown", "Not shown to read its gists", f"{numbers}; a control was not run, so this proves little."
        )
    low = number(memories["real"], "tsa", "low")
    sure = real if low is None else low
    if sure <= max(controls.values()):
        why = "Its own gists do no better than wrong ones, so whatever it gets right it does not get from them."
        return Verdict("fails", "Does not read its gists", f"{numbers}. {why}")
    if sure <= chance + TOLERANCE:
        return Verdict("fails", "Does not read its gists", f"{numbers}. That is not clearly above chance.")
    if leak := worst_leak(memories, chance):
        return Verdict("leaks", "Reads its gists, but not only them", f"{numbers}. {leak}: something else helps.")
    if variant != "masked":
        return Verdict("unknown", "Not shown to read its gists", f"{numbers}; names were not masked, and names leak.")
    return Verdict("reads", "Reads its gists", f"{numbers}.")


def worst_leak(memories: Mapping[str, Summary], chance: float) -> str:
    """The control that lies furthest above its chance, if any lies clearly above it.

    ``choice`` is what the pointer picks when it may not say "no call": a model that merely falls silent under wrong
    gists has a TSA of 0 there, and could still know the tool.
    """
    found = []
    for name in CONTROLS:
        own = number(memories[name], "chance")
        for metric, words in (("tsa", "gists stay"), ("choice", "gists, when it must choose, stay")):
            value = number(memories[name], metric)
            if value is not None:
                found.append((value - (chance if own is None else own), f"{name.capitalize()} {words}"))
    gain, words = max(found)
    return f"{words} {gain:.2f} above chance" if gain > TOLERANCE else ""


def plain_sentence(metrics: Mapping[str, Any]) -> str:
    """What a user would see: plain names on the hardest split, by the decoding with the best exact match."""
    split = hardest(metrics)
    plain = metrics.get("splits", {}).get(split, {}).get("plain", {})
    decoding = best_decoding(plain, "em")
    if split is None or decoding is None:
        return ""
    real = plain[decoding]["real"]
    parts = [
        f"{text} {value:.2f}"
        for metric, text in (("tsa", "right tool"), ("em", "whole call right"), ("fpr", "calls where none is wanted"))
        if (value := number(real, metric)) is not None
    ]
    return f"With plain names ({split_title(split)}, {decoding}): {', '.join(parts)}."
