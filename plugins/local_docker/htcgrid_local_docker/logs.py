"""What a container prints: its end for the log tail, all of it for a file."""

import select
import socket
from pathlib import Path
from typing import IO

from htcgrid.runtime import limits

_READ_BYTES = 1 << 18
_HEADER_BYTES = 8
_QUIET_SECONDS = 0.0005
_PATIENCE_SECONDS = 0.05


class LogStream:
    """The engine's stream of a container's output: frames of eight bytes of header and a text.

    The engine passes on what a handler has printed in its own time, often after the handler's answer
    has come: `tail` waits until nothing has come for half a millisecond.
    """

    def __init__(self, stream: socket.SocketIO, file: Path | None) -> None:
        self._stream = stream
        self._poll = select.epoll()
        self._poll.register(stream.fileno(), select.EPOLLIN)
        self._frames = bytearray()
        self._tail = bytearray()
        self._file: IO[bytes] | None = file.open("ab", buffering=0) if file is not None else None

    def drain(self) -> None:
        """Take in what has come."""
        while self._read(0):
            pass

    def tail(self) -> bytes:
        """The end of what was printed since this was called last."""
        waited = 0.0
        while self._read(_QUIET_SECONDS) and waited < _PATIENCE_SECONDS:
            waited += _QUIET_SECONDS
        tail = bytes(self._tail[-limits.LOG_TAIL_BYTES :])
        self._tail.clear()
        return tail

    def rest(self) -> None:
        """Take in all there will be: the container has ended, and the stream ends."""
        while self._read(1.0):
            pass

    def close(self) -> None:
        self._poll.close()
        self._stream.close()
        if self._file is not None:
            self._file.close()

    def _read(self, wait: float) -> bool:
        """Whether anything came within `wait` seconds."""
        if self._stream.closed or not self._poll.poll(wait):
            return False
        try:
            data = self._stream.read(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._stream.close()
            return False
        self._frames += data
        self._unpack()
        return True

    def _unpack(self) -> None:
        while len(self._frames) >= _HEADER_BYTES:
            end = _HEADER_BYTES + int.from_bytes(self._frames[4:8], "big")
            if len(self._frames) < end:
                return
            text = self._frames[_HEADER_BYTES:end]
            del self._frames[:end]
            self._tail += text
            del self._tail[: -limits.LOG_TAIL_BYTES]
            if self._file is not None:
                self._file.write(text)
