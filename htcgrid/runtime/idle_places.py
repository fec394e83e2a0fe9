"""Which places of a pool are idle, and which of those may start an environment now.

A place is *ready* once its environment has initialised, *starting* until then, and *empty* without one. Ready places are
taken first, so that no task waits for a start while another environment has nothing to do. Where a start takes long, only as
many start at a time as there are processors: more would all become ready late, some after their deadline.
"""

import threading
import time
from collections.abc import Callable

_LOOK_SECONDS = 0.1
_QUICK_SECONDS = 0.25
"""If an environment becomes ready within this time, all may start at once."""


class IdlePlaces:
    """Places by number. Any thread may call anything."""

    def __init__(self, count: int, most_starting: int, loading: Callable[[int], bool] = lambda _place: True) -> None:
        """`most_starting` is how many may start at a time if that takes long.

        `loading` says of a place that is starting whether it keeps a processor busy; what only waits does not count."""
        self._changed = threading.Condition()
        self._ready: list[int] = []
        self._begun: list[int] = []
        """Starting, and idle."""
        self._empty = list(reversed(range(count)))
        self._starting: set[int] = set()
        """All that are starting, idle or not."""
        self._loading = 0
        """How many of these kept a processor busy at the last check, or have begun since then."""
        self._is_loading = loading
        self._looked = 0.0
        self._count = count
        self._most = self._most_slow = most_starting

    def take(self, is_cancelled: Callable[[], bool] = lambda: False) -> int | None:
        """Wait for a place. Returns None if `is_cancelled`, which is checked again after each `wake`."""
        with self._changed:
            while not self._can_take():
                if is_cancelled():
                    return None
                self._changed.wait(_LOOK_SECONDS if self._empty else None)
                self._look()
            for places in (self._ready, self._begun):
                if places:
                    return places.pop()
            return self._begin()

    def begin(self) -> int | None:
        """An empty place, to start an environment before it is needed; None if none may start now."""
        with self._changed:
            return self._begin() if self._empty and self._loading < self._most else None

    def give(self, place: int, *, is_empty: bool = False) -> None:
        """It is idle again; empty, or with the environment that it had."""
        with self._changed:
            if is_empty:
                self._stop(place)
                self._empty.append(place)
            else:
                (self._begun if place in self._starting else self._ready).append(place)
            self._changed.notify()

    def started(self, place: int, seconds: float | None = None) -> None:
        """Its environment has initialised in `seconds`, or has failed (None)."""
        with self._changed:
            if seconds is not None:
                self._most = self._count if seconds < _QUICK_SECONDS else self._most_slow
            if place in self._starting:
                self._stop(place)
                if place in self._begun:
                    self._begun.remove(place)
                    self._ready.append(place)
                self._changed.notify_all()

    def wake(self) -> None:
        """Make all callers that wait for a place check whether they are cancelled."""
        with self._changed:
            self._changed.notify_all()

    @property
    def has_empty(self) -> bool:
        return bool(self._empty)

    def is_one_free(self) -> bool:
        """Whether a call would get a place at once."""
        return self._can_take()

    def __len__(self) -> int:
        return len(self._ready) + len(self._begun) + len(self._empty)

    def _can_take(self) -> bool:
        return bool(self._ready or self._begun or (self._empty and self._loading < self._most))

    def _begin(self) -> int:
        place = self._empty.pop()
        self._starting.add(place)
        self._loading += 1
        return place

    def _stop(self, place: int) -> None:
        if place in self._starting:
            self._starting.discard(place)
            self._loading = max(0, self._loading - 1)

    def _look(self) -> None:
        """Count anew how many keep a processor busy: one that waits for a server leaves its processor to another."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._loading = sum(self._is_loading(place) for place in self._starting)
