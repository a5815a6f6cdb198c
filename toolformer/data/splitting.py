"""In: all rows of all sources, and the rules. Out: for each row the split that it is in, or why it is in none.

Tools first: a group of tools is trained on, kept for validation, kept unseen, or belongs to a source that only
evaluates. Then rows, by the tools that they are about and by what is asked; last, a row too much like one of a split
that comes earlier in ``ORDER`` is dropped, so tests are kept whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolformer.data.catalog import codes
from toolformer.data.near import ODD, alike, clusters, joined
from toolformer.data.pile import Pile
from toolformer.data.rules import ORDER, Rules, Use
from toolformer.data.tables import one_array, pc

TRAINED, VALIDATION, UNSEEN, RESERVED = range(4)  # what a group of tools is for, as in ``Kin.use``
USES = ("trained", "validation", "unseen", "evaluation")


def share(keys: np.ndarray, seed: int, what: int) -> np.ndarray:
    """A number in [0, 1) for each key (uint64): a function of key, seed and what is decided. Splitmix64."""
    mixed = keys.astype(np.uint64) + np.uint64((seed * 1_000_003 + what + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53


class Splits:
    """Where each row goes: ``split[i]`` is a place in ``ORDER``, or -1 and ``reasons[why[i]]`` says why."""

    def __init__(self, rows: int) -> None:
        self.split = np.full(rows, -1, dtype=np.int8)
        self.why = np.full(rows, -1, dtype=np.int32)
        self.reasons: list[str] = []

    def put(self, rows: np.ndarray, split: str) -> None:
        """Rows (bool) into a split, those that are in none and were not set aside."""
        self.split[rows & (self.split < 0) & (self.why < 0)] = ORDER.index(split)

    def drop(self, rows: np.ndarray, reason: str) -> None:
        """Rows (bool) set aside, but for those that were before."""
        rows = rows & (self.why < 0)
        if rows.any():
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.why[rows] = self.reasons.index(reason)
            self.split[rows] = -1

    def of(self, split: str) -> np.ndarray:
        """Which rows (bool) are in a split."""
        return self.split == ORDER.index(split)


def write_splits(folder: Path, splits: Splits, purpose: np.ndarray) -> None:
    """What ``split_rows`` found, as files."""
    for name, column in (("split", splits.split), ("why", splits.why), ("purpose", purpose)):
        np.save(folder / f"{name}.npy", column)
    (folder / "reasons.json").write_text(json.dumps(splits.reasons))


def read_splits(folder: Path) -> tuple[Splits, np.ndarray]:
    """Inverse of ``write_splits``."""
    splits = Splits(0)
    splits.split, splits.why = np.load(folder / "split.npy"), np.load(folder / "why.npy")
    splits.reasons = json.loads((folder / "reasons.json").read_text())
    return splits, np.load(folder / "purpose.npy")


def split_rows(pile: Pile, uses: Sequence[Use], evaluates: Sequence[bool], rules: Rules) -> tuple[Splits, np.ndarray]:
    """The split of each row, and what each tool is for (``TRAINED``, ...)."""
    splits = Splits(len(pile))
    purpose = purposes(pile, uses, evaluates, rules)
    evaluating = np.array(evaluates, dtype=bool)[pile.source]
    for number, use in enumerate(uses):
        if evaluates[number]:
            splits.put(pile.source == number, use.split)
    ids = pc.dictionary_encode(one_array(pile.table["id"])).indices.to_numpy()
    splits.drop(~_first(ids, np.ones(len(pile), bool)), "its id is that of an earlier row")
    splits.drop(
        ~evaluating & pile.about.any(purpose == RESERVED), "a tool of it is like one of a source that only evaluates"
    )
    several = pile.about.sizes > 0
    for kind, split in ((UNSEEN, "test_unseen"), (VALIDATION, "validation")):
        some, whole = pile.about.any(purpose == kind), pile.about.all(purpose == kind)
        splits.put(several & whole, split)
        splits.drop(some & ~whole & ~evaluating, f"only some of its tools are kept for {split}")
    _tests_of_trained_tools(pile, uses, rules, splits)
    splits.put(np.ones(len(pile), bool), "train")
    _patterns(pile, splits)
    _once(pile, evaluating, splits)
    _apart(pile, rules, splits)
    _taught(pile, splits)
    _sampled(pile, evaluating, purpose, rules, splits)
    return splits, purpose


def purposes(pile: Pile, uses: Sequence[Use], evaluates: Sequence[bool], rules: Rules) -> np.ndarray:
    """What each tool of the catalog is for: the same for all of a group, but for those like one that only evaluates."""
    catalog, evaluating = pile.catalog, {number for number, flag in enumerate(evaluates) if flag}
    groups, count = catalog.groups, len(catalog)
    keys = np.array([int(tool.id, 16) for tool in catalog.tools], dtype=np.uint64)
    smallest = np.full(count, np.iinfo(np.uint64).max)
    np.minimum.at(smallest, groups, keys)
    owned: list[set[int]] = [set() for _ in range(count)]
    for place, owners in enumerate(catalog.owners):
        owned[groups[place]] |= owners - evaluating
    known = np.zeros(count, dtype=bool)
    kind = np.full(count, TRAINED)  # by group: looked up at its first tool
    about, rows = groups[pile.about.values], pile.about.owners
    for number, use in enumerate(uses):
        learned = pile.of_upstream(number, use.trained) if use.trained else pile.source == number
        learned &= ~pile.of_upstream(number, use.tested)
        if number not in evaluating:
            known[about[learned[rows]]] = True
    for number, use in enumerate(uses):
        new = about[pile.of_upstream(number, use.tested)[rows]]
        kind[new[~known[new]]] = UNSEEN
    held = np.array([uses[min(owners)].held_back if len(owners) == 1 else 0.0 for owners in owned])
    kind[(kind == TRAINED) & (share(smallest, rules.seed, 0) < held)] = UNSEEN
    kind[(kind == TRAINED) & (share(smallest, rules.seed, 1) < rules.validation_tools)] = VALIDATION
    reserved = np.zeros(count, dtype=bool)
    reserved[catalog.alike[[bool(owners & evaluating) for owners in catalog.owners]]] = True
    return np.where(reserved[catalog.alike], RESERVED, kind[groups])


def _tests_of_trained_tools(pile: Pile, uses: Sequence[Use], rules: Rules, splits: Splits) -> None:
    """Held-out patterns, seen requests and validation, of the rows whose tools are trained on.

    Requests that are alike go the same way, and so do, for held-out, those of one pattern.
    """
    free = (splits.split < 0) & (splits.why < 0)
    alike_ = np.arange(len(pile))
    rows = np.flatnonzero(free)
    alike_[rows] = rows[clusters(pile.said.take(rows), rules.near)]
    wide = alike_.copy()
    named = free & (pile.pattern >= 0)
    first = np.full(len(pile) + 1, len(pile))
    np.minimum.at(first, pile.pattern[named], np.flatnonzero(named))
    wide = joined(wide, np.flatnonzero(named), first[pile.pattern[named]])
    keys = np.minimum.reduceat(pile.said.values, pile.said.starts[:-1])  # of what is said, wherever the row stands
    size = np.bincount(wide[free], minlength=len(pile))
    for number, use in enumerate(uses):
        mine = free & (pile.source == number)
        count = int(mine.sum())
        if not count:
            continue
        pinned = mine & pile.of_upstream(number, use.tested)
        splits.put(pinned, "test_held_out")  # or seen: _patterns tells them apart
        mine &= ~pinned
        if not pinned.any():
            small = size[wide] <= max(1, count // 100)  # a pattern of many rows is worth training on
            chosen = share(keys[wide], rules.seed, 2) < rules.part(rules.held_out, count)
            splits.put(mine & small & chosen, "test_held_out")
            splits.put(mine & (share(keys[alike_], rules.seed, 3) < rules.part(rules.seen, count)), "test_seen")
        splits.put(mine & (share(keys[alike_], rules.seed, 4) < rules.part(rules.validation, count)), "validation")


def _first(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Whether a row (of those ``among``) is the first with its key."""
    rows = np.flatnonzero(among)
    _, places = np.unique(keys[rows], return_index=True)
    out = np.zeros(len(keys), dtype=bool)
    out[rows[places]] = True
    return out


