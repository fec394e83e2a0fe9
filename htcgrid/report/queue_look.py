"""What a queue holds, for a page. A thread asks now and then, since the queue may be slow or unavailable, or cost money."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from htcgrid.report.units import duration
from htcgrid.spi import HtcgridError, QueueStats

_SECONDS = 5.0


class QueueLook:
    """Asks `ask` at most every few seconds, and only while somebody looks."""

    def __init__(self, ask: Callable[[], QueueStats]) -> None:
        self._ask = ask
        self._stats: QueueStats | None = None
        self._error = ""
        self._asked = float("-inf")
        self._thread: threading.Thread | None = None

    def pairs(self) -> tuple[list[tuple[str, object]], str]:
        """Names and values of the last answer, and a note about them. Does not wait."""
        is_asking = self._thread is not None and self._thread.is_alive()
        if not is_asking and time.monotonic() - self._asked > _SECONDS:
            self._asked = time.monotonic()
            self._thread = threading.Thread(target=self._look, name="htcgrid-queue-look", daemon=True)
            self._thread.start()
        if self._error:
            return [], f"The queue did not answer: {self._error}"
        return (queue_pairs(self._stats), self._stats.note) if self._stats is not None else ([], "")

    def _look(self) -> None:
        try:
            self._stats, self._error = self._ask(), ""
        except HtcgridError as error:
            self._error = str(error)
        except Exception as error:  # noqa: BLE001 - a bug of the plugin is shown on the page; the run is not concerned
            self._error = repr(error)


def queue_pairs(stats: QueueStats) -> list[tuple[str, object]]:
    """Each state that is known, and how long the oldest task has waited."""
    pairs: list[tuple[str, object]] = [
        (f"Queue: {state}", f"{count:,}") for state, count in asdict(stats.states).items() if count is not None
    ]
    if stats.oldest_seconds is not None:
        pairs.append(("Oldest waits", duration(stats.oldest_seconds * 1000)))
    return pairs
