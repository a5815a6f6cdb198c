"""In: run folders with invented numbers: whole, cut short, hostile. Out: that the report shows, escapes and judges."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folder import EVIL, metrics, write_run

from toolformer.reporting.comparison import write_comparison
from toolformer.reporting.curves import loss_parts
from toolformer.reporting.diagram import draw
from toolformer.reporting.html import flat
from toolformer.reporting.loading import load_run
from toolformer.reporting.mistakes import kind_of, mistakes
from toolformer.reporting.page import run_page, write_report
from toolformer.reporting.results import scaling_figure
from toolformer.reporting.tables import aligned, markdown_table, table
from toolformer.reporting.theme import DARK, png, spread
from toolformer.reporting.verdict import verdict


class Page(HTMLParser):
    """What a browser would make of a page: its tags, the addresses it would ask for, its scripts, its visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "source", "br", "input", "link"):
            self.open.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset", "action")]
        assert not [key for key, _ in attrs if key.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.seen).append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "demo")


def undrawn(folder: Path) -> str:
    """The visible text of a run's page, its figures left away: they take seconds."""
    return " ".join(Page(run_page(load_run(folder), [])).seen)


@pytest.fixture(scope="module")
def page(run):
    return Page(write_report(run).read_text())


def test_page_asks_for_nothing_from_outside(page):
    assert page.addresses and all(re.match(r"data:image/png;base64,|#", address) for address in page.addresses)
    assert page.open == []  # every element is closed


def test_what_data_and_model_say_is_escaped(page):
    assert len(page.scripts) == 1 and "alert" not in page.scripts[0]
    assert EVIL in "".join(page.seen)


def test_every_section_is_there_and_pngs_lie_beside_the_page(run, page):
    text = " ".join(page.seen)
    for part in (
        "Reads its gists",
        "Gates",
        "Loss: tool calling",
        "More tools on offer",
        "Wrong answers to read",
        "0123456789abcdef",
    ):
        assert part in text
    names = {path.stem for path in (run / "report").glob("*.png")}
    assert {"results-tsa", "controls-masked", "scaling", "false-calls", "gates", "loss-3-tool_calling"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "report").glob("*.png"))


def test_same_run_same_page(run):
    assert undrawn(run) == undrawn(run)
    assert png(scaling_figure(metrics(), DARK)) == png(scaling_figure(metrics(), DARK))


@pytest.mark.parametrize("parts", [["none"], ["training"], ["metrics"], ["predictions"], ["metrics", "predictions"]])
def test_what_is_missing_is_said(tmp_path, parts):
    text = undrawn(write_run(tmp_path / "run", parts=parts))
    assert "Missing in this run" in text
    assert ("Not evaluated yet" in text) == ("metrics" not in parts)
    assert ("no stage folder" in text) == ("training" not in parts)
    assert ("no predictions.jsonl" in text) == ("predictions" not in parts)


def test_interrupted_training_is_said(tmp_path):
    folder = write_run(tmp_path / "run", parts=["training"])
    (folder / "3-tool_calling/finished.json").unlink()
    log = folder / "3-tool_calling/metrics.csv"
    with log.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    log.unlink()
    parts = [{"start": True}, *rows[:4], {"start": True}, *rows[2:6]]  # resumed once, killed twice
    text = "".join(json.dumps(row) + "\n" for row in parts) + '{"step": 30, "train'  # the second time in mid-line
    (folder / "3-tool_calling/curve.jsonl").write_text(text)
    (folder / "2-gist_contrast/metrics.csv").write_text("step\n")  # killed before the first row
    text = " ".join(Page(write_report(folder).read_text()).seen)  # drawn: short logs must not stop a figure
    assert "stage tool calling: it stopped after 26 steps" in text


