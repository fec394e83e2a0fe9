"""A plain subprocess as a sandbox, on any system of the POSIX family: for where the fork server, which needs Linux, cannot run.

Its end is seen and its time is kept. What it lacks: nothing measures or limits memory, a process that leaves the group of
its parent outlives it, and an agent that is killed leaves what runs to end by itself, once it finds nobody to answer to.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from htcgrid.runtime.sandbox import Sandbox
from htcgrid.spi import NOT_TOLD_APART, Unavailable, limits

_READ_BYTES = 1 << 16
_MOST_READ_BYTES = 1 << 20
"""How much is read before anything else is seen to."""
_MUCH_BYTES = 1 << 12
"""Where a look finds as much as this, the next comes soon: some systems let a pipe hold 16 KiB only."""


class PlainSandbox(Sandbox):
    """A program in a session of its own, which prints into a pipe."""

    def __init__(self, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> None:
        self._command = list(command)
        self._folder = folder
        self._variables = dict(variables)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = -1
        self._tail = b""
        self._is_chatty = False

    def start(self, variables: Mapping[str, str]) -> None:
        self._log, theirs = os.pipe()
        os.set_blocking(self._log, False)
        try:
            self._process = subprocess.Popen(
                self._command,
                env=self._variables | dict(variables),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"No worker process can be started: {error.strerror or error}.") from error
        finally:
            os.close(theirs)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None  # noqa: S101 - from `start` on
        return self._process

    def has_ended(self) -> bool:
        if self.process.returncode is None and self.process.poll() is not None:
            self._end_group()  # at once: the number is not another's while a process of the group is left
        return self.process.returncode is not None

    def end(self) -> int:
        if not self.has_ended():
            self._end_group()
            self.process.wait()
        return self.process.returncode

    def close(self) -> None:
        if self._process is not None:
            self.end()
            self._read_log()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def log_tail(self) -> bytes:
        self._read_log()
        tail, self._tail = self._tail, b""
        return tail

    def memory_mb(self) -> float:
        """0: it is not measured. The log is read, so that a handler that prints much does not wait."""
        self._read_log()
        return 0.0

    def is_chatty(self) -> bool:
        return self._is_chatty

    def _end_group(self) -> None:
        # macOS says "not permitted" of a group in which all have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read_log(self) -> None:
        size = 0
        while self._log >= 0 and size < _MOST_READ_BYTES and (piece := self._piece()):
            size += len(piece)
            self._tail = (self._tail + piece)[-limits.LOG_TAIL_BYTES :]
            if self.printed is not None:
                self.printed(piece, NOT_TOLD_APART)
        self._is_chatty = size > _MUCH_BYTES

    def _piece(self) -> bytes:
        try:
            return os.read(self._log, _READ_BYTES)
        except BlockingIOError:
            return b""
