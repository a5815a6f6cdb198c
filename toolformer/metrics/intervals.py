"""In: counts, or values per row. Out: 95% intervals, and tests that compare two runs on the same rows.

Rates get Wilson's interval; means and ratios of sums a percentile bootstrap that draws whole requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_Z = 1.959963984540054  # 97.5% quantile of the normal distribution
_BLOCK = 2_000_000  # numbers held at a time


def wilson(k: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval for k of n (Wilson 1927); (0, 1) where n is 0.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n == 0:
        return 0.0, 1.0
    share, square = k / n, _Z * _Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def clusters(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """A number for each row, equal for equal keys."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resampled(groups: int, statistic: Callable[[Array], Array], seed: int, draws: int = 1000) -> Array:
    """``statistic`` of ``draws`` samples of ``groups`` clusters with replacement.

    ``statistic`` gets how often each cluster was drawn (draws, groups) and gives one line per draw.
    """
    rng = np.random.default_rng(seed)
    out = []
    for start in range(0, draws, step := max(1, _BLOCK // max(1, groups))):
        size = min(step, draws - start)
        picks = rng.integers(groups, size=(size, groups)) + np.arange(size)[:, None] * groups
        times = np.bincount(picks.ravel(), minlength=size * groups).reshape(size, groups)
        out.append(statistic(times.astype(np.float64)))
    return np.concatenate(out)


def middle_95(samples: Array) -> tuple[Array, Array]:
    """The 2.5% and 97.5% quantiles of each column, draws without a value left out."""
    low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
    return low, high


def bootstrap(
    values: Sequence[float], seed: int, requests: Sequence[Hashable] | None = None, draws: int = 1000
) -> tuple[float, float]:
    """95% percentile interval of the mean of ``values``; rows of one request are drawn together.

    >>> low, high = bootstrap([0.0, 1.0] * 50, seed=0)
    >>> 0.38 < low < 0.44 and 0.56 < high < 0.62
    True
    """
    if not len(values):
        return 0.0, 1.0
    sums = by_cluster(np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], 1), requests)
    low, high = middle_95(resampled(len(sums), lambda times: _ratio(times @ sums), seed, draws))
    return float(low), float(high)


def by_cluster(columns: Array, requests: Sequence[Hashable] | None) -> Array:
    """Sums of each column over the rows of each request: (rows, m) -> (requests, m)."""
    if requests is None:
        return columns
    group = clusters(requests)
    out = np.zeros((int(group.max()) + 1 if len(group) else 0, columns.shape[1]))
    np.add.at(out, group, columns)
    return out


def _ratio(sums: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


class McNemar(NamedTuple):
    """Rows that only the first run has right, rows that only the second has right, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact test: are two runs right equally often on the same rows?

    Raises:
        ValueError: the runs have different numbers of rows.

    >>> mcnemar([True] * 10 + [False] * 2, [True] * 4 + [False] * 6 + [False] * 2)
    McNemar(only_first=6, only_second=0, p=0.03125)
    """
    _same_rows(first, second)
    only_first = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    only_second = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**n))


class Difference(NamedTuple):
    """Mean of the second run minus mean of the first, with its 95% interval and two-sided bootstrap p."""

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    seed: int,
    requests: Sequence[Hashable] | None = None,
    draws: int = 1000,
) -> Difference:
    """How much better the second run is on the same rows; rows of one request are drawn together.

    Raises:
        ValueError: the runs have different numbers of rows, or none.

    >>> paired_bootstrap([0.0] * 20, [1.0] * 20, seed=0)
    Difference(value=1.0, low=1.0, high=1.0, p=0.001998001998001998)
    """
    _same_rows(first, second)
    if not len(first):
        raise ValueError("runs to compare: number of rows is 0; give at least one row")
    gain = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    sums = by_cluster(np.stack([gain, np.ones(len(gain))], 1), requests)
    samples = resampled(len(sums), lambda times: _ratio(times @ sums), seed, draws)
    low, high = middle_95(samples)
    beyond = 1 + min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return Difference(float(gain.mean()), float(low), float(high), min(1.0, 2 * beyond / (draws + 1)))


def _same_rows(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"runs to compare: numbers of rows are {len(first)} and {len(second)}; give the same rows twice"
        )
