"""In: tools and the examples of each split. Out: a folder of Arrow files, and what was written read back from it.

A corpus is ``tools.parquet``, one ``<split>.arrow`` for each split and ``corpus.json``; it is written whole or not at
all. Splits are mapped into memory, so a corpus may be larger than it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import pyarrow as pa

from toolformer.calls import parse, render
from toolformer.data.steps import replaced
from toolformer.data.tables import PORTION, TableWriter, mapped, one_array
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

FORMAT = 3
# Messages, calls and drafts are JSON text: their inner fields vary from row to row.
ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.string()),
        ("tools", pa.list_(pa.string())),
        ("calls", pa.string()),
        ("reply", pa.string()),
        ("source", pa.string()),
        ("stratum", pa.string()),
        ("pattern", pa.string()),
        ("draft", pa.string()),  # "" where there is none
    ]
)
TOOLS = pa.schema(
    [(name, pa.string()) for name in ("id", "name", "tool", "family", "function")]
    + [("wording", pa.int64()), ("domain", pa.string()), ("source", pa.string()), ("use", pa.string())]
)


class Kin(NamedTuple):
    """Tools of one ``family`` are wordings of the same tool; those of one ``function`` are never offered together.

    ``use`` says what a tool is for: trained, validation, unseen, or evaluation where a source only evaluates; "" = what
    training rows offer is trained.
    """

    family: str
    function: str
    wording: int = 0
    domain: str = ""
    source: str = ""
    use: str = ""


class Unfit(ValueError):
    """A row that cannot be used. ``reason`` is for counting: it names no value."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def request(example: Example) -> str:
    """All a model reads of an example beside the tools: what the audit compares."""
    return "\n".join(message.content for message in example.messages)


def reword(example: Example, *changes: tuple[Tool, Tool]) -> Example:
    """The example with tools replaced by others: rewordings, whose parameters stand in the same order."""
    by_name, by_id = {tool.name: (tool, other) for tool, other in changes}, {tool.id: other for tool, other in changes}

    def renamed(call: ToolCall) -> ToolCall:
        if call.name not in by_name:
            return call
        tool, other = by_name[call.name]
        names = dict(zip(tool.parameters["properties"], other.parameters["properties"], strict=True))
        return ToolCall(
            other.name,
            {names[key]: value for key, value in call.arguments.items()},
            {names[key]: values for key, values in call.accepted.items()},
            tuple(names[key] for key in call.omittable),
        )

    tools = tuple(by_id[id_].id if id_ in by_id else id_ for id_ in example.tools)
    draft = None if example.draft is None else renamed(example.draft)
    return replace(example, tools=tools, calls=tuple(map(renamed, example.calls)), draft=draft)


def fingerprint(tools: Iterable[Tool], splits: Mapping[str, Iterable[Example]]) -> str:
    """16 hex digits of the SHA-256 of every tool and every row, in order."""
    lines = {
        name: (json.dumps(example_to_json(row), ensure_ascii=False) for row in rows) for name, rows in splits.items()
    }
    return _digest(tools, lines)


def _digest(tools: Iterable[Tool], splits: Mapping[str, Iterable[str]]) -> str:
    digest = hashlib.sha256()
    for tool in tools:
        digest.update(tool.text.encode() + b"\n")
    for name in sorted(splits):
        digest.update(name.encode() + b"\n")
        for line in splits[name]:
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def _lines(table: pa.Table) -> Iterator[str]:
    """Each row as ``fingerprint`` sees it, put together from the JSON that is stored."""
    for batch in table.to_batches():
        for row in batch.to_pylist():
            parts = (
                (key, row[key] if key in _JSON else json.dumps(row[key], ensure_ascii=False)) for key in ROWS.names
            )
            yield "{" + ", ".join(f'"{key}": {part}' for key, part in parts if part) + "}"


_JSON = ("messages", "calls", "draft")


def columns(examples: Sequence[Example]) -> list[list[Any]]:
    """The columns of ``ROWS``."""
    rows = [example_to_json(example) for example in examples]
    found = {key: [row.get(key) for row in rows] for key in ROWS.names}
    for key in _JSON:
        found[key] = ["" if value is None else json.dumps(value, ensure_ascii=False) for value in found[key]]
    return list(found.values())


def decoded(rows: Iterable[Mapping[str, Any]]) -> list[Example]:
    """The examples of rows of a table."""
    return [example_from_json({**row, **{key: json.loads(row[key]) for key in _JSON if row[key]}}) for row in rows]


