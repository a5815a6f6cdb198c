"""In: a folder that ``generate`` filled from the built-in data. Out: its rows as a source like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.data.toolworld import ToolWorld
from toolformer.records import example_from_json, example_to_json, tool_from_json, tool_to_json

BATCH = 2048  # requests over one pool of tools


def generate(folder: Path, rows: int, seed: int) -> None:
    """``rows`` requests, ``BATCH`` over 24 tools: ``rows.jsonl`` names tools by id, ``tools.jsonl`` has them."""
    world, known = ToolWorld(seed), set()
    folder.mkdir(parents=True)
    with (folder / "rows.jsonl").open("w") as file, (folder / "tools.jsonl").open("w") as tools:
        for start in range(0, rows, BATCH):
            batch = world.batch(start // BATCH, batch_size=BATCH, pool_size=24, tools_per_request=4)
            for number, (example, offered) in enumerate(batch[: rows - start]):
                row = example_to_json(replace(example, id=f"{folder.name}/{start + number}"))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                for tool in offered:
                    if tool.id not in known:
                        known.add(tool.id)
                        tools.write(json.dumps(tool_to_json(tool), ensure_ascii=False) + "\n")


def read(folder: Path) -> Iterator[Found | SetAside]:
    """Every line of ``rows.jsonl``."""
    with (folder / "tools.jsonl").open() as file:
        tools = {tool.id: Offered(tool) for tool in map(tool_from_json, map(json.loads, file))}
    with (folder / "rows.jsonl").open() as file:
        for number, line in enumerate(file, start=1):
            place = f"rows.jsonl:{number}"
            try:
                example = example_from_json(json.loads(line))
                yield Found(place, example, tuple(tools[id_] for id_ in example.tools))
            except (ValueError, KeyError, TypeError) as error:
                yield SetAside(place, f"not readable: {type(error).__name__}", line)


SOURCE = Source("generated", "Apache-2.0", "", read)
