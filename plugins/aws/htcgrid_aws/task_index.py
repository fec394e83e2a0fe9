"""Rows in a DynamoDB table, one for each task in the queue: SQS knows no ids and cannot say which tasks wait.

A row's key starts with `task#`. It names the put that wrote it. A put has an item, `put#...`, from before its first row until its
last message is sent. While that item exists, the put is open: its submitter is working or has died, it is not known which
messages were sent, so its rows refuse no id. Each task takes two writes, when it is put and when it is over; with a
state in each row it would take three, and a transaction counts each write twice.

Rows and puts have the attribute `expires`, as cancel marks do.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from htcgrid.spi import Rejected, Task, Unavailable
from htcgrid_aws.dynamodb_table import KEY, LARGEST_KEY, Item, expires
from htcgrid_aws.parallel import each, raise_worst

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from concurrent.futures import Executor

    from htcgrid_aws.cancel_marks import Cancelled
    from htcgrid_aws.dynamodb_table import Table

LONGEST_ID = LARGEST_KEY - len("cancel#task#")
"""In bytes. The task's cancel mark has the longest key."""

_TASK = "task#"
_PUT = "put#"


@dataclass(frozen=True, slots=True)
class Put:
    """An open put. Its name is a hash of its tasks' ids; its mark is new for each put; `resumed`: an earlier try left it open."""

    name: str
    mark: str
    resumed: bool = False

    @property
    def reference(self) -> str:
        """The value that its rows have as `put_id`."""
        return f"{self.name} {self.mark}"


