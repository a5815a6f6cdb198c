"""In: the folders of several sources, rules. Out: one audited corpus folder; the same input gives the same bytes.

Steps: read (each source on its own), catalog, splits, write. Each leaves a folder that is named by a hash of all that
it depends on and appears in one move, so a build that was killed goes on behind the last step that was done.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toolformer.data.audit import audit_folder
from toolformer.data.catalog import read_catalog, write_catalog
from toolformer.data.corpus import Corpus, encoded, write_tables
from toolformer.data.corpus_rows import CorpusRows, opened
from toolformer.data.kept import evaluation_rows, set_aside, strata, training_rows
from toolformer.data.offers import Offers
from toolformer.data.pile import Pile
from toolformer.data.reading import Job, read_all
from toolformer.data.rules import ORDER, Rules, Use
from toolformer.data.sources.source import Source
from toolformer.data.splitting import USES, Splits, read_splits, split_rows, write_splits
from toolformer.data.statistics import statistics
from toolformer.data.steps import alone, made
from toolformer.data.tables import mapped

BUILD = 7  # part of every hash: raise it when the same data and rules give other rows
STEPS = ("read", "catalog", "splits", "write")


def rows(corpus: Builder, **mixture: Any) -> CorpusRows:
    """A corpus, built on the first call, as training rows and frozen splits; ``mixture`` is as for ``opened``."""
    built = corpus.build()
    assert built is not None
    return opened(built.folder, **mixture)


def find_source(name: str, module: str = "") -> Source:
    """The source of a module (``SOURCE``, or what follows a colon), under the name that the corpus gives it."""
    module, _, attribute = (module or f"toolformer.data.sources.{name}").partition(":")
    try:
        return replace(getattr(importlib.import_module(module), attribute or "SOURCE"), name=name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"sources has {name}: {error}; a module with a SOURCE is wanted") from error


@dataclass(frozen=True)
class Builder:
    """What a corpus is made of.

    Args:
        name: of the corpus.
        root: where the folders of the sources are.
        corpora: where the corpus and the steps towards it go.
        sources: how each source is used, by its name; None leaves it out.
        rules: how rows become splits.
        workers: processes that read sources; the result is the same for any number.
        progress: bars.
    """

    name: str
    root: str | Path
    corpora: str | Path
    sources: Mapping[str, Use | None]
    rules: Rules
    workers: int = 1
    progress: bool = True

    @cached_property
    def uses(self) -> dict[str, Use]:
        """The sources that are not left out."""
        return {name: use for name, use in self.sources.items() if use is not None}

    @cached_property
    def found(self) -> dict[str, Source]:
        """The sources by name."""
        return {name: find_source(name, use.module) for name, use in self.uses.items()}

    @cached_property
    def folders(self) -> dict[str, Path]:
        """The folder of each source's rows as upstream has them."""
        return {name: Path(self.root) / use.folder for name, use in self.uses.items()}

    def missing(self) -> list[str]:
        """The sources whose rows are not there."""
        return [name for name, folder in self.folders.items() if not folder.is_dir()]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """For each source the hash of its files and of what reads them."""
        return {name: folder_hash(folder, [name, self.uses[name].module]) for name, folder in self.folders.items()}

    def step(self, name: str) -> Path:
        """The folder of a step; that of "write" is the corpus."""
        settings: list[Any] = [BUILD, name, list(self.hashes.items()), self.rules.near]
        if name != "catalog":
            settings += [{source: asdict(use) for source, use in self.uses.items()}, asdict(self.rules)]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
        base = Path(self.corpora)
        return base / f"{self.name}-{digest}" if name == "write" else base / "steps" / f"{name}-{digest}"

    def build(self, until: str = "write") -> Corpus | None:
        """Every step up to ``until``; what is there is taken as it is. The corpus, if it was to be written.

        Raises:
            ValueError: too many rows of a source were set aside, or two splits share a request or a schema.
        """
        if until not in STEPS:
            raise ValueError(f"until is {until}; use one of {', '.join(STEPS)}")
        if missing := self.missing():
            wanted = ", ".join(f"{self.folders[name]} ({self.found[name].url or name})" for name in missing)
            raise FileNotFoundError(
                f"{self.root}: holds no {wanted}; put them there, or leave them out: corpus.sources.{missing[0]}=null"
            )
        if self.step("write").is_dir():
            return Corpus.open(self.step("write"))
        with alone(Path(self.corpora)):
            return self._build(until)

    def _build(self, until: str) -> Corpus | None:
        if self.step("write").is_dir():  # another process was waited for
            return Corpus.open(self.step("write"))
        tables = self._read()
        if until == "read":
            return None
        names, tools = list(tables), [mapped(folder / "tools.arrow") for folder in tables.values()]
        made(self.step("catalog"), lambda part: write_catalog(part, names, tools, self.rules.near))
        if until == "catalog":
            return None
        catalog = read_catalog(self.step("catalog"), names, tools)
        pile = Pile(names, [mapped(folder / "rows.arrow") for folder in tables.values()], catalog)
        made(self.step("splits"), lambda part: write_splits(part, *self._split(pile)))
        return None if until == "splits" else self._write(pile, *read_splits(self.step("splits")), tables)

    def _read(self) -> dict[str, Path]:
        steps = Path(self.corpora) / "steps"
        folders = {name: steps / f"read-{name}-{digest}" for name, digest in self.hashes.items()}
        jobs = [Job(self.found[name], self.folders[name], folder) for name, folder in folders.items()]
        read_all([job for job in jobs if not job.out.is_dir()], max(1, self.workers), self.progress)
        for name, folder in folders.items():
            _tolerated(name, folder, self.uses[name].tolerance)
        return folders

    def _split(self, pile: Pile) -> tuple[Splits, np.ndarray]:
        evaluates = [self.found[name].evaluates_only for name in self.uses]
        return split_rows(pile, list(self.uses.values()), evaluates, self.rules)

    def _write(self, pile: Pile, splits: Splits, purpose: np.ndarray, tables: Mapping[str, Path]) -> Corpus:
        evaluates = [name for name, source in self.found.items() if source.evaluates_only]
        chosen = frozenset(name for name, source in self.found.items() if source.selects_only)
        fixed = [name for name, use in self.uses.items() if use.as_upstream]
        closed = [name for name, use in self.uses.items() if use.no_call_as_upstream]
        catalog, folder = pile.catalog, self.step("write")
        kin = [kin._replace(use=USES[use]) for kin, use in zip(catalog.kin, purpose, strict=True)]
        as_upstream = {"as_upstream": fixed, "no_call_as_upstream": closed}
        offers = Offers(catalog.tools, kin, self.rules, **as_upstream, evaluates=evaluates)
        by_id = {tool.id: tool for tool in catalog.tools}
        batches: dict[str, Iterator[pa.RecordBatch]] = {"train": training_rows(pile, splits, purpose)}
        for name in [name for name in ORDER[-2::-1] if splits.of(name).any()]:
            rows = evaluation_rows(pile, splits, name, offers, self.rules.seed)
            batches[name] = encoded(rows, by_id, f"{folder}:{name}", chosen)

        def meta(part: Path) -> dict[str, Any]:
            aside = set_aside(part / "set_aside.parquet", pile, splits, tables)
            found = {name: strata(part / f"{name}.arrow") for name in batches}
            return {
                "name": self.name,
                "sources": [self._described(name, found, aside[name]) for name in self.uses],
                "rules": asdict(self.rules),
                "strata": {split: dict(sum(counts.values(), Counter())) for split, counts in found.items()},
                "audit": audit_folder(part, list(batches), self.rules.near),
                "statistics": statistics(part, list(batches)),
            }

        return write_tables(folder, catalog.tools, batches, meta, dict(zip(by_id, kin, strict=True)))

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
            "as_upstream": self.uses[name].as_upstream,
            "no_call_as_upstream": self.uses[name].no_call_as_upstream,
            "rows_there": sum(sum(found.values()) for found in kept.values()) + aside.total(),
            "rows": kept,
            "set_aside": dict(sorted(aside.items())),
        }


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


def folder_hash(folder: Path, more: list[str]) -> str:
    """10 hex digits of every file of a source's folder, and of what reads them."""
    digest = hashlib.sha256(json.dumps([BUILD, *more]).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").digest()
        digest.update(str(path.relative_to(folder)).encode() + inner)
    return digest.hexdigest()[:10]
