"""HTC-Grid's state table: one row for each task, changed only by conditional writes.

A status is the state's name and the session's partition, md5(session id) modulo 32: `pending7`. The numbers distribute
the keys of the index that HTC-Grid's watchdog reads.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from htcgrid_aws.dynamodb_table import Item, Table

PARTITIONS = 32
NOBODY = "None"
"""The value of `task_owner` if a task has no owner."""

FINAL = ("finished", "failed", "cancelled")
STATES = ("pending", "processing", *FINAL)
MOST_RETRIES = 5
"""A task whose heartbeat expires once more has failed. HTC-Grid's watchdog compares for equality, so no row may exceed it."""

SESSION_INDEX = "gsi_session_index"
EXPIRY_INDEX = "gsi_ttl_index"
OWNED = "task_status = :processing AND task_owner = :owner"


@dataclass(frozen=True, slots=True)
class Row:
    """The attributes of a row that are used here. `expiry` is in Unix seconds."""

    state: str
    owner: str
    expiry: int
    retries: int
    metadata: str = ""
    returns: int = 0
    """How often an htcgrid agent returned the task: HTC-Grid does not count these attempts as retries."""
    handle: str = ""
    priority: int = 0

    @property
    def attempt(self) -> int:
        """The attempt that begins with the next claim."""
        return self.retries + self.returns + 1

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def is_last_attempt(self) -> bool:
        """Whether the task has failed if the heartbeat of this attempt expires."""
        return self.retries >= MOST_RETRIES


def session_of(task_id: str) -> str:
    """The part of a task's id before the first `_`."""
    return task_id.partition("_")[0]


def status(state: str, task_id: str) -> str:
    """The status that stands for this state in this task's row."""
    # HTC-Grid has chosen this hash; nothing here is secret.
    digest = hashlib.md5(session_of(task_id).encode(), usedforsecurity=False).hexdigest()
    return f"{state}{int(digest, 16) % PARTITIONS}"


