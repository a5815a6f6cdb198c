"""In: generated and real rows. Out: the metrics equal a brute-force reference, in any batching, order and processes."""

import dataclasses
import gzip
import itertools
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.process import in_process
from metrics.reference import reference
from metrics.row_maker import F, G, H, make_rows, one_row, rows

from toolformer.calls import Malformed, parse, render
from toolformer.metrics import Row, call_metrics, row_outcome, summary
from toolformer.metrics.summary import SHARES
from toolformer.records import Tool, ToolCall
from toolformer.schemas import tool_from_openai

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")  # of no rows, on purpose
KEYS = [share.key for share in SHARES] + ["tsa_macro"]
PERFECT_ZEROS = ["wtr", "mfr", "fnr", "fpr", *(key for key in KEYS if key.startswith("fpr_"))]
ERRORS = [*PERFECT_ZEROS, "hallucinated_names"]


def values(rows: list[Row]) -> dict[str, float]:
    return {key: math.nan if m["value"] is None else m["value"] for key, m in summary(rows).items()}


def same(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(math.isclose(ours[k], theirs[k], abs_tol=1e-12) or math.isnan(ours[k] + theirs[k]) for k in ours)


def collected(batches: list[list[Row]]) -> dict[str, float]:
    metrics = call_metrics()
    for batch in batches:
        metrics.update(batch)
    return {key: value.item() for key, value in metrics.compute().items()}


# --- against the reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_the_metrics_equal_the_reference(seed: int) -> None:
    many = make_rows(seed, 150)
    expected = reference(many)
    assert same(values(many), {key: expected[key] for key in summary([])})
    assert set(expected) == set(KEYS)
    assert not any(math.isnan(expected[key]) for key in KEYS)


@given(rows)
@settings(max_examples=80, deadline=None)
def test_the_metrics_equal_the_reference_on_any_rows(some: list[Row]) -> None:
    ours, theirs = values(some), reference(some)
    for key in KEYS:
        assert ours[key] == pytest.approx(theirs[key], abs=1e-12, nan_ok=True), key


@given(one_row)
@settings(max_examples=150, deadline=None)
def test_each_row_equals_the_reference(row: Row) -> None:
    ours, theirs = values([row]), reference([row])
    for key in KEYS:
        assert ours[key] == pytest.approx(theirs[key], abs=1e-12, nan_ok=True), key


# --- batches, order, processes ----------------------------------------------------------------------------------------


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_any_batching_and_order_give_the_same(some: list[Row], draw: random.Random) -> None:
    once = collected([some])
    assert same(values(some), {key: once[key] for key in summary([])})
    mixed = [
        dataclasses.replace(
            row,
            gold=draw.sample(list(row.gold), len(row.gold)),
            predicted=row.predicted
            if isinstance(row.predicted, Malformed)
            else draw.sample(row.predicted, len(row.predicted)),
            tools=draw.sample(list(row.tools), len(row.tools)),
        )
        for row in draw.sample(some, len(some))
    ]
    cut = draw.randint(0, len(mixed))
    assert same(once, collected([mixed[:cut], [], mixed[cut:]]))
    assert same(once, collected([[row] for row in mixed]))


def test_two_processes_give_the_same(tmp_path: Path) -> None:
    mp.spawn(in_process, args=(str(tmp_path),), nprocs=2)
    expected = {f"test/{key}": value for key, value in collected([make_rows(3, 50)]).items()}
    for rank in (0, 1):
        for result in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert same(expected, result)


def test_reset_forgets() -> None:
    metrics = call_metrics()
    metrics.update(make_rows(1, 20))
    metrics.compute()
    metrics.reset()
    metrics.update(make_rows(2, 20))
    assert same({k: v.item() for k, v in metrics.compute().items()}, collected([make_rows(2, 20)]))


def test_metrics_that_agree_at_first_are_not_merged() -> None:
    right, wrong = Row([ToolCall("h", {})], [ToolCall("h", {})], [H, F]), Row([ToolCall("h", {})], [], [H, F])
    metrics = call_metrics()
    metrics.update([right])
    assert metrics.compute()["tsa"] == metrics.compute()["em"] == 1
    metrics.update([wrong, Row([ToolCall("f", {"i": 1})], [ToolCall("f", {"i": 2})], [H, F])])
    result = metrics.compute()
    assert [round(result[key].item(), 3) for key in ("tsa", "em", "fnr", "wtr")] == [0.667, 0.333, 0.333, 0.0]
    names = [state for metric in metrics.values() for state in metric._defaults]
    assert len(names) == len(set(names))


# --- what must always hold --------------------------------------------------------------------------------------------


@given(rows)
@settings(max_examples=40, deadline=None)
def test_the_four_shares_sum_to_one(some: list[Row]) -> None:
    parts = summary(some)
    if any(row.gold for row in some):
        assert sum(parts[key]["value"] for key in ("tsa", "wtr", "mfr", "fnr")) == pytest.approx(1, abs=1e-12)  # ty: ignore
    assert [m["value"] is None for m in parts.values()] == [m["low"] is None for m in parts.values()]


def assert_perfect(many: list[Row]) -> None:
    result = values(many)
    for key in ("tsa", "tsa_micro", "tsa_macro", "pf1", "pf1_macro", "pf1_named", "pf1_recall", "vr", "vp"):
        assert result[key] == 1.0, key
    assert result["em"] == result["em_all"] == result["em_lenient"] == 1.0
    assert all(result[key] == 0.0 or math.isnan(result[key]) for key in ERRORS)


@pytest.mark.parametrize("seed", range(5))
def test_gold_against_gold_is_perfect(seed: int) -> None:
    many = [dataclasses.replace(row, predicted=list(row.gold)) for row in make_rows(seed, 60)]
    assert_perfect(many)
    assert_perfect([dataclasses.replace(row, predicted=parse(render(row.gold))) for row in many])


@given(one_row)
@settings(max_examples=60, deadline=None)
def test_exact_implies_everything_else(row: Row) -> None:
    outcome = row_outcome(row)
    if outcome["em"]:
        assert outcome["tsa"] and outcome["em_lenient"] and outcome["em_all"] and outcome["pf1"] == 1.0
    assert (outcome["fp"] is None) == bool(row.gold) == (outcome["tsa"] is not None)
    assert (outcome["answer"] == "tsa") == bool(outcome["tsa"])
    json.dumps(outcome, allow_nan=False)


def test_no_rows() -> None:
    assert all(m == {"value": None, "low": None, "high": None, "n": 0} for m in summary([]).values())
    assert all(math.isnan(value) for value in collected([]).values())


def test_intervals_hold_their_values() -> None:
    for key, m in summary(make_rows(5, 200)).items():
        assert m["low"] <= m["value"] <= m["high"], key  # ty: ignore[unsupported-operator]
        assert m["n"] > 0 and m["low"] < m["high"]  # ty: ignore[unsupported-operator]


def test_rows_of_one_request_widen_the_interval() -> None:
    apart = [dataclasses.replace(row, request="") for row in make_rows(4, 40)] * 4
    together = [dataclasses.replace(row, request=f"q{i % 40}") for i, row in enumerate(apart)]
    for key in ("pf1", "vr", "tsa_macro", "chance"):
        one, other = summary(apart)[key], summary(together)[key]
        assert one["value"] == pytest.approx(other["value"])
        assert other["high"] - other["low"] > 1.4 * (one["high"] - one["low"])  # ty: ignore[unsupported-operator]


# --- definitions, by example ------------------------------------------------------------------------------------------


def got(gold: list[ToolCall], predicted: list[ToolCall] | Malformed, tools: list[Tool]) -> dict[str, Any]:
    return values([Row(gold, predicted, tools)])


def test_an_omitted_optional_parameter_equals_its_default() -> None:
    said, left = ToolCall("f", {"i": 1, "s": "a"}), ToolCall("f", {"i": 1})
    assert got([said], [left], [F])["em"] == got([left], [said], [F])["em"] == 1.0
    assert got([said], [ToolCall("f", {"i": 1, "s": "b"})], [F])["em"] == 0.0


def test_accepted_values_and_omittable_keys() -> None:
    gold = ToolCall("f", {"i": 1, "l": [1]}, accepted={"i": [2]}, omittable=("l",))
    for arguments in ({"i": 1, "l": [1]}, {"i": 2, "l": [1.0]}, {"i": 2}):
        assert_perfect([Row([gold], [ToolCall("f", arguments)], [F])])
    for arguments in ({"i": 3}, {"l": [1]}, {"i": 2, "l": [2]}, {"i": 2, "z": 1}):
        assert got([gold], [ToolCall("f", arguments)], [F])["em"] == 0.0


def test_the_right_value_under_the_wrong_key_is_the_naming_gap() -> None:
    result = got([ToolCall("f", {"i": 7})], [ToolCall("f", {"z": 7})], [F])
    assert (result["vr"], result["pf1_recall"], result["pf1"]) == (1.0, 0.0, 0.0)


def test_a_missed_call_and_an_extra_call_count() -> None:
    f, g = ToolCall("f", {"i": 1, "l": [1]}), ToolCall("g", {"i": 1})
    missed, extra = got([f, g], [g], [F, G]), got([g], [g, f], [F, G])
    assert missed["pf1"] == extra["pf1"] == 0.5  # 2 TP of 2 TP + 2
    assert missed["pf1_named"] == extra["pf1_named"] == 1.0
    assert (missed["tsa"], missed["tsa_micro"], missed["wtr"]) == (0.0, 0.5, 1.0)


def test_the_alignment_finds_the_exact_match_in_spite_of_more_right_pairs() -> None:
    gold = [ToolCall("f", {"i": 1, "n": 0.5}, omittable=("n",)), ToolCall("f", {"i": 1, "n": 0.5})]
    predicted = [ToolCall("f", {"i": 1, "n": 0.5}), ToolCall("f", {"i": 1})]
    for order in itertools.permutations(predicted):
        assert got(gold, list(order), [F])["em"] == 1.0


def test_malformed_without_a_gold_call_is_a_false_positive() -> None:
    result = got([], Malformed("broken", 0), [F])
    assert (result["fpr"], result["em_all"]) == (1.0, 0.0)
    assert math.isnan(result["tsa"])


def test_macro_goes_by_schema_not_by_name() -> None:
    other = dataclasses.replace(F, description="another tool of the same name")
    call = ToolCall("f", {"i": 1})
    many = [Row([call], [call], [F]), Row([call], [call], [F]), Row([call], [], [other])]
    assert values(many)["tsa_macro"] == 0.5


def test_rows_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(ValueError, match="gold call is 'f'; no tool on offer has that name"):
        summary([Row([ToolCall("f", {})], [], [G])])
    with pytest.raises(ValueError, match="tool name is 'f' more than once"):
        summary([Row([], [], [F, dataclasses.replace(F, description="again")])])


def test_an_evaluation_is_judged_in_seconds() -> None:
    many = make_rows(9, 3000)
    started = time.perf_counter()
    summary(many)
    assert time.perf_counter() - started < 10  # 36,000 rows in two minutes even on a busy machine


# --- real rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["simple_python", "multiple", "parallel", "parallel_multiple", "live_multiple"])
def test_gold_against_gold_is_perfect_on_bfcl(name: str) -> None:
    if not os.environ.get("TOOLFORMER_DATA"):
        pytest.skip("TOOLFORMER_DATA is not set: no real rows to try")
    folder = Path(os.environ["TOOLFORMER_DATA"], "bfcl-v4")
    path = next(folder.glob(f"BFCL_v4_{name}.json*"))
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        asked = {row["id"]: row for row in map(json.loads, file)}
    many, wrong = [], []
    with (folder / "possible_answer" / f"BFCL_v4_{name}.json").open(encoding="utf-8") as file:
        for row in itertools.islice(map(json.loads, file), 0, None, 8):
            tools = [tool_from_openai(f, row["id"]) for f in asked[row["id"]]["function"]]
            gold = [bfcl_call(tool, arguments) for call in row["ground_truth"] for tool, arguments in call.items()]
            many.append(Row(gold, [ToolCall(c.name, c.arguments) for c in gold], tools))
            wrong.append(dataclasses.replace(many[-1], predicted=[ToolCall(c.name, {}) for c in gold[1:]]))
    assert_perfect(many)
    assert values(wrong)["em"] < 0.1 and values(wrong)["tsa"] == 0.0


def bfcl_call(name: str, arguments: dict[str, list[Any]]) -> ToolCall:
    given = {key: [v for v in values if v != ""] for key, values in arguments.items()}
    return ToolCall(
        name,
        {key: values[0] for key, values in given.items() if values},
        {key: values[1:] for key, values in given.items() if values[1:]},
        tuple(key for key, values in arguments.items() if "" in values),
    )
