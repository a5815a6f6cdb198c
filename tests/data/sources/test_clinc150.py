"""In: a small file as CLINC150 writes it, and the real one. Out: whether queries and tools are right."""

import gzip
import json

import pytest
import yaml
from data.sources.counted import counted

from toolformer.data.sources.clinc150 import SOURCE, TOOLS, tools
from toolformer.data.sources.source import SetAside


@pytest.fixture
def small(tmp_path):
    data = {
        "train": [[" what is my balance ", "balance"], ["fly me to mars", "space_travel"], ["", "balance"], "balance"],
        "val": [["yes", "yes"]],
        "test": [],
        "oos_train": [["who won the cup", "oos"]],
        "oos_val": [],
        "oos_test": [["what size wipers fit", "oos"]],
    }
    (tmp_path / "data_full.json.gz").write_bytes(gzip.compress(json.dumps(data).encode()))
    (tmp_path / "domains.json").write_text(json.dumps({"banking": ["balance"], "meta": ["yes"]}))
    return tmp_path


def test_rows(small):
    rows = list(SOURCE.read(small))
    assert [(row.place, getattr(row, "reason", "")) for row in rows] == [
        ("data_full.json/train:1", ""),
        ("data_full.json/train:2", "row: unknown intent"),
        ("data_full.json/train:3", "row: not as upstream"),
        ("data_full.json/train:4", "row: not as upstream"),
        ("data_full.json/val:1", ""),
        ("data_full.json/oos_train:1", ""),
        ("data_full.json/oos_test:1", ""),
    ]
    first, yes, out = rows[0], rows[4], rows[6]
    assert first.example.messages[0].content == "what is my balance"
    assert first.example.calls[0].name == "balance" and first.example.calls[0].arguments == {}
    assert first.offered[0].domain == "banking" and first.upstream == "train"
    assert yes.example.calls[0].name == "yes" and yes.upstream == "val"  # not YAML's true
    assert out.example.calls == () and out.offered == ()
    assert out.example.stratum == "tool_missing" and out.upstream == "test"
    assert isinstance(rows[1], SetAside) and json.loads(rows[1].text) == ["fly me to mars", "space_travel"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_full.json.gz", b"no gzip", r"data_full.json:1: cannot be read"),
        ("data_full.json.gz", gzip.compress(b"{}")[:-9], r"data_full.json:1: cannot be read"),
        ("data_full.json.gz", gzip.compress(b"{}"), r"data_full.json:1: has no list 'train'"),
        ("domains.json", b"[]", r"domains.json:1: holds a list, a dict is wanted"),
    ],
)
def test_broken_files_are_named(small, name, content, message):
    (small / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(SOURCE.read(small))


def test_every_tool_is_described_in_words_of_its_own():
    told = yaml.safe_load(TOOLS.read_text())
    assert len(told) == len(set(told.values())) == 150
    assert all(isinstance(name, str) and text.endswith(".") for name, text in told.items())


def test_real_rows(real_data, tmp_path):
    found, _, rows, aside = counted(SOURCE, real_data / "clinc150", tmp_path / "out")
    assert rows == 22_500 + 1_200 and aside == {}
    assert sum(row.example.stratum == "tool_missing" for row in found) == 1_200
    domains = json.loads((real_data / "clinc150" / "domains.json").read_text())
    offered = list(tools(real_data / "clinc150"))
    assert {o.tool.name: o.domain for o in offered} == {i: d for d, intents in domains.items() for i in intents}
