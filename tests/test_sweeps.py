"""In: sweeps over real launchers. Out: whether each job is what it is alone, and what happens to one stays there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.resilience.runs import TINY, differences, left, whole

ROOT = Path(__file__).parents[1]
PLUGINS = {"joblib": "hydra_joblib_launcher", "submitit_local": "hydra_submitit_launcher"}
PROGRAM = """
import os
from toolformer.cli import entry

@entry("curriculum")
def command(cfg, folder):
    "Writes down who wrote it."
    if (folder / "result.txt").exists():
        print("finished before, taken as it is")
        return
    if cfg.seed == 13 and not (folder.parent / "mended").exists():
        raise ValueError("rows.json:3: the seed is 13; choose another")
    (folder / "result.txt").write_text(f"{cfg.seed} {os.getpid()}")

command()
"""


@pytest.mark.parametrize("launcher", ["basic", *PLUGINS])
def test_a_failed_job_leaves_the_others_alone_and_only_it_is_done_again(tmp_path: Path, launcher: str):
    if launcher in PLUGINS:
        pytest.importorskip(f"hydra_plugins.{PLUGINS[launcher]}", reason="needs: pip install -e '.[launchers]'")
    (tmp_path / "program.py").write_text(PROGRAM)
    line = [sys.executable, "program.py", "--multirun", f"hydra/launcher={launcher}", "seed=1,13,2"]
    said = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    first = subprocess.run(line, **said)
    assert first.returncode == 2, first.stderr
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").glob("curriculum-*/result.txt")}
    assert sorted(path.read_text().split()[0] for path in results) == ["1", "2"]
    (tmp_path / "outputs/mended").touch()
    second = subprocess.run(line, **said)
    assert second.returncode == 0, second.stderr
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").glob("curriculum-*/result.txt")}
    assert results.items() <= now.items() and len(now) == 3
    if launcher != "submitit_local":  # which keeps what its jobs print in files of its own
        assert "error: job 1 (outputs/curriculum-" in first.stderr
        assert (first.stdout + second.stdout).count("finished before") == 2


def test_a_job_of_a_sweep_is_the_job_alone(tmp_path: Path):
    """The second of two in one process: the first one's random state, logger and W&B run are not its own."""
    tiny = [*TINY, "order=[gist_contrast]", "model.num_gists=2"]
    for name, arguments in (("sweep", ["--multirun", *tiny, "seed=0,1"]), ("alone", [*tiny, "seed=1"])):
        code = whole([*arguments, f"paths.outputs={tmp_path / name}"], tmp_path / f"{name}.log", OMP_NUM_THREADS="1")
        assert code == 0, (tmp_path / f"{name}.log").read_text()
    alone = (tmp_path / "alone/tiny").resolve()
    assert len(list((tmp_path / "sweep").glob("tiny-*"))) == 2
    assert differences(left(alone), left(tmp_path / "sweep" / alone.name)) == []
