"""The `sqs` source: tasks from an SQS queue, or from several by priority."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from htcgrid.spi import (
    DeadTask,
    Function,
    HtcgridError,
    Lease,
    QueueStats,
    Rejected,
    States,
    Task,
    TaskSource,
    Unavailable,
)
from htcgrid_aws import arns, iam, messages
from htcgrid_aws.aws_plugin import AwsPlugin
from htcgrid_aws.cancel_marks import Cancelled, Cancels, as_cancelled
from htcgrid_aws.dead_letters import DeadLetters, dead_letter
from htcgrid_aws.dynamodb_table import Table
from htcgrid_aws.encryption import EncryptedConfig
from htcgrid_aws.held_messages import HeldMessages, ReceivedMessage, find
from htcgrid_aws.message_inputs import read_all, read_whole
from htcgrid_aws.message_leases import MessageLease, MessageLeases, receipt_of
from htcgrid_aws.parallel import raise_worst
from htcgrid_aws.polling import Poller
from htcgrid_aws.queue_advice import queue_advice
from htcgrid_aws.s3_bucket import Bucket
from htcgrid_aws.sqs_queue import (
    BATCH,
    LONGEST_LEASE,
    MOST_IN_FLIGHT,
    SIDE_BY_SIDE,
    Queue,
    Unsent,
    total,
)
from htcgrid_aws.submission import Submission
from htcgrid_aws.task_index import TaskIndex

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

log = logging.getLogger("htcgrid.aws.sqs")

UNTOLD = (
    "estimates; SQS knows no sessions or agents. For the age of the oldest task and for rates, see the queue's metrics "
    "ApproximateAgeOfOldestMessage and NumberOfMessagesDeleted in CloudWatch"
)

SMALL = 65_536
"""Bytes of an event: if events are not larger on average, more than one receive is made at a time."""


class SqsSource(AwsPlugin, TaskSource):
    """A lease is a message's visibility timeout; its attempt is SQS's ApproximateReceiveCount."""

    class Config(EncryptedConfig):
        """Keys of `[source]` with `plugin = "sqs"`."""

        queue: str = Field("", description="name, URL or ARN of the queue", examples=["tasks"])
        queues: tuple[str, ...] = Field(
            (), description="in place of `queue`: one queue for each priority, the lowest (0) first"
        )
        visibility_timeout: int | None = Field(
            None,
            ge=1,
            le=LONGEST_LEASE,
            description="seconds that a lease lasts; if not given, the queue's own visibility timeout",
        )
        dead_letter_queue: str = Field(
            "",
            description="the queue for tasks that failed for good; if empty, the target of the queue's redrive policy",
        )
        bucket: str = Field("", description="S3 bucket for inputs larger than a message may be")
        prefix: str = Field("inputs/", description="start of the keys of those inputs")
        cancel_table: str = Field("", description="DynamoDB table keyed by task_id, which `cancel` needs")
        task_table: str = Field(
            "",
            description="DynamoDB table keyed by task_id with a row for each task, at two writes each: an id that is there "
            "already is refused, and tasks can be cancelled by id; it also holds cancel marks if cancel_table is empty",
        )

        @model_validator(mode="after")
        def _one_way_to_name_queues(self) -> Self:
            if bool(self.queue) == bool(self.queues):
                raise ValueError('write either queue = "tasks" or queues = ["low", "high"]')
            return self

    config: Config
    max_batch = SIDE_BY_SIDE * BATCH
    most_leased = MOST_IN_FLIGHT
    redrives = True

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.lease_seconds: float = config.visibility_timeout or 30
        self._queues: list[Queue] = []
        self._dead: dict[int, Queue] = {}
        self._bucket: Bucket | None = None
        self._cancels: Cancels | None = None
        self._index: TaskIndex | None = None
        self._poller = Poller(())
        self._held = HeldMessages((), self.lease_seconds)
        self._leases = MessageLeases()
        self._are_small = False
        """Whether the last events were small. Otherwise messages are received ten at a time, so that the agent learns their size."""

    def open(self) -> None:
        super().open()
        sqs = self.client("sqs")
        self._queues = [Queue(sqs, name, self.pool) for name in self.config.queues or (self.config.queue,)]
        for number, queue in enumerate(self._queues):
            queue.open()
            if name := self.config.dead_letter_queue or queue.dead_letter_arn:
                self._dead[number] = Queue(sqs, name)
                self._dead[number].open()
        self.lease_seconds = self.config.visibility_timeout or min(queue.visibility_timeout for queue in self._queues)
        if not self.lease_seconds:
            message = f"queue {self._queues[0].name} has a visibility timeout of 0; set visibility_timeout here, for example to 30"
            raise Rejected(message)
        self._poller = Poller(self._queues, self.pool)
        self._held = HeldMessages(self._queues, self.lease_seconds)
        if self.config.bucket:
            self._bucket = Bucket(self.client("s3"), self.config.bucket, self.config.prefix, self.config.encrypted())
            self._bucket.check()
        tables = {name: self._table(name) for name in {self._cancel_table, self.config.task_table} if name}
        if self._cancel_table:
            self._cancels = Cancels(tables[self._cancel_table])
        if self.config.task_table:
            self._index = TaskIndex(tables[self.config.task_table], self.pool, self._cancelled)
        self._submission = Submission(self._queues, self._bucket, self.pool, self._index)

    # --- TaskSource ---------------------------------------------------------------------------------

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        """Messages that could not be read or checked for cancels are held; the next call tries them before new ones."""
        if max_tasks < 1:
            return ()
        count = min(max_tasks, self.max_batch if self._are_small else BATCH)
        if waiting := self._held.take(count):
            leases = self._lease(waiting)
            if leases or self._held:
                return leases
        return self._lease(find(self._poller, count, wait, int(self.lease_seconds)))

    def close(self) -> None:
        self._held.release()
        super().close()

    def _lease(self, found: Sequence[ReceivedMessage]) -> Sequence[Lease]:
        try:
            return self._checked(found)
        except HtcgridError:
            self._held.hold(found)
            raise

    def _checked(self, found: Sequence[ReceivedMessage]) -> Sequence[Lease]:
        """The leases of these messages; raises if none can be leased. Else, messages that cannot be read now are held."""
        leases: list[Lease] = []
        message_leases: list[MessageLease] = []
        failed: list[ReceivedMessage] = []
        errors: list[HtcgridError] = []
        for one, answer in read_all(found, self._bucket, self.pool):
            if isinstance(answer, HtcgridError):
                log.warning("message %s is held to be tried again: %s", one.lease.task_id, answer)
                failed.append(one)
                errors.append(answer)
                continue
            foreign = messages.ATTRIBUTE not in one.message.get("MessageAttributes", {})
            task = self._with_priority(answer.task, one.lease.queue, foreign=foreign)
            message_lease = replace(one.lease, task_id=task.id, reference=answer.reference)
            attempt = int(one.message["Attributes"]["ApproximateReceiveCount"])
            leases.append(Lease(task, attempt, message_lease.receipt, answer.invalid))
            message_leases.append(message_lease)
        if not leases:
            raise_worst(errors)
        cancelled = self._cancelled([lease.task for lease in leases])
        self._delete([lease for lease in leases if lease.task.id in cancelled.singly])
        self._held.hold(failed)
        self._are_small = sum(len(lease.task.payload) for lease in leases) <= SMALL * len(leases)
        self._leases.add(
            message_lease for message_lease in message_leases if message_lease.task_id not in cancelled.singly
        )
        return [as_cancelled(lease, cancelled) for lease in leases if lease.task.id not in cancelled.singly]

    def ack(self, leases: Sequence[Lease]) -> None:
        # Rows are removed first: if the agent dies in between, the task runs again. In the other order, its row would remain
        # and refuse its id.
        if self._index:
            self._index.remove([lease.task.id for lease in leases])
        self._delete(leases)

    def _delete(self, leases: Sequence[Lease]) -> None:
        for number, handles in self._by_queue(leases).items():
            self._queues[number].delete(handles)
        self._leases.drop(lease.receipt for lease in leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """`delay` is limited to what remains of the 12 hours that a message may be invisible in all."""
        with self._leases.changing_visibility:
            for number, message_leases in self._running(leases).items():
                self._queues[number].change_visibility(
                    {message_lease.handle: message_lease.at_most(delay) for message_lease in message_leases}
                )
                self._leases.drop(message_lease.receipt for message_lease in message_leases)

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        """A lease ends for good 12 hours after its message was received.

        If a task was cancelled by id, its message is deleted; its row stays, so that `cancel` can name it again. If it was
        cancelled with its session, its message is made visible again: it is then leased as invalid, and gets a result.
        """
        kept: set[object] = set()
        with self._leases.changing_visibility:
            for number, message_leases in self._running(leases).items():
                asked = time.monotonic()
                wanted = {message_lease.handle: message_lease.at_most(seconds) for message_lease in message_leases}
                lost = self._queues[number].change_visibility(
                    {handle: seconds for handle, seconds in wanted.items() if seconds}
                )
                for message_lease in message_leases:
                    if message_lease.handle not in lost and wanted[message_lease.handle]:
                        self._leases.extend(message_lease, asked + wanted[message_lease.handle])
                        kept.add(message_lease.receipt)
        self._leases.drop(lease.receipt for lease in leases if lease.receipt not in kept)
        cancelled = self._cancelled([lease.task for lease in leases if lease.receipt in kept])
        self._delete([lease for lease in leases if lease.task.id in cancelled.singly])
        self.nack([lease for lease in leases if lease.task.id in cancelled.with_session])
        return {lease.task.id for lease in leases if lease.receipt not in kept or lease.task.id in cancelled}

    # --- Other methods ------------------------------------------------------------------------------

    def put(self, tasks: Sequence[Task]) -> None:
        """Send these tasks, ten in each request; if `task_table` is set, a row for each is written before.

        Without that table only ids that occur twice in one call are `Rejected`, since SQS knows no ids. After `Unavailable`,
        put the same tasks again: this source does not send those again that SQS has accepted.
        """
        self._submission.put(tasks)

    def redrive(self, tasks: Sequence[Task]) -> None:
        """As `put`, and removes the tasks' dead letters and rows of an earlier generation, left by an agent that died.

        A message of an earlier generation that is still there is handed out too; sinks can tell that its result is older. Its
        ack removes the row of the later generation, which `cancel` does not find then. A task that was cancelled by its id is
        not cancelled any more.
        """
        if self._cancels is not None:
            self._cancels.remove(self._cancelled(tasks).singly)
        try:
            self._submission.send(tasks)
        except Rejected as refusal:
            mine = {task.id for task in tasks}
            if self._index is None or not refusal.task_ids or not mine.issuperset(refusal.task_ids):
                raise
            self._index.remove(refusal.task_ids)
            self._submission.send(tasks)
        self._letters().remove(tasks)
        self._submission.forget(tasks)

    def dead_letters(self) -> Iterator[DeadTask]:
        """The dead letters; each is invisible to others for up to a minute."""
        return self._letters().read()

    def _letters(self) -> DeadLetters:
        queues = list({queue.url: queue for queue in self._dead.values()}.values())
        return DeadLetters(queues, lambda message: read_whole(message, self._bucket))

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        """Mark tasks as cancelled; `receive` and `extend` check the marks.

        With `task_table`, the tasks that have a row are returned, also those that were cancelled before; to find the tasks of a
        session, the whole table is read. Without it, SQS cannot say which tasks wait: all tasks named by id are returned,
        without payload, even if they are over or never existed. Tasks of a cancelled session that are not returned are leased
        as invalid when their message comes, so the agent stores their result.
        """
        if self._cancels is None:
            message = (
                "sqs: cancel needs cancel_table, since SQS cannot remove a message by its task's id. Set cancel_table to a "
                "DynamoDB table keyed by task_id (it may be the table of the results), the same for all agents"
            )
            raise Rejected(message, task_ids)
        sessions = [session_id] if session_id else []
        if self._index is None:
            self._cancels.add(sessions, task_ids)
            return [Task(task_id, b"") for task_id in task_ids]
        # The session is marked first, so that tasks that are put during the search are cancelled too.
        self._cancels.add(sessions, [])
        found = self._index.named(task_ids) + (self._index.of_session(session_id) if session_id else [])
        tasks = {task.id: task for task in found}
        self._cancels.add([], tasks)
        return list(tasks.values())

    def stats(self, *, brief: bool = False) -> QueueStats:
        return QueueStats(self._states(), note=UNTOLD)

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        """Send to the dead-letter queue with the reason in the attribute `htcgrid.reason`, then delete.

        Without such a queue, or if a dead letter is larger than it accepts, the tasks are only deleted, with a warning in the log.
        """
        for lease in leases:
            receipt = receipt_of(lease)
            target = self._dead.get(receipt.queue)
            if target is None:
                log.warning("task %s is deleted because there is no dead-letter queue: %s", lease.task.id, reason)
                continue
            letter = dead_letter(lease.task, receipt.reference, reason, target.max_message)
            if letter.size > target.max_message:
                log.warning(
                    "task %s is deleted because its dead letter has %d bytes, but queue %s accepts at most %d (raise its "
                    "MaximumMessageSize): %s",
                    lease.task.id,
                    letter.size,
                    target.name,
                    target.max_message,
                    reason,
                )
                continue
            try:
                target.send([letter])
            except Unsent as error:
                raise Unavailable(f"dead letter of task {lease.task.id}: {error}") from error
        self.ack(leases)

    def permissions(self) -> Mapping[str, Mapping[str, Any] | str]:
        """The smallest IAM policies for the queues, cancel marks, rows of tasks and inputs."""
        region = self.config.region
        names = self.config.queues or (self.config.queue,)
        dead = [queue.arn for queue in self._dead.values()] or [arns.queue(self.config.dead_letter_queue, region)]
        return iam.policies(
            iam.Resources(
                queues=tuple(queue.arn for queue in self._queues) or tuple(arns.queue(name, region) for name in names),
                dead_letter_queues=tuple(dict.fromkeys(dead)),
                cancel_table=arns.table(self._cancel_table, region),
                task_table=arns.table(self.config.task_table, region),
                bucket=arns.bucket(self.config.bucket),
                inputs_prefix=self.config.prefix,
                results_prefix=None,
                keys=self.config.keys(),
            )
        )

    def advise(self, attempts: int) -> Iterator[str]:
        """Settings of the queue that would end a task before the agent does."""
        yield from queue_advice(self._queues, self.function.timeout, attempts, self.config.dead_letter_queue)

    # --- Helpers ------------------------------------------------------------------------------------

    @property
    def _cancel_table(self) -> str:
        return self.config.cancel_table or self.config.task_table

    def _table(self, name: str) -> Table:
        table = Table(self.client("dynamodb"), name, self.usage_counter)
        table.check()
        return table

    def _states(self) -> States:
        dead = {queue.url: queue.states().waiting or 0 for queue in self._dead.values()}
        states = total([queue.states() for queue in self._queues])
        return replace(states, dead=sum(dead.values()) if dead else None)

    def _with_priority(self, task: Task, number: int, *, foreign: bool) -> Task:
        if len(self._queues) == 1 or not foreign or "priority" in task.attributes:
            return task
        return Task(task.id, task.payload, {**task.attributes, "priority": str(number)})

    def _cancelled(self, tasks: Sequence[Task]) -> Cancelled:
        return self._cancels.among(tasks) if self._cancels and tasks else Cancelled()

    def _by_queue(self, leases: Sequence[Lease]) -> dict[int, list[str]]:
        handles: defaultdict[int, list[str]] = defaultdict(list)
        for lease in leases:
            receipt = receipt_of(lease)
            handles[receipt.queue].append(receipt.handle)
        return handles

    def _running(self, leases: Sequence[Lease]) -> dict[int, list[MessageLease]]:
        message_leases: defaultdict[int, list[MessageLease]] = defaultdict(list)
        for message_lease in self._leases.of(leases):
            message_leases[message_lease.queue].append(message_lease)
        return message_leases
