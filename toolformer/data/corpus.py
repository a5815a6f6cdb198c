"""In: tools and the examples of each split. Out: a folder of parquet files, and what was written read back from it.

A corpus is ``tools.parquet``, one parquet per split and ``corpus.json``; it is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from toolformer.calls import parse, render
from toolformer.records import (
    Example,
    Tool,
    ToolCall,
    example_from_json,
    example_to_json,
    tool_from_json,
    tool_to_json,
)
from toolformer.schemas import parameters_of, required_of

FORMAT = 1


class Kin(NamedTuple):
    """Tools of one ``family`` are wordings of the same tool; those of one ``function`` are never offered together."""

    family: str
    function: str
    wording: int = 0


def request(example: Example) -> str:
    """All a model reads of an example beside the tools: what the audit compares."""
    return "\n".join(message.content for message in example.messages)


def reword(example: Example, tool: Tool, other: Tool) -> Example:
    """The example with ``tool`` replaced by ``other``: a rewording, whose parameters stand in the same order."""
    names = dict(zip(tool.parameters["properties"], other.parameters["properties"], strict=True))

    def renamed(call: ToolCall) -> ToolCall:
        if call.name != tool.name:
            return call
        return ToolCall(
            other.name,
            {names[key]: value for key, value in call.arguments.items()},
            {names[key]: values for key, values in call.accepted.items()},
            tuple(names[key] for key in call.omittable),
        )

    tools = tuple(other.id if id_ == tool.id else id_ for id_ in example.tools)
    return replace(example, tools=tools, calls=tuple(map(renamed, example.calls)))


def fingerprint(tools: Iterable[Tool], splits: Mapping[str, Sequence[Example]]) -> str:
    """16 hex digits of the SHA-256 of every tool and every row, in order."""
    digest = hashlib.sha256()
    for tool in tools:
        digest.update(tool.text.encode() + b"\n")
    for name in sorted(splits):
        digest.update(name.encode() + b"\n")
        for example in splits[name]:
            digest.update(json.dumps(example_to_json(example), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]


def digest(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_corpus(
    folder: str | Path,
    tools: Sequence[Tool],
    splits: Mapping[str, Iterable[Example]],
    meta: Mapping[str, Any],
    kin: Mapping[str, Kin] | None = None,
) -> Corpus:
    """Write a corpus folder in one move; an older corpus of that name is replaced, nothing partial is left behind.

    Raises:
        ValueError: a tool id is twice in the catalog, or a row names a tool that is not there.
    """
    folder, kin, rows = Path(folder), dict(kin or {}), {name: list(examples) for name, examples in splits.items()}
    catalog = {tool.id: tool for tool in tools}
    if len(catalog) != len(tools):
        raise ValueError(
            f"{folder}: the catalog has {len(tools)} tools with {len(catalog)} ids; drop the repeated ones"
        )
    for name, examples in rows.items():
        for example in examples:
            check(example, catalog, f"{folder}:{name}")
            check_gold(example, catalog, f"{folder}:{name}")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        kins = [kin.get(id_, Kin(id_, id_)) for id_ in catalog]
        table = [
            {
                "id": tool.id,
                "name": tool.name,
                "tool": json.dumps(tool_to_json(tool), ensure_ascii=False),
                **k._asdict(),
            }
            for tool, k in zip(catalog.values(), kins, strict=True)
        ]
        _write_parquet(temporary / "tools.parquet", table, ["id", "name", "tool", "family", "function", "wording"])
        for name, examples in rows.items():
            _write_parquet(temporary / f"{name}.parquet", [_row(example) for example in examples], list(_COLUMNS))
        info = {
            "format": FORMAT,
            "fingerprint": fingerprint(catalog.values(), rows),
            "tools": len(catalog),
            "rows": {name: len(examples) for name, examples in rows.items()},
            **meta,
        }
        (temporary / "corpus.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Corpus.open(folder)


def check(example: Example, catalog: Mapping[str, Tool], place: str) -> None:
    """Names unique among a row's tools, gold among them, every tool in the catalog; otherwise a ValueError."""
    missing = [id_ for id_ in example.tools if id_ not in catalog]
    if missing:
        raise ValueError(f"{place}: row {example.id}: tool {missing[0]} is not in the catalog; add it to the tools")
    names = [catalog[id_].name for id_ in example.tools]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{place}: row {example.id}: tools name {twice} twice; qualify one of them")
    for call in example.calls:
        if call.name not in names:
            raise ValueError(f"{place}: row {example.id}: gold call is {call.name}, tools are {names}; add the tool")


