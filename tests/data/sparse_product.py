"""In: texts. Out: which are alike, by counting what every two of them share: slow, plain, no code of toolformer."""

import re
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

GRAM = 5
CHUNK = 2048


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
