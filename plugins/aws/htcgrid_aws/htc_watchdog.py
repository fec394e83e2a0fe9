"""Does the work of HTC-Grid's watchdog: tasks of a dead agent become pending again, or failed after five retries."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import TYPE_CHECKING

from htcgrid.spi import HtcgridError
from htcgrid_aws.htc_states import PARTITIONS
from htcgrid_aws.parallel import each, raise_worst

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from htcgrid_aws.htc_states import Row, StateTable
    from htcgrid_aws.sqs_queue import Queue

log = logging.getLogger("htcgrid.aws.htc_watchdog")


class Watchdog:
    """`check` does nothing until `seconds` have passed since the last check. Several agents may check one table."""

    def __init__(self, states: StateTable, queues: Sequence[Queue], pool: Executor, seconds: float) -> None:
        self._states = states
        self._queues = queues
        self._pool = pool
        self._seconds = seconds
        self._due = time.monotonic()
        self._lock = Lock()

    def check(self) -> None:
        """Look for expired rows if it is time. If the table is unavailable, they are looked for again after `seconds`."""
        if not self._seconds:
            return
        with self._lock:
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + self._seconds
        try:
            self.sweep()
        except HtcgridError as error:
            log.warning("expired rows are looked for again in %g s: %s", self._seconds, error)

    def sweep(self) -> int:
        """Return or fail every task whose heartbeat has expired; returns their number."""
        found = each(self._pool, self._states.expired_in, range(PARTITIONS))
        raise_worst(answer for _, answer in found)
        ids = [task_id for _, answer in found if isinstance(answer, list) for task_id in answer]
        rows = self._states.rows(ids)
        outcomes = each(self._pool, self._expire, [(task_id, rows[task_id]) for task_id in ids if task_id in rows])
        expired = [row for (_, row), answer in outcomes if answer is True]
        settled = each(self._pool, lambda number: self._settle(number, expired), range(len(self._queues)))
        raise_worst(answer for _, answer in [*outcomes, *settled])
        return len(expired)

    def _expire(self, task: tuple[str, Row]) -> bool:
        """Write into its row that the task is pending again, or has failed; False where another agent was faster."""
        task_id, row = task
        if row.state != "processing" or row.expiry >= time.time() or not self._states.expire(task_id, row):
            return False
        if row.is_last_attempt:
            log.warning("task %s has failed: its heartbeat expired %d times", task_id, row.retries + 1)
        else:
            log.warning("task %s is pending again: the heartbeat of %s has expired", task_id, row.owner)
        return True

    def _settle(self, number: int, expired: Sequence[Row]) -> None:
        """Make the messages of one queue visible if their tasks are pending again, and delete those of failed tasks."""
        last = len(self._queues) - 1
        here = [row for row in expired if row.handle and min(row.priority, last) == number]
        self._queues[number].delete([row.handle for row in here if row.is_last_attempt])
        self._queues[number].change_visibility({row.handle: 0 for row in here if not row.is_last_attempt})