class TaskIndex:
    """The rows in one table. If two submitters put one id at the same moment, both may be accepted."""

    def __init__(self, table: Table, pool: Executor, cancelled: Callable[[Sequence[Task]], Cancelled]) -> None:
        self._table = table
        self._pool = pool
        self._cancelled = cancelled

    def begin(self, tasks: Sequence[Task]) -> Put:
        """Open the put of these tasks, or continue the one that an earlier try has left open. `Rejected` names what no row can hold."""
        task_ids = [task.id for task in tasks]
        long = [task_id for task_id in task_ids if len(task_id.encode()) > LONGEST_ID]
        if long:
            message = (
                f"task {long[0][:80]!r}...: with task_table an id may have at most {LONGEST_ID} bytes; use shorter ids"
            )
            raise Rejected(message, long)
        if other := [task for task in tasks if not _is_unicode(task.attributes.get("session_id", ""))]:
            message = (
                f"task {other[0].id}: DynamoDB stores Unicode only, and its session_id has other text: "
                f"{other[0].attributes['session_id']!r}; give it another session"
            )
            raise Rejected(message, [task.id for task in other])
        put = Put(hashlib.sha256("\0".join(sorted(task_ids)).encode()).hexdigest(), uuid.uuid4().hex)
        item: Item = {KEY: {"S": _PUT + put.name}, "put_mark": {"S": put.mark}, "expires": expires()}
        if self._table.write_new(item):
            return put
        for left in self._table.read([_PUT + put.name], consistent=True):
            return Put(put.name, left["put_mark"]["S"], resumed=True)
        raise Unavailable(f"table {self._table.name}: another submitter was putting the same tasks; put them again")

    def enter(self, put: Put, tasks: Sequence[Task]) -> Collection[str]:
        """Write the rows of these tasks, all or none; returns those that are in the queue already, with this content.

        `Rejected` names those that are there with other content, or were cancelled. After `Unavailable`, the same call writes
        what is missing, also in a new process. A task that ends between the write and the read was not refused for its content,
        so it is put again.
        """
        there = self._of(put, tasks) if put.resumed else set()
        rows = {task.id: _row(task, put) for task in tasks if task.id not in there}
        answers = each(self._pool, lambda task_id: self._table.write_new(rows[task_id]), list(rows))
        refusing = [_key(task_id) for task_id, answer in answers if answer is False]
        met = list(self._table.read(refusing, consistent=True))
        left_open = self._left_open(met)
        same = {_id(row) for row in met if row.get("content") == rows[_id(row)]["content"]} - left_open.keys()
        cancelled = self._cancelled([task for task in tasks if task.id in same])
        same = {task_id for task_id in same if task_id not in cancelled}
        met_ids = {_id(row) for row in met}
        refused = [task_id for task_id in rows if task_id in met_ids - same - left_open.keys()]
        if refused:
            self._remove([_key(task_id) for task_id in self._of(put, tasks)])
            self.settle(put)
            more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
            message = (
                f"table {self._table.name}: these tasks are already in the queue, with other content or cancelled: "
                f"{', '.join(refused[:5])}{more}. Nothing was put; put the others without them, or choose other ids"
            )
            raise Rejected(message, refused)
        taken = each(self._pool, lambda task_id: self._take_over(rows[task_id], left_open[task_id]), list(left_open))
        raise_worst(answer for _, answer in answers + taken)
        if ended := [task_id for task_id, answer in answers if answer is False and task_id not in met_ids]:
            message = f"table {self._table.name}: {len(ended)} of these tasks ended while they were put; put them again"
            raise Unavailable(message)
        return same

    def settle(self, put: Put) -> None:
        """End the put: all its messages are sent, or none will be. From now on its rows refuse their ids."""
        self._remove([_PUT + put.name])

    def remove(self, task_ids: Iterable[str]) -> None:
        """Remove the rows of these tasks, which are over."""
        self._remove([_key(task_id) for task_id in dict.fromkeys(task_ids)])

    def named(self, task_ids: Collection[str]) -> list[Task]:
        """Those of these tasks that are in the queue, without payload."""
        return [_task(row) for row in self._table.read(list(map(_key, task_ids)), consistent=True)]

    def of_session(self, session_id: str) -> list[Task]:
        """The tasks of a session that are in the queue, without payload. It reads the whole table."""
        values = {":task": {"S": _TASK}, ":session": {"S": session_id}}
        rows = self._table.scan(f"begins_with({KEY}, :task) AND session_id = :session", values)
        return [_task(row) for row in rows]

    # --- Inside -------------------------------------------------------------------------------------

    def _of(self, put: Put, tasks: Sequence[Task]) -> set[str]:
        """The ids of those of these tasks whose row this put has written."""
        rows = self._table.read([_key(task.id) for task in tasks], consistent=True)
        return {_id(row) for row in rows if row["put_id"]["S"] == put.reference}

    def _left_open(self, rows: Sequence[Item]) -> dict[str, str]:
        """The tasks whose row another open put has written, with that put's reference."""
        holders = {_id(row): row["put_id"]["S"] for row in rows}
        names = {_PUT + reference.partition(" ")[0] for reference in holders.values()}
        items = self._table.read(list(names), consistent=True)
        still = {f"{item[KEY]['S'].removeprefix(_PUT)} {item['put_mark']['S']}" for item in items}
        return {task_id: reference for task_id, reference in holders.items() if reference in still}

    def _take_over(self, row: Item, reference: str) -> None:
        if not self._table.write_where(row, "put_id = :left", {":left": {"S": reference}}):
            raise Unavailable(f"task {_id(row)}: another submitter is just putting it; put it again", retry_after=1)

    def _remove(self, keys: Sequence[str]) -> None:
        if left := self._table.remove_batch(keys):
            raise Unavailable(f"table {self._table.name} did not remove {left} rows: throttled")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(task: Task, put: Put) -> Item:
    content = hashlib.sha256(json.dumps(sorted(task.attributes.items())).encode() + b"\0" + task.payload).hexdigest()
    row: Item = {
        KEY: {"S": _key(task.id)},
        "put_id": {"S": put.reference},
        "content": {"S": content},
        "expires": expires(),
    }
    if session := task.attributes.get("session_id"):
        row["session_id"] = {"S": session}
    return row


def _task(row: Item) -> Task:
    return Task(_id(row), b"", {"session_id": row["session_id"]["S"]} if "session_id" in row else {})


def _key(task_id: str) -> str:
    return _TASK + task_id


def _id(row: Item) -> str:
    return str(row[KEY]["S"]).removeprefix(_TASK)
