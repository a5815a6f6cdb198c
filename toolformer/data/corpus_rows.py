"""In: a corpus. Out: training rows with their tools; batch ``step`` is a pure function of (seed, step).

Each tool comes in one of its wordings, and some call rows lose their tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from toolformer.data.corpus import Corpus, digest, reword
from toolformer.data.negatives import Negatives
from toolformer.records import Example, Tool

Rows = list[tuple[Example, list[Tool]]]
REFUSALS = (
    "I'm sorry, none of the tools at hand can do that.",
    "I'm afraid I have no tool for this.",
    "Sorry, I can't help with that: there is no fitting tool.",
    "That is not something the available tools can do.",
    "I don't have a tool that can take care of this request.",
    "Unfortunately, no available tool covers that.",
)


def without_tool(example: Example, rng: np.random.Generator) -> Example:
    """The same request where its tool is not offered: the right answer is to say so."""
    reply = REFUSALS[int(rng.integers(len(REFUSALS)))]
    return replace(example, id=f"{example.id}/tool_missing", tools=(), calls=(), reply=reply, stratum="tool_missing")


class CorpusRows:
    """Training rows of a corpus: batch ``step`` is a pure function of (seed, step).

    Each pass goes through the rows in a new order. In each batch a tool comes in one of its wordings, and a share of
    the call rows loses its tool (stratum tool_missing).
    """

    def __init__(
        self, corpus: Corpus, split: str = "train", seed: int = 0, *, tool_missing_share: float = 0.06
    ) -> None:
        self.corpus, self.seed, self.tool_missing_share = corpus, seed, tool_missing_share
        self.examples = corpus.split(split)
        if not self.examples:
            raise ValueError(f"{corpus.folder}: split {split} has 0 rows; prepare the corpus with more data")
        used = sorted({id_ for example in self.examples for id_ in example.tools})
        families = {corpus.kin[id_].family for id_ in used}
        self.wordings: dict[str, list[str]] = {family: [] for family in sorted(families)}
        for id_, kin in corpus.kin.items():
            if kin.family in families:
                self.wordings[kin.family].append(id_)
        self.base = {family: ids[0] for family, ids in self.wordings.items()}
        self.negatives = Negatives([corpus.tools[id_] for id_ in self.base.values()])
        self._passes: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, step: int, *, batch_size: int, pool_size: int, tools_per_request: int) -> Rows:
        """``batch_size`` rows; their tools come from a shared pool of ``pool_size``, or more where gold needs more."""
        rng = np.random.default_rng([self.seed, 2, step])
        count = len(self.examples)
        places = range(step * batch_size, (step + 1) * batch_size)
        examples = [self.examples[self._order(i // count)[i % count]] for i in places]
        needed = [self._family(example) for example in examples]
        pool = self._pool(list(dict.fromkeys(filter(None, needed))), pool_size, rng)
        worded = {family: self.corpus.tools[_pick(self.wordings[family], rng)] for family in pool}
        return [
            self._offer(example, family, worded, tools_per_request, rng)
            for example, family in zip(examples, needed, strict=True)
        ]

    def tools(self, step: int, n: int) -> list[Tool]:
        """``n`` distinct training tools, any wording; fewer where there are fewer."""
        rng = np.random.default_rng([self.seed, 3, step])
        ids = [id_ for wordings in self.wordings.values() for id_ in wordings]
        return [self.corpus.tools[ids[i]] for i in rng.permutation(len(ids))[:n]]

    def split(
        self, name: str, rows: int | None = None, *, tools_per_request: int | None = None
    ) -> tuple[list[Tool], list[Example]]:
        """The tools that a split's rows offer, and its first ``rows`` rows (stored shuffled), or all.

        Raises:
            ValueError: the rows were prepared with another number of tools than ``tools_per_request``.
        """
        prepared = self.corpus.info.get("rules", {}).get("tools_per_request", tools_per_request)
        if tools_per_request not in (None, prepared):
            raise ValueError(
                f"{self.corpus.folder}: split.tools_per_request is {tools_per_request}, the corpus was prepared with "
                f"{prepared}; set data.rules.tools_per_request={tools_per_request} to prepare another"
            )
        examples = self.corpus.split(name)[:rows]
        used = dict.fromkeys(id_ for example in examples for id_ in example.tools)
        return [self.corpus.tools[id_] for id_ in used], examples

    def fingerprints(self) -> dict[str, str]:
        """Of the corpus folder's tables."""
        return {path.name: digest(path) for path in sorted(self.corpus.folder.glob("*.parquet"))}

    def validation(self, rows: int) -> Rows:
        """The first rows of the validation split with their tools; stored shuffled, so they are a fair sample."""
        examples = self.corpus.split("validation")[:rows]
        return [(example, [self.corpus.tools[id_] for id_ in example.tools]) for example in examples]

    def _order(self, pass_: int) -> np.ndarray:
        """The order of the rows in one pass; the last two are kept, as a batch may span both."""
        if pass_ not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k == pass_ - 1}
            self._passes[pass_] = np.random.default_rng([self.seed, 1, pass_]).permutation(len(self.examples))
        return self._passes[pass_]

    def _family(self, example: Example) -> str | None:
        return self.corpus.kin[example.tools[0]].family if example.tools else None

    def _pool(self, needed: list[str], size: int, rng: np.random.Generator) -> list[str]:
        """The needed families, near ones of them for half of the room that is left, then any."""
        free = [family for family in self.base if family not in needed]
        family_of = {id_: family for family, id_ in self.base.items()}
        near: list[str] = []
        for family in needed:
            candidates = [self.base[f] for f in free if f not in near]
            near += [family_of[id_] for id_ in self.negatives.nearest(self.base[family], candidates, 1)]
        room = max(0, size - len(needed))
        near = [near[i] for i in rng.permutation(len(near))[: room // 2]]
        others = [family for family in free if family not in near]
        return needed + near + [others[i] for i in rng.permutation(len(others))[: room - len(near)]]

    def _offer(
        self, example: Example, family: str | None, worded: Mapping[str, Tool], size: int, rng: np.random.Generator
    ) -> tuple[Example, list[Tool]]:
        """A row with its tools: gold's wording, the nearest of the pool, then any; no two of one function or name."""
        offered: list[Tool] = []
        functions: set[str] = set()
        near: list[str] = []
        free = list(worded)
        if family:
            functions.add(self._function(family))
            gold = worded[family]
            example = reword(example, self.corpus.tools[example.tools[0]], gold)
            if example.calls and rng.random() < self.tool_missing_share:
                example = without_tool(example, rng)
            else:
                offered.append(gold)
            free = [other for other in worded if self._function(other) not in functions]
            ids = {self.base[other]: other for other in free}
            near = [ids[id_] for id_ in self.negatives.nearest(self.base[family], ids, (size - len(offered)) // 2)]
        rest = [other for other in free if other not in near]
        for other in near + [rest[i] for i in rng.permutation(len(rest))]:
            name, function = worded[other].name, self._function(other)
            if len(offered) < size and function not in functions and name not in {tool.name for tool in offered}:
                offered.append(worded[other])
                functions.add(function)
        offered = [offered[i] for i in rng.permutation(len(offered))]
        return replace(example, tools=tuple(tool.id for tool in offered)), offered

    def _function(self, family: str) -> str:
        return self.corpus.kin[self.base[family]].function


def _pick(ids: Sequence[str], rng: np.random.Generator) -> str:
    return ids[int(rng.integers(len(ids)))]
