"""How many failures a run tolerates before it stops."""

from collections.abc import Callable
from dataclasses import dataclass

_LEAST = 100
"""A percentage is taken of at least this many tasks, if the total is not known."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A count, or a percentage of all tasks, from `[agent] tolerated_failures`; one failure more is too many."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def of(cls, value: int | str | None) -> "Tolerance":
        if isinstance(value, str):
            return cls(percent=float(value.removesuffix("%")))
        return cls(count=value)

    def is_exceeded(self, failed: int, finished: int, total: Callable[[], int | None]) -> bool:
        """Whether this is too many failures. `total` may read a queue, so it is called only if its value matters."""
        if self.count is not None:
            return failed > self.count
        if self.percent is None or failed <= max(finished, _LEAST) * self.percent / 100:
            return False
        known = total()
        return failed > max(finished, _LEAST if known is None else known) * self.percent / 100

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent is not None else str(self.count)
