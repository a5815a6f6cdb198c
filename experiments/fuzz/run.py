"""In: how many inputs, a seed. Out: that many inputs tried at five surfaces; counts by outcome in result.json.

Run as ``python -m experiments.fuzz.run``. Input ``i`` of a surface is a function of (seed, surface, i), so a finding is
tried again with ``--surface "call parser" --only 1234``. Each surface runs in a process of its own on one core: one
that ends by a signal is a crash, counted with its input, and the rest goes on behind it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARES = {  # by how many inputs a second a surface can take
    "call parser": 0.9800,
    "schema dialects": 0.0120,
    "corpus reader": 0.0050,
    "grammar builder": 0.0025,
    "checkpoint reader": 0.0005,
}
SECONDS = 10.0  # that one input may take
FINDINGS = ("crash", "hang", "wrong", "other error")


class Hang(BaseException):
    """An input took longer than ``SECONDS``."""


def main() -> None:
    """Runs all surfaces, prints a line for each, and keeps the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surface", choices=SHARES, help="run this one only, in this process, and keep nothing")
    parser.add_argument("--only", type=int, help="with --surface: try this input again and show what it raises")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.surface:
        with tempfile.TemporaryDirectory() as folder:
            if args.only is not None:
                print(outcome(args.surface, args.seed, args.only, Path(folder))[0])
            else:
                print(json.dumps(try_all(args, Path(folder))))
        return
    surfaces = {name: in_a_process(name, round(args.inputs * share), args.seed) for name, share in SHARES.items()}
    total = sum(sum(counts["outcomes"].values()) for counts in surfaces.values())
    found = sum(counts["outcomes"].get(kind, 0) for counts in surfaces.values() for kind in FINDINGS)
    from toolformer.evaluation.provenance import code  # brings torch along, which the surfaces do without

    result = {**code(), "seed": args.seed, "inputs": total, "findings": found, "surfaces": surfaces}
    lines = [line(name, counts) for name, counts in surfaces.items()] + [f"{total:,} inputs, {found} findings"]
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (HERE / "output.txt").write_text("\n".join(lines) + "\n")
    print(lines[-1])


def in_a_process(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """A surface's counts; started again behind an input that ends its process."""
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    started, at = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "progress"
        while at < inputs:
            command = [sys.executable, "-m", "experiments.fuzz.run", "--surface", name, "--seed", str(seed)]
            command += ["--start", str(at), "--inputs", str(inputs), "--progress", str(progress)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            said = json.loads(progress.read_text()) if done.returncode else json.loads(done.stdout.splitlines()[-1])
            outcomes.update(said["outcomes"])
            findings += said["findings"]
            at = said["next"]
            if done.returncode:
                outcomes["crash"] += 1
                findings.append(f"{at}: the process ended with {done.returncode}")
                at += 1
    seconds = round(time.monotonic() - started)
    counts = {"outcomes": dict(sorted(outcomes.items())), "seconds": seconds, "findings": findings[:20]}
    print(line(name, counts), *findings[:5], sep="\n  ", flush=True)
    return counts


def line(name: str, counts: dict[str, Any]) -> str:
    """The counts of a surface as they are printed."""
    said = ", ".join(f"{number:,} {kind}" for kind, number in counts["outcomes"].items())
    return f"{name:18} {said} in {counts['seconds']:,} s"


def try_all(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Inputs ``start`` to ``inputs`` in this process; where a file is given it says how far they came."""
    counts: dict[str, Any] = {"outcomes": Counter(), "findings": [], "next": args.start}
    for index in range(args.start, args.inputs):
        if args.progress and (args.surface != "call parser" or index % 1_000 == 0):
            counts["next"] = index
            args.progress.write_text(json.dumps(counts))
        kind, said = outcome(args.surface, args.seed, index, folder)
        counts["outcomes"][kind] += 1
        if kind in FINDINGS:
            counts["findings"].append(f"{index}: {said}")
    counts["next"] = args.inputs
    return counts


MADE: dict[str, Any] = {}


def outcome(name: str, seed: int, index: int, folder: Path) -> tuple[str, str]:
    """How one input fares: accepted, refused, or a finding and what was raised."""
    from experiments.fuzz.surfaces import SURFACES

    if name not in MADE:
        warnings.simplefilter("ignore")
        MADE[name] = SURFACES[name](folder)
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # what never comes back to Python ends the process
    handler, timer = signal.signal(signal.SIGALRM, _hang), signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return MADE[name](Random(f"{seed} {name} {index}")), ""
    except Hang:
        return "hang", f"more than {SECONDS} s"
    except AssertionError as error:
        return "wrong", str(error)[:300]
    except Exception as error:
        return "other error", f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
        faulthandler.cancel_dump_traceback_later()


def _hang(number: int, frame: Any) -> None:
    raise Hang


if __name__ == "__main__":
    main()
