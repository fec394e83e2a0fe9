"""`sqlite`: a durable result store in one file."""

from __future__ import annotations

import sqlite3
import threading
import time
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from htcgrid.builtin import manifest_file
from htcgrid.builtin.sqlite_stats import store_stats
from htcgrid.builtin.sqlite_store import SqliteFile, chunk
from htcgrid.builtin.sqlite_text import attributes_of, named, text_of
from htcgrid.spi import (
    FailureKind,
    Function,
    Outcome,
    Plugin,
    Rejected,
    Result,
    ResultSink,
    StoreStats,
    Task,
    generation_of,
)

_READ = """
    SELECT number, task_id, session, attributes, attempt, failure, started, duration_ms, billed_ms, max_memory_mb, init_ms,
           environment, log_tail, payload FROM results
"""
_COLUMNS = "(" + ", ".join("?" * 15) + ")"
_INSERT = """
    INSERT INTO results (task_id, session, attributes, attempt, failure, started, duration_ms, billed_ms, max_memory_mb,
                         init_ms, environment, log_tail, payload, generation, event)
    VALUES {}
    ON CONFLICT (task_id) DO {}
"""
# The first result stays: someone may have read it already, and a late second run changes nothing for them. A failure is
# replaced by a later generation's result, which gets a number of its own, so that whoever follows the results sees it.
INSERT = _INSERT.format(
    _COLUMNS,
    """
    UPDATE SET
        number = (SELECT max(number) + 1 FROM results), session = excluded.session, attributes = excluded.attributes,
        attempt = excluded.attempt, failure = excluded.failure, started = excluded.started,
        duration_ms = excluded.duration_ms, billed_ms = excluded.billed_ms, max_memory_mb = excluded.max_memory_mb,
        init_ms = excluded.init_ms, environment = excluded.environment, log_tail = excluded.log_tail,
        payload = excluded.payload, generation = excluded.generation, event = excluded.event
    WHERE results.failure IS NOT NULL AND results.generation < excluded.generation
    """,
)
# The global interpreter lock is released and taken for each statement, so one statement inserts many rows.
_ROWS_AT_ONCE = 20
FIRST_RESULTS = _INSERT.format(", ".join([_COLUMNS] * _ROWS_AT_ONCE), "NOTHING")
"""Results of generation 0, which replace nothing."""
_COPIED_BYTES = 4 << 20
"""Rows that hold more than this are inserted one at a time: SQLite keeps a copy of all that a statement is given."""
_PAYLOAD, _GENERATION, _EVENT = 12, 13, 14
_NUMBER, _TEXT_OR_NULL = (int, float), (str, type(None))
_KINDS: tuple[Any, ...] = (
    *(int, str, _TEXT_OR_NULL, _TEXT_OR_NULL, int, _TEXT_OR_NULL),
    *(_NUMBER, _NUMBER, _NUMBER, _NUMBER, (int, float, type(None)), str, bytes, bytes),
)
"""What the columns that `_READ` reads hold; a damaged page may hold anything."""
_LATEST = 250_000_000_000  # seconds: the year 9892
_ASKED_AT_ONCE = 50  # not as one JSON array, as SQLite ends a text in it at a NUL
STORED = (
    "SELECT task_id, failure IS NULL, generation FROM results WHERE task_id IN (?" + ", ?" * (_ASKED_AT_ONCE - 1) + ")"
)
GET = _READ + " WHERE task_id = ?"
ALL_AFTER = _READ + " WHERE number > ? ORDER BY number"
SESSION_AFTER = _READ + " INDEXED BY results_session WHERE number > ? AND session = ? ORDER BY number"
FAILED_NUMBERS = "SELECT number FROM results INDEXED BY results_failed WHERE failure IS NOT NULL"
FAILED = _READ + " WHERE number = ? AND failure IS NOT NULL"
EVENT = "SELECT CAST(event AS BLOB) FROM results WHERE number = ?"
HAS_FAILED = "SELECT EXISTS (SELECT 1 FROM results WHERE failure IS NOT NULL)"
_FAILED_AT_ONCE = 500


