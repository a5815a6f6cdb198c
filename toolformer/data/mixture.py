"""In: the rows of a split, weights. Out: which rows come next, from any position on, without counting up to it.

Positions are dealt out in cycles: each cycle holds every group of rows as often as its weight says, in a random order;
within a group each row comes once in a pass.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from toolformer.data.tables import one_array, pc

CYCLE = 1024


class Mixture:
    """The order of training rows; see ``CorpusRows`` for the arguments."""

    def __init__(
        self, table: pa.Table, seed: int, temperature: float | None, no_call_share: float, together: int
    ) -> None:
        if temperature is not None and temperature < 1:
            raise ValueError(f"temperature is {temperature}; it must be at least 1")
        if not 0 <= no_call_share <= 1:
            raise ValueError(f"no_call_share is {no_call_share}; it must lie between 0 and 1")
        if together < 1:
            raise ValueError(f"together is {together}; it must be at least 1")
        self.seed, self.together = seed, together
        self.groups, weights = [np.arange(table.num_rows)], [1.0]
        if temperature is not None:
            self.groups, weights = _groups(table, temperature, no_call_share)
        self.counts = _apportioned(np.array(weights), CYCLE)
        self._passes: dict[tuple[int, int], np.ndarray] = {}
        self._cycles: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def rows(self, start: int, count: int) -> list[int]:
        """The rows at positions ``start`` to ``start + count``."""
        return [self._row(position) for position in range(start, start + count)]

    def _row(self, position: int) -> int:
        draw, offset = divmod(position, self.together)
        cycle, slot = divmod(draw, CYCLE)
        order, ranks = self._cycle(cycle)
        group = int(order[slot])
        drawn = (cycle * int(self.counts[group]) + int(ranks[slot])) * self.together + offset
        pass_, place = divmod(drawn, len(self.groups[group]))
        return int(self.groups[group][self._pass(group, pass_)[place]])

    def _cycle(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Groups in the order of a cycle, and how often each came before in it."""
        if number not in self._cycles:
            self._cycles = {k: v for k, v in self._cycles.items() if k == number - 1}
            order = np.repeat(np.arange(len(self.counts)), self.counts)
            order = order[np.random.default_rng([self.seed, 4, number]).permutation(CYCLE)]
            ranks = np.empty(CYCLE, dtype=np.int64)
            for group in range(len(self.counts)):
                ranks[order == group] = np.arange(self.counts[group])
            self._cycles[number] = order, ranks
        return self._cycles[number]

    def _pass(self, group: int, number: int) -> np.ndarray:
        """The order of a group's rows in one pass; the last two are kept, as a batch may span both."""
        key = group, number
        if key not in self._passes:
            self._passes.pop((group, number - 2), None)
            # a trailing 0 does not change a seed: a corpus of one group keeps the order it had before there were groups
            rng = np.random.default_rng([self.seed, 1, number, group])
            self._passes[key] = rng.permutation(len(self.groups[group]))
        return self._passes[key]


def _groups(table: pa.Table, temperature: float, no_call_share: float) -> tuple[list[np.ndarray], list[float]]:
    """Rows by source and by whether they have a call, and the weight of each group."""
    encoded = one_array(table["source"]).dictionary_encode()
    sources = encoded.indices.to_numpy()
    called = np.asarray(pc.not_equal(table["calls"], "[]"))
    groups, weights = [], []
    for source in range(len(encoded.dictionary)):
        mine = sources == source
        none = mine & ~called
        total, silent = int(mine.sum()), int(none.sum())
        weight = total ** (1 / temperature)
        quiet = min(silent / total, no_call_share) if silent < total else 1.0
        for rows, part in ((mine & called, 1 - quiet), (none, quiet)):
            if rows.any() and part > 0:
                groups.append(np.flatnonzero(rows))
                weights.append(weight * part)
    return groups, weights


def _apportioned(weights: np.ndarray, total: int) -> np.ndarray:
    """``total`` places in shares of ``weights``: the largest remainders are rounded up, nobody gets none.

    >>> _apportioned(np.array([5.0, 4.0, 0.001]), 10).tolist()
    [5, 4, 1]
    """
    exact = weights / weights.sum() * total
    counts = np.maximum(1, np.floor(exact).astype(np.int64))
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > total:
        counts[np.argmin(np.where(counts > 1, exact - counts, np.inf))] -= 1
    return counts
