"""In: a YAML file of tools written by hand for an upstream's intents. Out: the tools, and calls from marked utterances.

An intent's slots become the tool's parameters; a value is the text of a span as it stands in the utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toolformer.data.sources.source import Offered
from toolformer.records import Tool, ToolCall


class Part(NamedTuple):
    """A piece of an utterance; ``slot`` is "" where the piece is no value."""

    text: str
    slot: str = ""


class SlotTool(NamedTuple):
    """A tool with the parameter that each upstream slot fills; ``lists`` are parameters that take several spans."""

    offered: Offered
    parameters: Mapping[str, str]
    lists: frozenset[str]

    def call(self, parts: Sequence[Part]) -> ToolCall | str:
        """The call that the parts ask for, its arguments in the schema's order; or the reason why there is none."""
        found: dict[str, list[str]] = {}
        for part in parts:
            if part.slot and part.slot not in self.parameters:
                return "a slot that the tool does not have"
            if part.slot and not part.text.strip():
                return "a slot without text"
            if part.slot:
                found.setdefault(self.parameters[part.slot], []).append(part.text.strip())
        if any(len(texts) > 1 and name not in self.lists for name, texts in found.items()):
            return "a slot with two values"
        ordered = [name for name in self.offered.tool.parameters["properties"] if name in found]
        return ToolCall(
            self.offered.tool.name, {name: found[name] if name in self.lists else found[name][0] for name in ordered}
        )


def text_of(parts: Sequence[Part]) -> str:
    """The utterance as it was said, without white space around it."""
    return "".join(part.text for part in parts).strip()


def template_of(intent: str, parts: Sequence[Part]) -> str:
    """The utterance with slots instead of values: what utterances that ask in the same way share.

    >>> template_of("alarm_set", [Part("Wake me at "), Part("six", "time")])
    'alarm_set: wake me at [time]'
    """
    said = "".join(f"[{part.slot}]" if part.slot else part.text.lower() for part in parts)
    return f"{intent}: {' '.join(said.split())}"


def read_slot_tools(path: Path, domain: Callable[[str], str]) -> dict[str, SlotTool]:
    """The tools of ``path`` by upstream's intent."""
    return {
        intent: _slot_tool(spec, domain(intent)) for intent, spec in yaml.safe_load(path.read_text("utf-8")).items()
    }


def _slot_tool(spec: Mapping[str, Any], domain: str) -> SlotTool:
    properties: dict[str, Any] = {}
    names, lists = {}, set()
    for slot, told in spec["parameters"].items():
        told = told if isinstance(told, Mapping) else {"name": slot, "description": told}
        names[slot] = told["name"]
        shape: dict[str, Any] = {"type": "string", "description": told["description"]}
        if told.get("list"):
            lists.add(told["name"])
            shape = {"type": "array", "items": {"type": "string"}, "description": told["description"]}
        properties[told["name"]] = shape
    assert len(properties) == len(names), spec["name"]  # two slots would fill one parameter
    required = [names[slot] for slot in spec.get("required", ())]
    tool = Tool(spec["name"], spec["description"], {"type": "object", "properties": properties, "required": required})
    return SlotTool(Offered(tool, domain), names, frozenset(lists))
