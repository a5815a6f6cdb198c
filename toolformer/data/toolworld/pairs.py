"""In: a tool, the sentence frames and a random generator. Out: a request and its counterpart, which asks for no call.

The two share clause, values and frame; so only what makes the difference can tell them apart.
"""

from __future__ import annotations

from random import Random

from toolformer.data.toolworld.requests import Spoken, clauses_for, framed, needed, open_end, say
from toolformer.data.toolworld.slots import pick
from toolformer.data.toolworld.talk import remark
from toolformer.data.toolworld.tools import WorldTool
from toolformer.data.toolworld.wording import Frames, Voice, noisy


def with_and_without(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> tuple[Spoken, Spoken, str] | None:
    """A request, the same one without a required value (its reply asks for it), and the key of that value."""
    options, keys = clauses_for(wt, voice.clauses, noun=True), needed(wt)
    if not options or not keys:
        return None
    (key, p), clause = pick(rng, keys), pick(rng, options)
    big_i, group, verb = rng.random() < 0.5, pick(rng, voice.frames), clause.imperative and rng.random() < 0.5
    values, frame = rng.random(), rng.random()
    said = []
    for unsaid in ("", key):
        labels = frames.labels[group]
        part = say(Random(values), wt, clause, big_i, unsaid=unsaid, lead=not verb, labels=labels, noise=voice.noise)
        if unsaid:
            part = part._replace(text=part.text + open_end(rng, frames, group, wt, part.call, key)[big_i])
        said.append(framed(Random(frame), frames, voice, wt, part, group, big_i, verb=verb))
    request, lacking = said
    if request is None or lacking is None:
        return None
    return request, lacking._replace(reply=p.ask, pattern=f"missing/{p.key}/{lacking.pattern}"), key


def asked_and_mentioned(rng: Random, frames: Frames, voice: Voice, wt: WorldTool) -> tuple[Spoken, Spoken] | None:
    """A request and a remark that says the same words without asking for it."""
    options = clauses_for(wt, voice.clauses, noun=True, verb=True)
    if not options:
        return None
    big_i, group = rng.random() < 0.5, pick(rng, voice.frames)
    part = say(rng, wt, pick(rng, options), big_i, lead=False, labels=frames.labels[group], noise=voice.noise)
    request = framed(rng, frames, voice, wt, part, group, big_i, verb=rng.random() < 0.5)
    template = pick(rng, frames.near_clauses[pick(rng, voice.talk)])
    mention = remark(
        rng, frames, voice, template, noisy(rng, template[big_i], voice.noise).replace("{clause}", part.text)
    )
    return None if request is None or mention is None else (request, mention)
