"""The file descriptor that results are written to: opening, locking, writing and syncing it."""

import fcntl
import os
import sys
from collections.abc import Sequence

from htcgrid.spi import Rejected

_PIECES_AT_ONCE = 1024
"""The most pieces that one system call accepts (IOV_MAX)."""


def locked(path: str) -> int:
    """The file of that name, locked. Raises `BlockingIOError` if another process has locked it."""
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
        os.close(fd)  # between `open` and `flock` another run has replaced the file


def standard_output() -> int:
    """A new descriptor of standard output."""
    if sys.stdout is not None:
        sys.stdout.flush()
        fd = os.dup(sys.stdout.fileno())
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            return fd
        os.close(fd)
    raise Rejected('[sink] path = "-": standard output is closed. Name a file, or give standard output a reader.')


def synchronise(fd: int) -> None:
    """Wait until the written data is on the disk. macOS has no `fdatasync`."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)


def write_all(fd: int, pieces: Sequence[bytes]) -> None:
    """Write all pieces, in as few system calls as possible."""
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        views = [memoryview(piece) for piece in pieces[start : start + _PIECES_AT_ONCE]]
        while views:
            written = os.writev(fd, views) if len(views) > 1 else os.write(fd, views[0])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if views:
                views[0] = views[0][written:]
