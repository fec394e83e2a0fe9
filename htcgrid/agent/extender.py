"""The thread that extends leases, so that none expires while the agent has it, in any state."""

import logging
import threading
import time
from collections.abc import Sequence

from htcgrid.agent.backoff import LONGEST_SECONDS
from htcgrid.agent.cancelling import try_to_cancel
from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.policy import extension_interval
from htcgrid.agent.shared import Shared
from htcgrid.agent.storer import chunks
from htcgrid.spi import Extended, Invoker, Lease, Lost, TaskSource, Unavailable

log = logging.getLogger(__name__)

_SHOWN = 10


class Extender:
    """Extends leases; makes the plane stop tasks whose lease was lost or that were cancelled."""

    def __init__(self, source: TaskSource, invoker: Invoker, leases: LeaseTable, shared: Shared) -> None:
        self._source = source
        self._invoker = invoker
        self._leases = leases
        self._observers = shared.observers
        self.back_off = shared.back_off()
        self._closed = threading.Event()
        self._look_seconds = 0.0005
        """How long the source takes to check whether one lease was lost."""

    def run(self) -> None:
        seconds = self._source.lease_seconds
        if seconds is None:
            return
        while not self._closed.wait(extension_interval(seconds)):
            for chunk in chunks(self._leases.held(), self._source.max_batch):
                gone = self._extend_and_try_again(chunk, seconds)
                if gone:
                    # They are marked before the plane cancels them: they must be marked when the plane reports them.
                    lost = self._leases.lose(gone)
                    shown = ", ".join(lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
                    log.info("%d leases were lost, to another agent or by a cancel: %s", len(lost), shown)
                    try_to_cancel(self._invoker, lost)

    def _extend_and_try_again(self, leases: Sequence[Lease], seconds: float) -> Sequence[Lease]:
        self.back_off.calling = self._source.extend
        while True:
            try:
                gone = self._extend(leases, seconds)
            except Unavailable as error:
                if self._closed.is_set():
                    return ()  # no lease is left
                # An outage that is shorter than a lease is to cost none. The end of the run ends this wait, as not `back_off.wait`.
                longest = min(LONGEST_SECONDS, extension_interval(seconds))
                self._closed.wait(self.back_off.delay(error, longest))
            else:
                self.back_off.reset()
                return gone

    def drop_lost(self, batch: dict[str, Lease], *, after_long: bool) -> None:
        """Remove tasks that were cancelled or lost while they waited from a slot's batch."""
        seconds = self._source.lease_seconds
        if seconds is None:
            return
        if not after_long and not self._leases.prefetch.is_worth(self._look_seconds):
            return
        began, leases = time.monotonic(), list(batch.values())
        for chunk in chunks(leases, self._source.max_batch):
            try:
                gone = self._extend(chunk, seconds)
            except Unavailable as error:
                log.info("Tasks begin without a check whether they were cancelled: %s", error)
                return
            lost = self._leases.lose(gone)
            for task_id in lost:
                batch.pop(task_id, None)
            self._leases.drop(lost)
        took = (time.monotonic() - began) / len(leases)
        self._look_seconds += (took - self._look_seconds) * 0.3

    def _extend(self, leases: Sequence[Lease], seconds: float) -> Sequence[Lease]:
        """Extend those of the leases that are still held; returns those that were lost."""
        with self._leases.moving:
            held = [] if self._closed.is_set() else self._leases.still(leases)
            gone = self._source.extend(held, seconds) if held else ()
        if held:
            log.info("Extended %d leases by %g s.", len(held) - len(gone), seconds)
        lost = [lease for lease in held if lease.task.id in gone] if gone else []
        if self._observers.is_watched and held:
            kept = [lease for lease in held if lease.task.id not in gone] if gone else held
            self._observers.tell(Extended(time.time(), kept, seconds))
            if new := [lease for lease in lost if not self._leases.is_lost(lease.task.id)]:
                self._observers.tell(Lost(time.time(), new))
        return lost

    def close(self) -> None:
        self._closed.set()
