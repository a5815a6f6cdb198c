"""In: invented conversations in the layout of Hermes' function calls. Out: which answers are rows, which not."""

import json
from pathlib import Path

import pytest

from toolformer.data.sources import hermes
from toolformer.data.sources.source import Found, SetAside

TOOL = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "The port's tide.",
        "parameters": {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]},
    },
}
CALL = "<tool_call>\n{'arguments': {'port': \"Ems' mouth\"}, 'name': 'tide'}\n</tool_call>"
USER = ("human", "Tide?")


def conversation(*turns, tools=str([TOOL])):
    system = f"Signatures are within <tools> </tools> tags. Here they are: <tools> {tools} </tools> Answer with {{}}."
    return {"id": "x", "conversations": [{"from": r, "value": v} for r, v in [("system", system), *turns]]}


def read(folder: Path, *rows):
    for name in hermes.FILES:
        (folder / name).write_text(json.dumps(rows if name == "func-calling.json" else []))
    return list(hermes.read(folder))


def test_each_answer_is_a_row(tmp_path: Path):
    result = ("tool", "<tool_response>\n{'metres': 3}\n</tool_response>")
    call = {"arguments": {"port": "Ems"}, "name": "tide"}
    as_json = f"<tool_call>{json.dumps(call)}</tool_call>"
    found = read(
        tmp_path,
        conversation(USER, ("gpt", f"Let me see.\n{CALL}\n{CALL}"), result, ("gpt", "Three metres.")),
        conversation(USER, ("gpt", as_json), tools=json.dumps(TOOL)),
    )
    assert [(f.place, len(f.example.calls), f.example.reply) for f in found if isinstance(f, Found)] == [
        ("func-calling.json:1:2", 2, ""),
        ("func-calling.json:1:4", 0, "Three metres."),
        ("func-calling.json:2:2", 1, ""),
    ]
    assert found[0].example.calls[0].arguments == {"port": "Ems' mouth"}
    assert [m.role for m in found[1].example.messages] == ["user", "assistant", "tool"]
    assert found[1].example.messages[2].content == "{'metres': 3}"
    assert found[0].example.id == "hermes/func-calling/1/2" and found[0].offered[0].tool.name == "tide"


def test_what_is_broken_is_set_aside(tmp_path: Path):
    cases = [
        (conversation(USER, ("gpt", CALL[:-12])), "gold: a call that cannot be read"),
        (conversation(USER, ("gpt", CALL.replace("{'a", "{a"))), "gold: a call that cannot be read"),
        (conversation(USER, ("gpt", CALL.replace("'name'", "'nam'"))), "row: not as upstream"),
        (conversation(USER, ("gpt", CALL.replace("'tide'", "'tides'"))), "gold: a tool that is not offered"),
        (conversation(USER, ("gpt", CALL), tools="[{'name'}]"), "tool: its schema cannot be read"),
        (conversation(USER, ("gpt", CALL), tools="[{open}]"), "tool: its schema cannot be read"),
        (conversation(USER, ("gpt", CALL), tools=""), "conversation: no tools"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "conversation: no tools"),
        ({"conversations": []}, "row: not as upstream"),
        ({"conversations": [3]}, "row: not as upstream"),
        (3, "row: not as upstream"),
    ]
    found = read(tmp_path, *(case for case, _ in cases))
    assert [f.reason for f in found if isinstance(f, SetAside)] == [reason for _, reason in cases]


def test_without_files_and_hub_the_error_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        FileNotFoundError, match="func-calling-singleturn.json.*accept its terms if it has any and run `hf auth login`"
    ):
        list(hermes.read(tmp_path))
    (tmp_path / hermes.FILES[0]).write_text("{}")
    with pytest.raises(ValueError, match="holds a dict"):
        list(hermes.read(tmp_path))
