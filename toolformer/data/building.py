"""In: the folders of several sources, rules. Out: one audited corpus folder; the same input gives the same bytes.

Steps: read (each source on its own), catalog, splits, write. Each leaves a folder that is named by a hash of all that
it depends on and appears in one move, so a build that was killed goes on behind the last step that was done.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toolformer.data.audit import audit_splits
from toolformer.data.catalog import Catalog, build_catalog
from toolformer.data.corpus import ROWS, Corpus, encoded, write_tables
from toolformer.data.corpus_rows import CorpusRows
from toolformer.data.offers import Offers
from toolformer.data.reading import ASIDE, read_source
from toolformer.data.rules import ORDER, Rules, Use
from toolformer.data.sources.source import Source
from toolformer.data.splitting import TRAINED, USES, Pile, Splits, split_rows
from toolformer.data.tables import PORTION, mapped
from toolformer.records import Example, example_from_json

BUILD = 1  # part of every hash: raise it when the same data and rules give other rows
STEPS = ("read", "catalog", "splits", "write")


def rows(
    corpus: Builder,
    *,
    seed: int = 0,
    tool_missing_share: float = 0.06,
    temperature: float | None = 2.0,
    no_call_share: float = 0.2,
    together: int = 4,
) -> CorpusRows:
    """A corpus as training rows and frozen splits, built on the first call; the rest is as in ``CorpusRows``."""
    built = corpus.build()
    assert built is not None
    mixture = {"temperature": temperature, "no_call_share": no_call_share, "together": together}
    return CorpusRows(built, "train", seed, tool_missing_share=tool_missing_share, **mixture)


def find_source(name: str) -> Source:
    """The source of a module of ``toolformer.data.sources``."""
    try:
        return importlib.import_module(f"toolformer.data.sources.{name}").SOURCE
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"sources has {name}; toolformer/data/sources/{name}.py with a SOURCE is wanted") from error


@dataclass(frozen=True)
class Builder:
    """What a corpus is made of.

    Args:
        name: of the corpus.
        root: where the folders of the sources are.
        corpora: where the corpus and the steps towards it go.
        sources: how each source is used, by the name of its module.
        rules: how rows become splits.
        workers: processes that read sources; the result is the same for any number.
        progress: bars.
    """

    name: str
    root: str | Path
    corpora: str | Path
    sources: Mapping[str, Use]
    rules: Rules
    workers: int = 1
    progress: bool = True

    @cached_property
    def found(self) -> dict[str, Source]:
        """The sources by name."""
        return {name: find_source(name) for name in self.sources}

    @cached_property
    def hashes(self) -> dict[str, str]:
        """For each source the hash of its files and of the code's version."""
        return {name: folder_hash(self._folder(name), name) for name in self.sources}

    def _folder(self, name: str) -> Path:
        folder = Path(self.root) / self.sources[name].folder
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: the rows of {name} are not there; put them there, or leave the source out with "
                f"'~corpus.sources.{name}'"
            )
        return folder

    def _step(self, step: str) -> Path:
        settings: dict[str, Any] = {"hashes": self.hashes, "near": self.rules.near}
        if step != "catalog":
            settings |= {"uses": {name: asdict(use) for name, use in self.sources.items()}, "rules": asdict(self.rules)}
        digest = hashlib.sha256(json.dumps([BUILD, settings], sort_keys=True).encode()).hexdigest()[:10]
        base = Path(self.corpora)
        return base / f"{self.name}-{digest}" if step == "write" else base / "steps" / f"{step}-{digest}"

    @property
    def folder(self) -> Path:
        """Where the corpus is, or will be."""
        return self._step("write")

    def build(self, until: str = "write") -> Corpus | None:
        """Every step up to ``until``; what is there is taken as it is. The corpus, if it was to be written."""
        if until not in STEPS:
            raise ValueError(f"until is {until}; use one of {', '.join(STEPS)}")
        if (self.folder / "corpus.json").is_file():
            return Corpus.open(self.folder)
        tables = self._read()
        if until == "read":
            return None
        catalog = self._catalog(tables)
        if until == "catalog":
            return None
        pile = Pile(list(self.sources), [mapped(folder / "rows.arrow") for folder in tables.values()], catalog)
        splits, purpose = self._splits(pile)
        return None if until == "splits" else self._write(pile, splits, purpose, tables)

    def _read(self) -> dict[str, Path]:
        """The folder of each source's rows; sources that were not read yet are read, ``workers`` at a time."""
        from tqdm import tqdm

        folders = {name: Path(self.corpora) / "steps" / f"{name}-{digest}" for name, digest in self.hashes.items()}
        missing = [name for name, folder in folders.items() if not folder.is_dir()]
        with tqdm(total=len(missing), desc="read", unit="source", disable=not self.progress or not missing) as bar:
            jobs = [(name, self._folder(name), folders[name]) for name in missing]
            if self.workers == 1:
                for job in jobs:
                    _read_one(*job)
                    bar.update()
            else:
                with ProcessPoolExecutor(self.workers) as pool:
                    for job in as_completed([pool.submit(_read_one, *job) for job in jobs]):
                        job.result()
                        bar.update()
        for name, folder in folders.items():
            _tolerated(name, folder, self.sources[name].tolerance)
        return folders

    def _catalog(self, tables: Mapping[str, Path]) -> Catalog:
        return build_catalog(
            list(tables), [mapped(folder / "tools.arrow") for folder in tables.values()], self.rules.near
        )

    def _splits(self, pile: Pile) -> tuple[Splits, np.ndarray]:
        evaluates = [self.found[name].evaluates_only for name in self.sources]
        return split_rows(pile, list(self.sources.values()), evaluates, self.rules)

    def _write(self, pile: Pile, splits: Splits, purpose: np.ndarray, tables: Mapping[str, Path]) -> Corpus:
        evaluates = [name for name, source in self.found.items() if source.evaluates_only]
        chosen = frozenset(name for name, source in self.found.items() if source.selects_only)
        fixed = [name for name, use in self.sources.items() if use.as_upstream]
        catalog = pile.catalog
        kin = [kin._replace(use=USES[use]) for kin, use in zip(catalog.kin, purpose, strict=True)]
        offers = Offers(catalog.tools, kin, self.rules, as_upstream=fixed, evaluates=evaluates)
        by_id = {tool.id: tool for tool in catalog.tools}
        batches: dict[str, Iterator[pa.RecordBatch]] = {"train": training_rows(pile, splits, purpose)}
        for name in [name for name in ORDER[-2::-1] if splits.of(name).any()]:
            rows = evaluation_rows(pile, splits, name, offers, self.rules.seed)
            batches[name] = encoded(rows, by_id, f"{self.folder}:{name}", chosen)

        def meta(folder: Path) -> dict[str, Any]:
            aside = set_aside(folder / "set_aside.parquet", pile, splits, tables)
            by_source = {name: strata(folder / f"{name}.arrow") for name in batches}
            return {
                "name": self.name,
                "sources": [self._described(name, by_source, aside[name]) for name in self.sources],
                "rules": asdict(self.rules),
                "strata": {split: dict(sum(found.values(), Counter())) for split, found in by_source.items()},
                "audit": audit_splits(folder, list(batches), catalog, self.rules.near),
            }

        return write_tables(self.folder, catalog.tools, batches, meta, dict(zip(by_id, kin, strict=True)))

    def _described(
        self, name: str, strata: Mapping[str, Mapping[str, Counter[str]]], aside: Counter[str]
    ) -> dict[str, Any]:
        """What ``corpus.json`` says of a source: each row that was there is in a split or was set aside."""
        source = self.found[name]
        kept = {split: dict(found[name]) for split, found in strata.items() if name in found}
        return {
            "name": name,
            "licence": source.licence,
            "url": source.url,
            "selects_only": source.selects_only,
            "evaluates_only": source.evaluates_only,
            "as_upstream": self.sources[name].as_upstream,
            "rows_there": sum(sum(found.values()) for found in kept.values()) + aside.total(),
            "rows": kept,
            "set_aside": dict(sorted(aside.items())),
        }


