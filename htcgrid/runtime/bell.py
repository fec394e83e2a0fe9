"""A descriptor that wakes whoever polls it, rung from any thread, also while it is closed."""

import os
import threading
from contextlib import suppress


class Bell:
    """An eventfd. It is opened, silenced and closed by the thread that polls it."""

    def __init__(self) -> None:
        self._fd = -1
        self._lock = threading.Lock()
        """A number that was closed may stand for another file by now."""
        self.is_rung = False

    def open(self) -> int:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._fd

    def ring(self) -> None:
        with self._lock:
            if self._fd >= 0:
                self.is_rung = True
                os.eventfd_write(self._fd, 1)

    def silence(self) -> None:
        with self._lock, suppress(BlockingIOError):
            self.is_rung = False
            os.eventfd_read(self._fd)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