def encoded(
    examples: Iterable[Example], catalog: Mapping[str, Tool], place: str, chosen: frozenset[str] = frozenset()
) -> Iterator[pa.RecordBatch]:
    """Examples, each checked, as portions of a table; ``chosen`` are the sources that give no arguments.

    Raises:
        Unfit: a row names a tool that is not there, or a call that its tool does not allow.
    """
    examples = iter(examples)
    while portion := list(islice(examples, PORTION)):
        for example in portion:
            check(example, catalog, place)
            check_gold(example, catalog, place, chosen=example.source in chosen)
        yield pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns(portion), ROWS, strict=True)], schema=ROWS
        )


def digest(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _seal(info: Mapping[str, Any]) -> str:
    """Of all that ``corpus.json`` says, the digests of the other files among it."""
    said = json.dumps({key: value for key, value in info.items() if key != "seal"}, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def write_corpus(
    folder: str | Path,
    tools: Sequence[Tool],
    splits: Mapping[str, Iterable[Example]],
    meta: Mapping[str, Any],
    kin: Mapping[str, Kin] | None = None,
) -> Corpus:
    """Write a corpus folder of examples, each checked: see ``write_tables``."""
    catalog = {tool.id: tool for tool in tools}
    tables = {name: encoded(examples, catalog, f"{folder}:{name}") for name, examples in splits.items()}
    return write_tables(folder, tools, tables, lambda rows: meta, kin)


def write_tables(
    folder: str | Path,
    tools: Sequence[Tool],
    splits: Mapping[str, Iterable[pa.RecordBatch]],
    meta: Callable[[Path], Mapping[str, Any]],
    kin: Mapping[str, Kin] | None = None,
) -> Corpus:
    """Write a corpus folder in one move; an older corpus of that name is replaced, nothing partial is left behind.

    ``meta`` is asked last what else ``corpus.json`` says; it may add files to the folder that it is given.

    Raises:
        ValueError: a tool id is twice in the catalog.
    """
    folder, kin = Path(folder), dict(kin or {})
    catalog = {tool.id: tool for tool in tools}
    if len(catalog) != len(tools):
        raise ValueError(
            f"{folder}: the catalog has {len(tools)} tools with {len(catalog)} ids; drop the repeated ones"
        )

    def fill(part: Path) -> None:
        _write_tools(part / "tools.parquet", catalog, kin)
        rows = {}
        for name, batches in splits.items():
            with TableWriter(part / f"{name}.arrow", ROWS) as table:
                for batch in batches:
                    table.add_batch(batch)
            rows[name] = table.written
        fingerprint = _digest(catalog.values(), {name: _lines(mapped(part / f"{name}.arrow")) for name in rows})
        info = {"format": FORMAT, "fingerprint": fingerprint, "tools": len(catalog), "rows": rows, **meta(part)}
        info["files"] = {path.name: digest(path) for path in sorted(part.iterdir())}
        info["seal"] = _seal(info)
        (part / "corpus.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")

    return Corpus.open(replaced(folder, fill))


def _write_tools(path: Path, catalog: Mapping[str, Tool], kin: Mapping[str, Kin]) -> None:
    import pyarrow.parquet

    rows = [
        {"id": id_, "name": tool.name, "tool": json.dumps(tool_to_json(tool), ensure_ascii=False)}
        | kin.get(id_, Kin(id_, id_))._asdict()
        for id_, tool in catalog.items()
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, TOOLS), path)


def read_tools(path: Path) -> tuple[dict[str, Tool], dict[str, Kin]]:
    """The catalog of a corpus, and what is known of each tool, by id.

    Raises:
        ValueError: the file is broken; it is named.
    """
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}:1: cannot be read: {error}; prepare the corpus again") from error
    rows = table.to_pylist()
    tools = {row["id"]: tool_from_json(json.loads(row["tool"])) for row in rows}
    return tools, {row["id"]: Kin(*(row[field] for field in Kin._fields)) for row in rows}


def _check_unchanged(path: Path, info: Mapping[str, Any]) -> None:
    """Arrow believes what a file says of itself: one wrong bit is another row, or the end of the process."""
    if not path.is_file():
        raise ValueError(f"{path}:1: cannot be read: there is no such file; prepare the corpus again")
    found, wanted = digest(path), info["files"].get(path.name)
    if found != wanted:
        raise ValueError(f"{path}:1: cannot be read: its SHA-256 is {found}, not {wanted}; prepare the corpus again")


