"""What a put that met `Unavailable` has stored, so that the agent's next put of the same results does not pay for it again."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from htcgrid.spi import HtcgridError, Result, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class StoredSoFar:
    """The stored ones of the last put that is to be repeated. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stored: dict[str, Result] = {}

    def left(self, results: Iterable[Result]) -> list[Result]:
        """Those of these very results that are not stored yet."""
        with self._lock:
            return [result for result in results if self._stored.get(result.task.id) is not result]

    def note(self, answers: Sequence[tuple[Result, object]]) -> None:
        """Note what a put has stored. Without an `Unavailable` among the answers it will not be repeated, so all is forgotten."""
        stored = {result.task.id: result for result, answer in answers if not isinstance(answer, HtcgridError)}
        with self._lock:
            if any(isinstance(answer, Unavailable) for _, answer in answers):
                self._stored |= stored
            else:
                self._stored = {}
