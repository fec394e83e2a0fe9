"""The tables of the file, for the queue and for the results, whichever of them it is used for."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from htcgrid.spi import Rejected

APPLICATION_ID = 0x48544347
"""`HTCG`, in the header of every file of ours, so that another program's database is left alone."""

SCHEMA_VERSION = 2

# A task's event stands apart from its state, so that leasing, extending and returning rewrite a few bytes
# and not the event. AUTOINCREMENT keeps numbers from being used again, so a late receipt never means another task.
# Each state has its own index, so that each poll of `receive` costs the same at any depth of the queue.
SCHEMA = (
    """
    CREATE TABLE tasks (
        seq        INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT NOT NULL UNIQUE,
        submitted  REAL NOT NULL,             -- times are seconds of `sqlite_clock.Clock`
        attributes TEXT,                      -- a JSON object; NULL where there are none
        payload    BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE queue (
        seq        INTEGER PRIMARY KEY,
        session    TEXT,
        priority   INTEGER NOT NULL,
        state      TEXT NOT NULL,             -- ready, delayed, leased, dead, cancelled
        due        REAL,                      -- when a delay or a lease ends
        attempt    INTEGER NOT NULL,          -- how often it was received
        agent      TEXT,                      -- who received it last
        reason     TEXT                       -- why it is dead
    )
    """,
    "CREATE INDEX queue_ready ON queue (priority DESC) WHERE state = 'ready'",
    "CREATE INDEX queue_delayed ON queue (due) WHERE state = 'delayed'",
    "CREATE INDEX queue_leased ON queue (due) WHERE state = 'leased'",
    "CREATE INDEX queue_dead ON queue (seq) WHERE state = 'dead'",
    "CREATE TRIGGER queue_done AFTER DELETE ON queue BEGIN DELETE FROM tasks WHERE seq = old.seq; END;",
    """
    CREATE TABLE agents (
        name       TEXT PRIMARY KEY,          -- HOST-PID
        seen       REAL NOT NULL              -- when it last asked for tasks or kept its leases
    )
    """,
    """
    CREATE TABLE results (
        number        INTEGER PRIMARY KEY,    -- in the order they were stored
        task_id       TEXT NOT NULL UNIQUE,
        session       TEXT,
        attributes    TEXT,
        attempt       INTEGER NOT NULL,
        failure       TEXT,                   -- NULL: an answer
        started       REAL NOT NULL,
        duration_ms   REAL NOT NULL,
        billed_ms     INTEGER NOT NULL,
        max_memory_mb INTEGER NOT NULL,
        init_ms       REAL,
        environment   TEXT NOT NULL,
        log_tail      BLOB NOT NULL,
        payload       BLOB NOT NULL,
        generation    INTEGER NOT NULL DEFAULT 0,  -- how often the task was run again after a final failure
        event         BLOB                    -- of failures alone, so that they can be run again
    )
    """,
    "CREATE INDEX results_session ON results (session) WHERE session IS NOT NULL",
    "CREATE INDEX results_failed ON results (failure) WHERE failure IS NOT NULL",
)


ADDED = {
    "generation": "ALTER TABLE results ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",
    "event": "ALTER TABLE results ADD COLUMN event BLOB",
}
"""Columns that files of version 2 from before the first release may lack."""


def prepare(connection: sqlite3.Connection, path: Path, busy_seconds: float) -> None:
    """Make the tables in an empty file, or check that they are there; others may be doing the same.

    Raises `Rejected` for another program's database, and for one of another version of htcgrid.
    """
    connection.execute("BEGIN")  # one look, not at a file that is half made
    try:
        new = _is_new(connection, path)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if new:
        _keep_log_ahead(connection, busy_seconds)
        _make(connection, path)
    _add_what_is_missing(connection)
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        raise Rejected(
            f"{path}: SQLite cannot keep a write-ahead log there (journal_mode is {mode!r}); "
            "put the file on a local disk, not on a network share"
        )


def _keep_log_ahead(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """SQLite does not wait for other connections before it changes the journal, whatever its timeout."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _make(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_new(connection, path):  # another process may have been first
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _add_what_is_missing(connection: sqlite3.Connection) -> None:
    """Give an older file the columns that were added since."""
    if not _missing(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name in _missing(connection):  # another process may have been first
            connection.execute(ADDED[name])
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _missing(connection: sqlite3.Connection) -> list[str]:
    there = {row[1] for row in connection.execute("PRAGMA table_info(results)")}
    return [name for name in ADDED if there and name not in there]


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not (application or version or tables):
        return True
    if application != APPLICATION_ID:
        raise Rejected(
            f"{path}: a SQLite database, but not one of htcgrid's (application_id is {application}, expected "
            f"{APPLICATION_ID}); it was left as it is. Name another file in `path`: it is created if it does not exist"
        )
    if version != SCHEMA_VERSION:
        raise Rejected(
            f"{path}: made by another version of htcgrid (schema version {version}, this one knows "
            f"{SCHEMA_VERSION}). Use the htcgrid that made it, or name another file in `path`"
        )
    return False
