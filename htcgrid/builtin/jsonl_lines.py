"""Reads lines from a file or a pipe. The memory is limited, even for very long lines."""

import gzip
import io
import os
import select
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from htcgrid.spi import Rejected
from htcgrid.spi.limits import REQUEST_BYTES

LINE_BYTES = REQUEST_BYTES + (2 << 20)
"""The longest line that is kept: longer than the largest event of a plane, so that the plane itself reports such events."""

_TAKE_BYTES = LINE_BYTES
"""About the most that one `take` returns."""

_FILE_BYTES = 1 << 18
_MOST_FILE_BYTES = 4 << 20
_FEW = 8
"""If a read has fewer lines than this, the next reads more: the first and last line of each read are copied twice."""
_PIPE_BYTES = 1 << 16
_KNOWN_BYTES = 1 << 12
"""How many bytes, from the start and from the end of what was read, are kept to see whether the file was rewritten."""


class Lines:
    """The whole lines of an input. None stands for a line that is longer than `LINE_BYTES`."""

    def __init__(self) -> None:
        self._whole: list[bytes | None] = []
        self._rest = bytearray()
        self._too_long = False
        self._read_all = False

    @property
    def ended(self) -> bool:
        """Whether all lines were taken."""
        return self._read_all and not self._whole

    def take(self, most: int, wait: float) -> list[bytes | None]:
        """Up to `most` lines, as soon as there is one; none after about `wait` seconds."""
        self._fill(most, time.monotonic() + wait)
        taken = self._whole[:most]
        if sum(map(len, filter(None, taken))) > _TAKE_BYTES:
            taken = taken[: _within(_TAKE_BYTES, taken)]
        del self._whole[: len(taken)]
        return taken

    def close(self) -> None:
        """Close what was opened."""

    def _fill(self, most: int, deadline: float) -> None:
        raise NotImplementedError

    def _feed(self, chunk: bytes) -> None:
        """Split the bytes that were read into lines; empty bytes mean the end."""
        if not chunk:
            self._read_all = True
            if self._rest or self._too_long:
                self._end_line()
            return
        first, *others = chunk.split(b"\n")
        self._keep(first)
        if others:
            self._end_line()
            self._keep(others.pop())
            self._whole.extend(others)

    def _keep(self, part: bytes) -> None:
        if not self._too_long:
            self._rest += part
            if len(self._rest) > LINE_BYTES:
                self._too_long = True
                self._rest = bytearray()

    def _end_line(self) -> None:
        self._whole.append(None if self._too_long else bytes(self._rest))
        self._rest = bytearray()
        self._too_long = False


def _within(limit: int, lines: Sequence[bytes | None]) -> int:
    """How many of these lines together are about as long as the limit; at least one."""
    sizes = accumulate(len(line or b"") for line in lines)
    return 1 + sum(size < limit for size in sizes)


class FileLines(Lines):
    """A complete file. It may grow or be removed while it is read, but must not be rewritten."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._raw = path.open("rb", buffering=0)
        self._file: io.RawIOBase | gzip.GzipFile = (
            gzip.GzipFile(fileobj=self._raw) if path.suffix == ".gz" else self._raw
        )
        self._stamp = self._changed_at()
        self._head = self._tail = b""
        self._at = 0
        self._read_bytes = _FILE_BYTES

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def _fill(self, most: int, deadline: float) -> None:
        size = 0
        while len(self._whole) < most and size < _TAKE_BYTES and not self._read_all:
            try:
                chunk = self._file.read(self._read_bytes) or b""
            finally:
                self._check()  # also after an error: a rewritten file may be why decompression failed
            size += len(chunk)
            before = len(self._whole)
            self._feed(chunk)
            if len(self._whole) - before < _FEW:
                self._read_bytes = min(2 * self._read_bytes, _MOST_FILE_BYTES)
            if not self._whole and time.monotonic() > deadline:
                break

    def _changed_at(self) -> tuple[int, int]:
        now = os.fstat(self._raw.fileno())
        return now.st_mtime_ns, now.st_size

    def _check(self) -> None:
        """Refuse a file that was rewritten: lines of two files must not be mixed."""
        fd = self._raw.fileno()
        stamp = self._changed_at()
        if stamp != self._stamp:
            kept = os.pread(fd, len(self._head), 0) == self._head
            kept = kept and os.pread(fd, len(self._tail), self._at - len(self._tail)) == self._tail
            if stamp[1] < max(self._stamp[1], self._raw.tell()) or not kept:
                raise Rejected(
                    f"{self._path} was cut or rewritten while it was read. Restore the file, or name another file "
                    "of results, and start again."
                )
            self._stamp = stamp
        self._at = self._raw.tell()
        start = max(0, self._at - _KNOWN_BYTES)
        self._tail = os.pread(fd, self._at - start, start)
        if len(self._head) < _KNOWN_BYTES:
            self._head = os.pread(fd, min(_KNOWN_BYTES, self._at), 0)


class PipeLines(Lines):
    """Standard input, a pipe or a device, where the next line may come late."""

    def __init__(self, fd: int, *, ours: bool) -> None:
        super().__init__()
        self._fd = fd
        self._ours = ours

    def close(self) -> None:
        if self._ours:
            os.close(self._fd)
            self._ours = False

    def _fill(self, most: int, deadline: float) -> None:
        while not self._whole and not self._read_all:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._fd], [], [], left)[0]:
                break
            with suppress(BlockingIOError):  # another reader of the same pipe was first
                self._feed(os.read(self._fd, _PIPE_BYTES))
            if left <= 0:
                break


def lines_of(path: Path) -> Lines:
    """The lines of a file, or of a named pipe, whose writer may open it later. Raises `OSError` if it cannot be read."""
    # Without O_NONBLOCK, opening a named pipe waits for its writer, and no signal can interrupt that.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # for a folder, `FileLines` raises the right error
            return FileLines(path)
        if path.suffix == ".gz":
            raise Rejected(f'{path} is not a regular file: only regular files can be compressed. Pipe `zcat` into "-".')
        return PipeLines(os.dup(fd), ours=True)
    finally:
        os.close(fd)
