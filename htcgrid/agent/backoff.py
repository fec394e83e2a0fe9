"""Trying again after `Unavailable`, in one place for all plugins."""

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from htcgrid.agent.policy import back_off
from htcgrid.agent.shutdown import Shutdown
from htcgrid.spi import Observers, PluginAvailable, PluginUnavailable, ResultSink, TaskSource, Throttled, Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

LONGEST_SECONDS = 30.0
"""The longest back-off."""

_THROTTLED_STEPS = 2
"""After a throttle the back-off begins two steps later: with 0.2 s, not with 0.05 s."""

_THROTTLED_SECONDS = 1.0
"""The longest back-off of a slot that is throttled, at first."""


class BackOff:
    """Counts how often in a row, and for how long, a plugin was unavailable. Only one thread may use it."""

    def __init__(
        self,
        shutdown: Shutdown,
        limit: float,
        report: Callable[[str], None],
        slack: float = 0.0,
        observers: Observers | None = None,
    ) -> None:
        self._shutdown = shutdown
        self._slack = slack
        """How many seconds after the grace time calls are still repeated."""
        self._limit = limit
        self._report = report
        self._observers = observers or Observers()
        self._failures = 0
        self._since = 0.0
        self._said = self._part = ""
        self.calling: Callable[..., Any] | None = None
        """The plugin's method that is being called, so that a message can name it if it does not return."""
        self._method: Callable[..., Any] | None = None

    def call(self, attempt: Callable[[], T], method: Callable[..., Any] | None = None) -> T:
        """Repeat `attempt` until it is not `Unavailable`; gives up as `wait` does. `method` is what `attempt` calls."""
        self._method = method
        while True:
            self.calling = method
            try:
                value = attempt()
            except Unavailable as error:
                self.calling = None
                self.wait(error)
            else:
                self.reset()
                return value
            finally:
                self.calling = None

    def reset(self) -> None:
        if self._failures:
            seconds = time.monotonic() - self._since
            log.info("Available again after %.1f s. It had said: %s", seconds, self._said)
            self._observers.tell(PluginAvailable(time.time(), self._part, seconds))
            self._failures = 0

    def forget_before(self, moment: float) -> None:
        """Start counting again if the first failure was before this moment on the monotonic clock."""
        if self._failures and self._since < moment:
            self._failures = 0

    def was_not_called_for(self, seconds: float) -> None:
        """It was not called for this time, so the time does not count as unavailable."""
        self._since += seconds

    def has_answered_others(self, moment: float) -> None:
        """It answered another caller at this moment, so it was available then. The back-off goes on growing."""
        self._since = max(self._since, moment)

    def longest_of_throttle(self) -> float:
        """The longest time that a slot waits after a throttle, which also lowers the number of slots.

        It is short, because the last slot must notice the end of the throttling; it grows to a quarter of its duration.
        """
        lasted = time.monotonic() - self._since if self._failures else 0.0
        return min(LONGEST_SECONDS, max(_THROTTLED_SECONDS, lasted / 4))

    def wait(self, error: Unavailable, longest: float = LONGEST_SECONDS, *, runs_others: bool = False) -> None:
        """Wait as `delay` says; a drain ends the wait."""
        seconds = self.delay(error, longest, runs_others=runs_others)
        if self._shutdown.is_set():
            time.sleep(seconds)
        else:
            self._shutdown.wait(seconds)

    def delay(self, error: Unavailable, longest: float = LONGEST_SECONDS, *, runs_others: bool = False) -> float:
        """How long to wait now: the back-off, `longest` at most, or longer where the service asks for it within the limit.

        Raises the error itself once it has lasted for the limit, unless the plane runs tasks of other callers (`runs_others`):
        those may take longer than the limit. Also raises it once the grace time and the slack are over.
        """
        now = time.monotonic()
        if self._failures == 0 or error.begun:  # it was available a moment ago
            self._since = now
        self._failures += 1
        self._said = str(error)
        self._part = _part_of(self._method or self.calling)
        left = self._shutdown.deadline + self._slack - now
        if (now - self._since > self._limit and not runs_others) or left < 0:
            raise error
        steps = self._failures + (_THROTTLED_STEPS if isinstance(error, Throttled) else 0)
        seconds = min(longest, back_off(steps, random.random()))  # noqa: S311 - jitter, not a secret
        if error.retry_after is not None:
            # A service may ask for a day. It is called once more at the limit, and that failure ends the run.
            seconds = max(seconds, min(error.retry_after, self._since + self._limit - now))
        self._report(f"{error} Trying again in {seconds:.1f} s.")
        self._observers.tell(PluginUnavailable(time.time(), self._part, self._said, seconds))
        # A drain has little time, and results to store.
        return max(0.0, min(seconds, 0.2, left)) if self._shutdown.is_set() else seconds


def _part_of(method: Callable[..., Any] | None) -> str:
    """The plugin that this method belongs to. None means the plane: slots call nothing else and name no method."""
    plugin = getattr(method, "__self__", None)
    return "source" if isinstance(plugin, TaskSource) else "sink" if isinstance(plugin, ResultSink) else "plane"
