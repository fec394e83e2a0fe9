"""Calls wait here until the concurrency limit allows one more in flight."""

import time
from collections.abc import Callable
from threading import Condition

from htcgrid_aws_lambda.concurrency import ConcurrencyLimit

# Threads that wait look again this often, as the limit rises with time and not only when a call ends.
_LOOK_AGAIN_SECONDS = 0.1


class ConcurrencyLimiter:
    """Admits as many threads as its limit allows. `acquire` and `release` may be called from any thread."""

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state = ConcurrencyLimit.from_rest(ceiling, clock())
        self._in_flight = 0
        self._changed = Condition()

    @property
    def allowed(self) -> int:
        """How many calls may be in flight now."""
        return self._state.allowed

    def acquire(self, wait: float) -> bool:
        """Take a place, after at most `wait` seconds; False where none came free."""
        deadline = self._clock() + wait
        with self._changed:
            while not self._has_room():
                left = deadline - self._clock()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _LOOK_AGAIN_SECONDS))
            self._in_flight += 1
            return True

    def release(self, *, throttled: bool = False) -> None:
        """Return the place, and say whether the service throttled the call."""
        with self._changed:
            full = self._in_flight >= self._state.allowed
            now = self._clock()
            self._state = self._state.throttled(now) if throttled else self._state.grown(now, full=full)
            self._in_flight -= 1
            free = self._state.allowed - self._in_flight
            if free > 0:
                self._changed.notify(free)

    def _has_room(self) -> bool:
        full = self._in_flight >= self._state.allowed
        self._state = self._state.grown(self._clock(), full=full)
        return self._in_flight < self._state.allowed
