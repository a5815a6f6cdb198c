"""In: the texts of several splits. Out: the pairs that occur, word for word or nearly, in two of them.

Near means: the sets of their 5-token sequences overlap by at least a threshold (Jaccard index).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

GRAM = 5
CHUNK = 2048


class Leak(NamedTuple):
    """Two texts of two splits that are too much alike."""

    kind: str
    left_split: str
    left: str
    right_split: str
    right: str
    similarity: float


def shingles(texts: Sequence[str], size: int = GRAM) -> csr_matrix:
    """Rows are texts, columns the distinct token sequences of all of them; a shorter text is one sequence.

    >>> shingles(["one two three four five six", "Hello there!"]).sum(axis=1).tolist()
    [[2.0], [1.0]]
    """
    vocabulary: dict[str, int] = {}
    rows = [
        [vocabulary.setdefault(token, len(vocabulary) + 1) for token in re.findall(r"\w+", text.casefold())] or [0]
        for text in texts
    ]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    windows = np.maximum(1, lengths - size + 1)  # a sequence is cut short only by the end of a short text
    flat = np.zeros(int(lengths.sum()) + (size - 1) * len(rows), dtype=np.uint64)  # zeros behind every text
    starts = np.cumsum(lengths + size - 1) - (lengths + size - 1)
    flat[_ranges(starts, lengths)] = np.fromiter((t for row in rows for t in row), np.uint64, int(lengths.sum()))
    owners, begin = np.repeat(np.arange(len(rows)), windows), _ranges(starts, windows)
    hashed = np.zeros(len(begin), dtype=np.uint64)
    for offset in range(size):  # a polynomial modulo 2^64
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + flat[begin + offset] + np.uint64(1)
    distinct, columns = np.unique(hashed, return_inverse=True)
    matrix = csr_matrix((np.ones(len(owners), np.float32), (owners, columns)), shape=(len(rows), len(distinct)))
    matrix.data[:] = 1.0  # a sequence that a text repeats counts once
    return matrix


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Start, start + 1, ... for each length, one after another."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))


def alike(left: csr_matrix, right: csr_matrix, threshold: float) -> list[tuple[int, int, float]]:
    """Row pairs of two slices of ``shingles`` with a Jaccard index of at least ``threshold``, and the index.

    >>> rows = shingles(["a b c d e f", "A, b c d e f!", "a b c d e g"])
    >>> alike(rows[:1], rows[1:], 0.3)
    [(0, 0, 1.0), (0, 1, 0.3333333432674408)]
    """
    sizes, others = np.diff(left.indptr), np.diff(right.indptr)
    transposed, found = right.T.tocsr(), []
    for start in range(0, left.shape[0], CHUNK):
        shared = (left[start : start + CHUNK] @ transposed).tocoo()
        jaccard = shared.data / (sizes[shared.row + start] + others[shared.col] - shared.data).astype(np.float32)
        for k in np.flatnonzero(jaccard >= threshold):
            found.append((int(shared.row[k]) + start, int(shared.col[k]), float(jaccard[k])))
    return sorted(found)


def leaks(kind: str, splits: Mapping[str, Mapping[str, str]], threshold: float) -> tuple[list[Leak], dict[str, int]]:
    """Every pair of texts too much alike in two splits, and the number of exact and near ones per pair of splits.

    ``splits[name]`` maps an id to its text.
    """
    rows = shingles([text for texts in splits.values() for text in texts.values()])
    ends = dict(zip(splits, np.cumsum([len(texts) for texts in splits.values()]).tolist(), strict=True))
    found, counts = [], {}
    for one, two in combinations(splits, 2):
        ids, others = list(splits[one]), list(splits[two])
        left, right = rows[ends[one] - len(ids) : ends[one]], rows[ends[two] - len(others) : ends[two]]
        pairs = alike(left, right, threshold)
        found += [Leak(kind, one, ids[i], two, others[j], value) for i, j, value in pairs]
        counts[f"{one} / {two}: exact"] = sum(value == 1.0 for *_, value in pairs)
        counts[f"{one} / {two}: near"] = sum(value < 1.0 for *_, value in pairs)
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
