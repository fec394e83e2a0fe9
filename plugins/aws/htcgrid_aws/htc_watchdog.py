"""Does the work of HTC-Grid's watchdog: tasks of a dead agent become pending again, or failed after five retries."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import TYPE_CHECKING

from htcgrid.spi import HtcgridError
from htcgrid_aws.htc_states import MOST_RETRIES, PARTITIONS
from htcgrid_aws.parallel import each, raise_worst

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from htcgrid_aws.htc_states import StateTable
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
        swept = each(self._pool, self._expire, ids)
        raise_worst(answer for _, answer in swept)
        return sum(answer is True for _, answer in swept)

    def _expire(self, task_id: str) -> bool:
        row = self._states.rows([task_id]).get(task_id)
        if (
            row is None
            or row.state != "processing"
            or row.expiry >= time.time()
            or not self._states.expire(task_id, row)
        ):
            return False
        queue = self._queues[min(row.priority, len(self._queues) - 1)]
        if row.retries >= MOST_RETRIES:
            log.warning("task %s has failed: its heartbeat expired %d times", task_id, row.retries + 1)
            queue.delete([row.handle])
        else:
            log.warning("task %s is pending again: the heartbeat of %s has expired", task_id, row.owner)
            queue.change_visibility({row.handle: 0})
        return True
