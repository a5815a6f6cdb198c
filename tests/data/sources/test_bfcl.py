"""In: small files as BFCL writes them, and the real ones. Out: whether requests and accepted values are right."""

import json
from collections import Counter

import pytest
from data.sources.counted import counted

from toolformer.data.sources.bfcl import FILES, SOURCE, WITHOUT_GOLD
from toolformer.data.sources.source import Found, SetAside
from toolformer.records import Message, ToolCall

ADD = {
    "name": "math.add",
    "description": "Adds.",
    "parameters": {
        "type": "dict",
        "properties": {
            "a": {"type": "float"},
            "b": {"type": "integer", "default": 1},
            "unit": {"type": "string"},
            "range": {"type": "dict"},
            "items": {"type": "array", "items": {"type": "dict"}},
        },
        "required": ["a"],
    },
}


def row(name, functions=(ADD,), messages=({"role": "user", "content": "How much?"},)):
    return {"id": name, "question": [[*messages]], "function": [*functions]}


@pytest.fixture
def folder(tmp_path):
    """Writes rows with their gold as one category; all other files are there and empty."""
    (tmp_path / "possible_answer").mkdir()
    for category, name in FILES.items():
        (tmp_path / name).write_text("")
        if category not in WITHOUT_GOLD:
            (tmp_path / "possible_answer" / name).write_text("")

    def write(category, rows, gold=()):
        (tmp_path / FILES[category]).write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
        if gold:
            lines = [json.dumps({"id": r["id"], "ground_truth": g}) for r, g in zip(rows, gold, strict=True)]
            (tmp_path / "possible_answer" / FILES[category]).write_text("\n".join(lines))
        return list(SOURCE.read(tmp_path))

    return write


def gold_call(folder, listed):
    (found,) = folder("multiple", [row("multiple_1")], [[{"math.add": listed}]])
    return found.example.calls[0] if isinstance(found, Found) else found.reason


UNFIT = "gold: no accepted value fits its parameter"


@pytest.mark.parametrize(
    ("listed", "call"),
    [
        ({"a": [1]}, ToolCall("math.add", {"a": 1})),
        ({"b": [2, 3], "a": [1.5]}, ToolCall("math.add", {"a": 1.5, "b": 2}, {"b": [3]})),  # the schema's order
        ({"a": [1], "b": ["", 2]}, ToolCall("math.add", {"a": 1, "b": 2}, {}, ("b",))),
        ({"a": [1], "unit": ["km", ""]}, ToolCall("math.add", {"a": 1, "unit": "km"}, {}, ("unit",))),
        ({"a": [1], "b": [""]}, ToolCall("math.add", {"a": 1}, {}, ("b",))),
        ({"a": [1], "b": ["", None]}, ToolCall("math.add", {"a": 1}, {"b": [None]}, ("b",))),
        ({"a": [1], "b": ["2", 2]}, ToolCall("math.add", {"a": 1, "b": 2}, {"b": ["2"]})),  # the first that fits
        ({"a": ["", 1]}, ToolCall("math.add", {"a": 1}, {"a": [""]})),  # required: may not be left out
        ({"a": [1], "unit": ["km", "km"]}, ToolCall("math.add", {"a": 1, "unit": "km"})),
        ({"a": [1], "none": ["", 3]}, ToolCall("math.add", {"a": 1})),  # the tool has no such parameter
        (
            {"a": [1], "range": [{"min": [1, 2], "max": [5, ""]}]},
            ToolCall(
                "math.add",
                {"a": 1, "range": {"min": 1, "max": 5}},
                {"range": [{"min": 1}, {"min": 2, "max": 5}, {"min": 2}]},
            ),
        ),
        ({"a": [1], "range": [{"min": 7}]}, ToolCall("math.add", {"a": 1, "range": {"min": 7}})),  # a bare value
        (
            {"a": [1], "items": [[{"n": ["x", "y"]}, {"n": ["z"]}]]},
            ToolCall("math.add", {"a": 1, "items": [{"n": "x"}, {"n": "z"}]}, {"items": [[{"n": "y"}, {"n": "z"}]]}),
        ),
        ({"a": ["width"]}, UNFIT),  # a variable's name where a number is wanted
        ({"a": [1], "b": ["two"]}, UNFIT),
        ({"a": [1], "none": [3]}, "gold: a parameter that the tool does not have"),
        ({"a": [1], "b": []}, "gold: not as upstream"),
        ({"a": 1}, "gold: not as upstream"),
        ({"a": [1], "range": [{str(i): [1, 2] for i in range(9)}]}, "gold: too many combinations are accepted"),
    ],
)
def test_accepted_values(folder, listed, call):
    found = gold_call(folder, listed)
    assert found == call
    if isinstance(call, ToolCall):
        assert list(found.arguments) == [key for key in ADD["parameters"]["properties"] if key in found.arguments]


