"""Starts execution environments, by way of a program that all of them are forked from."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from htcgrid.spi import Unavailable

INHERITED = ("HOME", "LD_LIBRARY_PATH", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "USER", "VIRTUAL_ENV")
"""What an environment gets of the agent's own variables. Credentials are not among them."""


class Nursery:
    """A handle on `nursery_main`. Calls may come from any thread; it serves them one by one."""

    def __init__(self, environment: Mapping[str, str], keep: Sequence[str] = INHERITED, *, python: bool = True) -> None:
        self._setup = {"environment": dict(environment), "keep": list(keep), "python": python}
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._program: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Not one of the three standard ones, which are free where the program that we are part of has closed them.
        fd = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        theirs.close()
        try:
            # -P: a file in the current folder must not stand in for a module of the standard library.
            command = [sys.executable, "-P", "-X", "utf8", "-m", "htcgrid.runtime.nursery_main", str(fd)]
            nothing = subprocess.DEVNULL
            errors = None if _is_inheritable(2) else nothing
            self._program = subprocess.Popen(command, pass_fds=[fd], stdin=nothing, stdout=nothing, stderr=errors)
        finally:
            os.close(fd)
        self._control = ours
        ours.send(json.dumps({"setup": self._setup}).encode())

    def spawn(self, request: Mapping[str, Any], fds: Sequence[int]) -> tuple[int, int]:
        """Start an environment; returns its process id and a pidfd. `fds` are its log, channel and page."""
        with self._lock:
            pid = self._ask({"spawn": request}, fds)["pid"]
            # It cannot have been reaped yet, so the id is still its own even if it has ended.
            return pid, os.pidfd_open(pid)

    def reap(self, pid: int) -> int:
        """The exit status of an environment whose pidfd says it has ended; a signal is negative."""
        with self._lock:
            return int(self._ask({"reap": pid})["status"])

    def has_ended(self) -> bool:
        """Whether the program is there no more; another nursery is needed then."""
        return self._program is None or self._program.poll() is not None

    def close(self) -> None:
        """End every environment and wait for that."""
        with self._lock:  # a call under way has its answer first, or hears that the program has ended
            if self._control is not None:
                self._control.close()
                self._control = None
        if self._program is not None:
            self._program.wait()

    def _ask(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        if self._control is None:
            if self._program is not None and self._program.returncode:
                raise self._end()  # another thread has closed it because it had ended
            raise Unavailable("The process plane is closed.")
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(fds))
            reply = self._receive()
        except (BrokenPipeError, ConnectionResetError):
            reply = b""
        except BaseException:
            # Interrupted, as by Ctrl-C: the reply that still comes would be taken for that to the next request.
            self._control.close()
            self._control = None
            raise
        if not reply:
            raise self._end()
        answer: dict[str, Any] = json.loads(reply)
        return answer

    def _end(self) -> Unavailable:
        status = self._program.wait() if self._program else None
        return Unavailable(f"The program that workers are forked from has ended (status {status}); was it killed?")

    def _receive(self) -> bytes:
        assert self._control is not None  # noqa: S101 - _ask has checked
        reply = self._control.recv(1 << 16)
        if reply == b"{}":  # the answer to `setup`, which nobody waited for
            reply = self._control.recv(1 << 16)
        return reply


def _is_inheritable(fd: int) -> bool:
    """Whether it is open and meant for programs that are started: a file of ours that has its number is not."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
