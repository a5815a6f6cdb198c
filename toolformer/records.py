"""In: plain JSON objects. Out: the frozen records that travel between all other modules.

Standard library only; a record holds no text of a prompt and no tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Tool:
    """One callable tool. ``parameters`` is a JSON Schema of type object; the order of its properties is kept."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @cached_property
    def text(self) -> str:
        """The canonical schema text: what the encoder reads and what ``id`` hashes."""
        return json.dumps(
            {"name": self.name, "description": self.description, "parameters": self.parameters}, ensure_ascii=False
        )

    @cached_property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of ``text``. Two tools of one name and two schemas have two ids."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class ToolCall:
    """A call of one tool. ``accepted`` and ``omittable`` are only set on gold calls.

    ``accepted[key]`` lists further values that count as right for that argument; ``omittable`` names arguments that a
    prediction may leave out.
    """

    name: str
    arguments: Mapping[str, Any]
    accepted: Mapping[str, list[Any]] = field(default_factory=dict)
    omittable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Message:
    """One turn; ``role`` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One request: a conversation that ends with the user's turn, the tools on offer, and what should be answered.

    ``tools`` are ids of a catalog; ``calls`` is empty where ``reply`` alone is right. ``stratum`` says what kind of row
    it is (small_talk, near_miss, tool_missing, parameter_missing; same_domain, new_domain), ``pattern`` names the
    template or dialogue it came from, so that splits can be kept apart. ``draft`` is the call that would be made but
    for required values that nobody has said: those are None in it. It is never judged, only learned from.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    reply: str
    source: str
    stratum: str = ""
    pattern: str = ""
    draft: ToolCall | None = None


def call_to_json(call: ToolCall) -> dict[str, Any]:
    """A JSON object; ``accepted`` and ``omittable`` only where they say something."""
    out: dict[str, Any] = {"name": call.name, "arguments": dict(call.arguments)}
    if call.accepted:
        out["accepted"] = {key: list(values) for key, values in call.accepted.items()}
    if call.omittable:
        out["omittable"] = list(call.omittable)
    return out


def call_from_json(row: Mapping[str, Any]) -> ToolCall:
    """Inverse of ``call_to_json``."""
    return ToolCall(row["name"], row["arguments"], row.get("accepted", {}), tuple(row.get("omittable", ())))


def example_to_json(example: Example) -> dict[str, Any]:
    """A JSON object with the fields of ``Example``; ``draft`` only where there is one."""
    draft = {} if example.draft is None else {"draft": call_to_json(example.draft)}
    return {
        "id": example.id,
        "messages": [{"role": m.role, "content": m.content} for m in example.messages],
        "tools": list(example.tools),
        "calls": [call_to_json(call) for call in example.calls],
        "reply": example.reply,
        "source": example.source,
        "stratum": example.stratum,
        "pattern": example.pattern,
        **draft,
    }


def example_from_json(row: Mapping[str, Any]) -> Example:
    """Inverse of ``example_to_json``."""
    return Example(
        id=row["id"],
        messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
        tools=tuple(row["tools"]),
        calls=tuple(call_from_json(call) for call in row["calls"]),
        reply=row["reply"],
        source=row["source"],
        stratum=row.get("stratum", ""),
        pattern=row.get("pattern", ""),
        draft=call_from_json(row["draft"]) if row.get("draft") else None,
    )


def tool_to_json(tool: Tool) -> dict[str, Any]:
    """A JSON object with name, description and parameters."""
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def tool_from_json(row: Mapping[str, Any]) -> Tool:
    """Inverse of ``tool_to_json``."""
    return Tool(row["name"], row["description"], row["parameters"])
