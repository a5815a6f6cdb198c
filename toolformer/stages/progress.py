"""In: a running trainer. Out: one progress bar a stage, with its name, rate, time left and loss."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar


class StageProgress(TQDMProgressBar):
    """The library's bar under the stage's name; the logger's version number is nobody's concern."""

    def __init__(self, name: str):
        super().__init__(refresh_rate=10)
        self.name = name

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        """A stage is one epoch: the bar bears the stage's name."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self.name)

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """What stands behind the bar."""
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}
