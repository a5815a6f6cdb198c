"""In: files of requests as a user would write them. Out: whether rows are what was written, and errors say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_caller import config, prompts, rows

from toolformer.data.own_rows import SPLIT, OwnRows
from toolformer.data.sources.own import SOURCE
from toolformer.data.sources.source import Found, SetAside
from toolformer.evaluate import main
from toolformer.model import ToolFormerMicro

HOST = {
    "type": "object",
    "properties": {"host": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["host"],
}
PING = {"name": "ping", "description": "Ping a host.", "parameters": HOST}
ECHO = {"name": "echo", "description": "Say it again.", "inputSchema": {"type": "object", "properties": {}}}
ASK = {"role": "user", "content": "ping example.org twice"}
CALL = {"name": "ping", "arguments": {"host": "example.org", "count": 2}}
ROW: dict[str, Any] = {"tools": [{"type": "function", "function": PING}, ECHO], "messages": [ASK], "calls": [CALL]}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_rows_are_what_was_written(tmp_path: Path):
    talk = [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "tool", "content": "12 ms"},
    ]
    text = {"function": {"name": "ping", "arguments": json.dumps(CALL["arguments"])}}
    path = write(tmp_path, ROW, "", {**ROW, "calls": [text, {"name": "echo", "arguments": {}}], "id": "two"},
                 {**ROW, "messages": talk, "calls": [], "reply": "It took 12 ms."})  # fmt: skip
    one, two, three = OwnRows(str(path)).rows
    assert [example.id for example, _ in (one, two, three)] == ["mine-1", "two", "mine-4"]
    assert [tool.name for tool in one[1]] == ["ping", "echo"] and one[0].calls[0].arguments == CALL["arguments"]
    assert [call.name for call in two[0].calls] == ["ping", "echo"] and two[0].calls[0] == one[0].calls[0]
    assert three[0].messages[1].content.startswith("<tool_call>") and three[0].calls == ()
    catalog, examples = OwnRows(str(path)).split(SPLIT, 2)
    assert [tool.name for tool in catalog] == ["ping", "echo"] and len(examples) == 2


def call_of(arguments: Any) -> dict[str, Any]:
    function = {"name": "ping", "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def test_without_calls_the_last_message_is_the_answer(tmp_path: Path):
    """OpenAI's format for fine-tuning, with the shapes that its clients write."""
    bare = {key: value for key, value in ROW.items() if key != "calls"}
    parts = {"role": "user", "content": [{"type": "text", "text": "ping "}, {"type": "text", "text": "example.org"}]}
    told = {"role": "assistant", "content": "It took 12 ms.", "tool_calls": None, "refusal": None}
    path = write(
        tmp_path,
        {**bare, "messages": [{"role": "developer", "content": "Be brief."}, parts, call_of(CALL["arguments"])],
         "parallel_tool_calls": False},
        {**bare, "messages": [ASK, call_of({"host": "a"}), {"role": "tool", "content": "12 ms"}, told]},
        {**bare, "messages": [ASK, {"role": "assistant", "content": "", "function_call": {**CALL}}]},
    )  # fmt: skip
    called, replied, once = (example for example, _ in OwnRows(str(path)).rows)
    assert [(m.role, m.content) for m in called.messages] == [("system", "Be brief."), ("user", "ping example.org")]
    assert called.calls[0].arguments == CALL["arguments"] == once.calls[0].arguments
    assert (called.reply, replied.calls, replied.reply) == ("", (), "It took 12 ms.")
    assert [m.role for m in replied.messages] == ["user", "assistant", "tool"]


def test_rows_share_the_tools_of_the_file_beside_them(tmp_path: Path):
    path = write(tmp_path, {"messages": [ASK], "calls": [CALL]}, {"messages": [ASK], "tools": [PING], "calls": []})
    (tmp_path / "mine.tools.json").write_text(json.dumps({"tools": [PING, ECHO]}))
    (_, shared), (_, given) = OwnRows(str(path)).rows
    assert [tool.name for tool in shared] == ["ping", "echo"] and [tool.name for tool in given] == ["ping"]
    assert [offer.tool.name for offer in SOURCE.tools(tmp_path)] == ["ping", "echo"]


