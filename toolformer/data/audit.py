"""In: the texts of several splits. Out: the pairs that occur, word for word or nearly, in two of them.

Near means: the sets of their 5-token sequences overlap by at least a threshold (Jaccard index).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolformer.data.corpus import Examples, read_tools
from toolformer.data.near import Grams, grams, pairs


class Leak(NamedTuple):
    """Two texts of two splits that are too much alike."""

    kind: str
    left_split: str
    left: str
    right_split: str
    right: str
    similarity: float


def leaks(kind: str, splits: Mapping[str, Mapping[str, str]], threshold: float) -> tuple[list[Leak], dict[str, int]]:
    """Every pair of texts too much alike in two splits, and the number of exact and near ones per pair of splits.

    ``splits[name]`` maps an id to its text.
    """
    return between(
        kind, {name: (list(texts), grams(list(texts.values()))) for name, texts in splits.items()}, threshold
    )


def between(
    kind: str, splits: Mapping[str, tuple[Sequence[str], Grams]], threshold: float
) -> tuple[list[Leak], dict[str, int]]:
    """As ``leaks``, of ids and sets of token sequences."""
    found, counts = [], {}
    for one, two in combinations(splits, 2):
        (ids, left), (others, right) = splits[one], splits[two]
        pairs_ = pairs(left, right, threshold)
        found += [Leak(kind, one, ids[i], two, others[j], value) for i, j, value in pairs_]
        counts[f"{one} / {two}: exact"] = sum(value == 1.0 for *_, value in pairs_)
        counts[f"{one} / {two}: near"] = sum(value < 1.0 for *_, value in pairs_)
    return found, counts


def refuse(found: Sequence[Leak], shown: int = 5) -> None:
    """Stop the build where two splits share a text.

    Raises:
        ValueError: names the number of pairs and the first of them.
    """
    if found:
        pairs = "; ".join(
            f"{x.left_split} {x.left} ~ {x.right_split} {x.right} ({x.similarity:.2f})" for x in found[:shown]
        )
        raise ValueError(
            f"corpus: {len(found)} {found[0].kind} pairs leak between splits: {pairs}; drop one of each pair"
        )


def audit_folder(folder: Path, names: Sequence[str], near: float) -> dict[str, Any]:
    """Counts of exact and near duplicates between the splits in ``folder``, as they were written.

    Unseen are the tools that a row of ``test_unseen`` or ``test_bfcl`` calls; trained are all that a training row calls
    or offers, or a batch may add, in every wording.

    Raises:
        ValueError: there is one; the pairs are named.
    """
    tools, kin = read_tools(folder / "tools.parquet")
    splits = {name: Examples(folder / f"{name}.arrow", tools) for name in names}
    found, requests = between("request", {name: _said(rows) for name, rows in splits.items()}, near)
    refuse(found)
    shown = splits["train"].tool_ids()
    families = {kin[id_].family for id_ in shown}
    trained = {id_: None for id_ in shown}
    trained |= {
        id_: None for id_, one in kin.items() if one.use == "trained" or (not one.use and one.family in families)
    }
    asked = {
        id_
        for name in ("test_unseen", "test_bfcl")
        for row in splits.get(name, ())
        for id_ in row.tools
        if tools[id_].name in {call.name for call in row.calls}
    }
    texts = {
        "train": {id_: tools[id_].text for id_ in trained},
        "unseen": {id_: tools[id_].text for id_ in sorted(asked)},
    }
    found, schemas = leaks("schema", texts, near)
    refuse(found)
    taught = {tools[id_].name.casefold() for id_ in trained}
    shared = sorted({tools[id_].name for id_ in asked if tools[id_].name.casefold() in taught})
    if shared:
        raise ValueError(f"corpus: {len(shared)} tool names are trained on and unseen: {', '.join(shared[:5])}")
    return {"near": near, "requests": requests, "schemas": schemas, "unseen_tools": len(asked), "shared_names": 0}


def _said(rows: Examples) -> tuple[list[str], Grams]:
    """The ids of a split's rows and the token sequences of their requests."""
    ids, values, sizes = [], [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for batch in rows.table.select(["id", "messages"]).to_batches():
        ids += batch["id"].to_pylist()
        said = grams(["\n".join(turn["content"] for turn in json.loads(row)) for row in batch["messages"].to_pylist()])
        values.append(said.values)
        sizes.append(said.sizes)
    return ids, Grams(np.concatenate(values), np.cumsum(np.concatenate(sizes)))
