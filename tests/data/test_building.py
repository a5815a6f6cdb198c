"""In: invented sources, and the real ones where they are. Out: whether the corpus keeps what METRICS promises."""

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from data import sparse_product, tiny_sgd, tiny_sources

from toolformer.data.audit import audit_folder
from toolformer.data.building import STEPS, Builder
from toolformer.data.corpus import Corpus, request, write_corpus
from toolformer.data.rules import Use
from toolformer.metrics.rows import Row
from toolformer.metrics.summary import summary
from toolformer.prepare import main as prepare
from toolformer.records import Example, Message, Tool, ToolCall

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_sources.write(folder)
    return folder


def builder(root: Path, corpora: Path, workers: int = 1, uses: dict[str, Use] | None = None, **rules) -> Builder:
    uses = uses or tiny_sources.uses()
    return Builder("tiny", root, corpora, uses, replace(tiny_sources.RULES, **rules), workers, progress=False)


def build(*args, **kwargs) -> Corpus:
    corpus = builder(*args, **kwargs).build()
    assert corpus is not None
    return corpus


@pytest.fixture(scope="module")
def corpus(root, tmp_path_factory) -> Corpus:
    return build(root, tmp_path_factory.mktemp("corpora"))


def files(corpus: Corpus) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(corpus.folder.iterdir())}


# ---- what every corpus keeps


def gold_tools(corpus: Corpus, row: Example) -> list[Tool]:
    names = {call.name for call in row.calls}
    return [corpus.tools[id_] for id_ in row.tools if corpus.tools[id_].name in names]


def nothing_leaks(corpus: Corpus, near: float) -> None:
    """Requests and schemas by the sparse product, which shares no code with the join; names and ids by sets."""
    splits = {name: list(corpus.split(name)) for name in corpus.info["rows"]}
    ends = np.cumsum([0, *map(len, splits.values())])
    grams = sparse_product.shingles([request(row) for rows in splits.values() for row in rows])
    parts = {name: grams[ends[i] : ends[i + 1]] for i, name in enumerate(splits)}
    for one, two in combinations(splits, 2):
        assert not sparse_product.alike(parts[one], parts[two], near), (one, two)
        assert not {row.id for row in splits[one]} & {row.id.removesuffix("/tool_missing") for row in splits[two]}
    shown = {id_ for row in splits["train"] for id_ in row.tools}
    families = {corpus.kin[id_].family for id_ in shown}
    shown |= {id_ for id_, kin in corpus.kin.items() if kin.family in families and kin.use == "trained"}
    asked = {
        tool.id
        for name in ("test_unseen", "test_bfcl")
        for row in splits.get(name, ())
        for tool in gold_tools(corpus, row)
    }
    assert not shown & asked
    assert not {corpus.tools[id_].name.lower() for id_ in shown} & {corpus.tools[id_].name.lower() for id_ in asked}
    texts = [corpus.tools[id_].text for id_ in [*shown, *asked]]
    schemas = sparse_product.shingles(texts)
    assert not sparse_product.alike(schemas[: len(shown)], schemas[len(shown) :], near)
    evaluating = {source["name"] for source in corpus.info["sources"] if source["evaluates_only"]}
    for name in ("train", "validation"):
        assert not evaluating & {row.source for row in splits[name]}
        assert not evaluating & {corpus.kin[id_].source for row in splits[name] for id_ in row.tools}


def every_row_is_accounted_for(corpus: Corpus) -> None:
    aside = pyarrow.parquet.read_table(corpus.folder / "set_aside.parquet").to_pylist()
    kept = Counter(row.source for name in corpus.info["rows"] for row in corpus.split(name))
    assert all(row["place"] and row["reason"] for row in aside)
    for source in corpus.info["sources"]:
        mine = [row for row in aside if row["source"] == source["name"]]
        assert Counter(row["reason"] for row in mine) == source["set_aside"]
        assert source["rows_there"] == kept[source["name"]] + len(mine)
        assert kept[source["name"]] == sum(sum(strata.values()) for strata in source["rows"].values())


