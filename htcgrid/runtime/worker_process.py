"""A worker process as its supervisor sees it: log, memory, end."""

import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from htcgrid.runtime import process_memory, shared_files
from htcgrid.runtime.fork_server import ForkServer
from htcgrid.runtime.log_pipe import LOG_BYTES_AT_ONCE, LogPipe
from htcgrid.spi import Unavailable

_WORKING_SHARE = 0.25


class WorkerProcess:
    """A process of the fork server, in its own session. It prints into a pipe that is read here."""

    def __init__(self, fork_server: ForkServer, request: Mapping[str, Any], *fds: int) -> None:
        self._fork_server = fork_server
        # A pipe, as on AWS Lambda: a program that opens /dev/stdout anew cannot truncate it, as it could a file. It is read
        # while the handler runs, and keeps the last output of a process that is killed.
        self._shared_before = shared_files.present()
        ours, theirs = os.pipe()
        try:
            os.set_blocking(ours, False)
            _enlarge(theirs)
            self.pid, self._pidfd = fork_server.spawn(request, [theirs, ours, *fds])
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.log = LogPipe(ours)
        self._ended = select.poll()
        self._ended.register(self._pidfd, select.POLLIN)
        self._status: int | None = None
        self._reaping = threading.Lock()
        self._ran_ns, self._looked = 0, time.monotonic()

    @property
    def pidfd(self) -> int:
        """Readable once the process has ended."""
        return self._pidfd

    def has_ended(self) -> bool:
        return self._status is not None or bool(self._ended.poll(0))

    def kill(self) -> int:
        """End the process and all that it started; returns its exit status."""
        if self.has_ended():
            return self.status()
        left = shared_files.held(process_memory.family(self.pid), self._shared_before)
        # Only this process: when it is reaped, its descendants are ended, after Python's resource tracker has removed its
        # shared memory. If it has just ended, and the fork server too, it is reaped already.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        try:
            return self.status()
        finally:
            shared_files.remove(left)

    def status(self) -> int:
        """The exit status, waited for; a signal is negative."""
        with self._reaping:  # the plane may be closed by another thread than the one that waits for the answer
            if self._status is None:
                ended = select.poll()
                ended.register(self._pidfd, select.POLLIN)
                ended.poll()
                self._status = self._fork_server.reap(self.pid)
        return self._status

    def close(self) -> None:
        """End it and release what is held for it."""
        if self.log.descriptor >= 0:
            try:
                self.kill()
            except Unavailable:
                self._status = -signal.SIGKILL  # its parent, the fork server, has ended, and so has it
            if self.log.printed is not None:
                self.log.read()  # what it printed as it was ended
            self.log.close()
            os.close(self._pidfd)

    def read_piece(self) -> bytes:
        """One read of what it has printed."""
        return self.log.piece()

    def is_working(self) -> bool:
        """Whether it has used, or waited for, a good part of a processor since this was asked last."""
        ran_ns, now = sum(self._scheduled()), time.monotonic()
        share = (ran_ns - self._ran_ns) / 1e9 / max(now - self._looked, 1e-3)
        self._ran_ns, self._looked = ran_ns, now
        return share > _WORKING_SHARE

    def starved_seconds(self) -> float:
        """How long it waited for a processor."""
        return self._scheduled()[1] / 1e9

    def _scheduled(self) -> tuple[int, int]:
        """How long it ran, and how long it waited for a processor; in nanoseconds."""
        try:
            ran, waited, _ = Path(f"/proc/{self.pid}/schedstat").read_text().split()
        except (OSError, ValueError):  # it has ended, or the kernel does not count
            return 0, 0
        return int(ran), int(waited)

    def memory_mb(self) -> float:
        """An upper bound of what a control group would count now, in MiB, for the process and all that it started."""
        return process_memory.at_most_mb(self.pid)

    def charged_mb(self) -> float:
        """The same as exactly as possible, which takes longer."""
        return process_memory.charged_mb(self.pid, is_shared=self._fork_server.has_module)


def _enlarge(pipe: int) -> None:
    with suppress(PermissionError):  # above what the machine allows one user; the usual size works as well
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, LOG_BYTES_AT_ONCE)
