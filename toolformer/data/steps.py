"""In: the name of a folder and a function that fills one. Out: the folder, whole or not at all, made by one process.

A process that is killed leaves a folder whose name begins with a dot; the next one takes it away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


def made(folder: Path, make: Callable[[Path], object]) -> Path:
    """``folder``; where it is not there, what ``make`` puts into an empty folder, moved there when it is done."""
    if folder.is_dir():
        return folder
    return replaced(folder, make)


def replaced(folder: Path, make: Callable[[Path], object]) -> Path:
    """``folder`` as ``make`` fills it; an older one of that name gives way in the end."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        make(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


@contextmanager
def alone(base: Path) -> Generator[None]:
    """One process at a time makes folders in ``base``; those that a killed one left unfinished are taken away.

    The lock goes with the process, however that ends.
    """
    base.mkdir(parents=True, exist_ok=True)
    lock = os.open(base, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{base}: another process builds there; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for part in base.rglob(".*.*"):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
        yield
    finally:
        os.close(lock)
        if not any(base.iterdir()):
            base.rmdir()
