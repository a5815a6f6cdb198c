"""In: the ``slot``, ``enum``, ``flag``, ``list`` or ``object`` entry of one parameter. Out: its JSON Schema and a draw.

``draw(rng)`` gives one value and the phrase that says it: ("Euston", "to Euston").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from toolformer.data.toolworld.slots import Said, Slot, pick

Draw = Callable[[Random], Said]
UNIT = re.compile(r"\s*(%|percent|minute|degree|people|dollar|euro|hour|day|-minute|°)", re.IGNORECASE)
SCALE = re.compile(r"\s*(hundred|thousand)")


def in_digits(say: Draw) -> Draw:
    """The same values, never in words: "12 hundred", not "twelve hundred"."""

    def draw(rng: Random) -> Said:
        value, _ = say(rng)
        return value, str(value)

    return draw


def slot_phrases(slot: Slot, says: Sequence[str]) -> Draw:
    """Phrases with one ``{}``; a unit right after it ("{} minutes") means that the number comes alone."""
    forms = []
    for text in says:
        before, after = text.split("{}")
        say = slot.bare if UNIT.match(after) or before.endswith("$") else slot.say
        forms.append((before, after, in_digits(say) if SCALE.match(after) else say))

    def draw(rng: Random) -> Said:
        before, after, say = pick(rng, forms)
        value, text = say(rng)
        if text[0] == '"' and before.endswith('"'):
            text = text[1:-1]
        return value, before + text + after

    return draw


def choice_phrases(choices: Mapping[Any, Sequence[str]]) -> Draw:
    """Implied values: each choice has phrases of its own ("in the quiet coach" -> true)."""
    pairs = [(value, list(texts)) for value, texts in choices.items()]

    def draw(rng: Random) -> Said:
        value, texts = pick(rng, pairs)
        return value, pick(rng, texts)

    return draw


def list_phrases(slot: Slot, says: Sequence[str]) -> Draw:
    """One to three distinct values, joined as a person would."""
    forms = [text.split("{}") for text in says]

    def draw(rng: Random) -> Said:
        values: list[Any] = []
        texts: list[str] = []
        for _ in range(1 + int(rng.random() * 3)):
            value, text = slot.say(rng)
            if value not in values:
                values.append(value)
                texts.append(text)
        before, after = pick(rng, forms)
        return values, before + (", ".join(texts[:-1]) + " and " if texts[1:] else "") + texts[-1] + after

    return draw


def object_phrases(slots: Mapping[str, Slot], says: Sequence[str]) -> Draw:
    """Phrases with one ``{field}`` per field of a nested object."""
    forms = [re.split(r"\{(\w+)\}", text) for text in says]
    keys = list(slots)

    def draw(rng: Random) -> Said:
        said = {key: slots[key].say(rng) for key in keys}
        parts = pick(rng, forms)
        text = "".join(said[part][1] if i % 2 else part for i, part in enumerate(parts))
        return {key: said[key][0] for key in keys}, text

    return draw
