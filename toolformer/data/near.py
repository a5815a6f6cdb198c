"""In: texts. Out: which of them are alike: every pair with a Jaccard index of at least a threshold, and their clusters.

A text is the set of its 5-token sequences. The join is exact and near-linear: two sets that are alike share one of
their rarest members (prefix filtering: Chaudhuri et al., 2006; Bayardo et al., 2007), so only such pairs are compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

GRAM = 5
ODD = np.uint64(0x9E3779B97F4A7C15)
PAIRS = 1 << 22  # candidates at a time
EPS = 1e-9  # thresholds are meant as decimals: 0.7 * 10 is 7


class Grams(NamedTuple):
    """Sets of token sequences, one a text: those of text i are ``values[starts[i]:starts[i + 1]]``, sorted hashes."""

    values: np.ndarray  # uint64
    starts: np.ndarray  # int64, one more than there are texts

    @property
    def sizes(self) -> np.ndarray:
        """How many each text has."""
        return np.diff(self.starts)

    def take(self, places: np.ndarray) -> Grams:
        """Those of the texts at ``places``, in that order."""
        sizes = self.sizes[places]
        return Grams(self.values[ranges(self.starts[places], sizes)], np.concatenate([[0], np.cumsum(sizes)]))


def grams(texts: Sequence[str], size: int = GRAM) -> Grams:
    """The token sequences of each text; a text shorter than ``size`` is one sequence.

    >>> grams(["one two three four five six", "Hello there!", "HELLO, there"]).starts.tolist()
    [0, 2, 3, 4]
    """
    rows = [list(map(_token, re.findall(r"\w+", text.casefold()))) or [0] for text in texts]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    windows = np.maximum(1, lengths - size + 1)  # a sequence is cut short only by the end of a short text
    flat = np.zeros(int(lengths.sum()) + (size - 1) * len(rows), dtype=np.uint64)  # zeros behind every text
    starts = np.cumsum(lengths + size - 1) - (lengths + size - 1)
    flat[ranges(starts, lengths)] = np.fromiter((t for row in rows for t in row), np.uint64, int(lengths.sum()))
    owners, begin = np.repeat(np.arange(len(rows)), windows), ranges(starts, windows)
    hashed = np.zeros(len(begin), dtype=np.uint64)
    for offset in range(size):  # a polynomial modulo 2^64
        hashed = hashed * ODD + flat[begin + offset] + np.uint64(1)
    order = np.lexsort((hashed, owners))
    hashed, owners = hashed[order], owners[order]
    new = np.ones(len(hashed), dtype=bool)  # a sequence that a text repeats counts once
    new[1:] = (hashed[1:] != hashed[:-1]) | (owners[1:] != owners[:-1])
    counts = np.bincount(owners[new], minlength=len(rows))
    return Grams(hashed[new], np.concatenate([[0], np.cumsum(counts)]))


@lru_cache(maxsize=1 << 20)
def _token(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Start, start + 1, ... for each length, one after another."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))


class _Side(NamedTuple):
    """One side of a join: the members that can be shared, rarest first, and the rarest of them as an index."""

    matrix: csr_matrix  # (texts, members), indices sorted from rare to frequent
    sizes: np.ndarray  # of the sets, members that nobody shares included
    members: np.ndarray  # of the prefixes, sorted
    owners: np.ndarray  # whose prefix it is
    left: np.ndarray  # members of the owner's set from it on: at most so many can be shared if it is the first shared


def _sides(left: Grams, right: Grams | None, threshold: float) -> list[_Side]:
    both = [left] if right is None else [left, right]
    distinct, places = np.unique(np.concatenate([side.values for side in both]), return_inverse=True)
    split = np.split(places, np.cumsum([len(side.values) for side in both])[:-1])
    counts = [np.bincount(part, minlength=len(distinct)) for part in split]
    pairs = counts[0] * (counts[0] - 1) if right is None else counts[0] * counts[1]
    order = np.argsort(pairs, kind="stable")
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[order] = np.arange(len(distinct))
    alone = int((pairs == 0).sum())  # members with these first ranks are shared by nobody: they only count
    return [
        _side(side, rank[part] - alone, len(distinct) - alone, threshold)
        for side, part in zip(both, split, strict=True)
    ]


def _side(side: Grams, ranks: np.ndarray, members: int, threshold: float) -> _Side:
    sizes, owners = side.sizes, np.repeat(np.arange(len(side.sizes)), side.sizes)
    shared = ranks >= 0
    owners, ranks = owners[shared], ranks[shared]
    order = np.lexsort((ranks, owners))
    owners, ranks = owners[order], ranks[order]
    kept = np.bincount(owners, minlength=len(sizes))
    starts = np.concatenate([[0], np.cumsum(kept)])
    matrix = csr_matrix((np.ones(len(ranks), np.float32), ranks, starts), shape=(len(sizes), members))
    # two sets that overlap by t * n share one of the first n - ceil(t * n) + 1 members, in any order common to all
    alone = sizes - kept  # those that nobody shares come before all others
    prefix = np.clip(sizes - np.ceil(threshold * sizes - EPS).astype(np.int64) + 1 - alone, 0, kept)
    places = ranges(starts[:-1], prefix)
    by_member = np.argsort(ranks[places], kind="stable")
    places = places[by_member]
    return _Side(matrix, sizes, ranks[places], owners[places], starts[1:][owners[places]] - places)


def _candidates(left: _Side, right: _Side, threshold: float, same: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that share a member of their prefixes and have fitting sizes; a pair may come more than once."""
    low = np.searchsorted(right.members, left.members, "left")
    if same:
        low = np.arange(1, len(left.members) + 1)  # those behind it: each pair once for a member
    counts = np.searchsorted(right.members, left.members, "right") - low
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS, "right")))
        one = np.repeat(np.arange(start, stop), counts[start:stop])
        two = ranges(low[start:stop], counts[start:stop])
        start = stop
        i, j = left.owners[one], right.owners[two]
        # of n and m members, at least t / (1 + t) * (n + m) are shared
        enough = threshold / (1 + threshold) * (left.sizes[i] + right.sizes[j]) - EPS
        keep = np.minimum(left.left[one], right.left[two]) >= enough
        yield i[keep], j[keep]


