"""In: folders as training leaves them. Out: whether a program can load a caller, add tools and get calls."""

import json
from typing import Literal

import pytest
import torch
import yaml
from tiny_caller import hand_made, prompts, random_model, switch

from toolformer.inference.caller import Reply, ToolCaller
from toolformer.inference.folders import calibrated_bias, find_backbone, load
from toolformer.inference.gist_store import model_fingerprint
from toolformer.records import Message

STATE = {"type": "object", "properties": {"state": {"type": "string", "enum": ["on", "off"]}}, "required": ["state"]}
HEATER = {"name": "heater", "description": "Switch the heater.", "parameters": STATE}
OPENAI = {"type": "function", "function": HEATER}
MCP = {"name": "radio", "description": "Switch the radio.", "inputSchema": STATE}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of two finished stages."""
    folder = tmp_path_factory.mktemp("run")
    for seed, stage in enumerate(("2-gist_contrast", "3-tool_calling")):
        random_model(seed).save_pretrained(folder / stage / "backbone")
        prompts().tokenizer.save_pretrained(folder / stage / "backbone")
    (folder / "4-unfinished").mkdir()
    settings = {"split": {"tools_per_request": 8, "schema_limit": 99, "length_limit": 777}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder


def caller(**kw) -> ToolCaller:
    return ToolCaller(hand_made(), prompts(), max_new_tokens=80, **kw)


def test_tools_come_in_every_dialect_and_are_called():
    ours = caller(no_call_bias=-1000.0)
    ours.engine.most_calls = 1
    ours.add_tools([switch("lamp"), OPENAI, MCP])
    assert [tool.name for tool in ours.tools] == ["lamp", "heater", "radio"]
    for name in ("lamp", "heater", "radio"):
        reply = ours.call(f"switch the {name}")
        assert [call.name for call in reply.calls] == [name] and reply.text == ""
        assert reply.calls[0].arguments["state"] in ("on", "off") and 0 < reply.confidence <= 1
    conversation = [
        Message("user", "hello"),
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "radio"},
    ]
    assert [call.name for call in ours.call(conversation).calls] == ["radio"]
    ours.remove_tools(["radio"])
    assert "radio" not in [call.name for call in ours.call("switch the radio").calls]
    ours.remove_tools(["lamp", "heater"])
    assert ours.call("switch the lamp").calls == []


def kettle(state: Literal["on", "off"]) -> str:
    """Switch the kettle.

    Args:
        state: What it shall be
    """
    return state


def test_a_python_function_is_called_by_its_name_with_arguments_that_fit():
    ours = caller(no_call_bias=-1000.0)
    ours.engine.most_calls = 1
    ours.add_tools([switch("lamp"), kettle])
    (call,) = ours.call("switch the kettle", "constrained").calls
    assert call.name in ("lamp", "kettle") and kettle(**call.arguments) in ("on", "off")
    with pytest.raises(ValueError, match=r"tools\[1\]: function '<lambda>'"):
        ours.add_tools([switch("fan"), lambda x: x])
    assert [tool.name for tool in ours.tools] == ["lamp", "kettle"]


def test_where_no_call_is_right_the_text_is_the_reply():
    ours = caller(no_call_bias=1000.0)
    ours.add_tools([switch("lamp")])
    reply = ours.call("lamp")
    assert reply.calls == [] and reply.text and reply.confidence > 0.99
    assert ours.call("lamp", "free").confidence is None


def test_what_cannot_be_added_leaves_everything_as_it_was():
    ours = caller()
    ours.add_tools([switch("lamp")])
    for tools, why in (
        ([switch("fan"), {"name": 3}], r"tools\[1\]: name is 3"),
        ([switch("fan"), switch("lamp", options=3)], r"tools\[1\]: name is 'lamp', as of another tool"),
        ([switch("fan"), switch("fan", options=3)], r"tools\[1\]: name is 'fan'"),
    ):
        with pytest.raises(ValueError, match=why):
            ours.add_tools(tools)
        assert [tool.name for tool in ours.tools] == ["lamp"]
    ours.add_tools([switch("lamp")])  # the same again is no mistake
    with pytest.raises(ValueError, match="tool is 'oven'; there are lamp"):
        ours.remove_tools(["lamp", "oven"])
    assert len(ours.tools) == 1
    for messages in ([], [{"role": "user"}]):
        with pytest.raises(ValueError, match="messages"):
            ours.call(messages)


def test_gists_are_kept_between_programs(tmp_path):
    first = caller(store=tmp_path)
    first.add_tools([switch("lamp"), OPENAI])
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = caller(store=tmp_path)
    second.add_tools([switch("lamp"), OPENAI])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    assert torch.equal(second._gists["lamp"], first._gists["lamp"])
    with pytest.raises(ValueError, match="fingerprint is"):
        ToolCaller(random_model(), prompts(), store=tmp_path)


def test_a_run_folder_is_its_last_finished_stage_under_its_limits(run):
    assert find_backbone(run) == run / "3-tool_calling" / "backbone"
    for path in (run, run / "3-tool_calling", run / "3-tool_calling" / "backbone"):
        model, found = load(path)
        assert model_fingerprint(model) == model_fingerprint(random_model(1))
        assert (found.schema_limit, found.length_limit) == (99, 777)
    ours = ToolCaller.from_pretrained(run, max_new_tokens=8)
    ours.add_tools([OPENAI])
    assert isinstance(ours.call("heater"), Reply)


def test_the_calibrated_bias_is_used_for_the_weights_it_was_found_for(run):
    found = {"provenance": {"model": model_fingerprint(random_model(1))}, "calibration": {"no_call_bias": 2.5}}
    (run / "metrics.json").write_text(json.dumps(found))
    try:
        assert ToolCaller.from_pretrained(run).engine.no_call_bias == 2.5
        assert ToolCaller.from_pretrained(run, no_call_bias=1.0).engine.no_call_bias == 1.0
        assert calibrated_bias(run, random_model(2)) == 0.0
        (run / "metrics.json").write_text("{")
        with pytest.raises(ValueError, match="not what an evaluation writes"):
            ToolCaller.from_pretrained(run)
    finally:
        (run / "metrics.json").unlink()


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no trained model"):
        load(tmp_path)
    random_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no readable tokenizer|single tokens"):
        load(tmp_path)
    random_model(vocab_size=600).save_pretrained(tmp_path)
    prompts().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the tokenizer has 700 tokens, the model 600"):
        load(tmp_path)
