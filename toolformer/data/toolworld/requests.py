"""In: tools, the sentence frames and a random generator. Out: a spoken request with its gold calls, or None.

A request is opener + clause + parameter phrases in any order + closer. None says: not for this voice, draw again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from toolformer.data.toolworld.lexicon import (
    Clause,
    Family,
    Parameter,
    both_cases,
    fill,
    held_out,
    plural,
    stable,
    with_article,
)
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.tools import WorldTool
from toolformer.records import Message, ToolCall

BUCKETS = 32  # of these, 0..3 are the four frozen splits', the others are training's
_SPACES = {ord(c): " " for c in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}


def words_of(text: str) -> str:
    """A request without case and punctuation: what makes two requests the same."""
    return " ".join(text.lower().translate(_SPACES).split())


def bucket(text: str) -> int:
    """Which split a request may appear in: a hash of its words modulo ``BUCKETS``."""
    return stable(words_of(text)) % BUCKETS


class Voice(NamedTuple):
    """What a split may say: buckets of requests; which sides (held out or not) of clauses, frames, no-call talk."""

    buckets: Collection[int]
    clauses: Sequence[bool]
    frames: Sequence[bool]
    talk: Sequence[bool]


class Spoken(NamedTuple):
    """A conversation, its gold calls, the plain reply where there are none, and the template it came from.

    ``draft`` is the call that lacks a value, where that is why there is none.
    """

    messages: tuple[Message, ...]
    calls: tuple[ToolCall, ...]
    reply: str
    pattern: str
    draft: ToolCall | None = None


class Part(NamedTuple):
    """One clause with its phrases, and the call it asks for."""

    text: str
    clause: Clause
    call: ToolCall


Sides = dict[bool, list[tuple[str, str]]]


def two_sides(texts: Sequence[str]) -> Sides:
    """False -> training, True -> held out; plain frames ("{}", "") stand on both. Each text with "i" and with "I"."""
    out: Sides = {False: [], True: []}
    for text in texts:
        plain = not text.replace("{}", "").strip(" ,.")
        for side in (False, True) if plain else (held_out(text),):
            out[side].append(both_cases(text))
    if not all(out.values()):
        raise ValueError(f"toolworld: words {texts!r:.60} all fall on one side of held-out and training; add more")
    return out


class Frames:
    """The sentence banks of ``words/frames.yaml`` and ``words/no_call.yaml``."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        frames, talk = words["frames"], words["no_call"]
        self.openers, self.verb_openers = (
            two_sides(frames["openers"]["any"]),
            two_sides(frames["openers"]["imperative"]),
        )
        self.closers, self.joins = two_sides(frames["closers"]), two_sides(frames["joins"])
        self.same_again, self.carry, self.done = (
            two_sides(frames["same_again"]),
            two_sides(frames["carry"]),
            frames["done"],
        )
        self.talk = two_sides(talk["small_talk"])
        for remark, endings in talk["remarks"].items():
            self.talk[held_out(remark)] += [both_cases(remark.replace("{}", ending)) for ending in endings]
        self.talk_openers, self.talk_closers = (
            two_sides(talk["small_talk_openers"]),
            two_sides(talk["small_talk_closers"]),
        )
        self.talk_replies = talk["small_talk_replies"]
        self.near, self.near_replies = two_sides(talk["near_miss"]), talk["near_miss_replies"]
        self.missing_replies = talk["tool_missing_replies"]


def finish(rng: Random, text: str, question: bool = False) -> str:
    """A capital at the start and a mark at the end, or not."""
    if rng.random() < 0.55:
        text = text[0].upper() + text[1:]
    r = rng.random()
    if question:
        return text + "?" if r < 0.6 else text
    return text if r < 0.5 else text + "." if r < 0.93 else text + "!"


def clauses_for(wt: WorldTool, sides: Sequence[bool], *, noun: bool = False, verb: bool = False) -> list[Clause]:
    """Clauses of a tool; under another noun than its own only those that name it make sense."""
    noun = noun or not wt.own
    return [
        c for c in wt.family.clauses if c.held_out in sides and (c.has_noun or not noun) and (c.imperative or not verb)
    ]


def draw_phrases(rng: Random, wt: WorldTool, without: str = "") -> tuple[dict[str, Any], list[str]]:
    """Arguments in schema order and the phrases that say them, shuffled; an optional one is said 2 times in 5."""
    arguments: dict[str, Any] = {}
    phrases: list[str] = []
    for key, p in wt.parameters:
        if key != without and (p.required or (len(phrases) < 3 and rng.random() < 0.4)):
            value, phrase = p.draw(rng)
            if type(value) is str and value in arguments.values():  # from Lyon to Lyon
                value, phrase = p.draw(rng)
            arguments[key] = value
            phrases.append(phrase)
    if len(phrases) > 1:
        rng.shuffle(phrases)
    return arguments, phrases


