"""In: calls whose verdict BFCL's published rules settle. Out: whether our scorer says the same, and its table."""

import json
import math
from itertools import permutations

import pytest

from toolformer.calls import Malformed, render
from toolformer.data.sources.bfcl import SOURCE
from toolformer.data.sources.source import Found
from toolformer.evaluation.cases import Case
from toolformer.evaluation.scoring import judged as judged_by_evaluation
from toolformer.evaluation.scoring import prediction
from toolformer.inference.engine import Answer
from toolformer.metrics import Row, wilson
from toolformer.metrics.bfcl import Score, call_mistake, category_of, markdown, mistake, row_of, table
from toolformer.metrics.bfcl_source_text import read_java, read_javascript
from toolformer.records import Example, Message, Tool, ToolCall

TEXT, WHOLE, NUMBER, FLAG = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
ANY: dict = {}
OBJECT = {"type": "object"}
TEXTS = {"type": "array", "items": TEXT}
WHOLES = {"type": "array", "items": WHOLE}
NUMBERS = {"type": "array", "items": NUMBER}
GRID = {"type": "array", "items": {"type": "array", "items": WHOLE}}
OBJECTS = {"type": "array", "items": OBJECT}


def one(spec, listed, given, category="simple_python", required=True):
    """The verdict on one value of one parameter, for which upstream lists ``listed``."""
    values = [value for value in listed if value != ""]
    omittable = ("x",) if "" in listed else ()
    arguments = {"x": values[0]} if values else {}
    gold = ToolCall("f", arguments, {"x": values[1:]} if values[1:] else {}, omittable)
    schema = {"type": "object", "properties": {"x": spec}, "required": ["x"] if required else []}
    return call_mistake(gold, ToolCall("f", {} if given is ... else {"x": given}), schema, category)


@pytest.mark.parametrize(
    ("spec", "listed", "given", "verdict"),
    [
        (TEXT, ["New York"], "New York", ""),
        (TEXT, ["New York"], "new-york", ""),  # case and punctuation are dropped
        (TEXT, ["April 1, 2024"], "april 1 2024", ""),
        (TEXT, ["a^2*b_c/d"], "A2BCD", ""),
        (TEXT, ["it's"], 'It"s', ""),  # single quotes count as double ones
        (TEXT, ["x:y"], "xy", "value"),  # a colon stays
        (TEXT, ["New York", "NYC"], "nyc", ""),
        (TEXT, ["New York"], "Boston", "value"),
        (TEXT, ["5"], 5, "type"),
        (TEXT, [5], 5, ""),  # upstream's own gold of another type: a variable, which has to be equal
        (TEXT, [None], None, ""),
        (TEXT, ["a"], None, "type"),
        (WHOLE, [5], 5, ""),
        (WHOLE, [5], 5.0, "type"),  # a float is no integer
        (WHOLE, [5], "5", "type"),
        (WHOLE, [1], True, "type"),  # nor is a boolean
        (WHOLE, [5, 6], 6, ""),
        (WHOLE, [5], 6, "value"),
        (WHOLE, ["MAX_SIZE"], "MAX_SIZE", ""),  # a variable's name
        (WHOLE, ["MAX_SIZE"], "max size", "value"),  # is compared as it is
        (NUMBER, [5.0], 5, ""),  # an integer is accepted as a float
        (NUMBER, [5], 5.0, ""),
        (NUMBER, [5], 5, ""),
        (NUMBER, [0.5], "0.5", "type"),
        (NUMBER, [0.5], 0.25, "value"),
        (FLAG, [True], True, ""),
        (FLAG, [True], False, "value"),
        (FLAG, [True], "true", "type"),
        (FLAG, [True], 1, "type"),
        (ANY, ["Abc"], "abc", ""),  # "any" is text
        (ANY, [3], 3, ""),  # or what gold has
        (ANY, ["abc"], 3, "type"),
        (TEXTS, [["New York", "Rome"]], ["new york", "ROME"], ""),
        (TEXTS, [["a", "b"]], ["b", "a"], "value"),  # order counts in a list
        (TEXTS, [["a"], ["a", "b"]], ["a", "b"], ""),
        (TEXTS, [["a"]], ["a", "a"], "value"),
        (TEXTS, [["a"]], "a", "type"),
        (TEXTS, [["a"]], [1], "type"),
        (WHOLES, [[3, 5]], [3, 5], ""),
        (WHOLES, [[3, 5]], [3.0, 5.0], "type"),  # inside a list an integer has to be one
        (NUMBERS, [[3.5]], [3.5], ""),
        (NUMBERS, [[3, 5]], [3, 5], ""),  # the type of gold's own first item will do
        (NUMBERS, [[3.5, 5.0]], [3.5, 5], "type"),
        (GRID, [[[1, 2], [3]]], [[1, 2], [3]], ""),
        (GRID, [[[1, 2], [3]]], [[1, 2], [4]], "value"),
        (OBJECT, [{"min": 1, "max": 2}], {"max": 2, "min": 1}, ""),
        (OBJECT, [{"name": "John Doe"}], {"name": "john doe"}, ""),
        (OBJECT, [{"min": 1}, {"min": 2}], {"min": 2}, ""),
        (OBJECT, [{"min": 1}], {"min": 1, "max": 2}, "value"),
        (OBJECT, [{"min": 1, "max": 2}], {"min": 1}, "value"),
        (OBJECT, [{"min": 1}], [1], "type"),
        (OBJECTS, [[{"n": "A b"}, {"n": "c"}]], [{"n": "a B"}, {"n": "C"}], ""),
        (OBJECTS, [[{"n": "a"}, {"n": "c"}]], [{"n": "c"}, {"n": "a"}], "value"),
        (OBJECTS, [[{"n": "a"}]], [{"n": "a"}, {"n": "a"}], "value"),
    ],
)
def test_values(spec, listed, given, verdict):
    assert one(spec, listed, given) == verdict


