"""Counts of values on a logarithmic scale: few numbers, however many values there are."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

BUCKETS_PER_E = 50
"""Each is a fiftieth of an e-fold: percentiles are right to 2 %."""

_SHIFT = 1e-6
"""Added to each value, since 0 has no logarithm."""


class Histogram:
    """Of numbers that are not negative."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, values: Sequence[float]) -> None:
        # Few buckets hold many values: to sort them costs less than a logarithm for each.
        ordered, start = sorted(values), 0
        while start < len(ordered):
            bucket = math.floor(math.log(ordered[start] + _SHIFT) * BUCKETS_PER_E)
            end = bisect_left(ordered, math.exp((bucket + 1) / BUCKETS_PER_E) - _SHIFT, start + 1)
            self._counts[bucket] += end - start
            start = end

    def percentile(self, share: float) -> float:
        """The value that `share` of all did not exceed; 0 where there is none."""
        wanted = share * self._counts.total()
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return middle_of(bucket)
        return 0.0


def middle_of(bucket: int) -> float:
    """The value that stands for a bucket."""
    return math.exp((bucket + 0.5) / BUCKETS_PER_E)