def say(rng: Random, wt: WorldTool, clause: Clause, big_i: bool, *, without: str = "", lead: bool = True) -> Part:
    """One clause with its phrases; now and then a phrase comes first."""
    arguments, phrases = draw_phrases(rng, wt, without)
    call = ToolCall(wt.tool.name, arguments)
    body = clause.plain[big_i] if wt.own else fill(clause.open[big_i], wt.noun)
    if lead and phrases and rng.random() < 0.08:
        body = f"{phrases.pop()}, {body}"
    if phrases:
        body = f"{body} {(', ' if rng.random() < 0.12 else ' ').join(phrases)}"
    return Part(body, clause, call)


def shadowed(text: str, clause: Clause, family: Family) -> bool:
    """Whether a training clause with the same phrases would be a near-duplicate (half of the 5-grams in common)."""

    def grams(request: str) -> set[tuple[str, ...]]:
        words = words_of(request).split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    lower, own = text.lower(), grams(text)
    twins = (grams(lower.replace(clause.plain[0], other.plain[0])) for other in family.clauses if not other.held_out)
    return any(2 * len(own & twin) >= len(own | twin) for twin in twins)


def one_call(
    rng: Random, frames: Frames, voice: Voice, wt: WorldTool, *, noun: bool = False, without: str = ""
) -> Spoken | None:
    """A request for one tool; ``noun`` asks for a clause that names the noun, ``without`` leaves a parameter unsaid."""
    options = clauses_for(wt, voice.clauses, noun=noun)
    if not options:
        return None
    big_i, side = rng.random() < 0.5, pick(rng, voice.frames)
    clause = pick(rng, options)
    verb = clause.imperative and rng.random() < 0.5
    text, _, call = say(rng, wt, clause, big_i, without=without, lead=not verb)
    bank = frames.verb_openers if verb else frames.openers
    opener, closer = pick(rng, bank[side]), pick(rng, frames.closers[side])[big_i]
    text = opener[big_i].replace("{}", text)
    if "please" not in closer or "please" not in text:
        text += closer
    text = finish(rng, text, clause.question or opener[0].startswith(("can you", "could you", "would you", "will you")))
    if bucket(text) not in voice.buckets or (voice.clauses == (True,) and shadowed(text, clause, wt.family)):
        return None
    return Spoken((Message("user", text),), (call,), "", f"{wt.family.name}/{clause.index}/{opener[0]}")


def several_calls(rng: Random, frames: Frames, voice: Voice, tools: Sequence[WorldTool]) -> Spoken | None:
    """A request for two or three calls, in the order they are said."""
    big_i, texts, calls, names = rng.random() < 0.5, [], [], []
    for i, wt in enumerate(tools):
        options = clauses_for(wt, voice.clauses, noun=True, verb=i > 0)
        if not options:
            return None
        part = say(rng, wt, pick(rng, options), big_i, lead=i == 0)
        texts += [part.text] if i == 0 else [pick(rng, frames.joins[pick(rng, voice.frames)])[big_i], part.text]
        if part.call in calls:
            return None
        calls.append(part.call)
        names.append(f"{wt.family.name}/{part.clause.index}")
    text = finish(rng, pick(rng, frames.openers[pick(rng, voice.frames)])[big_i].replace("{}", "".join(texts)))
    if bucket(text) not in voice.buckets:
        return None
    return Spoken((Message("user", text),), tuple(calls), "", "+".join(names))


def parameter_missing(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> tuple[Spoken, str, Parameter] | None:
    """A request that leaves one required value out, with the question for it as reply; its key and parameter."""
    needed = [(key, p) for key, p in wt.parameters if p.required and not p.implied]
    if not needed:
        return None
    key, p = pick(rng, needed)
    spoken = one_call(rng, frames, voice, wt, noun=True, without=key)
    if spoken is None:
        return None
    return spoken._replace(reply=p.ask, pattern=f"missing/{p.key}/{spoken.pattern}"), key, p


def small_talk(rng: Random, frames: Frames, voice: Voice) -> Spoken | None:
    """A remark that asks for nothing."""
    big_i, side = rng.random() < 0.5, pick(rng, voice.frames)
    remark = pick(rng, frames.talk[pick(rng, voice.talk)])
    opener, closer = pick(rng, frames.talk_openers[side])[big_i], pick(rng, frames.talk_closers[side])[big_i]
    text = finish(rng, opener.replace("{}", remark[big_i]) + closer)
    if bucket(text) not in voice.buckets:
        return None
    return Spoken((Message("user", text),), (), pick(rng, frames.talk_replies), f"small_talk/{remark[0]}")


def near_miss(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> Spoken | None:
    """A remark about the noun of an offered tool, or about its use, that asks for no call."""
    big_i = rng.random() < 0.5
    template = pick(rng, frames.near[pick(rng, voice.talk)])
    text = template[big_i]
    if "{clause}" in text:
        options = clauses_for(wt, voice.clauses, noun=True, verb=True)
        if not options:
            return None
        text = text.replace("{clause}", say(rng, wt, pick(rng, options), big_i, lead=False).text)
    else:
        text = text.replace("{noun}", wt.noun).replace("{a}", with_article(wt.noun)).replace("{nouns}", plural(wt.noun))
    text = finish(rng, text)
    if bucket(text) not in voice.buckets:
        return None
    return Spoken((Message("user", text),), (), pick(rng, frames.near_replies), f"near_miss/{template[0]}")