def check(example: Example, catalog: Mapping[str, Tool], place: str) -> None:
    """Names unique among a row's tools, gold among them, every tool in the catalog; otherwise a ValueError."""
    missing = [id_ for id_ in example.tools if id_ not in catalog]
    if missing:
        message = f"{place}: row {example.id}: tool {missing[0]} is not in the catalog; add it to the tools"
        raise Unfit("a tool is not in the catalog", message)
    names = [catalog[id_].name for id_ in example.tools]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Unfit(
            "two tools have one name", f"{place}: row {example.id}: tools name {twice} twice; qualify one of them"
        )
    for call in example.calls:
        if call.name not in names:
            message = f"{place}: row {example.id}: gold call is {call.name}, tools are {names}; add the tool"
            raise Unfit("gold names no tool on offer", message)


def check_gold(example: Example, catalog: Mapping[str, Tool], place: str, *, chosen: bool = False) -> None:
    """Gold scores 1 against itself: each call fits its tool and is read back as it was written; else ``Unfit``.

    With ``chosen`` gold says which tools are right and leaves all arguments out.
    """
    tools = {catalog[id_].name: catalog[id_] for id_ in example.tools}
    where = f"{place}: row {example.id}"
    if example.draft is not None and example.draft.name not in tools:
        raise Unfit("the draft names no tool on offer", f"{where}: draft is of {example.draft.name}; add the tool")
    for call in (*example.calls, *filter(None, [example.draft])):
        declared, required = parameters_of(tools[call.name]), required_of(tools[call.name])
        for key in [*call.arguments, *call.accepted, *call.omittable]:
            if key not in declared:
                message = f"{where}: gold call of {call.name} has {key}, not one of {list(declared)}"
                raise Unfit("gold has an argument that its tool does not declare", message)
        for key in () if chosen else set(required) - set(call.arguments):
            raise Unfit(
                "gold lacks a required argument", f"{where}: gold call of {call.name} lacks required {key}; add it"
            )
    try:
        read = parse(render(example.calls)) if example.calls else []
    except ValueError as error:
        raise Unfit("gold is no JSON", f"{where}: gold {error}") from error
    if read != [ToolCall(call.name, call.arguments) for call in example.calls]:
        raise Unfit(
            "gold is not read back as written",
            f"{where}: gold is not read back as written, but as {read}; mend its values",
        )


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
            info = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}; prepare the corpus again") from error
        except (ValueError, RecursionError) as error:  # no UTF-8, a number without end
            raise ValueError(f"{path}:1: not JSON: {error}; prepare the corpus again") from error
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            found = info.get("format") if isinstance(info, dict) else type(info).__name__
            raise ValueError(f"{path}:1: format is {found}, this version reads {FORMAT}; prepare the corpus again")
        if info.get("seal") != _seal(info):
            raise ValueError(f"{path}:1: is not as it was written; prepare the corpus again")
        _check_unchanged(folder / "tools.parquet", info)
        tools, kin = read_tools(folder / "tools.parquet")
        return cls(folder, tools, kin, info)

    @property
    def fingerprint(self) -> str:
        """Of every tool and row, as they were when written."""
        return self.info["fingerprint"]

    def split(self, name: str) -> Examples:
        """The rows of a split, in their stored order, each read when it is looked at."""
        if name not in self.info["rows"]:
            raise ValueError(f"{self.folder}: split is {name}; there are {', '.join(self.info['rows'])}")
        _check_unchanged(self.folder / f"{name}.arrow", self.info)
        return Examples(self.folder / f"{name}.arrow", self.tools)


class Examples(Sequence[Example]):
    """The rows of a split as a sequence over a file that is mapped into memory."""

    def __init__(self, path: Path, catalog: Mapping[str, Tool]) -> None:
        self.path, self.catalog, self.table = path, catalog, mapped(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Examples, (self.path, self.catalog)  # another process maps the file itself

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            assert step == 1
            return self.read(self.table.slice(start, max(0, stop - start)))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.read(self.table.slice(place % len(self), 1))[0]

    def __iter__(self) -> Iterator[Example]:
        for batch in self.table.to_batches():
            yield from self.read(batch)

    def tool_ids(self) -> list[str]:
        """The tools that some row offers, sorted."""
        return sorted(one_array(self.table["tools"]).flatten().unique().to_pylist())

    def read(self, table: pa.Table | pa.RecordBatch) -> list[Example]:
        """The examples of a part of the table."""
        examples = decoded(table.to_pylist())
        for example in examples:
            check(example, self.catalog, str(self.path))
        return examples
