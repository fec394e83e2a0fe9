"""The `htc_grid` source: an htcgrid agent replaces HTC-Grid's agent, and HTC-Grid's clients stay unchanged.

A message names a task; a claim in the state table decides who runs it; its input comes from the data plane.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from htcgrid.spi import Function, HtcgridError, Lease, QueueStats, Task, TaskSource, Unavailable
from htcgrid_aws.held_messages import HeldMessages, ReceivedMessage, find
from htcgrid_aws.htc_data import decoded
from htcgrid_aws.htc_plugin import HtcGridPlugin
from htcgrid_aws.htc_states import STATES, session_of
from htcgrid_aws.htc_submission import HtcSubmission
from htcgrid_aws.htc_watchdog import Watchdog
from htcgrid_aws.message_leases import MessageLease, MessageLeases, Receipt, receipt_of
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.polling import Poller
from htcgrid_aws.s3_bucket import LONGEST_KEY
from htcgrid_aws.sqs_queue import BATCH, MOST_IN_FLIGHT, Queue, total

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

log = logging.getLogger("htcgrid.aws.htc_source")

LONGEST_ID = LONGEST_KEY - len("-output")
"""In bytes: what follows the id in the keys of its input and output is no longer than this."""


@dataclass(frozen=True, slots=True)
class Delete:
    """The message's task is over."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Another agent has the task; the message must be received again after `seconds`."""

    seconds: float


