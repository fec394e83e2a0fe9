"""Marks in a DynamoDB table that say which tasks and sessions were cancelled: SQS cannot take out a message by its id.

A mark is an item whose key starts `cancel#`, so that results may live in the same table. It holds `expires` in Unix
seconds, for DynamoDB's time to live to remove it when no message of that age can exist any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from htcgrid.spi import Unavailable
from htcgrid_aws_grid.table import KEY, WRITE_BATCH, Item

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from htcgrid.spi import Task
    from htcgrid_aws_grid.table import Table

LONGEST_RETENTION = 14 * 86_400
"""Seconds that SQS keeps a message at most."""


class Cancels:
    """The marks in one table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, sessions: Iterable[str], task_ids: Iterable[str]) -> int:
        """Mark these; returns how many marks were written."""
        keys = [*map(_session, sessions), *map(_task, task_ids)]
        expires = {"N": str(int(time.time()) + LONGEST_RETENTION)}
        items: list[Item] = [{KEY: {"S": key}, "expires": expires} for key in dict.fromkeys(keys)]
        for start in range(0, len(items), WRITE_BATCH):
            if left := self._table.write_batch(items[start : start + WRITE_BATCH]):
                raise Unavailable(f"table {self._table.name} did not take {left} cancel marks: throttled; cancel again")
        return len(items)

    def among(self, tasks: Sequence[Task]) -> Collection[str]:
        """Ids of those of these tasks that were cancelled, by themselves or with their session."""
        marks = {task.id: [_task(task.id)] for task in tasks}
        for task in tasks:
            if session := task.attributes.get("session_id"):
                marks[task.id].append(_session(session))
        keys = [key for several in marks.values() for key in several]
        there = {item[KEY]["S"] for item in self._table.read(keys, only=KEY, consistent=True)}
        return {task_id for task_id, several in marks.items() if there.intersection(several)}


def _session(session_id: str) -> str:
    return f"cancel#session#{session_id}"


def _task(task_id: str) -> str:
    return f"cancel#task#{task_id}"
