"""In: whole and broken files. Out: whether a broken element costs itself alone, and a broken file is an error."""

import gzip
import json
from pathlib import Path

import pytest

from toolformer.data.sources import api_bank, glaive, hermes, sgd, stabletoolbench, toolace
from toolformer.data.sources.files import json_lines, read_list
from toolformer.data.sources.source import SetAside

ROWS = [{"n": 1, "text": "one\n  {\n"}, {"n": 2, "text": "zwölf"}, {"n": 3, "text": "[,]"}]
WHOLE = json.dumps(ROWS, indent=2).encode()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("indent", [4, None])
def test_a_whole_list(tmp_path: Path, name: str, indent: int | None) -> None:
    path = write(tmp_path / name, json.dumps(ROWS, indent=indent).encode())
    assert read_list(path) == read_list(tmp_path / "a.json") == ROWS


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"n": 2', b'"n": 2,,'),
        (b"w\\u00f6", b"w\xff"),
        (b'"text": "zw', b'"text: "zw'),
        (b'"n": 2', b'"n": ' + b"[" * 9999),
    ],
)
def test_a_broken_element_is_its_text(tmp_path: Path, name: str, line_break: bytes, old: bytes, new: bytes) -> None:
    write(tmp_path / name, WHOLE.replace(old, new).replace(b"\n", line_break))
    first, broken, last = read_list(tmp_path / "a.json")
    assert (first, last) == (ROWS[0], ROWS[2])
    assert isinstance(broken, str) and broken.startswith("{") and broken.endswith("}") and "lf" in broken


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"n": 1}',
        WHOLE[:-10],
        json.dumps(ROWS).encode().replace(b'"n": 2', b'"n" 2'),
        b"\xff\xfe",
        b"[\n",
        b"[3, ]",
    ],
)
def test_a_list_that_is_broken_as_a_whole_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.json:\d+: .*download"):
        read_list(write(tmp_path / "a.json", content))


def test_a_file_that_is_missing_or_no_gzip_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"b\.json: there is no such file, nor b\.json\.gz"):
        read_list(tmp_path / "b.json")
    (tmp_path / "c.json.gz").write_bytes(WHOLE)
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(WHOLE)[:-9])
    for name in ("c.json", "d.json", "d.json.gz"):
        with pytest.raises(ValueError, match=rf"{name}:1: cannot be read"):
            read_list(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "files"),
    [
        (glaive.SOURCE, [glaive.FILE]),
        (toolace.SOURCE, [toolace.FILE]),
        (hermes.SOURCE, hermes.FILES),
        (api_bank.SOURCE, [f"{api_bank.CALLS}.json", f"{api_bank.ANSWERS}.json"]),
        (stabletoolbench.SOURCE, stabletoolbench.FILES),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_source_sets_a_broken_element_aside(tmp_path: Path, source, files) -> None:
    for name in files:
        write(tmp_path / name, WHOLE.replace(b'"n": 2', b'"n" 2'))
    found = list(source.read(tmp_path))
    assert [row.place for row in found] == [f"{name}:{n}" for name in files for n in (1, 2, 3)]
    assert all(isinstance(row, SetAside) for row in found) and "zw" in found[1].text


# ---- real rows


@pytest.mark.parametrize(
    ("source", "name", "rows"),
    [
        (api_bank.SOURCE, "lv3-response-train.json", 1245),
        (glaive.SOURCE, glaive.FILE, None),  # a conversation is one row where it cannot be read
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_real_rows_but_one(real_data: Path, tmp_path: Path, source, name: str, rows: int | None) -> None:
    """One byte of a real file goes wrong."""
    folder = tmp_path / source.name
    folder.mkdir()
    for path in (real_data / source.name).iterdir():
        (folder / path.name).symlink_to(path)
    content = (real_data / source.name / name).read_bytes()
    at = content.index(b'": "', len(content) // 2)
    (folder / name).unlink()
    write(folder / name, content[:at] + content[at + 1 :])
    whole, broken = (list(source.read(root)) for root in (real_data / source.name, folder))
    places = {row.place: row for row in broken}
    other = [row for row in whole if places.get(row.place) != row]
    assert 1 <= len(other) <= 12  # a conversation has several rows
    assert len({row.place.split(":")[1] for row in other}) == 1
    assert rows is None or len(whole) == len(broken) == rows


def test_a_broken_dialogue_leaves_the_others(real_data: Path, tmp_path: Path) -> None:
    content = gzip.decompress((real_data / "sgd/dev/dialogues_002.json.gz").read_bytes())
    whole = read_list(write(tmp_path / "a.json", content))
    at = content.index(b'"dialogue_id"', len(content) // 2)
    broken = read_list(write(tmp_path / "b.json", content[:at] + content[at + 1 :]))
    assert len(broken) == len(whole)
    (number,) = [n for n, pair in enumerate(zip(whole, broken, strict=True)) if pair[0] != pair[1]]
    reader = sgd._Reader(real_data)
    turns = [turn for turn in reader.turns(tmp_path / "b.json") if turn.dialogue == number]
    assert len(turns) == 1 and isinstance(turns[0].found, TypeError)


def test_a_line_that_is_no_utf8_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b'{"a": 1}\n\xff{"a": 2}\n\n{"a": 3}\n')
    found = list(json_lines(tmp_path / "rows.json"))
    assert [(number, row) for number, _, row in found] == [(1, {"a": 1}), (2, None), (4, {"a": 3})]
    assert found[1][1] == '\ufffd{"a": 2}'
