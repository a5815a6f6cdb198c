"""In: a seed, a step number or the name of a split. Out: rows (an example and its tools), tools, frozen splits.

A training row is a pure function of (seed, step); a split depends on neither the seed nor the shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, count
from pathlib import Path
from random import Random

from toolformer.data.toolworld.conversations import answered, carried, same_again
from toolformer.data.toolworld.lexicon import HELD_OUT, MORE, NEW, SEEN, TEST, TRAIN, VALIDATION
from toolformer.data.toolworld.pairs import asked_and_mentioned, with_and_without
from toolformer.data.toolworld.pools import Pool, PoolMaker, Recipe
from toolformer.data.toolworld.reading import load
from toolformer.data.toolworld.requests import Spoken, one_call, parameter_missing, several_calls
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.talk import near_miss, small_talk
from toolformer.data.toolworld.tools import WorldTool, conflict
from toolformer.data.toolworld.wording import BUCKETS, Frames, Voice, words_of
from toolformer.records import Example, Tool, ToolCall

FOLDER = Path(__file__).parent
SPLITS = ("validation", "test_seen", "test_held_out", "test_unseen")
STRATA = ("small_talk", "near_miss", "tool_missing", "parameter_missing")
BLOCK = 40  # rows of a frozen split that share a pool
TRIES = 20_000  # draws after which a split has no new row of a kind

Rows = list[tuple[Example, list[Tool]]]
Made = tuple[Spoken, list[WorldTool]] | None


def seeded(*parts: object) -> Random:
    """A generator that depends on the parts alone, in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "big"))


