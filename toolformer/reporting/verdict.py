"""In: the content of a metrics.json. Out: one sentence that says whether the model reads its gists.

The sentence is made from the numbers alone: masked names, since names leak; real against foreign and zero gists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from toolformer.reporting.tables import SPLITS, Summary, number, split_title

TOLERANCE = 0.05  # how far above chance a control may lie before something other than the gists is at work


class Verdict(NamedTuple):
    """``kind`` is reads, leaks, fails or unknown."""

    kind: str
    title: str
    sentence: str


def hardest(metrics: Mapping[str, Any]) -> str | None:
    """The split that proves most: unseen tools where they were evaluated."""
    splits = metrics.get("splits") or {}
    return next((split for split in reversed(SPLITS) if split in splits), next(iter(splits), None))


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
    decoding = best_decoding(variants.get(variant, {}))
    if split is None or decoding is None:
        return Verdict("unknown", "Not evaluated yet", "There are no results to judge.")
    memories = variants[variant][decoding]
    real, chance = number(memories["real"], "tsa"), number(memories["real"], "chance")
    controls = {name: number(memories.get(name), "tsa") for name in ("foreign", "zero")}
    known = {name: value for name, value in controls.items() if value is not None}
    assert real is not None
    where = f"{variant} names, {split_title(split)}, {decoding}".capitalize()
    numbers = f"{where}: the right tool for {real:.2f} with its gists" + "".join(
        f", {v:.2f} with {n} ones" for n, v in known.items()
    )
    numbers += "" if chance is None else f", chance {chance:.3f}"
    if not known or chance is None:
        return Verdict(
            "unknown", "Not shown to read its gists", f"{numbers}; no control was run, so this proves nothing."
        )
    low = number(memories["real"], "tsa", "low")
    bound = max(*known.values(), chance)
    if (real if low is None else low) <= bound:
        return Verdict(
            "fails",
            "Does not read its gists",
            f"{numbers}. Its own gists do no better than {'gists of other tools' if 'foreign' in known else 'none'}, "
            "so whatever it gets right it does not get from them.",
        )
    leaks = {name: value for name, value in known.items() if value > chance + TOLERANCE}
    if leaks:
        name, value = max(leaks.items(), key=lambda item: item[1])
        return Verdict(
            "leaks",
            "Reads its gists, but not only them",
            f"{numbers}. {name.capitalize()} gists stay {value - chance:.2f} above chance: something else helps.",
        )
    if variant != "masked":
        return Verdict("unknown", "Not shown to read its gists", f"{numbers}; names were not masked, and names leak.")
    return Verdict("reads", "Reads its gists", f"{numbers}.")


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
