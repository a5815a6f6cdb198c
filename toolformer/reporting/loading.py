"""In: a run folder, whole or interrupted. Out: a Run with what is there and a list of what is missing.

A part that is absent is named in ``missing``; a part that is there and unreadable is an error of the user.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Series = list[tuple[float, float]]  # (step, value), in the order of the file

STAGES = {
    "schema_autoencoding": "schema auto-encoding",
    "gist_contrast": "gist contrast",
    "tool_calling": "tool calling",
}


@dataclass(frozen=True)
class StageLog:
    """One stage's logged columns. ``finished`` says whether it came to its end."""

    name: str
    title: str
    columns: Mapping[str, Series]
    finished: bool

    @property
    def steps(self) -> int:
        """How many steps the log covers; it counts them from 0."""
        return 1 + int(max((series[-1][0] for series in self.columns.values()), default=-1))


@dataclass(frozen=True)
class Run:
    """A run folder's content as plain records; nothing of it is text for a page yet."""

    folder: Path
    settings: Mapping[str, Any]
    stages: tuple[StageLog, ...]
    metrics: Mapping[str, Any]
    predictions: Path | None
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name; of ``outputs/demo``: demo."""
        return self.folder.name or self.folder.resolve().name

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of predictions.jsonl, one by one: the file may be larger than a page should be."""
        if self.predictions is None:
            return
        with self.predictions.open(encoding="utf-8") as lines:
            for place, line in enumerate(lines, start=1):
                if line.strip():
                    yield read_json(line, f"{self.predictions}:{place}")


def read_json(text: str, place: str) -> dict[str, Any]:
    """A JSON object, or a one-line error that names the place."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON: {error}; run the evaluation again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{place}: a JSON object is wanted: it is {type(found).__name__}; run the evaluation again")
    return found


def load_run(folder: Path | str) -> Run:
    """Everything of a run that can be reported. Raises FileNotFoundError where the folder itself is absent."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder; train one with `make demo`, or name another with run=")
    missing: list[str] = []
    stages = tuple(load_stage(path) for path in stage_folders(folder))
    if not stages:
        missing.append("training curves: no stage folder with a metrics.csv")
    missing += [
        f"the end of stage {log.title}: it stopped after {log.steps:,} steps" for log in stages if not log.finished
    ]
    metrics_path = first_file(folder, "metrics.json", "evaluation/metrics.json")
    if metrics_path is None:
        missing.append("an evaluation: no metrics.json (`python -m toolformer.evaluate` writes it)")
    metrics = load_metrics(metrics_path) if metrics_path else {}
    predictions = first_file(folder, "evaluation/predictions.jsonl", "predictions.jsonl")
    if predictions is None:
        missing.append("answers to read: no predictions.jsonl")
    return Run(folder, load_settings(folder), stages, metrics, predictions, tuple(missing))


def load_metrics(path: Path) -> dict[str, Any]:
    """A metrics.json: its splits are splits -> names -> decodings -> memories -> summary."""
    metrics = read_json(path.read_text(encoding="utf-8"), str(path))
    levels = [("splits", metrics.get("splits", {}))]
    for _ in ("names", "decoding", "memory", "summary"):
        for place, found in levels:
            if not isinstance(found, Mapping):
                raise ValueError(f"{path}: {place} is {found!r}; an object is wanted; run the evaluation again")
        levels = [(f"{place}.{key}", value) for place, found in levels for key, value in found.items()]
    return metrics


def first_file(folder: Path, *names: str) -> Path | None:
    """The first of ``names`` that is a file in ``folder``."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load_settings(folder: Path) -> dict[str, Any]:
    """The resolved settings the run was started with; empty where none were written."""
    import yaml

    path = first_file(folder, "settings.yaml")
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {str(error).splitlines()[0]}; restore the file or run again") from error
    return found if isinstance(found, dict) else {}


def stage_folders(folder: Path) -> list[Path]:
    """Folders that hold a metrics.csv, in curriculum order; the run folder itself where it is a single stage."""
    found = [path for path in folder.iterdir() if re.match(r"\d+(\.\d+)?-", path.name) and log_of(path)]
    found.sort(key=lambda path: float(path.name.split("-")[0]))
    return found or ([folder] if log_of(folder) else [])


def log_of(stage: Path) -> Path | None:
    """A stage's metrics.csv, or what an interrupted one has logged so far."""
    return first_file(stage, "metrics.csv", "curve.jsonl")


def rows_of(log: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, row) of a log; of ``curve.jsonl`` without the lines that say a process began, or that a kill tore."""
    with log.open(newline="", encoding="utf-8") as file:
        if log.suffix == ".csv":
            yield from ((f"{log}:{place}", row) for place, row in enumerate(csv.DictReader(file), start=2))
            return
        for place, line in enumerate(file, start=1):
            if line.endswith("\n"):
                yield f"{log}:{place}", read_json(line, f"{log}:{place}")


def load_stage(path: Path) -> StageLog:
    """A stage's log as one series per column, holes left out."""
    found: dict[str, dict[float, float]] = {}
    log = log_of(path)
    assert log is not None  # stage_folders takes no other
    for place, row in rows_of(log):
        for name, step, value in numbers_of(row, place):
            found.setdefault(name, {})[step] = value
    columns = {name: sorted(points.items()) for name, points in found.items()}
    key = re.sub(r"^\d+(\.\d+)?-", "", path.name)
    return StageLog(key, STAGES.get(key, key.replace("_", " ")), columns, first_file(path, "finished.json") is not None)


def numbers_of(row: Mapping[str, Any], place: str) -> Iterator[tuple[str, float, float]]:
    """(column, step, value) of one line of a log; what is no finite number is left out."""
    if row.get("step") in (None, ""):
        return
    for name, text in row.items():
        if name in ("step", "epoch") or text in (None, ""):
            continue
        try:
            step, value = float(row["step"]), float(text)
        except ValueError as error:
            raise ValueError(f"{place}: {name} is {text!r} at step {row['step']!r}; a number is wanted") from error
        if math.isfinite(value):
            yield name, step, value
