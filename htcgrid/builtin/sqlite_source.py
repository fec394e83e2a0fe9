"""`sqlite`: a durable queue in one file, for the submitters and agents of one machine."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from htcgrid.builtin import sqlite_statements as sql
from htcgrid.builtin.sqlite_clock import Clock
from htcgrid.builtin.sqlite_stats import queue_stats
from htcgrid.builtin.sqlite_store import SqliteFile, chunk
from htcgrid.builtin.sqlite_text import attributes_of, named, text_of
from htcgrid.spi import (
    DeadTask,
    Function,
    HtcgridError,
    Lease,
    Plugin,
    QueueStats,
    Rejected,
    States,
    Task,
    TaskSource,
    generation_of,
)

log = logging.getLogger(__name__)

FIRST_BACK_OFF = 0.0005
"""How long a waiting `receive` leaves changes alone after it has found nothing, twice as long each time up to
`LONGEST_BACK_OFF`: where many agents wait, most changes bring no task for this one."""

LONGEST_BACK_OFF = 0.02

SEEN_SECONDS = 5.0
"""How often an idle agent reports that it is alive."""

FORGET_SECONDS = 86_400.0
"""How long `stats` names an agent after its last sign of life."""

CANCEL_ROWS = 10_000
"""Tasks cancelled in one transaction, so that cancelling a million does not block agents for long."""

HIGHEST_PRIORITY = 2**31 - 1

UNFIT = (sqlite3.IntegrityError, sqlite3.DataError, UnicodeEncodeError)
"""What the sqlite3 module raises for a repeated id, a value past its limit, and a lone surrogate."""

_TAKEN = "in the queue already with another event or other attributes, cancelled, or twice in this call"


class SqliteSource(TaskSource):
    """Tasks in a SQLite file. It is a `TaskQueue` too.

    The highest `priority` first, and first in, first out within one. Times are of one clock that several
    processes share, and that no change of the wall clock moves. Agents return the tasks of a dead agent themselves, in `receive`, when
    their lease is over: no other program needs to watch.
    """

    class Config(Plugin.Config):
        """Source and sink may name the same file; each agent and submitter of a queue names the same one."""

        path: Path = Field(description="the file; it is created if it does not exist", examples=["grid.db"])
        lease_seconds: float = Field(
            60.0, ge=0.01, le=31_536_000, description="seconds until the tasks of a dead agent are handed out again"
        )
        drain: bool = Field(False, description="whether the run stops when no task is waiting, delayed or leased")

    max_batch = 1000
    redrives = True

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.lease_seconds = config.lease_seconds
        self._file = SqliteFile(config.path)
        self._clock = Clock()
        self._seen = 0.0

    def open(self) -> None:
        self._file.open()
        with self._file.writing(durable=False) as connection:
            self._clock.set(connection)

    def close(self) -> None:
        self._file.stop_waiting()
        try:
            if self._seen:
                self._seen = 0.0
                with self._file.writing(durable=False) as connection:
                    connection.execute(sql.LEFT, (self.agent,))
        except HtcgridError as error:
            log.info("%s stays in the list of agents: %s", self.agent, error)
        finally:
            self._file.close()

    # --- As a source ---------------------------------------------------------------------------------

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        """Lease ready tasks and those whose lease has expired; fewer than asked for if payloads are large."""
        deadline = time.monotonic() + wait
        back_off = 0.0
        while max_tasks > 0:
            number = self._file.changes.number
            due = self._next_due()
            look = self._file.changes.look_seconds
            pause = look if due is None else min(look, due - self._clock.now())
            if pause <= 0 and (leases := self._take(min(max_tasks, self.max_batch))):
                return leases
            self._say_seen()
            left = deadline - time.monotonic()
            if left <= 0 or (self.config.drain and due is None):
                break
            if pause > 0 and self._file.changes.wait(number, min(left, pause)) != number:
                time.sleep(min(back_off, left, pause))
                back_off = min(max(FIRST_BACK_OFF, 2 * back_off), LONGEST_BACK_OFF)
        return ()

    def ack(self, leases: Sequence[Lease]) -> None:
        """Done for good, even if another agent holds the task by now: its result is stored.

        Lost with the power, an ack is made again when the task is: the sink knows its result.
        """
        with self._file.writing(durable=False) as connection:
            connection.execute(sql.DONE, (json.dumps([_receipt(lease)[0] for lease in leases]),))

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        with self._file.writing(durable=False, is_awaited=True) as connection:
            if delay > 0:
                due = self._clock.now() + delay
                connection.executemany(sql.DELAY, ((due, *_receipt(lease)) for lease in leases))
            else:
                connection.executemany(sql.RETURN, map(_receipt, leases))

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        with self._file.writing(durable=False) as connection:
            self._see(connection)
            due = self._clock.now() + seconds
            extended = connection.executemany(sql.EXTEND, ((due, *_receipt(lease)) for lease in leases)).rowcount
            if extended == len(leases):
                return ()
            return [
                lease.task.id for lease in leases if not connection.execute(sql.IS_OURS, _receipt(lease)).fetchone()
            ]

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        """Make it a dead letter with its event; `dead` reads it back. Like `ack`, it counts even if another agent has the task by now."""
        with self._file.writing(durable=True) as connection:
            connection.executemany(sql.TO_DEAD_LETTERS, ((reason, _receipt(lease)[0]) for lease in leases))

    @property
    def exhausted(self) -> bool:
        return self.config.drain and self._next_due() is None

    # --- As a queue ----------------------------------------------------------------------------------

    def put(self, tasks: Sequence[Task]) -> None:
        """Accept these tasks, durably and in this order, all or none; about 1,000 at a time is fastest.

        A task that is there already stays as it is. Raises `Rejected` for ids that are in the queue with another
        event or other attributes or come twice, for a `priority` that is not a whole number, and for text that is
        not Unicode. An id whose task is done may come again; a sink that has its result keeps that one.
        """
        with self._file.writing(durable=True, is_awaited=True) as connection:
            self._insert_all(connection, tasks)

    def _insert_all(self, connection: sqlite3.Connection, tasks: Sequence[Task]) -> None:
        rows = [(task, self._priority(task)) for task in tasks]
        last = connection.execute(sql.LAST_SEQ).fetchone()[0]
        connection.execute("SAVEPOINT batch")
        try:
            _insert(connection, last, rows, self._clock.now())
        except UNFIT:
            connection.execute("ROLLBACK TO batch")
            self._put_one_by_one(connection, last, rows)

    def redrive(self, tasks: Sequence[Task]) -> None:
        """Put these again. Earlier generations of them that are still in the queue are removed, and their leases are lost."""
        with self._file.writing(durable=True, is_awaited=True) as connection:
            for task in tasks:
                row = connection.execute(sql.THERE, (task.id,)).fetchone()
                if row is not None and generation_of(Task(task.id, b"", attributes_of(row[1]))) < generation_of(task):
                    connection.execute(sql.REMOVE, (row[0],))
            # In the same transaction, so that each task is in the queue at every moment.
            self._insert_all(connection, tasks)

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        """Cancel a session, these tasks, or both, and drop their events; they are returned without.

        Tasks that are done or dead are not among them. What stays of a cancelled task goes when it is acked
        by an agent that had finished it; else it is kept, so that the same call returns it again.
        """
        cancelled: dict[int, Task] = {}
        ids = iter(task_ids)
        while some := list(islice(ids, CANCEL_ROWS)):
            with self._file.writing(durable=True, is_awaited=True) as connection:
                found = (connection.execute(sql.OF_ID, (task_id,)).fetchone() for task_id in some)
                cancelled |= _cancel(connection, [row for row in found if row])
        last = 0
        while session_id is not None:
            with self._file.writing(durable=True) as connection:
                rows = connection.execute(sql.OF_SESSION, (last, session_id, CANCEL_ROWS)).fetchall()
                if not rows:
                    break
                cancelled |= _cancel(connection, rows)
                last = rows[-1][0]
        return list(cancelled.values())

    def stats(self, *, brief: bool = False) -> QueueStats:
        """As `TaskSource.stats`; with `brief`, what is delayed is counted among `waiting`."""
        with self._file.reading() as connection:
            if not brief:
                return queue_stats(connection, self._clock.now())
            waiting, leased, dead = connection.execute(sql.DEPTH, {"now": self._clock.now()}).fetchone()
        return QueueStats(States(waiting=waiting, leased=leased, dead=dead))

    def is_pending(self, session_id: str) -> bool:
        """Whether a task of this session waits, is delayed or is leased."""
        with self._file.reading() as connection:
            return bool(connection.execute(sql.PENDING, (session_id,)).fetchone()[0])

    def dead_letters(self) -> Iterator[DeadTask]:
        """The dead letters, oldest first, a few at a time in memory."""
        last = 0
        while True:
            with self._file.reading() as connection:
                rows = chunk(connection.execute(sql.DEAD, (last,)))
            for _, attempt, reason, task_id, attributes, payload in rows:
                yield DeadTask(Task(task_id, payload, attributes_of(attributes)), attempt, reason)
            if not rows:
                return
            last = rows[-1][0]

    # --- Inside --------------------------------------------------------------------------------------

    def _next_due(self) -> float | None:
        """When the next task can be leased, on the queue's `Clock`; 0 for now, None if none waits, is delayed or is leased."""
        with self._file.reading() as connection:
            ready, *times = connection.execute(sql.NEXT_DUE).fetchone()
        return 0.0 if ready else min((due for due in times if due is not None), default=None)

    def _take(self, count: int) -> list[Lease]:
        # Without waiting for the disk: a power cut that loses this ends the handler, and so the attempt, as well.
        with self._file.writing(durable=False) as connection:
            now = self._clock.now()
            self._see(connection)
            connection.execute(sql.DELAY_OVER, (now,))
            expired = connection.execute(sql.EXPIRED, (now,)).fetchall()
            connection.execute(sql.LEASE_OVER, (now,))
            rows = chunk(connection.execute(sql.READY, (count,)))
            due = now + self.config.lease_seconds
            connection.execute(sql.LEASE, (due, self.agent, json.dumps([row[0] for row in rows])))
        _log_expired(expired, now)
        return [_lease(*row) for row in rows]

    def _see(self, connection: sqlite3.Connection) -> None:
        """Note in a transaction that this agent is alive."""
        now = self._clock.now()
        if now - self._seen > SEEN_SECONDS / 5:
            if not self._seen:
                connection.execute(sql.FORGET, (now - FORGET_SECONDS,))
            connection.execute(sql.SEEN, (self.agent, now))
            self._seen = now

    def _say_seen(self) -> None:
        if self._clock.now() - self._seen > SEEN_SECONDS:
            with self._file.writing(durable=False) as connection:
                self._see(connection)

    def _priority(self, task: Task) -> int:
        text = task.attributes.get("priority", "0")
        try:
            priority = int(text)
        except ValueError:
            priority = None
        if priority is None or abs(priority) > HIGHEST_PRIORITY:
            raise Rejected(
                f"{self._file.path}: task {task.id!r} has priority {text!r}; expected a whole number of at most "
                f'{HIGHEST_PRIORITY} either way, as text, such as "10". None of the tasks was accepted',
                [task.id],
            )
        return priority

    def _put_one_by_one(self, connection: sqlite3.Connection, last: int, rows: Sequence[tuple[Task, int]]) -> None:
        """Insert those that are not there yet. Raises `Rejected`, and inserts none, where one of them cannot be inserted."""
        wrong: dict[str, list[str]] = {}
        new: set[str] = set()
        for row in rows:
            task = row[0]
            try:
                _insert(connection, last + len(new), [row], self._clock.now())
                new.add(task.id)
            except sqlite3.IntegrityError:
                there = connection.execute(sql.CONTENT, (task.id,)).fetchone()
                if task.id in new or (attributes_of(there[0]), there[1]) != (dict(task.attributes), task.payload):
                    wrong.setdefault(_TAKEN, []).append(task.id)
            except UNFIT:
                wrong.setdefault("too large for SQLite, or with text that is not Unicode", []).append(task.id)
        if not wrong:
            return
        connection.execute("ROLLBACK TO batch")
        reasons = "; ".join(f"{why}: {named(ids)}" for why, ids in wrong.items())
        raise Rejected(
            f"{self._file.path}: {reasons}. None of the {len(rows)} tasks was accepted; correct or leave out "
            "those named, and put the others again",
            [task_id for ids in wrong.values() for task_id in ids],
        )


