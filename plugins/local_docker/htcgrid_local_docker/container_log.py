"""What a container prints: the end for the log tail, and all of it where it is wanted."""

import os
import select
import time
from collections.abc import Callable
from typing import Any

from htcgrid.spi import STDOUT_OR_STDERR, limits

_READ_BYTES = 1 << 16
_READS_AT_ONCE = 64
_HEADER_BYTES = 8
_QUIET_SECONDS = 0.0003
_HAS_PRINTED_SECONDS = 0.005
_BETWEEN_SECONDS = 0.001
_POLLS_LEAST = 0.001  # `poll` waits for whole milliseconds
_STEPS = 10
_BUSY_SECONDS = 1.0
"""For how long steps of a wait that end late do not count."""
_LIKELY_SECONDS = 0.25
_POSSIBLE_SECONDS = 0.05
_AT_MOST_SECONDS = 0.5
_MUCH_BYTES = 1 << 16
_MUCH_SECONDS = 2.0
_MUCH_AT_MOST_SECONDS = 5.0
_MANY_SILENT = 20
_STREAMS = {1: "stdout", 2: "stderr"}
EMULATORS_LAST = b"REPORT RequestId:"
"""How the line begins that the emulator prints at the end of each invocation."""


class LogStream:
    """The engine's stream of a container's output: frames of eight bytes of header and a text.

    The engine passes on what a handler has printed in its own time: nearly always before the handler's
    answer comes, in one case of some hundred after it, by milliseconds where the machine is busy. Nothing
    tells whether more is on its way, so `tail` waits: up to 250 ms where the last invocation printed at its end,
    up to 50 ms where one of the last twenty did, and then less and less: 2 ms after a hundred silent ones. For a handler
    that has ever printed at its end, 5 ms are the least: of 9,000 outputs measured on two processors, three came
    later than that. Where a step of a wait ends late the machine is busy, and the engine is late too: that step does not
    count. What was printed long before the answer says nothing of the end. Where `last` is given, a text of
    the last line of each invocation, it waits for that. Much output comes with longer pauses.
    """

    def __init__(self, response: Any, printed: Callable[[bytes, str], None] | None, last: bytes = b"") -> None:
        self._last = last
        self._response = response
        self._fd: int = response.raw.fileno()
        self._poll = select.poll()  # `select` takes no descriptor above 1,023
        self._poll.register(self._fd, select.POLLIN)
        self._frames = bytearray()
        self._tail = bytearray()
        self._bytes = 0
        """How much was printed since `tail` was called last."""
        self._prints_at_end = False
        """Whether anything has come since the answer, or in the moment before it."""
        self._has_printed_at_end = False
        self._most_seconds = _MUCH_AT_MOST_SECONDS
        # Where all output is wanted, that of the first invocation is waited for like that of a handler that has printed.
        self._silent = 0 if printed is not None else 1
        self._printed = printed

    def drain(self) -> None:
        """Read what has come, within a bound: a handler that prints without end must not keep the thread here."""
        for _ in range(_READS_AT_ONCE):
            if not self._read(0):
                return

    def forget(self) -> None:
        """Leave what came between two invocations out of the next tail."""
        self.drain()
        if self._tail:
            self._silent = 0
        self._clear()

    def tail(self) -> bytes:
        """The end of what was printed since this was called last."""
        self._prints_at_end = False
        self.drain()
        began = time.monotonic()
        while self._read(self._silence_allowed()):
            if time.monotonic() - began > (self._most_seconds if self._is_much() else _AT_MOST_SECONDS):
                self._most_seconds = _AT_MOST_SECONDS  # it prints without end: it is not waited for as long again
                break
        self._silent = 0 if self._prints_at_end else self._silent + 1
        self._has_printed_at_end |= self._prints_at_end
        tail = bytes(self._tail)
        self._clear()
        return tail

    def _clear(self) -> None:
        self._tail.clear()
        self._bytes = 0

    def _is_much(self) -> bool:
        return self._bytes > _MUCH_BYTES

    def _silence_allowed(self) -> float:
        is_much = self._is_much()
        if self._tail and not (self._tail.endswith(b"\n") and self._last in self._tail):
            return _MUCH_SECONDS if is_much else _LIKELY_SECONDS  # a line that has no end yet is likely to get one
        if self._prints_at_end or (self._tail and self._last):
            return _POSSIBLE_SECONDS if is_much else _BETWEEN_SECONDS
        if self._silent == 0:
            return _LIKELY_SECONDS
        least = _HAS_PRINTED_SECONDS if self._has_printed_at_end else _QUIET_SECONDS
        return max(least, _POSSIBLE_SECONDS * min(1.0, (_MANY_SILENT / self._silent) ** 2))

    def rest(self) -> None:
        """Read to the end of the stream: the container has ended."""
        while self._read(1.0):
            pass

    def close(self) -> None:
        self._end()

    def _read(self, wait: float) -> bool:
        """Whether anything came within `wait` seconds."""
        if self._fd < 0 or self._is_silent(wait):
            return False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        self._frames += data
        self._unpack()
        return True

    def _is_silent(self, wait: float) -> bool:
        """Whether nothing comes for this time, of which only the steps count that end in time."""
        left = max(1, min(_STEPS, int(wait / _POLLS_LEAST)))
        step = wait / left
        began = now = time.monotonic()
        while left:
            if 0 < step < _POLLS_LEAST:
                time.sleep(step)
            if self._poll.poll(step * 1000 if step >= _POLLS_LEAST else 0):
                return False
            before, now = now, time.monotonic()
            if now - before < 2 * step + _POLLS_LEAST or now - began > _BUSY_SECONDS:
                left -= 1
        return True

    def _end(self) -> None:
        self._fd = -1
        self._response.close()

    def _unpack(self) -> None:
        while len(self._frames) >= _HEADER_BYTES:
            end = _HEADER_BYTES + int.from_bytes(self._frames[4:8], "big")
            if len(self._frames) < end:
                return
            stream = _STREAMS.get(self._frames[0], STDOUT_OR_STDERR)
            text = bytes(self._frames[_HEADER_BYTES:end])
            del self._frames[:end]
            self._prints_at_end = True
            self._bytes += len(text)
            self._tail += text
            del self._tail[: -limits.LOG_TAIL_BYTES]
            if self._printed is not None:
                self._printed(text, stream)
