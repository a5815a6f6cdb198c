"""In: the sentence banks and a random generator. Out: a remark that asks for no call, about nothing or about a tool."""

from __future__ import annotations

from random import Random

from toolformer.data.toolworld.lexicon import plural, with_article
from toolformer.data.toolworld.requests import Spoken, clauses_for, say
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.tools import WorldTool
from toolformer.data.toolworld.wording import Frames, Voice, bucket, finish, noisy
from toolformer.records import Message


def small_talk(rng: Random, frames: Frames, voice: Voice) -> Spoken | None:
    """A remark that asks for nothing."""
    big_i, group = rng.random() < 0.5, pick(rng, voice.frames)
    remark = pick(rng, frames.talk[pick(rng, voice.talk)])
    opener, closer = pick(rng, frames.talk_openers[group])[big_i], pick(rng, frames.talk_closers[group])[big_i]
    text = noisy(rng, opener.replace("{}", remark[big_i]) + closer, voice.noise)
    text = finish(rng, text)
    if bucket(text) not in voice.buckets:
        return None
    return Spoken((Message("user", text),), (), pick(rng, frames.talk_replies), f"small_talk/{remark[0]}")


def near_miss(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> Spoken | None:
    """A remark about the noun of an offered tool, or about its use, that asks for no call."""
    big_i = rng.random() < 0.5
    template = pick(rng, frames.near[pick(rng, voice.talk)])
    text = noisy(rng, template[big_i], voice.noise)
    if "{clause}" in text:
        options = clauses_for(wt, voice.clauses, noun=True, verb=True)
        if not options:
            return None
        text = text.replace("{clause}", say(rng, wt, pick(rng, options), big_i, lead=False, noise=voice.noise).text)
    else:
        text = text.replace("{noun}", wt.noun).replace("{a}", with_article(wt.noun)).replace("{nouns}", plural(wt.noun))
    return remark(rng, frames, voice, template, text)


def remark(rng: Random, frames: Frames, voice: Voice, template: tuple[str, str], text: str) -> Spoken | None:
    """The filled template of a near miss."""
    text = finish(rng, text)
    if bucket(text) not in voice.buckets:
        return None
    return Spoken((Message("user", text),), (), pick(rng, frames.near_replies), f"near_miss/{template[0]}")
