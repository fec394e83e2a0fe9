"""A subprocess as a sandbox, on any POSIX system: for systems where the fork server, which needs Linux, cannot run.

Its end is detected and its timeout is enforced. What it lacks: memory is neither measured nor limited, a process that leaves the
group of its parent outlives it, and if the agent is killed a handler runs until it finds nobody to send its answer to.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from htcgrid.runtime.log_pipe import LogPipe
from htcgrid.runtime.sandbox import Sandbox
from htcgrid.spi import Unavailable

_PARENT = (sys.executable, "-I", "-S", str(Path(__file__).with_name("plain_parent.py")))
_MUCH_BYTES = 1 << 12
"""After a read of this much, the next read follows soon: on some systems a pipe holds only 16 KiB."""


class PlainSandbox(Sandbox):
    """A program in its own session, which prints into a pipe."""

    def __init__(self, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> None:
        self._command = list(command)
        self._folder = folder
        self._variables = dict(variables)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: LogPipe | None = None

    def start(self, variables: Mapping[str, str]) -> None:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self._log = LogPipe(ours, much=_MUCH_BYTES)
        self._log.printed = self.printed
        try:
            given = self._variables | dict(variables)
            self._process = subprocess.Popen(
                [*_PARENT, given.get("LC_CTYPE", ""), *self._command],
                env=given,
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

    @property
    def log(self) -> LogPipe:
        assert self._log is not None  # noqa: S101 - from `start` on
        return self._log

    def has_ended(self) -> bool:
        if self.process.returncode is None and self.process.poll() is not None:
            self._end_group()  # at once: while a process of the group is left, its number is not used again
        return self.process.returncode is not None

    def end(self) -> int:
        if not self.has_ended():
            self._end_group()
            self.process.wait()
        return self.process.returncode

    def close(self) -> None:
        if self._process is not None:
            self.end()
            self.log.read()
        if self._log is not None:
            self._log.close()

    def log_tail(self) -> bytes:
        return self.log.tail()

    def memory_mb(self) -> float:
        """0: it is not measured. The log is read, so that a handler that prints much does not wait."""
        self.log.read()
        return 0.0

    def is_chatty(self) -> bool:
        return self.log.is_chatty

    def _end_group(self) -> None:
        # macOS reports "not permitted" for a group whose processes have all ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
