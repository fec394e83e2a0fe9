"""One SQLite file in a write-ahead log, shared by agents, submitters and readers of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from htcgrid.builtin.sqlite_changes import Changes
from htcgrid.builtin.sqlite_errors import explained
from htcgrid.builtin.sqlite_schema import prepare
from htcgrid.spi import Rejected

BUSY_SECONDS = 10.0
"""How long a call waits for another process's transaction before it is `Unavailable`."""

TRY_SECONDS = 0.5
"""How long of this it waits at a time: SQLite's own wait hears neither Ctrl-C nor `close`."""

LOG_BYTES = 64 * 2**20
"""The write-ahead log is written back into the database when it has grown to this."""

CACHE_KIB = 16 * 1024
"""Memory for pages: task ids come in no order, so that each batch touches many pages of their index."""

CHUNK_BYTES = 20 * 2**20
"""About how many bytes one read brings into memory."""

ROW_BYTES = 1500
"""About how much memory a row takes beside its payload."""


class SqliteFile:
    """A connection to the file, under one lock.

    SQLite lets one writer in at a time, and its waiters sleep and try again; threads that wait for a lock of
    this process instead go on at once. `changes` reports what other processes have written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RLock()
        # SQLite keeps it beside the file that a link leads to. The path may be a folder, which `open` refuses.
        self._log = Path(f"{os.path.realpath(path)}-wal")
        self.changes = Changes(self._log)
        self._log_limit = LOG_BYTES
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._is_closing = False

    def open(self) -> None:
        """Connect, and make the tables where there are none.

        Raises `Rejected` where the path, its rights or its contents are wrong, `Unavailable` where it is locked.
        """
        if "\0" in str(self.path):
            raise Rejected(f"{str(self.path)!r}: a path cannot hold the character NUL; correct `path`")
        if not self.path.parent.is_dir():
            raise Rejected(f"{self.path}: there is no folder {self.path.parent}; make it, or correct `path`")
        if self.path.is_dir():
            raise Rejected(f"{self.path}: this is a folder; name a file in it, such as {self.path / 'grid.db'}")
        if self.path.exists() and not self.path.is_file():
            raise Rejected(f"{self.path}: this is a device or a pipe; name a file on a local disk in `path`")
        self._is_closing = False
        with explained(self.path, BUSY_SECONDS):
            self._connection = connection = sqlite3.connect(
                self.path, timeout=min(TRY_SECONDS, BUSY_SECONDS), isolation_level=None, check_same_thread=False
            )
            self._patiently(lambda: self._set_up(connection))
            with self._transaction(connection, "BEGIN IMMEDIATE"):  # finds now what cannot be written
                pass
        self._identity = self._now_there()
        self.changes.open()

    def _set_up(self, connection: sqlite3.Connection) -> None:
        # Checkpoints are our own, see `_write_back`.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        prepare(connection, self.path, BUSY_SECONDS)

    def stop_waiting(self) -> None:
        """Before `close`: calls that wait for another process's transaction, and those to come, soon give up."""
        self._is_closing = True

    def close(self) -> None:
        self.stop_waiting()
        self.changes.close()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction of reads, which see one state of the file and do not delay writers."""
        with self._held() as connection, self._transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self, *, durable: bool, is_awaited: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction, all or nothing.

        Every transaction survives the death of any process. A `durable` one, and all before it, survives
        the loss of power too: it waits for the disk. Other processes that wait for
        `changes` are notified if it `is_awaited`; those of this process are notified of every transaction.
        """
        with self._held() as connection:
            connection.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
            self._write_back(connection)
            with self._transaction(connection, "BEGIN IMMEDIATE"):
                yield connection
        self.changes.tell(others=is_awaited)

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path, BUSY_SECONDS):
            yield self._connected()

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection, begin: str) -> Iterator[None]:
        self._patiently(lambda: connection.execute(begin))
        try:
            yield
            connection.execute("COMMIT")
        finally:
            # Ctrl-C may come just before the body of `with`, which then ends when it is collected: after `close`.
            if connection is self._connection and connection.in_transaction:
                connection.execute("ROLLBACK")

    def _patiently(self, attempt: Callable[[], object]) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                attempt()
            except sqlite3.OperationalError as error:
                is_busy = getattr(error, "sqlite_errorcode", -1) & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or self._is_closing or time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)  # some locks SQLite does not wait for at all
            else:
                return

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError(f"{self.path} is not open; call open() first")
        # SQLite would go on writing into a file that has lost its name, and all of it would be lost.
        if self._now_there() != self._identity:
            raise Rejected(
                f"{self.path}: the file was removed or replaced while it was in use; put it back and start again"
            )
        return self._connection

    def _now_there(self) -> tuple[int, int]:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return there.st_dev, there.st_ino

    def _write_back(self, connection: sqlite3.Connection) -> None:
        # SQLite before 3.51.3 can damage a file when one connection's automatic checkpoint meets another's
        # commit (the "WAL-reset bug", https://www.sqlite.org/wal.html). TRUNCATE keeps writers out while it runs.
        # It stands before a transaction, not after: if it fails, nothing was done that would be done twice.
        try:
            size = self._log.stat().st_size
        except FileNotFoundError:
            return
        if size > self._log_limit:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            # A program that reads for long holds it up: let the log grow, rather than wait in each transaction.
            self._log_limit = LOG_BYTES + size * busy


def chunk(cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """Rows of the cursor, whose last column is a payload: all, or the first that come to `CHUNK_BYTES`."""
    rows: list[tuple[Any, ...]] = []
    held = 0
    for row in cursor:
        rows.append(row)
        # A damaged page may give NULL or a number.
        held += ROW_BYTES + (len(row[-1]) if isinstance(row[-1], bytes) else 0)
        if held >= CHUNK_BYTES:
            break
    cursor.close()
    return rows
