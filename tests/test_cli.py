"""In: command lines. Out: whether help, mistakes, run folders and sweeps behave as a person expects."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from toolformer.cli import entry
from toolformer.settings import claim, settings_hash

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "curriculum", "evaluate", "prepare", "report")


@entry("curriculum")
def command(cfg, folder):
    """Writes what it was given.

    Examples:
      python -m toolformer.command seed=1
    """
    if cfg.seed == 13:
        raise ValueError("rows.json:3: the seed is 13; choose another")
    if cfg.seed == 14:
        raise RuntimeError("a defect of ours")
    if cfg.seed == 15:
        raise KeyboardInterrupt
    with (folder / "result.txt").open("a") as file:
        file.write(f"{cfg.seed} {cfg.model.num_gists} {Path.cwd()}\n")
    if cfg.seed == 16:
        raise ValueError("failed after it had written")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOOLFORMER_DEBUG", raising=False)


def refused(capsys, *arguments: str, code: int = 2) -> str:
    """The one line on stderr that the command leaves with."""
    with pytest.raises(SystemExit) as stop:
        command(list(arguments))
    assert stop.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def folders() -> list[str]:
    return sorted(path.name for path in Path("outputs").glob("*-*")) if Path("outputs").exists() else []


# ---- mistakes


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("modle=nano", ["modle", "nearest: model"]),
        ("model.num_gist=4", ["model.num_gist:", "nearest: model.num_gists"]),
        ("num_gists=4", ["num_gists:", "nearest: model.num_gists"]),
        ("sed=1", ["sed:", "nearest: seed"]),
        ("path.outputs=x", ["path.outputs", "nearest: paths.outputs"]),
        ("hydra.sweep.dri=x", ["hydra.sweep.dri"]),
        ("model=nanoo", ["model=nanoo", "nearest: nano", "published"]),
        ("experiment=dmeo", ["experiment=dmeo", "nearest: demo"]),
        ("stage@stages.tool_caling=tool_calling", ["nearest: stage@stages.tool_calling"]),
        ("stage@stages.tool_calling=tool_cal", ["nearest: tool_calling"]),
        ("seed=abc", ["seed is 'abc'", "wants a number"]),
        ("seed=true", ["seed is True", "wants a number"]),
        ("seed=[1,2]", ["seed is [1, 2]", "a list", "wants a number"]),
        ("progress=maybe", ["progress is 'maybe'", "true or false"]),
        ("name=[a]", ["name is ['a']", "wants text"]),
        ("model.num_gists={a:1}", ["model.num_gists", "wants a number"]),
        ("seed", ["'seed' cannot be read", "key=value"]),
        ("seed=[1", ["'seed=[1' cannot be read"]),
        ("--seed=1", ["--seed=1", "without dashes"]),
        ("~seed", ["~seed", "seed=null"]),
        ("seed=1,2", ["seed", "--multirun"]),
        ("hydra/launcher=jobli", ["hydra/launcher=jobli", "nearest: "]),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_what_was_meant(capsys, argument, parts):
    line = refused(capsys, argument)
    for part in parts:
        assert part in line
    assert not Path("outputs").exists(), "partial output"


def test_a_sweep_is_checked_whole_before_its_first_job(capsys):
    line = refused(capsys, "--multirun", "seed=1,2,three")
    assert "seed is 'three'" in line and not Path("outputs").exists()


def test_a_user_error_of_the_run_is_one_line_and_leaves_nothing(capsys):
    assert refused(capsys, "seed=13") == "error: rows.json:3: the seed is 13; choose another"
    assert folders() == [] and not Path("outputs/curriculum").is_symlink()


def test_a_failed_run_keeps_what_it_wrote_and_the_link_of_the_one_before(capsys):
    command(["seed=1"])
    before = os.readlink("outputs/curriculum")
    refused(capsys, "seed=13")
    assert os.readlink("outputs/curriculum") == before
    refused(capsys, "seed=16")
    assert len(folders()) == 2 and os.readlink("outputs/curriculum") != before


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("TOOLFORMER_DEBUG", "1")
    with pytest.raises(ValueError, match="the seed is 13"):
        command(["seed=13"])


def test_a_defect_is_not_dressed_up_as_a_mistake():
    with pytest.raises(RuntimeError, match="a defect of ours"):
        command(["seed=14"])


def test_interruption_says_how_to_go_on(capsys):
    assert "same command" in refused(capsys, "seed=15", code=130)


# ---- run folders


def test_the_settings_name_the_folder(capsys):
    command(["seed=1"])
    command(["seed=1", "progress=false", "workers=3", "logger=wandb"])  # where and how it runs: the same run
    assert len(folders()) == 1
    assert len((Path("outputs") / folders()[0] / "result.txt").read_text().splitlines()) == 2
    assert f"run folder: outputs/{folders()[0]}" in capsys.readouterr().out
    command(["seed=2"])
    assert len(folders()) == 2
    link = Path("outputs/curriculum")
    assert link.is_symlink() and not Path(os.readlink(link)).is_absolute()
    assert yaml.safe_load((link / "settings.yaml").read_text())["seed"] == 2
    assert sorted(path.name for path in link.iterdir()) == [".lock", "result.txt", "settings.yaml"]


def test_the_process_stays_where_it_was_started(tmp_path):
    command([])
    assert Path("outputs/curriculum/result.txt").read_text().split()[2] == str(tmp_path)


def test_an_experiment_names_its_runs_and_the_command_line_wins():
    command(["experiment=demo"])
    assert Path("outputs/demo/result.txt").is_file()
    command(["experiment=demo", "name=mine"])
    assert Path("outputs/mine/result.txt").is_file()


def test_folders_elsewhere(tmp_path):
    command([f"paths.outputs={tmp_path}/other"])
    assert (tmp_path / "other/curriculum/result.txt").is_file()


def test_a_folder_of_other_settings_is_refused(capsys):
    command(["seed=1"])
    path = Path("outputs") / folders()[0] / "settings.yaml"
    path.write_text(path.read_text().replace("seed: 1", "seed: 5"))
    line = refused(capsys, "seed=1")
    assert "settings.yaml: seed is 5 there and 1 in this run" in line and "name=" in line


def test_a_folder_in_the_place_of_the_link_is_refused(capsys):
    Path("outputs/curriculum").mkdir(parents=True)
    assert "outputs/curriculum" in refused(capsys, "seed=1")


def test_the_hash_depends_on_values_alone():
    one = OmegaConf.create({"seed": 1, "model": {"a": 1, "b": 2}, "workers": 0})
    same = OmegaConf.create({"model": {"b": 2, "a": 1}, "seed": 1, "workers": 9})
    assert settings_hash(one) == settings_hash(same) != settings_hash(OmegaConf.merge(one, {"model": {"a": 2}}))


def test_where_data_lies_is_no_setting(monkeypatch, tmp_path):
    cfg = OmegaConf.create({"data": {"root": "${oc.env:TOOLFORMER_DATA,data}"}})
    monkeypatch.setenv("TOOLFORMER_DATA", "/a")
    before = settings_hash(cfg)
    claim(tmp_path, cfg)
    monkeypatch.setenv("TOOLFORMER_DATA", "/b")
    assert settings_hash(cfg) == before
    claim(tmp_path, cfg)


# ---- sweeps


def test_a_sweep_runs_each_job_in_the_folder_of_its_settings(capsys):
    command(["--multirun", "seed=1,2", "model.num_gists=2,4", "progress=false"])
    seen = {(Path("outputs") / name / "result.txt").read_text().rsplit(" ", 1)[0] for name in folders()}
    assert seen == {"1 2", "1 4", "2 2", "2 4"}
    command(["seed=2", "model.num_gists=4"])  # the same settings alone: the same folder
    assert len(folders()) == 4


def test_a_flag_may_stand_between_settings():
    command(["seed=1", "--multirun", "model.num_gists=2,4"])
    assert len(folders()) == 2


def test_one_failed_job_does_not_stop_the_others(capsys):
    line = refused(capsys, "--multirun", "seed=1,13,2")
    assert line.startswith("error: job 1 (outputs/curriculum-") and line.endswith("the seed is 13; choose another")
    assert len(folders()) == 2


def test_a_job_that_ends_by_a_defect_does_not_stop_the_others_either():
    with pytest.raises(RuntimeError, match="a defect of ours"):
        command(["--multirun", "seed=1,14,2"])
    assert len([name for name in folders() if (Path("outputs") / name / "result.txt").exists()]) == 2


def test_a_sweep_file_is_a_sweep():
    command(["sweep=gists"])
    assert len(folders()) > 1


@entry("curriculum")
def logged(cfg, folder):
    """Opens a dashboard's run and forgets it."""
    import wandb

    assert wandb.run is None, "the run of the job before is still open"
    wandb.init(mode="disabled", name=str(cfg.seed))
    if cfg.seed == 1:
        raise ValueError("in the middle of it")


