"""In: a number of rows. Out: a corpus of so many generated rows, and <rows>.json here: time, memory, rows a second.

Run as ``python -m experiments.scale.run``, or with ``rows=50000 workers=2 folder=/somewhere``. What is measured is the
build, from JSON Lines on disk to an audited corpus; making the rows comes before and is not counted.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from experiments.scale.generated import generate
from toolformer.data.building import STEPS, Builder
from toolformer.data.rules import Rules, Use

HERE = Path(__file__).resolve().parent
PARTS = 8  # sources, so that several processes have something to read


def builder(folder: Path, rows: int, workers: int) -> Builder:
    """The corpus of the parts; a tenth of the groups of tools is held back as unseen."""
    uses = {f"part_{i}": Use(f"part_{i}", held_back=0.1, module="experiments.scale.generated") for i in range(PARTS)}
    return Builder(f"generated-{rows}", folder / f"rows-{rows}", folder / "corpora", uses, Rules(), workers)


def memory(process: int) -> tuple[int, int]:
    """Resident bytes of a process and all that it started: all of them, and those that belong to no file."""
    every, own, waiting = 0, 0, [process]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            waiting += [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:  # it has just ended
            continue
        found = {line.split(":")[0]: line.split()[1] for line in status if line.startswith(("VmRSS", "RssAnon"))}
        every, own = every + 1024 * int(found.get("VmRSS", 0)), own + 1024 * int(found.get("RssAnon", 0))
    return every, own


class Peak(threading.Thread):
    """The most memory that this process and its children have held at one moment, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.every = self.own = 0

    def run(self) -> None:
        """Looks on until the process ends."""
        while True:
            every, own = memory(os.getpid())
            self.every, self.own = max(self.every, every), max(self.own, own)
            time.sleep(0.1)


def measure(folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """Builds the corpus step by step."""
    peak, made, steps, start = Peak(), builder(folder, rows, workers), {}, time.perf_counter()
    peak.start()
    for step in STEPS:
        before = time.perf_counter()
        corpus = made.build(step)
        steps[step] = round(time.perf_counter() - before, 1)
    seconds = time.perf_counter() - start
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    from toolformer.evaluation.provenance import code  # brings torch along, which nothing above needs

    assert corpus is not None and sum(source["rows_there"] for source in corpus.info["sources"]) == rows
    return {
        "rows": rows,
        "workers": workers,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "seconds_by_step": steps,
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in spent), 1),
        "peak_bytes": peak.every,
        "peak_bytes_without_mapped_files": peak.own,
        "tools": corpus.info["tools"],
        "rows_by_split": corpus.info["rows"],
        "set_aside": rows - sum(corpus.info["rows"].values()),
        "fingerprint": corpus.fingerprint,
        "corpus_bytes": sum(path.stat().st_size for path in corpus.folder.iterdir()),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **code(),
    }


def main(arguments: list[str]) -> None:
    """Makes the rows where they are missing, builds in a process of its own, and keeps what was measured."""
    settings = {"rows": "1000000", "workers": "2", "folder": "outputs/scale"} | dict(x.split("=", 1) for x in arguments)
    rows, workers, folder = int(settings["rows"]), int(settings["workers"]), Path(settings["folder"])
    if "measure" in settings:
        print(json.dumps(measure(folder, rows, workers)))
        return
    data = folder / f"rows-{rows}"
    if not data.is_dir():
        part, each = folder / f".rows-{rows}", -(-rows // PARTS)
        shutil.rmtree(part, ignore_errors=True)
        print(f"making {rows:,} rows in {data}", flush=True)
        with ProcessPoolExecutor(workers) as pool:
            jobs = [pool.submit(generate, part / f"part_{i}", min(each, rows - i * each), i) for i in range(PARTS)]
            for job in jobs:
                job.result()
        part.rename(data)
    shutil.rmtree(folder / "corpora", ignore_errors=True)  # else it would be found, and nothing measured
    command = [sys.executable, "-m", "experiments.scale.run", f"rows={rows}", f"workers={workers}", f"folder={folder}"]
    done = subprocess.run([*command, "measure=yes"], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    (HERE / f"{rows}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"{rows:,} rows in {found['seconds']:,.0f} s: {found['rows_per_second']:,} a second; {found['seconds_by_step']}"
    )
    every, own = found["peak_bytes"] / 1e9, found["peak_bytes_without_mapped_files"] / 1e9
    print(f"most memory: {every:.2f} GB, {own:.2f} GB without mapped files")


if __name__ == "__main__":
    main(sys.argv[1:])
