"""In: a seed. Out: results.json: runs killed at random moments and continued, against runs that nothing disturbed.

Run as ``python -m experiments.resilience.run``; ``kills=10`` tries fewer. Each run is a whole tiny curriculum with its
evaluation. A kill comes after a random share of an undisturbed run's time, from its first line to its last.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.resilience import runs

HERE = Path(__file__).resolve().parent
ACCUMULATION, WORKERS = (1, 4), (0, 2)
EXITS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75}


def main(kills: int = 50, seed: int = 0) -> None:
    """Runs everything and writes what came of it."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed = {n: reference(Path(scratch) / f"whole-{n}", n) for n in ACCUMULATION}
        trials = []
        for number in range(kills):
            accumulation, workers = ACCUMULATION[number % 2], WORKERS[number // 2 % 2]
            found, seconds = undisturbed[accumulation]
            folder = Path(scratch) / f"trial-{number}"
            trial = kill(folder, accumulation, workers, rng, seconds)
            trial["differences"] = runs.differences(found, runs.left(runs.folder_of(folder)))
            shutil.rmtree(folder)
            trials.append(trial)
            print(json.dumps(trial), flush=True)
    write(trials, seed)


def arguments(outputs: Path, accumulation: int, workers: int = 0) -> list[str]:
    """The command line of one run."""
    settings = {"paths.outputs": outputs, "trainer.accumulate_grad_batches": accumulation, "workers": workers}
    return [*runs.TINY, *(f"{key}={value}" for key, value in settings.items())]


def reference(outputs: Path, accumulation: int) -> tuple[dict[str, Any], float]:
    """What an undisturbed run leaves, and the seconds that it takes."""
    began = time.monotonic()
    code = runs.whole(arguments(outputs, accumulation), outputs.with_suffix(".log"))
    assert code == 0, outputs.with_suffix(".log").read_text()
    return runs.left(runs.folder_of(outputs)), time.monotonic() - began


def kill(outputs: Path, accumulation: int, workers: int, rng: random.Random, seconds: float) -> dict[str, Any]:
    """One run that is killed once, or several times, and continued until it is finished."""
    log, killed = outputs.with_suffix(".log"), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        which, moment = rng.choice(list(EXITS)), rng.random() * seconds
        process = runs.start(arguments(outputs, accumulation, workers), log)
        time.sleep(moment)
        if process.is_alive():
            os.kill(process.pid, which)
        code = runs.wait(process)
        stage = where(outputs)
        killed.append({"signal": which.name, "second": round(moment, 2), "exit": code, "in": stage})
        assert code in (EXITS[which], 0, -which), f"exit {code}: {log.read_text()}"
    code = runs.whole(arguments(outputs, accumulation, workers), log)
    assert code == 0, f"exit {code}: {log.read_text()}"
    return {"accumulation": accumulation, "workers": workers, "killed": killed}


def where(outputs: Path) -> str:
    """The part of the run that a kill hit."""
    run = runs.folder_of(outputs)
    if (run / "metrics.json").exists():
        return "after the end"
    stages = sorted(path.name for path in run.glob("[0-9]-*"))
    if not stages:
        return "before the first stage"
    if (run / stages[-1] / "finished.json").exists():
        return "evaluation" if len(stages) == len(runs.STAGES) else f"after {stages[-1]}"
    return stages[-1]


def write(trials: list[dict[str, Any]], seed: int) -> None:
    """results.json, beside this file."""
    kills = [kill for trial in trials for kill in trial["killed"]]
    counts = {key: sorted({kill[key] for kill in kills}, key=str) for key in ("signal", "in")}
    summary = {
        "runs": len(trials),
        "identical": sum(not trial["differences"] for trial in trials),
        "kills": len(kills),
        **{key: {value: sum(k[key] == value for k in kills) for value in values} for key, values in counts.items()},
    }
    path = HERE / "results.json"
    path.write_text(json.dumps({"seed": seed, "summary": summary, "trials": trials}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main(**{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])})
