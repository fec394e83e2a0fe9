"""How a run is asked to stop, and why it did."""

import threading
import time


class Shutdown:
    """The request to stop. Any thread or signal handler may make it; every thread of the agent reads it."""

    def __init__(self) -> None:
        self._draining = threading.Event()
        self._lock = threading.RLock()
        """Reentrant: a signal may come while the handler of another signal holds it, in the same thread."""
        self._is_asked = False
        self.error: BaseException | None = None
        self._deadlines = [float("inf")]

    @property
    def deadline(self) -> float:
        """The end of the grace time on the monotonic clock."""
        return min(self._deadlines)

    def drain(self, grace: float) -> None:
        """Receive no more tasks; running ones have `grace` seconds from now. A later call can only shorten it."""
        self._deadlines.append(time.monotonic() + grace)
        with self._lock:
            # Only once: a handler that interrupts `Event.set` would wait for ever in its own `Event.set`.
            if not self._is_asked:
                self._is_asked = True
                self._draining.set()

    def fail(self, error: BaseException, grace: float) -> None:
        """Drain because of an error; the first error is kept."""
        with self._lock:
            if self.error is None:
                self.error = error
        self.drain(grace)

    def is_set(self) -> bool:
        return self._draining.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait this long, or until a stop is requested; returns whether it was."""
        return self._draining.wait(seconds)
