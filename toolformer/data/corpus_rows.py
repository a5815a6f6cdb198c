"""In: a corpus. Out: training rows with their tools; batch ``step`` is a pure function of (seed, step).

Sources are mixed by weights, each tool comes in one of its wordings, and some call rows lose their tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from toolformer.data.corpus import Corpus, reword
from toolformer.data.mixture import Mixture
from toolformer.data.negatives import Negatives
from toolformer.data.offers import ALIKE, Offers, without_tool
from toolformer.data.rules import Rules
from toolformer.records import Example, Tool

Rows = list[tuple[Example, list[Tool]]]


def opened(
    folder: str | Path,
    *,
    seed: int = 0,
    tool_missing_share: float = 0.06,
    temperature: float | None = 2.0,
    no_call_share: float = 0.2,
    together: int = 4,
) -> CorpusRows:
    """The rows of a corpus folder; the rest is as in ``CorpusRows``."""
    mixture = {"temperature": temperature, "no_call_share": no_call_share, "together": together}
    return CorpusRows(Corpus.open(folder), "train", seed, tool_missing_share=tool_missing_share, **mixture)


class CorpusRows:
    """Training rows of a corpus: batch ``step`` is a pure function of (seed, step).

    Args:
        corpus: where the rows are.
        split: the one that is trained on.
        seed: of order, wordings and offers.
        tool_missing_share: of the call rows that lose their tools (stratum tool_missing).
        temperature: a source of n rows weighs n ** (1 / temperature): 1 = as many as there are, more = the sources are
            more alike. None = all rows in one order, each once in a pass.
        no_call_share: with a temperature, at most this part of a source's rows are without a call.
        together: rows of one source that stand beside each other, so that a batch's pool holds several of its tools.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str = "train",
        seed: int = 0,
        *,
        tool_missing_share: float = 0.06,
        temperature: float | None = None,
        no_call_share: float = 0.2,
        together: int = 1,
    ) -> None:
        self.corpus, self.seed, self.tool_missing_share = corpus, seed, tool_missing_share
        self.examples = corpus.split(split)
        if not len(self.examples):
            raise ValueError(f"{corpus.folder}: split {split} has 0 rows; prepare the corpus with more data")
        self.mixture = Mixture(self.examples.table, seed, temperature, no_call_share, together)
        families = {corpus.kin[id_].family for id_ in self.examples.tool_ids()}
        families |= {kin.family for kin in corpus.kin.values() if kin.use == "trained"}
        self.wordings: dict[str, list[str]] = {family: [] for family in sorted(families)}
        for id_, kin in corpus.kin.items():
            if kin.family in families and kin.use in ("", "trained"):
                self.wordings[kin.family].append(id_)
        self.base = {family: ids[0] for family, ids in self.wordings.items()}
        self.place = {family: i for i, family in enumerate(self.base)}
        self.families = list(self.base)
        self.sources = np.array([corpus.kin[id_].source for id_ in self.base.values()])
        self.negatives = Negatives([corpus.tools[id_] for id_ in self.base.values()])
        self.closed = {source["name"] for source in corpus.info.get("sources", ()) if source.get("no_call_as_upstream")}

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, step: int, *, batch_size: int, pool_size: int, tools_per_request: int) -> Rows:
        """``batch_size`` rows; their tools come from a shared pool of ``pool_size``, or more where gold needs more."""
        rng = np.random.default_rng([self.seed, 2, step])
        examples = [self.examples[row] for row in self.mixture.rows(step * batch_size, batch_size)]
        needed = [self._needed(example, tools_per_request, rng) for example in examples]
        pool = self._pool(list(dict.fromkeys(family for found in needed for family in found)), examples, pool_size, rng)
        worded = {family: self.corpus.tools[_pick(self.wordings[family], rng)] for family in pool}
        return [
            self._offer(example, found, worded, tools_per_request, rng)
            for example, found in zip(examples, needed, strict=True)
        ]

    def tools(self, step: int, n: int) -> list[Tool]:
        """``n`` distinct training tools, any wording; fewer where there are fewer."""
        rng = np.random.default_rng([self.seed, 3, step])
        ids = [id_ for wordings in self.wordings.values() for id_ in wordings]
        return [self.corpus.tools[ids[i]] for i in rng.permutation(len(ids))[:n]]

    @property
    def selects_only(self) -> frozenset[str]:
        """The sources whose gold says which tools are right, and no arguments."""
        return frozenset(source["name"] for source in self.corpus.info["sources"] if source.get("selects_only"))

    def split(
        self, name: str, rows: int | None = None, *, tools_per_request: int | None = None
    ) -> tuple[list[Tool], list[Example]]:
        """The tools that a split's rows offer, and its first ``rows`` rows (stored shuffled), or all.

        With another ``tools_per_request`` than the corpus was prepared with, rows lose or get distractors.

        Raises:
            ValueError: the corpus does not say which distractors there are for another number.
        """
        examples = self.corpus.split(name)[:rows]
        prepared = self.corpus.info.get("rules", {}).get("tools_per_request", tools_per_request)
        if tools_per_request not in (None, prepared):
            if "distractors" not in self.corpus.info["rules"]:
                raise ValueError(
                    f"{self.corpus.folder}: split.tools_per_request is {tools_per_request}, the corpus was prepared "
                    f"with {prepared}; set data.rules.tools_per_request={tools_per_request} to prepare another"
                )
            examples = [self._offers.more(example, name, tools_per_request) for example in examples]
        used = dict.fromkeys(id_ for example in examples for id_ in example.tools)
        return [self.corpus.tools[id_] for id_ in used], examples

    @cached_property
    def _offers(self) -> Offers:
        info = self.corpus.info
        fixed = [source["name"] for source in info["sources"] if source["as_upstream"]]
        rules = Rules(**info["rules"])
        return Offers(list(self.corpus.tools.values()), list(self.corpus.kin.values()), rules, as_upstream=fixed)

    def fingerprints(self) -> dict[str, str]:
        """The corpus's own, whose files are held to it whenever they are read."""
        return {"corpus": self.corpus.fingerprint}

    def _family(self, id_: str) -> str:
        return self.corpus.kin[id_].family

    def _gold(self, example: Example) -> list[str]:
        """The ids of the tools that are called."""
        names = {call.name for call in example.calls}
        return [id_ for id_ in example.tools if self.corpus.tools[id_].name in names]

    def _needed(self, example: Example, size: int, rng: np.random.Generator) -> list[str]:
        """The families that the pool must hold for a row: those called, the one it is about, or its list of tools.

        A row that offers none gets one of its source.
        """
        if example.calls:
            return [self._family(id_) for id_ in self._gold(example)]
        if example.tools:
            ids = example.tools if len(example.tools) <= size else rng.permutation(example.tools)[:size].tolist()
            return [self._family(id_) for id_ in ids]
        own = np.flatnonzero(self.sources == example.source)
        return [self.families[own[int(rng.integers(len(own)))]]] if len(own) else []

    def _pool(self, needed: list[str], examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[str]:
        """The needed families, near ones of them for half of the room that is left, then any of the same sources.

        Where upstream offers tools beside the right ones, one of those is the near one.
        """
        free = np.ones(len(self.families), dtype=bool)
        free[[self.place[family] for family in needed]] = False
        room = max(0, size - len(needed))
        listed = self._listed(examples, needed)
        near: list[int] = []
        for family in needed:
            place = next((place for place in listed.get(family, ()) if free[place]), None)
            if place is None:
                found = self.negatives.nearest_of(self.place[family], np.flatnonzero(free), 1)
                place = int(found[0]) if len(found) else None
            if place is not None:
                near.append(place)
                free[place] = False
        free[near] = True
        near = [near[i] for i in rng.permutation(len(near))[: room // 2]]
        free[near] = False
        present = np.unique(self.sources[[self.place[family] for family in needed]])
        others = np.flatnonzero(free & np.isin(self.sources, present))
        others = others[rng.permutation(len(others))[: room - len(near)]]
        return needed + [self.families[place] for place in [*near, *others.tolist()]]

    def _listed(self, examples: Sequence[Example], needed: Sequence[str]) -> dict[str, list[int]]:
        """By the first family that is called: the others that upstream offers beside it."""
        out: dict[str, list[int]] = {}
        for example in examples:
            if example.calls and len(example.tools) > len(example.calls):
                gold = self._gold(example)
                others = [self.place[self._family(id_)] for id_ in example.tools if id_ not in gold]
                out.setdefault(self._family(gold[0]), []).extend(others)
        return out

    def _offer(
        self, example: Example, needed: list[str], worded: Mapping[str, Tool], size: int, rng: np.random.Generator
    ) -> tuple[Example, list[Tool]]:
        """A row with its tools: gold's wording, the nearest of the pool, then any; no two of one function or name."""
        offered: list[Tool] = []
        near: list[str] = []
        functions = set(map(self._function, needed))
        free = [other for other in worded if self._function(other) not in functions]
        closed = example.source in self.closed and bool(example.tools)
        listed = not example.calls and (closed or len(example.tools) > 1)  # what else fits is not known
        if needed and example.tools:
            pairs = [
                (self.corpus.tools[id_], worded[self._family(id_)])
                for id_ in example.tools
                if self._family(id_) in worded
            ]
            example = reword(example, *pairs)
            if example.calls and rng.random() < self.tool_missing_share:
                example = without_tool(example, rng)
            else:
                offered += [worded[family] for family in needed]
        elif needed:
            offered += [worded[family] for family in needed]
        if needed:
            free = self._harmless(example, needed, free)
            ids = {self.base[other]: other for other in free}
            near = [ids[id_] for id_ in self.negatives.nearest(self.base[needed[0]], ids, (size - len(offered)) // 2)]
        rest = [other for other in free if other not in near]
        for other in near + [rest[i] for i in rng.permutation(len(rest))]:
            name, function = worded[other].name, self._function(other)
            if (
                not listed
                and len(offered) < size
                and function not in functions
                and name not in {t.name for t in offered}
            ):
                offered.append(worded[other])
                functions.add(function)
        offered = [offered[i] for i in rng.permutation(len(offered))]
        return replace(example, tools=tuple(tool.id for tool in offered)), offered

    def _harmless(self, example: Example, needed: Sequence[str], free: list[str]) -> list[str]:
        """Those of ``free`` that cannot be right: of the row's own source or, beside a call, unlike what is called."""
        out = []
        for other in free:
            place = self.place[other]
            if self.sources[place] not in ("", example.source):
                called = example.calls or example.stratum == "tool_missing"
                if not called or any(self.negatives.similarity(self.place[f])[place] >= ALIKE for f in needed):
                    continue
            out.append(other)
        return out

    def _function(self, family: str) -> str:
        return self.corpus.kin[self.base[family]].function


def _pick(ids: Sequence[str], rng: np.random.Generator) -> str:
    return ids[int(rng.integers(len(ids)))]
