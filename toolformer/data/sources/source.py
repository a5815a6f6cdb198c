"""In: nothing. Out: what every source of real rows is, and what it yields: rows, and what was set aside and why.

A source knows its upstream's files and quirks; it knows no tokenizer, no split and no other source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from toolformer.records import Example, Tool


class Offered(NamedTuple):
    """A tool, and what its source knows of it beyond its schema; "" = nothing is known.

    ``domain`` is what it is about, in upstream's words. Tools of one ``family`` are wordings of the same tool, those of
    one ``function`` do the same work and are never offered together.
    """

    tool: Tool
    domain: str = ""
    family: str = ""
    function: str = ""
    wording: int = 0


class Found(NamedTuple):
    """A row: an example whose ``tools`` are the ids of ``offered``, in upstream's order.

    ``place`` is the file within the source's folder and the line (JSON Lines, CSV) or the number of the row (JSON),
    both from 1: ``train.jsonl:17``. ``upstream`` is the split that upstream put it in.
    """

    place: str
    example: Example
    offered: tuple[Offered, ...]
    upstream: str = "train"


class SetAside(NamedTuple):
    """A row that cannot be used. ``reason`` is counted, so it names no value; ``text`` is the row as it was found."""

    place: str
    reason: str
    text: str


@dataclass(frozen=True)
class Source:
    """One public source of rows.

    Attributes:
        name: of the source, and of its folder under the data root.
        licence: SPDX name.
        url: where it comes from, for the data card.
        read: its rows in a fixed order; every upstream row comes out once, as ``Found`` or as ``SetAside``. Takes the
            source's folder. Raises FileNotFoundError or ValueError, naming the file, where a file is missing or broken
            as a whole.
        tools: further tools that no row offers; they can be distractors.
        selects_only: upstream says which tools are right and no arguments, so only the choice of tools is judged.
        evaluates_only: never trained on, never tuned on.
        hub: the data set's id on the Hugging Face hub, where upstream is there.
    """

    name: str
    licence: str
    url: str
    read: Callable[[Path], Iterator[Found | SetAside]]
    tools: Callable[[Path], Iterator[Offered]] | None = None
    selects_only: bool = False
    evaluates_only: bool = False
    hub: str | None = None