def _read_one(name: str, folder: Path, out: Path) -> None:
    part = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    gc.disable()  # a third of the time went into looking for cycles among parsed rows, which have none
    try:
        read_source(find_source(name), folder, part)
        part.rename(out)
    finally:
        gc.enable()
        shutil.rmtree(part, ignore_errors=True)


def _tolerated(name: str, folder: Path, tolerance: float) -> None:
    """Raises ValueError where more of a source's rows were set aside than its tolerance allows."""
    counts = json.loads((folder / "counts.json").read_text())
    aside = sum(counts["set_aside"].values())
    total = aside + counts["rows"]
    if aside > tolerance * total:
        first = mapped(folder / "set_aside.arrow").slice(0, 3).to_pylist()
        shown = "; ".join(f"{row['place']}: {row['reason']}" for row in first)
        raise ValueError(
            f"{name}: {aside} of {total} rows were set aside, more than its tolerance of {tolerance:g}: {shown}; "
            f"mend them or raise corpus.sources.{name}.tolerance"
        )


def folder_hash(folder: Path, name: str) -> str:
    """10 hex digits of every file of a source's folder, and of what reads them."""
    digest = hashlib.sha256(json.dumps([BUILD, name]).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").digest()
        digest.update(str(path.relative_to(folder)).encode() + inner)
    return digest.hexdigest()[:10]


def training_rows(pile: Pile, splits: Splits, purpose: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The rows of training as they were read, without offers of tools that are not trained on."""
    rows = np.flatnonzero(splits.of("train"))
    keep = purpose[pile.offered.values] == TRAINED
    for start in range(0, len(rows), PORTION):
        part = rows[start : start + PORTION]
        table = pile.table.select(ROWS.names).take(pa.array(part)).combine_chunks()
        ids, sizes = table["tools"].combine_chunks(), pile.offered.sizes[part]
        flat = np.repeat(pile.offered.starts[part] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        kept = keep[flat]
        if not kept.all():
            counts = np.bincount(np.repeat(np.arange(len(part)), sizes)[kept], minlength=len(part))
            values = (ids if isinstance(ids, pa.Array) else ids.chunk(0)).flatten().filter(pa.array(kept))
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            lists = pa.ListArray.from_arrays(offsets, values)
            table = table.set_column(ROWS.get_field_index("tools"), ROWS.field("tools"), lists)
        yield from table.cast(ROWS).to_batches()


def evaluation_rows(pile: Pile, splits: Splits, name: str, offers: Offers, seed: int) -> Iterator[Example]:
    """The rows of an evaluation split with all their tools, shuffled."""
    rows = np.flatnonzero(splits.of(name))
    rows = rows[np.random.default_rng([seed, ORDER.index(name)]).permutation(len(rows))]
    for start in range(0, len(rows), PORTION):
        for row in pile.table.select(ROWS.names).take(pa.array(rows[start : start + PORTION])).to_pylist():
            yield offers.add(
                example_from_json({**row, **{key: json.loads(row[key]) for key in ("messages", "calls")}}), name
            )


def set_aside(path: Path, pile: Pile, splits: Splits, tables: Mapping[str, Path]) -> dict[str, Counter[str]]:
    """Write every row that is in no split, its place and why; one that could not be read with its text. Counts them."""
    import pyarrow.parquet

    counts: dict[str, Counter[str]] = {name: Counter() for name in pile.names}
    with pyarrow.parquet.ParquetWriter(path, ASIDE) as table:
        for name, folder in tables.items():
            for batch in mapped(folder / "set_aside.arrow").to_batches():
                table.write_batch(batch)
                counts[name].update(batch["reason"].to_pylist())
        rows = np.flatnonzero(splits.why >= 0)
        for start in range(0, len(rows), PORTION):
            part = rows[start : start + PORTION]
            reasons = [splits.reasons[k] for k in splits.why[part]]
            names = [pile.names[k] for k in pile.source[part]]
            places = pile.table["place"].take(pa.array(part)).combine_chunks()
            columns = [pa.array(names), places.cast(pa.string()), pa.array(reasons), pa.array([""] * len(part))]
            table.write_table(pa.table(columns, schema=ASIDE))
            for name, reason in zip(names, reasons, strict=True):
                counts[name][reason] += 1
    return counts


def strata(path: Path) -> dict[str, Counter[str]]:
    """The rows of a split by source and stratum; a row with a call and no stratum is "call"."""
    counted = mapped(path).group_by(["stratum", "source"]).aggregate([("id", "count")]).to_pylist()
    out: dict[str, Counter[str]] = {}
    for row in sorted(counted, key=lambda row: (row["source"], row["stratum"])):
        out.setdefault(row["source"], Counter())[row["stratum"] or "call"] = row["id_count"]
    return out
