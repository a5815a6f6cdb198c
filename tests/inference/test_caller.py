"""In: folders as training leaves them. Out: whether a program can load a caller, add tools and get calls."""

import json
import subprocess
import sys
import threading
import time
from typing import Literal

import pytest
import torch
import yaml
from tiny_caller import hand_made, prompts, random_model, switch

from toolformer.calls import parse, render
from toolformer.inference.caller import Reply, ToolCaller
from toolformer.inference.folders import calibrated_bias, find_backbone, load
from toolformer.inference.gist_store import model_fingerprint
from toolformer.inference.streaming import Stream
from toolformer.records import Message, ToolCall

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


def test_many_conversations_are_answered_as_one_by_one(monkeypatch):
    ours = ToolCaller(random_model(2, ends=3.0).double(), prompts(), max_new_tokens=40)
    ours.add_tools([switch(name) for name in ("lamp", "radio", "fan")])
    asked = ["lamp on", [{"role": "user", "content": "radio"}], "tell me a joke", "switch the fan off please"]
    for decoding in ("free", "pointed"):
        alone = [ours.call(messages, decoding) for messages in asked]
        together = ours.batch_call(asked, decoding)
        assert [reply[:2] for reply in together] == [reply[:2] for reply in alone]
        assert [reply.confidence for reply in together] == pytest.approx([reply.confidence for reply in alone])
        monkeypatch.setattr("toolformer.inference.caller.AT_ONCE", 3)
        assert [reply[:2] for reply in ours.batch_call(asked, decoding)] == [reply[:2] for reply in alone]
    assert len({reply.text + str(reply.calls) for reply in alone}) > 1 and ours.batch_call([]) == []


def test_a_conversation_is_read_as_openai_writes_it():
    """What the assistant has called before, and parts of text."""
    ours = caller(no_call_bias=-1000.0)
    ours.add_tools([switch("lamp"), OPENAI])
    called = {"id": "1", "type": "function", "function": {"name": "lamp", "arguments": '{"state": "on"}'}}
    conversation = [
        {"role": "user", "content": "lamp on"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "user", "content": [{"type": "text", "text": "now the heater"}]},
    ]
    written = [*conversation[:1], Message("assistant", render([ToolCall("lamp", {"state": "on"})])),
               Message("tool", "done"), Message("user", "now the heater")]  # fmt: skip
    assert ours.call(conversation) == ours.call(written)


@pytest.mark.parametrize("decoding", ["free", "constrained", "pointed"])
def test_a_stream_is_the_call_in_pieces(decoding):
    ours = ToolCaller(random_model(4, ends=2.0).double(), prompts(), max_new_tokens=40)
    ours.add_tools([switch("lamp"), switch("radio")])
    for text in ("lamp on", "tell me a joke"):
        stream, whole = ours.stream(text, decoding), ours.call(text, decoding)
        pieces = list(stream)
        assert stream.reply == whole == stream.reply and len(pieces) > 3
        calls = parse("".join(pieces))
        assert "".join(pieces) == whole.text if not whole.calls else calls == whole.calls
        assert ours.stream(text, decoding).reply == whole, "the pieces need not be taken"


def test_a_stream_gives_its_pieces_while_it_writes_and_ends_when_closed():
    ours = ToolCaller(random_model(4, ends=0.0).double(), prompts(), max_new_tokens=1500)
    ours.add_tools([switch("lamp")])
    running = threading.active_count()
    stream = ours.stream("tell me a joke", "free")
    next(stream), next(stream)
    assert threading.active_count() == running + 1, "it is still being written"
    stream.close()
    assert threading.active_count() == running and list(stream) == []
    with pytest.raises(ValueError, match="closed before its answer had ended"):
        print(stream.reply)
    elsewhere, taken = ours.stream("and another", "free"), []
    reader = threading.Thread(target=lambda: taken.extend(elsewhere))
    reader.start()
    while not taken and reader.is_alive():
        time.sleep(0.01)
    elsewhere.close()  # as a stop button does
    reader.join(timeout=60)
    assert not reader.is_alive() and taken and threading.active_count() == running
    started = ours.stream("another", "free")
    next(started)
    del started  # as when a loop over it is left
    assert threading.active_count() == running
    for wrong, why in (([], "messages is"), ("word " * 3000, "over the limit")):
        with pytest.raises(ValueError, match=why):
            list(ours.stream(wrong))


def test_letters_of_several_tokens_come_whole():
    tokenizer = prompts().tokenizer
    text = "Grüße, 世界 🎉 and <tool_call>\n" + "é" * 3
    tokens = tokenizer.encode(text, add_special_tokens=False)

    def write(told):
        for token in tokens:
            told(token)
        return "written"

    stream = Stream(write, tokenizer.backend_tokenizer)
    pieces = list(stream)
    assert "".join(pieces) == text and len(pieces) < len(tokens) and not any("\ufffd" in piece for piece in pieces)
    assert stream.reply == "written"