def gold_scores_one(corpus: Corpus) -> None:
    chosen = {source["name"] for source in corpus.info["sources"] if source["selects_only"]}
    for name in corpus.info["rows"]:
        rows = []
        for row in corpus.split(name)[:3000]:
            said = [ToolCall(call.name, call.arguments) for call in row.calls]
            rows.append(Row(row.calls, said, [corpus.tools[id_] for id_ in row.tools], row.stratum))
        found = summary(rows)
        assert [found[key]["value"] for key in ("tsa", "em", "em_all", "pf1", "vr")] == [1.0] * 5, name
        assert found["fpr"]["value"] in (0.0, None)
        if not chosen & {row.source for row in corpus.split(name)}:
            assert found["schema_valid"]["value"] == 1.0


def offers_are_as_asked(corpus: Corpus, count: int) -> None:
    """Evaluation rows offer ``count`` tools, none of one name or function twice, gold anywhere among them."""
    fixed = {source["name"] for source in corpus.info["sources"] if source["as_upstream"]}
    at = []
    for name in set(corpus.info["rows"]) - {"train"}:
        for row in corpus.split(name):
            kin = [corpus.kin[id_] for id_ in row.tools]
            assert len({corpus.tools[id_].name for id_ in row.tools}) == len(kin)
            if row.source in fixed or not row.calls:
                continue
            assert len(kin) == count, row.id
            assert len({one.function for one in kin}) == len(kin)
            at += [row.tools.index(tool.id) / (count - 1) for tool in gold_tools(corpus, row)]
    assert np.mean(at) == pytest.approx(0.5, abs=4 / np.sqrt(12 * len(at)))


def test_a_corpus_keeps_its_promises(corpus):
    nothing_leaks(corpus, 0.5)
    every_row_is_accounted_for(corpus)
    gold_scores_one(corpus)
    offers_are_as_asked(corpus, 8)
    assert not any(count for key in ("requests", "schemas") for count in corpus.info["audit"][key].values())
    assert {kin.use for kin in corpus.kin.values()} == {"trained", "validation", "unseen", "evaluation"}


def test_the_splits_are_what_they_are_called(corpus):
    splits = {name: list(corpus.split(name)) for name in corpus.info["rows"]}
    patterns = {row.pattern for row in splits["train"] if row.pattern}
    taught = {tool.id for row in splits["train"] for tool in gold_tools(corpus, row)}
    for name in ("test_seen", "test_held_out"):
        assert splits[name] and all(tool.id in taught for row in splits[name] for tool in gold_tools(corpus, row))
    assert not patterns & {row.pattern for row in splits["test_held_out"]}
    assert {row.source for row in splits["test_bfcl"]} == {"exam"}
    strata = Counter((row.source, row.stratum) for row in splits["test_unseen"])
    assert strata["bank", "new_domain"] > 20 and strata["shop", "same_domain"] > 5 and strata["pick", "new_source"] > 30
    missing = [row for name in splits for row in splits[name] if row.stratum == "tool_missing"]
    assert missing and all(not row.calls and row.reply and row.source in ("shop", "bank") for row in missing)


def test_upstreams_tools_are_on_offer(root, corpus):
    lines = [line for path in (root / "exam").glob("*.jsonl") for line in path.read_text().splitlines()]
    listed = {row["id"]: {tool["name"] for tool in row["tools"]} for row in map(json.loads, lines)}
    for row in corpus.split("test_bfcl"):
        assert {corpus.tools[id_].name for id_ in row.tools} == listed[row.id]  # these and no others
    lines = [line for path in (root / "shop").glob("*.jsonl") for line in path.read_text().splitlines()]
    listed = {row["id"]: {tool["name"] for tool in row["tools"]} for row in map(json.loads, lines)}
    for row in corpus.split("test_seen"):
        if row.source == "shop" and row.calls:
            kept = {corpus.tools[id_].name for id_ in row.tools} & listed[row.id]
            assert {call.name for call in row.calls} <= kept and len(kept) >= 2


# ---- the same bytes


def test_workers_change_nothing(root, tmp_path, corpus):
    assert files(build(root, tmp_path, workers=2)) == files(corpus)


def test_a_second_build_finds_the_first_and_other_rules_share_what_was_read(root, tmp_path):
    first = build(root, tmp_path)
    made = first.folder.stat().st_mtime_ns
    assert build(root, tmp_path).folder.stat().st_mtime_ns == made
    read = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "steps").glob("read-*")}
    other = build(root, tmp_path, seed=1)
    assert other.folder != first.folder and other.fingerprint != first.fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "steps").glob("read-*")} == read


