"""In: a small data set of our own, and the real dialogues where they are. Out: whether corpora keep their promises."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from data import tiny_sgd

from toolformer.data import preparing
from toolformer.data.audit import leaks, refuse
from toolformer.data.corpus import Corpus, Kin, fingerprint, request, reword, write_corpus
from toolformer.data.corpus_rows import CorpusRows
from toolformer.data.negatives import Negatives
from toolformer.data.preparing import Rules
from toolformer.records import Example, Message, Tool, ToolCall

RULES = Rules(validation_services=(), tools_per_request=5, hard_tools=2, held_back=0.2)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tiny_sgd.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def corpus(root, tmp_path_factory) -> Corpus:
    return preparing.prepare(root, tmp_path_factory.mktemp("corpora") / "sgd", RULES, progress=False)


def tool(name: str, *slots: str, about: str = "Does it") -> Tool:
    properties = {slot: {"type": "string", "description": f"The {slot}"} for slot in slots}
    return Tool(name, about, {"type": "object", "properties": properties, "required": list(slots)})


def example(number: int, tool: Tool, text: str, called: bool = True) -> Example:
    calls = (ToolCall(tool.name, {"a": "1"}, {"a": ["one"]}, ("a",)),) if called else ()
    return Example(
        f"row/{number}", (Message("user", text),), (tool.id,), calls, "" if called else "No.", "test", "", "p"
    )


# ---- the audit


def test_a_leak_fails_and_names_the_pair():
    texts = {
        "train": {"t1": "please book the small room for two nights"},
        "test": {"u1": "Please book the small room for two nights!"},
    }
    found, counts = leaks("request", texts, 0.5)
    assert counts == {"train / test: exact": 1, "train / test: near": 0}
    with pytest.raises(ValueError, match=r"1 request pairs leak between splits: train t1 ~ test u1 \(1.00\)"):
        refuse(found)


# ---- the folder


def test_what_is_written_is_read(tmp_path):
    tools = [tool("f", "a"), tool("g", "a", "b")]
    rows = [example(1, tools[0], "é \n\u2028 {}"), example(2, tools[1], "", called=False)]
    rows.append(replace(rows[1], id="row/3", draft=ToolCall("g", {"a": "1", "b": None})))
    kin = {tools[0].id: Kin("family", "function", 3)}
    written = write_corpus(tmp_path / "c", tools, {"train": rows, "test_seen": []}, {"note": 1}, kin)
    assert written.fingerprint == fingerprint(tools, {"train": rows, "test_seen": []})
    again = Corpus.open(tmp_path / "c")
    assert list(again.split("train")) == rows and len(again.split("test_seen")) == 0
    assert list(again.tools.values()) == tools and again.kin[tools[0].id] == Kin("family", "function", 3)
    assert again.info["note"] == 1 and again.fingerprint == written.fingerprint
    other = write_corpus(tmp_path / "c", tools, {"train": rows[:1], "test_seen": []}, {})
    assert other.fingerprint != written.fingerprint and len(Corpus.open(tmp_path / "c").split("train")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_build_that_fails_leaves_the_old_corpus_and_nothing_else(tmp_path):
    one = tool("f", "a")
    write_corpus(tmp_path / "c", [one], {"train": [example(1, one, "x")]}, {})
    before = (tmp_path / "c/corpus.json").read_text()
    with pytest.raises(TypeError):
        write_corpus(tmp_path / "c", [one], {"train": []}, {"no JSON": {1, 2}})
    assert [path.name for path in tmp_path.iterdir()] == ["c"] and (tmp_path / "c/corpus.json").read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: replace(row, tools=("0123456789abcdef",)), r"row/1: tool 0123456789abcdef is not in the catalog"),
        (lambda row: replace(row, tools=row.tools * 2), r"row/1: tools name f twice"),
        (
            lambda row: replace(row, calls=(ToolCall("f", {"a": 1, "z": 2}),)),
            r"row/1: gold call of f has z, not one of",
        ),
        (lambda row: replace(row, calls=(ToolCall("f", {}),)), r"row/1: gold call of f lacks required a"),
        (lambda row: replace(row, draft=ToolCall("h", {})), r"row/1: draft is of h; add the tool"),
        (lambda row: replace(row, calls=(ToolCall("f", {"a": float("nan")}),)), r"row/1: gold call of 'f': .*JSON"),
        (lambda row: replace(row, calls=(ToolCall("h", {}),)), r"row/1: gold call is h, tools are \['f'\]"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, change, message):
    one = tool("f", "a")
    with pytest.raises(ValueError, match=message):
        write_corpus(tmp_path / "c", [one], {"train": [change(example(1, one, "x"))]}, {})
    assert not list(tmp_path.iterdir())


def test_one_tool_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 tools with 1 ids"):
        write_corpus(tmp_path / "c", [tool("f", "a"), tool("f", "a")], {}, {})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.json", None, r"holds no corpus .*toolformer.prepare"),
        ("corpus.json", b"{", r"corpus.json:1: not JSON"),
        ("corpus.json", b"\xff", r"corpus.json:1: not JSON"),
        ("corpus.json", b"[" * 90_000, r"corpus.json:1: not JSON"),
        ("corpus.json", b"[]", r"corpus.json:1: format is list"),
        ("corpus.json", b'{"format": 99}', r"corpus.json:1: format is 99, this version reads 3"),
        ("tools.parquet", b"no", r"tools.parquet:1: cannot be read"),
        ("tools.parquet", None, r"tools.parquet:1: cannot be read"),
        ("train.arrow", b"", r"train.arrow:1: cannot be read"),
    ],
)
def test_a_broken_folder_is_named(tmp_path, file, content, message):
    one = tool("f", "a")
    write_corpus(tmp_path / "c", [one], {"train": [example(1, one, "x")]}, {})
    path = tmp_path / "c" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Corpus.open(tmp_path / "c").split("train")


def test_an_unknown_split_is_named(corpus):
    with pytest.raises(ValueError, match="split is tset; there are train, validation"):
        corpus.split("tset")


# ---- rewording, negatives


def test_rewording_renames_the_call_by_position():
    one, two = tool("f", "a", "b"), tool("g", "x", "y")
    row = Example(
        "r", (Message("user", "?"),), (one.id,), (ToolCall("f", {"b": "2"}, {"b": ["two"]}, ("b",)),), "", "s"
    )
    changed = reword(row, (one, two))
    assert changed.calls == (ToolCall("g", {"y": "2"}, {"y": ["two"]}, ("y",)),) and changed.tools == (two.id,)
    assert reword(changed, (two, one)) == row
    drafted = replace(row, calls=(), draft=ToolCall("f", {"a": "1", "b": None}))
    assert reword(drafted, (one, two)).draft == ToolCall("g", {"x": "1", "y": None})


def test_hard_negatives_are_other_tools_with_a_like_schema():
    tools = [
        tool("get_order", "order", about="Get an order"),
        tool("play_song", "title", about="Play a song by its title"),
        tool("get_order_status", "order", about="Get the status of an order"),
        tool("get_order", "order", "shop", about="Get an order of a shop"),  # same name, other schema
    ]
    negatives = Negatives(tools)
    ids = [one.id for one in tools]
    nearest = negatives.nearest(ids[0], ids, 9)
    assert ids[0] not in nearest and nearest[-1] == ids[1] and len(nearest) == 3
    assert negatives.nearest(ids[0], [], 2) == [] and Negatives([]).ids == []


# ---- training rows


def test_batches_depend_on_seed_and_step_alone(corpus):
    sizes = {"batch_size": 8, "pool_size": 9, "tools_per_request": 4}
    one, two = CorpusRows(corpus, seed=1), CorpusRows(corpus, seed=1)
    batches = [one.batch(step, **sizes) for step in range(40)]
    assert batches[7] == two.batch(7, **sizes) and batches[31] == two.batch(31, **sizes)
    assert batches[0] != CorpusRows(corpus, seed=2).batch(0, **sizes)
    assert one.tools(3, 5) == two.tools(3, 5) and len({t.id for t in one.tools(3, 5)}) == 5


def test_a_pass_sees_every_row_once(corpus):
    rows = CorpusRows(corpus)
    seen = Counter(
        row.id.removesuffix("/tool_missing")
        for step in range(len(rows))
        for row, _ in rows.batch(step, batch_size=3, pool_size=6, tools_per_request=4)
    )
    assert set(seen.values()) == {3} and len(seen) == len(rows)  # three passes


def test_rows_of_a_batch_share_a_pool_and_offer_gold_with_nothing_that_does_the_same(corpus):
    rows, wordings, missing = CorpusRows(corpus, seed=3, tool_missing_share=0.3), set(), 0
    for step in range(30):
        batch = rows.batch(step, batch_size=6, pool_size=9, tools_per_request=5)
        assert len({t.id for _, tools in batch for t in tools}) <= 9
        for row, tools in batch:
            assert len(tools) == 5 and row.tools == tuple(t.id for t in tools)
            assert len({corpus.kin[t.id].function for t in tools}) == 5 == len({t.name for t in tools})
            by_name = {t.name: t for t in tools}
            for call in row.calls:
                wordings.add(corpus.kin[by_name[call.name].id].wording)
                assert set(call.arguments) <= set(by_name[call.name].parameters["properties"])
            if row.stratum == "tool_missing":
                missing += 1
                original = next(r for r in rows.examples if row.id.startswith(r.id + "/"))
                function = corpus.kin[original.tools[0]].function
                assert not row.calls and row.reply
                assert function not in {corpus.kin[t.id].function for t in tools}
    assert wordings == set(range(6)) and 0.1 < missing / 180 < 0.35


def test_a_small_pool_still_holds_gold(corpus):
    batch = CorpusRows(corpus, tool_missing_share=0).batch(0, batch_size=16, pool_size=1, tools_per_request=3)
    assert all(call.name in {t.name for t in tools} for row, tools in batch for call in row.calls)


def test_an_empty_split_cannot_be_trained_on(tmp_path):
    corpus = write_corpus(tmp_path / "c", [tool("f", "a")], {"train": []}, {})
    with pytest.raises(ValueError, match="split train has 0 rows"):
        CorpusRows(corpus)


# ---- preparing


def properties_of_a_prepared(corpus: Corpus, size: int) -> None:
    """What must hold for every prepared corpus."""
    splits = {name: corpus.split(name) for name in corpus.info["rows"]}
    trained = {id_ for row in splits["train"] for id_ in row.tools}
    families = {corpus.kin[id_].family for id_ in trained}
    names = {t.name for id_, t in corpus.tools.items() if corpus.kin[id_].family in families}
    assert all(len(row.tools) == 1 and row.stratum != "tool_missing" for row in splits["train"])
    for one, two in combinations(splits, 2):
        assert not {request(r).casefold() for r in splits[one]} & {request(r).casefold() for r in splits[two]}
        assert not {r.id.removesuffix("/tool_missing") for r in splits[one]} & {r.id for r in splits[two]}
    patterns = {row.pattern for row in splits["train"]}
    assert not any(row.pattern in patterns for row in splits["test_held_out"])
    for name, rows in splits.items():
        if name == "train":
            continue
        for row in rows:
            tools = [corpus.tools[id_] for id_ in row.tools]
            assert len(tools) == size == len({corpus.kin[t.id].function for t in tools})
            gold = {corpus.kin[t.id].family for t in tools if row.calls and t.name == row.calls[0].name}
            if name == "test_unseen":
                assert not gold & families and not {call.name for call in row.calls} & names
                assert not row.calls or row.stratum in ("same_domain", "new_domain")
            elif name.startswith("test"):
                assert gold <= families
        missing = [row for row in rows if row.stratum == "tool_missing"]
        assert missing and all(row.reply and not row.calls for row in missing)
    assert not any(corpus.info["audit"]["requests"].values())


def test_a_prepared_corpus_keeps_its_promises(corpus):
    properties_of_a_prepared(corpus, 5)
    assert corpus.info["services"]["unseen"] == ["Docks_1", "Farms_1", "Mines_1"]
    assert corpus.info["strata"]["test_unseen"]["new_domain"] > 50
    assert corpus.info["set_aside"]["no call: the system confirms first"] == 260


def test_gold_scores_one_against_itself(corpus):
    from toolformer.metrics.rows import Row
    from toolformer.metrics.summary import summary

    for split in ("validation", "test_seen", "test_held_out", "test_unseen"):
        rows = [
            Row(
                row.calls,
                [ToolCall(c.name, c.arguments) for c in row.calls],
                list(map(corpus.tools.get, row.tools)),
                "",
            )
            for row in corpus.split(split)
        ]
        found = summary(rows)
        assert [found[name]["value"] for name in ("tsa", "em", "em_all", "pf1", "vr", "schema_valid")] == [1.0] * 6
        assert found["fpr"]["value"] == 0.0


def test_preparing_again_finds_it_and_a_rewording_changes_only_the_tools(root, tmp_path, corpus):
    first = preparing.rows(root, tmp_path, RULES, progress=False)
    assert first.corpus.fingerprint == corpus.fingerprint
    made = (first.corpus.folder / "corpus.json").stat().st_mtime_ns
    again = preparing.rows(root, tmp_path, RULES, seed=5, progress=False)
    assert again.corpus.folder == first.corpus.folder
    assert (again.corpus.folder / "corpus.json").stat().st_mtime_ns == made
    other = preparing.rows(root, tmp_path, replace(RULES, test_wording=5), progress=False).corpus
    assert other.folder != first.corpus.folder
    plain, worded = first.corpus.split("test_unseen"), other.split("test_unseen")
    assert [row.messages for row in plain] == [row.messages for row in worded]
    assert {other.kin[id_].wording for row in worded for id_ in row.tools} == {5}
    tools, rows = first.split("test_unseen")
    assert {t.id for t in tools} == {id_ for row in rows for id_ in row.tools}


def test_preparing_is_the_same_in_another_process(root, tmp_path, corpus):
    code = (
        "import sys; from toolformer.data.preparing import Rules, prepare; "
        "rules = Rules(validation_services=(), tools_per_request=5, hard_tools=2, held_back=0.2); "
        "print(prepare(sys.argv[1], sys.argv[2], rules, progress=False).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "c")]
    env = os.environ | {"PYTHONHASHSEED": "17"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == corpus.fingerprint


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"held_back": 1.5}, "held_back is 1.5"),
        ({"tool_missing_share": 0.5}, "tool_missing_share is 0.5"),
        ({"hard_tools": 8}, "hard_tools is 8 of tools_per_request 8"),
        ({"dev_validation": 0.8, "dev_test": 0.8}, "dev_validation \\+ dev_test is 1.6"),
        ({"validation_services": ["Cafe_9"]}, "validation_services has Cafe_9; choose among Pools_1"),
        ({"test_wording": 7, "validation_services": []}, "test_wording is 7"),
    ],
)
def test_wrong_rules_are_named(root, tmp_path, rules, message):
    with pytest.raises(ValueError, match=message):
        preparing.rows(root, tmp_path / "c", Rules(**rules), progress=False)
    assert not list(tmp_path.glob("c/sgd*"))


def test_the_command_prepares_and_says_what_is_there(root, tmp_path):
    settings = [
        "corpus=sgd",
        "corpus.rules.validation_services=[]",
        f"corpus.root={root}",
        f"paths.outputs={tmp_path}",
        "progress=false",
    ]
    command = [sys.executable, "-m", "toolformer.prepare", *settings]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "corpus/corpus.json").read_text())
    assert f"fingerprint {info['fingerprint']}" in done.stdout and "test_unseen" in done.stdout
    command[-2:] = [f"paths.outputs={tmp_path / 'other'}", "corpus.root=/nowhere", "download=false"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "/nowhere: holds no SGD data" in done.stderr


def test_real_dialogues(real_data, tmp_path):
    """A part of the files, so that it takes seconds; the whole is prepared by ``make data``."""
    for split, count in {"train": 9, "dev": 4, "test": 5}.items():
        (tmp_path / "sgd" / split).mkdir(parents=True)
        (tmp_path / "sgd" / split / "schema.json").symlink_to(real_data / "sgd" / split / "schema.json")
        files = sorted((real_data / "sgd" / split).glob("dialogues_*"))
        for path in files[:: len(files) // count]:
            (tmp_path / "sgd" / split / path.name).symlink_to(path)
    (tmp_path / "sgd/sgd_x").symlink_to(real_data / "sgd/sgd_x")
    corpus = preparing.prepare(tmp_path, tmp_path / "c", Rules(), progress=False)
    properties_of_a_prepared(corpus, 8)
    unseen = corpus.info["services"]["unseen"]
    assert {"Trains_1", "Alarm_1", "Payment_1", "Messaging_1", "Restaurants_2"} <= set(unseen) and len(unseen) == 15
    share = corpus.info["strata"]["train"]["call"] / corpus.info["rows"]["train"]
    assert share == pytest.approx(0.8 / 0.94, abs=0.03)  # the tool-missing rows, 6%, are made batch by batch
