"""The descriptor that results are written to: opened, locked, written whole and synced."""

import fcntl
import os
import sys
from collections.abc import Sequence

from htcgrid.spi import Rejected

_PIECES_AT_ONCE = 1024
"""The most pieces that one call of the system takes (IOV_MAX)."""


def locked(path: str) -> int:
    """The file of that name, locked. `BlockingIOError` where another has it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours, there = os.fstat(fd), os.stat(path)  # noqa: PTH116 - once a run
        except BaseException:
            os.close(fd)
            raise
        if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
            return fd
        os.close(fd)  # another run has put a new file in its place, between the two


def standard_output() -> int:
    """A descriptor of its own for it."""
    if sys.stdout is not None:
        sys.stdout.flush()
        fd = os.dup(sys.stdout.fileno())
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            return fd
        os.close(fd)
    raise Rejected('[sink] path = "-": standard output is closed. Name a file, or give standard output a reader.')


def synchronise(fd: int) -> None:
    """Have what was written on the disk; macOS has no call for the data alone."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)


def write_all(fd: int, pieces: Sequence[bytes]) -> None:
    """In as few calls as the system takes them in."""
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        views = [memoryview(piece) for piece in pieces[start : start + _PIECES_AT_ONCE]]
        while views:
            written = os.writev(fd, views) if len(views) > 1 else os.write(fd, views[0])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if views:
                views[0] = views[0][written:]