class HtcGridSource(HtcGridPlugin, TaskSource):
    """The lease is the row's heartbeat; the message's visibility timeout is longer, and extended before it ends."""

    max_batch = BATCH
    most_leased = MOST_IN_FLIGHT

    def __init__(self, config: HtcGridPlugin.Config, function: Function) -> None:
        super().__init__(config, function)
        known = config.grid.get("task_ttl_expiration_offset_sec")
        self.lease_seconds: float = known if isinstance(known, (int, float)) else 30  # until it is opened
        self._queues: list[Queue] = []
        self._poller = Poller(())
        self._held = HeldMessages((), self.lease_seconds)
        self._leases = MessageLeases()
        self._visible_at: dict[object, float] = {}

    def open(self) -> None:
        super().open()
        sqs = self.client("sqs", region=self.grid.region, endpoint_url=self.grid.sqs_endpoint)
        self._queues = [Queue(sqs, name) for name in self.grid.queues]
        for queue in self._queues:
            queue.open()
        self.lease_seconds = self.grid.task_ttl_expiration_offset_sec
        self._visibility = max(self.grid.agent_task_visibility_timeout_sec, self.grid.task_ttl_expiration_offset_sec)
        self._poller = Poller(self._queues)
        self._held = HeldMessages(self._queues, self.lease_seconds)
        self._submission = HtcSubmission(self._queues, self.states, self.data, self.pool)
        self._watchdog = Watchdog(self.states, self._queues, self.pool, self.config.watchdog_seconds)

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        """Claims the tasks of a batch and fetches their inputs at the same time. Messages of other tasks are deleted or left.

        If a claim or a fetch fails, the message is held here, and the next call tries it again before any new message.
        """
        if max_tasks < 1:
            return ()
        self._watchdog.check()
        count = min(max_tasks, BATCH)
        if waiting := self._held.take(count):
            leases = self._lease(waiting)
            if leases or self._held:
                return leases
        return self._lease(find(self._poller, count, wait, self._visibility))

    def close(self) -> None:
        self._held.release()
        super().close()

    def ack(self, leases: Sequence[Lease]) -> None:
        """Deletes messages; one whose heartbeat has expired, only if its row says that the task is over."""
        running = {message_lease.receipt for message_lease in self._leases.of(leases)}
        doubtful = [lease for lease in leases if lease.receipt not in running]
        rows = self.states.rows([lease.task.id for lease in doubtful]) if doubtful else {}
        open_still = {lease.receipt for lease in doubtful if (row := rows.get(lease.task.id)) and not row.final}
        handles: defaultdict[int, list[str]] = defaultdict(list)
        for lease in leases:
            if lease.receipt not in open_still:
                receipt = receipt_of(lease)
                handles[receipt.queue].append(receipt.handle)
        for number, gone in handles.items():
            self._queues[number].delete(gone)
        self._drop(lease.receipt for lease in leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Makes the row pending and counts one more return; then the message is visible again after `delay`."""
        with self._leases.changing_visibility:
            self._return(leases, delay)

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        """Sends a heartbeat. Messages of cancelled tasks are deleted here, as HTC-Grid's agent does."""
        self._watchdog.check()
        with self._leases.changing_visibility:
            return self._heartbeat(leases, seconds)

    def put(self, tasks: Sequence[Task]) -> None:
        """Submits as HTC-Grid's client does. Ids are `<session>_<index>`; the attributes are session and priority."""
        self._submission.put(tasks)

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        """Cancels tasks that are not over. The tasks of a session are found with an index, which may be a moment late."""
        there = [
            task_id
            for task_id, row in self.states.rows(list(task_ids)).items()
            if row.state not in ("finished", "failed")
        ]
        if session_id:
            states = self.states.of_session(session_id)
            there += [task_id for task_id, state in states.items() if state in ("pending", "processing", "cancelled")]
        answers = each(self.pool, self.states.cancel, list(dict.fromkeys(there)))
        raise_worst(answer for _, answer in answers)
        return [
            Task(task_id, b"", {"session_id": session_of(task_id)}) for task_id, answer in answers if answer is True
        ]

    def is_pending(self, session_id: str) -> bool:
        return self.states.is_pending(session_id)

    def stats(self, *, brief: bool = False) -> QueueStats:
        return QueueStats(total([queue.states() for queue in self._queues]))

    # --- Inside -------------------------------------------------------------------------------------

    def _lease(self, found: Sequence[ReceivedMessage]) -> Sequence[Lease]:
        now = time.monotonic()
        leases: list[Lease] = []
        change_visibility: defaultdict[int, dict[str, float]] = defaultdict(dict)
        delete: defaultdict[int, list[str]] = defaultdict(list)
        failed: list[ReceivedMessage] = []
        errors: list[HtcgridError] = []
        for one, verdict in each(self.pool, lambda one: self._claimed(one.message, one.lease.queue), found):
            message_lease = one.lease
            if isinstance(verdict, Lease):
                leases.append(verdict)
                self._visible_at[verdict.receipt] = message_lease.until
                self._leases.add([replace(message_lease, task_id=verdict.task.id, until=now + self.lease_seconds)])
            elif isinstance(verdict, Delete):
                delete[message_lease.queue].append(message_lease.handle)
            elif isinstance(verdict, Postpone):
                change_visibility[message_lease.queue][message_lease.handle] = message_lease.at_most(verdict.seconds)
            else:
                log.warning("message %s is held to be tried again: %s", message_lease.task_id, verdict)
                failed.append(one)
                errors.append(verdict)
        self._held.hold(failed)
        for number in delete.keys() | change_visibility.keys():
            self._tidy(number, delete[number], change_visibility[number])
        if not leases:
            raise_worst(errors)
        return leases

    def _return(self, leases: Sequence[Lease], delay: float) -> None:
        message_leases = self._leases.known(leases)
        given = each(
            self.pool,
            lambda message_lease: self.states.return_to_pending(message_lease.task_id, message_lease.handle),
            message_leases,
        )
        shown: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for message_lease, answer in given:
            if answer is True:
                shown[message_lease.queue][message_lease.handle] = message_lease.at_most(delay)
        for number, handles in shown.items():
            self._queues[number].change_visibility(handles)
        self._drop(message_lease.receipt for message_lease, answer in given if not isinstance(answer, HtcgridError))
        raise_worst(answer for _, answer in given)

    def _heartbeat(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        # Expired ones are tried too: the row is ours until the watchdog or another agent changes it. If the table was
        # unavailable for longer than a lease, they could not change it.
        message_leases = self._leases.known(leases)
        now = time.monotonic()
        heartbeats = each(
            self.pool,
            lambda message_lease: self.states.heartbeat(message_lease.task_id, message_lease.handle, seconds),
            message_leases,
        )
        kept: set[object] = set()
        finished: list[tuple[MessageLease, str]] = []
        errors: list[HtcgridError] = []
        for message_lease, answer in heartbeats:
            if isinstance(answer, HtcgridError):
                errors.append(answer)
                continue
            held, row = answer
            if held:
                kept.add(message_lease.receipt)
                self._leases.extend(message_lease, now + seconds)
                continue
            if row and row.final:  # cancelled, or our own result is stored and the ack follows
                finished.append((message_lease, row.state))
                continue
            log.warning(
                "task %s is no longer ours: its row is %s", message_lease.task_id, row.state if row else "deleted"
            )
            self._drop([message_lease.receipt])
        undeleted = self._undeleted([message_lease for message_lease, _ in finished])
        unacked = {message_lease.receipt for message_lease in undeleted}
        for message_lease, state in finished:
            if message_lease.receipt in unacked and state != "cancelled":  # the agent acks it again
                kept.add(message_lease.receipt)
                self._leases.extend(message_lease, now + seconds)
            else:
                self._drop([message_lease.receipt])
        # If a heartbeat or a delete failed, the message stays invisible too: a visible one would use one more receive.
        alive = [message_lease for message_lease, answer in heartbeats if isinstance(answer, HtcgridError) or answer[0]]
        self._keep_invisible([*alive, *undeleted], seconds)
        raise_worst(errors)
        return {lease.task.id for lease in leases if lease.receipt not in kept}

    def _claimed(self, message: dict[str, Any], number: int) -> Lease | Delete | Postpone:
        receipt = Receipt(number, message["ReceiptHandle"])
        body = _parsed(message["Body"])
        if isinstance(body, str):
            reason = f"message {message['MessageId']} of queue {self._queues[number].name} is not HTC-Grid's: {body}"
            return Lease(Task(message["MessageId"], message["Body"].encode()), 1, receipt, reason)
        task_id = str(body["task_id"])
        attributes = {"session_id": session_of(task_id), "priority": str(body.get("task_priority", number))}
        held, row = self.states.claim(task_id, message["ReceiptHandle"], self.lease_seconds)
        if row is None:
            reason = f"task {task_id} has no row in table {self.grid.ddb_state_table}: it was deleted or never written"
            return Lease(Task(task_id, message["Body"].encode(), attributes), 1, receipt, reason)
        if row.state not in STATES:
            reason = f"task {task_id}: its row has the task_status {row.state!r}, which does not belong to its session's partition"
            return Lease(Task(task_id, message["Body"].encode(), attributes), 1, receipt, reason)
        if not held:
            # The agent that has it may die: check again when its heartbeat would have expired.
            return Delete() if row.final else Postpone(max(1, min(row.expiry - time.time() + 1, self._visibility)))
        return self._with_input(Task(task_id, b"", attributes), row.attempt, receipt)

    def _with_input(self, task: Task, attempt: int, receipt: Receipt) -> Lease:
        key = f"{task.id}-input"
        try:
            body = self.data.get(key)
        except HtcgridError:
            self.states.return_to_pending(task.id, receipt.handle, attempts=0)
            raise
        if body is None:
            return Lease(task, attempt, receipt, f"task {task.id}: its input {self.data.name}{key} does not exist")
        try:
            payload = decoded(body)
            json.loads(payload)
        except (ValueError, RecursionError) as error:
            reason = f"task {task.id}: its input {self.data.name}{key} is not a JSON document in base64: {error}"
            return Lease(task, attempt, receipt, reason)
        return Lease(Task(task.id, payload, task.attributes), attempt, receipt)

    def _keep_invisible(self, message_leases: Sequence[MessageLease], seconds: float) -> None:
        """Make messages invisible for longer that would become visible before two more heartbeats."""
        now = time.monotonic()
        due: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for message_lease in message_leases:
            hidden = message_lease.at_most(max(self._visibility, seconds))
            if self._visible_at.get(message_lease.receipt, 0) < now + 2 * seconds and hidden:
                due[message_lease.queue][message_lease.handle] = hidden
        for number, handles in due.items():
            try:
                self._queues[number].change_visibility(handles)
            except Unavailable as error:
                # Not raised: the agent would wait with the next heartbeats, which can be written.
                log.warning("%d messages may be visible before their tasks are over: %s", len(handles), error)
                continue
            for handle, length in handles.items():
                self._visible_at[Receipt(number, handle)] = now + length

    def _undeleted(self, message_leases: Sequence[MessageLease]) -> list[MessageLease]:
        """Delete the messages of these, ten at a time; returns those that SQS may still have."""
        by_queue: defaultdict[int, list[MessageLease]] = defaultdict(list)
        for message_lease in message_leases:
            by_queue[message_lease.queue].append(message_lease)
        undeleted: list[MessageLease] = []
        for number, there in by_queue.items():
            if not self._tidy(number, [message_lease.handle for message_lease in there], {}):
                undeleted += there
        return undeleted

    def _tidy(self, number: int, delete: Sequence[str], change_visibility: dict[str, float]) -> bool:
        """Delete some messages and change the visibility timeout of others; returns whether SQS accepted it."""
        try:
            self._queues[number].delete(delete)
            self._queues[number].change_visibility(change_visibility)
        except HtcgridError as error:
            log.warning(
                "%d messages are visible again when their timeout ends: %s", len(delete) + len(change_visibility), error
            )
            return False
        return True

    def _drop(self, receipts: Iterable[object]) -> None:
        gone = list(receipts)
        self._leases.drop(gone)
        for receipt in gone:
            self._visible_at.pop(receipt, None)


def _parsed(text: str) -> dict[str, Any] | str:
    """A message's content, or the reason why it is not a message of HTC-Grid."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"its body is not JSON ({error})"
    if not isinstance(body, dict) or not isinstance(body.get("task_id"), str) or not body["task_id"]:
        return "its body has no task_id"
    try:
        size = len(body["task_id"].encode())
    except UnicodeEncodeError as error:
        return f"its task_id cannot be stored ({error})"
    if size > LONGEST_ID:
        return f"its task_id has {size} bytes, of at most {LONGEST_ID}"
    return body
