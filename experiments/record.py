"""In: the name of an experiment. Out: its run, and what is worth keeping of it in experiments/<name>/.

Kept: metrics.json, settings.yaml, predictions.jsonl (gzipped above 2 MB), curves/*.csv, figures/*.png, cost.json.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LARGE = 2_000_000  # bytes; a larger predictions.jsonl is kept gzipped
Line = dict[str, Any]


def record(name: str, overrides: Sequence[str] = (), keep: Callable[[Line], Line] = dict) -> None:
    """Runs the curriculum ``experiment=<name>`` and keeps its results; ``keep`` says what stays of a prediction.

    A finished run is taken as it is, an interrupted one goes on, as the curriculum itself does.
    """
    run, folder = train(name, overrides)
    shutil.copy(run / "metrics.json", folder / "metrics.json")
    shutil.copy(run / "settings.yaml", folder / "settings.yaml")
    lines = (run / "evaluation" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    kept = (keep(json.loads(line)) for line in lines)
    write_predictions(folder, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
    stages = sorted(path.parent for path in run.glob("*/metrics.csv"))
    fresh(folder / "curves", [(stage / "metrics.csv", f"{stage.name}.csv") for stage in stages])

    from toolformer.reporting.page import write_report

    page = write_report(run)
    fresh(folder / "figures", [(path, path.name) for path in sorted(page.parent.glob("*.png"))])
    print(f"kept in {folder}; the whole report: {page}; next: python -m experiments.tables")


def train(name: str, overrides: Sequence[str]) -> tuple[Path, Path]:
    """Runs the plain command and measures it; returns the run's folder and the experiment's."""
    from toolformer.overrides import check

    arguments = [f"experiment={name}", *overrides]
    cfg = check("curriculum", arguments)
    outputs = next((x.split("=", 1)[1] for x in overrides if x.startswith("paths.outputs=")), cfg.paths.outputs)
    run = Path(outputs) / next((x.split("=", 1)[1] for x in overrides if x.startswith("name=")), cfg.name)
    command = ["-m", "toolformer.curriculum", *arguments]
    print(" ".join(["python", *command]), flush=True)
    begun = run.resolve() if run.exists() else None
    start = time.monotonic()
    done = subprocess.run([sys.executable, *command]).returncode
    if done:
        raise SystemExit(done)
    if run.resolve() != begun:  # it was not resumed, so the time is the whole run's
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e6 if sys.platform == "linux" else 1e9)
        cost = {"seconds": round(time.monotonic() - start), "cores": cores(), "peak_gb": round(peak, 2)}
        (HERE / name / "cost.json").write_text(json.dumps(cost) + "\n")
    return run.resolve(), HERE / name


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def write_predictions(folder: Path, text: str) -> None:
    """As plain lines, or gzipped, with the same bytes for the same lines."""
    plain, packed = folder / "predictions.jsonl", folder / "predictions.jsonl.gz"
    data = text.encode()
    (plain if len(data) > LARGE else packed).unlink(missing_ok=True)
    if len(data) > LARGE:
        packed.write_bytes(gzip.compress(data, mtime=0))
    else:
        plain.write_bytes(data)


def fresh(folder: Path, files: Sequence[tuple[Path, str]]) -> None:
    """A folder that holds copies of these files and nothing of an earlier run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for source, name in files:
        shutil.copy(source, folder / name)
