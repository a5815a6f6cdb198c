"""In: tools, the sentence frames and a random generator. Out: a spoken request with its gold calls, or None.

A request is opener + clause + parameter phrases in any order + closer. None says: not for this voice, draw again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from toolformer.data.toolworld.lexicon import HELD_OUT, MORE, SEEN, Clause, Family, Parameter, both_cases, fill
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.tools import WorldTool
from toolformer.data.toolworld.wording import Frames, Voice, bucket, finish, labelled, noisy, words_of
from toolformer.records import Message, ToolCall

LABEL_SHARE = 0.15  # of the values, where labels are spoken


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
    """One clause with its phrases, and the call it asks for; ``body`` is the clause as it is worded here."""

    text: str
    clause: Clause
    call: ToolCall
    body: str


def clauses_for(wt: WorldTool, groups: Sequence[str], *, noun: bool = False, verb: bool = False) -> list[Clause]:
    """Clauses of a tool; under another noun than its own only those that name it make sense."""
    noun = noun or not wt.own
    return [
        c for c in wt.family.clauses if c.group in groups and (c.has_noun or not noun) and (c.imperative or not verb)
    ]


def draw_phrases(
    rng: Random, wt: WorldTool, without: str = "", unsaid: str = "", labels: Sequence[tuple[str, str]] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Arguments in schema order and the phrases that say them, shuffled; an optional one is said 2 times in 5.

    With ``labels`` some values are said by the name of their parameter: "with start date May 5". ``unsaid`` is drawn
    like the others, then left out: its phrase is empty.
    """
    arguments: dict[str, Any] = {}
    phrases: list[str] = []
    for key, p in wt.parameters:
        if key != without and (p.required or (len(phrases) < 3 and rng.random() < 0.4)):
            value, phrase = p.draw(rng)
            if type(value) is str and value in arguments.values():  # from Lyon to Lyon
                value, phrase = p.draw(rng)
            if labels and p.value is not None and rng.random() < LABEL_SHARE:
                value, text = p.value(rng)
                phrase = labelled(pick(rng, labels), key).replace("{}", text)
            arguments[key] = value
            phrases.append("" if key == unsaid else phrase)
    arguments.pop(unsaid, None)
    if len(phrases) > 1:
        rng.shuffle(phrases)
    return arguments, phrases


def say(
    rng: Random,
    wt: WorldTool,
    clause: Clause,
    big_i: bool,
    *,
    without: str = "",
    unsaid: str = "",
    lead: bool = True,
    labels: Sequence[tuple[str, str]] = (),
    noise: float = 0.0,
) -> Part:
    """One clause with its phrases; now and then a phrase comes first."""
    arguments, phrases = draw_phrases(rng, wt, without, unsaid, labels)
    call = ToolCall(wt.tool.name, arguments)
    body = noisy(rng, clause.plain[big_i] if wt.own else fill(clause.open[big_i], wt.noun), noise)
    text, first = body, phrases.pop() if lead and phrases and rng.random() < 0.08 else ""
    if phrases:
        text = " ".join(filter(None, (body, (", " if rng.random() < 0.12 else " ").join(filter(None, phrases)))))
    if first:
        text = f"{first}, {text}"
    return Part(text, clause, call, body)


def shadowed(text: str, body: str, family: Family, group: str) -> bool:
    """Whether a clause of a group in place of ``body`` would make a near-duplicate (half of the 5-grams in common)."""

    def grams(request: str) -> set[tuple[str, ...]]:
        words = words_of(request).split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    lower, own = text.lower(), grams(text)
    twins = (grams(lower.replace(body.lower(), other.plain[0])) for other in family.clauses if other.group == group)
    return any(2 * len(own & twin) >= len(own | twin) for twin in twins)


def open_end(rng: Random, frames: Frames, group: str, wt: WorldTool, call: ToolCall, without: str) -> tuple[str, str]:
    """Now and then a word on a value that is not said: a needed one stays open or vague, any other will do."""
    if not frames.left_open[group]:
        return "", ""
    r = rng.random()
    if without:
        vague = frames.vague.get((group, dict(wt.parameters)[without].kind))
        if vague and r < 0.3:
            return both_cases(f" {pick(rng, vague)}")
        return both_cases(labelled(pick(rng, frames.left_open[group]), without)) if r > 0.7 else ("", "")
    free = [key for key, p in wt.parameters if not p.required and key not in call.arguments]
    if not free or r > 0.1:
        return "", ""
    return both_cases(labelled(pick(rng, frames.any_will_do[group]), pick(rng, free)))


