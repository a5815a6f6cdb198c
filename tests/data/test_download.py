"""In: a real HTTP server on this machine, in a process of its own. Out: whether downloads are checked and resumed."""

import gzip
import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolformer.data.download import SGD_FILES, SGD_URL, RemoteFile, digest, fetch, listing

SERVER = Path(__file__).with_name("file_server.py")
CONTENT = {"train/schema.json": random.Random(1).randbytes(200_001), "train/a b.json": b"", "LICENSE.txt": b"words"}
FILES = [RemoteFile(hashlib.sha256(body).hexdigest(), len(body), path) for path, body in CONTENT.items()]
QUICK = {"wait": 0.01, "timeout": 5.0, "progress": False}


@contextmanager
def served(folder: Path, mishaps: str = "ok") -> Iterator[tuple[str, Path]]:
    """The address of a server with the files, and the log of its requests."""
    root, log = folder / "upstream", folder / "log"
    for path, body in CONTENT.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(body)
    log.write_text("")
    command = [sys.executable, str(SERVER), str(root), str(log), mishaps]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/", log
    finally:
        process.terminate()
        process.communicate()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_all_files_arrive_and_are_not_fetched_twice(tmp_path):
    with served(tmp_path) as (address, log):
        assert fetch(tmp_path / "got", FILES, address, **QUICK) == 3
        assert content(tmp_path / "got") == CONTENT
        requests = log.read_text()
        assert fetch(tmp_path / "got", FILES, address, **QUICK) == 0
        assert log.read_text() == requests
        (tmp_path / "got/LICENSE.txt").write_bytes(b"wordz")  # same size, other content
        assert fetch(tmp_path / "got", FILES, address, **QUICK) == 1
        assert content(tmp_path / "got") == CONTENT


