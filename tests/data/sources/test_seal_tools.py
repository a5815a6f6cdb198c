"""In: invented rows in the layout of Seal-Tools, and the real ones. Out: which are found, why others are not."""

import json
from collections import Counter
from pathlib import Path

import pytest

from toolformer.data.sources import seal_tools
from toolformer.data.sources.source import Found

TYPES = {"location": "str", "depth": "float", "days": "int", "loud": "bool"}
API = {
    "api_name": "getTide",
    "api_description": "Tell the tide's \\d",
    "field": "Sea/Tides",
    "parameters": {name: {"type": kind, "description": "it's"} for name, kind in TYPES.items()},
    "required": ["location"],
    "responses": {},
}
ASKED = {"location": "Ems"}


def write(folder: Path, rows: list[dict], candidates: dict[str, str] | None = None) -> Path:
    (folder / "dataset_for_finetune").mkdir(exist_ok=True)
    for split in seal_tools.SPLITS:
        mine = rows if split == "dev" else []
        prompt = "\napi_list = {}\ntask_instruction = x"
        listed = [(row["id"], (candidates or {}).get(row["id"], str([API]))) for row in mine]
        human = [{"id": i, "conversations": [{"from": "human", "value": prompt.format(apis)}]} for i, apis in listed]
        (folder / "dataset_for_finetune" / f"{split}.json").write_text(json.dumps([*human, 3]))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine))
    (folder / "tool.jsonl").write_text(json.dumps(API) + "\n")
    return folder


def row(id_, parameters, name="getTide", query="Tide of 40.7 m at Ems?"):
    calls = [{"api": name, "parameters": parameters, "responses": ["API_call_0"]}]
    return {"id": id_, "query": query, "calling": calls}


def test_rows_are_found_or_set_aside(tmp_path: Path):
    refused = "gold: arguments that the schema refuses"
    rows = [
        (row("typed", {"loud": "True", "days": "2", "depth": "40.7", "location": "7"}), ""),
        (row("typed", ASKED), seal_tools.CANDIDATES),  # an id of its own is wanted
        (row("wrong", {**ASKED, "days": "2.5"}), refused),
        (row("infinite", {**ASKED, "depth": "Infinity"}), refused),
        (row("deep", {**ASKED, "depth": [0, 0]}), refused),
        (row("result", {"location": "API_call_0 response"}), "gold: it refers to the result of an earlier call"),
        (row("place", {"location": "Country"}), "gold: a placeholder instead of a value"),
        (
            row("open", {"location": "shore"}, query="Tide at a certain shore?"),
            "gold: a placeholder instead of a value",
        ),
        (row("named", {"location": "shore"}, query="Tide at the shore?"), ""),
        (row("invented", {**ASKED, "depth": 7.25}), "gold: a number that was not said"),
        (row("percent", {**ASKED, "depth": 0.04}, query="Tide of 4% at Ems?"), ""),
        (row("spelled", {**ASKED, "depth": "40.7"}, query="40.7 m"), ""),
        (row("other", ASKED, "getTides"), "gold: a tool that is not offered"),
        (row("list", ASKED, ["getTide"]), "row: not as upstream"),
        ({"id": "none", "query": "Tide?", "calling": []}, "gold: no call"),
        ({"id": "field", "calling": []}, "row: not as upstream"),
        (row("literal", ASKED), seal_tools.CANDIDATES),
        (row("twice", ASKED), ""),
        (row("two", ASKED), "tool: two of one name and two schemas"),
    ]
    other = {**API, "api_description": "Another"}
    candidates = {"literal": "[open('x')]", "twice": str([API, API]), "two": str([API, other])}
    found = list(seal_tools.read(write(tmp_path, [r for r, _ in rows], candidates)))
    assert ["" if isinstance(f, Found) else f.reason for f in found] == [reason for _, reason in rows]
    first = found[0]
    assert list(first.example.calls[0].arguments.items()) == [
        ("location", "7"), ("depth", 40.7), ("days", 2), ("loud", True)]  # fmt: skip
    assert first.offered[0].domain == "Sea/Tides"
    assert (first.place, first.upstream, first.example.id) == ("dev.jsonl:1", "dev", "seal-tools/dev/typed")
    assert [o.tool for o in seal_tools.tools(tmp_path)] == [first.offered[0].tool]


def test_a_broken_file_is_named(tmp_path: Path):
    write(tmp_path, [])
    (tmp_path / "tool.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="tool.jsonl:1: no tool of Seal-Tools"):
        list(seal_tools.tools(tmp_path))
    (tmp_path / "dataset_for_finetune" / "dev.json").write_text("[")
    with pytest.raises(ValueError, match="dev.json:1: not JSON"):
        list(seal_tools.read(tmp_path))
    (tmp_path / "dataset_for_finetune" / "dev.json").unlink()
    with pytest.raises(FileNotFoundError, match="dev.json"):
        list(seal_tools.read(tmp_path))


def test_real_rows(real_data: Path):
    found = list(seal_tools.read(real_data / "seal-tools"))
    assert Counter("" if isinstance(f, Found) else f.reason for f in found) == {
        "": 1907,
        "gold: it refers to the result of an earlier call": 85,
        "gold: arguments that the schema refuses": 7,
        "gold: a tool that is not offered": 8,
        "gold: a placeholder instead of a value": 24,
        "gold: a number that was not said": 23,
    }
    assert Counter(f.upstream for f in found if isinstance(f, Found)).keys() == set(seal_tools.SPLITS)
    assert len({f.example.id for f in found if isinstance(f, Found)}) == 1907
    assert all(len(f.offered) == 5 for f in found if isinstance(f, Found))


def test_real_tools(real_data: Path):
    tools = list(seal_tools.tools(real_data / "seal-tools"))
    assert len(tools) == 4076 and len({o.domain for o in tools}) > 100
