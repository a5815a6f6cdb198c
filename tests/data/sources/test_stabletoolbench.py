"""In: small files as StableToolBench writes them, and the real ones. Out: whether requests, APIs and gold are right."""

import json
from collections import Counter

import pytest
from data.sources.counted import counted

from toolformer.data.sources.source import SetAside
from toolformer.data.sources.stabletoolbench import FILES, SOURCE

CITY = {"name": "city", "type": "STRING", "description": "Which city.", "default": ""}
DAYS = {"name": "days", "type": "NUMBER", "description": "", "default": "3"}


def api(tool, name, required=(), optional=(), **more):
    told = {"category_name": "Weather", "tool_name": tool, "api_name": name, "api_description": " Tells it. "}
    return {**told, "required_parameters": [*required], "optional_parameters": [*optional], "method": "GET", **more}


def row(apis, gold, **more):
    return {"query": "How warm is it?", "query_id": 7, "api_list": apis, "relevant APIs": gold, **more}


NOW, LATER = api("My Weather", "/Now/", [CITY], [DAYS]), api("My Weather", "Later", api_description=None)
ROWS = [
    row([NOW, LATER], [["My Weather", "Later"], ["My Weather", "/Now/"], ["My Weather", "Later"]]),
    row([NOW], [["My Weather", "Later"]]),
    row([NOW, api("my weather", "now")], [["My Weather", "/Now/"]]),
    row([api("A", "b", [{**CITY, "type": "CITY"}])], [["A", "b"]]),
    row([NOW], []),
    row([{"tool_name": "A"}], [["A", "b"]]),
    row([NOW], [["My Weather", "/Now/"]], query=" "),
    row([NOW], [[{"a": 1}, "/Now/"]]),
    row([{**NOW, "api_name": None}], [["My Weather", None]]),
    "text",
]


@pytest.fixture
def small(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(json.dumps(ROWS if name == FILES[0] else []))
    return tmp_path


def test_rows(small):
    first, *rest = SOURCE.read(small)
    assert [(r.place, r.reason) for r in rest if isinstance(r, SetAside)] == [
        ("G1_instruction.json:2", "gold: an API that is not among the candidates"),
        ("G1_instruction.json:3", "tool: two candidates of one name"),
        ("G1_instruction.json:4", "tool: its schema cannot be read"),
        ("G1_instruction.json:5", "row: not as upstream"),
        ("G1_instruction.json:6", "row: not as upstream"),
        ("G1_instruction.json:7", "row: not as upstream"),
        ("G1_instruction.json:8", "row: not as upstream"),
        ("G1_instruction.json:9", "row: not as upstream"),
        ("G1_instruction.json:10", "row: not as upstream"),
    ]
    assert first.example.id == "stabletoolbench/G1_instruction/7" and first.upstream == "test"
    assert [call.name for call in first.example.calls] == ["later_for_my_weather", "now_for_my_weather"]  # a set
    assert all(call.arguments == {} for call in first.example.calls)
    now, later = (offered.tool for offered in first.offered)
    assert now.description == "Tells it." and later.description == "" and first.offered[0].domain == "Weather"
    assert now.parameters["required"] == ["city"] and list(now.parameters["properties"]) == ["city", "days"]
    assert now.parameters["properties"]["days"] == {"type": "number", "description": "", "default": 3}


def test_a_gold_call_without_required_arguments_is_kept(small, tmp_path):
    assert SOURCE.selects_only and SOURCE.evaluates_only
    _, _, rows, aside = counted(SOURCE, small, tmp_path / "out")
    assert rows == 1 and sum(aside.values()) == 9


def test_real_rows(real_data, tmp_path):
    found, _, rows, aside = counted(SOURCE, real_data / "stabletoolbench", tmp_path / "out")
    assert (rows, aside) == (765, {})
    assert Counter(len(row.example.calls) for row in found)[2] == 525 + 2  # of three, one was listed twice
    assert len({offered.tool.name for row in found for offered in row.offered}) == 2_479
