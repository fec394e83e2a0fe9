"""The time that the processes of a queue share. Changes of the wall clock do not move it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from htcgrid.spi import Rejected

_MADE = "CREATE TABLE IF NOT EXISTS clock (boot TEXT PRIMARY KEY, base REAL NOT NULL)"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """Seconds since this machine was started, and what the wall clock showed then when the queue was first opened.

    So it is close to Unix seconds, but runs evenly, also while the machine sleeps.
    """

    def __init__(self) -> None:
        self._base = 0.0

    def set(self, connection: sqlite3.Connection) -> None:
        """Agree on the clock with the other processes, in a transaction. After a restart of the machine all leases and delays end."""
        boot = _boot_id()
        connection.execute(_MADE)
        known = dict(connection.execute("SELECT boot, base FROM clock").fetchall())
        if isinstance(known.get(boot), float):  # a damaged page may hold anything
            self._base = known[boot]
            return
        self._base = time.time() - _since_boot()
        if known:
            connection.execute("UPDATE queue SET due = min(due, ?) WHERE state IN ('leased', 'delayed')", (self.now(),))
            connection.execute("DELETE FROM clock")
        connection.execute("INSERT INTO clock VALUES (?, ?)", (boot, self._base))

    def now(self) -> float:
        return self._base + _since_boot()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError as error:
        raise Rejected(
            f"The sqlite source needs {_BOOT}, which only Linux has: {error.strerror}. Where /proc is not mounted, mount it "
            "(`mount -t proc proc /proc`); on another system, use another source."
        ) from None