@pytest.mark.parametrize(
    ("spec", "listed", "given", "verdict"),
    [
        (TEXT, ["km", ""], ..., ""),  # may be left out
        (TEXT, ["km", ""], "KM", ""),
        (TEXT, ["km", ""], "", ""),  # the empty text is listed
        (TEXT, ["km"], ..., "missing optional"),  # is optional in the schema, and gold wants it
        (TEXT, [""], ..., ""),
        (TEXT, [""], "km", "value"),  # has to be left out
        (WHOLE, [""], 1, "value"),
        (TEXTS, [["a"], ""], [], ""),  # upstream reads "may be left out" as an empty list
        (OBJECT, [{"a": 1}, ""], ..., ""),
    ],
)
def test_parameters_that_may_be_left_out(spec, listed, given, verdict):
    assert one(spec, listed, given, required=False) == verdict


def test_names_and_keys():
    schema = {"type": "object", "properties": {"a": WHOLE, "b": WHOLE, "c": WHOLE}, "required": ["a"]}
    gold = ToolCall("math.add", {"a": 1, "b": 2})

    def verdict(name, **arguments):
        return call_mistake(gold, ToolCall(name, arguments), schema, "multiple")

    assert verdict("math.add", b=2, a=1) == ""
    assert verdict("math_add", a=1, b=2) == "name"
    assert verdict("math.add", b=2) == "missing required"
    assert verdict("math.add", a=1) == "missing optional"
    assert verdict("math.add", a=1, b=2, d=3) == "unexpected parameter"  # not declared
    assert verdict("math.add", a=1, b=2, c=3) == "unexpected parameter"  # declared, and not listed by gold
    left_out = ToolCall("math.add", {"b": 2}, {}, ("a",))  # "" for a required parameter changes nothing
    assert call_mistake(left_out, ToolCall("math.add", {"b": 2}), schema, "multiple") == "missing required"


F = Tool("f", "", {"type": "object", "properties": {"x": WHOLE}, "required": ["x"]})
G = Tool("g", "", {"type": "object", "properties": {"x": WHOLE}, "required": ["x"]})


def calls(text):
    """``f1 g2``: a call of f with x = 1 and one of g with x = 2."""
    return [ToolCall(word[0], {"x": int(word[1:])}) for word in text.split()]


def judged(gold, predicted, category):
    answer = predicted if isinstance(predicted, Malformed) else calls(predicted)
    return mistake(Row(calls(gold), answer, [F, G]), category)


