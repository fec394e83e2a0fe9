"""How a run is asked to stop, and why it did."""

import threading
import time


class Shutdown:
    """Asked for from any thread or a signal handler; every thread of the agent looks at it."""

    def __init__(self) -> None:
        self._draining = threading.Event()
        self._lock = threading.RLock()
        """A signal may come while the handler of another is in here, in the same thread."""
        self._is_asked = False
        self.error: BaseException | None = None
        self._deadlines = [float("inf")]

    @property
    def deadline(self) -> float:
        """On the monotonic clock, when the grace time is over."""
        return min(self._deadlines)

    def drain(self, grace: float) -> None:
        """Take nothing more; what runs has `grace` seconds from now. A shorter grace later wins."""
        self._deadlines.append(time.monotonic() + grace)
        with self._lock:
            # Only once: a handler that interrupts `Event.set` would wait for ever in its own `Event.set`.
            if not self._is_asked:
                self._is_asked = True
                self._draining.set()

    def fail(self, error: BaseException, grace: float) -> None:
        """Drain because of an error; the first one is kept."""
        with self._lock:
            if self.error is None:
                self.error = error
        self.drain(grace)

    def is_set(self) -> bool:
        return self._draining.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until asked to stop; says whether it was."""
        return self._draining.wait(seconds)
