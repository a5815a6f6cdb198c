"""In: invented rows in xLAM's layout, and the real ones where they are. Out: which are found, why others are not."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from toolformer.data.sources import xlam
from toolformer.data.sources.source import Found
from toolformer.records import ToolCall

TOOL = {
    "name": "tide",
    "description": "Tells the tide.",
    "parameters": {
        "port": {"type": "str", "description": "Where"},
        "days": {"type": "int, optional", "description": "How many"},
        "unit": {"type": "str", "description": "Metres or feet", "default": "m"},
    },
}
GOOD = {"days": 2, "port": "Ems"}


def line(id_, arguments, tools=(TOOL,), name="tide", query="Tide at Ems?"):
    answers = [{"name": name, "arguments": arguments}] if arguments is not None else []
    return json.dumps({"id": id_, "query": query, "answers": json.dumps(answers), "tools": json.dumps(tools)})


def test_rows_are_found_or_set_aside(tmp_path: Path):
    other = {**TOOL, "description": "Another."}
    unknown = {"name": "tide", "parameters": {"port": {"type": "harbour"}}}
    rows = [
        (line(7, GOOD), ""),
        (line(8, GOOD, [TOOL, TOOL]), ""),
        (line(7, GOOD), "row: its id is taken"),
        (line(9, GOOD, [TOOL, other]), "tool: two of one name and two schemas"),
        (line(10, {"days": 2}), "gold: arguments that the schema refuses"),
        (line(11, {"port": "Ems", "days": "two"}), "gold: arguments that the schema refuses"),
        (line(12, {"port": "Ems", "wind": 1}), "gold: an argument that its tool does not declare"),
        (line(13, GOOD, name="tides"), "gold: a tool that is not offered"),
        (line(14, {"port": "Ems", "days": float("nan")}), "row: text or values that JSON cannot hold"),
        (line(15, {"port": "\ud800"}), "row: text or values that JSON cannot hold"),
        (line(23, {"port": "your_port"}), "gold: a placeholder instead of a value"),
        (line(24, {"port": "<b>"}), "gold: a placeholder instead of a value"),
        (line(25, {"port": "<b>"}, query="Is <b> a port?"), ""),
        (line(26, {"port": " "}), "gold: a placeholder instead of a value"),
        (line(16, None), "gold: no call"),
        (line(17, GOOD, query=" "), "row: not as upstream"),
        (line(18, GOOD, [unknown]), "tool: its schema cannot be read"),
        (line(19, GOOD)[:-9], "row: not as upstream"),
        (json.dumps({"id": 20}), "row: not as upstream"),
        ("[]", "row: not as upstream"),
        ("[" * 5000, "row: not as upstream"),
    ]
    raw = "\n".join(text for text, _ in rows).encode() + b"\n\n" + line(21, GOOD).encode().replace(b"Ems", b"\xff", 1)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(raw))
    (tmp_path / xlam.FULL).write_text(f"[{line(22, GOOD)}, 3]")
    found = list(xlam.read(tmp_path))
    more = ["row: not as upstream", "", "row: not as upstream"]  # no UTF-8, and the two of the hub's file
    assert ["" if isinstance(f, Found) else f.reason for f in found] == [reason for _, reason in rows] + more
    assert [found[0].place, found[-3].place, found[-1].place] == ["a.jsonl:1", "a.jsonl:23", f"{xlam.FULL}:2"]
    assert found[20].text == "[" * 5000
    first = found[0]
    assert first.example.calls == (ToolCall("tide", GOOD),)
    assert list(first.example.calls[0].arguments) == ["port", "days"]  # in the schema's order
    assert (first.example.id, first.example.stratum) == ("xlam-1000/train/7", "")
    assert first.offered[0].tool.parameters["required"] == ["port"]
    assert len(found[1].offered) == 1


def test_a_folder_without_files_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*hf auth login"):
        list(xlam.read(tmp_path))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}" * 99)[:-12])
    with pytest.raises(ValueError, match="a.jsonl:1: cannot be read"):
        list(xlam.read(tmp_path))


def test_real_rows(real_data: Path):
    found = list(xlam.read(real_data / "xlam-1000"))
    assert Counter("" if isinstance(f, Found) else f.reason for f in found) == {
        "": 820,
        "gold: arguments that the schema refuses": 22,
        "tool: two of one name and two schemas": 5,
        "gold: a placeholder instead of a value": 3,
    }
    assert len({f.example.id for f in found if isinstance(f, Found)}) == 820