def check_gold(example: Example, catalog: Mapping[str, Tool], place: str) -> None:
    """Gold scores 1 against itself: each call fits its tool and is read back as it was written; else a ValueError."""
    tools = {catalog[id_].name: catalog[id_] for id_ in example.tools}
    for call in example.calls:
        declared, required = parameters_of(tools[call.name]), required_of(tools[call.name])
        for key in [*call.arguments, *call.accepted, *call.omittable]:
            if key not in declared:
                raise ValueError(
                    f"{place}: row {example.id}: gold call of {call.name} has {key}, not one of {list(declared)}"
                )
        for key in set(required) - set(call.arguments):
            raise ValueError(f"{place}: row {example.id}: gold call of {call.name} lacks required {key}; add it")
    try:
        read = parse(render(example.calls)) if example.calls else []
    except ValueError as error:
        raise ValueError(f"{place}: row {example.id}: gold {error}") from error
    if read != [ToolCall(call.name, call.arguments) for call in example.calls]:
        raise ValueError(f"{place}: row {example.id}: gold is not read back as written, but as {read}; mend its values")


_COLUMNS = ("id", "messages", "tools", "calls", "reply", "source", "stratum", "pattern")


def _row(example: Example) -> dict[str, Any]:
    """Messages, tools and calls as JSON text: their inner fields vary from row to row."""
    row = example_to_json(example)
    return {key: json.dumps(v, ensure_ascii=False) if isinstance(v := row[key], list) else v for key in _COLUMNS}


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    import datasets
    from datasets import Dataset, Features, Value

    numbers = {column for column in columns if rows and isinstance(rows[0][column], int)}
    features = Features({column: Value("int64" if column in numbers else "string") for column in columns})
    table = Dataset.from_dict({column: [row[column] for row in rows] for column in columns}, features=features)
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # a bar for each small table, gone before it can be read
    try:
        table.to_parquet(str(path))
    finally:
        if shown:
            datasets.enable_progress_bars()


def _read_parquet(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"{path}:1: cannot be read: {error}; prepare the corpus again") from error
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise ValueError(f"{path}:1: column {missing[0]} is missing, there are {table.column_names}; prepare it again")
    return table.to_pylist()


@dataclass(frozen=True)
class Corpus:
    """A corpus folder, opened. Splits are read when asked for."""

    folder: Path
    tools: dict[str, Tool]
    kin: dict[str, Kin]
    info: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Read catalog and description.

        Raises:
            FileNotFoundError: there is no corpus.
            ValueError: it is broken or of another format; the file is named.
        """
        folder = Path(folder)
        path = folder / "corpus.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder}: holds no corpus (corpus.json is missing); run python -m toolformer.prepare"
            )
        try:
            info = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}; prepare the corpus again") from error
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            found = info.get("format") if isinstance(info, dict) else type(info).__name__
            raise ValueError(f"{path}:1: format is {found}, this version reads {FORMAT}; prepare the corpus again")
        table = _read_parquet(folder / "tools.parquet", ["id", "tool", "family", "function", "wording"])
        tools = {row["id"]: tool_from_json(json.loads(row["tool"])) for row in table}
        kin = {row["id"]: Kin(row["family"], row["function"], row["wording"]) for row in table}
        wrong = [id_ for id_, tool in tools.items() if tool.id != id_]
        if wrong:
            raise ValueError(f"{folder / 'tools.parquet'}:1: tool {wrong[0]} does not hash to its id; prepare it again")
        return cls(folder, tools, kin, info)

    @property
    def fingerprint(self) -> str:
        """Of every tool and row, as they were when written."""
        return self.info["fingerprint"]

    def split(self, name: str) -> list[Example]:
        """The rows of a split, in their stored order."""
        if name not in self.info["rows"]:
            raise ValueError(f"{self.folder}: split is {name}; there are {', '.join(self.info['rows'])}")
        columns = ("messages", "tools", "calls")
        rows = _read_parquet(self.folder / f"{name}.parquet", _COLUMNS)
        examples = [example_from_json(row | {c: json.loads(row[c]) for c in columns}) for row in rows]
        for example in examples:
            check(example, self.tools, str(self.folder / f"{name}.parquet"))
        return examples