def test_as_a_source_each_line_comes_out_once(tmp_path: Path):
    broken = {
        "{": "row: no object of the known fields",
        '{"call": 1}': "row: no object of the known fields",
        json.dumps({**ROW, "tools": [7]}): "tools: cannot be read",
        json.dumps({**ROW, "messages": [ASK, {"role": "user", "content": None}]}): "messages: cannot be read",
        json.dumps({**ROW, "calls": ["ping"]}): "calls: cannot be read",
        json.dumps({**ROW, "reply": 3}): "row: id, reply or stratum is no text",
    }
    path = write(tmp_path, ROW, "", *broken, {**ROW, "id": "x"})
    (tmp_path / "test.jsonl").write_text(json.dumps({**ROW, "id": "x"}))
    found = list(SOURCE.read(tmp_path))
    rows = [row for row in found if isinstance(row, Found)]
    assert [(row.place, row.upstream, row.example.id) for row in rows] == [
        ("mine.jsonl:1", "train", "own/mine/1"),
        ("mine.jsonl:9", "train", "own/mine/9"),
        ("test.jsonl:1", "test", "own/test/1"),
    ]
    for row in rows:
        assert row.example.tools == tuple(offer.tool.id for offer in row.offered) and row.example.source == "own"
    aside = {row.text: row.reason for row in found if isinstance(row, SetAside)}
    assert aside == broken
    assert len(found) == sum(bool(line.strip()) for file in (path, tmp_path / "test.jsonl")
                             for line in file.read_text().split("\n"))  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"holds no \*.jsonl; write your requests there"):
        list(SOURCE.read(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{", ("no JSON", "one object a line")),
        ("[]", ("is a list", "write an object")),
        ({**ROW, "call": []}, ("the field 'call'", "tools, messages, calls")),
        ({**ROW, "tools": {}}, ("tools is {}", "a list is wanted")),
        ({**ROW, "tools": [{"description": "x"}]}, ("tools[0]", "name is None")),
        ({**ROW, "messages": []}, ("the last message's role is None", "user or tool")),
        ({**ROW, "messages": [ASK, {"role": "assistant", "content": "ok"}]}, ("'assistant'", "user or tool")),
        ({**ROW, "messages": [{"role": "human", "content": "hi"}]}, ("messages[0]", "'human'", "user")),
        ({**ROW, "messages": [{"role": "user", "content": 3}]}, ("messages[0]", "content is 3", "text is wanted")),
        ({**ROW, "calls": ["ping"]}, ("calls[0]", "'ping'", "name and arguments")),
        ({**ROW, "calls": [{"name": "ping", "arguments": "{"}]}, ("calls[0]", "arguments is no JSON")),
        ({**ROW, "calls": [{"name": "ping", "arguments": [1]}]}, ("calls[0]", "[1]", "an object is wanted")),
        ({**ROW, "calls": [{"name": "pong", "arguments": {}}]}, ("pong", "add the tool")),
        ({**ROW, "calls": [{"name": "ping", "arguments": {}}]}, ("lacks required host",)),
        ({**ROW, "calls": [{"name": "ping", "arguments": {"host": "a", "ttl": 1}}]}, ("has ttl", "host")),
        ({**ROW, "tools": [PING, PING]}, ("name ping twice",)),
        ({"tools": [PING], "messages": [ASK]}, ("calls is missing", "the assistant's answer")),
        (
            {**ROW, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            ("image_url", "parts of type text"),
        ),
        ({**ROW, "messages": [{**ASK, "tool_calls": {"a": 1}}]}, ("tool_calls is {'a': 1}", "a list is wanted")),
        ({**ROW, "reply": 3}, ("reply is 3", "text is wanted")),
        ({**ROW, "id": "mine-1"}, ("id is 'mine-1'", "mine.jsonl:1")),
    ],
)
def test_errors_say_where_and_what(tmp_path: Path, line: Any, parts: tuple[str, ...]):
    path = write(tmp_path, ROW, line)
    with pytest.raises(ValueError) as caught:
        OwnRows(str(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_files_that_hold_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no row; write one request a line"):
        OwnRows(str(write(tmp_path, "")))
    (tmp_path / "latin.jsonl").write_bytes("\xe4".encode("latin-1"))
    with pytest.raises(ValueError, match="byte 0 is not UTF-8"):
        OwnRows(str(tmp_path / "latin.jsonl"))
    with pytest.raises(ValueError, match="its one split is own_rows"):
        OwnRows(str(write(tmp_path, ROW))).split("test_seen")


def test_the_command_scores_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """From a saved model and a file: metrics and predictions of these very rows."""
    folder = tmp_path / "run" / "backbone"
    ToolFormerMicro(config()).save_pretrained(folder)
    prompts().tokenizer.save_pretrained(folder)
    (tmp_path / "run" / "settings.yaml").write_text(
        yaml.safe_dump({"split": {"tools_per_request": 8, "schema_limit": 256, "length_limit": 2048}})
    )
    lines = [
        {
            "tools": [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in tools],
            "messages": [{"role": m.role, "content": m.content} for m in example.messages],
            "calls": [{"name": c.name, "arguments": c.arguments} for c in example.calls],
        }
        for example, tools in rows()[:6]
        if example.messages[-1].role == "user"
    ]
    path = write(tmp_path, *lines)
    main([f"checkpoint={folder}", f"rows={path}", f"paths.outputs={tmp_path / 'out'}", "progress=false",
          "evaluation.max_new_tokens=12", "evaluation.timing_rows=1"])  # fmt: skip
    done = tmp_path / "out" / "evaluation"
    metrics = json.loads((done / "metrics.json").read_text())
    assert set(metrics["splits"]) == {SPLIT}
    real = metrics["splits"][SPLIT]["plain"]["pointed"]["real"]
    assert real["tsa"]["n"] + real["fpr"]["n"] == len(lines)
    written = [json.loads(line) for line in (done / "evaluation" / "predictions.jsonl").read_text().splitlines()]
    assert {line["id"] for line in written} == {f"mine-{i + 1}" for i in range(len(lines))}
    assert "own_rows, plain names" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (json.dumps(ROW)[:-1] + ', "calls": []}', "the key 'calls' occurs twice"),
        (json.dumps({**ROW, "calls": [{"name": "ping", "arguments": '{"host": "a", "host": "b"}'}]}), "occurs twice"),
        (json.dumps({**ROW, "calls": [{"name": "ping", "arguments": "[" * 3_000}]}), "arguments is no JSON"),
        (json.dumps(ROW).replace("2", "1" * 5_000), "no JSON: Exceeds the limit"),
        (json.dumps({**ROW, "messages": [{"role": "user", "content": "\ud83d"}]}), "surrogates not allowed"),
        (json.dumps(ROW)[:-1] + ', "reply": ' + "[" * 350 + "]" * 350 + "}", "nested more than 320 deep"),
        (json.dumps(ROW)[:-1] + ', "reply": ' + "[" * 90_000 + "]" * 90_000 + "}", "maximum recursion depth"),
    ],
    ids=range(7),
)
def test_lines_made_to_break_the_reader(tmp_path: Path, line: str, why: str):
    path = write(tmp_path, line)
    with pytest.raises(ValueError, match=why) as caught:
        OwnRows(str(path))
    assert str(caught.value).startswith(f"{path}:1: ")


def test_a_call_in_the_conversation_that_is_no_json_is_named(tmp_path: Path):
    talk = [ASK, {"role": "assistant", "tool_calls": [{"name": "ping", "arguments": {"n": float("nan")}}]}, ASK]
    path = write(tmp_path, {**ROW, "messages": talk})
    with pytest.raises(ValueError, match=r"mine.jsonl:1: messages\[1\]: call of 'ping': arguments are no JSON"):
        OwnRows(str(path))
