"""In: small files as SNIPS and NLU-Evaluation-Data write them, and the real ones. Out: whether rows come out right."""

import json
from pathlib import Path

import pytest
from data.sources.counted import counted

from toolformer.data.sources import nlu_evaluation_data as nlu
from toolformer.data.sources import snips
from toolformer.data.sources.slot_tools import Part, read_slot_tools, template_of
from toolformer.data.sources.source import Found, SetAside
from toolformer.records import Message
from toolformer.schemas import validate

INTENTS = list(read_slot_tools(snips.TOOLS, str))


def said(*parts):
    """``("play ", ("jazz", "genre"))`` as SNIPS writes it."""
    return {"data": [{"text": p} if isinstance(p, str) else {"text": p[0], "entity": p[1]} for p in parts]}


@pytest.fixture
def small_snips(tmp_path) -> Path:
    rows: dict[str, list] = {
        "PlayMusic": [
            said("play ", ("Café del Mar", "album"), " by ", ("Energía", "artist"), "  "),
            said(("jazz", "genre"), " or ", ("rock", "genre")),
            said("play ", ("jazz", "mood")),
            said("play ", (" ", "genre")),
            said(" "),
            {"data": [{"text": 5}]},
            {"text": "play jazz"},
        ],
        "RateBook": [said("rate it"), said("give ", ("this", "object_select"), " book ", ("4", "rating_value"))],
    }
    for split, pattern in snips.FILES.items():
        for intent in INTENTS:
            name = pattern.format(intent)
            text = json.dumps({intent: rows.get(intent, []) if split == "train" else []}, ensure_ascii=False)
            (tmp_path / name).write_text(text, encoding="latin-1" if name in snips.LATIN_1 else "utf-8")
    return tmp_path


def test_snips(small_snips):
    rows = {row.place: row for row in snips.SOURCE.read(small_snips)}
    row = rows["train_PlayMusic_full.json:1"]
    assert isinstance(row, Found) and row.upstream == "train"
    assert row.example.messages == (Message("user", "play Café del Mar by Energía"),)
    assert row.example.calls[0].arguments == {"album": "Café del Mar", "artist": "Energía"}
    assert row.example.pattern == "PlayMusic: play [album] by [artist]"
    assert row.example.tools == (row.offered[0].tool.id,)
    assert [(row.place.split(":")[1], row.reason) for row in rows.values() if isinstance(row, SetAside)] == [
        ("2", "a slot with two values"),
        ("3", "a slot that the tool does not have"),
        ("4", "a slot without text"),
        ("5", "row: no text"),
        ("6", "row: not as upstream"),
        ("7", "row: not as upstream"),
    ]
    assert json.loads(rows["train_PlayMusic_full.json:7"].text) == {"text": "play jazz"}
    rated = rows["train_RateBook_full.json:2"].example.calls[0]
    assert rated.arguments == {"which": "this", "rating": "4"}  # in the schema's order, under the schema's names


def test_snips_without_a_required_value_is_refused_by_the_corpus(small_snips, tmp_path):
    """``rate it`` has no rating: upstream always has one, so the source need not look."""
    _, _, rows, aside = counted(snips.SOURCE, small_snips, tmp_path / "out")
    assert rows == 2 and aside.pop("gold lacks a required argument") == 1 and sum(aside.values()) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "train_AddToPlaylist_full.json: there is no such file, nor train_AddToPlaylist_full.json.gz"),
        (b"{", r"train_AddToPlaylist_full.json:1: not JSON"),
        (b"[1]", r"train_AddToPlaylist_full.json:1: holds a list, a dict is wanted"),
        (b"{}", r"train_AddToPlaylist_full.json:1: has no list 'AddToPlaylist'"),
        (b'{"a": "\xe9"}', r"train_AddToPlaylist_full.json:1: cannot be read"),
        (b"[" * 100_000, r"train_AddToPlaylist_full.json:1: nested too deeply"),
    ],
)
def test_a_file_that_is_missing_or_broken_is_named(small_snips, content, message):
    path = small_snips / "train_AddToPlaylist_full.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list(snips.SOURCE.read(small_snips))


ALARMS = """answerid;scenario;intent;answer_annotation;answer_from_anno;answer_from_user
1;alarm;set;"wake me at  [time : six am] [date : tomorrow]";"x";"x"
2;alarm;set;"wake me";"x";"x"
3;alarm;set;"at [time : six] and [time : seven]";"x";"x"
4;alarm;set;"in the [currency_name : yen]";"x";"x"
5;alarm;set;"at [time : six";"x";"x"
6;alarm;query;"wrong file";"x";"x"
7;alarm;set
8;alarm;set;"";"x";"x"
"""
RATES = """answerid;scenario;intent;answer_annotation;answer_from_anno;answer_from_user
1;qa;currency;"how many [currency_name : euros] for one [currency_name : yen]";"x";"x"
"""
JOKES = """answerid;scenario;intent;answer_annotation;answer_from_anno;answer_from_user
1;general;joke;"tell me a [joke_type : knock knock] joke";"x";"x"
"""


