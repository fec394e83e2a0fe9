"""One thread that keeps every lease alive, those in stock and those waiting to be stored included."""

import logging
import threading
from collections.abc import Sequence

from htcgrid.agent.delivery import Delivery, chunks
from htcgrid.agent.holdings import Holdings
from htcgrid.agent.patience import Patience
from htcgrid.agent.policy import extension_interval
from htcgrid.agent.stock import Stock
from htcgrid.spi import Invoker, Lease, TaskSource, Unavailable

log = logging.getLogger(__name__)

_SHOWN = 10


class Keeper:
    """Extends leases; has the plane stop what was lost or cancelled."""

    def __init__(
        self,
        source: TaskSource,
        invoker: Invoker,
        stock: Stock,
        holdings: Holdings,
        delivery: Delivery,
        patience: Patience,
    ) -> None:
        self._source = source
        self._invoker = invoker
        self._stock = stock
        self._holdings = holdings
        self._delivery = delivery
        self._patience = patience
        self._closed = threading.Event()

    def run(self) -> None:
        seconds = self._source.lease_seconds
        if seconds is None:
            return
        while not self._closed.wait(extension_interval(seconds)):
            for chunk in chunks(self._holdings.all(), self._source.max_batch):
                gone = self._extend_patiently(chunk, seconds)
                if gone:
                    # In this order: what the plane reports of them must find them marked.
                    lost = self._holdings.lose(gone)
                    shown = ", ".join(lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
                    log.info("%d leases were lost, to another agent or by a cancel: %s", len(lost), shown)
                    self._delivery.drop(self._stock.discard(lost))
                    self._invoker.cancel(lost)

    def _extend_patiently(self, leases: Sequence[Lease], seconds: float) -> Sequence[Lease]:
        self._patience.doing = self._source.extend
        while True:
            try:
                gone = self._extend(leases, seconds)
            except Unavailable as error:
                if self._closed.is_set():
                    return ()  # no lease is left
                self._closed.wait(self._patience.delay(error))  # the end of the run is not to wait for this
            else:
                self._patience.reset()
                return gone

    def _extend(self, leases: Sequence[Lease], seconds: float) -> Sequence[Lease]:
        """Those that are held still; returns which are ours no more."""
        with self._holdings.moving:
            held = [] if self._closed.is_set() else self._holdings.still(leases)
            gone = self._source.extend(held, seconds) if held else ()
        if held:
            log.info("Extended %d leases by %g s.", len(held) - len(gone), seconds)
        return [lease for lease in held if lease.task.id in gone]

    def close(self) -> None:
        self._closed.set()
