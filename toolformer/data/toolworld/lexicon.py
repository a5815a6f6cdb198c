"""In: the domain and word files. Out: a ``Lexicon``: compiled tool families, nouns and word banks, each with its split.

What belongs to training, validation or test is decided by hashes of the texts alone: no seed changes it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from toolformer.data.toolworld.phrases import Draw

RESERVED = frozenset({"gardening", "museum", "pets", "laundry"})  # whole domains that no training row shows
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
SEEN, HELD_OUT, MORE, NEW = ("seen", "held_out", "more", "new")  # groups of wordings
NOUN, A_NOUN, NOUNS = "\x00", "\x01", "\x02"  # stand for "ticket", "a ticket", "tickets" in an open text
NEAR = 0.6  # Jaccard index of word triples from which two schemas of a domain are near-duplicates


def stable(text: str) -> int:
    """A hash that is the same in every process and version (CRC-32)."""
    return zlib.crc32(text.encode())


def noun_part(noun: str) -> str:
    """The part a noun or pseudo-word belongs to: 70% training, 10% validation, 20% test."""
    rest = stable("noun:" + noun) % 10
    return TEST if rest < 2 else VALIDATION if rest < 3 else TRAIN


def bare(text: str) -> str:
    """What makes two wordings the same: noun, "a", "the", "my" do not count."""
    words = re.findall(r"[\w'{}\x00-\x02]+", text.lower().replace(A_NOUN, NOUN))
    return " ".join(word for word in words if word not in ("a", "an", "the", "me", "my"))


def held_out(text: str) -> bool:
    """Whether a clause, frame or remark (30%) is kept out of training."""
    return stable("held:" + bare(text)) % 10 < 3


def wording_group(text: str, more: bool = False) -> str:
    """The group of a wording; ``more`` is said of one that no test may say.

    Training says those of ``SEEN`` and ``MORE``, the frozen tests those of ``SEEN`` and ``HELD_OUT``.
    """
    if more:
        return NEW if held_out(text) else MORE
    return HELD_OUT if held_out(text) else SEEN


def with_article(noun: str) -> str:
    """Indefinite article and noun.

    >>> with_article("alarm"), with_article("unit")
    ('an alarm', 'a unit')
    """
    vowel = noun[0] in "aeiou" and not noun.startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel else 'a'} {noun}"


def plural(noun: str) -> str:
    """The regular English plural.

    >>> plural("battery"), plural("train ticket")
    ('batteries', 'train tickets')
    """
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


@cache
def _noun_forms(noun: str) -> re.Pattern[str]:
    """Article, then the noun or its last word alone, in the plural or the singular."""
    forms = dict.fromkeys((noun, noun.split()[-1]))
    many, one = ("|".join(re.escape(form) for form in texts) for texts in (map(plural, forms), forms))
    return re.compile(rf"\b(?:({many})|(an? )?(?:{one}))\b")


def cut_noun(text: str, noun: str) -> str:
    """An open text: the noun cut out; its last word alone counts too ("the transfer" for "bank transfer")."""
    return _noun_forms(noun).sub(lambda m: NOUNS if m[1] else A_NOUN if m[2] else NOUN, text)


def fill(text: str, noun: str) -> str:
    """An open text with a noun put in.

    >>> fill(cut_noun("book a train ticket", "train ticket"), "alarm")
    'book an alarm'
    """
    if NOUN in text:
        text = text.replace(NOUN, noun)
    if A_NOUN in text:
        text = text.replace(A_NOUN, with_article(noun))
    return text.replace(NOUNS, plural(noun)) if NOUNS in text else text


def both_cases(text: str) -> tuple[str, str]:
    """The text as people type it and as people should: "i" and "I"."""
    return text, re.sub(r"\bi\b", "I", text)


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """One parameter of a family: its schema, and ``draw(rng) -> (value, phrase)``."""

    key: str
    schema: Mapping[str, Any]
    required: bool
    kind: str  # slot name, "list", "object", "enum" or "flag"
    draw: Draw
    value: Draw | None  # the value without a phrase; none where it takes a phrase to say it
    ask: str  # what to say when it is missing
    open_description: str | None  # where the description names the noun

    @property
    def implied(self) -> bool:
        """Whether the request implies the value instead of saying it."""
        return self.kind in ("enum", "flag")


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One way to ask for a tool, without values; ``plain`` keeps the family's own noun, ``open`` has it cut out."""

    index: int
    plain: tuple[str, str]  # with "i" and with "I"
    open: tuple[str, str]
    has_noun: bool
    imperative: bool
    question: bool
    group: str
    pronoun: str  # "cancel it"; empty where the clause does not end in the noun


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A hand-shaped tool, ready to be made with its own noun or another one."""

    name: str
    domain: str
    noun: str
    reserved: bool
    name_open: str  # "book_" + NOUN
    description: str
    description_open: str
    clauses: tuple[Clause, ...]
    parameters: tuple[Parameter, ...]

    @property
    def stratum(self) -> str:
        """The stratum of ``test_unseen`` it would stand in."""
        return "new_domain" if self.reserved else "same_domain"

    @property
    def verb(self) -> str:
        """The first word of the name."""
        return self.name.split("_", 1)[0]


@dataclass(frozen=True)
class Lexicon:
    """Families and nouns by part, further optional parameters, and the word banks by file name."""

    families: Mapping[str, tuple[Family, ...]]
    nouns: Mapping[str, tuple[str, ...]]
    extras: tuple[Parameter, ...]
    words: Mapping[str, Any]

    @property
    def unseen_names(self) -> frozenset[str]:
        """Names of all families outside training: no derived training tool may take one."""
        return frozenset(family.name for part in (VALIDATION, TEST) for family in self.families[part])


def _triples(family: Family) -> frozenset[tuple[str, ...]]:
    body = " ".join(f"{p.key.replace('_', ' ')} {p.schema}" for p in family.parameters)
    words = re.findall(r"\w+|[\x00-\x02]", f"{family.name_open.replace('_', ' ')} {family.description_open} {body}")
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def near_duplicates(families: Sequence[Family]) -> list[list[Family]]:
    """The families in groups: those of one group are near-duplicates, whatever their noun."""
    grams = [_triples(family) for family in families]
    root = list(range(len(families)))
    for i, j in combinations(range(len(families)), 2):
        if len(grams[i] & grams[j]) >= NEAR * len(grams[i] | grams[j]):
            root = [root[i] if r == root[j] else r for r in root]
    return [[f for f, r in zip(families, root, strict=True) if r == key] for key in dict.fromkeys(root)]


def divide(families: Sequence[Family]) -> dict[str, list[Family]]:
    """The families of one domain by part.

    A reserved domain is all test. Of another one about 15% of the tools are test and 6% validation, taken in the order
    of a hash of their names; near-duplicates stay together.
    """
    parts: dict[str, list[Family]] = {part: [] for part in PARTS}
    if families[0].reserved:
        parts[TEST] = list(families)
        return parts
    groups = sorted(near_duplicates(families), key=lambda g: (len(g) > 2, stable("family:" + g[0].name)))
    room = {TEST: round(0.15 * len(families)), VALIDATION: round(0.06 * len(families))}
    for group in groups:
        part = next((part for part in (TEST, VALIDATION) if len(parts[part]) + len(group) <= room[part]), TRAIN)
        parts[part] += group
    return parts
