"""Trying again, in one place for all plugins."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from htcgrid.agent.halt import Halt
from htcgrid.agent.policy import back_off
from htcgrid.spi import Unavailable

T = TypeVar("T")


class Patience:
    """Counts how often in a row, and for how long, something was unavailable."""

    def __init__(self, halt: Halt, limit: float, report: Callable[[str], None]) -> None:
        self._halt = halt
        self._limit = limit
        self._report = report
        self._failures = 0
        self._since = 0.0

    def call(self, attempt: Callable[[], T]) -> T:
        """Call until it is not unavailable; gives up as `wait` does."""
        while True:
            try:
                value = attempt()
            except Unavailable as error:
                self.wait(error)
            else:
                self.reset()
                return value

    def reset(self) -> None:
        self._failures = 0

    def wait(self, error: Unavailable) -> None:
        """Wait as long as the service asked or the back-off says.

        Raises the error itself once it has lasted for the limit, or while the agent drains past its grace.
        """
        now = time.monotonic()
        if self._failures == 0:
            self._since = now
        self._failures += 1
        if now - self._since > self._limit or now > self._halt.deadline:
            raise error
        seconds = back_off(self._failures, random.random())  # noqa: S311 - jitter, not a secret
        seconds = max(seconds, error.retry_after or 0.0)
        self._report(f"{error} Trying again in {seconds:.1f} s.")
        if self._halt.is_set():
            time.sleep(min(seconds, 0.2))  # a drain has little time, and results to store
        else:
            self._halt.wait(seconds)
