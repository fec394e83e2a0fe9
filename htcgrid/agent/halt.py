"""How a run is asked to stop, and why it did."""

import threading
import time


class Halt:
    """Set once from any thread; every thread of the agent looks at it."""

    def __init__(self) -> None:
        self._draining = threading.Event()
        self._lock = threading.Lock()
        self.error: BaseException | None = None
        self.deadline = float("inf")

    def drain(self, grace: float) -> None:
        """Take nothing more; what runs has `grace` seconds from now. A shorter grace later wins."""
        with self._lock:
            self.deadline = min(self.deadline, time.monotonic() + grace)
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
