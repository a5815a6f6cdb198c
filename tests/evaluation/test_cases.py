"""In: rows of the built-in data. Out: whether the controls are what they claim to be."""

from collections import Counter

import pytest
from tiny_caller import hand_made, prompts, rows, world

from toolformer.evaluation import calibrate
from toolformer.evaluation.calibration import GRID
from toolformer.evaluation.cases import Gists, cases, distinct_tools, foreign, split_rows, varied
from toolformer.evaluation.provenance import code, command
from toolformer.inference.engine import Engine


def test_the_right_tool_stands_in_every_place_alike():
    counts: Counter[int] = Counter()
    for example, tools in split_rows(world(), "test_unseen", 300, 8, seed=0):
        if example.calls:
            counts[[tool.name for tool in tools].index(example.calls[0].name)] += 1
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 1.6 * sum(counts.values()) / 8


def test_masked_rows_keep_all_but_the_names():
    plain = rows()
    masked = varied(plain, "masked", 0)
    assert varied(plain, "masked", 0) == masked != varied(plain, "masked", 1)
    assert varied(plain[3:4], "masked", 0) == masked[3:4], "each row alone"
    for (example, tools), (other, renamed) in zip(plain, masked, strict=True):
        assert other.messages == example.messages
        assert [t.description for t in renamed] == [t.description for t in tools]
        assert not {t.name for t in renamed} & {t.name for t in tools}
        places = [[t.name for t in ts].index(c.name) for e, ts in ((example, tools), (other, renamed)) for c in e.calls]
        assert places[: len(places) // 2] == places[len(places) // 2 :]


def test_foreign_gists_are_of_other_tools():
    pool = distinct_tools(rows())
    for case in cases(rows(), "foreign", pool, 0):
        assert len(case.shown) == len(case.tools)
        assert not {tool.name for tool in case.shown} & {tool.name for tool in case.tools}
        assert not {tool.description for tool in case.shown} & {tool.description for tool in case.tools}
        assert len({tool.id for tool in case.shown}) == len(case.shown)
    example, tools = rows()[0]
    assert foreign(example, tools, pool, 0) == foreign(example, tools, pool, 0) != foreign(example, tools, pool, 1)
    with pytest.raises(ValueError, match="beside the 6 tools of row .* the split has only 0"):
        foreign(example, tools, tools, 0)


def test_the_missing_tool_is_missing():
    for case in cases(rows(), "missing", [], 0):
        original = next(example for example, _ in rows() if example.id == case.example.id)
        assert original.calls and case.example.calls == () and case.example.stratum == "tool_missing"
        assert not {call.name for call in original.calls} & {tool.name for tool in case.tools}
        assert case.shown == case.tools and case.example.tools == tuple(tool.id for tool in case.tools)


def test_calibration_keeps_its_limit_and_does_not_touch_the_engine():
    engine = Engine(hand_made(), prompts(), batch_size=64)
    held = split_rows(world(), "validation", 80, 8, seed=0)
    found = {limit: calibrate(engine, held, most_false=limit) for limit in (0.0, 0.3, 1.0)}
    assert engine.no_call_bias == 0.0
    biases = [found[limit]["no_call_bias"] for limit in (0.0, 0.3, 1.0)]
    accuracies = [found[limit]["tsa"] for limit in (0.0, 0.3, 1.0)]
    assert biases == sorted(biases, reverse=True) and accuracies == sorted(accuracies)
    assert all(found[limit]["fpr"] <= limit and GRID[0] <= found[limit]["no_call_bias"] <= GRID[-1] for limit in found)
    with pytest.raises(ValueError, match="rows of both kinds"):
        calibrate(engine, [row for row in held if row[0].calls])


def test_a_calibrated_bias_gives_the_rate_it_promised():
    engine = Engine(hand_made(), prompts(), batch_size=64, max_new_tokens=2)
    held = split_rows(world(), "validation", 60, 8, seed=0)
    promised = calibrate(engine, held, most_false=0.2)
    engine.no_call_bias = promised["no_call_bias"]
    gists = Gists(engine, distinct_tools(held))
    answers = engine.answer([gists.request(case) for case in cases(held, "real", [], 0)], "pointed")
    called = [a.choices[0].index(max(a.choices[0])) > 0 for (e, _), a in zip(held, answers, strict=True) if not e.calls]
    assert sum(called) / len(called) == pytest.approx(promised["fpr"])


def test_the_command_says_nothing_of_the_machine():
    assert command(["/home/me/x/toolformer/curriculum.py", "name=a b"]) == "python -m toolformer.curriculum 'name=a b'"
    assert command(["/usr/bin/pytest", "-q"]) == "pytest -q"
    assert set(code()) == {"commit", "dirty"}
