"""In: judged rows of several sources. Out: whether each is counted in its groups, its arguments where gold has some."""

from toolformer.evaluation.breakdown import breakdown
from toolformer.metrics import Row, row_outcome, summary
from toolformer.records import Example, Message, Tool, ToolCall

TOOL = Tool("find", "", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


def judged(source: str, gold: list[ToolCall], given: list[ToolCall], stratum: str = "", names_only: bool = False):
    example = Example(
        f"{source}/simple_python/1", (Message("user", "?"),), (TOOL.id,), tuple(gold), "", source, stratum
    )
    return example, Row(gold, given, [TOOL], stratum, "", names_only)


def test_rows_are_counted_by_source_and_stratum():
    bern, rome = ToolCall("find", {"city": "Bern"}), ToolCall("find", {"city": "Rome"})
    rows = [
        judged("one", [bern], [bern], "new_domain"),
        judged("one", [bern], [rome], "new_domain"),
        judged("one", [], [], "small_talk"),
        judged("two", [], [rome], "small_talk"),
        judged("two", [bern], []),
    ]
    found = breakdown(rows)
    assert found.keys() == {"source", "stratum"}
    values = {name: {metric: one["value"] for metric, one in rates.items()} for name, rates in found["source"].items()}
    assert values == {"one": {"tsa": 1.0, "em": 0.5, "fpr": 0.0}, "two": {"tsa": 0.0, "em": 0.0, "fpr": 1.0}}
    assert found["stratum"].keys() == {"call", "new_domain", "small_talk"}
    assert found["stratum"]["small_talk"]["fpr"] == {**found["stratum"]["small_talk"]["fpr"], "value": 0.5, "n": 2}
    assert breakdown(rows[:2]) == {}, "one group says nothing that the whole does not"


def test_bfcl_gets_its_own_table():
    bern = ToolCall("find", {"city": "Bern"})
    scores = {
        score["name"]: score for score in breakdown([judged("bfcl", [bern], [bern]), judged("x", [], [])])["bfcl"]
    }
    assert scores["simple_python"]["value"] == 1.0 and scores["multiple"]["value"] is None


def test_arguments_are_not_judged_where_gold_has_none():
    _, row = judged("tools", [ToolCall("find", {})], [ToolCall("find", {"city": "Bern"})], names_only=True)
    found = summary([row])
    assert found["tsa"]["value"] == 1.0
    assert {name: found[name]["n"] for name in ("em", "pf1", "vr")} == {"em": 0, "pf1": 0, "vr": 0}
    outcome = row_outcome(row)
    assert outcome["em"] is None and outcome["pf1"] is None and not any(outcome["pairs"].values())
