"""In: random walks through the grammars. Out: whether whatever they allow is a valid call of a tool on offer."""

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tiny_caller import prompts, rows, world

from toolformer.calls import Malformed, parse, render
from toolformer.inference.grammar import Grammar
from toolformer.records import Tool, ToolCall


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar(prompts().tokenizer, len(prompts().tokenizer), end=prompts().end)


def walk(grammar: Grammar, matcher, rng: np.random.Generator, steps: int = 300) -> str | None:
    """A random text that the matcher allows, drawn towards calls and towards their end; None where it does not end."""
    tokenizer = prompts().tokenizer
    closing = np.array([any(mark in tokenizer.decode([i]) for mark in '"}]<') for i in range(len(tokenizer))])
    written: list[int] = []
    for _ in range(steps):
        allowed = grammar.allowed([matcher], len(tokenizer))[0]
        some = allowed & closing if (allowed & closing).any() and rng.random() < 0.4 else allowed
        token = int(rng.choice(np.flatnonzero(some)))
        if allowed[prompts().call_open] and rng.random() < 0.5:
            token = prompts().call_open
        if token == prompts().end:
            return tokenizer.decode(written)
        written.append(token)
        matcher.consume_token(token)
    return None


def test_every_walk_is_a_valid_call_or_a_reply(grammar):
    rng, ended, called = np.random.default_rng(0), 0, 0
    for _, tools in rows()[:20]:
        text = walk(grammar, grammar.choice(tools, 3), rng)
        if text is None:
            continue
        ended += 1
        calls = parse(text)
        assert not isinstance(calls, Malformed), text
        assert len(calls) <= 3
        by_name = {tool.name: tool for tool in tools}
        for call in calls:
            called += 1
            Draft202012Validator(by_name[call.name].parameters).validate(dict(call.arguments))
            assert set(call.arguments) <= set(by_name[call.name].parameters["properties"])
    assert ended > 10 and called > 10


def test_gold_is_allowed(grammar):
    """What the model is taught to write can be written: every gold call of a test split, token by token."""
    tools, examples = world().split("test_unseen", 60)
    catalog = {tool.id: tool for tool in tools}
    for example in examples:
        offered = [catalog[id_] for id_ in example.tools]
        matcher = grammar.choice(offered)
        for token in [*prompts().ids(render(example.calls) if example.calls else example.reply), prompts().end]:
            assert grammar.allowed([matcher], len(prompts().tokenizer))[0][token], (example.calls, example.reply)
            if token != prompts().end:
                matcher.consume_token(token)


def test_limits_of_a_schema_hold(grammar):
    parameters = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 3, "maximum": 12},
            "x": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
            "to": {"type": "object", "properties": {"kind": {"const": "home"}}, "required": ["kind"]},
        },
        "required": ["n", "x", "tags", "to"],
    }
    tool, rng = Tool("book", "", parameters), np.random.default_rng(1)
    found = [walk(grammar, grammar.call(tool, first=True), rng) for _ in range(20)]
    calls = [parse(text) for text in found if text is not None]
    assert len(calls) > 10
    for (call,) in calls:
        assert isinstance(call, ToolCall)
        Draft202012Validator(parameters).validate(dict(call.arguments))


def test_a_later_call_starts_on_a_new_line(grammar):
    tool = Tool("ping", "", {"type": "object", "properties": {}})
    call = render([ToolCall("ping", {})])
    for first, text in ((True, call), (False, "\n" + call)):
        matcher = grammar.call(tool, first=first)
        for token in prompts().ids(text):
            assert grammar.allowed([matcher], len(prompts().tokenizer))[0][token]
            matcher.consume_token(token)
        assert matcher.is_accepting()


def written_is_allowed(grammar, parameters: dict, arguments: dict) -> bool:
    matcher = grammar.call(Tool("f", "", {"type": "object", **parameters}), first=True)
    for token in prompts().ids(render([ToolCall("f", arguments)])):
        if not grammar.allowed([matcher], len(prompts().tokenizer))[0][token]:
            return False
        matcher.consume_token(token)
    return matcher.is_accepting()


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"enum": ["a", -(2**63)]}, -(2**63)),
        ({"enum": ["a", -(2**63)]}, "a"),
        ({"const": 1e30}, 1e30),
        ({"enum": [[1e-7], [2]]}, [1e-7]),
        ({"type": "integer", "minimum": 10**30}, 10**30),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, [1, "a"]),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}}, {"any": 1}),
        ({"type": "object", "additionalProperties": True}, {"any": [1]}),
        ({"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}]}, {"a": 1}),
    ],
)
def test_what_the_compiler_cannot_say_is_left_open(grammar, schema, value):
    """Compiled as they stand these are refused, shut out right values, or (-2**63) end the process."""
    assert written_is_allowed(grammar, {"properties": {"x": schema}, "required": ["x"]}, {"x": value})


def test_a_tool_without_a_grammar_is_named(grammar):
    good = Tool("ping", "", {"type": "object", "properties": {}})
    marked = {"type": "object", "properties": {"x": {"enum": ["<tool_call>"]}}, "required": ["x"]}
    never = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 3, "maximum": 1}}, "required": ["x"]}
    for parameters, why in ((marked, "holds <tool_call>"), (never, "no grammar can be made")):
        with pytest.raises(ValueError, match=f"tool 'bad': .*{why}.*simplify its parameters"):
            grammar.choice([good, Tool("bad", "", parameters)])
