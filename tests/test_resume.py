"""In: tiny runs in processes of their own. Out: whether one that was killed or hurt ends as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
import torch

from experiments.resilience import runs

STEP = "toolformer.stages.base:Stage.training_step"
ONE = [*runs.TINY, "order=[schema_autoencoding]", "stages.schema_autoencoding.checkpoint_every=1"]
STAGE = "1-schema_autoencoding"


class Run:
    """A run folder and what its processes have said."""

    def __init__(self, folder: Path, arguments: list[str]):
        self.arguments, self.outputs = [*arguments, f"paths.outputs={folder}"], folder
        self.log = folder.with_suffix(".log")

    def start(self, *extra: str, inject: Callable[[], None] | None = None) -> Any:
        return runs.start([*self.arguments, *extra], self.log, inject)

    def go(self, *extra: str, inject: Callable[[], None] | None = None) -> int:
        self.log.unlink(missing_ok=True)
        return runs.wait(self.start(*extra, inject=inject))

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def folder(self) -> Path:
        return runs.folder_of(self.outputs)

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / STAGE / "checkpoints").glob("step-*.ckpt"))

    def same_as(self, whole: dict[str, Any]) -> None:
        assert self.go() == 0, self.said
        assert runs.differences(whole, runs.left(self.folder)) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Any]:
    """What one stage leaves that nothing disturbed."""
    run = Run(tmp_path_factory.mktemp("whole") / "run", ONE)
    assert run.go() == 0, run.said
    return runs.left(run.folder)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", ONE)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory) -> Run:
    """A run killed in its fifth step."""
    run = Run(tmp_path_factory.mktemp("killed") / "run", ONE)
    assert run.go(inject=partial(faults.at_call, STEP, 5, partial(faults.send, signal.SIGKILL))) == -signal.SIGKILL
    assert [path.stem for path in run.checkpoints] == ["step-00000003", "step-00000004"], "two are kept"
    return run


@pytest.fixture
def killed(killed_once: Run, run: Run) -> Run:
    """A copy of it."""
    shutil.copytree(killed_once.outputs, run.outputs, symlinks=True)
    return run


# ---- exact resume


def test_killed_at_every_awkward_moment_it_ends_as_if_it_had_not_been(tmp_path: Path):
    arguments = [*runs.TINY, "trainer.accumulate_grad_batches=2", *(f"stages.{name}.steps=4" for name in runs.STAGES)]
    whole = Run(tmp_path / "whole", arguments)
    assert whole.go() == 0, whole.said
    found = runs.left(whole.folder)
    run = Run(tmp_path / "run", arguments)
    kill, term = partial(faults.send, signal.SIGKILL), partial(faults.send, signal.SIGTERM)
    checkpoints, finish = "toolformer.stages.checkpoints", "toolformer.train"
    for target, call, fault, workers in (
        (STEP, 4, kill, 0),  # in mid-accumulation
        (f"{checkpoints}:os.fsync", 1, kill, 0),  # a checkpoint is written, and not yet in its place
        (f"{checkpoints}:name_too", 1, kill, 0),  # saved, not yet the best
        (f"{finish}:write_whole", 1, kill, 0),  # weights there, stage not yet finished
        (STEP, 1, term, 2),  # in mid-accumulation, stopped rather than killed
        ("toolformer.stages.curve:Curve.log_metrics", 2, kill, 0),  # a step is done, its row is not written
        ("toolformer.curriculum:write_whole", 1, kill, 0),  # evaluated, result not yet in its place
    ):
        code = run.go(f"workers={workers}", inject=partial(faults.at_call, target, call, fault))
        assert code == (75 if fault is term else -signal.SIGKILL), f"{target}: {code}: {run.said}"
    run.same_as(found)
    assert all(path.suffix != ".part" for path in run.folder.rglob("*")), "nothing half-written stays"


def test_a_changed_setting_never_continues_a_run(killed: Run):
    assert killed.go("seed=1", f"hydra.run.dir={killed.folder}") == 2
    assert "seed is 0 there and 1 in this run" in killed.said
    before = killed.folder
    killed.go("seed=1", inject=partial(faults.at_call, STEP, 1, partial(faults.send, signal.SIGKILL)))
    assert killed.folder != before, "a folder of its own"


def test_the_dashboard_goes_on_under_its_id(run: Run):
    wandb = ("logger=wandb", "+logger.wandb.mode=offline")
    assert run.go(*wandb, inject=partial(faults.at_call, STEP, 4, partial(faults.send, signal.SIGTERM))) == 75
    assert run.go(*wandb) == 0, run.said
    ids = [path.name.split("-", 3)[3] for path in (run.folder / STAGE / "wandb").glob("offline-run-*")]
    assert ids == [f"{run.folder.name}-{STAGE}"] * 2


# ---- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(run: Run, whole, number: int, code: int):
    setting = "stages.schema_autoencoding.checkpoint_every=100"
    inject = partial(faults.at_call, STEP, 2, partial(faults.send, number))
    assert run.go(setting, inject=inject) == code
    line = run.said.splitlines()[-1]
    assert line == (
        f"stopped by {signal.Signals(number).name} after step 2 of {STAGE}; "
        "the same command goes on from the last checkpoint"
    )
    assert [path.stem for path in run.checkpoints] == ["step-00000002"]


def test_a_second_signal_ends_it_at_once(run: Run, whole):
    assert run.go(inject=partial(faults.at_call, STEP, 4, faults.send_twice)) == 75
    assert "stopped by" not in run.said and [path.stem[-1] for path in run.checkpoints] == ["2", "3"]
    run.same_as(whole)


# ---- faults


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full, a device that is always full")
def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_to_do(killed: Run, whole):
    full = killed.folder / STAGE / "checkpoints" / "step-00000005.part"
    save = "toolformer.stages.checkpoints:WholeFiles.save_checkpoint"
    assert killed.go(inject=partial(faults.at_call, save, 1, partial(os.symlink, "/dev/full", full))) == 2
    assert "step-00000005.ckpt: No space left on device; earlier checkpoints are whole: make room" in killed.said
    assert [path.stem[-1] for path in killed.checkpoints] == ["3", "4"] and not full.is_symlink()
    killed.same_as(whole)


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit"])
def test_a_damaged_checkpoint_is_passed_over(killed: Run, whole, damage: str):
    path = killed.checkpoints[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "one bit": content}[damage])
    killed.same_as(whole)
    assert "step-00000004.ckpt: cannot be read (" in killed.said and "going on from step-00000003" in killed.said


def test_without_any_readable_checkpoint_it_does_not_start_afresh(killed: Run):
    for path in killed.checkpoints:
        path.write_bytes(b"")
    for _ in range(2):
        assert killed.go() == 2
        assert "nor any before it; move" in killed.said


def test_a_checkpoint_runs_no_code(killed: Run, tmp_path: Path):
    torch.save({"state_dict": Evil(str(tmp_path / "ran"))}, killed.checkpoints[-1])
    assert killed.go() == 2
    assert "is no checkpoint of this program" in killed.said and not (tmp_path / "ran").exists()


class Evil:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_loss_that_is_no_number_stops_and_keeps_its_batch(run: Run, whole):
    assert run.go(inject=partial(faults.not_a_number, 3)) == 2
    kept = run.folder / STAGE / "bad-steps" / "step-00000002-process-0.pt"
    assert f"step 2: the loss is nan, the gradient nan; its batches are in {kept}" in run.said
    found = torch.load(kept, weights_only=True)
    assert len(found) == 1 and found[0]["batch"]["tools"]["ids"].dtype == torch.long
    run.same_as(whole)


def test_a_loss_that_is_no_number_is_skipped_where_wanted(run: Run):
    run.arguments.append("stages.schema_autoencoding.module.bad_steps=skip")
    assert run.go(inject=partial(faults.not_a_number, 3)) == 0, run.said
    assert run.said.count("skipped") == 1
    weights = torch.load(run.checkpoints[-1], weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    rows = runs.curve(run.folder / STAGE / "metrics.csv")
    assert [row["train/loss"] == "nan" for row in rows] == [step == 2 for step in range(6)]


def test_a_killed_worker_ends_the_run_which_goes_on(run: Run, whole):
    assert run.go("workers=1", inject=partial(faults.at_call, STEP, 3, faults.kill_worker)) == 75
    line = run.said.splitlines()[-1]
    assert "a process that prepares batches was killed" in line and "the same command goes on" in line
    run.same_as(whole)


def test_data_that_changed_under_a_run_is_refused(tmp_path: Path):
    from toolformer.data.toolworld.world import FOLDER

    data = shutil.copytree(FOLDER, tmp_path / "data", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    run = Run(tmp_path / "run", [*ONE, f"+data.folder={data}"])
    assert run.go(inject=partial(faults.at_call, STEP, 2, partial(faults.send, signal.SIGKILL))) == -signal.SIGKILL
    with (data / "domains/banking.yaml").open("a") as file:
        file.write("# changed\n")
    assert run.go() == 2
    assert "banking.yaml was " in run.said and "its data has changed" in run.said


def test_a_second_process_in_a_run_folder_is_refused(run: Run, whole):
    first = run.start(inject=partial(faults.at_call, STEP, 2, faults.sleep))
    while not (run.outputs / "tiny" / STAGE / "checkpoints" / "step-00000001.ckpt").exists():
        assert first.is_alive(), run.said
        time.sleep(0.1)
    assert runs.wait(run.start()) == 2
    assert f"process {first.pid} on " in run.said and "works in this run folder" in run.said
    first.kill()
    runs.wait(first)
    run.same_as(whole)  # the lock went with the process


def test_a_clock_that_goes_backwards_changes_nothing(killed: Run, whole):
    os.utime(killed.checkpoints[-1], (0, 0))
    assert killed.go(inject=faults.clock_backwards) == 0, killed.said
    assert runs.differences(whole, runs.left(killed.folder)) == []
