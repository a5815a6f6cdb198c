"""In: a compiled family and a noun. Out: a ``WorldTool``: the record ``Tool`` and all that a request for it needs.

A derived tool keeps what its family does and changes how it looks: noun, parameters, their names, the wording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from toolformer.data.toolworld.lexicon import Family, Lexicon, Parameter, fill, noun_part
from toolformer.data.toolworld.slots import pick, pseudo_word
from toolformer.records import Tool

VERBS = (
    "get list find search check show read view track look compare",
    "book create add schedule order request reserve buy submit send start make log set apply register file open place",
    "change update edit reschedule move rename replace set extend renew",
    "cancel delete remove drop withdraw revoke stop end leave close return release",
)


@dataclass(frozen=True, slots=True, eq=False)
class WorldTool:
    """A tool with its origin; ``parameters`` pairs the key in this tool's schema with the family's parameter."""

    tool: Tool
    family: Family
    noun: str
    own: bool  # whether the noun is the family's own
    parameters: tuple[tuple[str, Parameter], ...]
    cluster: int = 0  # tools of a pool that were made to be confused share it


def new_word(rng: Random, part: str) -> str:
    """A pseudo-word out of the part's share of all pseudo-words."""
    while True:
        word = pseudo_word(rng)
        if noun_part(word) == part:
            return word


def conflict(a: WorldTool, b: WorldTool) -> bool:
    """Whether one request could mean either: one name, or one noun in tools that were not written to go together."""
    if a.tool.name == b.tool.name:
        return True
    if a.noun == b.noun:
        return a.family is b.family or a.family.noun != b.family.noun
    if a.family.domain == b.family.domain:
        return False
    return a.noun in b.noun.split() or b.noun in a.noun.split()  # "ticket" and "train ticket"


def could_serve(wanted: WorldTool, other: WorldTool) -> bool:
    """Whether ``other`` might do for ``wanted``: a like verb on the same noun (``list_orders``, ``search_orders``)."""
    if wanted.noun != other.noun:
        return False
    return any(wanted.family.verb in group.split() and other.family.verb in group.split() for group in VERBS)


class ToolShop:
    """Makes tools of families; each exact base tool is made once."""

    def __init__(self, lexicon: Lexicon) -> None:
        variants = lexicon.words["variants"]
        self.synonyms: Mapping[str, Sequence[str]] = variants["parameters"]
        self.descriptions: Sequence[str] = variants["descriptions"]
        self.extras = lexicon.extras
        self._bases: dict[str, WorldTool] = {}

    def base(self, family: Family) -> WorldTool:
        """The family exactly as written."""
        if family.name not in self._bases:
            pairs = [(p.key, p) for p in family.parameters]
            self._bases[family.name] = self._make(family, None, pairs, family.description)
        return self._bases[family.name]

    def derive(self, rng: Random, family: Family, noun: str | None, vary: bool) -> WorldTool:
        """The family with another noun (None keeps its own), and with ``vary`` other parameters and wording too."""
        if not vary and noun is None:
            return self.base(family)
        text = family.description if noun is None else family.description_open
        if not vary:
            return self._make(family, noun, [(p.key, p) for p in family.parameters], text)
        pairs: list[tuple[str, Parameter]] = []
        for p in family.parameters:
            if p.required or rng.random() > 0.35:
                names = self.synonyms.get(p.key) if rng.random() < 0.35 else None
                pairs.append((pick(rng, names) if names else p.key, p))
        if len(pairs) < 4 and rng.random() < 0.3:
            extra = pick(rng, self.extras)
            pairs.append((extra.key, extra))
        if len({key for key, _ in pairs}) < len(pairs):  # a synonym met its like
            pairs = [(p.key, p) for p in family.parameters]
        text = pick(rng, self.descriptions).format(D=text, d=text[0].lower() + text[1:])
        return self._make(family, noun, pairs, text)

    def _make(
        self, family: Family, noun: str | None, pairs: list[tuple[str, Parameter]], description: str
    ) -> WorldTool:
        name, properties = family.name, {}
        if noun is not None:
            slug, head = noun.replace(" ", "_"), family.noun.split()[-1]
            name, description = fill(family.name_open, slug), fill(description, noun)
            pairs = [(key.replace(head, slug) if head in key.split("_") else key, p) for key, p in pairs]
        for key, p in pairs:
            schema: Mapping[str, Any] = p.schema
            if noun is not None and p.open_description is not None:
                schema = {**schema, "description": fill(p.open_description, noun)}
            properties[key] = schema
        required = [key for key, p in pairs if p.required]
        tool = Tool(name, description, {"type": "object", "properties": properties, "required": required})
        return WorldTool(tool, family, family.noun if noun is None else noun, noun is None, tuple(pairs))
