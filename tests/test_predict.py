"""In: a saved model, files of tools, requests. Out: whether the command prints what the caller would do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_caller import prompts, random_model

from toolformer.inference.caller import ToolCaller
from toolformer.predict import main

STATE = {"type": "object", "properties": {"state": {"type": "string", "enum": ["on", "off"]}}, "required": ["state"]}
LAMP = {"name": "lamp", "description": "Switch the lamp.", "parameters": STATE}
RADIO = {"name": "radio", "description": "Switch the radio.", "inputSchema": STATE}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    random_model(3, ends=3.0).save_pretrained(folder)
    prompts().tokenizer.save_pretrained(folder)
    return folder


def tools(folder: Path, content: Any) -> Path:
    path = folder / "tools.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("decoding", ["free", "constrained", "pointed"])
def test_prints_what_the_caller_says(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], decoding: Any):
    path = tools(tmp_path, [{"type": "function", "function": LAMP}, RADIO])
    asked = ["lamp on", "tell me a joke"]
    main([*asked, "--tools", str(path), "--model", str(model), "--decoding", decoding, "--store", str(tmp_path / "s")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    caller = ToolCaller.from_pretrained(model)
    caller.add_tools([LAMP, RADIO])
    replies = [caller.call(request, decoding) for request in asked]
    assert [line["text"] for line in lines] == [reply.text for reply in replies]
    assert [[c["name"] for c in line["calls"]] for line in lines] == [[c.name for c in r.calls] for r in replies]
    assert all((line["confidence"] is not None) == (decoding == "pointed") for line in lines)


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    main(argv)
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def test_requests_of_a_file_of_stdin_and_of_the_command_line_are_answered_alike(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    common = ["--tools", str(tools(tmp_path, [LAMP, RADIO])), "--model", str(model), "--store", str(tmp_path / "s")]
    turns = [{"role": "user", "content": "lamp\u2028on"}, {"role": "assistant", "content": "which?"},
             {"role": "user", "content": "both"}]  # fmt: skip
    lines = ['"lamp on"', "", json.dumps({"messages": [{"role": "user", "content": "tell me a joke"}]}),
             json.dumps({"messages": turns}, ensure_ascii=False)]  # fmt: skip
    (tmp_path / "asked.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr("toolformer.predict.TOGETHER", 2)
    of_file, _ = said([*common, "--requests", str(tmp_path / "asked.jsonl")], capsys)
    of_words, _ = said(["lamp on", "tell me a joke", *common], capsys)
    assert len(of_file) == 3 and of_file[:2] == of_words
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert said([*common, "--requests", "-"], capsys)[0] == of_file


def test_a_stream_is_shown_beside_the_answers(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    common = ["lamp on", "a joke", "--tools", str(tools(tmp_path, [LAMP])), "--model", str(model), "--decoding", "free"]
    plain, _ = said(common, capsys)
    streamed, shown = said([*common, "--stream"], capsys)
    assert streamed == plain and "\n".join(line["text"] for line in plain) in shown


def test_top_k_is_how_many_tools_are_looked_at(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    common = ["lamp on", "--tools", str(tools(tmp_path, [LAMP, RADIO])), "--model", str(model)]
    caller = ToolCaller.from_pretrained(model, route_above=0, k=1)
    caller.add_tools([LAMP, RADIO])
    (line,), _ = said([*common, "--top-k", "1"], capsys)
    assert line["confidence"] == pytest.approx(caller.call("lamp on").confidence)
    assert line["confidence"] != pytest.approx(said(common, capsys)[0][0]["confidence"])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ("has no requests",)),
        ('"fine"\nlamp on', (":2: no JSON", "on each line")),
        ('{"request": "lamp"}', (":1: is '{", "messages")),
        ('{"messages": []}', (":1: is '{",)),
        ("[1]", (":1: is '[1]'",)),
        ('{"messages": [{"role": "user"}]}', (":1: messages[0]: content is None",)),
    ],
)
def test_broken_requests_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, parts: tuple):
    path = tmp_path / "asked.jsonl"
    path.write_text(content)
    with pytest.raises(SystemExit) as left:
        main(["--requests", str(path), "--tools", str(tools(tmp_path, [LAMP]))])
    shown = capsys.readouterr()
    assert left.value.code == 2 and shown.out == "" and len(shown.err.splitlines()) == 1
    for part in (str(path), *parts):
        assert part in shown.err
    for words in ([], ["lamp on", "--requests", str(path)]):
        with pytest.raises(SystemExit):
            main([*words, "--tools", str(tools(tmp_path, [LAMP]))])
        assert "give requests, or a file of them" in capsys.readouterr().err


def test_what_is_no_tool_is_said_on_the_other_stream(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "api.yaml"
    path.write_text(
        "openapi: 3.0.3\npaths:\n  /lamp:\n    post: {operationId: lamp, summary: Switch the lamp.}\n"
        "    put: {operationId: upload, requestBody: {content: {image/png: {}}}}\n"
    )
    main(["lamp on", "--tools", str(path), "--model", str(model), "--decoding", "constrained"])
    said = capsys.readouterr()
    assert set(json.loads(said.out)) == {"calls", "text", "confidence"}
    wrong = f"left out: {path}: PUT /lamp: requestBody is image/png; only JSON can be a call\n"
    assert said.err.endswith(wrong) or wrong in said.err


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[", ("no JSON", "a list of tools")),
        ([], ("holds []", "a list of tools")),
        ({"name": "lamp"}, ("holds {'name'", "a list of tools")),
        ([LAMP, {"description": "x"}], ("tools[1]", "name is None")),
        (None, ("No such file",)),
    ],
)
def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, parts: tuple[str, ...]):
    path = tmp_path / "nowhere.json" if content is None else tools(tmp_path, content)
    with pytest.raises(SystemExit) as left:
        main(["hello", "--tools", str(path)])
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == "" and len(said.err.splitlines()) == 1
    for part in (str(path), *parts):
        assert part in said.err
