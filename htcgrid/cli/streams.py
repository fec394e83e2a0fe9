"""Standard input, output and error as a command needs them: open, distinct, and never delaying the work.

- A closed stream is opened on the null device, so that no file or socket of htcgrid gets its number. Input is opened for
  writing and output for reading, so that using them is an error.
- If something cannot be printed on standard output, that is an `OutputLost`. If it cannot be printed on standard error, it is dropped.
- A reader of standard error that stalls delays nothing.
- Nothing that is printed on either one can control a terminal.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from htcgrid.runtime.printable import printable
from htcgrid.spi import HtcgridError, Rejected

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_STALL_SECONDS = 0.25
_LAST_SECONDS = 1.0
_WAITING_MESSAGES = 10_000


class OutputLost(HtcgridError):
    """Standard output could not be written."""

    @property
    def is_reader_gone(self) -> bool:
        return isinstance(self.__cause__, BrokenPipeError)


def prepare() -> None:
    """Prepare all three; called once, before everything else."""
    for fd, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            with suppress(OSError):
                # `open` takes the lowest free number, which is this one. Programs that are started inherit it.
                os.set_inheritable(os.open(os.devnull, mode), True)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input()), _encoding(sys.stdin))
    errors = "backslashreplace"
    sys.stdout = _Printed(io.BufferedWriter(_Output()), _encoding(sys.stdout), errors, line_buffering=os.isatty(1))
    sys.stderr = _Told(cast("BinaryIO", _Errors()), _encoding(sys.stderr), errors, write_through=True)


def end(*, interrupted: bool) -> None:
    """Stop waiting for readers, before the process ends."""
    output, errors = getattr(sys.stdout, "buffer", None), getattr(sys.stderr, "buffer", None)
    raw = getattr(output, "raw", None)
    if interrupted and isinstance(raw, _Output):
        raw.drop()
    if isinstance(errors, _Errors):
        errors.wait(_LAST_SECONDS)


def await_told() -> None:
    """Wait until everything printed on standard error is written, for as long as its reader needs."""
    errors = getattr(sys.stderr, "buffer", None)
    if isinstance(errors, _Errors):
        errors.wait(None)


def _encoding(stream: TextIO | None) -> str:
    """The stream's own encoding, or UTF-8 if that is ASCII, which users do not choose; click does the same."""
    encoding = (stream and stream.encoding) or "utf-8"
    return "utf-8" if "ascii" in encoding.lower() else encoding


class _Input(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0

    def isatty(self) -> bool:
        return os.isatty(0)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return os.readv(0, [buffer])
        except OSError as error:
            reason = "it is closed" if _is_closed(0, os.O_WRONLY) else error.strerror
            raise Rejected(f"Standard input cannot be read: {reason}. Name a file, or pipe something in.") from None


class _Output(io.RawIOBase):
    def __init__(self) -> None:
        super().__init__()
        self._is_lost = False

    def drop(self) -> None:
        """Drop what is still to be written."""
        self._is_lost = True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def isatty(self) -> bool:
        return os.isatty(1)

    def write(self, data: ReadableBuffer, /) -> int:
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            return _write(1, data)
        except OSError as error:
            self._is_lost = True  # reported once; the rest of the buffers does not fail again
            reason = "it is closed" if _is_closed(1, os.O_RDONLY) else error.strerror
            message = f"Standard output cannot be written: {reason}. What was to be printed is lost."
            raise OutputLost(message) from error


class _Errors(io.BufferedIOBase):
    """Standard error, written by its own thread: a caller that prints waits only for a moment.

    A signal handler may use it: it has no locks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: SimpleQueue[tuple[bytes, threading.Event]] = SimpleQueue()
        self._is_stalled = False
        self._has_thread = True
        try:
            threading.Thread(target=self._run, name="htcgrid-stderr", daemon=True).start()
        except RuntimeError:  # no more threads can be started, and the message may be about just that
            self._has_thread = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return os.isatty(2)

    def write(self, data: ReadableBuffer, /) -> int:
        text = bytes(data)
        if not self._has_thread:
            _write_all(text)
        elif self._waiting.qsize() < _WAITING_MESSAGES:
            self._put(text, 0.0 if self._is_stalled else _STALL_SECONDS)
        return len(text)

    def wait(self, seconds: float | None) -> None:
        """Wait until all is written, `seconds` at most."""
        if self._has_thread:
            self._put(b"", seconds)

    def _put(self, text: bytes, seconds: float | None) -> None:
        written = threading.Event()
        self._waiting.put((text, written))
        self._is_stalled = not written.wait(seconds)

    def _run(self) -> None:
        while True:
            text, written = self._waiting.get()
            _write_all(text)
            written.set()
            self._is_stalled = False


class _Printed(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        super().write(printable(text))
        return len(text)


class _Told(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        begin = "\r" if text.startswith("\r") else ""  # of a progress bar
        super().write(begin + printable(text.removeprefix(begin)))
        return len(text)


def _write_all(text: bytes) -> None:
    """Write to standard error; an error here cannot be reported anywhere."""
    view = memoryview(text)
    with suppress(OSError):
        while view:
            view = view[_write(2, view) :]


def _write(fd: int, data: ReadableBuffer) -> int:
    """Write all of it, also if another program that shares the descriptor has made it non-blocking."""
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            select.select([], [fd], [])


def _is_closed(fd: int, mode: int) -> bool:
    """Whether it was closed and `prepare` has opened it."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == mode)