def test_rows(folder):
    other = {**ADD, "name": "sub"}
    said = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Both?"})
    rows = [row("parallel_1", (ADD, other), said), row("parallel_2"), row("parallel_3"), row("parallel_4")]
    gold = [[{"sub": {"a": [1]}}, {"math.add": {"a": [2]}}], [{"mul": {"a": [1]}}], [], [{"a": {}, "b": {}}]]
    first, *rest = folder("parallel", rows, gold)
    assert first.example.id == "bfcl-v4/parallel/parallel_1" and first.upstream == "test"
    assert first.example.messages == (Message("system", "Be brief."), Message("user", "Both?"))
    assert [call.name for call in first.example.calls] == ["sub", "math.add"]
    assert [offered.tool.name for offered in first.offered] == ["math.add", "sub"]
    assert [r.reason for r in rest] == [
        "gold: a call of no tool on offer",
        "gold: there is none",
        "gold: not as upstream",
    ]


def test_rows_without_a_gold_call(folder):
    found, bare = folder("live_irrelevance", [row("live_irrelevance_1"), row("live_irrelevance_2", ())])
    assert found.example.calls == () and found.example.stratum == "tool_missing" and len(found.offered) == 1
    assert isinstance(bare, Found) and bare.offered == ()
    folder("live_irrelevance", [])
    (due,) = folder("live_relevance", [row("live_relevance_1")])
    assert due == SetAside("BFCL_v4_live_relevance.json:1", "gold: some call is due, and none is named", due.text)


def test_broken_lines(folder):
    bad = {**ADD, "parameters": {"type": "dict", "properties": {"a": {"type": "city"}}}}
    half = {**ADD, "description": "\ud800"}
    answered = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
    rows = ["{", "[]", row("x", (ADD, ADD)), row("x", (bad,)), row("x", messages=answered), row("x", messages=({},))]
    rows.append(row("x", (half,)))
    found = folder("live_irrelevance", rows)
    assert [(r.place, r.reason) for r in found] == [
        ("BFCL_v4_live_irrelevance.json:1", "row: not as upstream"),
        ("BFCL_v4_live_irrelevance.json:2", "row: not as upstream"),
        ("BFCL_v4_live_irrelevance.json:3", "tool: two of one name"),
        ("BFCL_v4_live_irrelevance.json:4", "tool: its schema cannot be read"),
        ("BFCL_v4_live_irrelevance.json:5", "row: messages that cannot be read"),
        ("BFCL_v4_live_irrelevance.json:6", "row: messages that cannot be read"),
        ("BFCL_v4_live_irrelevance.json:7", "tool: its schema cannot be read"),
    ]
    assert found[0].text == "{"


def test_a_missing_file_is_named(folder, tmp_path):
    (tmp_path / "possible_answer" / FILES["parallel"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"possible_answer/BFCL_v4_parallel.json: there is no such file"):
        list(SOURCE.read(tmp_path))


def test_real_rows(real_data, tmp_path):
    assert SOURCE.evaluates_only
    found, _, rows, aside = counted(SOURCE, real_data / "bfcl-v4", tmp_path / "out")
    assert aside == {
        UNFIT: 33,
        "gold: a parameter that the tool does not have": 2,
        "gold: some call is due, and none is named": 16,
    }
    assert rows == 3_103 - sum(aside.values())
    kept = Counter(row.example.id.split("/")[1] for row in found)
    assert kept == {
        "simple_python": 400,
        "multiple": 200,
        "parallel": 200,
        "parallel_multiple": 198,
        "simple_java": 90,
        "simple_javascript": 42,
        "live_multiple": 1_038,
        "live_irrelevance": 884,
    }
