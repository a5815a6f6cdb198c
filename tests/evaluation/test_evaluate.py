"""In: hand-made models that read or ignore their gists. Out: whether the evaluation tells them apart; its files.

The reader goes by the words of schema and request and needs no names; the deaf one gets the same gists for every tool.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_caller import Deaf, Reader, hand_made, prompts, random_model, world

from toolformer.calls import Malformed, parse
from toolformer.data.prompts import Prompts
from toolformer.evaluation import evaluate, reads_gists
from toolformer.evaluation.cases import split_rows
from toolformer.evaluation.run import console
from toolformer.evaluation.timing import timing
from toolformer.inference.engine import Engine, Request
from toolformer.records import call_from_json

SMALL: dict[str, Any] = {
    "splits": ["test_unseen"],
    "rows": 24,
    "control_rows": 16,
    "calibration_rows": 0,
    "composability": {"tools": [4, 12], "rows": 20},
    "timing_rows": 2,
    "max_new_tokens": 60,
    "most_calls": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("reader")
    return evaluate(hand_made(), prompts(), world(), folder, **SMALL), folder


def test_a_model_that_reads_passes_and_one_that_ignores_its_gists_fails(tmp_path):
    settings = {**SMALL, "variants": ["masked"], "decodings": ["pointed"], "memories": ["real", "foreign", "zero"]}
    settings |= {"timing_rows": 0, "composability": {"tools": [], "rows": 0}, "rows": 150, "control_rows": 150}
    for kind, reads in ((Reader, True), (Deaf, False)):
        metrics = evaluate(hand_made(kind), prompts(), world(), tmp_path / kind.__name__, **settings)
        verdict, why = reads_gists(metrics)
        assert verdict is reads, why
        pointed = metrics["splits"]["test_unseen"]["masked"]["pointed"]
        chance = pointed["real"]["chance"]["value"]
        for memory in ("foreign", "zero"):
            choice = pointed[memory]["choice"]
            assert choice["low"] <= chance <= choice["high"], (memory, choice)
        assert (pointed["real"]["choice"]["low"] > chance + 0.1) is reads


def test_the_form_of_the_metrics(scored):
    metrics, folder = scored
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"provenance", "splits", "breakdown", "composability", "timing"}
    for variant in ("plain", "masked"):
        for decoding in ("free", "constrained", "pointed"):
            memories = metrics["splits"]["test_unseen"][variant][decoding]
            assert list(memories) == ["real", "foreign", "zero", "missing"]
            for memory, found in memories.items():
                assert set(found["tsa"]) == {"value", "low", "high", "n"}
                assert ("choice" in found) == (decoding == "pointed")
                assert found["truncated"]["n"] == found["tsa"]["n"] + found["fpr"]["n"]
                assert (found["tsa"]["n"] == 0) == (memory == "missing")
                assert memory != "missing" or found["fpr_tool_missing"]["n"] == found["fpr"]["n"] > 10
    known = metrics["provenance"]
    assert known["settings"]["rows"] == 24 and len(known["fingerprint"]) == len(known["model"]) == 16
    assert {"commit", "dirty", "command", "packages", "python"} <= set(known)
    assert "test_unseen, masked names" in console(metrics, folder) and str(folder) in console(metrics, folder)


def test_the_rows_give_the_numbers(scored):
    """predictions.jsonl alone is enough to compute TSA, EM and FPR again."""
    metrics, folder = scored
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for variant in ("plain", "masked"):
        for decoding in ("free", "constrained", "pointed"):
            for memory in ("real", "foreign", "zero", "missing"):
                place = {"split": "test_unseen", "variant": variant, "decoding": decoding, "memory": memory}
                mine = [row for row in rows if all(row[key] == value for key, value in place.items())]
                found = metrics["splits"]["test_unseen"][variant][decoding][memory]
                for key, outcome in (("tsa", "tsa"), ("em", "em"), ("fpr", "fp")):
                    known = [row["outcome"][outcome] for row in mine if row["outcome"][outcome] is not None]
                    assert len(known) == found[key]["n"]
                    assert not known or sum(known) / len(known) == pytest.approx(found[key]["value"])
    for row in rows:
        parsed = parse(row["text"])
        if isinstance(parsed, Malformed):
            assert "predicted" not in row and row["malformed"].startswith(parsed.reason)
        else:
            assert parsed == [call_from_json(call) for call in row["predicted"]]
        assert {call["name"] for call in row["gold"]} <= set(row["tools"])
        if row["memory"] == "missing":
            assert row["gold"] == []
    requests = {(r["variant"], r["id"]): r["request"] for r in rows}
    assert all(requests["plain", id_] == text for (_, id_), text in requests.items()), (
        "masking left a request as it was"
    )


def test_constrained_and_pointed_answers_are_valid_unless_cut(scored):
    metrics, folder = scored
    checked = 0
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["decoding"] != "free" and "truncated" not in row:
            outcome = row["outcome"]
            assert "malformed" not in row and outcome["valid_calls"] == len(row["predicted"]), row
            assert outcome["unknown_names"] == outcome["unknown_keys"] == outcome["missing_required"] == 0
            checked += len(row["predicted"])
    assert checked > 40


def test_composability(scored):
    """The reader's choice cannot depend on order, and follows an edit; with the gists from before it does not."""
    found = scored[0]["composability"]
    assert found["decoding"] == "pointed"
    assert found["order"]["rows"] == 20 and found["order"]["changed_decisions"] == 0
    assert found["order"]["max_logit_delta"] < 1e-3
    assert [point["tools"] for point in found["scaling"]] == [4, 12]
    for point in found["scaling"]:
        assert point["present"]["tsa"]["n"] == point["absent"]["fpr"]["n"] > 0
        assert point["present"]["chance"]["value"] == pytest.approx(1 / point["tools"], abs=0.1)
    swap = found["hot_swap"]
    assert swap["other_gists_identical"] is True and swap["rows"] > 9
    assert swap["follows_edit"]["value"] > 0.3 > 0.1 > swap["stale"]["value"]
    assert set(swap["renamed"]) == {"free", "pointed"} and swap["renamed"]["pointed"]["value"] > 0.3
    timing = scored[0]["timing"]
    assert timing["encode_ms_per_tool"] > 0 and 0 < timing["first_token_ms"]["p50"] <= timing["first_token_ms"]["p95"]


