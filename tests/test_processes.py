"""In: one curriculum on one process and on two. Out: whether its weights and numbers depend on how many there were."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
from safetensors.torch import load_file

from experiments.resilience import runs

ROOT = Path(__file__).parents[1]
STEP = "toolformer.stages.base:Stage.training_step"
ALL = [*runs.TINY, *(f"stages.{name}.{key}" for name in runs.STAGES for key in ("steps=3", "validate_every=3"))]
ONE = [*ALL, "trainer.accumulate_grad_batches=2"]
TWO = {kind: [*ALL, f"trainer={kind}", "trainer.accelerator=cpu", "trainer.devices=2"] for kind in ("ddp", "fsdp")}


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def together(arguments: list[str], log: Path, inject: Any = None) -> list[int]:
    """Two processes as torchrun starts them; a fault is injected into the first. Their exit codes."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "test"}
    jobs = [
        runs.start(arguments, log, inject if rank == "0" else None, RANK=rank, LOCAL_RANK=rank, **common)
        for rank in ("0", "1")
    ]
    return [runs.wait(job) for job in jobs]


def numbers(run: Path) -> dict[str, Any]:
    """Weights and curve of each stage, and all that was evaluated."""
    stages = sorted(run.glob("[0-9]-*"))
    found: dict[str, Any] = {path.name: load_file(path / "backbone" / "model.safetensors") for path in stages}
    found |= {f"{path.name}/curve": runs.curve(path / "metrics.csv") for path in stages}
    return found | {"predictions": (run / "evaluation" / "predictions.jsonl").read_bytes()}


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("one")
    assert runs.whole([*ONE, f"paths.outputs={folder}/run"], folder / "log") == 0, (folder / "log").read_text()
    return numbers(runs.folder_of(folder / "run"))


def test_two_processes_give_the_numbers_of_one_also_when_stopped(one: dict[str, Any], tmp_path: Path):
    """Batch 2k and 2k + 1 are one step, whether one process accumulates them or two have one each."""
    arguments, log = [*TWO["ddp"], f"paths.outputs={tmp_path}/run"], tmp_path / "log"
    stop = partial(faults.at_call, STEP, 5, partial(faults.send, signal.SIGTERM))
    assert together(arguments, log, stop) == [75, 75], log.read_text()
    assert "stopped by SIGTERM after step 2 of 2-gist_contrast" in log.read_text()
    assert together(arguments, log) == [0, 0], log.read_text()
    assert runs.differences(one, numbers(runs.folder_of(tmp_path / "run"))) == []


def test_shards_give_the_same_also_when_killed(one: dict[str, Any], tmp_path: Path):
    arguments, log = [*TWO["fsdp"], f"paths.outputs={tmp_path}/run"], tmp_path / "log"
    stop = partial(faults.at_call, STEP, 5, partial(faults.send, signal.SIGTERM))
    assert together(arguments, log, stop) == [75, 75], log.read_text()
    assert together(arguments, log) == [0, 0], log.read_text()
    found = numbers(runs.folder_of(tmp_path / "run"))
    for stage in ("1-schema_autoencoding", "2-gist_contrast", "3-tool_calling"):
        assert found[stage].keys() == one[stage].keys()
        assert max(float((found[stage][key] - one[stage][key]).abs().max()) for key in one[stage]) < 1e-6
        for mine, theirs in zip(found[f"{stage}/curve"], one[f"{stage}/curve"], strict=True):
            assert mine.keys() == theirs.keys() and {k for k in mine if mine[k]} == {k for k in theirs if theirs[k]}
            assert all(float(mine[k]) == pytest.approx(float(theirs[k]), rel=1e-6, abs=1e-6) for k in mine if mine[k])
    assert found["predictions"] == one["predictions"]


def test_another_number_of_processes_is_refused(tmp_path: Path):
    arguments, log = [*ONE, "order=[schema_autoencoding]", f"paths.outputs={tmp_path}/run"], tmp_path / "log"
    kill = partial(faults.at_call, STEP, 6, partial(faults.send, signal.SIGKILL))
    assert runs.whole(arguments, log, kill) == -signal.SIGKILL
    folder = runs.folder_of(tmp_path / "run")
    changed = [*arguments, "trainer.devices=2", f"hydra.run.dir={folder}"]
    assert runs.whole(changed, log) == 2 and "trainer.devices is 1 there and 2 in this run" in log.read_text()


def test_two_groups_of_torchrun_are_two_machines(tmp_path: Path):
    """As on two nodes with one process each; only the address they meet at is on this machine."""
    arguments = [*TWO["ddp"], "order=[schema_autoencoding]", f"paths.outputs={tmp_path}/run", "trainer.devices=1"]
    port = free_port()
    line = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=static"]
    line += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    jobs = [
        subprocess.Popen(
            [*line, f"--node-rank={rank}", "-m", "toolformer.curriculum", *arguments, "+trainer.num_nodes=2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [job.communicate(timeout=240)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], "\n".join(said)
    assert "MEMBER: 1/2" in said[0] and "MEMBER: 2/2" in said[1]
    assert re.search("metrics and predictions", said[0]) and "metrics and predictions" not in said[1]
    assert (runs.folder_of(tmp_path / "run") / "metrics.json").is_file()