def one_call(
    rng: Random, frames: Frames, voice: Voice, wt: WorldTool, *, noun: bool = False, without: str = ""
) -> Spoken | None:
    """A request for one tool; ``noun`` asks for a clause that names the noun, ``without`` leaves a parameter unsaid."""
    options = clauses_for(wt, voice.clauses, noun=noun)
    if not options:
        return None
    big_i, group = rng.random() < 0.5, pick(rng, voice.frames)
    clause = pick(rng, options)
    verb = clause.imperative and rng.random() < 0.5
    part = say(rng, wt, clause, big_i, without=without, lead=not verb, labels=frames.labels[group], noise=voice.noise)
    part = part._replace(text=part.text + open_end(rng, frames, group, wt, part.call, without)[big_i])
    return framed(rng, frames, voice, wt, part, group, big_i, verb=verb)


def framed(
    rng: Random, frames: Frames, voice: Voice, wt: WorldTool, part: Part, group: str, big_i: bool, *, verb: bool
) -> Spoken | None:
    """A clause with its phrases between opener and closer of a group; ``verb`` asks for an opener before a verb."""
    text, clause, call, body = part
    bank = frames.verb_openers if verb else frames.openers
    opener, closer = pick(rng, bank[group]), pick(rng, frames.closers[group])[big_i]
    text, closer = noisy(rng, opener[big_i], voice.noise).replace("{}", text), noisy(rng, closer, voice.noise)
    if "please" not in closer or "please" not in text:
        text += closer
    text = finish(rng, text, clause.question or opener[0].startswith(("can you", "could you", "would you", "will you")))
    if bucket(text) not in voice.buckets:
        return None
    rival = {MORE: HELD_OUT, HELD_OUT: SEEN if voice.clauses == (HELD_OUT,) else None}.get(clause.group)
    if wt.own and rival and shadowed(text, body, wt.family, rival):  # test_held_out has tools with their own noun
        return None
    return Spoken((Message("user", text),), (call,), "", f"{wt.family.name}/{clause.index}/{opener[0]}")


def several_calls(rng: Random, frames: Frames, voice: Voice, tools: Sequence[WorldTool]) -> Spoken | None:
    """A request for two or three calls, in the order they are said."""
    big_i, texts, calls, names = rng.random() < 0.5, [], [], []
    for i, wt in enumerate(tools):
        options = clauses_for(wt, voice.clauses, noun=True, verb=i > 0)
        if not options:
            return None
        part = say(rng, wt, pick(rng, options), big_i, lead=i == 0, noise=voice.noise)
        texts += [part.text] if i == 0 else [pick(rng, frames.joins[pick(rng, voice.frames)])[big_i], part.text]
        if part.call in calls:
            return None
        calls.append(part.call)
        names.append(f"{wt.family.name}/{part.clause.index}")
    text = finish(rng, pick(rng, frames.openers[pick(rng, voice.frames)])[big_i].replace("{}", "".join(texts)))
    if bucket(text) not in voice.buckets:
        return None
    return Spoken((Message("user", text),), tuple(calls), "", "+".join(names))


def needed(wt: WorldTool) -> list[tuple[str, Parameter]]:
    """The parameters that a request must say: required, not implied."""
    return [(key, p) for key, p in wt.parameters if p.required and not p.implied]


def parameter_missing(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> tuple[Spoken, str, Parameter] | None:
    """A request that leaves one required value out, with the question for it as reply; its key and parameter."""
    keys = needed(wt)
    if not keys:
        return None
    key, p = pick(rng, keys)
    spoken = one_call(rng, frames, voice, wt, noun=True, without=key)
    if spoken is None:
        return None
    return spoken._replace(reply=p.ask, pattern=f"missing/{p.key}/{spoken.pattern}"), key, p
