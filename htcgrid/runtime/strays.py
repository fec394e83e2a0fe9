"""Finds and ends processes that lost all their supervisors at once, by a variable that they were started with."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_SECONDS = 1.0
"""How long they have to end by themselves: a supervisor that still lives lets them remove their shared memory."""
_PAUSE_SECONDS = 0.02


def end(home: str) -> None:
    """End all processes that were started with this folder as HOME, and all that they start meanwhile."""
    deadline = time.monotonic() + _SECONDS
    while found := _started_with(f"HOME={home}".encode()):
        if time.monotonic() > deadline:
            for pidfd in found:
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in found:
            os.close(pidfd)
        if time.monotonic() > deadline + _SECONDS:
            break  # this user may not signal the others
        time.sleep(_PAUSE_SECONDS)


def _started_with(variable: bytes) -> Sequence[int]:
    """A pidfd for each process that has this among the variables of its start."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(int(folder.name))
                # It is read after the pidfd is opened, so that both are of the same process.
                if variable in _environ(folder):
                    found.append(pidfd)
                else:
                    os.close(pidfd)
    return found


def _environ(process: Path) -> Sequence[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ()
