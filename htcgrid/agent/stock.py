"""The tasks in hand that no environment has yet."""

import threading
from collections import deque
from collections.abc import Collection, Sequence

from htcgrid.spi import Lease

_BYTES = 64 << 20
"""With events of this size in hand, no more are received until a slot is idle."""


class Stock:
    """Leases waiting for a slot. Any thread may call anything."""

    def __init__(self) -> None:
        self._leases: deque[Lease] = deque()
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)
        self._bytes = 0
        self._waiting = 0
        self._low = 0
        self._closed = False

    def put(self, leases: Sequence[Lease]) -> bool:
        """False once closed: then it takes none."""
        with self._filled:
            if not self._closed:
                self._leases.extend(leases)
                self._bytes += sum([len(lease.task.payload) for lease in leases])
                self._filled.notify(min(len(leases), self._waiting))
            return not self._closed

    def put_back(self, lease: Lease) -> bool:
        """To the front: it has waited its turn already. False once closed."""
        with self._filled:
            if not self._closed:
                self._leases.appendleft(lease)
                self._bytes += len(lease.task.payload)
                self._filled.notify()
            return not self._closed

    def discard(self, task_ids: Collection[str]) -> list[str]:
        """Take these out, unrun; returns those that were there."""
        with self._filled:
            found = [lease.task.id for lease in self._leases if lease.task.id in task_ids]
            if found:
                self._leases = deque(lease for lease in self._leases if lease.task.id not in task_ids)
                self._bytes = sum(len(lease.task.payload) for lease in self._leases)
                self._emptied.notify()
            return found

    def take(self, most: int, slots: int) -> list[Lease]:
        """Up to `most`, but no more than a fair share among `slots`; waits for one. Empty once closed."""
        with self._filled:
            while not self._leases and not self._closed:
                self._waiting += 1
                self._emptied.notify()
                self._filled.wait()
                self._waiting -= 1
            if self._closed:
                return []
            share = max(1, min(most, len(self._leases) // slots))
            taken = [self._leases.popleft() for _ in range(share)]
            self._bytes -= sum([len(lease.task.payload) for lease in taken])
            if len(self._leases) < self._low:
                self._emptied.notify()
            return taken

    def wait_for_room(self, size: int, wait: float) -> int:
        """How many more are wanted so that `size` are held beyond what idle slots will take at once.

        Waits until a quarter of `size` has gone, or a slot is idle. Not for less: to be woken for every
        task that is taken would hold up the slot that takes it, which has an environment to feed.
        """
        with self._emptied:
            self._low = size - size // 4
            self._emptied.wait_for(lambda: self._closed or self._is_low(), wait)
            return size + self._waiting - len(self._leases) if not self._closed and self._is_low() else 0

    def close(self) -> list[Lease]:
        """Hand out nothing more; returns what was left."""
        with self._filled:
            self._closed = True
            left = list(self._leases)
            self._leases.clear()
            self._filled.notify_all()
            self._emptied.notify_all()
            return left

    def _is_low(self) -> bool:
        return len(self._leases) < max(self._low if self._bytes < _BYTES else 0, self._waiting)
