"""The figures of a run, made in one pass over its results; their size does not depend on how many there are."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from htcgrid.failures.groups import Groups
from htcgrid.report.environments import Environments
from htcgrid.report.scales import Clock, Counts, Logarithmic, Megabytes
from htcgrid.spi import Outcome, Result

_AT_ONCE = 1000
_TOP = 20
_MOST_MS = 1e12
_TEXT = 200
"""Of an id that is kept; ids may be long."""


@dataclass(frozen=True, slots=True, order=True)
class Slow:
    """One task of a list of those that stand out."""

    value: float
    task_id: str = field(compare=False)
    duration_ms: float = field(compare=False)
    attempt: int = field(compare=False)
    started: float = field(compare=False)
    memory_mb: int = field(compare=False)
    failure: str = field(compare=False)
    environment: str = field(compare=False)


class Top:
    """Those with the highest values."""

    def __init__(self) -> None:
        self._heap: list[Slow] = []

    def offer(self, value: float, result: Result) -> None:
        if len(self._heap) < _TOP:
            heapq.heappush(self._heap, _slow(value, result))
        elif value > self._heap[0].value:
            heapq.heapreplace(self._heap, _slow(value, result))

    def ordered(self) -> list[Slow]:
        return sorted(self._heap, reverse=True)


def _slow(value: float, result: Result) -> Slow:
    outcome = result.outcome
    return Slow(
        value,
        result.task.id[:_TEXT],
        outcome.duration_ms,
        result.attempt,
        outcome.started,
        outcome.max_memory_mb,
        str(outcome.failure or ""),
        outcome.environment[:_TEXT],
    )


class Figures:
    """What the page shows."""

    def __init__(self) -> None:
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self.groups = Groups()
        self.attempts: Counter[int] = Counter()
        """How many results were reached, by the number of attempts."""
        self.billed_ms = 0
        self.busy_ms = 0.0
        self.durations = Logarithmic()
        self.memory = Megabytes()
        self.slowest = Top()
        self.most_tried = Top()
        self.longest_success_ms = 0.0
        self.began = float("inf")
        self.ended = 0.0
        self.clock = Clock()
        self.succeeded_by_time = Counts()
        self.failed_by_time = Counts()
        self.environments = Environments(self.clock)
        for counts in (self.succeeded_by_time, self.failed_by_time):
            self.clock.follow(counts.widen)

    @classmethod
    def of(cls, results: Iterable[Result]) -> "Figures":
        figures = cls()
        for some in _chunks(results):
            figures.add(some)
        return figures

    def add(self, results: Sequence[Result]) -> None:
        outcomes = [result.outcome for result in results]
        durations = [outcome.duration_ms if 0 <= outcome.duration_ms < _MOST_MS else 0.0 for outcome in outcomes]
        self.count += len(results)
        self.attempts.update([min(result.attempt, 100) for result in results])
        self.billed_ms += sum([outcome.billed_ms for outcome in outcomes])
        self.busy_ms += sum(durations)
        self.durations.add(durations)
        self.memory.add([outcome.max_memory_mb for outcome in outcomes])
        for result in results:
            outcome = result.outcome
            self.slowest.offer(outcome.duration_ms, result)
            if result.attempt > 1:
                self.most_tried.offer(result.attempt, result)
            if outcome.failure is not None:
                self.kinds[str(outcome.failure)] += 1
                self.groups.add(outcome)
            elif outcome.duration_ms > self.longest_success_ms:
                self.longest_success_ms = outcome.duration_ms
        # Other results never ran, or have impossible times, which another program has written.
        self._place([o for o in outcomes if 0 < o.started < _MOST_MS and 0 <= o.duration_ms < _MOST_MS])

    def _place(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        low = min([outcome.started for outcome in outcomes])
        high = max([outcome.started + outcome.duration_ms / 1000 for outcome in outcomes])
        self.began, self.ended = min(self.began, low), max(self.ended, high)
        self.clock.cover(low, high)
        at = self.clock.at
        for outcome in outcomes:
            counts = self.succeeded_by_time if outcome.failure is None else self.failed_by_time
            counts.add(at(outcome.started + outcome.duration_ms / 1000), 1)
            self.environments.add(outcome)

    @property
    def failed(self) -> int:
        return self.kinds.total()

    @property
    def succeeded(self) -> int:
        return self.count - self.failed

    @property
    def retried(self) -> int:
        """Attempts beyond the first of each task."""
        return sum((attempt - 1) * count for attempt, count in self.attempts.items())

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return max(0.0, self.ended - self.began)


def _chunks(results: Iterable[Result]) -> Iterator[list[Result]]:
    iterator = iter(results)
    while chunk := list(islice(iterator, _AT_ONCE)):
        yield chunk
