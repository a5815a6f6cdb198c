"""In: a seed. Out: kills.json: runs killed at random moments and continued, against runs that nothing disturbed.

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
from toolformer.evaluation.provenance import code

HERE = Path(__file__).resolve().parent
ACCUMULATION, WORKERS = (1, 4), (0, 2)
EXITS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75}


def main(kills: int = 50, seed: int = 0) -> None:
    """Runs everything and writes what came of it."""
    rng = random.Random(seed)
    trials: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        runs.whole(arguments(Path(scratch) / "first", 1), Path(scratch) / "first.log")  # the server starts: not timed
        undisturbed = {n: reference(Path(scratch) / f"whole-{n}", n) for n in ACCUMULATION}
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
    print(json.dumps(summary(trials), indent=1))


def arguments(outputs: Path, accumulation: int, workers: int = 0) -> list[str]:
    """The command line of one run."""
    settings = {"paths.outputs": outputs, "trainer.accumulate_grad_batches": accumulation, "workers": workers}
    settings |= {f"stages.{stage}.steps": 4 for stage in runs.STAGES}
    return [*runs.TINY, *(f"{key}={value}" for key, value in settings.items())]


def reference(outputs: Path, accumulation: int) -> tuple[dict[str, Any], float]:
    """What an undisturbed run leaves, and the seconds that it takes."""
    began = time.monotonic()
    code = runs.whole(arguments(outputs, accumulation), outputs.with_suffix(".log"))
    assert code == 0, outputs.with_suffix(".log").read_text()
    return runs.left(runs.folder_of(outputs)), time.monotonic() - began


def kill(outputs: Path, accumulation: int, workers: int, rng: random.Random, seconds: float) -> dict[str, Any]:
    """One run that is killed once or twice, and continued to its end; a kill that came too late is none."""
    log, killed = outputs.with_suffix(".log"), []
    wanted = rng.choice((1, 1, 2))
    while len(killed) < wanted:
        which, moment = rng.choice(list(EXITS)), rng.random() * seconds
        process = runs.start(arguments(outputs, accumulation, workers), log)
        time.sleep(moment)
        assert process.pid is not None
        if process.is_alive():
            os.kill(process.pid, which)
        code = runs.wait(process)
        assert code in (EXITS[which], 0, -which), f"exit {code}: {log.read_text()}"
        if code == 0 and killed:
            break
        if code == 0:
            shutil.rmtree(outputs)
        else:
            killed.append({"signal": which.name, "second": round(moment, 2), "exit": code, "in": where(outputs)})
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


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """How many runs were killed, where, by what, and how many are identical to the undisturbed one."""
    kills = [kill for trial in trials for kill in trial["killed"]]
    counts = {key: sorted({kill[key] for kill in kills}, key=str) for key in ("signal", "in")}
    return {
        "runs": len(trials),
        "identical": sum(not trial["differences"] for trial in trials),
        "kills": len(kills),
        **{key: {value: sum(k[key] == value for k in kills) for value in values} for key, values in counts.items()},
    }


def write(trials: list[dict[str, Any]], seed: int) -> None:
    """kills.json, beside this file."""
    content = {**code(), "seed": seed, "summary": summary(trials), "trials": trials}
    (HERE / "kills.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(**{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])})