class SqliteSink(ResultSink):
    """Results in a SQLite file, one row each. It is a `ResultStore` too.

    Events are kept only with failures, for `failed`; otherwise `Result.task.payload` is empty when a result is read.
    """

    class Config(Plugin.Config):
        """Source and sink may name the same file; two files let them write at the same time."""

        path: Path = Field(description="the file; it is created if it does not exist", examples=["grid.db"])

    max_batch = 1000
    lists_failures = True
    keeps_order = True
    keeps_runs = True

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._file = SqliteFile(config.path)
        self._seen = threading.local()
        """In each thread, the number of the last change that it has seen."""

    def open(self) -> None:
        self._file.open()

    def close(self) -> None:
        self._file.close()

    def put(self, results: Sequence[Result]) -> None:
        """Store these in one transaction. The first result of a task stays; later ones are ignored."""
        rows = [_row(result) for result in results]
        refused: list[str] = []
        with self._file.writing(durable=True, is_awaited=True) as connection:
            try:
                _insert(connection, rows)
            except (UnicodeEncodeError, sqlite3.DataError):
                refused = _one_by_one(connection, rows)
        if refused:
            raise Rejected(
                f"{self._file.path}: too large for SQLite, or with text that is not Unicode: {named(refused)}; "
                f"the other {len(results) - len(refused)} results are stored",
                refused,
            )

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        found: list[tuple[str, bool, int]] = []
        with self._file.reading() as connection:
            for start in range(0, len(tasks), _ASKED_AT_ONCE):
                ids: list[str | None] = [task.id for task in tasks[start : start + _ASKED_AT_ONCE]]
                ids += [None] * (_ASKED_AT_ONCE - len(ids))
                found += connection.execute(STORED, ids)
        if not found:
            return ()
        generations = {task.id: generation_of(task) for task in tasks}
        return [task_id for task_id, is_answer, generation in found if is_answer or generation >= generations[task_id]]

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        with self._file.reading() as connection:
            found = (connection.execute(GET, (task_id,)).fetchone() for task_id in task_ids)
            return {row[1]: self._result(row) for row in found if row}

    def add_run(self, document: bytes) -> None:
        manifest_file.add(self.config.path, document)

    def runs(self) -> Iterator[bytes]:
        return manifest_file.lines(self.config.path)

    def failed(self) -> Iterator[Result]:
        """The failures in the order in which they were stored, each with its event."""
        with self._file.reading() as connection:
            numbers = array("q", sorted(row[0] for row in connection.execute(FAILED_NUMBERS)))
        for start in range(0, len(numbers), _FAILED_AT_ONCE):
            with self._file.reading() as connection:
                some = numbers[start : start + _FAILED_AT_ONCE]
                rows = [connection.execute(FAILED, (number,)).fetchone() for number in some]
                events = [connection.execute(EVENT, (number,)).fetchone() for number in some]
            for row, event in zip(rows, events, strict=True):
                if row is not None:  # otherwise it was replaced meanwhile
                    result = self._result(row)
                    yield replace(result, task=replace(result.task, payload=event[0] or b""))

    def has_failed(self) -> bool:
        with self._file.reading() as connection:
            return bool(connection.execute(HAS_FAILED).fetchone()[0])

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        """Results with their numbers, in the order they were stored: those of a session, or all.

        Only those numbered above `after`: with the last number seen, a later call goes on from there and
        misses none. About 20 MB of them are in memory at a time, and no lock is held in between.
        """
        while True:
            with self._file.reading() as connection:
                rows = chunk(
                    connection.execute(ALL_AFTER, (after,))
                    if session_id is None
                    else connection.execute(SESSION_AFTER, (after, session_id))
                )
            for row in rows:
                yield row[0], self._result(row)
            if not rows:
                return
            after = rows[-1][0]

    def wait_for_more(self, seconds: float) -> bool:
        """As `ResultSink.wait_for_more`: woken by changes of the file."""
        before = getattr(self._seen, "number", -1)
        changes = self._file.changes
        now = self._seen.number = changes.number if before < 0 else changes.wait(before, seconds)
        return now != before

    def _result(self, row: Sequence[Any]) -> Result:
        try:
            return _result(row)
        except (TypeError, ValueError, AttributeError) as error:
            raise Rejected(
                f"{self._file.path}: result {row[0]} is damaged: {error}. Stop what uses the file, keep a copy, and delete "
                f"that row of the table `results`"
            ) from None

    def stats(self) -> StoreStats:
        with self._file.reading() as connection:
            return store_stats(connection, time.time())


def _row(result: Result) -> tuple[Any, ...]:
    task, outcome = result.task, result.outcome
    return (
        task.id,
        task.attributes.get("session_id"),
        text_of(task.attributes),
        result.attempt,
        outcome.failure,
        outcome.started,
        outcome.duration_ms,
        outcome.billed_ms,
        outcome.max_memory_mb,
        outcome.init_ms,
        outcome.environment,
        outcome.log_tail,
        outcome.payload,
        generation_of(task),
        task.payload if outcome.failure is not None else None,
    )


def _result(row: Sequence[Any]) -> Result:
    for column, (value, kind) in enumerate(zip(row, _KINDS, strict=True), 1):
        if not isinstance(value, kind):
            raise TypeError(f"its column {column} holds {type(value).__name__}")
    _, task_id, _, attributes, attempt, failure, started, duration, billed, memory, init, environment, log, payload = (
        row
    )
    if not abs(started) < _LATEST:
        raise ValueError(f"it began {started:g} s after 1970")
    outcome = Outcome(
        task_id=task_id,
        payload=payload,
        failure=failure and FailureKind(failure),
        started=started,
        duration_ms=duration,
        billed_ms=billed,
        max_memory_mb=memory,
        log_tail=log,
        init_ms=init,
        environment=environment,
    )
    return Result(Task(task_id, b"", attributes_of(attributes)), outcome, attempt)


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    size = sum([len(row[_PAYLOAD]) + len(row[_EVENT] or b"") for row in rows])
    are_first = size <= _COPIED_BYTES and not any(row[_GENERATION] for row in rows)
    together = len(rows) - len(rows) % _ROWS_AT_ONCE if are_first else 0
    for start in range(0, together, _ROWS_AT_ONCE):
        connection.execute(FIRST_RESULTS, list(chain.from_iterable(rows[start : start + _ROWS_AT_ONCE])))
    connection.executemany(INSERT, rows[together:])


def _one_by_one(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    refused = []
    for row in rows:
        try:
            connection.execute(INSERT, row)
        except (UnicodeEncodeError, sqlite3.DataError):
            refused.append(row[0])
    return refused
