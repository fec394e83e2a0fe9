"""One thread that keeps every lease alive, those in stock and those waiting to be stored included."""

import threading

from htcgrid.agent.delivery import chunks
from htcgrid.agent.holdings import Holdings
from htcgrid.agent.patience import Patience
from htcgrid.agent.policy import extension_interval
from htcgrid.spi import Invoker, TaskSource


class Keeper:
    """Extends leases; has the plane stop what was lost or cancelled."""

    def __init__(self, source: TaskSource, invoker: Invoker, holdings: Holdings, patience: Patience) -> None:
        self._source = source
        self._invoker = invoker
        self._holdings = holdings
        self._patience = patience
        self._closed = threading.Event()

    def run(self) -> None:
        seconds = self._source.lease_seconds
        if seconds is None:
            return
        while not self._closed.wait(extension_interval(seconds)):
            for chunk in chunks(self._holdings.all(), self._source.max_batch):
                gone = self._patience.call(lambda chunk=chunk: self._source.extend(chunk, seconds))  # type: ignore[misc]
                if gone:
                    # In this order: what the plane reports of them must find them marked.
                    self._holdings.lose(gone)
                    self._invoker.cancel(gone)

    def close(self) -> None:
        self._closed.set()
