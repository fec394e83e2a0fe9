"""Puts tasks into SQS queues: they are checked, then sent ten in each request, with several requests at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from htcgrid.spi import Rejected, Unavailable, generation_of
from htcgrid_aws import messages
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.sqs_queue import Unsent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from htcgrid.spi import Task
    from htcgrid_aws.s3_bucket import Bucket
    from htcgrid_aws.sqs_queue import Message, Queue
    from htcgrid_aws.task_index import TaskIndex


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task with its message and the number of its queue; `key` is set if its input goes to S3."""

    task: Task
    queue: int
    message: Message
    key: str = ""


class Submission:
    """Remembers what a `put` has sent before it failed, so that the repeated `put` sends only the rest."""

    def __init__(self, queues: Sequence[Queue], bucket: Bucket | None, pool: Executor, index: TaskIndex | None) -> None:
        self._queues = queues
        self._bucket = bucket
        self._pool = pool
        self._index = index
        self._lock = Lock()
        self._sent: set[tuple[str, int]] = set()

    def put(self, tasks: Sequence[Task]) -> None:
        """As `send`, and all these tasks are sent again if they are put again."""
        self.send(tasks)
        self.forget(tasks)

    def send(self, tasks: Sequence[Task]) -> None:
        """Nothing is sent if any task is `Rejected`: if it does not fit, or, with an index, if its id is there with other content.

        What is sent is not sent again until `forget`.
        """
        twice = [task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1]
        if twice:
            raise Rejected(f"task ids twice in one put: {', '.join(twice[:5])}; each task needs its own", twice)
        prepared = [self._prepare(task) for task in tasks if _run(task) not in self._sent]
        if self._index and tasks:
            put = self._index.begin(tasks)
            there = self._index.enter(put, [ready.task for ready in prepared])
            self._send_all([ready for ready in prepared if ready.task.id not in there])
            self._index.settle(put)
        else:
            self._send_all(prepared)

    def forget(self, tasks: Sequence[Task]) -> None:
        """The call that these were sent for is done, and will not be repeated."""
        with self._lock:
            self._sent.difference_update(map(_run, tasks))

    def _send_all(self, prepared: Sequence[PreparedTask]) -> None:
        large = [ready for ready in prepared if ready.key]
        raise_worst(answer for _, answer in each(self._pool, self._store_input, large))
        outcomes = each(self._pool, self._send, self._batches(prepared))
        with self._lock:
            self._sent.update(_run(ready.task) for batch, answer in outcomes if answer is None for ready in batch)
        raise_worst(answer for _, answer in outcomes)

    def _prepare(self, task: Task) -> PreparedTask:
        number = self._queue_of(task)
        limit = self._queues[number].max_message
        message = messages.write(task)
        if message.size <= limit:
            return PreparedTask(task, number, message)
        if self._bucket is None:
            text = (
                f"task {task.id}: {message.size} bytes with attributes, but queue {self._queues[number].name} accepts "
                f"at most {limit}; set bucket to an S3 bucket for large inputs"
            )
            raise Rejected(text, [task.id])
        key = self._bucket.key(f"{task.id}-input", task.id)
        return PreparedTask(task, number, messages.write(task, self._bucket.address(key)), key)

    def _queue_of(self, task: Task) -> int:
        if len(self._queues) == 1:
            return 0
        priority = task.attributes.get("priority", "0")
        if not (priority.isascii() and priority.isdecimal()) or int(priority) >= len(self._queues):
            known = f"0 to {len(self._queues) - 1}, one for each of {', '.join(queue.name for queue in self._queues)}"
            raise Rejected(f"task {task.id}: priority {priority!r} has no queue; it may be {known}", [task.id])
        return int(priority)

    def _store_input(self, ready: PreparedTask) -> None:
        if self._bucket is not None:
            self._bucket.put(ready.key, ready.task.payload)

    def _batches(self, prepared: Sequence[PreparedTask]) -> list[list[PreparedTask]]:
        """Batches that fit into one request, each for one queue."""
        batches: list[list[PreparedTask]] = []
        for number, queue in enumerate(self._queues):
            mine = iter([ready for ready in prepared if ready.queue == number])
            sizes = queue.batches(ready.message for ready in prepared if ready.queue == number)
            batches.extend([next(mine) for _ in batch] for batch in sizes)
        return batches

    def _send(self, batch: list[PreparedTask]) -> None:
        queue = self._queues[batch[0].queue]
        try:
            queue.send([ready.message for ready in batch])
        except Unsent as error:
            with self._lock:
                self._sent.update(_run(ready.task) for n, ready in enumerate(batch) if n not in error.numbers)
            if error.for_good:
                raise Rejected(str(error), [batch[n].task.id for n in error.numbers]) from error
            raise Unavailable(f"{len(error.numbers)} of {len(batch)} tasks were not sent: {error}") from error


def _run(task: Task) -> tuple[str, int]:
    """Names one run of a task: a redriven task is sent, even if its first run was sent by a put that failed."""
    return task.id, generation_of(task)