def test_a_second_run_writes_the_same_rows(scored, tmp_path):
    small = {**SMALL, "rows": 6, "control_rows": 3, "timing_rows": 0, "composability": {"tools": [], "rows": 0}}
    few = {"engine": "naive", "variants": ["plain"], "decodings": ["pointed"], "memories": ["real"]}
    for name, how in (("a", {"batch_size": 64}), ("b", {"batch_size": 3}), ("c", few)):
        evaluate(hand_made(), prompts(), world(), tmp_path / name, **{**small, **how})
    one, two, naive = ((tmp_path / name / "predictions.jsonl").read_text() for name in "abc")
    assert one == two
    alike = {"variant": "plain", "decoding": "pointed", "memory": "real"}
    same = [line for line in map(json.loads, one.splitlines()) if alike.items() <= line.items()]
    assert len(same) == 6 and list(map(json.loads, naive.splitlines())) == same
    longer = (scored[1] / "predictions.jsonl").read_text()
    assert [line for line in one.splitlines() if '"memory": "real"' in line and '"plain"' in line][0] in longer


def test_a_request_too_long_to_read_counts_against_the_model(tmp_path):
    """Neither left out nor cut, and it stops nothing."""
    quick = {**SMALL, "rows": 12, "timing_rows": 3, "composability": {"tools": [], "rows": 0}, "max_new_tokens": 4}
    long = sorted(len(prompts().prompt(e.messages)) for e, _ in split_rows(world(), "test_unseen", 12, 8, 0))[6]
    of = Prompts(prompts().tokenizer, length_limit=long + 3)
    metrics = evaluate(hand_made(), of, world(), tmp_path, **quick, variants=["plain"], decodings=["pointed"])
    found = metrics["splits"]["test_unseen"]["plain"]["pointed"]["real"]
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    unread = [row for row in lines if row["memory"] == "real" and "over the limit of" in row.get("malformed", "")]
    assert found["unread"]["n"] == 12 and 0 < found["unread"]["value"] == len(unread) / 12 < 1
    assert all(row["outcome"]["tsa"] is False or row["outcome"]["fp"] is True for row in unread)


