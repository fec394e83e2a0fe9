"""An event that wakes the thread that polls its descriptor. Any thread may set it, also while it is closed."""

import os
import threading
from contextlib import suppress


class Wakeup:
    """As `threading.Event`, with a descriptor. It is opened, cleared and closed by the thread that polls it."""

    def __init__(self) -> None:
        self._fd = -1
        self._lock = threading.Lock()
        """No thread may write to a descriptor while it is closed: another file may then have its number."""
        self.is_set = False

    def open(self) -> int:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._fd

    def set(self) -> None:
        with self._lock:
            if self._fd >= 0:
                self.is_set = True
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        with self._lock, suppress(BlockingIOError):
            self.is_set = False
            os.eventfd_read(self._fd)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
