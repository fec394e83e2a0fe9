"""The thread that receives: it keeps enough leases waiting for the slots."""

import logging
import time
from collections.abc import Sequence

from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.prefetch import DRY_SECONDS
from htcgrid.agent.shared import Shared
from htcgrid.agent.storer import chunks
from htcgrid.agent.suspects import Suspects
from htcgrid.spi import (
    Acked,
    AlreadyStored,
    FailureKind,
    Lease,
    Outcome,
    Received,
    Result,
    ResultSink,
    TaskSource,
    error_documents,
)

log = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0


class Receiver:
    """Receives tasks, acks those that need not run, and offers the others to the slots."""

    def __init__(
        self, source: TaskSource, sink: ResultSink, leases: LeaseTable, suspects: Suspects, shared: Shared
    ) -> None:
        self._source = source
        self._sink = sink
        self._leases = leases
        self._suspects = suspects
        self._shutdown = shared.shutdown
        self._shared = shared
        self.back_off = shared.back_off()

    def run(self) -> None:
        """Run until the source is exhausted and all its tasks are settled, or the agent drains."""
        while not self._shutdown.is_set():
            room = self._leases.wait_for_room(_WAIT_SECONDS)
            self._return_surplus()
            if room == 0:
                continue
            began = time.monotonic()
            leases = self.back_off.call(
                lambda room=room: self._receive(room),  # type: ignore[misc]
                self._source.receive,
            )
            if leases:
                self._take_in(leases, time.monotonic() - began)
                self._leases.prefetch.received(time.monotonic() - began)
            # This is checked again when no task is held: a task that was returned meanwhile will come again.
            elif self._is_exhausted() and self._leases.wait_until_settled(_WAIT_SECONDS) and self._is_exhausted():
                return

    def _is_exhausted(self) -> bool:
        return self.back_off.call(lambda: self._source.exhausted, self._source.receive)

    def _return_surplus(self) -> None:
        surplus = self._leases.surplus()
        if surplus:
            log.info("%d tasks would wait here too long and are returned.", len(surplus))
            for lease in surplus:
                self._suspects.settle(lease.task.id)
            self._leases.return_now(*surplus)

    def _receive(self, room: int) -> Sequence[Lease]:
        if self._shutdown.is_set():
            return ()
        # Tasks that come after a long wait may be long: other agents must get a share of them, so the wait is short.
        is_long_wait = self._source.lease_seconds is None or room <= self._leases.idle_slots
        wait = _WAIT_SECONDS if is_long_wait else min(_WAIT_SECONDS, DRY_SECONDS)
        leases = self._source.receive(min(room, self._source.max_batch), wait)
        if not leases:
            self._leases.prefetch.ran_dry()
        return leases

    def _take_in(self, received: Sequence[Lease], seconds: float) -> None:
        observers = self._shared.observers
        leases = self._leases.add(received)
        if observers.is_watched:
            observers.tell(Received(time.time(), leases, seconds))
        try:
            leases = self._without_stored(leases)
        except BaseException:
            self._leases.return_now(*leases)
            raise
        if any(lease.invalid for lease in leases):
            for lease in leases:
                if lease.invalid:
                    self._leases.finish(_invalid(lease))
            leases = [lease for lease in leases if not lease.invalid]
        if self._shutdown.is_set():
            self._leases.return_now(*leases)
        else:
            self._leases.offer(leases)

    def _without_stored(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Ack those of these tasks that have a result; returns the others."""
        stored = self.back_off.call(lambda: self._sink.stored([lease.task for lease in leases]), self._sink.stored)
        if not stored:
            return leases
        done = [lease for lease in leases if lease.task.id in stored]
        self._shared.already_stored(AlreadyStored(time.time(), done))
        for chunk in chunks(self._leases.still(done), self._source.max_batch):  # held, and so extended, until acked
            self.back_off.call(lambda chunk=chunk: self._source.ack(chunk), self._source.ack)  # type: ignore[misc]
            if self._shared.observers.is_watched:
                self._shared.observers.tell(Acked(time.time(), chunk))
        self._leases.release(done)
        return [lease for lease in leases if lease.task.id not in stored]


def _invalid(lease: Lease) -> Result:
    is_cancelled = lease.failure is FailureKind.CANCELLED
    document = (
        error_documents.cancelled(lease.invalid) if is_cancelled else error_documents.invalid_event(lease.invalid)
    )
    outcome = Outcome(lease.task.id, document, lease.failure, started=time.time())
    return Result(lease.task, outcome, lease.attempt)
