"""In: nothing. Out: overhead.json: what the machinery of resuming adds to a training step, measured in pairs.

Run as ``python -m experiments.resilience.overhead``. In each step of one stage of the nano model the gradients are
clipped both ways, ours (which looks at them, and logs) and Lightning's, one after the other and every other time the
other first; the checkpoint callback is timed beside. Processor time, so that what else runs on the machine does not
count; writing a checkpoint is timed by the clock and spread over the steps between two.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

from toolformer.evaluation.provenance import code
from toolformer.stages import checkpoints
from toolformer.stages.base import Stage

STEPS, WARM, EVERY = 40, 6, 500  # run, not counted, between two checkpoints as configured
HERE = Path(__file__).resolve().parent
OURS, LIGHTNINGS = Stage.configure_gradient_clipping, L.LightningModule.configure_gradient_clipping
spent: dict[str, list[float]] = {"ours": [], "lightning": [], "callback": [], "step": [], "save": []}


def timed(name: str, call: Callable[..., None], *arguments: Any) -> None:
    """Calls, and notes the processor time that it took."""
    began = time.process_time()
    call(*arguments)
    spent[name].append(time.process_time() - began)


class Timed(checkpoints.Checkpoints):
    """The callback, timed; and the time of whole steps."""

    began = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The time since the last one is that step's, but for the second clipping."""
        now = time.process_time()
        if trainer.global_step:
            spent["step"].append(now - self.began - spent["ours"][-1])
        self.began = now

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """See the class."""
        timed("callback", super().on_train_batch_end, trainer, pl_module, outputs, batch, batch_idx)

    def _save(self, trainer: Any) -> None:
        began = time.perf_counter()
        super()._save(trainer)
        spent["save"].append(time.perf_counter() - began)


def both(self: Any, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
    """Clips twice: what comes second finds the gradients in bounds, and does the same work."""
    ways = [("ours", OURS), ("lightning", LIGHTNINGS)]
    for name, way in ways if self.trainer.global_step % 2 else ways[::-1]:
        timed(name, way, self, optimizer, gradient_clip_val, gradient_clip_algorithm)


def main() -> None:
    """Trains, and writes what it took."""
    from toolformer.train import main as train

    setattr(checkpoints, "Checkpoints", Timed)  # noqa: B010  # as the command will find it
    setattr(Stage, "configure_gradient_clipping", both)  # noqa: B010
    settings = ["stage.validation_rows=4", f"stage.validate_every={STEPS}", f"stage.checkpoint_every={STEPS // 2}"]
    settings += [f"stage.steps={STEPS}", "attention=eager", "threads=1", "progress=false", "stage.batches.batch_size=8"]
    with tempfile.TemporaryDirectory() as scratch:
        train([*settings, "stage.batches.pool_size=16", f"paths.outputs={scratch}"])
    parts = zip(spent["ours"], spent["lightning"], spent["callback"], strict=True)
    step, save = statistics.median(spent["step"][WARM:]), statistics.median(spent["save"])
    added = [(ours - theirs + callback) / step for ours, theirs, callback in list(parts)[WARM:-1]]
    quiet = [share for share, k in zip(added, range(WARM + 1, STEPS), strict=True) if k % (STEPS // 2)]  # not saving
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(quiet, k=len(quiet))) for _ in range(2000))
    found = {
        **code(),
        "step_ms": round(1e3 * step, 1),
        "steps": len(quiet),
        "added_to_a_step": round(statistics.fmean(quiet), 5),
        "interval": [round(means[50], 5), round(means[1949], 5)],
        "checkpoint_ms": round(1e3 * save, 1),
        "checkpoints_spread": round(save / (EVERY * step), 5),
    }
    (HERE / "overhead.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
