"""The reading end of a pipe that a handler prints into."""

import fcntl
import os
import sys
import termios

from htcgrid.runtime.sandbox import Printed
from htcgrid.spi import STDOUT_OR_STDERR, limits

LOG_BYTES_AT_ONCE = 1 << 20
"""How much the pipe holds, and how much is read at once before other work continues."""


class LogPipe:
    """Keeps the end of what is read. `descriptor` is non-blocking, and -1 once closed.

    More than `much` bytes in one read mean that the handler prints much (`is_chatty`).
    """

    def __init__(self, descriptor: int, *, much: int = LOG_BYTES_AT_ONCE // 16) -> None:
        self.descriptor = descriptor
        self.printed: Printed | None = None
        """Receives everything that is read here."""
        self.is_chatty = False
        """Whether so much is printed that the log must be read more often."""
        self._much = much
        self._tail = b""

    def read(self) -> None:
        """Read what was printed up to now. The handler waits if the pipe is full and this is not called."""
        if self.descriptor < 0:
            return
        size = 0
        while size < LOG_BYTES_AT_ONCE and (piece := self.piece()):
            size += len(piece)
            self._tail = (self._tail + piece)[-limits.LOG_TAIL_BYTES :]
            if self.printed is not None:
                self.printed(piece, STDOUT_OR_STDERR)
        self.is_chatty = size > self._much

    def unread_bytes(self) -> int:
        """How much was printed that nobody has read."""
        size = bytearray(4)
        fcntl.ioctl(self.descriptor, termios.FIONREAD, size)
        return int.from_bytes(size, sys.byteorder)

    def piece(self) -> bytes:
        """One read of all that was printed, `LOG_BYTES_AT_ONCE` at most; empty where there is nothing."""
        size = min(self.unread_bytes(), LOG_BYTES_AT_ONCE)  # memory for more would cost far more than most reads
        try:
            return os.read(self.descriptor, size) if size else b""
        except BlockingIOError:  # the worker has read it
            return b""

    def tail(self) -> bytes:
        """The end of what was printed since this was asked last."""
        self.read()
        tail, self._tail = self._tail, b""
        return tail

    def close(self) -> None:
        """Close the descriptor; the tail stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
