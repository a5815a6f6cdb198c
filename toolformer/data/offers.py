"""In: an evaluation row with the tools that upstream offers. Out: the row with all tools on offer, fixed once.

Upstream's tools come first; distractors fill up: near ones, others of the same domain, any. No two tools of a row have
one name or do the same work, and the place of the right ones says nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from toolformer.data.catalog import codes
from toolformer.data.corpus import Kin
from toolformer.data.negatives import Negatives
from toolformer.data.rules import Rules
from toolformer.records import Example, Tool

REFUSALS = (
    "I'm sorry, none of the tools at hand can do that.",
    "I'm afraid I have no tool for this.",
    "Sorry, I can't help with that: there is no fitting tool.",
    "That is not something the available tools can do.",
    "I don't have a tool that can take care of this request.",
    "Unfortunately, no available tool covers that.",
)

# What is on offer beside the right tools: near and same-domain distractors, and those at random. Unknown tools have
# unknown ones beside them, so that being unknown does not give them away.
POOLS = {
    "validation": (("trained", "validation"), ("trained", "validation")),
    "test_seen": (("trained",), ("trained",)),
    "test_held_out": (("trained",), ("trained",)),
    "test_unseen": (("trained", "unseen", "evaluation"), ("unseen", "evaluation")),
    "test_bfcl": (("evaluation",), ("evaluation",)),
}
ALIKE = 0.5  # a tool of another source that reads so much like a right one may well be right too


def without_tool(example: Example, rng: np.random.Generator) -> Example:
    """The same request where its tool is not offered: the right answer is to say so."""
    reply = REFUSALS[int(rng.integers(len(REFUSALS)))]
    return replace(
        example, id=f"{example.id}/tool_missing", tools=(), calls=(), reply=reply, stratum="tool_missing", draft=None
    )


class Offers:
    """Distractors out of a catalog.

    Args:
        tools: all of them.
        kin: what is known of each.
        rules: how many tools, and which distractors.
        as_upstream: sources whose rows offer what upstream offers and nothing else.
        no_call_as_upstream: sources of which that is true of the rows without a call.
        evaluates: sources that only evaluate: their rows never lose their tools.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        kin: Sequence[Kin],
        rules: Rules,
        *,
        as_upstream: Collection[str] = (),
        no_call_as_upstream: Collection[str] = (),
        evaluates: Collection[str] = (),
    ) -> None:
        self.tools, self.rules, self.evaluates = tools, rules, evaluates
        self.as_upstream, self.no_call_as_upstream = as_upstream, no_call_as_upstream
        self.place = {tool.id: i for i, tool in enumerate(tools)}
        self.negatives = Negatives(tools)
        self.plain = np.array([one.wording == 0 for one in kin])
        self.uses = np.array([one.use for one in kin])
        self.names = codes(tool.name.casefold() for tool in tools)
        self.functions = codes(one.function for one in kin)
        self.sources = codes(one.source for one in kin)
        self.domains = codes(f"{one.source}/{one.domain}" for one in kin)
        self.trained_domains = set(self.domains[self.uses == "trained"].tolist())

    def add(self, example: Example, split: str) -> Example:
        """The row with its tools; some rows lose the right ones, an unseen call gets its stratum."""
        rng = self._rng(example, "offers")
        offered = [self.place[id_] for id_ in example.tools]
        gold = self._gold(example)
        # what else fits a request that needs no call is not known: such a list is upstream's to decide
        closed = example.source in self.no_call_as_upstream and offered
        fixed = example.source in self.as_upstream or (not example.calls and (closed or len(offered) > 1))
        if example.calls and split == "test_unseen":
            example = replace(example, stratum=self._stratum(example, gold))
        avoid = gold or offered[:1]
        if example.calls and example.source not in self.evaluates and rng.random() < self.rules.tool_missing_share:
            example, offered, gold = without_tool(example, rng), [place for place in offered if place not in gold], []
        if not fixed:
            first = gold + [place for place in offered if place not in gold]
            offered = self.filled(first[: max(len(gold), self.rules.tools_per_request)], avoid, split, rng)
        ids = [self.tools[place].id for place in offered]
        return replace(example, tools=tuple(ids[i] for i in rng.permutation(len(ids))))

    def more(self, example: Example, split: str, count: int) -> Example:
        """The row with ``count`` tools: its own, the right ones first, and others at random."""
        gold = self._gold(example)
        offered = gold + [place for id_ in example.tools if (place := self.place[id_]) not in gold]
        rng = self._rng(example, f"more/{count}")
        if count > len(offered):
            offered = self.filled(offered, gold, split, rng, count)
        offered = offered[: max(len(gold), count)]
        return replace(example, tools=tuple(self.tools[offered[i]].id for i in rng.permutation(len(offered))))

    def filled(
        self, offered: list[int], avoid: list[int], split: str, rng: np.random.Generator, count: int | None = None
    ) -> list[int]:
        """``offered`` and as many distractors as are wanted (``count`` in all) and can be had.

        ``avoid`` are the right tools, on offer or not: nothing that could be right beside them is added.
        """
        count = self.rules.tools_per_request if count is None else count
        used = {int(key) for place in [*offered, *avoid] for key in self._keys(place)}
        offered = list(offered)
        room = count - len(offered)
        shares = self.rules.distractors
        parts = [round(room * shares["near"]), round(room * shares["same_domain"]), room]
        for part, places in zip(parts, self._choices(offered, avoid, split, rng, count), strict=True):
            wanted = min(count, len(offered) + part)
            for place in places:
                if len(offered) >= wanted:
                    break
                keys = self._keys(place)
                if not used & set(keys):
                    offered.append(int(place))
                    used |= set(keys)
        return offered

    def _choices(
        self, offered: list[int], avoid: list[int], split: str, rng: np.random.Generator, count: int
    ) -> Iterator[np.ndarray]:
        """Near ones, those of the same domain, any; each in the order in which they are tried."""
        near, far = (self.plain & np.isin(self.uses, kinds) for kinds in POOLS[split])
        anchors = avoid or offered[:1]
        own = np.isin(self.sources, self.sources[anchors]) if anchors else np.ones(len(self.plain), bool)
        among = np.flatnonzero(near & own)
        yield self._nearest(anchors, among, 4 * count)
        same = np.flatnonzero(near & np.isin(self.domains, self.domains[anchors]))
        yield same[rng.permutation(len(same))]
        for place in avoid:  # of other sources nothing that might do the same
            far = far & (own | (self.negatives.similarity(place) < ALIKE))
        places = np.flatnonzero(far)
        yield places[rng.permutation(len(places))]

    def _nearest(self, anchors: list[int], among: np.ndarray, count: int) -> np.ndarray:
        """The nearest of each anchor in turn."""
        lists = [self.negatives.nearest_of(place, among, count) for place in anchors]
        turns = [int(found[i]) for i in range(count) for found in lists if i < len(found)]
        return np.array(list(dict.fromkeys(turns)), dtype=np.int64)

    def _keys(self, place: int) -> tuple[int, int]:
        """What no two tools of a row share: name and function, as numbers that do not meet."""
        return 2 * int(self.names[place]), 2 * int(self.functions[place]) + 1

    def _gold(self, example: Example) -> list[int]:
        names = {call.name for call in example.calls}
        return [place for id_ in example.tools if self.tools[place := self.place[id_]].name in names]

    def _stratum(self, example: Example, gold: list[int]) -> str:
        if example.source in self.evaluates:
            return "new_source"
        same = all(int(self.domains[place]) in self.trained_domains for place in gold)
        return "same_domain" if same else "new_domain"

    def _rng(self, example: Example, what: str) -> np.random.Generator:
        text = f"{self.rules.seed}/{what}/{example.source}/{example.id}"
        return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16))