class ToolWorld:
    """The built-in data: endless training rows and frozen tests.

    Four rules keep the splits apart, whatever the seed. Families: about 15% of each domain and the reserved domains are
    ``test_unseen``'s, 6% validation's (``lexicon.divide``). Nouns and pseudo-words of derived tools are divided by a
    hash (``noun_part``). Wordings: so are clauses, frames and remarks. Of those that a test may say, 30% are
    ``test_held_out``'s and the others training's; of those that none may say (``words/more_*``, ``words/clauses``),
    30% are validation's and the others training's (``wording_group``), so that what is set on validation rows, as the
    bias of "no call", is set on wordings that are neither trained nor tested on. Requests: each
    user turn is hashed without case and punctuation into one of 32 buckets; buckets 0..3 belong to the four frozen
    splits, and training rows are drawn until they fall in another, so no request is in two splits.

    Args:
        seed: Of the training rows; the frozen splits do not depend on it.
        pseudo_share: Share of the nouns of training tools that are pseudo-words ("velmora"), so that spelling must come
            from the schema.
        multi_call_share: Share of rows with two or three calls.
        no_call_share: Share of rows without a call.
        no_call_mix: Its parts: small talk, near miss, tool missing, parameter missing. The frozen splits have as much
            of each; in training the first is learned at once.
        follow_up_share: Share of rows of two user turns.
        pair_share: Share of training rows that come in pairs, one after the other in a batch: a request, and the same
            words without a needed value, or as a mere remark, or without the tool, in parts as ``no_call_mix`` has
            them. The other shares are of the other rows.
        word_noise: Share of the words of training requests, values and second turns aside, that give way to
            pseudo-words, lest whether to call is learned by heart.
        folder: Where ``domains/`` and ``words/`` are.
    """

    selects_only: frozenset[str] = frozenset()

    def __init__(
        self,
        seed: int = 0,
        *,
        pseudo_share: float = 0.4,
        multi_call_share: float = 0.12,
        no_call_share: float = 0.2,
        no_call_mix: Sequence[float] = (1, 1, 1, 1),
        follow_up_share: float = 0.08,
        pair_share: float = 0.0,
        word_noise: float = 0.0,
        folder: str | Path = FOLDER,
    ) -> None:
        shares = {"no_call": no_call_share, "several": multi_call_share, "follow_up": follow_up_share}
        if (
            not all(0 <= share <= 1 for share in (pseudo_share, pair_share, word_noise, *shares.values()))
            or sum(shares.values()) > 1
        ):
            raise ValueError(
                f"toolworld: pseudo_share is {pseudo_share}, pair_share {pair_share}, word_noise {word_noise}, "
                f"row shares {shares}; give 0..1, rows <= 1 in sum"
            )
        if pair_share and not sum(no_call_mix[1:]):
            raise ValueError(
                f"toolworld: pair_share is {pair_share}, no_call_mix {list(no_call_mix)}; give a part to more than "
                "small talk, which pairs with nothing"
            )
        if len(no_call_mix) != len(STRATA) or min(no_call_mix) < 0 or not sum(no_call_mix):
            raise ValueError(
                f"toolworld: no_call_mix is {list(no_call_mix)}; give {len(STRATA)} parts, none below 0, for {STRATA}"
            )
        self.folder, lexicon = Path(folder), load(Path(folder))
        self.seed, self.lexicon = seed, lexicon
        self.maker, self.frames = PoolMaker(lexicon), Frames(lexicon.words)
        self.no_call_mix = list(accumulate(no_call_mix))
        self.pair_mix, self.pairs = list(accumulate(no_call_mix[1:])), pair_share / (2 - pair_share)
        self.kinds = (no_call_share, no_call_share + multi_call_share, sum(shares.values()))
        self.recipe = Recipe(
            lexicon.families[TRAIN],
            TRAIN,
            own_share=0.6 * (1 - pseudo_share),
            pseudo_share=pseudo_share,
            vary_share=0.5,
        )
        heard = (SEEN, MORE, MORE)  # how often a group is drawn from
        self.voice = Voice(range(len(SPLITS), BUCKETS), heard, heard, heard, word_noise)

    def batch(self, step: int, *, batch_size: int, pool_size: int, tools_per_request: int) -> Rows:
        """Training rows of one step over a shared pool of ``pool_size`` distinct tools; names in a row are unique."""
        if not 0 < tools_per_request < pool_size:
            raise ValueError(
                f"toolworld: tools_per_request is {tools_per_request}; give 1 to pool_size - 1 ({pool_size - 1})"
            )
        rng = seeded("batch", self.seed, step)
        pool = self.maker.pool(rng, self.recipe, pool_size)
        drawn: list[tuple[str, tuple[Spoken, list[WorldTool]]]] = []
        while len(drawn) < batch_size:
            if self.pairs and len(drawn) < batch_size - 1 and rng.random() < self.pairs:
                drawn += self._pair(rng, pool, rng.choices(STRATA[1:], cum_weights=self.pair_mix)[0], tools_per_request)
                continue
            kind, made = self._kind(rng), None
            while made is None:
                made = self._row(rng, pool, self.voice, kind, tools_per_request)
            drawn.append((kind, made))
        return [_example(f"toolworld-{self.seed}-{step}-{i}", kind, made) for i, (kind, made) in enumerate(drawn)]

    def tools(self, step: int, n: int) -> list[Tool]:
        """``n`` distinct training tools."""
        return [wt.tool for wt in self.maker.pool(seeded("tools", self.seed, step), self.recipe, n).tools]

    def fingerprints(self) -> dict[str, str]:
        """Of the files of domains and words."""
        paths = sorted([*self.folder.glob("domains/*.yaml"), *self.folder.glob("words/*.yaml")])
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths}

    def split(self, name: str, rows: int = 1000, *, tools_per_request: int = 8) -> tuple[list[Tool], list[Example]]:
        """A frozen split: the tools it shows and its examples, a quarter of them without a call.

        ``test_seen`` and ``test_held_out`` offer the base tools of training; ``test_unseen`` only unseen ones, its call
        rows in the strata same_domain and new_domain; ``validation`` trained ones and unseen ones (other nouns, a few
        families of its own) in equal parts, all of them in wordings of its own.
        """
        if name not in SPLITS:
            raise ValueError(f"toolworld: split is {name!r}; use one of {', '.join(SPLITS)}")
        rng, voice, recipes = seeded("split", name), _voice(name), self.recipes(name)
        catalog: dict[str, Tool] = {}
        examples: list[Example] = []
        seen: set[str] = set()
        for block in count():
            recipe = recipes[block % len(recipes)]
            pool = self.maker.pool(rng, recipe, max(64, 3 * tools_per_request))
            for i in range(BLOCK):
                if len(examples) == rows:
                    return list(catalog.values()), examples
                kind = STRATA[len(examples) // 4 % 4] if i % 4 == 3 else self._kind(rng, (0.0, 0.15, 0.25))
                made = self._new_row(rng, pool, voice, kind, tools_per_request, seen, f"{name} of {rows} rows")
                example, tools = _example(f"toolworld-{name}-{len(examples)}", kind, made)
                if name == "test_unseen" and example.calls:
                    example = replace(example, stratum=recipe.families[0].stratum)
                examples.append(example)
                catalog.update((tool.id, tool) for tool in tools)
        raise AssertionError("count() does not end")

    def recipes(self, name: str) -> list[Recipe]:
        """What the tools of a frozen split are made of; its pools take turns. More of its kind can be made of them."""
        families = self.lexicon.families
        seen = Recipe(families[TRAIN], TRAIN, own_share=1.0, pseudo_share=0.0, vary_share=0.0)
        if name == "validation":
            new = Recipe(families[VALIDATION], VALIDATION, own_share=0.4, pseudo_share=0.4, vary_share=0.3)
            other = Recipe(families[TRAIN], VALIDATION, own_share=0.0, pseudo_share=0.6, vary_share=0.3)
            return [seen, new, seen, other]
        if name != "test_unseen":
            return [seen]
        strata = [[f for f in families[TEST] if f.reserved == reserved] for reserved in (False, True)]
        return [Recipe(found, TEST, own_share=0.5, pseudo_share=0.25, vary_share=0.3) for found in strata if found]

    def _kind(self, rng: Random, limits: tuple[float, float, float] | None = None) -> str:
        no_call, several, follow_up = limits if limits is not None else self.kinds
        r = rng.random()
        if r < no_call:
            return rng.choices(STRATA, cum_weights=self.no_call_mix)[0]
        return "several" if r < several else "follow_up" if r < follow_up else "one"

    def _new_row(
        self, rng: Random, pool: Pool, voice: Voice, kind: str, n: int, seen: set[str], what: str
    ) -> tuple[Spoken, list[WorldTool]]:
        for _ in range(TRIES):
            made = self._row(rng, pool, voice, kind, n)
            if made is not None:
                words = words_of(made[0].messages[-1].content)
                if words not in seen:
                    seen.add(words)
                    return made
        raise ValueError(f"toolworld: split is {what}; it holds no further {kind} row, ask for fewer")

    def _row(self, rng: Random, pool: Pool, voice: Voice, kind: str, n: int) -> Made:
        """One try for a row of a kind, or None."""
        target = pick(rng, pool.tools)
        wanted = [target]
        if kind == "small_talk":
            spoken = small_talk(rng, self.frames, voice)
        elif kind == "near_miss":
            spoken = near_miss(rng, self.frames, voice, target)
        elif kind == "parameter_missing":
            asked = parameter_missing(rng, self.frames, voice, target)
            spoken = None if asked is None else _unfinished(*asked[:2], target)
        elif kind == "several":
            wanted = _together(rng, pool, target)
            spoken = several_calls(rng, self.frames, voice, wanted if len(wanted) > 1 else [target, target])
        elif kind == "follow_up":
            return self._follow_up(rng, pool, voice, target, n)
        elif kind == "tool_missing":
            spoken = one_call(rng, self.frames, voice, target, noun=True)
            if spoken is None:
                return None
            spoken = self._no_tool(rng, spoken)
            return spoken, pool.company(rng, wanted, n, near=rng.random() < 0.5, offered=False)
        else:
            tools = pool.company(rng, wanted, n)
            like = any(wt.family is target.family for wt in tools if wt is not target)
            spoken = one_call(rng, self.frames, voice, target, noun=like)
            return None if spoken is None else (spoken, tools)
        return None if spoken is None else (spoken, pool.company(rng, wanted, n))

    def _pair(self, rng: Random, pool: Pool, kind: str, n: int) -> list[tuple[str, tuple[Spoken, list[WorldTool]]]]:
        """A request and its counterpart without a call, offered the same tools (or all but the one asked for)."""
        made = None
        while made is None:
            target = pick(rng, pool.tools)
            if kind == "near_miss":
                made = asked_and_mentioned(rng, self.frames, self.voice, target)
            elif kind == "parameter_missing":
                found = with_and_without(rng, self.frames, self.voice, target)
                made = None if found is None else (found[0], _unfinished(*found[1:], target))
            else:
                asked = one_call(rng, self.frames, self.voice, target, noun=True)
                made = None if asked is None else (asked, self._no_tool(rng, asked))
        gone = kind == "tool_missing"
        tools = pool.company(rng, [target], n, near=not gone or rng.random() < 0.5, offered=not gone)
        there = list(tools)
        if gone:
            there[int(rng.random() * n)] = target
        return [("one", (made[0], there)), (kind, (made[1], tools))]

    def _no_tool(self, rng: Random, spoken: Spoken) -> Spoken:
        """The request where its tool is not on offer."""
        reply = pick(rng, self.frames.missing_replies)
        return spoken._replace(calls=(), reply=reply, pattern=f"tool_missing/{spoken.pattern}")

    def _follow_up(self, rng: Random, pool: Pool, voice: Voice, target: WorldTool, n: int) -> Made:
        kind, wanted = rng.random(), [target]
        if kind < 0.4:
            partners = [wt for wt in pool.near(target) if wt.noun == target.noun and not conflict(wt, target)]
            found = ((wt, carried(rng, self.frames, voice, target, wt)) for wt in partners)
            partner, spoken = next((pair for pair in found if pair[1] is not None), (target, None))
            wanted = [partner, target]
        else:
            spoken = (same_again if kind < 0.7 else answered)(rng, self.frames, voice, target)
        return None if spoken is None else (spoken, pool.company(rng, wanted, n))


def _voice(name: str) -> Voice:
    """What a frozen split may say: wordings of its own for trained tools; any wording of unseen ones."""
    bucket = (SPLITS.index(name),)
    if name == "test_held_out":
        return Voice(bucket, (HELD_OUT,), (SEEN, HELD_OUT), (HELD_OUT,))
    if name == "test_unseen":
        return Voice(bucket, (SEEN, HELD_OUT), (SEEN,), (HELD_OUT,))
    group = NEW if name == "validation" else SEEN
    return Voice(bucket, (group,), (group,), (group,))


def _example(id_: str, kind: str, made: tuple[Spoken, list[WorldTool]]) -> tuple[Example, list[Tool]]:
    spoken, members = made
    tools = [wt.tool for wt in members]
    ids = tuple(tool.id for tool in tools)
    stratum = kind if kind in STRATA else ""
    reply = "" if spoken.calls else spoken.reply
    example = Example(
        id_, spoken.messages, ids, spoken.calls, reply, "toolworld", stratum, spoken.pattern, spoken.draft
    )
    return example, tools


def _unfinished(spoken: Spoken, missing: str, wt: WorldTool) -> Spoken:
    """The request without a value, and the call it does not yet suffice for."""
    said = {**spoken.calls[0].arguments, missing: None}
    arguments = {key: said[key] for key, _ in wt.parameters if key in said}
    return spoken._replace(calls=(), draft=ToolCall(wt.tool.name, arguments))


def _together(rng: Random, pool: Pool, target: WorldTool) -> list[WorldTool]:
    """The tools of a request for several calls: two, rarely three, or the target alone (called twice)."""
    wanted = [target]
    for _ in range(0 if rng.random() < 0.15 else 1 if rng.random() < 0.85 else 2):
        wt = pick(rng, pool.tools)
        if not any(conflict(wt, w) for w in wanted):
            wanted.append(wt)
    return wanted
