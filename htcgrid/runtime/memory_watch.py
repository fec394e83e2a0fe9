"""One thread that decides for all environments with long tasks when they must check their memory and their log.

A process grows only while it runs, and a processor can fill only so much memory in a second. So an environment is not woken
where its process has not run since the last look, or too little to come near its limit: a read of 3 microseconds shows that,
while counting memory takes 250. A process with threads or children is looked at whenever one of them has run.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from htcgrid.runtime import process_memory

SHORT_SECONDS = 0.05
"""A task that takes less time than this is not watched."""
QUIET_SECONDS = 60.0
"""How often a watched environment checks without being woken."""
_TICK_SECONDS = 0.05
_LONGEST_SECONDS = 0.25
_IDLE_SECONDS = 1.0
"""How long the thread continues to check when nothing is watched: a wake-up for each of many short tasks would cost more."""
_GROWTH_MB = 2048.0
"""How much memory a processor can fill in a second, at most."""
_READ_BYTES = 1024
_UNREAD_BYTES = 16_384
"""A quarter of what a log holds where it cannot be made larger."""


class Watched(Protocol):
    """An environment as its watcher sees it."""

    def look_now(self) -> None:
        """Make the thread that supervises it check its memory and read its log. Another thread calls it."""
        ...

    def unread_bytes(self) -> int:
        """How many printed bytes are not read yet: it waits when its log is full. Another thread calls it."""
        ...


class Process:
    """What is known of one process that is watched. `lock` is held for all calls, since two threads make them."""

    def __init__(self, watched: Watched, pid: int, limit_mb: float) -> None:
        self.watched = watched
        self.due = 0.0
        self.lock = threading.Lock()
        self._pid = pid
        self._limit_mb = limit_mb
        self._used_mb = 0.0
        self._ran_ns = 0
        """At the last check."""
        self._stamp = b""
        self._is_simple = False
        """Whether it is one process with one thread."""
        try:
            self._file = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended, or the kernel does not count
            self._file = -1

    def begin_look(self) -> None:
        """Note how long it has run, before its memory is counted: growth during the count must show as running later."""
        self._stamp, self._is_simple = self._read(), _is_simple(self._pid)
        self._ran_ns = _ran_ns(self._stamp)
        if not self._is_simple:
            self._stamp = _stamp_of_all(self._pid)

    def end_look(self, used_mb: float) -> None:
        self._used_mb = used_mb

    def needs_look(self, now: float) -> bool:
        """Whether it may have come near its limit; asked again when it is `due`."""
        left = max(0.0, self._limit_mb - self._used_mb)
        stamp = self._read() if self._is_simple else _stamp_of_all(self._pid)
        grown = (_ran_ns(stamp) - self._ran_ns) / 1e9 * _GROWTH_MB if self._is_simple and self._ran_ns else 0.0
        seconds = max(_TICK_SECONDS, min((left - grown) / _GROWTH_MB, _LONGEST_SECONDS))
        self.due = now + seconds - _TICK_SECONDS / 2
        # One that waits for its log to be read does not run, either.
        if not stamp or not self._ran_ns or self.watched.unread_bytes() >= _UNREAD_BYTES:
            return True
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        if not self._is_simple:
            self.due = now  # what its children grow by is not known from their time
        return not self._is_simple or grown > left / 2 or not _is_simple(self._pid)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> bytes:
        if self._file < 0:
            return b""
        with suppress(OSError):
            return os.pread(self._file, _READ_BYTES, 0)
        return b""


class MemoryWatch:
    """The thread, and what it watches. Any thread may call anything.

    No call waits while a process is looked at: that reads files, and a thread that has read waits for its turn behind those
    of hundreds of environments. So what they do for each task takes no lock; a dict's own calls are atomic.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        """For the thread's sleep, its start and its end."""
        self._processes: dict[int, Process] = {}
        self._active: dict[int, Process] = {}
        self._thread: threading.Thread | None = None
        self._left = 0.0
        """When something was watched last."""
        self._is_asleep = self._is_closed = False

    @property
    def size(self) -> int:
        """How many environments may be entered."""
        return len(self._processes)

    def add(self, watched: Watched, pid: int, limit_mb: float) -> None:
        """It may be entered from now on. Raises `RuntimeError` where no further thread can be started."""
        with self._lock:
            if self._thread is None:  # here, where an error is that of the environment's start
                thread = threading.Thread(target=self._run, name="htcgrid-memory-watch", daemon=True)
                thread.start()
                self._thread = thread
            self._processes[id(watched)] = Process(watched, pid, limit_mb)

    def enter(self, watched: Watched) -> None:
        """It waits for a long task: watch it."""
        process = self._processes.get(id(watched))
        if process is None or id(watched) in self._active:
            return
        # The `due` of the last check stays valid: it assumes the fastest growth.
        process.due = max(process.due, time.monotonic() + _TICK_SECONDS)
        self._active[id(watched)] = process
        if id(watched) not in self._processes:  # removed meanwhile, by another thread
            self._active.pop(id(watched), None)
        if self._is_asleep:  # which is said before it looks whether anything is watched
            with self._lock:
                self._lock.notify()

    def leave(self, watched: Watched) -> None:
        self._active.pop(id(watched), None)
        self._left = time.monotonic()

    def begin_look(self, watched: Watched) -> None:
        """It is about to count its memory."""
        if (process := self._processes.get(id(watched))) is not None:
            with process.lock:
                process.begin_look()

    def end_look(self, watched: Watched, used_mb: float) -> None:
        """It has counted, and uses so much."""
        if (process := self._processes.get(id(watched))) is not None:
            with process.lock:
                process.end_look(used_mb)

    def remove(self, watched: Watched) -> None:
        """The environment has ended: remove it. It is not looked at any more when this returns."""
        process = self._processes.pop(id(watched), None)
        self._active.pop(id(watched), None)
        if process is not None:
            with process.lock:
                process.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_closed:
                    self._is_asleep = time.monotonic() - self._left > _IDLE_SECONDS  # before it looks: see `enter`
                    self._is_asleep = self._is_asleep and not self._active
                    self._lock.wait(None if self._is_asleep else _TICK_SECONDS)
                    self._is_asleep = False
                if self._is_closed:
                    return
            now = time.monotonic()
            for key, process in list(self._active.items()):
                if process.due <= now:
                    with process.lock:  # `remove` waits for it
                        if self._active.get(key) is process and process.needs_look(now):
                            process.watched.look_now()


def _ran_ns(stamp: bytes) -> int:
    return int(stamp.split(None, 1)[0]) if stamp else 0


def _is_simple(pid: int) -> bool:
    """Whether it is one thread without children."""
    try:
        threads = os.stat(f"/proc/{pid}/task").st_nlink - 2  # noqa: PTH116 - often
        children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return threads == 1 and not os.read(children, 1)
    except OSError:
        return False
    finally:
        os.close(children)


def _stamp_of_all(pid: int) -> bytes:
    """What changes when any thread of it or of its descendants has run; empty where it cannot be read.

    It cannot where this process may open no further file. The supervisor, which is then asked to count, says so.
    """
    stamps: list[bytes] = []
    try:
        for each in process_memory.family(pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                stamps += [(thread / "schedstat").read_bytes() for thread in Path(f"/proc/{each}/task").iterdir()]
    except OSError:
        return b""
    return b"".join(stamps)
