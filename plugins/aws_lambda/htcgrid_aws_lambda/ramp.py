"""How many calls to make at once while the service's limit is not known: few at first, doubled four times a second.

It rises only while it is in use to the full, and is over once the service has throttled: from then on the agent limits how
many calls are in flight.
"""

import time
from collections.abc import Callable
from threading import Lock

START = 50.0
DOUBLING_SECONDS = 0.25
# By then the agent has cut its own limit. If the ramp ended earlier, the agent could start a thread for each call of the ceiling.
_SETTLED_SECONDS = 1.0
# A longer time without a throttle shows nothing more, since nobody tried to go faster in it.
_LONGEST_STEP = 1.0


class Ramp:
    """Any thread tells it when a call begins and ends."""

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ceiling = ceiling
        self._clock = clock
        self._limit = min(START, ceiling)
        self._since = clock()
        self._throttled_at: float | None = None
        self._in_flight = 0
        self._lock = Lock()

    @property
    def allowed(self) -> int:
        """How many calls may be in flight now."""
        with self._lock:
            now = self._clock()
            if self._throttled_at is None:
                step = min(now - self._since, _LONGEST_STEP)
                if self._in_flight >= int(self._limit):
                    self._limit = min(self._limit * 2 ** (step / DOUBLING_SECONDS), self._ceiling)
            elif now - self._throttled_at > _SETTLED_SECONDS:
                self._limit = self._ceiling
            self._since = now
            return int(self._limit)

    def begin(self) -> None:
        """A call begins."""
        with self._lock:
            self._in_flight += 1

    def end(self, *, throttled: bool = False) -> None:
        """It has ended."""
        with self._lock:
            self._in_flight -= 1
            if throttled and self._throttled_at is None:
                self._throttled_at = self._clock()
