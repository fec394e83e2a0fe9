"""Results of environments that could not initialise, held until it is clear whose fault that is.

If anything else comes of the plane, the function can be loaded and these tasks have failed. If nothing
does, the function is broken: then no task may be stored as failed that would succeed once it is mended.
An endless source may never hand out another task, so a few seconds in which nothing runs decide as its end does.
"""

import logging
import threading
import time
from collections.abc import Callable

from htcgrid.agent.delivery import Delivery
from htcgrid.spi import HtcgridError, Result

log = logging.getLogger(__name__)


class FunctionBroken(HtcgridError):
    """The function cannot be initialised; the tasks were given back."""


class Quarantine:
    """Holds initialisation errors until `clear`, or until there are too many in a row."""

    def __init__(
        self, delivery: Delivery, limit: int, quiet_seconds: float, fail: Callable[[FunctionBroken], None]
    ) -> None:
        self._delivery = delivery
        self._limit = limit
        self._quiet_seconds = quiet_seconds
        self._quiet_since: float | None = None
        self._fail = fail
        self._held: list[Result] = []
        self._loaded = self._broken = False
        self.unsure = True
        """Whether an outcome of another kind would tell something new."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, result: Result) -> None:
        with self._lock:
            self.unsure = True
            self._held.append(result)
            log.info("The function could not be loaded, for the task %s: %d in a row.", result.task.id, len(self._held))
            if self._broken or len(self._held) >= self._limit:
                self._give_up()

    def clear(self) -> None:
        """The function can be loaded after all: what is held has failed for good."""
        with self._lock:
            self._loaded = True
            self.unsure = False
            held, self._held = self._held, []
        for result in held:
            self._delivery.put(result)

    def look(self, under_way: int) -> None:
        """Decide once nothing has been under way for a while beside what is held. For one thread, now and then."""
        now = time.monotonic()
        if not self._held or under_way > 0:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since > self._quiet_seconds:
            self._quiet_since = None
            self.close()

    def close(self) -> None:
        """Nothing more comes: what is held is all there was, or it was loaded before and these are the odd ones."""
        if self._loaded and not self._broken:
            self.clear()
        with self._lock:
            if self._held:
                self._give_up()

    def _give_up(self) -> None:
        self._broken = True
        document = self._held[-1].outcome.payload.decode(errors="replace")
        self._fail(FunctionBroken(f"The function cannot be initialised, so no task was run: {document}"))
        held, self._held = self._held, []
        for result in held:
            self._delivery.give_back(result.task.id)
