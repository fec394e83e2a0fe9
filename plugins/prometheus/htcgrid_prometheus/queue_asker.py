"""Asks the agents' sources how much they hold: rarely and in its own thread, since a queue may be slow and costs money."""

import logging
import threading
import time
from collections.abc import Sequence

from htcgrid.spi import AgentFigures, QueueStats

log = logging.getLogger(__name__)

_WAIT_SECONDS = 0.5
"""A scrape waits for an answer no longer than this; then it shows the one before."""
_SHARE = 20
"""The share of the time that asking may take."""
_STALE = 6
"""An answer is shown for so many intervals."""


class QueueAsker:
    """Holds the last answers. Any thread may call `answers`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._asked_at = float("-inf")
        self._next_at = float("-inf")
        self._answers: Sequence[QueueStats] = ()

    def answers(self, agents: Sequence[AgentFigures]) -> Sequence[QueueStats]:
        """Of the sources of these, as they were last known; none where that was long ago."""
        with self._lock:
            if self._asking is None and agents and time.monotonic() >= self._next_at:
                thread = threading.Thread(
                    target=self._ask, args=(list(agents),), name="htcgrid-prometheus-queue", daemon=True
                )
                thread.start()  # raises where there can be no more threads; then the next scrape asks
                self._asking = thread
            asking = self._asking
        if asking is not None:
            asking.join(_WAIT_SECONDS)
        is_stale = time.monotonic() - self._asked_at > _STALE * self._seconds + _WAIT_SECONDS
        return () if is_stale else self._answers

    def close(self) -> None:
        asking = self._asking
        if asking is not None:
            asking.join(_WAIT_SECONDS)

    def _ask(self, agents: Sequence[AgentFigures]) -> None:
        began, found = time.monotonic(), []
        for figures in agents:
            try:
                found.append(figures.queue())
            except Exception as error:  # noqa: BLE001 - the agent itself tells what is wrong with its source
                log.info("The queue cannot be asked how much it holds: %s", error)
        now = time.monotonic()
        with self._lock:
            self._asking = None
            self._next_at = now + max(self._seconds, _SHARE * (now - began))
            if found:
                self._asked_at, self._answers = now, found
