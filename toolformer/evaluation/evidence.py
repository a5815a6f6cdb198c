"""In: the content of a metrics.json. Out: whether it proves that the model reads its gists, and the sentence why.

Stricter than the report's verdict, which describes: this is the check that a model which ignores its gists must fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLERANCE = 0.05


def reads_gists(metrics: Mapping[str, Any], split: str = "test_unseen") -> tuple[bool, str]:
    """Masked names, unseen tools: real gists clearly above chance; foreign and zero ones not above it.

    Clearly = the 95% interval's low end above chance + 0.05. The controls, and the pointer's forced choice under them,
    may be at most 0.05 above chance.
    """
    by_decoding = metrics.get("splits", {}).get(split, {}).get("masked", {})
    decoding = next((name for name in ("pointed", "constrained") if name in by_decoding), None)
    if decoding is None:
        return False, f"not shown: {split} was not evaluated with masked names, pointed or constrained"
    memories = by_decoding[decoding]
    absent = [name for name in ("real", "foreign", "zero") if name not in memories]
    if absent:
        return False, f"not shown: {split}, masked, {decoding}: no {' and no '.join(absent)} gists were tried"
    real, chance = memories["real"]["tsa"], memories["real"]["chance"]["value"]
    if not real["n"]:
        return False, f"not shown: {split}, masked: no row needs a call"
    where = f"{split}, masked names, {decoding}: right tool {real['value']:.3f} (from {real['low']:.3f})"
    if real["low"] <= chance + TOLERANCE:
        return False, f"does not read its gists: {where}, chance {chance:.3f}"
    shown = []
    for memory in ("foreign", "zero"):
        for metric in ("tsa", "choice"):
            if metric in memories[memory]:
                value, limit = memories[memory][metric]["value"], memories[memory]["chance"]["value"] + TOLERANCE
                if value > limit:
                    return (
                        False,
                        f"something else helps: {where}, but {memory} gists {metric} {value:.3f} > {limit:.3f}",
                    )
                shown.append(f"{memory} {metric} {value:.3f}")
    return True, f"reads its gists: {where}; {', '.join(shown)}, chance {chance:.3f}"
