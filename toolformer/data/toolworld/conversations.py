"""In: tools, the sentence frames and a random generator. Out: a conversation of two user turns with its gold call.

The second turn carries something over from the first: all values but one, an identifier, or the tool asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from toolformer.data.toolworld.requests import Spoken, clauses_for, draw_phrases, one_call, parameter_missing
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.tools import WorldTool
from toolformer.data.toolworld.wording import BUCKETS, Frames, Voice, bucket, finish
from toolformer.records import Message, ToolCall

T = TypeVar("T")


def insist(make: Callable[[], T | None], voice: Voice) -> T | None:
    """The first success of a few: each turn of a frozen split falls in its bucket once in 32 times."""
    for _ in range(3 * BUCKETS // len(voice.buckets)):
        made = make()
        if made is not None:
            return made
    return None


def _then(first: Spoken, answer: str, text: str, call: ToolCall, kind: str) -> Spoken:
    turns = (*first.messages, Message("assistant", answer), Message("user", text))
    return Spoken(turns, (call,), "", f"{kind}/{first.pattern}")


def answered(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> Spoken | None:
    """The user leaves a value out, the assistant asks for it, the user says it."""
    asked = insist(lambda: parameter_missing(rng, frames, voice, wt), voice)
    if asked is None:
        return None
    first, missing, p = asked

    def answer() -> Spoken | None:
        value, phrase = p.draw(rng)
        text = finish(rng, phrase)
        if bucket(text) not in voice.buckets:
            return None
        said = {**first.calls[0].arguments, missing: value}
        arguments = {key: said[key] for key, _ in wt.parameters if key in said}
        return _then(first, first.reply, text, ToolCall(wt.tool.name, arguments), "answered")

    return insist(answer, voice)


def same_again(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> Spoken | None:
    """A call, then the same one with one value changed."""
    first = insist(lambda: one_call(rng, frames, voice, wt, noun=True), voice)
    if first is None:
        return None
    call = first.calls[0]
    said = [(key, p) for key, p in wt.parameters if key in call.arguments and not p.implied]
    if not said:
        return None
    key, p = pick(rng, said)

    def again() -> Spoken | None:
        value, phrase = p.draw(rng)
        text = finish(rng, pick(rng, frames.same_again[pick(rng, voice.frames)])[0].replace("{}", phrase))
        if value == call.arguments[key] or bucket(text) not in voice.buckets:
            return None
        return _then(first, pick(rng, frames.done), text, ToolCall(call.name, {**call.arguments, key: value}), "again")

    return insist(again, voice)


def carried(rng: Random, frames: Frames, voice: Voice, one: WorldTool, two: WorldTool) -> Spoken | None:
    """A call, then another tool for the same thing ("and cancel it"): the identifier is carried over."""
    shared = [
        (a, b)
        for a, p in one.parameters
        for b, q in two.parameters
        if p.kind == q.kind == "identifier" and p.key == q.key and p.required and q.required
    ]
    options = [clause for clause in clauses_for(two, voice.clauses, noun=True) if clause.pronoun]
    if not shared or not options:
        return None
    first = insist(lambda: one_call(rng, frames, voice, one, noun=True), voice)
    if first is None:
        return None
    source, target = shared[0]

    def second() -> Spoken | None:
        clause = pick(rng, options)
        arguments, phrases = draw_phrases(rng, two, target)
        arguments[target] = first.calls[0].arguments[source]
        bank = frames.carry[pick(rng, voice.frames)]
        text = finish(rng, pick(rng, bank)[0].replace("{}", " ".join([clause.pronoun, *phrases])))
        if bucket(text) not in voice.buckets:
            return None
        ordered = {key: arguments[key] for key, _ in two.parameters if key in arguments}
        kind = f"carried/{two.family.name}/{clause.index}"
        return _then(first, pick(rng, frames.done), text, ToolCall(two.tool.name, ordered), kind)

    return insist(second, voice)
