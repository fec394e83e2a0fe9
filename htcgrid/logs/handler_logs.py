"""What handlers print, from the planes' threads through a bounded buffer to one thread that writes it."""

import logging
import math
import threading
import time
from collections.abc import Callable

from htcgrid.logs.line_format import JsonLines
from htcgrid.logs.targets import Target
from htcgrid.spi import STDOUT_OR_STDERR, HandlerOutput, Lease

log = logging.getLogger(__name__)

_MOST_BYTES = 8 << 20
"""What waits to be written at most. A thread that has more waits, and the handler's pipe fills."""
_GATHER_SECONDS = 0.02
_HURRY_BYTES = 1 << 20
_LOOK_SECONDS = 0.1
_LAST_SECONDS = 2.0
"""How long the end of a run waits for a reader that does not read."""

_REPORT_AGAIN_SECONDS = 600.0

Format = Callable[[Lease | None, str, bytes, str], tuple[str, int]]


class HandlerLogs(HandlerOutput):
    """Takes lines from any thread. `close` writes the rest.

    A target that cannot be written, such as a full disk, is reported once in ten minutes and tried again with what comes next;
    what it did not take is counted and reported at the end. The run goes on.
    """

    is_wanted = True

    def __init__(self, target: Target, form: Format | None = None) -> None:
        self._target = target
        self._form = form or JsonLines()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting: list[str] = []
        self._lines = self._bytes = self._lost = 0
        """Lines that wait, bytes that wait or are being written, and lines that were lost."""
        self._has_some, self._hurry = threading.Event(), threading.Event()
        self._is_closing = False
        self._report_again_at = 0.0
        self.deadline: Callable[[], float] = lambda: math.inf
        """On the monotonic clock: from then on nobody waits for room, and what finds none is lost."""
        self._thread = threading.Thread(target=self._run, name="htcgrid-handler-logs", daemon=True)
        self._thread.start()

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
        lines, number = self._form(lease, environment, text, stream)
        with self._lock:
            if self._bytes >= _MOST_BYTES and not self._has_room():
                self._lost += number
                return
            if not self._waiting:
                self._has_some.set()
            self._waiting.append(lines)
            self._lines += number
            self._bytes += len(lines)
            if self._bytes >= _HURRY_BYTES:
                self._hurry.set()

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return self._lines

    def settle(self) -> None:
        """Wait until what was given so far is written, where the reader takes it soon."""
        end = min(time.monotonic() + _LAST_SECONDS, self.deadline())
        self._hurry.set()
        with self._lock:
            while self._lines and (left := end - time.monotonic()) > 0:
                self._room.wait(left)

    def close(self) -> None:
        """Write what waits, and end. Where that is not taken in time, it is lost, which is reported."""
        with self._lock:
            self._is_closing = True
            self._has_some.set()
            self._hurry.set()
        self._thread.join(_LAST_SECONDS)
        with self._lock:
            lost = self._lost + (self._lines if self._thread.is_alive() else 0)
        if lost:
            log.warning("%s lines that handlers printed were not written to %s.", f"{lost:,}", self._target.name)
        if not self._thread.is_alive():
            self._target.close()

    def _has_room(self) -> bool:
        """Wait for it, as long as the agent may."""
        while self._bytes >= _MOST_BYTES:
            if self._is_closing or time.monotonic() >= self.deadline():
                return False
            self._room.wait(_LOOK_SECONDS)
        return True

    def _run(self) -> None:
        while True:
            self._has_some.wait()
            self._hurry.wait(_GATHER_SECONDS)
            with self._lock:
                batch, self._waiting = self._waiting, []
                self._has_some.clear()
                if not self._is_closing:
                    self._hurry.clear()
                elif not batch:
                    return
                else:
                    self._has_some.set()
                number = self._lines
            text = "".join(batch)
            is_lost = not self._put(text)
            with self._lock:
                self._lines -= number
                self._lost += number if is_lost else 0
                self._bytes -= len(text)
                self._room.notify_all()

    def _put(self, text: str) -> bool:
        try:
            self._target.put(text.encode())
        except Exception as error:  # noqa: BLE001 - of `sys.stdout`, which may be any object; without this thread the run would hang
            if time.monotonic() >= self._report_again_at:
                self._report_again_at = time.monotonic() + _REPORT_AGAIN_SECONDS
                log.error(  # noqa: TRY400 - the traceback says no more
                    "[agent] handler_logs: %s cannot be written: %s. The run goes on; what handlers print meanwhile is lost.",
                    self._target.name,
                    getattr(error, "strerror", None) or error,
                )
            return False
        return True
