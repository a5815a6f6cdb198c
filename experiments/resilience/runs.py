"""In: settings of a tiny run, and when to kill it. Out: what the run left behind, to compare with another.

A run is a process of its own, forked from a server that has imported everything: it starts in a moment instead of
seconds, and is killed as any other.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from toolformer.curriculum import main

STAGES = ("schema_autoencoding", "gist_contrast", "tool_calling")
# A curriculum of seconds: every part of the full one, at the smallest size.
MODEL = ["hidden_size=32", "intermediate_size=48", "num_hidden_layers=2", "num_gists=3", "pointer_size=16"]
STAGE = ["steps=6", "validate_every=4", "checkpoint_every=2", "validation_rows=4", "batches.pool_size=10"]
TINY = [
    "name=tiny",
    "threads=1",
    "progress=false",
    "attention=eager",
    "trainer.log_every_n_steps=1",
    "tokenizer.vocab_size=400",
    "tokenizer.rows=40",
    *(f"model.{setting}" for setting in MODEL),
    *(f"stages.{stage}.{setting}" for stage in STAGES for setting in STAGE),
    *(f"stages.{stage}.batches.batch_size=2" for stage in STAGES[1:]),
    "stages.tool_calling.module.max_new_tokens=8",
    "evaluation.splits=[test_unseen]",
    "evaluation.variants=[plain]",
    "evaluation.decodings=[pointed]",
    "evaluation.memories=[real]",
    "evaluation.rows=2",
    "evaluation.calibration_rows=0",
    "evaluation.composability.rows=0",
    "evaluation.timing_rows=0",
    "evaluation.max_new_tokens=8",
]


# A server imports these once; each run is forked from it, with every file and thread of its own.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "toolformer.curriculum",
        "toolformer.evaluation",
        "toolformer.stages.checkpoints",
        "toolformer.stages.curve",
        *(f"toolformer.stages.{stage}" for stage in STAGES),
        "lightning.pytorch.loggers.wandb",
        "transformers.models.qwen2.modeling_qwen2",
    ]
)


def start(
    arguments: Sequence[str], log: Path, inject: Callable[[], None] | None = None, **environment: str
) -> BaseProcess:
    """A curriculum in a process of its own; what it prints goes to ``log``; ``inject`` is called before it begins."""
    process = SERVER.Process(target=_run, args=(list(arguments), log, inject, environment))
    process.start()
    return process


def _run(arguments: list[str], log: Path, inject: Callable[[], None] | None, environment: dict[str, str]) -> None:
    os.setpgid(0, 0)  # so that a test can end it with its own processes
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.environ.update(environment)
    if inject:
        inject()
    main(arguments)


def wait(process: BaseProcess, seconds: float = 600) -> int:
    """Its exit code; negative where a signal ended it. One that takes longer than ``seconds`` is an error."""
    process.join(seconds)
    if process.exitcode is None:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        raise TimeoutError(f"process {process.pid} did not end in {seconds} s")
    return process.exitcode


def whole(arguments: Sequence[str], log: Path, inject: Callable[[], None] | None = None, **environment: str) -> int:
    """Starts a run and waits for its exit code."""
    return wait(start(arguments, log, inject, **environment))


def folder_of(outputs: Path) -> Path:
    """The run folder in ``outputs``."""
    return (outputs / "tiny").resolve()


def left(run: Path) -> dict[str, Any]:
    """Everything that must not depend on whether a run was interrupted; tensors as they are, files as bytes."""
    import torch

    found: dict[str, Any] = {}
    for stage in sorted(run.glob("[0-9]-*")):
        found[f"{stage.name}/weights"] = (stage / "backbone" / "model.safetensors").read_bytes()
        found[f"{stage.name}/curve"] = curve(stage / "metrics.csv")
        last = max((stage / "checkpoints").glob("step-*.ckpt"))
        for path in (last, stage / "checkpoints" / "best.ckpt"):
            loaded = torch.load(path, weights_only=True)
            kept = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step")
            found[f"{stage.name}/{path.name}"] = {key: loaded[key] for key in kept}
        report = json.loads((stage / "finished.json").read_text())
        found[f"{stage.name}/report"] = {key: value for key, value in report.items() if key != "starts"}
    metrics = json.loads((run / "metrics.json").read_text())
    found["metrics"] = metrics["splits"]
    found["predictions"] = (run / "evaluation" / "predictions.jsonl").read_bytes()
    return found


def curve(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without the speeds, which a clock decides."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith("_per_second")} for row in csv.DictReader(file)]


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Places where two results differ, tensors bit by bit."""
    import torch

    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other}, key=str)
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{place}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{place}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [place]
    return [] if type(one) is type(other) and one == other else [place]
