"""In: a list of files with their checksums. Out: those files in a folder, complete and checked.

What is there already is kept, what broke off goes on where it stopped, and a file appears under its name only when its
checksum is right.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

BLOCK = 1 << 16
SGD_COMMIT = "e852981ae34990f4358979625854259302feaa78"
SGD_URL = f"https://raw.githubusercontent.com/google-research-datasets/dstc8-schema-guided-dialogue/{SGD_COMMIT}/"
SGD_FILES = Path(__file__).parent / "sources" / "sgd_files.txt"


class RemoteFile(NamedTuple):
    """A file as it must be: SHA-256 in hex, size in bytes, path below the address."""

    sha256: str
    size: int
    path: str


class Incomplete(Exception):
    """The connection ended before the file did, or its content is wrong; worth another try."""


def listing(path: str | Path) -> list[RemoteFile]:
    """Read lines of "sha256 size path".

    Raises:
        ValueError: a line is not of that form; it is named.
    """
    found = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        parts = line.split(" ", 2)
        if len(parts) != 3 or not re.fullmatch("[0-9a-f]{64}", parts[0]) or not parts[1].isdigit() or not parts[2]:
            raise ValueError(f"{path}:{number}: line is {line!r}; it must be: sha256 size path")
        found.append(RemoteFile(parts[0], int(parts[1]), _inside(parts[2], f"{path}:{number}")))
    return found


def _inside(path: str, place: str) -> str:
    """``path``, which must stay below the folder that it is put into."""
    if Path(path).is_absolute() or "\\" in path or not Path(path).name or {"..", "."} & set(path.split("/")):
        raise ValueError(f"{place}: path is {path!r}; a path below the folder is wanted, without ..")
    return path


def fetch(
    folder: str | Path,
    files: Sequence[RemoteFile],
    address: str,
    *,
    tries: int = 5,
    wait: float = 1.0,
    timeout: float = 30.0,
    progress: bool = True,
) -> int:
    """Download what is missing; returns how many files were. ``wait`` seconds before the second try, then doubling.

    Raises:
        ValueError: a file could not be had in ``tries`` tries, or is another one than the listed.
    """
    from tqdm import tqdm

    folder, fetched = Path(folder), 0
    total = sum(file.size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="download", disable=not progress) as bar:
        for file in files:
            target = folder / _inside(file.path, str(folder))
            if not target.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{target}: a link leads out of {folder}; remove the link")
            if target.is_file() and target.stat().st_size == file.size and digest(target) == file.sha256:
                bar.update(file.size)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            bar.set_postfix_str(file.path)
            _fetch_one(file, target, address, tries, wait, timeout, bar)
            fetched += 1
    return fetched


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch_one(file: RemoteFile, target: Path, address: str, tries: int, wait: float, timeout: float, bar: Any) -> None:
    """One file by way of <name>.part, tried again after what may pass: no connection, server busy, broken off."""
    url, part, start = address.rstrip("/") + "/" + quote(file.path), target.with_name(target.name + ".part"), bar.n
    for attempt in range(tries):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            bar.update(start - bar.n)
            _continue(url, part, file.size, timeout, bar)
            if (found := digest(part)) != file.sha256:
                part.unlink()
                raise Incomplete(f"its SHA-256 is {found}, the listed one {file.sha256}")
            part.replace(target)
            return
        except HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise ValueError(f"{url}: the server answers {error.code} {error.reason}; check the address") from error
            if error.code == 416:  # the part is longer than the file
                part.unlink(missing_ok=True)
            reason: Exception = error
        except (OSError, HTTPException, Incomplete) as error:
            reason = error
    raise ValueError(
        f"{url}: not downloaded in {tries} tries: {reason}; check the network and run it again: it goes on from there"
    ) from reason


def _continue(url: str, part: Path, size: int, timeout: float, bar: Any) -> None:
    """Append to ``part`` what it lacks; a server that cannot start in the middle sends it all again."""
    have = part.stat().st_size if part.is_file() else 0
    if have > size:
        part.unlink()
        have = 0
    if have < size or not size:
        request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urlopen(request, timeout=timeout) as answer:
            appending = answer.status == 206
            have = have if appending else 0
            bar.update(have)
            with part.open("ab" if appending else "wb") as opened:
                while (block := answer.read(BLOCK)) and have <= size:  # no more than one block too many
                    have += opened.write(block)
                    bar.update(len(block))
        have = part.stat().st_size
    else:
        bar.update(have)
    if have != size:
        raise Incomplete(f"it has {have:,} bytes, the listed one {size:,}")
