"""Puts tasks into HTC-Grid's queues as its client and its submit function do: first the input, then the row, then the message."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from htcgrid.spi import HtcgridError, Rejected, Unavailable
from htcgrid_aws.htc_data import decoded, encoded
from htcgrid_aws.htc_states import new_row, session_of
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.sqs_queue import Message, Unsent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from htcgrid.spi import Task
    from htcgrid_aws.htc_data import DataPlane
    from htcgrid_aws.htc_states import Row, StateTable
    from htcgrid_aws.sqs_queue import Queue

_ATTRIBUTES = frozenset(("session_id", "priority"))
# The keys of a message's `stats` that HTC-Grid's own agent writes or reads.
_STAGES = (
    "stage1_grid_api_01_task_creation_tstmp",
    "stage1_grid_api_02_task_submission_tstmp",
    "stage2_sbmtlmba_01_invocation_tstmp",
    "stage2_sbmtlmba_02_before_batch_write_tstmp",
    "stage3_agent_01_task_acquired_sqs_tstmp",
    "stage3_agent_02_task_acquired_ddb_tstmp",
    "stage4_agent_01_user_code_finished_tstmp",
    "stage4_agent_02_S3_stdout_delivered_tstmp",
)


@dataclass(frozen=True, slots=True)
class NewTask:
    task: Task
    priority: int


class HtcSubmission:
    """Nothing is written if any task is `Rejected`. After `Unavailable`, put the same tasks again.

    A row does not say whether its message was sent. So a task that is put again while it is pending gets another message.
    Only one message can claim the row and run the task; the other is deleted.
    """

    def __init__(self, queues: Sequence[Queue], states: StateTable, data: DataPlane, pool: Executor) -> None:
        self._queues = queues
        self._states = states
        self._data = data
        self._pool = pool

    def put(self, tasks: Sequence[Task]) -> None:
        twice = [task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1]
        if twice:
            raise Rejected(f"task ids twice in one put: {', '.join(twice[:5])}; each task needs its own", twice)
        checked = [NewTask(task, self._priority(task)) for task in tasks]
        rows = self._states.rows([task.id for task in tasks])
        self._refuse_others(checked, rows)
        new = [one for one in checked if one.task.id not in rows]
        inputs = each(self._pool, lambda one: self._data.put(f"{one.task.id}-input", encoded(one.task.payload)), new)
        raise_worst(answer for _, answer in inputs)
        written = each(self._pool, lambda one: self._states.add(one.task.id, one.priority), new)
        raise_worst(answer for _, answer in written)
        if any(answer is False for _, answer in written):
            raise Unavailable("some of these tasks were just put by another submitter; put them again", retry_after=1)
        waiting = [one for one in checked if one.task.id not in rows or rows[one.task.id].state == "pending"]
        self._send(waiting)

    def _priority(self, task: Task) -> int:
        session = session_of(task.id)
        if not session:
            message = f"task {task.id!r}: HTC-Grid reads the session from an id, before the first underscore; this one is empty"
            raise Rejected(message, [task.id])
        if task.attributes.get("session_id", session) != session:
            message = (
                f"task {task.id}: its session is {task.attributes['session_id']!r}, but HTC-Grid reads the session from the "
                f"id, before the first underscore: {session!r}; use a session without underscores"
            )
            raise Rejected(message, [task.id])
        if other := task.attributes.keys() - _ATTRIBUTES:
            message = f"task {task.id}: attributes {', '.join(sorted(other))}: HTC-Grid's tasks have only session_id and priority"
            raise Rejected(message, [task.id])
        text = task.attributes.get("priority", "0")
        if not (text.isascii() and text.isdecimal()) or int(text) >= len(self._queues):
            message = f"task {task.id}: priority {text!r}: this grid has the priorities 0 to {len(self._queues) - 1}"
            raise Rejected(message, [task.id])
        return int(text)

    def _refuse_others(self, tasks: Sequence[NewTask], rows: Mapping[str, Row]) -> None:
        """Raises `Rejected` with the tasks that exist with another event or priority, or were cancelled."""

        def is_same(one: NewTask) -> bool:
            row = rows[one.task.id]
            if row.state == "cancelled" or row.priority != one.priority:
                return False
            body = self._data.get(f"{one.task.id}-input")
            with suppress(ValueError):  # not base64, so it is another event
                return body is not None and decoded(body) == one.task.payload
            return False

        found = each(self._pool, is_same, [one for one in tasks if one.task.id in rows])
        raise_worst(answer for _, answer in found)
        other = [one.task.id for one, answer in found if not isinstance(answer, HtcgridError) and not answer]
        if other:
            message = (
                f"these tasks are already in HTC-Grid's state table, with another event or priority or cancelled: "
                f"{', '.join(other[:5])}. Nothing was put; choose other ids"
            )
            raise Rejected(message, other)

    def _send(self, tasks: Sequence[NewTask]) -> None:
        for number, queue in enumerate(self._queues):
            batches = list(queue.batches(_message(one) for one in tasks if one.priority == number))
            send = partial(_sent, queue)
            raise_worst(answer for _, answer in each(self._pool, send, batches))


def _sent(queue: Queue, batch: list[Message]) -> None:
    try:
        queue.send(batch)
    except Unsent as error:
        raise Unavailable(f"{len(error.numbers)} of {len(batch)} messages were not sent: {error}") from error


def _message(one: NewTask) -> Message:
    now = round(time.time() * 1000)
    stats = {
        stage: {"label": stage, "tstmp": now if stage.startswith(("stage1", "stage2")) else 0} for stage in _STAGES
    }
    return Message(json.dumps({**new_row(one.task.id, one.priority), "stats": stats}))
