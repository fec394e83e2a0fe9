"""Remembers which results a put stored before it raised `Unavailable`, so that the repeated put does not store them again."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from htcgrid.spi import HtcgridError, Result, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class StoredSoFar:
    """The results that the last put has stored, if the put will be repeated. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stored: dict[str, Result] = {}

    def left(self, results: Iterable[Result]) -> list[Result]:
        """Those of these results (the same objects) that are not stored yet."""
        with self._lock:
            return [result for result in results if self._stored.get(result.task.id) is not result]

    def note(self, answers: Sequence[tuple[Result, object]]) -> None:
        """Note the results that a put has stored. Without an `Unavailable`, it is not repeated, so all results are forgotten."""
        stored = {result.task.id: result for result, answer in answers if not isinstance(answer, HtcgridError)}
        with self._lock:
            if any(isinstance(answer, Unavailable) for _, answer in answers):
                self._stored |= stored
            else:
                self._stored = {}
