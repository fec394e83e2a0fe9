"""The thread that ends leases: it stores a result before it acks the task, and returns other tasks to the source."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.shared import Shared
from htcgrid.spi import (
    Acked,
    DeadLettered,
    FailureKind,
    Lease,
    Rejected,
    Result,
    ResultSink,
    Returned,
    Stored,
    TaskSource,
    Unavailable,
    error_documents,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

Finished = tuple[Result, bool]
"""A result, and whether its task becomes a dead letter."""

_REASON_BYTES = 1000
STORE_SECONDS = 2.0
"""How long results are still stored after the grace time and the stop of running tasks."""


class Storer:
    """Stores, acks and returns in batches."""

    def __init__(self, source: TaskSource, sink: ResultSink, leases: LeaseTable, shared: Shared) -> None:
        self._source = source
        self._sink = sink
        self._leases = leases
        self._shared = shared
        self._observers = shared.observers
        self._put_seconds = 0.0
        self._is_refused = False
        """Whether results can no longer be stored."""
        # Tasks that are stopped at the end of the grace time have their outcomes after it.
        self.back_off = shared.back_off(STORE_SECONDS)

    def run(self) -> None:
        while self._leases.wait_for_work(self._sink.max_batch, self._shared.options.linger):
            while finished := self._leases.next_finished(self._sink.max_batch):
                self._end_tasks(finished)
            with self._stopping():
                self._return()

    def _end_tasks(self, finished: Sequence[Finished]) -> None:
        """Store these and ack their tasks. Once something could not be stored, all tasks are returned to the source instead."""
        if not self._is_refused:
            try:
                stored = self._store(finished)
            except BaseException as error:  # noqa: BLE001 - `Agent.run` raises it
                self._shared.fail(error)
                self._is_refused = True
        if self._is_refused:
            self._leases.not_stored(finished)
            return
        with self._stopping():  # a source that takes no ack now does not keep later results from being stored
            self._settle(stored, finished)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """An error within stops the agent; results that come later are stored all the same."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - `Agent.run` raises it
            self._shared.fail(error)

    def _store(self, finished: Sequence[Finished]) -> Sequence[Finished]:
        """Store these results; returns them as they were stored."""
        results = [result for result, _ in finished]
        began = time.monotonic()
        try:
            self.back_off.call(lambda: self._put(results), self._sink.put)
            self._leases.bytes.put_took(time.monotonic() - began)
        except Rejected as refusal:
            if not refusal.task_ids:
                raise
            # The sink has stored the others. For these a failure is stored instead of the answer.
            finished = [
                (_refused(result, refusal) if result.task.id in refusal.task_ids else result, dead)
                for result, dead in finished
            ]
            refused = [result for result, _ in finished if result.task.id in refusal.task_ids]
            self.back_off.call(lambda: self._put(refused), self._sink.put)
        return finished

    def _put(self, results: Sequence[Result]) -> None:
        began = time.monotonic()
        self._sink.put(results)
        self._put_seconds = time.monotonic() - began

    def _settle(self, stored: Sequence[Finished], answered: Sequence[Finished]) -> None:
        """End the leases of these results: `answered` as the plane gave them, whose bytes are counted, and as they were stored."""
        self._shared.stored(Stored(time.time(), [result for result, _ in stored], self._put_seconds))
        leases = self._leases.stored(answered)
        if dead := {result.task.id: result for result, is_dead in stored if is_dead}:
            for lease in leases:
                if lease.task.id in dead:
                    self._dead_letter(lease, dead[lease.task.id], leases)
            leases = [lease for lease in leases if lease.task.id not in dead]
        for start in range(0, len(leases), self._source.max_batch):
            self._ack(leases[start : start + self._source.max_batch], leases[start:])
        self._leases.keep_for_ack(())

    def _ack(self, chunk: Sequence[Lease], left: Sequence[Lease]) -> None:
        self._end(lambda: self._source.ack(chunk), self._source.ack, left)
        if self._observers.is_watched:
            self._observers.tell(Acked(time.time(), chunk))

    def _end(self, call: Callable[[], None], method: Callable[..., None], left: Sequence[Lease]) -> None:
        """Repeat the call until the source has ended these leases; `left` are all leases that still wait for this."""

        def attempt() -> None:
            try:
                call()
            except Unavailable:
                # If their leases expired, the tasks would be received again and again though their results are stored.
                self._leases.keep_for_ack(left)
                raise

        self.back_off.call(attempt, method)

    def _dead_letter(self, lease: Lease, result: Result, left: Sequence[Lease]) -> None:
        document = result.outcome.payload.decode(errors="replace")[:_REASON_BYTES]
        reason = f"{result.outcome.failure} at attempt {result.attempt}: {document}"
        self._end(lambda: self._source.dead_letter([lease], reason), self._source.dead_letter, left)
        self._observers.tell(DeadLettered(time.time(), [lease], reason))
        log.info("Task %s is a dead letter: %s at attempt %d.", lease.task.id, result.outcome.failure, result.attempt)

    def _return(self) -> None:
        by_delay = self._leases.next_returning()
        for delay, leases in by_delay.items():
            for chunk in chunks(leases, self._source.max_batch):
                self.back_off.call(
                    lambda chunk=chunk, delay=delay: self._return_to_source(chunk, delay),  # type: ignore[misc]
                    self._source.nack,
                )
                if self._observers.is_watched:
                    self._observers.tell(Returned(time.time(), chunk, delay))
        if by_delay:
            self._leases.returned_all()

    def _return_to_source(self, leases: Sequence[Lease], delay: float) -> None:
        with self._leases.moving:
            self._source.nack(leases, delay)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _refused(result: Result, refusal: Rejected) -> Result:
    document = error_documents.not_storable(str(refusal))
    return replace(result, outcome=replace(result.outcome, payload=document, failure=FailureKind.PAYLOAD_TOO_LARGE))
