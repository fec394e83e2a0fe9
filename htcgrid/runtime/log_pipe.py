"""The reading end of a pipe that a handler prints into."""

import os

from htcgrid.runtime.sandbox import Printed
from htcgrid.spi import NOT_TOLD_APART, limits

LOG_BYTES_AT_ONCE = 1 << 20
"""How much the pipe holds, and how much is read in one look before other work goes on."""


class LogPipe:
    """Keeps the end of what is read. `descriptor` is non-blocking, and -1 once closed.

    More than `much` bytes in one look mean that the handler prints much (`is_chatty`).
    """

    def __init__(
        self, descriptor: int, *, piece_bytes: int = LOG_BYTES_AT_ONCE, much: int = LOG_BYTES_AT_ONCE // 16
    ) -> None:
        self.descriptor = descriptor
        self.printed: Printed | None = None
        """Gets all that is read here."""
        self.is_chatty = False
        """Whether so much is printed that the log must be read more often."""
        self._piece_bytes = piece_bytes
        self._much = much
        self._tail = b""

    def read(self) -> None:
        """Take in what was printed up to now. The handler waits where this is not called and the pipe is full."""
        if self.descriptor < 0:
            return
        size = 0
        while size < LOG_BYTES_AT_ONCE and (piece := self.piece()):
            size += len(piece)
            self._tail = (self._tail + piece)[-limits.LOG_TAIL_BYTES :]
            if self.printed is not None:
                self.printed(piece, NOT_TOLD_APART)
        self.is_chatty = size > self._much

    def piece(self) -> bytes:
        """One read of what was printed; empty where there is nothing."""
        try:
            return os.read(self.descriptor, self._piece_bytes)
        except BlockingIOError:
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