def _similar(
    left: _Side, right: _Side, i: np.ndarray, j: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of candidate pairs those that reach the threshold, and their Jaccard index."""
    shared = np.empty(len(i), dtype=np.float64)
    for at in range(0, len(i), PAIRS // 16):
        part = slice(at, at + PAIRS // 16)
        shared[part] = np.asarray(left.matrix[i[part]].multiply(right.matrix[j[part]]).sum(axis=1)).ravel()
    jaccard = shared / (left.sizes[i] + right.sizes[j] - shared)
    keep = jaccard >= threshold - EPS
    return i[keep], j[keep], jaccard[keep]


def alike(left: Grams, right: Grams, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Places in ``left`` and in ``right`` with a Jaccard index of at least ``threshold``, and the index, in portions.

    A pair may come more than once.
    """
    if len(left.sizes) and len(right.sizes):
        one, two = _sides(left, right, threshold)
        for i, j in _candidates(one, two, threshold, same=False):
            yield _similar(one, two, *_once(i, j, len(two.sizes)), threshold)


def pairs(left: Grams, right: Grams, threshold: float) -> list[tuple[int, int, float]]:
    """Every pair of ``alike``, once, in order.

    >>> pairs(grams(["a b c d e f"]), grams(["A, b c d e f!", "a b c d e g"]), 0.3)
    [(0, 0, 1.0), (0, 1, 0.3333333333333333)]
    """
    found = {
        (int(a), int(b)): float(value)
        for i, j, values in alike(left, right, threshold)
        for a, b, value in zip(i, j, values, strict=True)
    }
    return [(*pair, value) for pair, value in sorted(found.items())]


def near(left: Grams, right: Grams, threshold: float) -> np.ndarray:
    """Which texts of ``right`` are like some text of ``left``: ``(texts of right,)`` bool."""
    out = np.zeros(len(right.sizes), dtype=bool)
    for _, j, _ in alike(left, right, threshold):
        out[j] = True
    return out


def clusters(texts: Grams, threshold: float) -> np.ndarray:
    """For each text the first text of its cluster: texts that are alike, directly or through others, share one.

    >>> clusters(grams(["a b c d e f", "x", "a b c d e f g", "X!"]), 0.5).tolist()
    [0, 1, 0, 1]
    """
    labels = np.arange(len(texts.sizes))
    if not len(labels):
        return labels
    (side,) = _sides(texts, None, threshold)
    # neighbours in the index first: most clusters are whole after that, and inside one nothing is compared
    beside = np.flatnonzero(side.members[1:] == side.members[:-1])
    first = [(side.owners[beside], side.owners[beside + 1])]
    for i, j in chain(first, _candidates(side, side, threshold, same=True)):
        apart = labels[i] != labels[j]
        i, j, _ = _similar(side, side, *_once(i[apart], j[apart], len(labels)), threshold)
        labels = joined(labels, i, j)
    return labels


def joined(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cluster labels after the members ``left[k]`` and ``right[k]`` were joined; a label is its first member."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(left):
        return labels
    edges = coo_matrix((np.ones(len(left), bool), (labels[left], labels[right])), shape=(len(labels),) * 2)
    _, component = connected_components(edges, directed=False)
    first = np.full(component.max() + 1, len(labels))
    np.minimum.at(first, component, np.arange(len(labels)))
    return first[component][labels]


def _once(i: np.ndarray, j: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    keys = np.unique(i.astype(np.int64) * width + j)
    return keys // width, keys % width
