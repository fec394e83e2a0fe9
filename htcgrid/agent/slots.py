"""As many slots as the plane has environments; fewer while it throttles."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.shared import Shared
from htcgrid.agent.slot import Slot
from htcgrid.agent.throttling import ConcurrencyLimit
from htcgrid.spi import Invoker, Unavailable

log = logging.getLogger(__name__)


class Slots:
    """Starts slots, and lets the lease table end surplus slots. `start` runs a function in a new, named thread."""

    def __init__(
        self,
        invoker: Invoker,
        leases: LeaseTable,
        shared: Shared,
        make: Callable[[], Slot],
        start: Callable[[str, Callable[[], None]], threading.Thread],
    ) -> None:
        self._invoker = invoker
        self._leases = leases
        self._statistics = shared.statistics
        self._make = make
        self._start = start
        self._limit = ConcurrencyLimit()
        self._last_ceiling = leases.prefetch.slots
        self._counted = 0
        self._begun = 0
        self._lock = threading.Lock()
        self.threads: list[threading.Thread] = []

    def look(self) -> None:
        """Follow the plane; called by the agent's own thread, many times a second."""
        with self._lock:
            ceiling = self._ceiling()
            full = not self._leases.idle_slots
            self._limit = self._limit.grown(time.monotonic(), ceiling, full=full)
            self._leases.prefetch.is_throttled = self._limit.is_lowered
            missing = self._leases.resize(self._limit.allowed(ceiling))
        if missing or self._leases.slots != self._counted:
            self.threads = [thread for thread in self.threads if thread.is_alive()]
            for _ in range(missing):
                run = partial(self._make().run, self.throttled)
                self.threads.append(self._start(f"slot-{self._begun}", run))
                self._begun += 1
            if self._counted:
                log.info("There are %d slots now; there were %d.", self._leases.slots, self._counted)
            self._counted = self._leases.slots
            self._statistics.resize(self._counted)

    def throttled(self) -> None:
        """Called by a slot: the plane has refused its batch because there are too many invocations."""
        with self._lock:
            running = self._leases.slots - self._leases.idle_slots
            self._limit = self._limit.throttled(time.monotonic(), running)
            self._leases.prefetch.is_throttled = True
            self._leases.resize(self._limit.allowed(self._ceiling()))

    def _ceiling(self) -> int:
        """What the plane can run at a time; what it said last, where it is unavailable."""
        with suppress(Unavailable):
            self._last_ceiling = max(1, self._invoker.max_concurrency)
        return self._last_ceiling
