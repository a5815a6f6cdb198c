"""In: the Makefile. Out: whether each target prints the plain command it runs, set-up comes first and happens once."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "train": "toolformer.curriculum",
    "train-stage1": "toolformer.train stage=schema_autoencoding",
    "train-stage1-5": "toolformer.train stage=gist_contrast",
    "train-stage2": "toolformer.train stage=tool_calling",
    "evaluate": "toolformer.evaluate checkpoint=",
    "data": "toolformer.prepare",
    "sweep": "toolformer.curriculum --multirun",
    "report": "toolformer.report",
    "check": "ruff check",
    "demo": "toolformer.curriculum experiment=demo",
    "test": "pytest",
}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def dry(folder: Path, *arguments: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "ARGS"}
    done = subprocess.run(["make", "-n", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=env)
    return done.stdout


def installed(folder: Path) -> Path:
    (folder / ".venv").mkdir()
    (folder / ".venv/.installed").touch()
    return folder


@pytest.mark.parametrize("target", COMMANDS)
def test_a_target_is_one_plain_command(clone: Path, target: str):
    assert f".venv/bin/python -m {COMMANDS[target]}" in dry(installed(clone), target)


def test_a_sweep_is_of_the_demo_unless_another_experiment_is_named(clone: Path):
    assert dry(installed(clone), "sweep", "ARGS=sweep=gate").endswith("--multirun experiment=demo sweep=gate\n")
    other = "experiment=sgd sweep=gate"
    assert dry(clone, "sweep", f"ARGS={other}").endswith(f"--multirun  {other}\n")


@pytest.mark.parametrize("target", COMMANDS)
def test_from_nothing_every_target_sets_up_first(clone: Path, target: str):
    text = dry(clone, target)
    assert -1 < text.find("-m venv") < text.find("constraints.txt") < text.find(f"-m {COMMANDS[target]}")


def test_a_changed_pin_installs_again(clone: Path):
    assert "-m venv" not in dry(installed(clone), "test")
    stamp = clone / ".venv/.installed"
    later = stamp.stat().st_mtime + 5
    for name in ("constraints.txt", "pyproject.toml"):
        stamp.touch()
        os.utime(clone / name, (later, later))
        assert "-m venv" in dry(clone, "test")


def test_further_arguments_reach_the_command(clone: Path):
    assert "toolformer.curriculum seed=3 model=nano" in dry(installed(clone), "train", "ARGS=seed=3 model=nano")


def test_help_lists_every_target(clone: Path):
    done = subprocess.run(["make"], cwd=clone, capture_output=True, text=True, check=True)
    for target in COMMANDS:
        assert re.search(rf"^  {target} +\S", done.stdout, re.MULTILINE), target


def test_without_a_python_it_says_what_is_missing(clone: Path):
    make = shutil.which("make")
    assert make is not None
    tools = clone / "bin"
    tools.mkdir()
    for name in ("sh", "uname", "sed"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run([make, "test"], cwd=clone, capture_output=True, text=True, env={"PATH": str(tools)})
    assert done.returncode != 0 and "make PYTHON=" in done.stderr and not (clone / ".venv").exists()


def test_pins_lie_within_the_ranges_and_torch_is_pinned_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name.lower()], prereleases=True), text
    assert f"TORCH := {pins['torch']}\n" in (ROOT / "Makefile").read_text()


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci/run").read_text() and "make test" in (ROOT / "README.md").read_text()
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)


def test_citation_names_the_report():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["references"][0]["doi"] == "10.5281/zenodo.18795100" and citation["license"] == "Apache-2.0"
