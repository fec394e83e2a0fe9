"""What `htcgrid status` shows of a file."""

from __future__ import annotations

import sqlite3
from dataclasses import fields

from htcgrid.spi import Holder, QueueStats, States, StoreStats

RECENT_SECONDS = 60.0
RECENT_RESULTS = 20_000
"""The rate is that of the last minute, since its first task began, or of so many results where it had more."""

BY_SESSION = """
    SELECT coalesce(session, ''),
           sum(state = 'ready' OR state IN ('delayed', 'leased') AND due <= :now),
           sum(state = 'delayed' AND due > :now),
           sum(state = 'leased' AND due > :now),
           sum(state = 'cancelled'),
           sum(state = 'dead')
    FROM queue GROUP BY session ORDER BY min(seq)
"""
# Numbers are given in the order of submission, so the lowest is the oldest.
OLDEST = """
    SELECT submitted FROM tasks
    WHERE seq = (SELECT min(seq) FROM queue
                 WHERE state IN ('ready', 'delayed') OR state = 'leased' AND due <= ?)
"""
AGENTS = """
    SELECT a.name, count(q.seq), a.seen
    FROM agents AS a LEFT JOIN queue AS q ON q.agent = a.name AND q.state = 'leased' AND q.due > ?
    GROUP BY a.name ORDER BY a.name
"""
FAILURES = "SELECT failure, count(*) FROM results WHERE failure IS NOT NULL GROUP BY failure ORDER BY count(*) DESC"
RECENT = """
    SELECT count(*), min(started)
    FROM (SELECT started, duration_ms FROM results ORDER BY number DESC LIMIT ?) WHERE started + duration_ms / 1000 > ?
"""


def queue_stats(connection: sqlite3.Connection, now: float) -> QueueStats:
    sessions = {name: States(*counts) for name, *counts in connection.execute(BY_SESSION, {"now": now})}
    oldest = connection.execute(OLDEST, (now,)).fetchone()
    agents = connection.execute(AGENTS, (now,)).fetchall()
    return QueueStats(
        states=_total(list(sessions.values())),
        sessions=sessions,
        oldest_seconds=max(0.0, now - oldest[0]) if oldest else None,
        agents={name: Holder(leased, max(0.0, now - seen)) for name, leased, seen in agents},
    )


def store_stats(connection: sqlite3.Connection, now: float) -> StoreStats:
    stored = connection.execute("SELECT count(*) FROM results").fetchone()[0]
    recent, first = connection.execute(RECENT, (RECENT_RESULTS, now - RECENT_SECONDS)).fetchone()
    seconds = min(now - first, RECENT_SECONDS) if recent else RECENT_SECONDS
    return StoreStats(stored, dict(connection.execute(FAILURES).fetchall()), recent / max(seconds, 0.001))


def _total(sessions: list[States]) -> States:
    names = [field.name for field in fields(States)]
    return States(**{name: sum(getattr(session, name) or 0 for session in sessions) for name in names})