def test_what_is_left_out_is_not_scored(tmp_path):
    quick = {**SMALL, "rows": 3, "timing_rows": 0, "composability": {"tools": [], "rows": 0}, "max_new_tokens": 4}
    metrics = evaluate(
        hand_made(), prompts(), world(), tmp_path, **quick, leave_out=["*/plain/free/*", "*/masked/[fc]*", "*/zero"]
    )
    found = metrics["splits"]["test_unseen"]
    places = [f"{variant} {decoding}" for variant in found for decoding in found[variant]]
    assert places == ["plain constrained", "plain pointed", "masked pointed"]
    assert all(list(memories) == ["real", "foreign", "missing"] for v in found.values() for memories in v.values())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"variants": ["masked", "hidden"]}, "evaluation.variants is .*; use some of plain, masked"),
        ({"decodings": []}, "evaluation.decodings is"),
        ({"memories": ["reel"]}, "use some of real, foreign, zero, missing"),
        ({"engine": "fast"}, "evaluation.engine is 'fast'; use cached or naive"),
        ({"splits": []}, "name at least one split"),
        ({"rows": 0}, "evaluation.rows is 0; it must be at least 1"),
        ({"composability": {"rows": 3}}, "it has tools and rows"),
        ({"splits": ["training"]}, "split is 'training'"),
        ({"masked_rows": -1}, "evaluation.masked_rows is -1; it must be at least 0"),
        ({"leave_out": ["test_seen/*"]}, "evaluation.leave_out has 'test_seen/\\*', which matches nothing"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(tmp_path, change, why):
    with pytest.raises(ValueError, match=why):
        evaluate(hand_made(), prompts(), world(), tmp_path / "out", **{**SMALL, **change})
    assert not (tmp_path / "out").exists()


def test_pointed_alone_needs_a_pointer(tmp_path):
    with pytest.raises(ValueError, match="the model has no pointer; use free or constrained"):
        evaluate(random_model(pointer=False), prompts(), world(), tmp_path / "out", **SMALL, decodings=["pointed"])


def test_requests_without_tools_are_timed_too():
    engine, rows = Engine(hand_made(), prompts(), max_new_tokens=2), split_rows(world(), "test_unseen", 2, 8, 0)
    requests = [Request(example.messages, [], engine.encode([])) for example, _ in rows]
    assert timing(engine, requests, [], "free")["requests"] == 2


def test_the_settings_file_has_every_setting():
    file = Path(__file__).parents[2] / "conf" / "evaluation" / "standard.yaml"
    takes = {p.name for p in inspect.signature(evaluate).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert set(yaml.safe_load(file.read_text())) == takes


def test_reads_gists_on_numbers():
    def metrics(real: float, foreign: float = 0.12, zero: float = 0.1, choice: float = 0.12, low: float = 0.05):
        def one(value):
            return {"value": value, "low": value - low, "high": value + low, "n": 100}

        memories = {name: {"tsa": one(v), "chance": one(0.125)} for name, v in
                    (("real", real), ("foreign", foreign), ("zero", zero))}  # fmt: skip
        memories["foreign"]["choice"] = one(choice)
        return {"splits": {"test_unseen": {"masked": {"pointed": memories}}}}

    assert reads_gists(metrics(0.8))[0]
    for wrong, why in (
        (metrics(0.15), "does not read"),
        (metrics(0.22), "does not read"),
        (metrics(0.8, foreign=0.3), "something else helps"),
        (metrics(0.8, zero=0.2), "something else helps"),
        (metrics(0.8, choice=0.3), "foreign gists choice"),
        ({"splits": {}}, "not shown"),
    ):
        verdict, sentence = reads_gists(wrong)
        assert not verdict and why in sentence
    for memory in ("foreign", "zero"):
        without = metrics(0.8)
        del without["splits"]["test_unseen"]["masked"]["pointed"][memory]
        assert "no " + memory in reads_gists(without)[1]
