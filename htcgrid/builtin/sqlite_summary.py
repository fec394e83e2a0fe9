"""What `htcgrid status` shows of a queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields

BY_SESSION = """
    SELECT coalesce(session, ''),
           sum(state = 'ready' OR state = 'leased' AND due <= :now),
           sum(state = 'delayed'),
           sum(state = 'leased' AND due > :now),
           sum(state = 'cancelled'),
           sum(state = 'dead')
    FROM queue GROUP BY session ORDER BY min(seq)
"""
# Numbers are given in the order of submission, so the lowest is the oldest.
OLDEST = """
    SELECT submitted FROM tasks
    WHERE seq = (SELECT min(seq) FROM queue WHERE state IN ('ready', 'delayed'))
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks are in each state; each task is in one."""

    waiting: int = 0
    """Can be handed out now."""
    delayed: int = 0
    """Given back, to be handed out later."""
    leased: int = 0
    """Lent out."""
    cancelled: int = 0
    """Cancelled: kept without their events, for a `cancel` that has to be made again."""
    dead: int = 0
    """Set aside."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Counts)))


@dataclass(frozen=True, slots=True)
class Summary:
    """A queue at one time. `sessions` are in the order of submission; `""` holds tasks without one.

    `oldest_seconds` is how long ago the oldest task that waits was submitted; None where none waits.
    """

    total: Counts
    sessions: Mapping[str, Counts]
    oldest_seconds: float | None


def summarise(connection: sqlite3.Connection, now: float) -> Summary:
    sessions = {name: Counts(*counts) for name, *counts in connection.execute(BY_SESSION, {"now": now})}
    oldest = connection.execute(OLDEST).fetchone()
    return Summary(
        total=sum(sessions.values(), Counts()),
        sessions=sessions,
        oldest_seconds=max(0.0, now - oldest[0]) if oldest else None,
    )
