"""In: invented conversations in ToolACE's layout. Out: which answers are rows, which not."""

import json
from pathlib import Path

from toolformer.data.sources import toolace
from toolformer.data.sources.source import Found, SetAside
from toolformer.records import Message

TOOL = {
    "name": "Tide (metric)",
    "description": "Tells the tide, as in [{}].",
    "parameters": {
        "type": "dict",
        "properties": {"port": {"type": "string"}, "days": {"type": "int"}},
        "required": ["port"],
    },
    "required": None,
}
USER = ("user", "Tide?")
LISTED = json.dumps([TOOL])
CALL = ("assistant", '[Tide (metric)(days=2, port="Ems (mouth)"), Tide (metric)(port="Rance")]')


def conversation(*turns, tools=LISTED):
    system = f"You have [{{functions}}]. Here is a list of functions in JSON format:\n{tools}. Use [f(p=v)]."
    return {"system": system, "conversations": [{"from": role, "value": value} for role, value in turns]}


def read(folder: Path, *rows):
    (folder / toolace.FILE).write_text(json.dumps(rows))
    return list(toolace.read(folder))


def test_each_answer_is_a_row(tmp_path: Path):
    found = read(
        tmp_path,
        conversation(USER, ("assistant", "Could you tell me?"), USER, CALL, ("tool", "[3]"), ("assistant", "3")),
        conversation(USER, ("assistant", "None of the functions can do that.")),
        conversation(USER, ("assistant", "Please provide the port.")),
    )
    rows = [(f.example.stratum, len(f.example.calls), f.example.reply) for f in found if isinstance(f, Found)]
    assert rows == [
        ("parameter_missing", 0, "Could you tell me?"),
        ("", 2, ""),
        ("", 0, "3"),
        ("tool_missing", 0, "None of the functions can do that."),
        ("parameter_missing", 0, "Please provide the port."),
    ]
    assert list(found[1].example.calls[0].arguments.items()) == [("port", "Ems (mouth)"), ("days", 2)]
    assert found[1].offered[0].tool.parameters["type"] == "object"
    assert found[1].example.id == "toolace/train/1/4"


def test_what_is_broken_is_set_aside(tmp_path: Path):
    cases = [
        (conversation(USER, ("assistant", "[Tide (metric)(port=Ems)]")), "gold: a call that cannot be read"),
        (conversation(USER, ("assistant", "[Tides(port='Ems')]")), "gold: a tool that is not offered"),
        (conversation(USER, CALL, tools="[{]"), "conversation: no tools"),
        (conversation(USER, CALL, tools=json.dumps([{"name": 3}])), "tool: its schema cannot be read"),
        ({"system": 3, "conversations": []}, "row: not as upstream"),
        ({"system": LISTED}, "row: not as upstream"),
        (None, "row: not as upstream"),
    ]
    found = read(tmp_path, *(case for case, _ in cases))
    assert [f.reason for f in found if isinstance(f, SetAside)] == [reason for _, reason in cases]


def test_the_time_that_is_stated_is_kept(tmp_path: Path):
    said = conversation(USER, CALL)
    said["system"] = "You compose calls. The current time is 2024-08-26 10:00:00." + said["system"]
    (found,) = read(tmp_path, said)
    assert isinstance(found, Found)
    assert found.example.messages == (
        Message("system", "The current time is 2024-08-26 10:00:00."),
        Message("user", "Tide?"),
    )


def test_words_around_a_call_are_no_reply(tmp_path: Path):
    found = read(
        tmp_path,
        conversation(
            USER, ("assistant", 'I call it: [Tide (metric)(port="Ems")]'), ("tool", "3"), ("assistant", "Done.")
        ),
        conversation(USER, ("assistant", "Which port does Tide (metric) shall tell?")),
    )
    assert ["" if isinstance(f, Found) else f.reason for f in found] == ["answer: a call between words"] * 2 + [""]


def test_arguments_may_be_named_as_python_may_not(tmp_path: Path):
    tool = {"name": "trip", "description": "", "parameters": {"type": "dict", "properties": {"from": {}, "max-km": {}}}}
    (found,) = read(
        tmp_path, conversation(USER, ("assistant", "[trip(from='Ems', max-km=3)]"), tools=json.dumps([tool]))
    )
    assert isinstance(found, Found) and found.example.calls[0].arguments == {"from": "Ems", "max-km": 3}
