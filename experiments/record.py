"""In: the name of an experiment. Out: its run, and what is worth keeping of it in experiments/<name>/.

Kept: metrics.json, cost.json, settings.yaml, predictions.jsonl (gzipped above 2 MB), curves/*.csv, figures/*.png.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolformer.reporting.page import write_report

HERE = Path(__file__).resolve().parent
LARGE = 2_000_000  # bytes; larger predictions are kept gzipped
Line = dict[str, Any]


def record(name: str, overrides: Sequence[str] = (), keep: Callable[[Line], Line] = dict) -> None:
    """Runs the curriculum ``experiment=<name>`` and keeps its results; ``keep`` says what stays of a prediction.

    A finished run is taken as it is and an interrupted one goes on, as the curriculum itself does.
    """
    arguments = ["-m", "toolformer.curriculum", f"experiment={name}", *overrides]
    print(" ".join(["python", *map(shlex.quote, arguments)]), flush=True)
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        run = ""
        for line in job.stdout:
            print(line, end="", flush=True)
            run = line.removeprefix("run folder: ").strip() if line.startswith("run folder: ") else run
    if job.returncode:
        raise SystemExit(job.returncode)
    collect(Path(run), HERE / name, keep)
    print(f"kept in experiments/{name}; next: python -m experiments.tables")


def collect(run: Path, folder: Path, keep: Callable[[Line], Line] = dict) -> None:
    """Copies from a finished run's folder what is kept of it."""
    metrics = json.loads((run / "metrics.json").read_text())
    command = without_places(metrics["provenance"]["command"])
    metrics["provenance"]["command"] = command
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "cost.json", cost(run, command))
    settings = (run / "settings.yaml").read_text(encoding="utf-8")
    (folder / "settings.yaml").write_text(re.sub(r"(?m): /.*$", ": elsewhere", settings), encoding="utf-8")
    with (run / "evaluation" / "predictions.jsonl").open(encoding="utf-8") as lines:
        write_predictions(folder, "".join(json.dumps(keep(json.loads(x)), ensure_ascii=False) + "\n" for x in lines))
    curves = sorted(run.glob("*/metrics.csv"))
    fresh(folder / "curves", [(path, f"{path.parent.name}.csv") for path in curves])
    figures = sorted(write_report(run).parent.glob("*.png"))
    fresh(folder / "figures", [(path, path.name) for path in figures])


def without_places(command: str) -> str:
    """The command without the settings that say where things lie on one machine.

    >>> without_places("python -m toolformer.curriculum experiment=sgd data.root=/home/me/data seed=1")
    'python -m toolformer.curriculum experiment=sgd seed=1'
    """
    return " ".join(word for word in command.split() if not re.match(r"'?(paths\.\w+=|[\w.]+=/)", word))


def cost(run: Path, command: str) -> dict[str, int | None]:
    """Seconds from the first file to the last, and the cores used; no seconds where the run was interrupted."""
    starts = [json.loads(path.read_text())["starts"] for path in run.glob("*/finished.json")]
    seconds = round((run / "metrics.json").stat().st_mtime - (run / "settings.yaml").stat().st_mtime)
    threads = re.search(r" threads=(\d+)", command)
    return {
        "seconds": seconds if max(starts, default=1) == 1 else None,
        "cores": int(threads[1]) if threads else cores(),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def write_json(path: Path, content: Any) -> None:
    """In the form that the evaluation writes."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_predictions(folder: Path, text: str) -> None:
    """As plain lines, or gzipped: the same bytes for the same lines."""
    plain, packed = folder / "predictions.jsonl", folder / "predictions.jsonl.gz"
    data = text.encode()
    if len(data) > LARGE:
        plain.unlink(missing_ok=True)
        packed.write_bytes(gzip.compress(data, mtime=0))
    else:
        packed.unlink(missing_ok=True)
        plain.write_bytes(data)


def fresh(folder: Path, files: Sequence[tuple[Path, str]]) -> None:
    """A folder with copies of these files and nothing of an earlier run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for source, name in files:
        shutil.copyfile(source, folder / name)
