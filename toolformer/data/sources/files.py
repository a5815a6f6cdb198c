"""In: the path of an upstream's file, plain or gzipped. Out: its text or its JSON; an error names a broken file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of ``path``, or of ``path`` with .gz behind it where that is there instead.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is not gzip or not of that encoding.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not packed.is_file():
        raise FileNotFoundError(f"{path}: there is no such file, nor {packed.name}; download {path.parent.name} again")
    try:
        raw = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        return raw.decode(encoding)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}:1: cannot be read: {error}; download the file again") from error


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


def json_lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Each line that is not blank with its number and its JSON; None where it is no JSON."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, line, json.loads(line)
            except (ValueError, RecursionError):
                yield number, line, None
