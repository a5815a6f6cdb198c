"""In: rows of logged values. Out: ``curve.jsonl`` while a stage runs, ``metrics.csv`` when it is finished.

Lines are only ever appended, so a kill can tear the last one and no other. A step logged again after a resume is
there twice; the later line counts, and on one machine both say the same but for the speeds (``*_per_second``).
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class Curve(Logger):
    """Lightning's logger interface over ``<folder>/curve.jsonl``."""

    def __init__(self, folder: Path):
        super().__init__()
        self.path, self.begun = folder / "curve.jsonl", False

    name = property(lambda self: "curve")
    version = property(lambda self: "")

    def _begin(self) -> None:
        """Notes that a process starts here, behind the last whole line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        self._append({"start": True})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder has its settings.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """One line; ``epoch`` says nothing, as a stage is one."""
        if not self.begun:  # not before: a run that is refused leaves no file
            self._begin()
            self.begun = True
        self._append({"step": step, **{key: value for key, value in metrics.items() if key != "epoch"}})

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def write_metrics(folder: Path) -> int:
    """``metrics.csv`` out of ``curve.jsonl``; returns how many processes have worked on the stage."""
    rows: dict[int, dict[str, float]] = {}
    starts = 0
    with (folder / "curve.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if "step" in row:
                rows.setdefault(row["step"], {}).update(row)
            else:
                starts += 1
    columns = sorted({key for row in rows.values() for key in row} - {"step"})
    scratch = folder / "metrics.csv.part"
    with scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *columns])
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))
    os.replace(scratch, folder / "metrics.csv")
    return starts
