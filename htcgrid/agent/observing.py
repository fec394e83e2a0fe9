"""Passes observations to observers: each has a bounded queue and a thread, so that none can slow or stop the agent."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from htcgrid.spi import HtcgridError, Observation, Observer, Observers, TraceContext

log = logging.getLogger(__name__)

MOST_TASKS = 200_000
"""Observations of at most this many tasks wait for one observer; more are dropped."""
MOST_BYTES = 16 << 20
"""The same for the bytes of events and answers that they keep in memory. An event counts only in `Received`: events that
only later observations refer to are still held by the agent itself."""
_LINGER_SECONDS = 0.05
"""How long an observation waits for others: waking a thread for each takes processor time from the agent's threads."""
_ERRORS = 10
"""After this many errors in a row an observer is told nothing more."""
_CLOSE_SECONDS = 2.0
"""The seconds that all observers together have at the end of a run, for waiting observations and for `close`."""


class Observing(Observers):
    """Opens observers by their names, passes observations to them, and closes them within a limited time."""

    def __init__(self, observers: Mapping[str, Observer]) -> None:
        self._threads = [_ObserverThread(name, observer) for name, observer in observers.items()]
        self._observers = list(observers.values())
        self.is_watched = bool(observers)
        self.scrape_ports = [each.scrape_port for each in observers.values() if each.scrape_port is not None]

    def tell(self, observation: Observation) -> None:
        tasks, size = observation.size()
        for thread in self._threads:
            thread.add(observation, tasks, size)

    def __enter__(self) -> Self:
        for number, thread in enumerate(self._threads):
            try:
                thread.open()
            except BaseException:
                self._close(self._threads[:number])
                raise
        self.trace = next((each.trace for each in self._observers if each.trace is not None), None)
        return self

    def session_trace(self, session: str) -> TraceContext | None:
        return next((trace for each in self._observers if (trace := each.session_trace(session)) is not None), None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(self._threads)

    def _close(self, threads: Sequence["_ObserverThread"]) -> None:
        for thread in threads:
            thread.end()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class _ObserverThread:
    """One observer with its queue. Any thread may call `add`."""

    def __init__(self, name: str, observer: Observer) -> None:
        self._name = name
        self._observer = observer
        self._waiting: deque[tuple[Observation, int, int]] = deque()
        self._tasks = self._bytes = 0
        """Tasks and bytes of the observations that wait or are being passed on now."""
        self._lock = threading.Lock()
        self._work, self._hurry = threading.Event(), threading.Event()
        self._is_ending = self._is_off = False
        self._errors = self._errors_in_a_row = 0
        self._thread = threading.Thread(target=self._run, name=f"htcgrid-observer-{name}", daemon=True)

    def open(self) -> None:
        try:
            self._observer.open()
        except BaseException:
            self._observer.close()
            raise
        self._thread.start()

    def add(self, observation: Observation, tasks: int, size: int) -> None:
        """Queue this observation. It is dropped if it does not fit; an empty queue takes any."""
        with self._lock:
            is_full = self._tasks + tasks > MOST_TASKS or self._bytes + size > MOST_BYTES
            if self._is_off or (is_full and self._tasks):
                self._observer.dropped += tasks
                return
            self._waiting.append((observation, tasks, size))
            self._tasks += tasks
            self._bytes += size
            is_half_full = self._tasks > MOST_TASKS // 2 or self._bytes > MOST_BYTES // 2
        if not self._work.is_set():
            self._work.set()
        if is_half_full and not self._hurry.is_set():
            self._hurry.set()

    def end(self) -> None:
        """No more observations come."""
        self._is_ending = True
        self._work.set()
        self._hurry.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            with self._lock:
                self._is_off = True
                self._observer.dropped += self._tasks
            log.warning(
                "The observer %r was still busy %g s after the end of the run, which ended without it.",
                self._name,
                _CLOSE_SECONDS,
            )
        if self._observer.dropped:
            log.warning(
                "The observer %r was not told of everything: observations of %s tasks were dropped, because it was slower "
                "than the agent or raised errors. What it shows is too low.",
                self._name,
                f"{self._observer.dropped:,}",
            )
        elif self._errors:
            log.warning("The observer %r raised %d errors in all.", self._name, self._errors)

    def _run(self) -> None:
        while self._waiting or not self._is_ending:
            self._work.wait()
            if not self._is_ending:
                self._hurry.wait(_LINGER_SECONDS)
            self._hurry.clear()
            self._work.clear()
            self._pass_on()
            if self._is_ending:
                self._work.set()
        try:
            self._observer.close()
        except BaseException as error:  # noqa: BLE001 - an observer does not change how the run has ended
            self._complain(error)

    def _pass_on(self) -> None:
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not taken:
            return
        tasks, size = sum([each[1] for each in taken]), sum([each[2] for each in taken])
        try:
            self._observer.observe([observation for observation, _, _ in taken])
        except BaseException as error:  # noqa: BLE001 - an observer's error does not end the run
            self._complain(error)
            with self._lock:
                self._observer.dropped += tasks
        else:
            self._errors_in_a_row = 0
        with self._lock:
            self._tasks -= tasks
            self._bytes -= size

    def _complain(self, error: BaseException) -> None:
        self._errors += 1
        self._errors_in_a_row += 1
        if self._errors == 1:
            log.warning(
                "The observer %r raised an error, which does not affect the run. Further errors are only counted: %s",
                self._name,
                error if isinstance(error, HtcgridError) else repr(error),
                exc_info=None if isinstance(error, HtcgridError) else error,
            )
        if self._errors_in_a_row == _ERRORS:
            self._is_off = True
            log.warning("The observer %r raised %d errors in a row and is told nothing more.", self._name, _ERRORS)
