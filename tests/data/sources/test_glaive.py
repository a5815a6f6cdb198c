"""In: invented conversations in ShareGPT's layout, and the real ones. Out: which answers are rows, and of what kind."""

import json
from collections import Counter
from pathlib import Path

from toolformer.data.sources import glaive
from toolformer.data.sources.source import Found

TOOL = {
    "name": "tide",
    "description": "Tells the tide.",
    "parameters": {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]},
}
CALL = ("function_call", json.dumps({"name": "tide", "arguments": {"port": "Ems"}}))


def conversation(*turns, tools=(TOOL,)):
    listed = json.dumps(tools) if tools else ""
    return {"conversations": [{"from": role, "value": value} for role, value in turns], "tools": listed}


def read(folder: Path, *rows):
    (folder / glaive.FILE).write_text(json.dumps(rows))
    return list(glaive.read(folder))


def test_each_answer_is_a_row(tmp_path: Path):
    found = read(
        tmp_path,
        conversation(
            ("human", "How high is the tide?"),
            ("gpt", "Which port do you mean?"),
            ("human", "Ems"),
            CALL,
            ("observation", '{"metres": 3}'),
            ("gpt", "Three metres."),
            ("human", "Order a pizza."),
            ("gpt", "I'm sorry, but I have no tool for that."),
            ("human", "Thank you!"),
            ("gpt", "You're welcome!"),
        ),
        conversation(("human", "Define a tide."), ("gpt", "Water."), ("human", "And?"), ("gpt", "Moon."), tools=()),
    )
    assert all(isinstance(f, Found) for f in found)
    assert [(f.place.split(":", 1)[1], f.example.stratum, f.example.reply) for f in found] == [
        ("1:2", "parameter_missing", "Which port do you mean?"),
        ("1:4", "", ""),
        ("1:6", "", "Three metres."),
        ("1:8", "tool_missing", "I'm sorry, but I have no tool for that."),
        ("1:10", "small_talk", "You're welcome!"),
        ("2:2", "small_talk", "Water."),
    ]
    assert found[1].example.calls[0].arguments == {"port": "Ems"} and len(found[1].example.messages) == 3
    assert found[2].example.messages[3].content.startswith("<tool_call>")
    assert found[2].example.messages[4].role == "tool"
    assert found[2].example.id == "glaive-demo/train/1/6" and found[2].example.pattern == "glaive-demo/train/1"
    assert (found[-1].offered, found[-1].example.tools) == ((), ())


def test_what_is_broken_is_set_aside(tmp_path: Path):
    user = ("human", "Tide?")
    cases = [
        (conversation(user, ("function_call", "{")), ["row: not as upstream"]),
        (conversation(user, ("stranger", "x"), ("gpt", "a")), ["row: not as upstream"] * 2),
        (conversation(user, ("function_call", '{"name": "tide", "arguments": {}}'), ("observation", "1"), ("gpt", "a")),
         ["gold: arguments that the schema refuses", ""]),
        (conversation(("gpt", "a"), user, ("gpt", "b"), ("gpt", "c")),
         ["answer: it follows no request", "", "answer: it follows no request"]),
        (conversation(user), ["conversation: no answer"]),
        (conversation(), ["row: not as upstream"]),
        (conversation(user, CALL, tools=()), ["gold: a tool that is not offered"]),
        (conversation(user, CALL, tools=[TOOL, {**TOOL, "description": ""}]),
         ["tool: two of one name and two schemas"]),
        (conversation(user, CALL, tools=[3]), ["tool: its schema cannot be read"]),
        (conversation(user, (["gpt"], "a")), ["row: not as upstream"]),
        (conversation(user, ("gpt", 3)), ["row: not as upstream"]),
        ({"tools": "["}, ["row: not as upstream"]),
        (7, ["row: not as upstream"]),
    ]  # fmt: skip
    found = read(tmp_path, *(case for case, _ in cases))
    assert ["" if isinstance(f, Found) else f.reason for f in found] == [r for _, reasons in cases for r in reasons]


def test_real_rows(real_data: Path):
    found = list(glaive.read(real_data / "glaive-demo"))
    rows = [f.example for f in found if isinstance(f, Found)]
    assert Counter("" if isinstance(f, Found) else f.reason for f in found) == {
        "": 667,
        "gold: arguments that the schema refuses": 1,
        "gold: a placeholder instead of a value": 1,
    }
    assert Counter("call" if r.calls else r.stratum for r in rows) == {
        "call": 209, "": 211, "small_talk": 153, "tool_missing": 47, "parameter_missing": 47}  # fmt: skip
    assert len({r.id for r in rows}) == len(rows) and len({r.pattern for r in rows}) == 300