def test_a_single_row_and_nan_in_the_log_are_no_trouble(tmp_path):
    folder = write_run(tmp_path / "run", parts=["training"])
    with (folder / "1-schema_autoencoding/metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["step", "train/loss", "gate/layer_00"], [0, "nan", 0.0], [5, 2.5, 0.1]])
    assert load_run(folder).stages[0].columns["train/loss"] == [(5.0, 2.5)]
    assert write_report(folder).is_file()


def test_empty_evaluation(tmp_path):
    folder = write_run(tmp_path / "run", parts=["none"])
    (folder / "metrics.json").write_text(
        json.dumps({"provenance": {}, "splits": {}, "composability": {}, "timing": {}})
    )
    (folder / "evaluation/predictions.jsonl").write_text("")
    assert "No answer was recorded" in write_report(folder).read_text()


def test_partly_measured_evaluation(tmp_path):
    none = {"value": None, "low": None, "high": None, "n": 0}
    summary = {"tsa": none, "em": none, "fpr": {"value": 0.5, "low": 0.1, "high": 0.9, "n": 4}, "chance": none}
    found = {"splits": {"test_seen": {"plain": {"free": {"real": summary}}}}}
    folder = write_run(tmp_path / "run", parts=["none"])
    (folder / "metrics.json").write_text(json.dumps(found))
    assert "Not evaluated yet" in write_report(folder).read_text()
    assert "0.500 .100-.900" in table(found)


@pytest.mark.parametrize(
    "text, what",
    [
        ("{", "metrics.json: not JSON"),
        ("[]", "metrics.json: a JSON object is wanted"),
        ('{"splits": 3}', "metrics.json: splits is 3"),
    ],
)
def test_a_broken_metrics_json_is_a_users_error(tmp_path, text, what):
    folder = write_run(tmp_path / "run", parts=["training"])
    (folder / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=what):
        write_report(folder)
    assert not (folder / "report").exists()


def test_a_broken_prediction_names_its_line(tmp_path):
    folder = write_run(tmp_path / "run", rows=1)
    path = folder / "evaluation/predictions.jsonl"
    path.write_text(path.read_text() + "{oops\n")
    with pytest.raises(ValueError, match=r"predictions.jsonl:13: not JSON"):
        undrawn(folder)


def planted(real: float, foreign: float, zero: float) -> dict:
    """A metrics.json with these shares of 500 on masked unseen tools; chance is 0.125."""

    def summary(value: float) -> dict:
        return {"tsa": {"value": value, "low": value - 0.03, "high": value + 0.03, "n": 500},
                "chance": {"value": 0.125, "low": 0.125, "high": 0.125, "n": 500}}  # fmt: skip

    memories = {"real": summary(real), "foreign": summary(foreign), "zero": summary(zero)}
    return {"splits": {"test_unseen": {"masked": {"pointed": memories}}}}


@pytest.mark.parametrize(
    "values, kind",
    [
        ((0.84, 0.13, 0.12), "reads"),
        ((0.84, 0.00, 0.00), "reads"),
        ((0.84, 0.84, 0.84), "fails"),
        ((0.13, 0.12, 0.12), "fails"),
        ((0.15, 0.02, 0.00), "fails"),  # better than its controls, but not than chance
        ((0.84, 0.40, 0.12), "leaks"),
        ((0.84, 0.13, 0.30), "leaks"),
    ],
)
def test_verdict_follows_the_numbers(values, kind):
    judged = verdict(planted(*values))
    assert judged.kind == kind
    assert all(f"{value:.2f}" in judged.sentence for value in values)


def test_a_pointer_that_falls_silent_must_still_not_know():
    found = planted(0.84, 0.0, 0.0)
    memories = found["splits"]["test_unseen"]["masked"]["pointed"]
    memories["zero"]["choice"] = {"value": 0.13, "low": 0.10, "high": 0.16, "n": 500}
    assert verdict(found).kind == "reads"
    memories["foreign"]["choice"] = {"value": 0.52, "low": 0.48, "high": 0.56, "n": 500}
    judged = verdict(found)
    assert judged.kind == "leaks" and "stay 0.40 above chance" in judged.sentence


def test_no_verdict_without_controls_or_on_plain_names():
    found = planted(0.9, 0.1, 0.1)
    masked = found["splits"]["test_unseen"].pop("masked")
    found["splits"]["test_unseen"]["plain"] = masked
    assert verdict(found).kind == "unknown" and "names leak" in verdict(found).sentence
    for name in ("foreign", "zero"):
        del masked["pointed"][name]
    assert "a control was not run" in verdict(found).sentence
    assert verdict({}).kind == "unknown"


def test_tables_say_every_value_once_and_are_aligned():
    found = metrics()
    text, markdown = table(found), markdown_table(found)
    assert "0.846 .821-.871" in text and "0.846 (.821\u2013.871)" in markdown
    lines = [line for line in text.splitlines() if re.match(r"  (free|constrained|pointed) ", line)]
    assert len(lines) == 18 and len({line.index("0.") for line in lines}) == 1
    widths = {line.count("|") for line in markdown.splitlines() if line}
    assert widths == {9}
    assert table({"splits": {}}) == "no results: metrics.json holds no split"
    assert aligned([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc  d"]


def test_tables_import_no_torch():
    code = "import sys, toolformer.reporting.tables; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kinds_of_mistakes():
    gold = [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]
    wrong = {"gold": gold, "outcome": {"em": False}}
    assert kind_of(wrong | {"predicted": gold[::-1]}) == "arguments"
    assert kind_of(wrong | {"predicted": gold[:1]}) == "tool"
    assert kind_of(wrong | {"predicted": []}) == "none"
    assert kind_of(wrong | {"malformed": "x"}) == "malformed"
    assert kind_of({"gold": gold, "outcome": {"em": True}, "predicted": gold}) is None
    assert kind_of({"gold": [], "outcome": {}, "predicted": []}) is None
    assert kind_of({"gold": [], "outcome": {}, "malformed": "x"}) == "called"


def test_mistakes_are_counted_whole_and_shown_in_part(run):
    rows = list(load_run(run).rows())
    found = mistakes(rows, per_group=1)
    assert sum(found.counts.values()) == sum(kind_of(row) is not None for row in rows)
    assert len(found.shown) == len(found.counts)
    assert not mistakes([row | {"memory": "foreign"} for row in rows]).answers


def test_runs_side_by_side(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate(("first", "second"))]
    (runs[1] / "settings.yaml").write_text("seed: 8\nmodel:\n  num_gists: 4\n")
    runs.append(write_run(tmp_path / EVIL.replace("/", ""), parts=["training"]))
    text = "".join(Page(write_comparison(runs, tmp_path).read_text()).seen)
    assert "model.num_gists" in text and re.search(r"[+-]\d\.\d{3}, p [\d.]+, n \d", text)
    assert "no metrics.json" in text


def test_a_run_does_not_differ_from_itself(tmp_path):
    run = write_run(tmp_path / "run")
    text = write_comparison([run, run], tmp_path).read_text()
    assert "Their settings do not differ" in text
    assert set(re.findall(r"[+-]\d\.\d{3}, p [\d.e-]+", text)) == {"+0.000, p 1"}


def test_command_writes_pages(tmp_path, capsys):
    from toolformer.report import main

    run, outputs = write_run(tmp_path / "run", parts=["predictions"], rows=2), tmp_path / "outputs"
    main([f"run={run}", f"paths.outputs={outputs}"])
    assert (run / "report/index.html").is_file() and not list(outputs.glob("*"))
    main([f"run=[{run},{run}]", f"paths.outputs={outputs}"])
    assert len(list(outputs.glob("*/index.html"))) == 1
    with pytest.raises(SystemExit) as stop:
        main([f"run={tmp_path / 'nowhere'}", f"paths.outputs={outputs}"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "nowhere: no such run folder" in error and len(error.splitlines()) == 1


def test_labels_keep_their_distance():
    places = spread([0.1, 0.11, 0.12, 0.9], 0.1)
    ordered = sorted(places)
    assert all(b - a > 0.1 - 1e-9 for a, b in zip(ordered, ordered[1:], strict=False))
    assert places[3] == 0.9 and ordered == places


def test_parts_equal_to_the_total_are_drawn_once(run):
    assert list(loss_parts(load_run(run).stages[0])) == ["loss"]
    assert set(loss_parts(load_run(run).stages[2])) == {"loss", "call", "contrast", "rebuild"}


def test_nested_settings_are_flat():
    assert list(flat({"a": {"b": {"c": 1}}, "d": {}})) == [("a.b.c", 1), ("d", {})]


def test_architecture_picture(tmp_path):
    draw(tmp_path / "a.svg")
    draw(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(ValueError, match="suffix"):
        draw(Path("a.gif"))
