"""How the processes of one machine tell each other that a SQLite file has changed: the writer touches the log beside it.

A touch is seen by inotify, needs no right but that to write the file, leaves nothing behind, and costs 2 microseconds. The
writes themselves are not a sign: they come before the disk has them, and what they write can be read only after that.
"""

import ctypes
import errno
import logging
import os
import select
import threading
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
"""How often to look where nothing reports changes: a look takes 16 microseconds, and an idle agent 1 % of a core."""
SELDOM_SECONDS = 0.1
"""How often to look where inotify reports changes: other programs may change the file without a touch."""
_IN_ATTRIB = 0x4
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC
_EVENT_BYTES = 4096


class Changes:
    """Counts the changes of a file that this process is notified of. Any thread may call anything."""

    def __init__(self, watched: Path) -> None:
        self._watched = watched
        self._changed = threading.Condition()
        self._number = 0
        self._fd = self._wakeup = -1
        self._is_read = False
        """Whether a thread waits for inotify now; other threads wait for that thread."""

    @property
    def number(self) -> int:
        """The number of the last change. Ask for it before a look at the file, and give it to `wait` after the look."""
        return self._number

    @property
    def look_seconds(self) -> float:
        return SELDOM_SECONDS if self._fd >= 0 else POLL_SECONDS

    def open(self) -> None:
        try:
            self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._fd = _watch(self._watched)
        except OSError as error:
            log.warning(
                "%s cannot be watched: %s. Other processes' changes are looked for every %g ms.%s",
                *(self._watched, error.strerror or error, POLL_SECONDS * 1000),
                " Raise `sysctl fs.inotify.max_user_instances`." if error.errno == errno.EMFILE else "",
            )

    def close(self) -> None:
        with self._changed:
            for fd in (self._fd, self._wakeup):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._wakeup = -1
            self._changed.notify_all()

    def tell(self, *, others: bool) -> None:
        """This process has changed something; `others` are told too."""
        if others:
            with suppress(OSError):  # they see it when they look
                os.utime(self._watched)
        with self._changed:
            self._number += 1
            self._changed.notify_all()
            if self._is_read and self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def wait(self, number: int, seconds: float) -> int:
        """Wait for a change after that number, `seconds` at most; returns the number of the last change."""
        deadline = time.monotonic() + seconds
        while self._number == number and (left := deadline - time.monotonic()) > 0:
            self._wait_once(number, left)
        return self._number

    def _wait_once(self, number: int, seconds: float) -> None:
        """Until inotify or another thread reports something. Ctrl-C may raise anywhere in here."""
        is_reader = False
        readable: list[int] = []
        try:
            with self._changed:
                if self._number != number:
                    return
                if self._fd < 0 or self._is_read:
                    self._changed.wait(seconds)
                    return
                is_reader = self._is_read = True
                poll = select.poll()
                for fd in (self._fd, self._wakeup):
                    poll.register(fd, select.POLLIN)
            readable = [fd for fd, _ in poll.poll(seconds * 1000)]
        finally:
            if is_reader:
                self._end_read(readable)

    def _end_read(self, readable: list[int]) -> None:
        with self._changed:
            self._is_read = False
            self._number += self._fd in readable
            for fd in {self._fd, self._wakeup}.intersection(readable):
                with suppress(BlockingIOError):
                    os.read(fd, _EVENT_BYTES)
            self._changed.notify_all()


def _watch(path: Path) -> int:
    """A descriptor that is readable once the file was touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if libc.inotify_add_watch(fd, os.fsencode(path), _IN_ATTRIB) < 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, os.strerror(number))
    return int(fd)