def _once(pile: Pile, evaluating: np.ndarray, splits: Splits) -> None:
    """Each request once in a split, or once for each set of tools it calls; evaluating sources stay as they are."""
    what = _set_hash(pile.said.values, pile.said.starts) * ODD + _set_hash(pile.called.values, pile.called.starts)
    for number, name in enumerate(ORDER):
        mine = (splits.split == number) & ~evaluating
        splits.drop(mine & ~_first(what, mine), f"{name}: request repeated")


def _set_hash(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A number (uint64) for each set, whatever the order of its members."""
    mixed = (share(values, 0, 9) * 2**53).astype(np.uint64) * ODD
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])  # modulo 2^64, so differences are exact
    return sums[starts[1:]] - sums[starts[:-1]] + np.diff(starts).astype(np.uint64)


def _apart(pile: Pile, rules: Rules, splits: Splits) -> None:
    """No request like one of an earlier split."""
    for number, name in enumerate(ORDER[1:], start=1):
        mine = np.flatnonzero(splits.split == number)
        before = np.flatnonzero((splits.split >= 0) & (splits.split < number))
        nearest = np.full(len(mine), len(ORDER))
        for i, j, _ in alike(pile.said.take(before), pile.said.take(mine), rules.near):
            np.minimum.at(nearest, j, splits.split[before[i]])
        for earlier, other in enumerate(ORDER[:number]):
            drop = np.zeros(len(pile), dtype=bool)
            drop[mine[nearest == earlier]] = True
            splits.drop(drop, f"{name}: request near one of {other}")


def _taught(pile: Pile, splits: Splits) -> None:
    """Tests of trained tools without the rows whose tools training never calls."""
    families = pile.catalog.families
    taught = np.zeros(families.max() + 1 if len(families) else 0, dtype=bool)
    taught[families[pile.called.values[splits.of("train")[pile.called.owners]]]] = True
    known = pile.called.all(taught[families])
    for name in ("test_held_out", "test_seen"):
        splits.drop(splits.of(name) & ~known, f"{name}: training never calls a tool of it")


def _patterns(pile: Pile, splits: Splits) -> None:
    """A held-out row whose pattern training has is a seen one."""
    named = pile.pattern >= 0
    learned = np.zeros(pile.pattern.max(initial=0) + 1, dtype=bool)
    learned[pile.pattern[splits.of("train") & named]] = True
    splits.split[splits.of("test_held_out") & named & learned[pile.pattern]] = ORDER.index("test_seen")


def _sampled(pile: Pile, evaluating: np.ndarray, purpose: np.ndarray, rules: Rules, splits: Splits) -> None:
    """At most ``most_rows`` calls of a source in an evaluation split, and rows without a call in equal parts.

    Of unseen tools, those of known domains and those of new ones are counted apart.
    """
    order = share(np.minimum.reduceat(pile.said.values, pile.said.starts[:-1]), rules.seed, 5)
    calls = pile.called.sizes > 0
    domains = codes(f"{kin.source}/{kin.domain}" for kin in pile.catalog.kin)
    familiar = pile.called.all(np.isin(domains, domains[purpose == TRAINED]))
    for name in ORDER[:-1]:
        for number in range(len(pile.names)):
            mine = splits.of(name) & (pile.source == number) & ~evaluating
            if not mine.any():
                continue
            strata = np.unique(pile.stratum[mine & ~calls]).tolist()
            kept = _lowest(mine & calls & familiar, order, rules.most_rows)
            kept |= _lowest(mine & calls & ~familiar, order, rules.most_rows)
            among = int(kept.sum()) or rules.most_rows
            total = round(among * rules.no_call_share / (1 - rules.no_call_share))
            for stratum in sorted(strata, key=pile.strata.__getitem__):
                kept |= _lowest(mine & ~calls & (pile.stratum == stratum), order, -(-total // len(strata)))
            splits.drop(mine & ~kept, f"{name}: not sampled")


def _lowest(rows: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` of ``rows`` (bool) that come first by ``order``."""
    places = np.flatnonzero(rows)
    out = np.zeros(len(rows), dtype=bool)
    out[places[np.argsort(order[places], kind="stable")[:count]]] = True
    return out
