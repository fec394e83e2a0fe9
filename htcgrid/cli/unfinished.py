"""The session of an interrupted submit, so that the same command completes it."""

import fcntl
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path

from htcgrid.cli.queue_and_store import say


class Unfinished:
    """A note beside the file of events. It exists from before the first task is put until after the last is put."""

    def __init__(self, events: str, *options: object) -> None:
        self._path: Path | None = None
        self._command: list[object] = []
        with suppress(OSError, ValueError):  # the reader of the events reports what is wrong with them
            file = Path(events).resolve()
            if file.is_file():  # a pipe, such as /dev/stdin, cannot be given again
                there = file.stat()
                self._path = file.with_name(f".{file.name}.submit")
                self._command = [there.st_size, there.st_mtime_ns, *options]
        self._fd = -1
        self._is_announced = False
        self.session = self._found() or str(uuid.uuid4())

    def _found(self) -> str | None:
        if self._path is None:
            return None
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            session, *command = json.loads(os.pread(fd, 1 << 16, 0))
        except (
            OSError,
            ValueError,
            TypeError,
        ):  # another submit of this file is running, or it was killed while it wrote this
            os.close(fd)
            return None
        if command != self._command or not isinstance(session, str):
            say(
                f"session {session} was submitted in part, of a file, with options or into a queue that has changed since. This is a "
                f"new session; with --session {session} its tasks would be completed."
            )
            os.close(fd)
            return None
        say(f"continuing session {session}, which was submitted in part.")
        self._fd = fd
        return session

    def note(self) -> None:
        """Write the note; if that fails, tell the user how to complete an interrupted submit."""
        if self._fd >= 0 or self._is_announced:
            return
        if self._path is None:
            self._announce()
            return
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = json.dumps([self.session, *self._command]).encode()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)
            os.fsync(self._fd)
        except OSError:
            self._release()
            self._announce()

    def _announce(self) -> None:
        self._is_announced = True
        say(
            f"the session is {self.session}. If this is interrupted, the same command with --session {self.session} "
            "completes it."
        )

    def finish(self) -> None:
        """Remove the note: all tasks are in the queue, or none."""
        if self._path is not None and self._fd >= 0:
            with suppress(FileNotFoundError):
                self._path.unlink()
        self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
