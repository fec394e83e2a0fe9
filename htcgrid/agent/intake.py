"""One thread that keeps the stock filled."""

import time
from collections.abc import Collection, Sequence

from htcgrid.agent import documents
from htcgrid.agent.delivery import Delivery, chunks
from htcgrid.agent.halt import Halt
from htcgrid.agent.holdings import Holdings
from htcgrid.agent.patience import Patience
from htcgrid.agent.policy import stock_size
from htcgrid.agent.quarantine import Quarantine
from htcgrid.agent.slot import Pace
from htcgrid.agent.statistics import Statistics
from htcgrid.agent.stock import Stock
from htcgrid.spi import Lease, Outcome, Result, ResultSink, TaskSource

_WAIT_SECONDS = 1.0
_BACKLOG = 5000
_SETTLE_SECONDS = 0.005
"""How often to look whether the last task has ended."""


class Intake:
    """Receives, sorts out what needs no run, and stocks the rest."""

    def __init__(
        self,
        source: TaskSource,
        sink: ResultSink,
        slots: int,
        stock: Stock,
        holdings: Holdings,
        delivery: Delivery,
        quarantine: Quarantine,
        statistics: Statistics,
        pace: Pace,
        patience: Patience,
        halt: Halt,
    ) -> None:
        self._source = source
        self._sink = sink
        self._slots = slots
        self._stock = stock
        self._holdings = holdings
        self._delivery = delivery
        self._quarantine = quarantine
        self._statistics = statistics
        self._pace = pace
        self._patience = patience
        self._halt = halt

    def run(self) -> None:
        """Until the source is exhausted and all it gave is settled, or the agent drains."""
        while not self._halt.is_set():
            room = self._stock.wait_for_room(
                stock_size(self._slots, self._pace.mean_seconds, self._pace.batch), _WAIT_SECONDS
            )
            if room == 0 or self._delivery_lags():
                continue
            leases = self._patience.call(
                lambda room=room: self._receive(room),  # type: ignore[misc]
                self._source.receive,
            )
            if leases:
                self._take_in(leases)
            elif self._source.exhausted:
                # Asked again once all is settled: what was given back since makes it not exhausted.
                if self._settled() and self._source.exhausted:
                    return
                self._halt.wait(_SETTLE_SECONDS)

    def _delivery_lags(self) -> bool:
        """Whether results pile up before a slow sink; waits a little if so, so that they do not pile higher."""
        lags = len(self._delivery) > max(_BACKLOG, self._sink.max_batch) or self._delivery.budget.is_spent
        if lags:
            self._halt.wait(_SETTLE_SECONDS)
        return lags

    def _receive(self, room: int) -> Sequence[Lease]:
        if self._halt.is_set():
            return ()
        # With nothing coming any more, do not sit in a receive while the last results want delivering.
        return self._source.receive(min(room, self._source.max_batch), _WAIT_SECONDS)

    def _settled(self) -> bool:
        """Whether every lease is dealt with; pushes the last ones on."""
        if len(self._holdings) == len(self._quarantine) and not self._delivery.returning:
            return True
        self._delivery.hurry()
        return False

    def _take_in(self, leases: Sequence[Lease]) -> None:
        leases = self._holdings.add(leases)
        stored = self._stored(leases)
        if stored:
            self._statistics.already_stored += len(stored)
            done = [lease.task.id for lease in leases if lease.task.id in stored]
            for chunk in chunks(self._holdings.release(done), self._source.max_batch):
                self._patience.call(lambda chunk=chunk: self._source.ack(chunk), self._source.ack)  # type: ignore[misc]
            leases = [lease for lease in leases if lease.task.id not in stored]
        if any(lease.invalid for lease in leases):
            for lease in leases:
                if lease.invalid:
                    self._delivery.put(_invalid(lease))
            leases = [lease for lease in leases if not lease.invalid]
        if self._halt.is_set() or not self._stock.put(leases):
            for lease in leases:
                self._delivery.give_back(lease.task.id)

    def _stored(self, leases: Sequence[Lease]) -> Collection[str]:
        """Which of these tasks need no run."""
        try:
            return self._patience.call(lambda: self._sink.stored([lease.task for lease in leases]), self._sink.stored)
        except BaseException:
            for lease in leases:
                self._delivery.give_back(lease.task.id)
            raise


def _invalid(lease: Lease) -> Result:
    document = documents.not_run(lease.failure, lease.invalid)
    outcome = Outcome(lease.task.id, document, lease.failure, started=time.time())
    return Result(lease.task, outcome, lease.attempt)
