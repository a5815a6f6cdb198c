"""In: nothing. Out: overhead.json: what the machinery of resuming adds to a training step, measured in pairs.

Run as ``python -m experiments.resilience.overhead``. One stage of the nano model, in which every other step goes
without: no checkpoint callback, Lightning's own clipping, no look at the gradient, no batch kept. Processor time, so
that what else runs on the machine does not count; checkpoints are timed by the clock and spread over the steps between.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L

from toolformer.stages import checkpoints
from toolformer.stages.base import Stage

STEPS, EVERY = 160, 500  # measured; between two checkpoints as configured
HERE = Path(__file__).resolve().parent
with_it, without, saves = [], [], []


class Paired(checkpoints.Checkpoints):
    """Works in even steps only, and notes what each step took."""

    began = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The time since the last one is that step's."""
        now = time.process_time()
        if trainer.global_step > 4:  # the first ones warm up
            (without if trainer.global_step % 2 == 0 else with_it).append(now - self.began)
        self.began = now

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """See the class."""
        if trainer.global_step % 2:  # the counter has moved on: this step was even
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _save(self, trainer: Any) -> None:
        began = time.perf_counter()
        super()._save(trainer)
        saves.append(time.perf_counter() - began)


def alternating(self: Any, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
    """Ours in even steps, Lightning's in odd ones."""
    if self.trainer.global_step % 2 == 0:
        OURS(self, optimizer, gradient_clip_val, gradient_clip_algorithm)
    else:
        self._window.clear()
        L.LightningModule.configure_gradient_clipping(self, optimizer, gradient_clip_val, gradient_clip_algorithm)


OURS = Stage.configure_gradient_clipping


def main() -> None:
    """Trains, and writes what it took."""
    from toolformer.train import main as train

    setattr(checkpoints, "Checkpoints", Paired)  # noqa: B010  # as the command will find it
    setattr(Stage, "configure_gradient_clipping", alternating)  # noqa: B010
    settings = ["stage.validation_rows=4", f"stage.validate_every={STEPS}", f"stage.checkpoint_every={STEPS}"]
    settings += [f"stage.steps={STEPS}", "attention=eager", "threads=1", "progress=false", "stage.batches.batch_size=8"]
    settings += ["stage.batches.pool_size=16", f"trainer.log_every_n_steps={STEPS * 2}"]
    with tempfile.TemporaryDirectory() as scratch:
        train([*settings, f"paths.outputs={scratch}"])
    pairs = [a / b - 1 for a, b in zip(with_it, without, strict=False)]
    rng = random.Random(0)
    means = sorted(statistics.median(rng.choices(pairs, k=len(pairs))) for _ in range(2000))
    step = statistics.median(without)
    found = {
        "step_ms": round(1e3 * step, 1),
        "steps": len(pairs),
        "added_to_a_step": round(statistics.median(pairs), 5),
        "interval": [round(means[50], 5), round(means[1949], 5)],
        "checkpoint_ms": round(1e3 * statistics.median(saves), 1),
        "checkpoints_spread": round(statistics.median(saves) / (EVERY * step), 5),
    }
    (HERE / "overhead.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
