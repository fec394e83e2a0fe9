"""SQLite's errors as `Unavailable` or `Rejected`, with what to do."""

from __future__ import annotations

import re
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htcgrid.spi import HtcgridError, Rejected, Unavailable

LATER = {
    sqlite3.SQLITE_BUSY: (
        "another process has kept the file locked for {busy:g} s; this call did nothing. If that continues, look "
        "for a stopped process that has the file open (`fuser {path}`)"
    ),
    sqlite3.SQLITE_FULL: (
        "the disk is full; this call stored nothing, and what was stored before is safe. "
        "Free some space: no restart is needed"
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk could not be read or written; this call did nothing. "
        "Look at the disk's health and free space (`dmesg`, `df`)"
    ),
    sqlite3.SQLITE_NOMEM: "SQLite ran out of memory; this call did nothing",
}
NEVER = {
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened. This user must be able to read and write the file and its folder, "
        "as SQLite keeps two more files beside it (-wal, -shm)"
    ),
    sqlite3.SQLITE_READONLY: (
        "the file cannot be written. This user must be able to write the file, its -wal and -shm, and its folder"
    ),
    sqlite3.SQLITE_NOTADB: "this is not a SQLite database; it was left as it is. Name another file in `path`",
    sqlite3.SQLITE_CORRUPT: (
        "the database is damaged. Stop what uses it, keep a copy, and save what can be read with "
        '`sqlite3 {path} ".recover" | sqlite3 repaired.db`'
    ),
}
NEVER[sqlite3.SQLITE_PERM] = NEVER[sqlite3.SQLITE_CANTOPEN]
_FILE_LIMIT = ", or raise the limit on the size of a file that this process has (`ulimit -f`)"
_DAMAGED_SCHEMA = re.compile(
    "no such |no query solution|no column|columns? but|syntax error|unrecognized token|malformed"
)
"""What SQLite says where the tables of the file are not htcgrid's."""
_DAMAGED_TEXT = "Could not decode to UTF-8"


@contextmanager
def explained(path: Path, busy: float) -> Iterator[None]:
    """Raise SQLite's errors as `Unavailable` or `Rejected`; other errors are bugs and are not changed."""
    try:
        yield
    except UnicodeDecodeError as error:  # a message of SQLite with a damaged name in it
        raise Rejected(f"{path}: {NEVER[sqlite3.SQLITE_CORRUPT].format(path=path)} ({error})") from error
    except sqlite3.Error as error:
        verdict = _verdict(error, path, busy)
        if verdict is None:
            raise
        raise verdict from error


def _verdict(error: sqlite3.Error, path: Path, busy: float) -> HtcgridError | None:
    # The low byte is the primary code, https://www.sqlite.org/rescode.html. The sqlite3 module's own errors have none.
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    if _DAMAGED_TEXT in str(error) or (code == sqlite3.SQLITE_ERROR and _DAMAGED_SCHEMA.search(str(error))):
        code = sqlite3.SQLITE_CORRUPT
    if code in LATER:
        limit = _FILE_LIMIT if code == sqlite3.SQLITE_IOERR and _has_file_limit() else ""
        return Unavailable(f"{path}: {LATER[code].format(path=path, busy=busy)}{limit} ({error})")
    if code in NEVER:
        return Rejected(f"{path}: {NEVER[code].format(path=path)} ({error})")
    return None


def _has_file_limit() -> bool:
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
