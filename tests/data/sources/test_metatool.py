"""In: small files as MetaTool writes them, and the real ones. Out: whether queries and tools are right."""

import json
from collections import Counter

import pytest
from data.sources.counted import counted

from toolformer.data.sources.metatool import SOURCE
from toolformer.data.sources.source import SetAside

TOLD = {"Chess": "Plays chess.", "Maps": " Draws maps. ", "News": "Reads the news."}


def prompt(*names):
    lines = "\n".join(f"{i}. tool name: {name}, tool description: ['old']" for i, name in enumerate(names, start=1))
    start, end = (f"[List of Tools with Names and Descriptions {word}]" for word in ("Start", "End"))
    return f"Choose.\n{start}\n{lines}\n\n{end}\nquery: x tool: None\n1. tool name: Outside, tool description: no"


PAIRS = """Query,Tool
"Show me, please, Rome",Maps
Play a game,Chess
play  a GAME,News
What is new?,News
,Chess
Fly,Wings
only one field
"""
TWO = [
    {"query": "Rome in the news", "tool": ["Maps", "News"], "action_prompt": prompt("News", "Chess", "Maps")},
    {"query": "Rome in the news", "tool": ["Maps", "News"], "action_prompt": prompt("News", "Chess")},
    {"query": "Rome", "tool": ["Maps"], "action_prompt": prompt("Maps")},
]
NONE = [
    {"query": "Rome?", "tool": "Maps", "action_prompt": prompt("News", "Chess")},
    {"query": "Rome?", "tool": "Maps", "action_prompt": prompt("News", "Maps")},
    {"query": "Rome?", "tool": "Maps", "action_prompt": prompt("Wings")},
    {"query": "Rome?", "tool": "Maps", "action_prompt": "no list"},
    None,
]
NEEDED = [
    {"query": "Write an essay.", "label": "negative"},
    {"query": "What is NEW?", "label": "positive", "tool": "News"},
    {"query": "Teach me chess", "label": "positive", "tool": "Chess"},
    {"query": "Teach me to fly", "label": "positive", "tool": "Wings"},
    {"query": "Maybe", "label": "perhaps"},
]


@pytest.fixture
def small(tmp_path):
    (tmp_path / "all_clean_data.csv").write_text(PAIRS)
    (tmp_path / "plugin_des.json").write_text(json.dumps(TOLD))
    for name, rows in (("Task2-Subtask4", TWO), ("Task2-Subtask3", NONE), ("Task1", NEEDED)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def test_rows(small):
    rows = {row.place: row for row in SOURCE.read(small)}
    assert {place: row.reason for place, row in rows.items() if isinstance(row, SetAside)} == {
        "all_clean_data.csv:3": "query: labelled with several tools",
        "all_clean_data.csv:4": "query: labelled with several tools",
        "all_clean_data.csv:6": "row: not as upstream",
        "all_clean_data.csv:7": "row: unknown tool",
        "all_clean_data.csv:8": "row: not as upstream",
        "Task2-Subtask4.json:2": "row: unknown tool",
        "Task2-Subtask4.json:3": "row: not as upstream",
        "Task2-Subtask3.json:2": "no tool fits: the gold tool is listed",
        "Task2-Subtask3.json:3": "row: unknown tool",
        "Task2-Subtask3.json:4": "row: unknown tool",
        "Task2-Subtask3.json:5": "row: not as upstream",
        "Task1.json:2": "query: it is in all_clean_data",
        "Task1.json:4": "row: unknown tool",
        "Task1.json:5": "row: not as upstream",
    }
    pair = rows["all_clean_data.csv:2"]
    assert pair.example.messages[0].content == "Show me, please, Rome"
    assert [call.name for call in pair.example.calls] == ["Maps"] and pair.offered[0].tool.description == "Draws maps."
    two = rows["Task2-Subtask4.json:1"]
    assert [call.name for call in two.example.calls] == ["Maps", "News"]
    assert [o.tool.name for o in two.offered] == ["News", "Chess", "Maps"]  # upstream's list, in its order
    none = rows["Task2-Subtask3.json:1"]
    assert none.example.calls == () and none.example.stratum == "tool_missing" and len(none.offered) == 2
    needed = rows["Task1.json:1"]
    assert needed.example.calls == () and needed.example.stratum == "small_talk" and needed.offered == ()
    assert [call.name for call in rows["Task1.json:3"].example.calls] == ["Chess"]
    assert {o.tool.name for o in SOURCE.tools(small)} == set(TOLD)


def test_a_field_without_end_is_one_broken_row(small):
    (small / "all_clean_data.csv").write_text('Query,Tool\n"' + "x" * 200_000)
    reasons = [row.reason for row in SOURCE.read(small) if row.place.startswith("all")]
    assert reasons == ["row: not as upstream"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("all_clean_data.csv", "Tool,Query\n", r"all_clean_data.csv:1: the columns are \['Tool', 'Query'\]"),
        ("plugin_des.json", '{"Chess": 1}', r"plugin_des.json:1: 'Chess' has no text"),
        ("Task1.json", "{}", r"Task1.json:1: holds a dict, a list is wanted"),
    ],
)
def test_broken_files_are_named(small, name, content, message):
    (small / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(SOURCE.read(small))


def test_real_rows(real_data, tmp_path):
    folder = real_data / "metatool"
    found, _, rows, aside = counted(SOURCE, folder, tmp_path / "out")
    assert aside == {"query: it is in all_clean_data": 519, "query: labelled with several tools": 29}
    assert rows == 20_614 + 497 + 995 + 1_040 - 519 - 29
    assert Counter((row.example.id.split("/")[1], row.example.stratum, len(row.offered)) for row in found) == {
        ("pair", "", 1): 20_585,
        ("two", "", 10): 497,
        ("none", "tool_missing", 10): 995,
        ("needed", "small_talk", 0): 520,
        ("needed", "", 1): 1,
    }
    golden = json.loads((folder / "multi_tool_query_golden.json").read_text())
    two = [row.example for row in found if len(row.example.calls) == 2]
    assert [(e.messages[0].content, [c.name for c in e.calls]) for e in two] == [
        (row["query"].strip(), row["tool"]) for row in golden
    ]
    assert len(list(SOURCE.tools(folder))) == 199
