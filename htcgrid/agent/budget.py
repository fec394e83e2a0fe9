"""How many bytes of answers may wait to be stored: a slow sink slows the slots, and the memory stays bounded."""

import threading
from collections.abc import Iterable

from htcgrid.agent.halt import Halt
from htcgrid.spi import Result

_COUNTED_BYTES = 4096
"""Smaller answers are bounded by their number, so that counting costs a fast task nothing."""
_LOOK_SECONDS = 0.5
"""How often to look whether the agent is to stop."""


class Budget:
    """Counts the large answers that are held. Any thread may call anything."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._freed = threading.Condition()

    def add(self, result: Result) -> None:
        size = len(result.outcome.payload)
        if size > _COUNTED_BYTES:
            with self._freed:
                self._held += size

    def free(self, results: Iterable[Result]) -> None:
        """These are stored, or dropped."""
        if not self._held:
            return
        sizes = [len(result.outcome.payload) for result in results]
        large = sum(size for size in sizes if size > _COUNTED_BYTES)
        if large:
            with self._freed:
                self._held -= large
                self._freed.notify_all()

    @property
    def is_spent(self) -> bool:
        return self._held >= self._limit

    def wait(self, halt: Halt) -> None:
        """Until there is room, or the agent is to stop."""
        while self.is_spent and not halt.is_set():
            with self._freed:
                self._freed.wait_for(lambda: not self.is_spent, _LOOK_SECONDS)
