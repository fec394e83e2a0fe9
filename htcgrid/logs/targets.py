"""Where lines are written to. One thread calls."""

import os
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from htcgrid.spi import Rejected


class Target(Protocol):
    """Takes whole lines. Waits while whoever reads is slow."""

    name: str
    """As it is named in messages."""

    def put(self, lines: bytes) -> None:
        """Write these, all or, where it raises `OSError`, none of them as far as that can be had."""

    def close(self) -> None:
        """Release everything."""


class DescriptorTarget:
    """Standard output, also where another program that shares it has made it non-blocking."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name

    def put(self, lines: bytes) -> None:
        view = memoryview(lines)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])

    def close(self) -> None:
        """It is not ours to close."""


class TextTarget:
    """`sys.stdout` or `sys.stderr` of a program, as it is at the time: a notebook or a test has one of its own."""

    def __init__(self, name: str) -> None:
        self.name = f"sys.{name}"
        self._attribute = name

    def put(self, lines: bytes) -> None:
        stream = getattr(sys, self._attribute)
        stream.write(lines.decode())
        stream.flush()

    def close(self) -> None:
        """It is not ours to close."""


class FolderTarget:
    """Files of a folder: a new one after so many bytes; with a number of files, the oldest of this agent are removed."""

    def __init__(self, folder: Path, most_bytes: int, most_files: int) -> None:
        self.name = str(folder)
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_files = most_files
        # Agents of several machines may share the folder, and process ids come again.
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._stem = f"handlers-{began}-{socket.gethostname()}-{os.getpid()}"
        self._files: list[Path] = []
        self._made = 0
        self._file = -1
        self._size = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._next()
        except OSError as error:
            raise Rejected(
                f"[agent] handler_logs = {str(folder)!r}: no file can be made there: {error.strerror}. Name a folder that "
                "this user may write into."
            ) from None

    def put(self, lines: bytes) -> None:
        if self._file < 0 or self._size >= self._most_bytes:
            self._next()
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # half a line would spoil the next one
            raise
        self._size += len(lines)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _next(self) -> None:
        self.close()
        # What handlers print may be secret.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        while self._file < 0:
            self._made += 1
            path = self._folder / f"{self._stem}-{self._made:04}.jsonl"
            with suppress(FileExistsError):  # of this process too: a program may open two grids in one second
                self._file, self._size = os.open(path, flags, 0o600), 0
        self._files.append(path)
        while self._most_files and len(self._files) > self._most_files:
            self._files.pop(0).unlink(missing_ok=True)
