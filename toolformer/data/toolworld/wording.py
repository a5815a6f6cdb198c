"""In: the sentence banks of ``words/``. Out: openers, closers, remarks by group; which of them a split may say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from toolformer.data.toolworld.lexicon import HELD_OUT, MORE, NEW, SEEN, bare, both_cases, stable, wording_group
from toolformer.data.toolworld.slots import pseudo_word

BUCKETS = 32  # of these, 0..3 are the four frozen splits', the others are training's
_SPACES = {ord(c): " " for c in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}


def words_of(text: str) -> str:
    """A request without case and punctuation: what makes two requests the same."""
    return " ".join(text.lower().translate(_SPACES).split())


def bucket(text: str) -> int:
    """Which split a request may appear in: a hash of its words modulo ``BUCKETS``."""
    return stable(words_of(text)) % BUCKETS


class Voice(NamedTuple):
    """What a split may say: buckets of requests; which groups of clauses, frames, no-call talk.

    ``noise`` is the share of their words that give way to pseudo-words; values stay as they are.
    """

    buckets: Collection[int]
    clauses: Sequence[str]
    frames: Sequence[str]
    talk: Sequence[str]
    noise: float = 0.0


Groups = dict[str, list[tuple[str, str]]]


def grouped(texts: Sequence[str], more: Sequence[str] = ()) -> Groups:
    """The wordings of a bank by group; plain frames ("{}", "") stand in all. Each text with "i" and with "I"."""
    out: Groups = {SEEN: [], HELD_OUT: [], MORE: [], NEW: []}
    known = {bare(text) for text in texts}
    for bank, further in ((texts, False), (more, True)):
        for text in bank:
            plain = not text.replace("{}", "").strip(" ,.")
            if plain:
                groups = (MORE, NEW) if further else (SEEN, HELD_OUT)
            else:
                groups = () if further and bare(text) in known else (wording_group(text, further),)
            for group in groups:
                out[group].append(both_cases(text))
        if bank and not all(out[group] for group in ((MORE, NEW) if further else (SEEN, HELD_OUT))):
            raise ValueError(f"toolworld: words {bank!r:.60} all fall on one side of held-out and training; add more")
    return out


class Frames:
    """The sentence banks of ``words/``: ``frames`` and ``no_call``, and what ``more_frames`` and ``more_talk`` add."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        frames, talk, more, more_talk = (words[name] for name in ("frames", "no_call", "more_frames", "more_talk"))
        self.openers, self.verb_openers = (
            grouped(frames["openers"][kind], more["openers"][kind]) for kind in ("any", "imperative")
        )
        self.closers, self.joins, self.same_again, self.carry = (
            grouped(frames[name], more[name]) for name in ("closers", "joins", "same_again", "carry")
        )
        self.labels, self.left_open, self.any_will_do = (
            grouped((), more[name]) for name in ("labels", "left_open", "any_will_do")
        )
        self.vague: dict[tuple[str, str], list[str]] = {}  # by group and kind of parameter
        for kind, texts in more["vague"].items():
            for text in texts:
                self.vague.setdefault((wording_group(text, more=True), kind), []).append(text)
        self.done = frames["done"]
        self.talk = grouped(talk["small_talk"], more_talk["small_talk"])
        for bank, further in ((talk, False), (more_talk, True)):
            for remark, endings in bank["remarks"].items():
                group = wording_group(remark, further)
                self.talk[group] += [both_cases(remark.replace("{}", ending)) for ending in endings]
        self.talk_openers, self.talk_closers, self.near = (
            grouped(talk[name], more_talk[name]) for name in ("small_talk_openers", "small_talk_closers", "near_miss")
        )
        self.near_clauses = {g: [text for text in self.near[g] if "{clause}" in text[0]] for g in self.near}
        self.talk_replies, self.near_replies = talk["small_talk_replies"], talk["near_miss_replies"]
        self.missing_replies = talk["tool_missing_replies"]


def finish(rng: Random, text: str, question: bool = False) -> str:
    """A capital at the start and a mark at the end, or not."""
    if rng.random() < 0.55:
        text = text[0].upper() + text[1:]
    r = rng.random()
    if question:
        return text + "?" if r < 0.6 else text
    return text if r < 0.5 else text + "." if r < 0.93 else text + "!"


def noisy(rng: Random, text: str, share: float) -> str:
    """``text`` with a share of its words replaced by pseudo-words: so it never becomes another split's wording."""
    if not share:
        return text
    own = Random(rng.random())  # one draw, however many words
    return " ".join(
        pseudo_word(own) if own.random() < share and word.strip("{},.") and "{" not in word else word
        for word in text.split(" ")
    )


def labelled(text: tuple[str, str], key: str) -> str:
    """A wording that calls a parameter by its name."""
    return text[0].replace("{label}", key.replace("_", " "))
