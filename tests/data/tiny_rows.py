"""In: nothing. Out: a few hand-made tools, rows over them and a small tokenizer, for the tests of data and stages."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from toolformer.calls import render
from toolformer.data.masking import Rows
from toolformer.data.prompts import Prompts
from toolformer.data.tokenizer import train_tokenizer
from toolformer.records import Example, Message, Tool, ToolCall


def tool(name: str, description: str, properties: dict[str, Any], *required: str) -> Tool:
    return Tool(name, description, {"type": "object", "properties": properties, "required": list(required)})


TEXT, COUNT = {"type": "string"}, {"type": "integer"}
ADDRESS = {
    "type": "object",
    "description": "Where to bring it",
    "properties": {"street": {**TEXT, "description": "Street and number"}, "city": TEXT},
    "required": ["street"],
    "default": {"street": "Main Street 1", "city": "Bern"},
}
PIZZA = tool(
    "order_pizza",
    "Order a pizza for delivery.",
    {
        "kind": {**TEXT, "enum": ["margherita", "funghi"], "description": "Kind of pizza"},
        "address": ADDRESS,
        "extras": {
            "type": "array",
            "items": {"type": "object", "properties": {"topping": TEXT, "grams": COUNT}, "required": ["topping"]},
        },
    },
    "kind",
)
WEATHER = tool(
    "get_weather",
    "Get the weather of a city.",
    {"city": {**TEXT, "description": "Name of the city"}, "days": {**COUNT, "default": 1}},
    "city",
)
TRAIN = tool(
    "book_train",
    "Book a seat on a train between two stations.",
    {"origin": {**TEXT, "description": "First station"}, "target": {**TEXT, "description": "Last station"}},
    "origin",
    "target",
)
ALARMS = tool("list_alarms", "List all alarms.", {})
TOOLS = [PIZZA, WEATHER, TRAIN, ALARMS]


def row(id_: str, says: list[str], calls: list[ToolCall], reply: str, *tools: Tool) -> tuple[Example, list[Tool]]:
    """Turns alternate between user and assistant."""
    turns = tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(says))
    return Example(id_, turns, tuple(t.id for t in tools), tuple(calls), reply, "test"), list(tools)


def rows() -> Rows:
    """One call, nested arguments, two calls, no arguments, a follow-up turn, no call; in no order of length."""
    pizza = {
        "kind": "funghi",
        "address": {"street": "Lime Road 42", "city": "Thun"},
        "extras": [{"topping": "olives", "grams": 30}, {"topping": "capers"}],
    }
    accepted = {"address": [{"street": "Lime Rd 42", "city": "Thun"}]}
    train = ToolCall("book_train", {"origin": "Bern", "target": "Thun"})
    weather = ToolCall("get_weather", {"city": "Bern", "days": 12})
    both = [train, ToolCall("get_weather", {"city": "Thun"})]
    return [
        row("pizza", ["one funghi"], [ToolCall("order_pizza", pizza, accepted, ("extras",))], "", WEATHER, PIZZA),
        row("weather", ["weather in Bern for 12 days"], [weather], "", *TOOLS),
        row("both", ["train from Bern to Thun, and its weather"], both, "", TRAIN, PIZZA, WEATHER),
        row("alarms", ["my alarms"], [ToolCall("list_alarms", {})], "", ALARMS, TRAIN),
        row("later", ["a train to Thun", "From where?", "from Bern please"], [train], "", PIZZA, TRAIN),
        row("none", ["hello there"], [], "Hello! What can I do for you?", PIZZA, WEATHER),
    ]


def texts() -> list[str]:
    """What the rows say, as a tokenizer is trained on it."""
    out = [t.text for t in TOOLS]
    for example, _ in rows():
        out += [m.content for m in example.messages]
        out.append(render(example.calls) if example.calls else example.reply)
    return out


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(texts(), vocab_size=420)


def prompts(**limits: int) -> Prompts:
    return Prompts(tokenizer(), **limits)
