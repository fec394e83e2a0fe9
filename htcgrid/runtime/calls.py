"""The calls of `Invoker.invoke` that are under way on a plane, and which of their tasks were cancelled."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Calls:
    """Remembers a cancel for every call that it may be about, also for one that still waits for its environment."""

    def __init__(self) -> None:
        self._cancelled: dict[int, set[str]] = {}

    @contextmanager
    def call(self) -> Iterator[Collection[str]]:
        """One call; gives the ids that are cancelled until its end, to be looked at again and again."""
        cancelled: set[str] = set()
        self._cancelled[id(cancelled)] = cancelled
        try:
            yield cancelled
        finally:
            del self._cancelled[id(cancelled)]

    def cancel(self, task_ids: Collection[str]) -> None:
        """From any thread."""
        for cancelled in list(self._cancelled.values()):
            cancelled.update(task_ids)