class StateTable:
    """Claims, heartbeats and ends, for one owner."""

    def __init__(self, table: Table, owner: str) -> None:
        self._table = table
        self._owner = owner

    def claim(self, task_id: str, handle: str, seconds: float) -> tuple[bool, Row | None]:
        """Claim a task that is pending, or whose heartbeat has expired. Returns whether it did, and the row as it is now.

        An expired one gets one more retry, as from HTC-Grid's watchdog each minute; or it has failed, if its heartbeat has
        expired too often. A row that this lease has claimed before is claimed again: DynamoDB's answer was lost, or
        the task could not be returned.
        """
        change = (
            "SET task_owner = :owner, task_status = :processing, "
            "heartbeat_expiration_timestamp = :expiry, sqs_handler_id = :handle"
        )
        values = {**self._values(task_id), ":handle": {"S": handle}, ":expiry": _expiry(seconds)}
        pending = {":pending": {"S": status("pending", task_id)}, ":nobody": {"S": NOBODY}}
        condition = f"(task_status = :pending AND task_owner = :nobody) OR ({OWNED} AND sqs_handler_id = :handle)"
        held, item = self._table.update(task_id, change, condition, {**values, **pending})
        row = _row(item, task_id)
        if held or row is None or row.state != "processing" or row.expiry >= time.time():
            return held, row
        if row.is_last_attempt:
            return False, replace(row, state="failed") if self.expire(task_id, row) else row
        expired = {":old": {"S": row.owner}, ":then": {"N": str(row.expiry)}, ":more": {"N": str(row.retries + 1)}}
        condition = "task_status = :processing AND task_owner = :old AND heartbeat_expiration_timestamp = :then"
        held, item = self._table.update(task_id, f"{change}, retries = :more", condition, {**values, **expired})
        return held, _row(item, task_id)

    def heartbeat(self, task_id: str, handle: str, seconds: float) -> tuple[bool, Row | None]:
        """Set the expiry to `seconds` from now, if this lease of the task is still ours."""
        values = {**self._values(task_id), ":handle": {"S": handle}, ":expiry": _expiry(seconds)}
        change = "SET heartbeat_expiration_timestamp = :expiry"
        held, item = self._table.update(task_id, change, f"{OWNED} AND sqs_handler_id = :handle", values)
        return held, _row(item, task_id)

    def return_to_pending(self, task_id: str, handle: str, *, attempts: int = 1) -> bool:
        """Make the task pending with this many more attempts, if this lease is still ours; returns whether it is pending.

        htcgrid's own attribute counts them: `retries` counts expired heartbeats, and HTC-Grid fails a task with too many.
        """
        values = {
            **self._values(task_id),
            ":handle": {"S": handle},
            ":pending": {"S": status("pending", task_id)},
            ":nobody": {"S": NOBODY},
            ":more": {"N": str(attempts)},
        }
        change = "SET task_owner = :nobody, task_status = :pending ADD htcgrid_returns :more"
        held, item = self._table.update(task_id, change, f"{OWNED} AND sqs_handler_id = :handle", values)
        row = _row(item, task_id)
        return held or (row is not None and row.state == "pending")

    def end(self, task_id: str, state: str, metadata: str) -> tuple[bool, Row | None]:
        """Make the task finished or failed if it is ours; `metadata` is written to htcgrid's own attribute, `htcgrid`."""
        values = {
            **self._values(task_id),
            ":state": {"S": status(state, task_id)},
            ":now": {"N": str(round(time.time() * 1000))},
            ":metadata": {"S": metadata},
        }
        change = "SET task_status = :state, task_completion_timestamp = :now, htcgrid = :metadata"
        if state == "failed":  # as HTC-Grid's watchdog leaves it
            change += ", task_owner = :nobody"
            values[":nobody"] = {"S": NOBODY}
        held, item = self._table.update(task_id, change, OWNED, values)
        return held, _row(item, task_id)

    def add(self, task_id: str, priority: int) -> bool:
        """Write a new row as HTC-Grid's submit function does, unless there is one; returns whether it was written."""
        return self._table.write_new(_item(new_row(task_id, priority)))

    def cancel(self, task_id: str) -> bool:
        """Cancel the task unless it is over; returns whether it is cancelled now."""
        values = {
            ":cancelled": {"S": status("cancelled", task_id)},
            ":pending": {"S": status("pending", task_id)},
            ":processing": {"S": status("processing", task_id)},
            ":nobody": {"S": NOBODY},
        }
        change = "SET task_status = :cancelled, task_owner = :nobody"
        held, item = self._table.update(task_id, change, "task_status IN (:pending, :processing)", values)
        row = _row(item, task_id)
        return held or (row is not None and row.state == "cancelled")

    def expire(self, task_id: str, row: Row) -> bool:
        """Make a task whose heartbeat has expired pending or failed, if its row has not changed; returns whether it did."""
        failed = row.is_last_attempt
        values = {
            ":state": {"S": status("failed" if failed else "pending", task_id)},
            ":nobody": {"S": NOBODY},
            ":more": {"N": "0" if failed else "1"},
            ":processing": {"S": status("processing", task_id)},
            ":old": {"S": row.owner},
            ":then": {"N": str(row.expiry)},
        }
        change = "SET task_owner = :nobody, task_status = :state, retries = retries + :more"
        condition = "task_status = :processing AND task_owner = :old AND heartbeat_expiration_timestamp = :then"
        return self._table.update(task_id, change, condition, values)[0]

    def expired_in(self, partition: int) -> list[str]:
        """Ids of tasks of a partition whose heartbeat has expired."""
        values = {":status": {"S": f"processing{partition}"}, ":now": {"N": str(math.floor(time.time()))}}
        condition = "task_status = :status AND heartbeat_expiration_timestamp < :now"
        return [item["task_id"]["S"] for item in self._table.query(EXPIRY_INDEX, condition, values)]

    def of_session(self, session_id: str) -> dict[str, str]:
        """The state of each task of a session; it may be a moment late, as all indexes are."""
        number = status("", session_id)
        items = self._table.query(SESSION_INDEX, "session_id = :session", {":session": {"S": session_id}})
        return {item["task_id"]["S"]: item["task_status"]["S"].removesuffix(number) for item in items}

    def is_pending(self, session_id: str) -> bool:
        """Whether a task of the session is pending or being processed."""
        for state in ("pending", "processing"):
            values = {":session": {"S": session_id}, ":status": {"S": status(state, session_id)}}
            found = self._table.query(SESSION_INDEX, "session_id = :session AND task_status = :status", values, limit=1)
            if any(True for _ in found):
                return True
        return False

    def rows(self, task_ids: Sequence[str]) -> Mapping[str, Row]:
        """The rows of these tasks, as far as they have one."""
        found = self._table.read(task_ids, consistent=True)
        rows = {item["task_id"]["S"]: _row(item, item["task_id"]["S"]) for item in found}
        return {task_id: row for task_id, row in rows.items() if row}

    def _values(self, task_id: str) -> dict[str, dict[str, str]]:
        return {":owner": {"S": self._owner}, ":processing": {"S": status("processing", task_id)}}


def _expiry(seconds: float) -> dict[str, str]:
    return {"N": str(math.ceil(time.time() + seconds))}


def _row(item: Item | None, task_id: str) -> Row | None:
    if not item:
        return None
    number = status("", task_id)
    return Row(
        item.get("task_status", {}).get("S", "").removesuffix(number),
        item.get("task_owner", {}).get("S", NOBODY),
        int(float(item.get("heartbeat_expiration_timestamp", {}).get("N", "0"))),
        int(float(item.get("retries", {}).get("N", "0"))),
        item.get("htcgrid", {}).get("S", ""),
        int(float(item.get("htcgrid_returns", {}).get("N", "0"))),
        item.get("sqs_handler_id", {}).get("S", ""),
        int(float(item.get("task_priority", {}).get("N", "0"))),
    )


def new_row(task_id: str, priority: int) -> dict[str, str | int]:
    """The row of a task that is submitted now; its message has the same content."""
    session = session_of(task_id)
    return {
        "session_id": session,
        "task_id": task_id,
        "parent_session_id": session,
        "submission_timestamp": round(time.time() * 1000),
        "task_completion_timestamp": 0,
        "task_status": status("pending", task_id),
        "task_owner": NOBODY,
        "retries": 0,
        "task_definition": "none",
        "sqs_handler_id": NOBODY,
        "heartbeat_expiration_timestamp": 0,
        "task_priority": priority,
    }


def _item(row: Mapping[str, str | int]) -> Item:
    return {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in row.items()}
