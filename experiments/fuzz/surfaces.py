"""In: a random generator. Out: how one input fared at a surface; an exception that is not the surface's own is a bug.

A surface is a function that makes what it needs once and returns the function for one input. That one answers with what
became of it, or raises: ``AssertionError`` for a wrong result that was not refused, anything else for a crash.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from experiments.fuzz import mutations
from experiments.fuzz.samples import Unsampled, sample
from toolformer.calls import CLOSE, OPEN, Malformed, parse, render
from toolformer.data.corpus import Corpus, write_corpus
from toolformer.data.own_rows import OwnRows
from toolformer.records import Example, Message, Tool, ToolCall, example_from_json, example_to_json
from toolformer.schemas import (
    fits,
    read_tool,
    shorten,
    tool_from_flat,
    tool_from_mcp,
    tool_from_openai,
    type_to_schema,
    values_equal,
)

Once = Callable[[Random], str]
PLACE = "tools.json:3"

# --- the call parser --------------------------------------------------------------------------------------------------

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"city": "Bern", "hours": 2, "exact": 2.5, "now": True, "by": None},
    {"to": {"street": "A 1", "tags": ["x", {"y": [1, [2, []]]}]}, "text": 'quote " back \\ line\n\u00e9 \U0001f600'},
    {"</tool_call>": "<tool_call>", "n": -0.0, "big": 10**30, "small": 5e-324},
]


def call_parser(folder: Path) -> Once:
    """What is rendered is read back exactly or not rendered; what is read can be rendered; nothing raises."""
    texts = [render([ToolCall("get_time", a)] * n) for a in ARGUMENTS for n in (1, 2)]

    def once(rng: Random) -> str:
        if rng.random() < 0.3:
            return _rendered(rng)
        written = mutations.text(rng, rng.choice(texts))
        read = parse(written)
        if isinstance(read, Malformed):
            assert 0 <= read.position <= len(written) and read.reason, read
            return "refused"
        assert read or (OPEN not in written and CLOSE not in written), "an attempt was taken for a plain reply"
        assert not read or _same(parse(render(read)), read), "what was read is not what it is written as"
        return "accepted"

    return once


def _rendered(rng: Random) -> str:
    arguments = mutations.json_value(rng, copy.deepcopy(rng.choice(ARGUMENTS)))
    name = rng.choice(mutations.NASTY) if rng.random() < 0.3 else "get_time"
    calls = [ToolCall(name, arguments if isinstance(arguments, dict) else {"x": arguments})] * rng.choice((1, 1, 3))
    try:
        written = render(calls)
    except ValueError as error:
        assert str(error).startswith("call of "), error
        return "refused"
    assert _same(parse(written), calls), "rendered, and read back as something else"
    return "accepted"


def _same(read: Any, calls: list[ToolCall]) -> bool:
    """Equal, and equal in text: 1 is no 1.0 and no True."""
    return read == calls and [json.dumps(call.arguments) for call in read] == [json.dumps(c.arguments) for c in calls]


# --- schema dialects --------------------------------------------------------------------------------------------------

ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "no": {"type": "integer"}},
    "required": ["no"],
}
OPENAI = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a table.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where", "enum": ["Bern", "Oslo"], "default": "Bern"},
                "guests": {"type": "integer", "minimum": 1, "maximum": 12},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
                "to": ADDRESS,
                "tip": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "code": {"type": "string", "pattern": "^[a-z]+$"},
            },
            "required": ["city", "guests"],
            "additionalProperties": False,
        },
    },
}
BFCL = {
    "name": "math.area",
    "description": "Area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float", "description": "Base"},
            "pair": {"type": "tuple", "items": {"type": "int"}},
            "box": {"type": "dict", "properties": {"side": {"type": "any"}}},
        },
        "required": ["base"],
    },
}
MCP = {
    "name": "move",
    "description": None,
    "inputSchema": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}},
        "properties": {"a": {"$ref": "#/$defs/point"}, "b": {"oneOf": [{"$ref": "#/$defs/point"}, {"type": "null"}]}},
        "required": ["a"],
    },
}
FLAT = {
    "name": "search",
    "description": "Search.",
    "parameters": {
        "q": {"type": "str", "description": "What"},
        "n": {"type": "int, optional", "default": 5},
        "ids": {"type": "List[Union[int, str]]"},
        "pos": {"type": "Tuple[float, float]", "description": "Where"},
        "by": {"type": "Optional[Literal['date', 'size']]"},
    },
}
ROWS = ((OPENAI, tool_from_openai), (BFCL, tool_from_openai), (MCP, tool_from_mcp), (FLAT, tool_from_flat))
TYPES = (
    "str, optional",
    "List[Union[int, float]]",
    "ArrayList<String>",
    "Dict[str, List[int]]",
    "int[][]",
    "any | None",
)
TYPES += ("str, optional, default 'Bern'", "Tuple[float, ...]", "Optional[Literal['a', 1]]", "Callable[[int], str]")


def mutated_tool(rng: Random) -> Tool | None:
    """A tool made of a broken description; None where it was refused, as it should be."""
    row, reader = rng.choice(ROWS)
    try:
        return reader(mutations.json_value(rng, copy.deepcopy(row)), PLACE)
    except ValueError as error:
        assert str(error).startswith(PLACE), f"no place: {error}"
        return None


def arguments_of(rng: Random, tool: Tool) -> dict[str, Any] | None:
    """Arguments as gold would have them; None where the schema says too much for the sampler, or wants no object."""
    try:
        value = sample(rng, tool.parameters)
    except Unsampled:
        return None
    return value if isinstance(value, dict) else None


def schema_dialects(folder: Path) -> Once:
    """A tool that is accepted is read again from its own text as itself, and every use of it works."""

    def once(rng: Random) -> str:
        if rng.random() < 0.3:
            return _type_text(rng)
        tool = mutated_tool(rng)
        if tool is None:
            return "refused"
        again = read_tool(json.loads(tool.text), PLACE)
        assert again.text == tool.text and again.id == tool.id, "read again, it is another tool"
        value = arguments_of(rng, tool) or {}
        fits(tool, value)
        assert values_equal(value, copy.deepcopy(value), tool.parameters), "a value is not equal to itself"
        limit = rng.choice((20, 200, 400))
        short = shorten(tool, len, limit)
        if len(short.text) > limit:
            assert short == shorten(tool, len, 0), "longer than its limit, and more could go"
        read_tool(json.loads(short.text), PLACE)
        return "accepted"

    return once


def _type_text(rng: Random) -> str:
    written = mutations.text(rng, rng.choice(TYPES))
    try:
        schema = type_to_schema(written, PLACE)
    except ValueError as error:
        assert str(error).startswith(PLACE), f"no place: {error}"
        return "refused"
    row = {"name": "f", "parameters": {"properties": {"x": schema}}}
    try:
        assert tool_from_openai(row, PLACE).parameters["properties"]["x"] == schema, "read again, it is another type"
    except ValueError as error:
        assert "nested" in str(error) or "no JSON" in str(error), error
    return "accepted"


# --- the corpus reader ------------------------------------------------------------------------------------------------

PING = {"name": "ping", "description": "Ping.", "parameters": {"properties": {"host": {"type": "str"}}}}
CALL: dict[str, Any] = {"name": "ping", "arguments": {"host": "a.org"}}
LINES: list[dict[str, Any]] = [
    {"tools": [PING, MCP], "messages": [{"role": "user", "content": "ping a.org"}], "calls": [CALL], "id": "one"},
    {
        "tools": [{"type": "function", "function": PING}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "ping a.org"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {**CALL, "arguments": "{}"}}]},
            {"role": "tool", "content": "12 ms"},
        ],
        "calls": [],
        "reply": "It took 12 ms.",
    },
    {"tools": [PING], "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [CALL]}]},
]


def corpus_reader(folder: Path) -> Once:
    """Rows are what was written, or the file is refused by name; so is a corpus folder that has changed."""
    of_corpus = _corpus_folder(folder / "corpus")

    def once(rng: Random) -> str:
        return of_corpus(rng) if rng.random() < 0.1 else _own_rows(rng, folder / "mine.jsonl")

    return once


def _own_rows(rng: Random, path: Path) -> str:
    lines = [
        mutations.json_text(rng, mutations.json_value(rng, copy.deepcopy(rng.choice(LINES)))),
        json.dumps(LINES[0]),
    ]
    written = "\n".join(lines[: rng.choice((1, 1, 2))]).encode("utf-8", "surrogatepass")
    path.write_bytes(mutations.data(rng, written) if rng.random() < 0.1 else written)
    try:
        rows = OwnRows(str(path)).rows
    except ValueError as error:
        assert str(error).startswith(str(path)), f"no place: {error}"
        return "refused"
    said = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    assert len(rows) == len(said), "a row was lost"
    for (example, tools), row in zip(rows, said, strict=True):
        _is_what_was_said(example, tools, row)
    return "accepted"


def _is_what_was_said(example: Example, tools: list[Tool], row: dict[str, Any]) -> None:
    """Judged by a reading of its own, as plain as can be."""
    assert [tool.name for tool in tools] == [tool.get("function", tool)["name"] for tool in row.get("tools", [])]
    answer = [] if "calls" in row else row["messages"][-1:]
    turns = row["messages"][: len(row["messages"]) - len(answer)]
    assert len(turns) == len(example.messages), "a turn was lost"
    for turn, message in zip(turns, example.messages, strict=True):
        if isinstance(turn.get("content"), str) and not turn.get("tool_calls") and not turn.get("function_call"):
            assert message.content == turn["content"], "another content"
    calls = row["calls"] if "calls" in row else answer[0].get("tool_calls") or [answer[0].get("function_call")]
    for call, read in zip([c.get("function", c) for c in calls if c], example.calls, strict=True):
        arguments = call["arguments"]
        plain = json.loads(arguments) if isinstance(arguments, str) else arguments
        assert (read.name, read.arguments) == (call["name"], plain), "another call"
    again = example_from_json(json.loads(json.dumps(example_to_json(example))))
    assert again == example, "stored, it is another example"


def _corpus_folder(folder: Path) -> Once:
    tool = tool_from_openai(PING, PLACE)
    example = Example(
        "r1", (Message("user", "ping a.org"),), (tool.id,), (ToolCall(CALL["name"], CALL["arguments"]),), "", "own"
    )
    other = Example("r2", (Message("user", "hi"),), (tool.id,), (), "hello", "own", "small_talk", "p1")
    written = write_corpus(folder, [tool], {"train": [example, other], "validation": [other]}, {"sources": ["own"]})
    right = {name: list(written.split(name)) for name in ("train", "validation")}
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def once(rng: Random) -> str:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        name = rng.choice(sorted(files))
        if name.endswith(".json") and rng.random() < 0.7:
            info = mutations.json_value(rng, json.loads(files[name]))
            (folder / name).write_bytes(mutations.json_text(rng, info).encode("utf-8", "surrogatepass"))
        else:
            (folder / name).write_bytes(mutations.data(rng, files[name]))
        try:
            corpus = Corpus.open(folder)
            read = {name: list(corpus.split(name)) for name in ("train", "validation")}
            assert isinstance(corpus.fingerprint, str)
        except (ValueError, FileNotFoundError) as error:
            assert str(error).startswith(str(folder)), f"no place: {error}"
            return "refused"
        assert read == right and list(corpus.tools.values()) == [tool], "not what was written"
        return "accepted"

    return once


# --- the grammar builder ----------------------------------------------------------------------------------------------


def grammar_builder(folder: Path) -> Once:
    """A tool gets a grammar that allows what gold calls look like and nothing that is no call of it, or is refused."""
    from toolformer.data.prompts import Prompts
    from toolformer.data.tokenizer import train_tokenizer
    from toolformer.inference.grammar import Grammar

    texts = [tool_from_openai(OPENAI, PLACE).text, *(render([ToolCall("book", a)]) for a in ARGUMENTS)]
    prompts = Prompts(train_tokenizer(texts, vocab_size=400))
    grammar = Grammar(prompts.tokenizer, len(prompts.tokenizer), end=prompts.end)
    tokens = [prompts.tokenizer.decode([i]) for i in range(len(prompts.tokenizer))]
    closing = [any(mark in token for mark in '"}]<') for token in tokens]

    def once(rng: Random) -> str:
        tool = mutated_tool(rng)
        if tool is None:
            return "refused"
        try:
            matcher, other = grammar.call(tool, first=True), grammar.choice([tool], 2)
        except ValueError as error:
            assert repr(tool.name) in str(error), f"no place: {error}"
            return "refused"
        _gold_is_allowed(rng, tool, prompts, grammar, other)
        _walk_is_a_call(rng, tool, prompts, grammar, matcher, closing)
        return "accepted"

    return once


# What a context-free grammar cannot rule out: each is refused by the parser, with its reason.
BEYOND_A_GRAMMAR = ("a number is too large", "a number is too long", "a key occurs twice", "half of a surrogate pair")


def _gold_is_allowed(rng: Random, tool: Tool, prompts: Any, grammar: Any, matcher: Any) -> None:
    arguments = arguments_of(rng, tool)
    if arguments is None:
        return
    written = render([ToolCall(tool.name, arguments)])
    ids = prompts.ids(written)
    if (
        not fits(tool, arguments)
        or prompts.tokenizer.decode(ids) != written
        or ids.count(prompts.call_open) + ids.count(prompts.call_close) > 2
    ):
        return  # no gold; or gold that no model could write: not in this tokenizer's normal form, or with a mark inside
    for at, token in enumerate(ids):
        assert grammar.allowed([matcher], len(prompts.tokenizer))[0][token], f"gold is not allowed at {at}: {written}"
        matcher.consume_token(token)
    assert matcher.is_accepting(), f"gold is no whole answer: {written}"


def _walk_is_a_call(rng: Random, tool: Tool, prompts: Any, grammar: Any, matcher: Any, closing: list[bool]) -> None:
    written: list[int] = []
    for _ in range(80):
        allowed = [i for i, yes in enumerate(grammar.allowed([matcher], len(prompts.tokenizer))[0]) if yes]
        assert allowed, f"nothing is allowed after {prompts.tokenizer.decode(written)}"
        if prompts.end in allowed:
            break
        ends = [i for i in allowed if closing[i]]
        token = rng.choice(ends if ends and rng.random() < 0.6 else allowed)
        matcher.consume_token(token)
        written.append(token)
    else:
        return
    calls = parse(prompts.tokenizer.decode(written))
    if isinstance(calls, Malformed) and calls.reason in BEYOND_A_GRAMMAR:
        return
    assert isinstance(calls, list) and [call.name for call in calls] == [tool.name], f"no call of it: {calls}"


# --- the checkpoint reader --------------------------------------------------------------------------------------------


def checkpoint_reader(folder: Path) -> Once:
    """A saved model is read as it lies there, or refused by name; no byte of a checkpoint is ever run."""
    import torch
    from safetensors.torch import load_file
    from transformers.utils import logging

    from toolformer.data.prompts import load_tokenizer
    from toolformer.data.tokenizer import train_tokenizer
    from toolformer.model import ToolFormerConfig, ToolFormerMicro, load_backbone

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = folder / "backbone"
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "vocab_size": 300}
    layers = {"num_key_value_heads": 1, "num_hidden_layers": 1, "encoder_layers": 1, "num_gists": 2, "pointer_size": 8}
    ToolFormerMicro(ToolFormerConfig(**shape, **layers)).save_pretrained(folder)
    train_tokenizer([json.dumps(OPENAI)], vocab_size=300).save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = [name for name in files if name != "generation_config.json"]
    of_training = _training_checkpoint(folder.with_name("step-00000001.ckpt"))

    def once(rng: Random) -> str:
        if rng.random() < 0.3:
            return of_training(rng)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        name = rng.choice(names)
        if name.endswith(".json") and rng.random() < 0.8:
            said = mutations.json_value(rng, json.loads(files[name]))
            (folder / name).write_bytes(mutations.json_text(rng, said).encode("utf-8", "surrogatepass"))
        else:
            (folder / name).write_bytes(mutations.data(rng, files[name]))
        try:
            if "token" in name:
                tokenizer = load_tokenizer(str(folder))
                assert isinstance(tokenizer.get_vocab(), dict)
                return "accepted"
            weights = load_backbone(str(folder)).state_dict()
        except ValueError as error:
            assert str(error).startswith(str(folder)), f"no place: {error}"
            return "refused"
        for key, value in load_file(folder / "model.safetensors").items():
            same = torch.equal(weights[key].flatten().view(torch.uint8), value.float().flatten().view(torch.uint8))
            assert same, f"{key} is not what the file holds"
        return "accepted"

    return once


def _training_checkpoint(path: Path) -> Once:
    """One of Lightning's, as our reader takes it: whole and unchanged, or not at all."""
    import torch

    from toolformer.stages.checkpoints import WholeFiles, fault_of

    weights = {"a": torch.arange(40.0), "b": torch.ones(3, 4)}
    kept = {"state_dict": weights, "global_step": 7, "rng": [1, 2.5, "x", None]}
    torch.save(kept, path)
    content = path.read_bytes()

    def once(rng: Random) -> str:
        path.write_bytes(mutations.data(rng, content))
        fault = fault_of(path)
        try:
            read = WholeFiles().load_checkpoint(path)
        except ValueError as error:
            assert str(error).startswith(str(path)), f"no place: {error}"
            return "refused"
        if fault is not None:
            return "refused"
        assert json.dumps(read, default=torch.Tensor.tolist) == json.dumps(kept, default=torch.Tensor.tolist), "changed"
        return "accepted"

    return once


SURFACES: dict[str, Callable[[Path], Once]] = {
    "call parser": call_parser,
    "schema dialects": schema_dialects,
    "corpus reader": corpus_reader,
    "grammar builder": grammar_builder,
    "checkpoint reader": checkpoint_reader,
}