def _log_expired(expired: Sequence[tuple[str, float, str]], now: float) -> None:
    """Log which tasks of which agent are received again, and why."""
    for agent in dict.fromkeys(agent for agent, *_ in expired):
        ids = [task_id for name, _, task_id in expired if name == agent]
        since = now - min(due for name, due, _ in expired if name == agent)
        log.warning(
            "tasks of agent %s are handed out again, as it has not extended their lease, which ended %.1f s ago: %s",
            *(agent, since, named(ids)),
        )


def _insert(connection: sqlite3.Connection, last: int, rows: Sequence[tuple[Task, int]], now: float) -> None:
    connection.executemany(
        sql.INSERT_TASK,
        [(seq, task.id, now, text_of(task.attributes), task.payload) for seq, (task, _) in enumerate(rows, last + 1)],
    )
    connection.executemany(
        sql.INSERT_STATE,
        [(seq, task.attributes.get("session_id"), rank) for seq, (task, rank) in enumerate(rows, last + 1)],
    )


def _lease(seq: int, attempt: int, task_id: Any, attributes: str | None, payload: Any) -> Lease:
    receipt = (seq, attempt)
    if not isinstance(task_id, str):  # NULL where the whole task is missing
        return Lease(Task(f"damaged-{seq}", b""), attempt, receipt, invalid="its id is damaged in the queue's file")
    if not isinstance(payload, bytes):
        return Lease(Task(task_id, b""), attempt, receipt, invalid="its event is damaged in the queue's file")
    try:
        return Lease(Task(task_id, payload, attributes_of(attributes)), attempt, receipt)
    except (TypeError, ValueError):
        return Lease(
            Task(task_id, payload), attempt, receipt, invalid=f"its attributes are not a JSON object: {attributes}"
        )


def _cancel(connection: sqlite3.Connection, rows: Sequence[tuple[int, str, str | None]]) -> dict[int, Task]:
    numbers = [row[:1] for row in rows]
    connection.executemany(sql.CANCEL, numbers)
    connection.executemany(sql.DROP_EVENT, numbers)
    return {seq: Task(task_id, b"", attributes_of(attributes)) for seq, task_id, attributes in rows}


def _receipt(lease: Lease) -> tuple[int, int]:
    """The task's number in the queue and the attempt; for a lease that is not of ours, one that matches nothing."""
    receipt = lease.receipt  # not `match`, which takes ten times as long: this runs once a task
    return receipt if isinstance(receipt, tuple) and len(receipt) == 2 else (-1, -1)
