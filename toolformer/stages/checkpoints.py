"""In: a running trainer. Out: checkpoints between whole steps, of which the newest that can be read is resumed.

A checkpoint is taken after a step's rows are logged: behind its validation where one is due, else behind the step. So
what a resumed run computes and logs is exactly what would have followed.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from toolformer import stopping

PATTERN = "step-*.ckpt"


class WholeFiles(TorchCheckpointIO):
    """A checkpoint is there whole, on the disk, or not at all; loading one runs no code that it brings along."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Written beside ``path``, then moved: on one file system, unlike Lightning's own, which goes by /tmp.

        Raises:
            OSError: it could not be written; the message says that nothing is lost.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except (OSError, RuntimeError) as error:  # torch wraps what the disk says
            part.unlink(missing_ok=True)
            reason = disk_error(error)
            if reason is None:
                raise
            text = f"{reason.strerror}; earlier checkpoints are whole: make room, and {stopping.CONTINUE}"
            raise OSError(reason.errno, text, str(path)) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Tensors and plain values only, whatever ``weights_only`` says."""
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # whatever a foreign file makes the reader choke on
            raise ValueError(f"{path}: is no checkpoint of this program ({one_line(error)}); move it away") from error


def disk_error(error: BaseException | None) -> OSError | None:
    """The OSError among ``error`` and what led to it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def one_line(error: Exception) -> str:
    """The first line of a message, or the error's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Checkpoints(Checkpoint):
    """Saves every so many steps, at the end, at the best validation, and when a signal asks to stop.

    Args:
        folder: where ``step-<n>.ckpt`` are, and ``best.ckpt``, a link to the best one's content.
        every: steps between two.
        monitor: the validation value that decides on the best.
        mode: ``min`` or ``max`` of it.
        keep: the newest so many stay.
    """

    def __init__(self, folder: Path, *, every: int, monitor: str, mode: str, keep: int = 2):
        self.folder, self.every, self.monitor, self.keep = folder, every, monitor, keep
        self.sign = -1 if mode == "min" else 1
        self.best, self.best_step = -math.inf, -1
        self.stopping, self.saved = False, -1

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its step."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See ``state_dict``."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        path = self.folder / f"step-{self.best_step:08d}.ckpt"
        if path.exists():  # perhaps killed before it had its second name
            rank_zero_only(name_too)(path, self.folder / "best.ckpt")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning has put its own handler of SIGTERM in the place of ours, which would stop in mid-accumulation."""
        stopping.listen()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After a whole step; where a validation follows, that is waited for."""
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches == 0:
            self.stopping = agreed(trainer, stopping.asked())
            if done % trainer.val_check_batch:
                self._save_where_due(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """The best so far is kept by a second name."""
        value = self.sign * float(trainer.callback_metrics[self.monitor])
        if trainer.strategy.broadcast(value > self.best):
            self.best, self.best_step = value, trainer.global_step
            self._save(trainer)
            if trainer.is_global_zero:
                name_too(self.path(trainer), self.folder / "best.ckpt")
        self.stopping = self.stopping or agreed(trainer, stopping.asked())
        self._save_where_due(trainer)

    def path(self, trainer: Any) -> Path:
        """Of the step that is done."""
        return self.folder / f"step-{trainer.global_step:08d}.ckpt"

    def _save_where_due(self, trainer: Any) -> None:
        step = trainer.global_step
        if trainer.should_stop:  # early stopping is not in a checkpoint: a resumed run decides on it again
            return
        if step % self.every == 0 or step == trainer.max_steps or self.stopping:
            self._save(trainer)
        if self.stopping:
            raise stopping.stop(f"after step {step} of {self.folder.parent.name}")

    def _save(self, trainer: Any) -> None:
        if self.saved == trainer.global_step:
            return
        trainer.save_checkpoint(self.path(trainer), weights_only=False)
        self.saved = trainer.global_step
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob(PATTERN))[: -self.keep]:
                old.unlink()


def agreed(trainer: Any, here: bool) -> bool:
    """Whether any process says so; all of them get the same answer."""
    return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here


def name_too(path: Path, name: Path) -> None:
    """``name`` has the content of ``path``, without a second copy where the file system can."""
    part = name.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:
        shutil.copyfile(path, part)
    os.replace(part, name)


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from: the newest whole one by its step; None where there are none at all.

    One that cannot be read is put aside, and said to be.

    Raises:
        ValueError: there are some, and none can be read.
    """
    broken: list[tuple[Path, str]] = []
    for path in sorted(folder.glob(PATTERN), reverse=True):
        fault = fault_of(path)
        if fault is None:
            for other, reason in broken:
                put_aside(other, f"cannot be read ({reason}); going on from {path.name}")
            return path
        broken.append((path, fault))
    if broken:
        path, reason = broken[0]
        raise ValueError(f"{path}: cannot be read ({reason}), nor any before it; move {folder} away to start afresh")
    return None


@rank_zero_only
def put_aside(path: Path, line: str) -> None:
    """Under a name that is not looked for again."""
    print(f"warning: {path}: {line}", file=sys.stderr, flush=True)
    path.rename(path.with_suffix(".unreadable"))


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint's file: torn, cut off, or bytes that do not match their checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            wrong = file.testzip()
    except Exception as error:  # a damaged archive makes the reader fail in many ways
        return one_line(error)
    return f"{wrong} is damaged" if wrong else None
