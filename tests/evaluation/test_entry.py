"""In: the command line. Out: whether the command finds model, data and limits, and refuses what it cannot evaluate."""

import json

import pytest
import yaml
from omegaconf import OmegaConf
from tiny_caller import prompts, random_model

from toolformer.evaluate import main, with_run_settings
from toolformer.inference.caller import ToolCaller

QUICK = [
    "evaluation.rows=6",
    "evaluation.control_rows=3",
    "evaluation.calibration_rows=8",
    "evaluation.splits=[test_unseen]",
    "evaluation.max_new_tokens=6",
    "evaluation.composability.rows=0",
    "evaluation.timing_rows=0",
    "progress=false",
]
SPLIT = {"tools_per_request": 5, "schema_limit": 200, "length_limit": 500}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "small"
    random_model().save_pretrained(folder / "3-tool_calling" / "backbone")
    prompts().tokenizer.save_pretrained(folder / "3-tool_calling" / "backbone")
    data = {"_target_": "toolformer.data.toolworld.ToolWorld", "seed": "${seed}"}
    (folder / "settings.yaml").write_text(yaml.safe_dump({"data": data, "split": SPLIT}))
    return folder


def test_a_run_folder_brings_its_data_and_limits(run, capsys):
    main(["checkpoint=outputs/small", *QUICK])
    (folder,) = [path for path in run.parent.iterdir() if path.name.startswith("evaluation-")]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["provenance"]["settings"]["tools_per_request"] == 5
    assert metrics["calibration"]["rows"] == 8
    assert (folder / "evaluation" / "predictions.jsonl").is_file()
    shown = capsys.readouterr().out
    assert "model: " in shown and "test_unseen, plain names" in shown and "metrics and predictions:" in shown
    main(["checkpoint=outputs/small", "split=standard", *QUICK])
    (other,) = [p for p in run.parent.iterdir() if p.name.startswith("evaluation-") and p != folder]
    assert json.loads((other / "metrics.json").read_text())["provenance"]["settings"]["tools_per_request"] == 8


def test_an_exported_folder_brings_its_limits(run):
    ToolCaller(random_model(), prompts(), no_call_bias=0.5).save_pretrained(run.parent / "alone")
    limits = with_run_settings(OmegaConf.create({"checkpoint": "outputs/alone", "data": {"mine": 1}, "split": None}))
    assert limits.split.length_limit == prompts().length_limit and limits.split.tools_per_request == 8


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "checkpoint is not set"),
        (["checkpoint=outputs/nowhere"], "outputs/nowhere: no such folder; train a model first"),
        (["checkpoint=outputs/small/3-tool_calling/backbone/empty"], "no such folder"),
        (["checkpoint=outputs"], "holds no trained model"),
        (["checkpoint=outputs/alone"], "no settings.yaml says which data it was trained with; add data=..."),
        (["checkpoint=outputs/small", "evaluation.memories=[real,fake]"], "evaluation.memories is"),
    ],
)
def test_refusals_are_one_line(run, capsys, arguments, why):
    if "checkpoint=outputs/alone" in arguments:
        random_model().save_pretrained(run.parent / "alone")
        prompts().tokenizer.save_pretrained(run.parent / "alone")
    with pytest.raises(SystemExit) as left:
        main([*arguments, *QUICK])
    assert left.value.code == 2
    error = capsys.readouterr().err.strip()
    assert why in error and len(error.splitlines()) == 1
    assert not [path for path in run.parent.iterdir() if path.name.startswith("evaluation-")]
