"""Counts of values by the buckets of a histogram, for thousands of values at a time."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence


class Buckets:
    """A bucket holds the values up to its bound, this included; the last one all that are above every bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts: Counter[int] = Counter()
        self._sum = 0.0

    def add(self, values: Sequence[float]) -> None:
        bounds = self._bounds
        self._counts.update([bisect_left(bounds, value) for value in values])
        self._sum += sum(values)

    def add_equal(self, values: Sequence[float], scale: float = 1.0) -> None:
        """As `add`, each times `scale`, where many are the same."""
        for value, times in Counter(values).items():
            self._counts[bisect_left(self._bounds, value * scale)] += times
            self._sum += value * scale * times

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """How many were up to each bound, as Prometheus has it, and the sum of all."""
        total, found = 0, []
        for number, bound in enumerate([*self._bounds, float("inf")]):
            total += self._counts[number]
            found.append(("+Inf" if bound == float("inf") else str(float(bound)), float(total)))
        return found, self._sum
