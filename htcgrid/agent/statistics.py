"""The figures of a run, kept in a few numbers however many tasks there are."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from htcgrid.histogram import Histogram
from htcgrid.spi import FailureKind, Outcome, Stored


@dataclass(frozen=True, slots=True)
class Summary:
    """A run at one moment. Times in seconds unless named otherwise."""

    succeeded: int
    failed: int
    failures: dict[str, int]
    already_stored: int
    retried: int
    returned: int
    seconds: float
    tasks_per_second: float
    busy_share: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_memory_mb: int
    billed_ms: int = field(default=0)

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed


class Statistics:
    """Counts. Only the thread that stores results adds to them."""

    def __init__(self, slots: int) -> None:
        self._began = self._last = time.monotonic()
        self._slots = (0.0, slots, self._began)
        """Slots times seconds until the last change of the number, the number since then, and the time of that change."""
        self._slot_seconds = 0.0
        """Slots times seconds until the last result."""
        self._durations = Histogram()
        self._failures: Counter[FailureKind] = Counter()
        self._succeeded = 0
        self._busy_ms = 0.0
        self._billed_ms = 0
        self._memory_mb = 0
        self.already_stored = 0

    def begin(self) -> None:
        """Start the clock."""
        self._began = self._last = time.monotonic()
        self._slots = (0.0, self._slots[1], self._began)

    @property
    def last(self) -> float:
        """When the last result was stored, on the monotonic clock."""
        return self._last

    def resize(self, slots: int) -> None:
        """Set the number of slots from now on."""
        now = time.monotonic()
        self._slots = (self._slot_seconds_at(now), slots, now)

    def stored(self, stored: Stored) -> Sequence[Outcome]:
        """Count these results, which are final; returns the failures."""
        return self.count([result.outcome for result in stored.results])

    def count(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Count final outcomes whose results are stored; returns the failures."""
        failed = [outcome for outcome in outcomes if outcome.failure is not None]
        durations = [outcome.duration_ms for outcome in outcomes]
        self._failures.update([outcome.failure for outcome in failed if outcome.failure])
        self._succeeded += len(outcomes) - len(failed)
        self._durations.add(durations)
        self._busy_ms += sum(durations)
        self._billed_ms += sum([outcome.billed_ms for outcome in outcomes])
        self._memory_mb = max([self._memory_mb, *[outcome.max_memory_mb for outcome in outcomes]])
        self._last = time.monotonic()
        self._slot_seconds = self._slot_seconds_at(self._last)
        return failed

    def _slot_seconds_at(self, now: float) -> float:
        before, slots, since = self._slots
        return before + slots * (now - since)

    def summary(self, retried: int, returned: int) -> Summary:
        """The figures so far. The lease table counts how often tasks were tried again and returned."""
        seconds = max(self._last - self._began, 1e-9)
        failed = self._failures.total()
        return Summary(
            succeeded=self._succeeded,
            failed=failed,
            failures={kind.value: count for kind, count in sorted(self._failures.items())},
            already_stored=self.already_stored,
            retried=retried,
            returned=returned,
            seconds=seconds,
            tasks_per_second=(self._succeeded + failed) / seconds,
            busy_share=self._busy_ms / 1000 / max(self._slot_seconds, 1e-9),
            p50_ms=self._durations.percentile(0.5),
            p90_ms=self._durations.percentile(0.9),
            p99_ms=self._durations.percentile(0.99),
            max_memory_mb=self._memory_mb,
            billed_ms=self._billed_ms,
        )
