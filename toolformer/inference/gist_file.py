"""In: a path, and what to do in one go. Out: a SQLite file in which that is done whole, or not at all.

SQLite brings what a store needs most: many readers and one writer at a time, in any number of processes, and writes
that a kill or a power cut at any moment leaves done or undone. It relies on file locks: local disks on Linux, macOS and
Windows have them; NFS has them where its lock service runs. Where it does not run, one machine at a time may write.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

WAIT = 60  # seconds for other processes to end what they do
# Of a new file: pages about as large as a tool's gists; removed tools give their room back.
LAYOUT = ("page_size = 8192", "auto_vacuum = FULL")
# Of every connection: what is committed is on the disk, on a Mac too; damaged pages are noticed early.
SETTINGS = ("synchronous = FULL", "fullfsync = ON", "cell_size_check = ON")
# SQLite must not be forked in the middle of a transaction, so a fork waits for the end of it.
LOCK = threading.RLock()
if sys.platform != "win32":
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


class GistFile:
    """Transactions on one file, for the threads of a process and for those that are forked from it.

    Args:
        path: of the file, made with its folder if it is not there; None = in memory.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.place = "the store in memory" if path is None else str(path)
        self._connections: dict[int, sqlite3.Connection] = {}  # by process: one from before a fork is not even closed
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def transaction(self, *, write: bool = False, wait: float = WAIT) -> Generator[sqlite3.Connection]:
        """Everything that is asked sees one moment; everything that is written is there at the end, or nothing.

        Raises:
            TimeoutError: others have been using the file for ``wait`` seconds.
            OSError: the disk is full, or the file may not be written.
            ValueError: the file is broken, or none of SQLite's.
        """
        with LOCK:
            try:
                file = self._connection()
                file.execute(f"PRAGMA busy_timeout = {int(1000 * wait)}")
                file.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield file
                    file.execute("COMMIT")
                finally:
                    if file.in_transaction:
                        file.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise self._told(error, wait) from error

    def close(self) -> None:
        """Let the file go (Windows removes no open file); what comes after opens it again."""
        with LOCK:
            if file := self._connections.pop(os.getpid(), None):
                file.close()

    def _connection(self) -> sqlite3.Connection:
        process = os.getpid() if self.path is not None else 0  # memory is copied by a fork
        if process not in self._connections:
            name = ":memory:" if self.path is None else str(self.path)
            file = sqlite3.connect(name, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._connections[process] = file
            new = file.execute("PRAGMA page_count").fetchone()[0] == 0
            for setting in (*SETTINGS, *(LAYOUT if new else ())):
                file.execute(f"PRAGMA {setting}")
        return self._connections[process]

    def _told(self, error: sqlite3.Error, wait: float) -> Exception:
        name = str(getattr(error, "sqlite_errorname", ""))  # SQLite's own, where the error is
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return TimeoutError(f"{self.place}: others have been using it for {wait:g} s; end them, or ask again")
        if name.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return OSError(f"{self.place}: {error}; see that the disk has room and that the folder may be written")
        return ValueError(f"{self.place}: cannot be read: {error}; remove the file and add the tools again")