def test_gists_are_kept_between_programs(tmp_path):
    first = caller(store=tmp_path)
    first.add_tools([switch("lamp"), OPENAI])
    second = caller(store=tmp_path)
    second.engine.encode = None  # nothing is left to encode
    second.add_tools([switch("lamp"), OPENAI])
    assert torch.equal(second._gists["lamp"], first._gists["lamp"])
    with pytest.raises(ValueError, match="fingerprint is"):
        ToolCaller(random_model(), prompts(), store=tmp_path)


def test_a_store_that_rounds_gives_the_same_before_and_after(tmp_path):
    """What is attended to is what was stored, not what the encoder made."""
    tools, kept = [switch("lamp"), OPENAI], {"store": tmp_path, "store_precision": "int8", "store_limit": 10_000_000}
    first, second = caller(**kept), caller(**kept)
    first.add_tools(tools)
    second.add_tools(tools)
    assert torch.equal(second._gists["lamp"], first._gists["lamp"])
    assert not torch.equal(first._gists["lamp"], first.engine.encode(tools[:1])[0])
    with pytest.raises(ValueError, match="precision is int8"):
        caller(store=tmp_path)


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


USED_ELSEWHERE = """
import sys, torch
import toolformer.model  # tells transformers what such a folder holds
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

folder, schema, request = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
assert type(AutoModel.from_pretrained(folder, trust_remote_code=False)) is type(model)
tool = tokenizer(schema, return_tensors="pt")
gists = model.encode_tools(tool.input_ids, tool.attention_mask.bool())  # once per tool, to be kept
memory, memory_mask = model.memory(gists, torch.tensor([[0]]))
turns = [{"role": "user", "content": request}]
prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
out = model.generate(**prompt, memory=memory, memory_mask=memory_mask, max_new_tokens=24, do_sample=False)
print(tokenizer.decode(out[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def test_an_exported_folder_stands_alone(run, tmp_path):
    """In a new process, with transformers alone; and as a caller with the limits and the bias of the run."""
    ours = ToolCaller.from_pretrained(run, no_call_bias=1.5, max_new_tokens=24)
    ours.save_pretrained(tmp_path / "exported")
    again = ToolCaller.from_pretrained(tmp_path / "exported", max_new_tokens=24)
    assert (again.engine.no_call_bias, again.engine.prompts.length_limit) == (1.5, 777)
    again.add_tools([switch("lamp")])
    arguments = [str(tmp_path / "exported"), switch("lamp").text, "lamp on"]
    done = subprocess.run([sys.executable, "-c", USED_ELSEWHERE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n") == again.call("lamp on", "free").text.removesuffix("<|im_end|>")
    (tmp_path / "exported" / "caller.json").write_text('{"schema_limit": "few"}')
    with pytest.raises(ValueError, match="caller.json: not what save_pretrained"):
        load(tmp_path / "exported")


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


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda ours: ours.call("hi", "pointy"), "decoding is 'pointy'; use one of free, constrained, pointed"),
        (lambda ours: ours.call("\ud800"), r"messages\[0\]: content is .*valid Unicode"),
        (lambda ours: ours.call([Message("user", None)]), r"messages\[0\]: content is None"),
        (lambda ours: caller().__class__(hand_made(), prompts(), max_new_tokens=0), "max_new_tokens is 0"),
    ],
)
def test_what_cannot_be_answered_is_refused(ask, why):
    ours = caller()
    ours.add_tools([switch("lamp")])
    with pytest.raises(ValueError, match=why):
        ask(ours)


@pytest.mark.parametrize("device", ["foo", "meta"])
def test_a_device_that_is_not_there_is_named(run, device):
    with pytest.raises(ValueError, match=f"device is '{device}': .*use cpu"):
        ToolCaller.from_pretrained(run, device=device)


def test_a_failed_add_holds_nothing(tmp_path):
    """Else the tools that it found in the store could never give way to others."""
    first = caller(store=tmp_path)
    first.add_tools([switch("lamp"), switch("radio")])
    ours = caller(store=tmp_path)
    ours.store.limit = int(1.6 * first.store.size)  # room for three
    many = [switch(name) for name in ("lamp", "radio", "oven", "fan")]
    with pytest.raises(ValueError, match="limit is"):
        ours.add_tools(many)
    assert ours.tools == ()
    ours.add_tools(many[2:])
    assert len(ours.tools) == 2
