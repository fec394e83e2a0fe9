"""One child process as its supervisor sees it: log, memory, end."""

import fcntl
import os
import resource
import select
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from htcgrid.runtime import limits
from htcgrid.runtime.nursery import Nursery
from htcgrid.spi import Unavailable

_PAGE_MB = resource.getpagesize() / (1 << 20)
_LOG_BYTES_KEPT = 1 << 20


class Child:
    """A process of the nursery, in a session of its own, that prints into a log we hold."""

    def __init__(self, nursery: Nursery, request: Mapping[str, Any], *fds: int) -> None:
        self._nursery = nursery
        # A file in memory rather than a pipe: a handler that prints never waits for a reader, and what a
        # killed one printed last is still there. Appending, so that emptying it moves the writer back too.
        self._log = os.memfd_create("log", os.MFD_CLOEXEC)
        _append_only(self._log)
        try:
            self.pid, self._pidfd = nursery.spawn(request, [self._log, *fds])
        except BaseException:
            os.close(self._log)
            raise
        self._ended = select.poll()
        self._ended.register(self._pidfd, select.POLLIN)
        self._status: int | None = None

    @property
    def pidfd(self) -> int:
        """Readable once the process has ended."""
        return self._pidfd

    def has_ended(self) -> bool:
        return self._status is not None or bool(self._ended.poll(0))

    def kill(self) -> int:
        """End the process and all of its session; returns its exit status."""
        if not self.has_ended():
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(self.pid, signal.SIGKILL)  # it has not come as far as having a group
        return self.status()

    def status(self) -> int:
        """The exit status, waited for; a signal is negative."""
        if self._status is None:
            self._ended.poll()
            self._status = self._nursery.reap(self.pid)
        return self._status

    def close(self) -> None:
        """End it and let go of what is held for it."""
        if self._log >= 0:
            try:
                self.kill()
            except Unavailable:
                self._status = -signal.SIGKILL  # its parent, the nursery, has gone, and took it along
            os.close(self._log)
            os.close(self._pidfd)
            self._log = -1

    def log_tail(self) -> bytes:
        """The end of what it printed; the log is emptied."""
        size = os.fstat(self._log).st_size
        if not size:
            return b""
        tail = os.pread(self._log, limits.LOG_TAIL_BYTES, max(0, size - limits.LOG_TAIL_BYTES))
        os.ftruncate(self._log, 0)
        return tail

    def trim_log(self) -> None:
        """Keep a handler that prints without end from filling the memory with it."""
        size = os.fstat(self._log).st_size
        if size > _LOG_BYTES_KEPT:
            tail = self.log_tail()
            os.write(self._log, tail)

    def memory_mb(self) -> float:
        """The memory resident now, in MiB, with that of all processes it started."""
        return sum(_resident_mb(pid) for pid in _family(self.pid))


def _append_only(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from _family(int(child))
