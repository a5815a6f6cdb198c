"""In: the path of an upstream's file, plain or gzipped, or a text. Out: its text or JSON; an error names the place."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolformer.calls import MAX_DEPTH, deeper_than

DEEPEST = 5 * MAX_DEPTH  # a tool may be nested 4 * MAX_DEPTH deep, and stands in a row


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of ``path``, or of ``path`` with .gz behind it where that is there instead.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is not gzip or not of that encoding.
    """
    try:
        return _bytes(path).decode(encoding)
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from error


def _bytes(path: Path) -> bytes:
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not packed.is_file():
        raise FileNotFoundError(f"{path}: there is no such file, nor {packed.name}; download {path.parent.name} again")
    try:
        found = path if path.is_file() else packed
        return gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}:1: cannot be read: {error}; download the file again")


def read_json(path: Path, kind: type, encoding: str = "utf-8") -> Any:
    """The JSON of ``path``, whose outermost value is a ``kind``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or of another kind.
    """
    try:
        value = json.loads(read_text(path, encoding))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}; download the file again") from error
    except RecursionError:
        raise ValueError(f"{path}:1: nested too deeply; download the file again") from None
    if not isinstance(value, kind):
        raise ValueError(f"{path}:1: holds a {type(value).__name__}, a {kind.__name__} is wanted; download it again")
    return value


def read_list(path: Path) -> list[Any]:
    """The elements of a list of objects in JSON; one that is broken is its text instead.

    Elements are told apart by the indentation of their first line, and only in a file that is no JSON as a whole. So
    damage to that line takes the element before it along.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no list, not all of it, or one without line breaks that is broken.
    """
    try:
        return read_json(path, list)
    except ValueError:
        raw = _bytes(path).strip()
        begin = re.match(rb"\[\s*?(\r?\n[ \t]*\{)", raw)
        if begin is None or not raw.endswith(b"]"):
            raise
        parts = raw[begin.start(1) : -1].split(begin[1])[1:]
        return [_element(b"{" + part.rstrip(b", \t\r\n")) for part in parts]


def _element(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError):
        return raw.decode(errors="replace")


def json_lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Each line that is not blank with its number and its JSON; None where it is no JSON or no UTF-8."""
    for number, raw in enumerate(_bytes(path).split(b"\n"), start=1):
        line = raw.decode(errors="replace")
        if line.strip():
            try:
                yield number, line, json.loads(raw.decode())
            except (ValueError, RecursionError):
                yield number, line, None


def strict_json(text: str, place: str, remedy: str) -> Any:
    """A JSON value that every later step can hold: no key twice, nothing too deep or too long, no half characters."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
        if deeper_than(value, DEEPEST):
            raise ValueError(f"nested more than {DEEPEST} deep")
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: {error}; {remedy}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice!r:.80} occurs twice")
    return out
