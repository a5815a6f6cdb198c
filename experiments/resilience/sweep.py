"""In: nothing. Out: sweep.json: a sweep of 12 jobs over three launchers, killed twice, with one job made to fail.

Run as ``python -m experiments.resilience.sweep`` where ``pip install -e '.[launchers]'`` was done. The sweep is started
by Hydra's basic launcher and killed, goes on by joblib and is killed, and by submitit on this machine. The job that is
made to fail finds another run's settings in its folder until these are taken away.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.resilience.runs import TINY, differences, left
from toolformer.evaluation.provenance import code

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SWEPT = {"seed": range(6), "model.num_gists": (2, 3)}
FAILS = ("seed=3", "model.num_gists=3")
ALONE = (FAILS, ("seed=0", "model.num_gists=2"), ("seed=1", "model.num_gists=3"), ("seed=5", "model.num_gists=3"))
LAUNCHERS = {"basic": (), "joblib": ("hydra.launcher.n_jobs=2",), "submitit_local": ("hydra.launcher.timeout_min=30",)}


def main() -> None:
    """Runs the sweep to its end, some of its jobs alone, and compares."""
    with tempfile.TemporaryDirectory() as scratch:
        alone = {" ".join(job): run_alone(Path(scratch) / f"alone-{i}", job) for i, job in enumerate(ALONE)}
        outputs = Path(scratch) / "sweep"
        blocked = outputs / alone[" ".join(FAILS)].name
        blocked.mkdir(parents=True)
        (blocked / "settings.yaml").write_text("seed: 99\n")
        parts = [
            sweep(outputs, "basic", kill_after=3),
            sweep(outputs, "joblib", kill_after=7),
            sweep(outputs, "submitit_local"),
        ]
        (blocked / "settings.yaml").unlink()
        parts.append(sweep(outputs, "basic"))
        result = {
            **code(),
            "parts": parts,
            "folders": len([path for path in outputs.glob("tiny-*") if path.is_dir()]),
            "finished": len(finished(outputs)),
            "wandb_runs": sorted({len(ids) for ids in wandb_ids(outputs).values()}),
            "differences": {job: differences(left(run), left(outputs / run.name)) for job, run in alone.items()},
        }
    (HERE / "sweep.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def command(outputs: Path, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
    """A curriculum of one stage, logged to a W&B run of its own."""
    settings = [*TINY, "order=[gist_contrast]", "logger=wandb", f"paths.outputs={outputs}"]
    return [sys.executable, "-m", "toolformer.curriculum", *flags, *settings, *arguments]


def environment() -> dict[str, str]:
    """This one, its threads bounded, without a network."""
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def run_alone(outputs: Path, job: tuple[str, ...]) -> Path:
    """The folder of one job that is no part of a sweep."""
    subprocess.run(command(outputs, *job), cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)
    return (outputs / "tiny").resolve()


def sweep(outputs: Path, launcher: str, kill_after: int | None = None) -> dict[str, Any]:
    """The whole sweep by one launcher, killed with all its processes once so many jobs have finished."""
    values = [f"{key}={','.join(map(str, swept))}" for key, swept in SWEPT.items()]
    line = command(outputs, f"hydra/launcher={launcher}", *LAUNCHERS[launcher], *values, flags=("--multirun",))
    before = finished(outputs)
    with tempfile.TemporaryFile("w+") as said:
        job = subprocess.Popen(
            line, cwd=ROOT, env=environment(), stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        while job.poll() is None:
            time.sleep(0.2)
            if kill_after is not None and len(finished(outputs)) >= kill_after:
                time.sleep(1.0)  # in the middle of the next
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
        said.seek(0)
        text = said.read()
    changed = [name for name, stamp in before.items() if finished(outputs).get(name) != stamp]
    part = {
        "launcher": launcher,
        "killed": kill_after is not None,
        "exit": job.returncode,
        "finished": len(finished(outputs)),
        "done_again": changed,
        "skipped": text.count("evaluation: finished before, taken as it is"),
        "errors": sorted(set(re.findall(r"^error: (job \d+) .*: (.*)$", text, re.MULTILINE))),
    }
    print(json.dumps(part), flush=True)
    return part


def finished(outputs: Path) -> dict[str, int]:
    """The run folders that are complete, and when they became so."""
    return {path.parent.name: path.stat().st_mtime_ns for path in outputs.glob("tiny-*/metrics.json")}


def wandb_ids(outputs: Path) -> dict[str, set[str]]:
    """The ids of the W&B runs in each run folder; an interrupted job goes on under its id."""
    found: dict[str, set[str]] = {}
    for path in outputs.glob("tiny-*/*/wandb/offline-run-*"):
        found.setdefault(path.parents[2].name, set()).add(path.name.split("-", 3)[-1])
    return found


if __name__ == "__main__":
    main()