@pytest.mark.parametrize(
    ("gold", "predicted", "category", "verdict"),
    [
        ("f1", "f1", "simple_python", ""),
        ("f1", "f1 f1", "simple_python", "number of calls"),
        ("f1", "", "multiple", "number of calls"),
        ("f1", "g1", "multiple", "name"),
        ("f1", Malformed("oops", 0), "multiple", "malformed"),
        ("f1 f2", "f2 f1", "parallel", ""),
        ("f1 g2 f3", "g2 f3 f1", "parallel_multiple", ""),
        ("f1 f1", "f1", "parallel", "number of calls"),
        ("f1 f1", "f1 f2", "parallel", "no match"),  # each gold call needs a call of its own
        ("f1 f2", "f1 f1", "parallel", "no match"),
        ("", "", "live_irrelevance", ""),
        ("", "f1", "live_irrelevance", "called"),
        ("", Malformed("oops", 0), "live_irrelevance", ""),  # no call that can be read
        ("", "g7", "live_relevance", ""),  # any call will do
        ("", "", "live_relevance", "not called"),
        ("", Malformed("oops", 0), "live_relevance", "not called"),
    ],
)
def test_rows(gold, predicted, category, verdict):
    assert judged(gold, predicted, category) == verdict


def test_the_order_of_parallel_calls_says_nothing():
    for order in permutations("f1 f2 g1 g1".split()):
        assert judged("f1 f2 g1 g1", " ".join(order), "parallel_multiple") == ""


def test_the_first_gold_call_takes_the_first_answer_that_is_right():
    """Upstream's way: it is not the best matching."""
    wide = ToolCall("f", {"x": 1}, {"x": [2]})
    row = Row([wide, ToolCall("f", {"x": 1})], calls("f1 f2"), [F])
    assert mistake(row, "parallel") == "no match"
    assert mistake(Row(row.gold, calls("f2 f1"), [F]), "parallel") == ""


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5", int, 5),
        ("-5L", int, -5),
        ("5.5", int, "5.5"),
        ("2.5f", float, 2.5),
        ("3", float, 3.0),
        ("1e3", float, 1000.0),
        ("true", bool, True),
        ("True", bool, "True"),
        ("new int[]{1, 2}", list, [1, 2]),
        ('new String[]{"a", "b, c"}', list, ["a", "b, c"]),
        ("new ArrayList<Long>(Arrays.asList(1L, 2L))", list, [1, 2]),
        ('new ArrayList<String>() {{ add("a"); add("b"); }}', list, ["a", "b"]),
        ("new ArrayList<>()", list, []),
        ("new char[]{'a', 'b'}", list, ["a", "b"]),
        ('new HashMap<String, Integer>() {{ put("a", 1); put("b", 2.5f); }}', dict, {"a": 1, "b": 2.5}),
        ("new HashMap<>()", dict, {}),
        ("userProfile", dict, "userProfile"),
        ("getItems()", list, "getItems()"),
    ],
)
def test_java(text, kind, value):
    read = read_java(text, kind)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5", int, 5),
        ("5n", int, 5),
        ("5", float, 5.0),
        ("false", bool, False),
        ("[1, 'a b', true]", list, [1, "a b", True]),
        ("[[1, 2], [3]]", list, [[1, 2], [3]]),
        ("{method: 'GET', \"n\": {deep: null}}", dict, {"method": "GET", "n": {"deep": None}}),
        ("['it\\'s', \"a: b\"]", list, ["it's", "a: b"]),
        ("{handler: onClick}", dict, "{handler: onClick}"),
        ("[1, 2", list, "[1, 2"),
        ("{a: 1}", list, "{a: 1}"),
    ],
)
def test_javascript(text, kind, value):
    read = read_javascript(text, kind)
    assert read == value and type(read) is type(value)


def test_other_languages_take_values_and_source_text():
    assert one(WHOLE, [5], 5, "simple_java") == one(WHOLE, [5], "5", "simple_java") == ""
    assert one(WHOLE, [5], "5", "simple_python") == "type"
    assert one(WHOLES, [[1, 2]], "new int[]{1, 2}", "simple_java") == ""
    assert one(WHOLES, [[1, 2]], "[1, 2]", "simple_java") == "type"  # JavaScript's way
    assert one(WHOLES, [[1, 2]], "[1, 2]", "simple_javascript") == ""
    assert one(TEXT, ["5"], "5", "simple_java") == ""  # text stays text
    assert one(OBJECT, ["settings"], "settings", "simple_java") == ""  # a variable
    assert one({"type": "array", "items": ANY}, [["id", 4, True]], ["id", 4, True], "simple_java") == ""


