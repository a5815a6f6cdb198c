"""In: tools and their gists. Out: the same gists, after any crash, as long as the model is the one that made them.

One file in a folder; in it a safetensors byte string for each tool. Whatever is read is checked: a gist that is damaged
or of another model is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolformer.data.prompts import Prompts
from toolformer.inference.gist_file import GistFile
from toolformer.inference.gist_precision import PRECISIONS, Precision, pack, unpack
from toolformer.records import Tool, tool_from_json

FILE = "gists.sqlite"
FORMAT = 2
# What changes with each use lies apart from what is large: SQLite writes rows as a whole.
TABLES = (
    "CREATE TABLE store (key TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE tools (id TEXT PRIMARY KEY, position INTEGER, used REAL, bytes INTEGER)",
    "CREATE TABLE tensors (id TEXT PRIMARY KEY, fingerprint TEXT, tool BLOB, dtypes BLOB, content BLOB, digest BLOB)",
)
NOTED = 60  # seconds between two notes of what was only read
AGAIN = "remove it from the store and add it again"


def model_fingerprint(model: torch.nn.Module) -> str:
    """16 hex digits of the SHA-256 of all weights, with their names, in whatever dtype they are."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def gist_fingerprint(model: torch.nn.Module, prompts: Prompts) -> str:
    """Of all that gists depend on beside the tool: the weights, the tokenizer, and where schemas are shortened."""
    vocabulary = sorted(prompts.tokenizer.get_vocab().items())
    text = f"{model_fingerprint(model)} {prompts.schema_limit} {json.dumps(vocabulary)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class GistStore:
    """Tools and their gists ``(K, D)``, or any tensors by name, such as projected keys and values: one store a model.

    What is kept is addressed by the tool's id, the fingerprint and the precision: an edited tool has another id, and
    another model another store. A write is whole, also of many tools. Threads and forked processes may share an object.

    Args:
        folder: made if it is not there; None = in memory, gone with the object.
        fingerprint: of the model that makes the gists (``gist_fingerprint``).
        precision: in which they are kept, see ``gist_precision``; they come back in the dtype that was given.
        limit: bytes of all tools together (the file adds its pages' ends). What does not fit makes those go that were
            not used for longest, but never one that this object has taken or handed out, until it is released. Give
            all who use a folder the same: uses are noted only by those who have a limit.

    Raises:
        ValueError: the folder holds gists of another model or precision, or no store that can be read.
        TimeoutError, OSError: as of ``GistFile.transaction``; so do all methods.
    """

    def __init__(
        self,
        folder: str | Path | None,
        fingerprint: str,
        *,
        precision: Precision = "given",
        limit: int | None = None,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; take one of {', '.join(PRECISIONS)}")
        self.fingerprint, self.precision, self.limit = fingerprint, precision, limit
        self._file = GistFile(None if folder is None else Path(folder) / FILE)
        self._held: set[str] = set()  # ids that eviction must leave
        self._uses: dict[str, float] = {}  # when tools were used, as far as the file does not know
        self._noted = 0.0
        self._open()

    def _open(self) -> None:
        wanted = {"format": FORMAT, "fingerprint": self.fingerprint, "precision": self.precision}
        with self._file.transaction() as file:
            new = _format(file) == 0
        if new:
            with self._file.transaction(write=True) as file:
                if _format(file) == 0:  # no other process was faster
                    for table in TABLES:
                        file.execute(table)
                    file.executemany("INSERT INTO store VALUES (?, ?)", list(wanted.items())[1:])
                    file.execute(f"PRAGMA user_version = {FORMAT}")
        with self._file.transaction() as file:
            found: dict[str, Any] = {"format": _format(file)}
            found |= file.execute("SELECT key, value FROM store") if found["format"] == FORMAT else {}
        for key, value in wanted.items():
            if found.get(key) != value:
                raise ValueError(
                    f"{self._file.place}: {key} is {found.get(key)}, this model's is {value}; use a folder for each"
                )

    # --- asking ---

    def __contains__(self, tool: Tool) -> bool:
        with self._file.transaction() as file:
            return file.execute("SELECT 1 FROM tools WHERE id = ?", (tool.id,)).fetchone() is not None

    def __len__(self) -> int:
        with self._file.transaction() as file:
            return file.execute("SELECT count(*) FROM tools").fetchone()[0]

    @property
    def size(self) -> int:
        """Bytes of all tools together, as ``limit`` counts them."""
        with self._file.transaction() as file:
            return file.execute("SELECT coalesce(sum(bytes), 0) FROM tools").fetchone()[0]

    def get(self, tool: Tool, name: str = "gists") -> Tensor:
        """A tensor of a tool, the gists ``(K, D)`` if no other is named, as it was added.

        Raises:
            ValueError: the tool is not stored, or without it; or what is stored is damaged or another model's.
        """
        return self.get_many([tool], name)[0]

    def get_many(self, tools: Sequence[Tool], name: str = "gists") -> list[Tensor]:
        """That tensor of each of the tools, all as they were at one moment. Errors as of ``get``."""
        found = self.find(tools, name)
        for tool in tools:
            if tool.id not in found:
                lack = f"stored without {name!r}; add it again with it" if tool in self else "not stored; add it first"
                raise ValueError(f"{self._named(tool)} is {lack}")
        return [found[tool.id] for tool in tools]

    def find(self, tools: Iterable[Tool], name: str = "gists") -> dict[str, Tensor]:
        """That tensor by tool id, of those tools that are stored with it; all as they were at one moment.

        Raises:
            ValueError: what is stored is damaged or another model's.
        """
        ask, found = "SELECT fingerprint, tool, dtypes, content, digest FROM tensors WHERE id = ?", {}
        with self._file.transaction() as file:
            for tool in tools:
                row = file.execute(ask, (tool.id,)).fetchone()
                tensors = {} if row is None else self._checked(tool, *row)
                found |= {tool.id: tensors[name]} if name in tensors else {}
        self._use(found)
        return found

    def tools(self) -> Iterator[Tool]:
        """The stored tools, in the order in which they were added, or ``reorder`` put them."""
        ask = "SELECT tools.id, tool FROM tools JOIN tensors ON tensors.id = tools.id ORDER BY position"
        with self._file.transaction() as file:
            rows = file.execute(ask).fetchall()
        for id_, text in rows:
            if not isinstance(text, bytes) or hashlib.sha256(text).hexdigest()[:16] != id_:
                raise ValueError(f"{self._file.place}: the schema of the tool with id {id_} is damaged; "
                                 "remove the file and add the tools again")  # fmt: skip
            yield tool_from_json(json.loads(text))

    # --- changing ---

    def add(self, tool: Tool, tensors: Tensor | Mapping[str, Tensor]) -> None:
        """Store a tool's gists ``(K, D)``, or its tensors by name; the same tool again replaces them."""
        self.add_many([tool], [tensors])

    def add_many(self, tools: Sequence[Tool], tensors: Sequence[Tensor | Mapping[str, Tensor]]) -> None:
        """Store many tools in one write: all are there afterwards, or none.

        Raises:
            ValueError: a number is not finite, or the limit is too small for them beside the tools in use.
        """
        rows = [self._row(tool, each) for tool, each in zip(tools, tensors, strict=True)]
        with self._writing() as file:
            self._put(file, rows)
        self._held |= {tool.id for tool in tools}

    def replace(self, old: Tool, new: Tool, tensors: Tensor | Mapping[str, Tensor]) -> None:
        """``new`` where ``old`` was, in one write.

        Raises:
            ValueError: ``old`` is not stored; else as of ``add_many``.
        """
        row = self._row(new, tensors)
        with self._writing() as file:
            position = self._position(file, old, "add it first")
            if old.id != new.id:
                _delete(file, [old.id])
            self._put(file, [row])
            file.execute("UPDATE tools SET position = ? WHERE id = ?", (position, new.id))
        self._held -= {old.id}
        self._held |= {new.id}

    def remove(self, tool: Tool) -> None:
        """Forget a tool; the others stay as they are.

        Raises:
            ValueError: the tool is not stored.
        """
        with self._writing() as file:
            self._position(file, tool, "nothing to remove")
            _delete(file, [tool.id])
        self._held -= {tool.id}

    def reorder(self, tools: Sequence[Tool]) -> None:
        """These first and in this order, the others after them as they stood. Gists know no order: none is touched.

        Raises:
            ValueError: one of them is not stored.
        """
        with self._writing() as file:
            for tool in tools:
                self._position(file, tool, "add it first")
            stood = (id_ for (id_,) in file.execute("SELECT id FROM tools ORDER BY position").fetchall())
            order = dict.fromkeys([*(tool.id for tool in tools), *stood])
            file.executemany("UPDATE tools SET position = ? WHERE id = ?", enumerate(order))

    def release(self, tools: Iterable[Tool]) -> None:
        """These are no longer in use here. They stay stored until a limit makes them go."""
        self._held -= {tool.id for tool in tools}

    def close(self) -> None:
        """Let the file go; the next use opens it again. What was in memory is gone."""
        self._file.close()

    # --- rows ---

    def _row(self, tool: Tool, tensors: Tensor | Mapping[str, Tensor]) -> tuple[Any, ...]:
        try:
            content, dtypes = pack({"gists": tensors} if isinstance(tensors, Tensor) else tensors, self.precision)
        except ValueError as error:
            raise ValueError(f"tool {tool.name!r} (id {tool.id}): {error}") from error
        row = (tool.id, self.fingerprint, tool.text.encode(), json.dumps(dtypes).encode(), content)
        return (*row, _digest(*row))

    def _checked(self, tool: Tool, fingerprint: str, *parts: bytes) -> dict[str, Tensor]:
        (text, dtypes, content), digest = parts[:3], parts[3]
        whole = all(isinstance(part, bytes) for part in parts)
        if not whole or digest != _digest(tool.id, fingerprint, text, dtypes, content):
            raise ValueError(f"{self._named(tool)} is damaged, its checksum differs; {AGAIN}")
        if fingerprint != self.fingerprint:
            raise ValueError(f"{self._named(tool)}: fingerprint is {fingerprint}, the store's is {self.fingerprint}: "
                             f"it comes from another model; {AGAIN}")  # fmt: skip
        if text != tool.text.encode():
            raise ValueError(f"{self._named(tool)} is stored with another schema that has the same id; {AGAIN}")
        return unpack(content, json.loads(dtypes))

    def _put(self, file: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        sizes = {row[0]: sum(len(part) for part in row[2:]) for row in rows}
        self._make_room(file, sizes)
        (last,) = file.execute("SELECT coalesce(max(position), -1) FROM tools").fetchone()
        now = time.time()
        entries = [(id_, last + 1 + i, now, size) for i, (id_, size) in enumerate(sizes.items())]
        file.executemany(
            "INSERT INTO tools VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET used = excluded.used, bytes = excluded.bytes",
            entries,
        )
        file.executemany("INSERT OR REPLACE INTO tensors VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _make_room(self, file: sqlite3.Connection, sizes: Mapping[str, int]) -> None:
        if self.limit is None:
            return
        there = file.execute("SELECT id, bytes FROM tools ORDER BY used, position").fetchall()
        others = {id_: size for id_, size in there if id_ not in sizes}
        over, gone = sum(sizes.values()) + sum(others.values()) - self.limit, []
        for id_, size in others.items():
            if over > 0 and id_ not in self._held:
                gone.append(id_)
                over -= size
        if over > 0:
            raise ValueError(f"{self._file.place}: limit is {self.limit} bytes, the new tools and those in use have "
                             f"{self.limit + over}; release some, or raise the limit")  # fmt: skip
        _delete(file, gone)

    def _position(self, file: sqlite3.Connection, tool: Tool, remedy: str) -> int:
        row = file.execute("SELECT position FROM tools WHERE id = ?", (tool.id,)).fetchone()
        if row is None:
            raise ValueError(f"{self._named(tool)} is not stored; {remedy}")
        return row[0]

    # --- uses ---

    def _use(self, ids: Iterable[str]) -> None:
        if self.limit is None:
            return
        now = time.time()
        self._held |= set(ids)
        self._uses |= dict.fromkeys(ids, now)
        if now - self._noted > NOTED:  # else with the next write
            self._noted = now
            try:
                with self._writing(wait=0):
                    pass
            except (TimeoutError, OSError):
                pass  # others write, or we may not: knowing when a tool was used is worth no waiting

    @contextmanager
    def _writing(self, **wait: float) -> Generator[sqlite3.Connection]:
        with self._file.transaction(write=True, **wait) as file:
            uses = list(self._uses.items())
            file.executemany("UPDATE tools SET used = ?2 WHERE id = ?1", uses)
            yield file
        self._uses.clear()

    def _named(self, tool: Tool) -> str:
        return f"{self._file.place}: tool {tool.name!r} (id {tool.id})"


def _format(file: sqlite3.Connection) -> int:
    return file.execute("PRAGMA user_version").fetchone()[0]


def _delete(file: sqlite3.Connection, ids: Iterable[str]) -> None:
    for table in ("tools", "tensors"):
        file.executemany(f"DELETE FROM {table} WHERE id = ?", [(id_,) for id_ in ids])


def _digest(id_: str, fingerprint: str, *parts: bytes) -> bytes:
    """SHA-256 of a row; the lengths keep its parts apart."""
    digest = hashlib.sha256(f"{id_} {fingerprint} {' '.join(str(len(part)) for part in parts)}\n".encode())
    for part in parts:
        digest.update(part)
    return digest.digest()
