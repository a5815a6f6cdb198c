"""In: a folder. Out: small invented sources in it, a JSON line a row, and the ``SOURCE``s that read them.

A line: ``{"id", "says", "tools", "calls", "reply", "stratum", "pattern", "upstream"}``, tools as
``{"name", "description", "parameters", "domain"}``. What cannot be read is set aside with its line.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolformer.data.rules import Rules, Use
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall

WORDS = [
    a + b for a in "ba de fi go ku la me no pi ru sa ti vo wu za".split() for b in "bor del fim gan kus lot".split()
]


def read(folder: Path) -> Iterator[Found | SetAside]:
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            place = f"{path.name}:{number}"
            try:
                yield found(place, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                yield SetAside(place, f"not readable: {type(error).__name__}", line.decode(errors="replace"))


def found(place: str, row: dict[str, Any]) -> Found:
    offered = tuple(
        Offered(
            Tool(tool["name"], tool["description"], tool["parameters"]),
            tool["domain"],
            function=tool["domain"] + tool["name"],
        )
        for tool in row["tools"]
    )
    example = Example(
        row["id"],
        tuple(Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(row["says"])),
        tuple(one.tool.id for one in offered),
        tuple(ToolCall(call["name"], call["arguments"]) for call in row["calls"]),
        row["reply"],
        "tiny",
        row["stratum"],
        row["pattern"],
    )
    return Found(place, example, offered, row["upstream"])


def tools(folder: Path) -> Iterator[Offered]:
    """The distractors that no row offers, in tools.json."""
    for tool in json.loads((folder / "tools.json").read_text()) if (folder / "tools.json").is_file() else ():
        yield Offered(Tool(tool["name"], tool["description"], tool["parameters"]), tool["domain"])


SOURCE = Source("tiny", "CC0-1.0", "https://example.org/tiny", read, tools)
EVALUATING = Source("tiny", "MIT", "https://example.org/tiny", read, evaluates_only=True)
CHOOSING = Source("tiny", "MIT", "https://example.org/tiny", read, selects_only=True, evaluates_only=True)


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def tool(rng: random.Random, name: str, domain: str) -> dict[str, Any]:
    keys = rng.sample(WORDS, 2)
    properties = {
        key: {"type": kind, "description": words(rng, 5)} for key, kind in zip(keys, ("string", "integer"), strict=True)
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"name": name, "description": words(rng, 9), "parameters": parameters, "domain": domain}


def row(rng: random.Random, number: int, name: str, catalog: list[dict[str, Any]], listed: int) -> dict[str, Any]:
    """A request for one tool or two, or for none; ``listed`` tools are on offer."""
    chosen = rng.sample(catalog, listed)
    kind = rng.random()
    called = chosen[: 2 if kind < 0.15 and listed > 1 else 1]
    text, calls = words(rng, rng.randrange(6, 14)), []
    for one in called:
        text_key, number_key = one["parameters"]["properties"]
        value = rng.choice(WORDS)
        text += f" with {value} and 7"
        calls.append({"name": one["name"], "arguments": {text_key: value, number_key: 7}})
    if 0.15 <= kind < 0.3:
        calls, text = [], words(rng, 12)
    stratum = "" if calls else rng.choice(["small_talk", "near_miss"])
    pattern = f"p{rng.randrange(40)}" if name == "shop" else ""
    reply = "" if calls else "No."
    rng.shuffle(chosen)
    return {
        "id": f"{name}/{number}", "says": [text] if rng.random() < 0.8 else [words(rng, 5), "What then?", text],
        "tools": chosen, "calls": calls, "reply": reply, "stratum": stratum, "pattern": pattern,
        "upstream": "test" if number % 10 == 0 else "train",
    }  # fmt: skip


def uses() -> dict[str, Use]:
    """How the rows of each are used."""
    return {
        "shop": Use("shop", module="data.tiny_sources", held_back=0.2),
        "bank": Use("bank", module="data.tiny_sources", tested=("test",)),
        "exam": Use("exam", module="data.tiny_sources:EVALUATING", split="test_bfcl", as_upstream=True),
        "pick": Use("pick", module="data.tiny_sources:CHOOSING"),
    }


def write(root: Path, rows: int = 400) -> None:
    """A folder for each."""
    for name in uses():
        rng = random.Random(name)
        folder = root / name
        folder.mkdir(parents=True)
        catalog = [tool(rng, f"{rng.choice(WORDS)}_{name}_{i}", f"{name}{i % 4}") for i in range(30)]
        count = rows if name in ("shop", "bank") else rows // 8
        found = [row(rng, i, name, catalog, 1 if name == "bank" else 3) for i in range(count)]
        if name == "bank":  # tools that only the upstream test uses
            late = [tool(rng, f"late_{name}_{i}", f"new{i}") for i in range(4)]
            found += [{**row(rng, count + 10 * i, name, late, 1), "upstream": "test"} for i in range(40)]
        if name == "pick":
            for one in found:
                one["calls"] = [{"name": call["name"], "arguments": {}} for call in one["calls"]]
        half = len(found) // 2
        for part, lines in (("a", found[:half]), ("b", found[half:])):
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        spare = [tool(rng, f"spare_{name}_{i}", f"{name}{i % 4}") for i in range(5)]
        (folder / "tools.json").write_text(json.dumps(spare))


RULES = Rules(
    least_rows=20, most_rows=30, held_out=0.1, seen=0.1, validation=0.1, validation_tools=0.06, tools_per_request=8
)
