"""Where calls wait until the pace allows one more in flight."""

import time
from collections.abc import Callable
from threading import Condition

from htcgrid_aws_lambda.pace import Pace

# Threads that wait look again this often, as the pace rises with time and not only when a call ends.
_LOOK_AGAIN_SECONDS = 0.1


class Gate:
    """Admits as many threads as its pace allows. `enter` and `leave` may be called from any thread."""

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace.from_rest(ceiling, clock())
        self._in_flight = 0
        self._changed = Condition()

    @property
    def allowed(self) -> int:
        """How many calls may be in flight now."""
        return self._pace.allowed

    def enter(self, patience: float) -> bool:
        """Take a place, waiting `patience` seconds for it at most; False where none came free."""
        deadline = self._clock() + patience
        with self._changed:
            while not self._has_room():
                left = deadline - self._clock()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _LOOK_AGAIN_SECONDS))
            self._in_flight += 1
            return True

    def leave(self, *, throttled: bool = False) -> None:
        """Give the place back, and tell whether the service refused the call."""
        with self._changed:
            full = self._in_flight >= self._pace.allowed
            now = self._clock()
            self._pace = self._pace.throttled(now) if throttled else self._pace.grown(now, full=full)
            self._in_flight -= 1
            free = self._pace.allowed - self._in_flight
            if free > 0:
                self._changed.notify(free)

    def _has_room(self) -> bool:
        full = self._in_flight >= self._pace.allowed
        self._pace = self._pace.grown(self._clock(), full=full)
        return self._in_flight < self._pace.allowed
