"""The running calls of `Invoker.invoke` on a plane, and which of their tasks were cancelled."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Calls:
    """Remembers a cancel for every call that may have the task, also for one that still waits for its environment."""

    def __init__(self) -> None:
        self._cancelled: dict[int, set[str]] = {}

    @contextmanager
    def call(self) -> Iterator[Collection[str]]:
        """One call. The value is the set of cancelled ids; it may grow until the end of the call, so read it repeatedly."""
        cancelled: set[str] = set()
        self._cancelled[id(cancelled)] = cancelled
        try:
            yield cancelled
        finally:
            del self._cancelled[id(cancelled)]

    def cancel(self, task_ids: Collection[str]) -> None:
        """Cancel these tasks. Any thread may call it."""
        for cancelled in list(self._cancelled.values()):
            cancelled.update(task_ids)
