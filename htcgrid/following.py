"""Waiting for more results of a store: told by the store where it can tell, by looking again and again elsewhere."""

import time
from typing import Protocol, runtime_checkable

from htcgrid.spi import ResultSink

_GROWTH = 1.5
_FIRST_LOOK = 0.002
"""Where a store tells, looks are cheap, and what is not stored, such as the end of a queue, is seen soon, too."""


@runtime_checkable
class Telling(Protocol):
    """A store that tells of results as they are stored, by whatever process."""

    def wait_for_more(self, seconds: float) -> bool:
        """Wait until something was stored since this thread's last call, for so many seconds at most; says whether it was.

        The first call of a thread returns at once: what was stored before it is seen by the look that follows.
        """
        ...


class Pauses:
    """Pauses between looks at a store, ever longer, since a look at a service costs money; cut short by what was stored."""

    def __init__(self, store: ResultSink, first: float, longest: float) -> None:
        self._wait, self._first = _sleep, first
        if isinstance(store, Telling):
            self._wait, self._first = store.wait_for_more, min(first, _FIRST_LOOK)
        self._next = self._first
        self._longest = longest

    def pause(self) -> None:
        if not self._wait(self._next):
            self._next = min(self._next * _GROWTH, self._longest)

    def reset(self) -> None:
        """Something was found: the next pause is the shortest."""
        self._next = self._first


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
