"""In: invented rows in API-Bank's layout, and the real ones. Out: which are found, why others are not."""

import json
from collections import Counter
from pathlib import Path

import pytest

from toolformer.data.sources import api_bank
from toolformer.data.sources.call_rows import UnusableError
from toolformer.data.sources.call_text import read_calls
from toolformer.data.sources.source import Found

FOUND = "API-Request: [ToolSearcher(keywords='x')]->" + str(
    {"name": "Tide", "description": "d", "input_parameters": {"port": {"type": "str", "description": "p"}}}
)
KINDS = {"city": "str", "nights": "int", "day": "date", "view": "str"}
CALLED = "API-Request: [Tide(port='Ems')]->{'metres': 3}"


def row(output, *steps, request="User: Tide?TIME: 2034-01-01 10:00:00"):
    steps = "".join(f"{step}\n" for step in steps)
    kind = "AI Response" if output.startswith("AI") else "API Request"
    return {"instruction": "", "input": f'{{"apiCode": "ToolSearcher"}}\n{request}\n{steps}Generate {kind}: ', "output": output}  # fmt: skip  # noqa: E501


def test_rows_are_found_or_set_aside(tmp_path: Path):
    gold = "API-Request: [Tide(port='Ems')]"
    cases = [
        (row(gold, FOUND), ""),
        (row(gold, FOUND, CALLED, FOUND), ""),
        (row("API-Request: [ToolSearcher(keywords='x')]", FOUND), "gold: a search for a tool"),
        (row("API-Request: [Tide(port=it's)]", FOUND), "gold: a call that cannot be read"),
        (row(gold, FOUND, CALLED.replace("'Ems'", "'Ems")), "conversation: a call that cannot be read"),
        (row(gold), "gold: a tool that is not offered"),
        (row("API-Request: [Tide()]", FOUND), "gold: arguments that the schema refuses"),
        (row(gold, FOUND.replace("'str'", "str")), "tool: its schema cannot be read"),
        (row(gold, FOUND, FOUND.replace("'d'", "'e'")), "tool: two of one name and two schemas"),
        (row(gold, FOUND.replace("{'type': 'str', 'description': 'p'}", "{'none'}")),
         "tool: its schema cannot be read"),
        (row("Tide(port='Ems')", FOUND), "row: not as upstream"),
        (row(gold, FOUND, request="Tide?"), "row: not as upstream"),
        ({"input": 3}, "row: not as upstream"),
    ]  # fmt: skip
    (tmp_path / "lv3-api-train.json").write_text(json.dumps([case for case, _ in cases]))
    (tmp_path / "lv3-response-train.json").write_text(json.dumps([row("AI: Three metres.\n", FOUND, CALLED)]))
    found = list(api_bank.read(tmp_path))
    assert ["" if isinstance(f, Found) else f.reason for f in found] == [*(reason for _, reason in cases), ""]
    first, second, answer = (found[i].example for i in (0, 1, -1))
    assert first.messages[0].content == "Tide?\nThe current time is 2034-01-01 10:00:00."
    assert first.pattern == answer.pattern == "api-bank/Tide?"
    assert [m.role for m in second.messages] == ["user", "assistant", "tool"] and len(second.tools) == 1
    assert (answer.calls, answer.reply, answer.id) == ((), "Three metres.", "api-bank/lv3-response-train/1")


def test_bare_words_are_a_text(tmp_path: Path):
    tool = repr({"name": "Stay", "description": "", "input_parameters": {k: {"type": t} for k, t in KINDS.items()}})
    found = FOUND.partition("->")[0] + "->" + tool
    gold = "API-Request: [Stay(city=New York, nights=3, day=2034-04-15, view='sea')]"
    (tmp_path / "lv3-api-train.json").write_text(json.dumps([row(gold, found)]))
    (tmp_path / "lv3-response-train.json").write_text("[]")
    (stay,) = api_bank.read(tmp_path)
    assert isinstance(stay, Found)
    assert stay.example.calls[0].arguments == {"city": "New York", "nights": 3, "day": "2034-04-15", "view": "sea"}


def test_call_text():
    calls = read_calls("""[A b.c(x="it's )", y=[true, None, {'k': -1.5}]), Tide (metric)(), D(z='a\\'b')]""", ["Tide (metric)"])  # fmt: skip  # noqa: E501
    assert [(c.name, c.arguments) for c in calls] == [
        ("A b.c", {"x": "it's )", "y": [True, None, {"k": -1.5}]}),
        ("Tide (metric)", {}),
        ("D", {"z": "a'b"}),
    ]
    bad = ["[]", "", "A(x=1)", "[A(x=1]", "[A(1)]", "[A(**b)]", "[A(x=b)]", "[A]", "[A(x='1)]", "[(x=1)]", "[A(x=1, x=2)]", "[A(" + "[" * 9999 + ")]", "[A(x=1) and B()]]"]  # fmt: skip  # noqa: E501
    for text in bad:
        with pytest.raises(UnusableError):
            read_calls(text)


def test_real_rows(real_data: Path):
    found = list(api_bank.read(real_data / "api-bank"))
    rows = [f.example for f in found if isinstance(f, Found)]
    assert Counter("" if isinstance(f, Found) else f.reason for f in found if f.place.startswith("lv3-api")) == {
        "": 380,
        "gold: a search for a tool": 462,
        "tool: its schema cannot be read": 52,
        "gold: a tool that is not offered": 2,
        "gold: arguments that the schema refuses": 1,
        "gold: a placeholder instead of a value": 8,
        "gold: a call that cannot be read": 1,
        "conversation: a call that cannot be read": 1,
    }
    assert Counter("" if isinstance(f, Found) else f.reason for f in found if f.place.startswith("lv3-res")) == {
        "": 300,
        "tool: its schema cannot be read": 37,
        "conversation: a call that cannot be read": 1,
    }
    assert len({r.id for r in rows}) == len(rows) == 680