def test_each_job_has_a_wandb_run_of_its_own():
    import wandb

    with pytest.raises(SystemExit):
        logged(["--multirun", "seed=1,2"])
    assert wandb.run is None


# ---- help


def test_help_says_what_it_does_how_and_where_defaults_come_from(capsys):
    command(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("Writes what it was given.")
    for part in (
        "python -m toolformer.command",
        "model ",
        "nano",
        "num_gists: ",
        "conf/curriculum.yaml",
        "command line",
    ):
        assert part in text
    assert not Path("outputs").exists()


def test_help_follows_the_chosen_groups(capsys):
    command(["--help", "model=published"])
    assert "pointer: false" in capsys.readouterr().out


def test_cfg_shows_the_composed_configuration(capsys):
    command(["--cfg", "job", "seed=9"])
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 9
    assert not Path("outputs").exists()


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"toolformer.{name}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def seconds(name: str, *arguments: str) -> float:
    """Processor time of the whole process, which is what it takes where nothing else runs; the best of a few tries."""
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(name, *arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if best < 0.5:
            break
    return best


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_mistakes_are_answered_in_half_a_second(name):
    done = run(name, "--help")
    assert done.returncode == 0 and done.stdout.count("python -m toolformer.") >= 3 and "Settings" in done.stdout
    assert seconds(name, "--help") < 0.5
    done = run(name, "nmae=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nmae: no such setting; nearest: name (--help lists all)\n"
    assert seconds(name, "sede=1") < 0.5