def test_a_changed_file_is_read_again(root, tmp_path):
    (tmp_path / "data").mkdir()
    for source in root.iterdir():
        (tmp_path / "data" / source.name).symlink_to(source)
    first = build(tmp_path / "data", tmp_path / "c")
    (tmp_path / "data/pick").unlink()
    (tmp_path / "data/pick").mkdir()
    (tmp_path / "data/pick/a.jsonl").write_bytes((root / "pick/a.jsonl").read_bytes())
    second = build(tmp_path / "data", tmp_path / "c")
    assert second.folder != first.folder and second.info["rows"]["test_unseen"] < first.info["rows"]["test_unseen"]


@pytest.mark.parametrize("until", STEPS)
def test_every_step_is_a_command_of_its_own(root, tmp_path, until):
    made = builder(root, tmp_path).build(until)
    assert (made is not None) == (until == "write")
    found = {path.name.split("-")[0] for path in (tmp_path / "steps").iterdir()}
    assert found == set(STEPS[: STEPS.index(until) + 1]) - {"write"}


CODE = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from data import tiny_sources
from toolformer.data.building import Builder
Builder("tiny", sys.argv[1], Path(sys.argv[2]), tiny_sources.uses(), tiny_sources.RULES, 2, False).build()
"""


def test_killed_anywhere_and_started_again_it_is_the_same(root, tmp_path, corpus):
    command = [sys.executable, "-c", CODE, str(root), str(tmp_path / "c")]
    rng = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        while not (tmp_path / "c").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.9))
        os.killpg(process.pid, signal.SIGKILL) if rng.random() < 0.5 else process.kill()
        process.wait()
    again = build(root, tmp_path / "c")
    assert files(again) == files(corpus)
    assert not [path for path in (tmp_path / "c").rglob(".*") if path.is_dir()]


def test_two_at_once_build_one(root, tmp_path, corpus):
    command = [sys.executable, "-c", CODE, str(root), str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert files(build(root, tmp_path)) == files(corpus)


# ---- broken rows


def broken(line: bytes, way: int) -> bytes:
    row = json.loads(line)
    tool, call = row["tools"][0], {"name": row["tools"][0]["name"], "arguments": {}}
    text, number = tool["parameters"]["properties"]
    right = {text: "x", number: 1}
    if way == 0:
        return line[: len(line) // 2]
    if way == 1:
        return b"\xff\xfe" + line
    if way == 2:
        return b"[]"
    if way == 3:
        row["says"] = [" "]
    if way == 4:
        row["calls"] = [call | {"name": "nobody"}]
    if way == 5:
        row["calls"] = [call | {"arguments": right | {"zzz": 1}}]
    if way == 6:
        row["calls"] = [call | {"arguments": {number: 1}}]
    if way == 7:
        row["calls"] = [call | {"arguments": right | {number: "one"}}]
    if way == 8:
        row["calls"] = [call | {"arguments": right | {number: float("nan")}}]
    if way == 9:
        row["tools"].append({**tool, "description": "Another."})
    if way == 10:
        tool["parameters"]["properties"][text]["type"] = "strin"
    if way == 11:
        row["says"] = ["half a pair: \ud83d"]
    return json.dumps(row).encode()


def corrupted(root: Path, folder: Path, share: float) -> set[tuple[str, str]]:
    """A copy with broken lines; which they are."""
    tiny_sources.write(folder)
    rng, at = random.Random(1), set()
    for source in ("shop", "bank"):
        for path in sorted((folder / source).glob("*.jsonl")):
            lines = path.read_bytes().splitlines()
            for number in rng.sample(range(len(lines)), round(len(lines) * share)):
                lines[number] = broken(lines[number], len(at) % 12)
                at.add((source, f"{path.name}:{number + 1}"))
            path.write_bytes(b"\n".join(lines) + b"\n")
    return at


def test_every_broken_row_is_set_aside_with_its_place(root, tmp_path):
    at = corrupted(root, tmp_path / "data", 0.03)
    assert len(at) >= 24
    tolerant = {name: replace(use, tolerance=0.04) for name, use in tiny_sources.uses().items()}
    corpus = build(tmp_path / "data", tmp_path / "c", uses=tolerant)
    nothing_leaks(corpus, 0.5)
    every_row_is_accounted_for(corpus)
    gold_scores_one(corpus)
    aside = pyarrow.parquet.read_table(corpus.folder / "set_aside.parquet").to_pylist()
    unread = {(row["source"], row["place"]): row for row in aside if row["text"]}
    assert set(unread) == at and len({row["reason"] for row in unread.values()}) >= 9


def test_too_many_broken_rows_stop_the_build(root, tmp_path):
    corrupted(root, tmp_path / "data", 0.03)
    with pytest.raises(
        ValueError, match=r"shop: 12 of 400 rows were set aside, more than its tolerance of 0.02: a.jsonl:\d+: "
    ):
        build(tmp_path / "data", tmp_path / "c")
    assert not list((tmp_path / "c").glob("tiny-*"))


def test_the_command_stops_with_2_and_names_the_first_rows(tmp_path, capsys):
    tiny_sgd.write(tmp_path, (4, 4, 4))
    others = set(yaml.safe_load((ROOT / "conf/corpus/real.yaml").read_text())["sources"]) - {"sgd"}
    settings = [f"corpus.root={tmp_path}", f"paths.outputs={tmp_path / 'outputs'}", "corpus.sources.sgd.tolerance=0.01"]
    with pytest.raises(SystemExit) as stopped:
        prepare([*settings, *(f"corpus.sources.{name}=null" for name in sorted(others)), "progress=false"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: sgd: \d+ of \d+ rows were set aside, .* 0.01: train/dialogues_001.*tolerance\n", said)


def test_the_published_evaluation_files_are_refused(tmp_path):
    """50 requests with their tools, and all three splits the same."""
    tools = [Tool(f"tool_{i}", f"Does {i}", {"type": "object", "properties": {}, "required": []}) for i in range(50)]
    rows = [
        Example(
            f"row/{i}",
            (Message("user", f"please do number {i} for me now, thanks"),),
            (tool.id,),
            (ToolCall(tool.name, {}),),
            "",
            "published",
        )
        for i, tool in enumerate(tools)
    ]
    splits = {"train": [], "test_seen": rows, "test_held_out": rows, "test_unseen": rows}
    corpus = write_corpus(tmp_path / "c", tools, splits, {})
    with pytest.raises(
        ValueError, match=r"request pairs leak between splits: test_seen row/0 ~ test_held_out row/0 \(1.00\)"
    ):
        audit_folder(corpus.folder, list(splits), 0.5)
    corpus = write_corpus(tmp_path / "c", tools, {"train": rows, "test_unseen": []}, {})
    audit_folder(corpus.folder, ["train", "test_unseen"], 0.5)
    asks = [replace(row, messages=(Message("user", f"something else {i}"),)) for i, row in enumerate(rows)]
    corpus = write_corpus(tmp_path / "c", tools, {"train": rows, "test_unseen": asks}, {})
    with pytest.raises(ValueError, match=r"50 schema pairs leak between splits: train \w+ ~ unseen"):
        audit_folder(corpus.folder, ["train", "test_unseen"], 0.5)


@pytest.mark.parametrize(
    ("uses", "message"),
    [
        ({"nobody": Use("shop")}, "sources has nobody: No module named"),
        (
            {"shop": Use("nowhere", module="data.tiny_sources"), "bank": Use("bank", module="data.tiny_sources")},
            r"holds no .*/nowhere \(https://example.org/tiny\); .*corpus.sources.shop=null",
        ),
        ({"shop": Use("shop", module="data.tiny_sources:NONE")}, "sources has shop: .*NONE"),
    ],
)
def test_what_is_not_there_is_named(root, tmp_path, uses, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(root, tmp_path, uses=uses)


# ---- real rows


def real_part(real_data: Path, folder: Path) -> Path:
    """Every source; of the dialogues, which are many, a few files."""
    folder.mkdir()
    for source in real_data.iterdir():
        if source.is_dir() and source.name != "sgd":
            (folder / source.name).symlink_to(source)
    for split, count in {"train": 3, "dev": 1, "test": 3}.items():
        (folder / "sgd" / split).mkdir(parents=True)
        (folder / "sgd" / split / "schema.json").symlink_to(real_data / "sgd" / split / "schema.json")
        paths = sorted((real_data / "sgd" / split).glob("dialogues_*"))
        for path in paths[:: len(paths) // count]:
            (folder / "sgd" / split / path.name).symlink_to(path)
    (folder / "sgd/sgd_x").symlink_to(real_data / "sgd/sgd_x")
    return folder


@pytest.mark.timeout(1200)
def test_the_real_corpus_keeps_its_promises(real_data, tmp_path):
    """All sources as conf/corpus/real.yaml uses them."""
    import hydra
    from hydra.utils import instantiate

    from toolformer.cli import CONF

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        overrides = [f"corpus.root={real_part(real_data, tmp_path / 'data')}", f"paths.outputs={tmp_path}"]
        cfg = hydra.compose("prepare", [*overrides, "workers=2", "progress=false"])
    corpus = instantiate(cfg.corpus, _convert_="object").build()
    nothing_leaks(corpus, 0.5)
    every_row_is_accounted_for(corpus)
    gold_scores_one(corpus)
    offers_are_as_asked(corpus, 20)
    there = {source["name"]: source["rows_there"] for source in corpus.info["sources"]}
    documented = {
        "xlam": 850,
        "seal_tools": 700 + 700 + 654,
        "api_bank": 907 + 338,
        "stabletoolbench": 765,
        "bfcl": 3103,
    }
    documented |= {"metatool": 20_614 + 497 + 995 + 1_040, "snips": 13_784 + 700, "clinc150": 22_500 + 1_200}
    documented |= {"nlu_evaluation_data": 9_960 + 1_076}
    assert there | documented == there
    strata = corpus.info["strata"]["test_unseen"]
    assert strata["new_source"] == 765 and strata["new_domain"] > 50 and strata["same_domain"] > 800
    bfcl = Counter(row.id.split("/")[1] for row in corpus.split("test_bfcl"))
    assert len(bfcl) >= 8 and sum(bfcl.values()) > 3000


DAMAGE = (  # of a line of JSON, as bytes
    lambda line: line[: len(line) // 2],
    lambda line: b"\xff" + line,
    lambda line: line + line,
    lambda line: b"null",
    lambda line: b"[]",
    lambda line: b'{"id": 1}',
    lambda line: line.replace(b"{", b"[", 1),
    lambda line: line.replace(b"}", b""),
    lambda line: line.replace(b":", b"", 1),
    lambda line: line.replace(b'"', b"'"),
    lambda line: line.replace(b'"query"', b'"qu"').replace(b'"question"', b'"qu"'),
    lambda line: b"0" * 5000,
)


def test_damaged_lines_of_real_files_are_set_aside_with_their_place(real_data, tmp_path):
    at, count = set(), 0
    for folder in ("xlam-1000", "seal-tools", "bfcl-v4"):
        shutil.copytree(real_data / folder, tmp_path / "data" / folder, copy_function=shutil.copyfile)
        lined = [*(tmp_path / "data" / folder).glob("*.jsonl*"), *(tmp_path / "data" / folder).glob("BFCL*")]
        for path in sorted(path for path in lined if not path.name.startswith("tool.")):
            unpack, pack = (gzip.decompress, gzip.compress) if path.suffix == ".gz" else (bytes, bytes)
            lines = unpack(path.read_bytes()).splitlines()
            for number in random.Random(path.name).sample(range(len(lines)), -(-len(lines) // 100)):
                lines[number] = DAMAGE[count % len(DAMAGE)](lines[number])
                at.add((folder.split("-")[0], path.name.split(".")[0], number + 1))
                count += 1
            path.write_bytes(pack(b"\n".join(lines) + b"\n"))
    uses = {
        "xlam": Use("xlam-1000", tolerance=0.1),
        "seal_tools": Use("seal-tools", tested=("test_out_domain",), tolerance=0.1),
        "bfcl": Use("bfcl-v4", split="test_bfcl", as_upstream=True, tolerance=0.1),
    }
    corpus, whole = (build(root, tmp_path / "c", uses=uses) for root in (tmp_path / "data", real_data))
    every_row_is_accounted_for(corpus)
    assert [x["rows_there"] for x in corpus.info["sources"]] == [x["rows_there"] for x in whole.info["sources"]]
    aside = pyarrow.parquet.read_table(corpus.folder / "set_aside.parquet").to_pylist()
    places = {(x["source"].split("_")[0], *x["place"].split(":")) for x in aside if x["text"]}
    assert count > 50 and at <= {(source, Path(file).name.split(".")[0], int(line)) for source, file, line in places}