@pytest.fixture
def small_nlu(tmp_path) -> Path:
    texts = {"alarm_set": ALARMS, "qa_currency": RATES, "general_joke": JOKES}
    header = ALARMS.partition("\n")[0] + "\n"
    for split, folder in nlu.FOLDERS.items():
        (tmp_path / folder).mkdir()
        for intent in [*read_slot_tools(nlu.TOOLS, str), *nlu.SMALL_TALK]:
            (tmp_path / folder / f"{intent}.csv").write_text(texts.get(intent, header) if split == "train" else header)
    return tmp_path


def test_nlu(small_nlu):
    rows = {row.place: row for row in nlu.SOURCE.read(small_nlu)}
    row = rows["trainset/alarm_set.csv:2"]
    assert row.example.messages[0].content == "wake me at  six am tomorrow"
    assert row.example.calls[0].name == "set_alarm" and row.offered[0].domain == "alarm"
    assert row.example.calls[0].arguments == {"time": "six am", "date": "tomorrow"}
    assert row.example.pattern == "alarm_set: wake me at [time] [date]"
    assert rows["trainset/alarm_set.csv:3"].example.calls[0].arguments == {}
    assert [(row.place, row.reason) for row in rows.values() if isinstance(row, SetAside)] == [
        ("trainset/alarm_set.csv:4", "a slot with two values"),
        ("trainset/alarm_set.csv:5", "a slot that the tool does not have"),
        ("trainset/alarm_set.csv:6", "row: the annotation cannot be read"),
        ("trainset/alarm_set.csv:7", "row: not as upstream"),
        ("trainset/alarm_set.csv:8", "row: not as upstream"),
        ("trainset/alarm_set.csv:9", "row: the annotation cannot be read"),
    ]
    rate = rows["trainset/qa_currency.csv:2"].example.calls[0]
    assert rate.arguments == {"currencies": ["euros", "yen"]}  # a slot that often comes twice is a list
    joke = rows["trainset/general_joke.csv:2"]
    assert joke.example.calls == () and joke.offered == () and joke.example.stratum == "small_talk"
    assert joke.example.messages[0].content == "tell me a knock knock joke"


def test_nlu_columns_that_moved_are_refused(small_nlu):
    path = small_nlu / "trainset" / "alarm_set.csv"
    path.write_text(path.read_text().replace("answerid;", "id;", 1))
    with pytest.raises(ValueError, match=r"alarm_set.csv:1: the columns are"):
        list(nlu.SOURCE.read(small_nlu))


@pytest.mark.parametrize("source", [snips, nlu], ids=lambda module: module.NAME)
def test_every_tool_is_described(source):
    tools = [one.offered.tool for one in read_slot_tools(source.TOOLS, str).values()]
    assert len({tool.name for tool in tools}) == len(tools)
    for tool in tools:
        validate(tool, "tools")
        assert tool.description.endswith(".") and tool.name.isidentifier()
        for name, spec in tool.parameters["properties"].items():
            assert name.isidentifier() and name == name.lower() and spec["description"].endswith(".")


def test_a_template_keeps_what_is_said_around_values():
    assert template_of("a", [Part("Play  "), Part("Jazz", "genre"), Part(" NOW ")]) == "a: play [genre] now"


def assert_values_are_said(rows):
    for row in rows:
        for value in (value for call in row.example.calls for value in call.arguments.values()):
            for text in value if isinstance(value, list) else [value]:
                assert text and text in row.example.messages[0].content


def test_real_snips(real_data, tmp_path):
    found, _, rows, aside = counted(snips.SOURCE, real_data / "snips", tmp_path / "out")
    assert rows == 13_784 + 700 - 61 and aside == {"a slot with two values": 61}
    assert_values_are_said(found)


def test_real_nlu(real_data, tmp_path):
    found, _, rows, aside = counted(nlu.SOURCE, real_data / "nlu-evaluation-data", tmp_path / "out")
    assert rows == 9_960 + 1_076 - 127
    assert aside == {"a slot with two values": 113, "a slot that the tool does not have": 14}
    assert sum(row.example.stratum == "small_talk" for row in found) == 1_868
    assert_values_are_said(found)