def rows(category, right, wrong, start=0):
    answers = ["f1"] * right + ["f2"] * wrong
    return [(f"bfcl-v4/{category}/{i}", Row(calls("f1"), calls(a), [F, G])) for i, a in enumerate(answers, start)]


def test_the_table_groups_as_the_leaderboard_does():
    found = {
        score.name: score
        for score in table(
            [
                *rows("simple_python", 8, 2),
                *rows("simple_java", 1, 1),
                *rows("simple_javascript", 0, 4),
                *rows("multiple", 1, 0),
                *rows("parallel", 1, 1),
                *rows("live_multiple", 3, 1),
                *rows("live_simple", 0, 1),
            ]
        )
    }
    assert found["simple_python"] == Score("simple_python", 0.8, *wilson(8, 10), 10)
    assert found["Simple"].value == pytest.approx((0.8 + 0.5 + 0.0) / 3) and found["Simple"].n == 16
    assert found["Non-Live AST"].value == pytest.approx((found["Simple"].value + 1 + 0.5) / 3)
    assert found["Non-Live AST"].missing == ("parallel_multiple",)
    assert found["Live AST"] == Score("Live AST", 0.6, *wilson(3, 5), 5, ("live_parallel", "live_parallel_multiple"))
    assert found["Irrelevance"] == Score("Irrelevance", None, None, None, 0, ("irrelevance", "live_irrelevance"))
    text = markdown(list(found.values()))
    assert "| multiple | 1.000 (0.207-1.000) | 1 |" in text and "parallel_multiple |" not in text
    assert text.endswith("Relevance: no rows of live_relevance.")


def test_a_means_interval_is_made_of_its_parts():
    scores = {score.name: score for score in table([*rows("simple_python", 5, 5), *rows("simple_java", 5, 5)])}
    low, high = wilson(5, 10)
    assert scores["Simple"].low == pytest.approx(0.5 - (0.5 - low) / math.sqrt(2))
    assert scores["Simple"].high == pytest.approx(0.5 + (high - 0.5) / math.sqrt(2))


def test_a_category_that_there_is_not():
    with pytest.raises(ValueError, match="row bfcl-v4/memory/1: category is 'memory'; it is one of simple_python"):
        table(rows("memory", 1, 0, start=1))


@pytest.mark.parametrize("text", ["", "<tool_call> oops", render([ToolCall("f", {"x": 2})]), render(calls("f7"))])
def test_a_line_of_predictions_says_what_the_row_said(text):
    gold = ToolCall("f", {"x": 1}, {"x": [2]}, ("x",))
    asked = Example("bfcl-v4/multiple/1", (Message("user", "Do it."),), (F.id, G.id), (gold,), "", "bfcl-v4")
    case, answer = Case(asked, [F, G], [F, G]), Answer(text, finished=True)
    row = judged_by_evaluation(case, answer)
    line = json.loads(json.dumps(prediction(case, answer, row)))
    again = row_of(line, [F, G])
    assert again.gold == [gold] and again.stratum == row.stratum
    assert mistake(again, category_of(line["id"])) == mistake(row, "multiple")


def test_gold_is_right_by_its_own_rules(real_data):
    judged = []
    for found in SOURCE.read(real_data / SOURCE.name):
        if isinstance(found, Found):
            example, tools = found.example, [offered.tool for offered in found.offered]
            answer = [ToolCall(call.name, call.arguments) for call in example.calls]
            judged.append((example.id, Row(example.calls, answer, tools, example.stratum)))
    assert [(name, mistake(row, name.split("/")[1])) for name, row in judged if mistake(row, name.split("/")[1])] == []
    assert {score.name: score.n for score in table(judged) if score.value is not None} == {
        "Non-Live AST": 1130,
        "Simple": 532,
        "simple_python": 400,
        "simple_java": 90,
        "simple_javascript": 42,
        "multiple": 200,
        "parallel": 200,
        "parallel_multiple": 198,
        "Live AST": 1038,
        "live_multiple": 1038,
        "Irrelevance": 884,
        "live_irrelevance": 884,
    }
