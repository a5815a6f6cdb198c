"""In: a recipe (families, nouns, how often to vary) and a random generator. Out: a pool of distinct tools; rows' tools.

About 60% of a pool are clusters of tools that are easily confused; about half of a row's tools are near its target.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from random import Random

from toolformer.data.toolworld.lexicon import TRAIN, Family, Lexicon
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.tools import ToolShop, WorldTool, conflict, could_serve, new_word


class Recipe:
    """What the tools of a pool are made of.

    ``own_share`` of the nouns are the family's own, ``pseudo_share`` fresh pseudo-words, the rest other nouns of
    ``part``; ``vary_share`` of the tools get other parameters and wording.
    """

    def __init__(
        self, families: Sequence[Family], part: str, *, own_share: float, pseudo_share: float, vary_share: float
    ) -> None:
        self.families, self.part = families, part
        self.own_share, self.pseudo_share, self.vary_share = own_share, pseudo_share, vary_share
        things: dict[tuple[str, str], list[Family]] = {}
        domains: dict[str, list[Family]] = {}
        for family in families:
            things.setdefault((family.domain, family.noun), []).append(family)
            domains.setdefault(family.domain, []).append(family)
        self.things = [group for group in things.values() if len(group) > 1]
        self.domains = list(domains.values())


class Pool:
    """Distinct tools, and for each the others that are easily taken for it."""

    def __init__(self, tools: Sequence[WorldTool]) -> None:
        self.tools = tools
        self._alike: dict[object, list[WorldTool]] = {}
        for wt in tools:
            for key in (wt.cluster, wt.noun, wt.family):
                self._alike.setdefault(key, []).append(wt)

    def near(self, target: WorldTool) -> list[WorldTool]:
        """Tools that share cluster, noun or family with the target, which is among them."""
        alike = self._alike
        return list(dict.fromkeys(alike[target.cluster] + alike[target.noun] + alike[target.family]))

    def company(
        self, rng: Random, wanted: Sequence[WorldTool], n: int, *, near: bool = True, offered: bool = True
    ) -> list[WorldTool]:
        """``n`` tools, shuffled: the wanted ones (if ``offered``) and others that no request confuses with them.

        About half of the others are near the first wanted one (without ``near`` none, if possible), the rest random.
        """
        target, tools, alike = wanted[0], list(wanted), self.near(wanted[0])
        size = n if offered else n + 1

        def fits(wt: WorldTool) -> bool:
            for t in tools:
                if wt is t or conflict(wt, t):
                    return False
            return offered or not could_serve(target, wt)

        for wt in alike if near else ():
            if len(tools) <= size // 2 and fits(wt):
                tools.append(wt)
        for _ in range(4 * size):  # cheaper than to shuffle a large pool
            if len(tools) >= size:
                break
            wt = pick(rng, self.tools)
            if fits(wt) and (near or wt not in alike):
                tools.append(wt)
        for wt in self.tools if len(tools) < size else ():
            if len(tools) < size and fits(wt):
                tools.append(wt)
        if len(tools) < size:
            raise ValueError(
                f"toolworld: tools_per_request is {n}, only {len(tools)} of the {len(self.tools)} tools in the pool go "
                "together; make pool_size larger"
            )
        if not offered:
            tools.remove(target)
        rng.shuffle(tools)
        return tools


class PoolMaker:
    """Fills pools; keeps the names of unseen families out of training."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.nouns, self.shop = lexicon.nouns, ToolShop(lexicon)
        self.unseen: Collection[str] = lexicon.unseen_names

    def pool(self, rng: Random, recipe: Recipe, size: int) -> Pool:
        """``size`` distinct tools; fewer where a recipe without derived tools has not that many."""
        if recipe.own_share == 1 and recipe.vary_share == 0:
            size = min(size, len(recipe.families))
        closed = self.unseen if recipe.part == TRAIN else ()
        pool: list[WorldTool] = []
        ids: set[str] = set()
        cluster = 0
        while len(pool) < size:
            cluster += 1
            one = rng.random() > 0.35  # clusters hold 2.7 tools on average: 60% of the pool
            for wt in [self._one(rng, recipe)] if one else self._cluster(rng, recipe):
                if wt.tool.id not in ids and wt.tool.name not in closed and len(pool) < size:
                    ids.add(wt.tool.id)
                    pool.append(replace(wt, cluster=cluster))
        return Pool(pool)

    def _noun(self, rng: Random, recipe: Recipe) -> str | None:
        r = rng.random()
        if r < recipe.own_share:
            return None
        if r < recipe.own_share + recipe.pseudo_share:
            return new_word(rng, recipe.part)
        return pick(rng, self.nouns[recipe.part])

    def _one(self, rng: Random, recipe: Recipe) -> WorldTool:
        family, noun = pick(rng, recipe.families), self._noun(rng, recipe)
        return self.shop.derive(rng, family, noun, rng.random() < recipe.vary_share)

    def _cluster(self, rng: Random, recipe: Recipe) -> list[WorldTool]:
        """Two to four tools with one thing, one verb or one domain in common."""
        r, size = rng.random(), 2 + int(rng.random() * 3)
        if r < 0.3 and recipe.own_share < 1:
            family, nouns = pick(rng, recipe.families), [self._noun(rng, recipe) for _ in range(size)]
            return [self.shop.derive(rng, family, n, rng.random() < recipe.vary_share) for n in dict.fromkeys(nouns)]
        if r < 0.75 and recipe.things:
            group, noun = pick(rng, recipe.things), self._noun(rng, recipe)
            chosen = rng.sample(group, min(size, len(group)))
            return [self.shop.derive(rng, f, noun, rng.random() < recipe.vary_share) for f in chosen]
        group = pick(rng, recipe.domains)
        chosen = rng.sample(group, min(size, len(group)))
        own = recipe.own_share > 0
        return [self.shop.derive(rng, f, None if own else self._noun(rng, recipe), False) for f in chosen]