def test_a_broken_connection_is_resumed_where_it_stopped(tmp_path):
    with served(tmp_path, "break,busy,break,ok") as (address, log):
        fetch(tmp_path / "got", FILES[:1], address, **QUICK)
        asked = [line.split()[1] for line in log.read_text().splitlines()]
    assert asked == ["-", "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert content(tmp_path / "got") == {"train/schema.json": CONTENT["train/schema.json"]}


def test_a_run_that_was_killed_is_resumed_by_the_next(tmp_path):
    with served(tmp_path, "break") as (address, log):
        with pytest.raises(ValueError, match=r"schema.json: not downloaded in 1 tries: .*goes on from there"):
            fetch(tmp_path / "got", FILES, address, tries=1, **QUICK)
        assert set(content(tmp_path / "got")) == {"train/schema.json.part"}  # never half a file under its name
        fetch(tmp_path / "got", FILES, address, **QUICK)
        assert "bytes=100000-" in log.read_text()
    assert content(tmp_path / "got") == CONTENT


def test_a_server_without_ranges_sends_it_all_again(tmp_path):
    with served(tmp_path, "break,whole") as (address, _):
        fetch(tmp_path / "got", FILES[:1], address, **QUICK)
    assert digest(tmp_path / "got/train/schema.json") == FILES[0].sha256


def test_wrong_content_is_thrown_away(tmp_path):
    with served(tmp_path, "wrong,ok") as (address, log):
        fetch(tmp_path / "got", FILES[:1], address, **QUICK)
        assert log.read_text().count("- wrong") == 1
    assert digest(tmp_path / "got/train/schema.json") == FILES[0].sha256
    with served(tmp_path, "wrong,wrong") as (address, _):
        with pytest.raises(ValueError, match=r"in 2 tries: its SHA-256 is .*, the listed one " + FILES[0].sha256):
            fetch(tmp_path / "other", FILES[:1], address, tries=2, **QUICK)
    assert not content(tmp_path / "other")


def test_a_part_that_is_too_long_or_complete_is_no_trap(tmp_path):
    for left in (CONTENT["train/schema.json"] + b"more", CONTENT["train/schema.json"]):
        (tmp_path / "got/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "got/train/schema.json").unlink(missing_ok=True)
        (tmp_path / "got/train/schema.json.part").write_bytes(left)
        with served(tmp_path) as (address, log):
            fetch(tmp_path / "got", FILES[:1], address, **QUICK)
            assert len(log.read_text().splitlines()) == (len(left) > FILES[0].size)
        assert content(tmp_path / "got") == {"train/schema.json": CONTENT["train/schema.json"]}


def test_a_missing_file_and_a_missing_server_are_said_at_once(tmp_path):
    with served(tmp_path) as (address, log):
        with pytest.raises(ValueError, match=r"/nothing.json: the server answers 404 .*check the address"):
            fetch(tmp_path / "got", [RemoteFile("0" * 64, 1, "nothing.json")], address, **QUICK)
        assert len(log.read_text().splitlines()) == 1
    with pytest.raises(ValueError, match="not downloaded in 2 tries: .*refused.*check the network"):
        fetch(tmp_path / "got", FILES, address, tries=2, **QUICK)


def test_progress_ends_at_the_whole(tmp_path, capsys):
    with served(tmp_path, "break,ok") as (address, _):
        fetch(tmp_path / "got", FILES, address, wait=0.01, progress=True)
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "100%" in last and "200k/200k" in last


def test_the_list_of_files():
    files = listing(SGD_FILES)
    paths = {file.path for file in files}
    assert len(files) == len(paths) == 151 and {"LICENSE.txt", "train/schema.json", "test/dialogues_001.json"} <= paths
    assert sum(path.startswith("sgd_x/data/v") and path.endswith("/schema.json") for path in paths) == 15
    assert SGD_URL.startswith("https://raw.githubusercontent.com/") and SGD_URL.endswith("/")


@pytest.mark.parametrize("line", ["abc 1 x", "0" * 64 + " x y", "0" * 64, "g" * 64 + " 1 x", "0" * 64 + " 1 "])
def test_a_broken_list_is_named(tmp_path, line):
    (tmp_path / "list").write_text("0" * 64 + " 1 good\n" + line + "\n")
    with pytest.raises(ValueError, match="list:2: line is"):
        listing(tmp_path / "list")


def test_real_files_are_those_of_the_list(real_data):
    for file in listing(SGD_FILES):
        path = real_data / "sgd" / file.path
        if not file.path.startswith("train/dialogues"):  # the rest takes a while
            body = (
                path.read_bytes() if path.is_file() else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
            )
            assert len(body) == file.size and hashlib.sha256(body).hexdigest() == file.sha256, file.path


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a/..", ".", "./x", "a\\..\\x"])
def test_no_file_can_leave_its_folder(tmp_path, path):
    (tmp_path / "list").write_text("0" * 64 + f" 1 {path}\n")
    with pytest.raises(ValueError, match="list:1: path is .*below the folder"):
        listing(tmp_path / "list")
    with pytest.raises(ValueError, match="got: path is .*below the folder"):
        fetch(tmp_path / "got", [RemoteFile("0" * 64, 1, path)], "http://127.0.0.1:9/", **QUICK)


def test_no_link_leads_out_of_the_folder(tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/train").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="train/schema.json: a link leads out"):
        fetch(tmp_path / "got", FILES, "http://127.0.0.1:9/", **QUICK)
    assert not (tmp_path / "schema.json.part").exists()


def test_a_server_that_sends_more_than_was_listed_fills_no_disk(tmp_path):
    path, body = "train/schema.json", CONTENT["train/schema.json"]
    small = RemoteFile(hashlib.sha256(body[:9]).hexdigest(), 9, path)
    with served(tmp_path) as (address, _):
        with pytest.raises(ValueError, match="not downloaded in 2 tries: it has .* bytes, the listed one 9"):
            fetch(tmp_path / "got", [small], address, tries=2, **QUICK)
    assert all(len(content) <= 2 * 65_536 for content in content(tmp_path / "got").values())
