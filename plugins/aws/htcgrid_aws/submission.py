"""Putting tasks into SQS queues: checked first, then sent ten a request, side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from htcgrid.spi import Rejected, Unavailable
from htcgrid_aws import messages
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.queue import Unsent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from htcgrid.spi import Task
    from htcgrid_aws.bucket import Bucket
    from htcgrid_aws.queue import Message, Queue
    from htcgrid_aws.task_index import TaskIndex


@dataclass(frozen=True, slots=True)
class Planned:
    """A task with the number of its queue and its message; `key` is set where its input goes to S3."""

    task: Task
    queue: int
    message: Message
    key: str = ""


class Submission:
    """Remembers what a `put` that failed half-way has sent, so that putting again sends the rest only."""

    def __init__(self, queues: Sequence[Queue], bucket: Bucket | None, pool: Executor, index: TaskIndex | None) -> None:
        self._queues = queues
        self._bucket = bucket
        self._pool = pool
        self._index = index
        self._lock = Lock()
        self._sent: set[str] = set()

    def put(self, tasks: Sequence[Task]) -> None:
        """Nothing is sent where any task is `Rejected`, for what it is or, with an index, for being there with other content."""
        twice = [task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1]
        if twice:
            raise Rejected(f"task ids twice in one put: {', '.join(twice[:5])}; each task needs its own", twice)
        planned = [self._plan(task) for task in tasks if task.id not in self._sent]
        if self._index and tasks:
            put = self._index.begin([task.id for task in tasks])
            there = self._index.enter(put, [plan.task for plan in planned])
            self._send_all([plan for plan in planned if plan.task.id not in there])
            self._index.settle(put)
        else:
            self._send_all(planned)
        with self._lock:
            self._sent.difference_update(task.id for task in tasks)

    def _send_all(self, planned: Sequence[Planned]) -> None:
        large = [plan for plan in planned if plan.key]
        raise_worst(answer for _, answer in each(self._pool, self._store_input, large))
        outcomes = each(self._pool, self._send, self._batches(planned))
        with self._lock:
            self._sent.update(plan.task.id for batch, answer in outcomes if answer is None for plan in batch)
        raise_worst(answer for _, answer in outcomes)

    def _plan(self, task: Task) -> Planned:
        number = self._queue_of(task)
        limit = self._queues[number].max_message
        message = messages.write(task)
        if message.size <= limit:
            return Planned(task, number, message)
        if self._bucket is None:
            text = (
                f"task {task.id}: {message.size} bytes with attributes, and queue {self._queues[number].name} takes "
                f"{limit}; set bucket to an S3 bucket for large inputs"
            )
            raise Rejected(text, [task.id])
        key = self._bucket.key(f"{task.id}-input", task.id)
        return Planned(task, number, messages.write(task, self._bucket.address(key)), key)

    def _queue_of(self, task: Task) -> int:
        if len(self._queues) == 1:
            return 0
        priority = task.attributes.get("priority", "0")
        if not (priority.isascii() and priority.isdecimal()) or int(priority) >= len(self._queues):
            known = f"0 to {len(self._queues) - 1}, one for each of {', '.join(queue.name for queue in self._queues)}"
            raise Rejected(f"task {task.id}: priority {priority!r} has no queue; it may be {known}", [task.id])
        return int(priority)

    def _store_input(self, plan: Planned) -> None:
        if self._bucket is not None:
            self._bucket.put(plan.key, plan.task.payload)

    def _batches(self, planned: Sequence[Planned]) -> list[list[Planned]]:
        """Cut to what one request may hold, each batch for one queue."""
        batches: list[list[Planned]] = []
        for number, queue in enumerate(self._queues):
            mine = iter([plan for plan in planned if plan.queue == number])
            sizes = queue.batches(plan.message for plan in planned if plan.queue == number)
            batches.extend([next(mine) for _ in batch] for batch in sizes)
        return batches

    def _send(self, batch: list[Planned]) -> None:
        queue = self._queues[batch[0].queue]
        try:
            queue.send([plan.message for plan in batch])
        except Unsent as error:
            with self._lock:
                self._sent.update(plan.task.id for n, plan in enumerate(batch) if n not in error.numbers)
            if error.for_good:
                raise Rejected(str(error), [batch[n].task.id for n in error.numbers]) from error
            raise Unavailable(f"{len(error.numbers)} of {len(batch)} tasks were not taken: {error}") from error
