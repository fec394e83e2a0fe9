"""Marks in a DynamoDB table that say which tasks and sessions were cancelled: SQS cannot remove a message by its id.

A mark is an item whose key starts with `cancel#`, so that results may be in the same table. Its attribute `expires`, in
Unix seconds, is for DynamoDB's time to live: by then SQS has dropped all messages that are as old as the mark.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from htcgrid.spi import FailureKind, Unavailable
from htcgrid_aws.dynamodb_table import KEY, Item, expires

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from htcgrid.spi import Lease, Task
    from htcgrid_aws.dynamodb_table import Table


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Ids of tasks that were cancelled by id, and of other tasks whose session was cancelled."""

    singly: frozenset[str] = frozenset()
    with_session: frozenset[str] = frozenset()

    def __contains__(self, task_id: str) -> bool:
        return task_id in self.singly or task_id in self.with_session


def as_cancelled(lease: Lease, cancelled: Cancelled) -> Lease:
    """The lease; it is invalid if its task was cancelled with its session."""
    if lease.task.id not in cancelled.with_session:
        return lease
    session = lease.task.attributes["session_id"]
    reason = f"task {lease.task.id} was cancelled with its session {session}"
    return replace(lease, invalid=reason, failure=FailureKind.CANCELLED)


class Cancels:
    """The marks in one table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, sessions: Iterable[str], task_ids: Iterable[str]) -> None:
        """Mark these as cancelled; a mark that exists is renewed."""
        keys = [*map(_session, sessions), *map(_task, task_ids)]
        items: list[Item] = [{KEY: {"S": key}, "expires": expires()} for key in dict.fromkeys(keys)]
        if left := self._table.write_batch(items):
            raise Unavailable(
                f"table {self._table.name} did not store {len(left)} cancel marks: throttled; cancel again"
            )

    def remove(self, task_ids: Collection[str]) -> None:
        """Remove the marks of these tasks, which will run again."""
        if left := self._table.remove_batch([_task(task_id) for task_id in task_ids]):
            raise Unavailable(f"table {self._table.name} did not remove {left} cancel marks: throttled; redrive again")

    def among(self, tasks: Sequence[Task]) -> Cancelled:
        """Which of these tasks were cancelled."""
        sessions = {task.id: task.attributes.get("session_id", "") for task in tasks}
        keys = [*map(_task, sessions), *(_session(session) for session in sessions.values() if session)]
        there = {item[KEY]["S"] for item in self._table.read(keys, only=KEY, consistent=True)}
        singly = {task_id for task_id in sessions if _task(task_id) in there}
        with_session = {task_id for task_id, session in sessions.items() if _session(session) in there}
        return Cancelled(frozenset(singly), frozenset(with_session - singly))


def _session(session_id: str) -> str:
    return f"cancel#session#{session_id}"


def _task(task_id: str) -> str:
    return f"cancel#task#{task_id}"
