"""In: all rows, and the split of each. Out: the tables that a corpus folder holds: its splits, and what was set aside.

Rows are taken portion by portion from files that are mapped into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from toolformer.data.corpus import ROWS, decoded
from toolformer.data.near import ranges
from toolformer.data.offers import Offers
from toolformer.data.pile import Pile
from toolformer.data.reading import ASIDE
from toolformer.data.rules import ORDER
from toolformer.data.splitting import TRAINED, Splits
from toolformer.data.tables import mapped, pc
from toolformer.records import Example


def portions(table: pa.Table, rows: np.ndarray) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """The rows (bool), a batch of the table at a time, with their places."""
    start = 0
    for batch in table.to_batches():
        places = np.flatnonzero(rows[start : start + batch.num_rows])
        if len(places):
            yield places + start, batch.take(pa.array(places))
        start += batch.num_rows


def training_rows(pile: Pile, splits: Splits, purpose: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The rows of training as they were read, without offers of tools that are not trained on."""
    keep = purpose[pile.offered.values] == TRAINED
    at = ROWS.get_field_index("tools")
    for places, batch in portions(pile.table.select(ROWS.names), splits.of("train")):
        sizes = pile.offered.sizes[places]
        kept = keep[ranges(pile.offered.starts[places], sizes)]
        if not kept.all():
            counts = np.bincount(np.repeat(np.arange(len(places)), sizes)[kept], minlength=len(places))
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            lists = pa.ListArray.from_arrays(offsets, batch.column(at).flatten().filter(pa.array(kept)))
            batch = batch.set_column(at, ROWS.field(at), lists)
        yield batch


def evaluation_rows(pile: Pile, splits: Splits, name: str, offers: Offers, seed: int) -> Iterator[Example]:
    """The rows of an evaluation split with all their tools, shuffled."""
    table = pa.Table.from_batches(
        [batch for _, batch in portions(pile.table.select(ROWS.names), splits.of(name))], ROWS
    )
    found = decoded(table.to_pylist())
    for place in np.random.default_rng([seed, ORDER.index(name)]).permutation(len(found)):
        yield offers.add(found[place], name)


def set_aside(path: Path, pile: Pile, splits: Splits, tables: Mapping[str, Path]) -> dict[str, Counter[str]]:
    """Write every row that is in no split, its place and why; one that could not be read with its text. Counts them."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in pile.names}
    with pyarrow.parquet.ParquetWriter(path, ASIDE) as table:
        for name, folder in tables.items():
            for batch in mapped(folder / "set_aside.arrow").to_batches():
                table.write_batch(batch)
                counts[name].update(batch["reason"].to_pylist())
        for places, batch in portions(pile.table.select(["place"]), splits.why >= 0):
            reasons = [splits.reasons[k] for k in splits.why[places]]
            names = [pile.names[k] for k in pile.source[places]]
            columns = [pa.array(names), batch["place"], pa.array(reasons), pa.array([""] * len(places))]
            table.write_batch(pa.RecordBatch.from_arrays(columns, schema=ASIDE))
            for name, reason in zip(names, reasons, strict=True):
                counts[name][reason] += 1
    return counts


def strata(path: Path) -> dict[str, Counter[str]]:
    """The rows of a split by source and stratum; those without one are "call" or, without a call, "no_call"."""
    table = mapped(path)
    kind = pc.if_else(pc.equal(table["calls"], "[]"), "no_call", "call")
    table = table.append_column("kind", pc.if_else(pc.equal(table["stratum"], ""), kind, table["stratum"]))
    counted = table.group_by(["kind", "source"]).aggregate([("id", "count")]).to_pylist()
    out: dict[str, Counter[str]] = {}
    for row in sorted(counted, key=lambda row: (row["source"], row["kind"])):
        out.setdefault(row["source"], Counter())[row["kind"]] = row["id_count"]
    return out
