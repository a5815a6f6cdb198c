"""In: the pages of the repository, and pages made up here. Out: whether they say what the files beside them say."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from run_folder import metrics, write_run
from tiny_caller import prompts, random_model

from experiments.record import LARGE, collect, cost, write_predictions
from experiments.sgd.run import without_text
from experiments.tables import filled, main, pages, stale
from toolformer.overrides import check

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python -m toolformer\.((?!predict)\w+) ([^\n#]+)", README, re.MULTILINE)  # those of Hydra
RESULTS = "<!-- results: experiments/a/metrics.json pointed -->\n<!-- end -->\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "experiments/a").mkdir(parents=True)
    (tmp_path / "experiments/a/README.md").write_text(f"Claim.\n\n{RESULTS}")
    (tmp_path / "README.md").write_text(f"# A page\n\n{RESULTS}")
    return tmp_path


def found(**changes) -> dict:
    out = metrics()
    out["provenance"] |= {"model": "beef" * 16, "dirty": False, "command": "python -m toolformer.curriculum seed=1"}
    return out | changes


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_say_what_their_files_say(page: Path):
    assert filled(page.read_text(), page) == page.read_text(), "stale: run python -m experiments.tables"


def test_what_is_missing_is_said_to_be_missing(root: Path):
    with pytest.raises(SystemExit):
        main([], root)
    assert "*not run yet: `experiments/a/metrics.json` is missing*" in (root / "README.md").read_text()
    assert not list(stale(root))


def test_a_page_whose_file_changed_is_stale_until_it_is_filled(root: Path, capsys):
    (root / "experiments/a/metrics.json").write_text(json.dumps(found()))
    with pytest.raises(SystemExit) as left:
        main(["--check"], root)
    assert left.value.code == 1 and "README.md: stale" in capsys.readouterr().out
    assert (root / "README.md").read_text().endswith(RESULTS)
    with pytest.raises(SystemExit) as left:
        main([], root)
    assert left.value.code == 0
    with pytest.raises(SystemExit) as left:
        main(["--check"], root)
    assert left.value.code == 0
    text = (root / "README.md").read_text()
    assert "| unseen tools | masked | pointed |" in text and "| free |" not in text
    assert "`python -m toolformer.curriculum seed=1`, commit 0123456789, data cafe0123, weights beefbeefbe." in text
    other = found()
    other["splits"]["test_unseen"]["masked"]["pointed"]["real"]["tsa"]["value"] = 0.123
    (root / "experiments/a/metrics.json").write_text(json.dumps(other))
    assert len(list(stale(root))) == 2


def test_figures_have_paths_that_hold_on_their_page(root: Path):
    (root / "experiments/a/figures").mkdir()
    (root / "experiments/a/figures/controls.png").write_bytes(b"")
    text = "<!-- figures: experiments/a/figures -->\n<!-- end -->"
    page = root / "experiments/a/README.md"
    assert "![controls](figures/controls.png)" in filled(text, page, root)
    assert "![controls](experiments/a/figures/controls.png)" in filled(text, root / "README.md", root)
    with pytest.raises(ValueError, match="no figure scaling"):
        filled(text.replace("figures -->", "figures scaling -->"), page, root)


def test_of_a_progress_bar_its_last_state_is_kept(root: Path):
    (root / "output.txt").write_text("first\n 10%|#  |\r 90%|## |\r100%|###|\nlast\n")
    shown = filled("<!-- output: output.txt -->\n<!-- end -->", root / "README.md", root)
    assert "```text\nfirst\n100%|###|\nlast\n```" in shown
    shown = filled("<!-- output: output.txt tail 1 -->\n<!-- end -->", root / "README.md", root)
    assert "```text\nlast\n```" in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- results: experiments/a/metrics.json -->\n", "its markers are start"),
        ("<!-- results: a -->\n<!-- verdict: a -->\n<!-- end -->\n", "its markers are start, start, end"),
        ("<!-- tables: experiments/a/metrics.json -->\n<!-- end -->\n", "kind is 'tables'"),
        (RESULTS.replace("pointed", "pointy"), "says pointy"),
        ("<!-- output: README.md middle 3 -->\n<!-- end -->\n", "says middle 3"),
    ],
)
def test_a_marker_that_cannot_be_read_is_an_error_that_names_the_page(root: Path, text: str, said: str):
    (root / "experiments/a/metrics.json").write_text(json.dumps(found()))
    with pytest.raises(ValueError, match=f"README.md: .*{said}"):
        filled(text, root / "README.md", root)


def test_predictions_are_packed_only_where_they_are_large(tmp_path: Path):
    write_predictions(tmp_path, "{}\n" * LARGE)
    packed = (tmp_path / "predictions.jsonl.gz").read_bytes()
    assert gzip.decompress(packed).decode() == "{}\n" * LARGE
    write_predictions(tmp_path, "{}\n" * LARGE)
    assert (tmp_path / "predictions.jsonl.gz").read_bytes() == packed
    write_predictions(tmp_path, "{}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_what_is_kept_of_a_dialogue_holds_nothing_that_was_said():
    call = {"name": "FindEvents", "arguments": {"city": "San Diego"}}
    line = {"id": "1_00001-3", "split": "test_seen", "request": "secret words", "gold": [call], "predicted": [],
            "text": "more secret words", "tools": ["FindEvents"], "outcome": {"tsa": False}}  # fmt: skip
    kept = without_text(line)
    assert kept == {"id": "1_00001-3", "split": "test_seen", "predicted": [], "outcome": {"tsa": False},
                    "gold": ["FindEvents"]}  # fmt: skip


def test_what_is_kept_of_a_run_is_enough_to_fill_its_page(root: Path, tmp_path: Path):
    run, kept = write_run(tmp_path / "outputs/a"), root / "experiments/a"
    command = "python -m toolformer.curriculum experiment=a paths.outputs=/somewhere threads=1"
    (run / "metrics.json").write_text(json.dumps(found(provenance=found()["provenance"] | {"command": command})))
    (run / "settings.yaml").write_text("seed: 7\ndata:\n  root: /somewhere/else\n")
    collect(run, kept)
    names = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert {"metrics.json", "cost.json", "settings.yaml", "predictions.jsonl", "curves/3-tool_calling.csv"} <= names
    assert any(name.startswith("figures/") for name in names)
    assert not any("/somewhere" in (kept / name).read_text() for name in ("metrics.json", "settings.yaml"))
    text = filled(RESULTS, root / "README.md", root)
    assert "`python -m toolformer.curriculum experiment=a threads=1`" in text and "minutes on 1 core." in text


def test_an_interrupted_run_is_not_timed(tmp_path: Path):
    run = write_run(tmp_path / "run")
    path = run / "3-tool_calling/finished.json"
    path.write_text(path.read_text().replace('"starts": 1', '"starts": 2'))
    assert cost(run, "python -m toolformer.curriculum")["seconds"] is None


# --- the front page -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "arguments"), COMMANDS)
def test_every_command_of_the_readme_composes(entry: str, arguments: str):
    words = [word for word in shlex.split(arguments) if not word.startswith("--")]
    assert OmegaConf.is_config(check(entry, words))


def test_the_readme_shows_each_command():
    assert {entry for entry, _ in COMMANDS} >= {"train", "curriculum", "evaluate", "report"}


def test_every_path_of_the_readme_is_there():
    tree = README.split("## What is where")[1].split("```")[1]
    paths = [line.split()[0] for line in tree.splitlines()[1:]]
    paths += [path for path in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in path]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    parts = {path.name for path in (ROOT / "toolformer").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert parts <= {Path(path).name for path in paths}, "a part of the package is not in the tree"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    folder = tmp_path / "outputs/demo/3-tool_calling/backbone"
    random_model().save_pretrained(folder)
    prompts().tokenizer.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
