"""Waiting for more results of a store: the store says when there are some, or is asked again and again."""

import time

from htcgrid.spi import ResultSink

_GROWTH = 1.5
_FIRST_LOOK = 0.002
"""For a store that says so. It is short, so that what a store cannot say, such as the end of a queue, is seen soon too."""


class Pauses:
    """Pauses between looks at a store. They grow, since a look at a service costs money, and end when something is stored."""

    def __init__(self, store: ResultSink, first: float, longest: float) -> None:
        self._store = store
        tells = store.wait_for_more(0.0) is not None
        self._first = min(first, _FIRST_LOOK) if tells else first
        self._next = self._first
        self._longest = longest

    def pause(self) -> None:
        has_more = self._store.wait_for_more(self._next)
        if has_more is None:
            time.sleep(self._next)
        if not has_more:
            self._next = min(self._next * _GROWTH, self._longest)

    def reset(self) -> None:
        """Something was found: the next pause is the shortest."""
        self._next = self._first
