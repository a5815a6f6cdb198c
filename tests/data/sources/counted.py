"""In: a source and its folder. Out: its rows, and how many of them a corpus takes and sets aside, by reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from toolformer.data.reading import read_source
from toolformer.data.sources.source import Found, SetAside, Source


class Counted(NamedTuple):
    """``found`` and ``unusable`` are what the source says; ``rows`` and ``aside`` what is left after all checks."""

    found: list[Found]
    unusable: list[SetAside]
    rows: int
    aside: dict[str, int]


def counted(source: Source, folder: Path, out: Path) -> Counted:
    """Reads once and checks as a corpus does: gold fits its tool and is read back as it was written."""
    read = list(source.read(folder))
    out.mkdir()
    read_source(replace(source, read=lambda _: iter(read)), folder, out)
    counts = json.loads((out / "counts.json").read_text())
    found = [row for row in read if isinstance(row, Found)]
    return Counted(found, [row for row in read if isinstance(row, SetAside)], counts["rows"], counts["set_aside"])
