"""Counts in bins, with a bounded number of bins however many values there are and however far apart they are."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from htcgrid.histogram import Histogram, middle_of

_DIGITS = 3


class Logarithmic(Histogram):
    """A histogram that is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.highest = 0.0

    def add(self, values: Sequence[float]) -> None:
        super().add(values)
        self.highest = max(self.highest, max(values, default=0.0))

    def columns(self) -> list[tuple[float, float, int]]:
        """From, to and count: four columns to each factor of ten, gaps included."""
        columns: Counter[int] = Counter()
        for bucket, count in self._counts.items():
            value = max(middle_of(bucket), 1e-3)
            columns[math.floor(math.log10(value) * 4)] += count
        if not columns:
            return []
        return [(10 ** (n / 4), 10 ** ((n + 1) / 4), columns[n]) for n in range(min(columns), max(columns) + 1)]


class Megabytes:
    """How much memory was used: whole MiB, rounded to three digits, so that there are few different ones."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.highest = 0

    def add(self, values: Iterable[int]) -> None:
        known = [value for value in values if value > 0]  # 0 where the plane does not measure
        self._counts.update([value if value < 10**_DIGITS else _rounded(value) for value in known])
        self.highest = max(self.highest, max(known, default=0))

    def columns(self, limit: float | None, most: int = 32) -> list[tuple[int, int, int]]:
        """From, up to and count, in columns of the same width; from 0 to the limit at least where there is one."""
        if not self._counts:
            return []
        low, high = (0, max(math.ceil(limit), *self._counts)) if limit else (min(self._counts), max(self._counts))
        width = max(1, math.ceil((high - low + 1) / most))
        columns: Counter[int] = Counter()
        for value, count in self._counts.items():
            columns[(value - low) // width] += count
        return [(low + n * width, low + (n + 1) * width - 1, columns[n]) for n in range((high - low) // width + 1)]


def _rounded(value: int) -> int:
    unit: int = 10 ** (len(str(value)) - _DIGITS)
    return value // unit * unit


class Clock:
    """Bins of time of the same width, which doubles whenever there would be more than `MOST` of them.

    Widths are powers of two of a second, so that a bin is always made of whole bins of before. What is counted by bins is
    told through `widen` when two become one.
    """

    MOST = 240

    def __init__(self) -> None:
        self.width = 1 / 64
        self._low: int | None = None
        self._high = 0
        self._followers: list[Callable[[], None]] = []

    def follow(self, widen: Callable[[], None]) -> None:
        self._followers.append(widen)

    @property
    def bins(self) -> range:
        return range(0) if self._low is None else range(self._low, self._high + 1)

    def cover(self, low: float, high: float) -> None:
        """Have bins from one moment to another, in Unix seconds."""
        first, last = math.floor(low / self.width), math.floor(high / self.width)
        self._low = first if self._low is None else min(self._low, first)
        self._high = max(self._high, last)
        while self._high - self._low >= self.MOST:
            self.width *= 2
            self._low //= 2
            self._high //= 2
            for widen in self._followers:
                widen()

    def at(self, moment: float) -> int:
        return math.floor(moment / self.width)


class Counts:
    """Numbers by the bins of a clock."""

    __slots__ = ("by_bin",)

    def __init__(self) -> None:
        self.by_bin: dict[int, float] = {}

    def add(self, place: int, value: float) -> None:
        self.by_bin[place] = self.by_bin.get(place, 0.0) + value

    def widen(self) -> None:
        halved: dict[int, float] = {}
        for place, value in self.by_bin.items():
            halved[place // 2] = halved.get(place // 2, 0.0) + value
        self.by_bin = halved
