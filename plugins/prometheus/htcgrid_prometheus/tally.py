"""The observations as sums: a few hundred numbers, however many tasks there are."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from htcgrid.spi import (
    Acked,
    AgentEnded,
    AgentFigures,
    AgentStarted,
    AlreadyStored,
    Answered,
    DeadLettered,
    EnvironmentEnded,
    EnvironmentStarted,
    Extended,
    FailureKind,
    Lease,
    Lost,
    Observation,
    PluginUnavailable,
    Received,
    Retried,
    Returned,
    Started,
    Stored,
)

from htcgrid_prometheus import catalogue
from htcgrid_prometheus.buckets import Buckets
from htcgrid_prometheus.catalogue import Metric

_MOST_WAITING = 500_000
"""Tasks whose receipt was observed and whose start was not: beyond that, observations were dropped."""

Key = tuple[Metric, str]
"""A counter, and the value of its label or ""."""


class Tally:
    """Adds observations up. Not for several threads at once."""

    def __init__(self) -> None:
        self.counters: Counter[Key] = Counter(_zeros())
        self.seconds: Counter[Metric] = Counter()
        self.buckets = {metric: Buckets(metric.bounds) for metric in catalogue.METRICS if metric.bounds}
        self.agents: dict[AgentFigures, None] = {}
        """Those that run."""
        self.usage = Spent()
        self._received: dict[str, float] = {}
        self.up: set[str] = set()
        """The environments that have started and have not ended."""
        self._takers: Mapping[type[Observation], Callable[[Any], None]] = {
            Received: self._take_received,
            AlreadyStored: self._take_already_stored,
            Started: self._take_started,
            Stored: self._take_stored,
            Answered: self._take_answered,
            Retried: self._take_retried,
            Acked: lambda each: self._count(catalogue.ACKED, len(each.leases)),
            DeadLettered: lambda each: self._count(catalogue.DEAD, len(each.leases)),
            Returned: lambda each: self._leave(catalogue.RETURNED, each.leases),
            Extended: lambda each: self._count(catalogue.EXTENDED, len(each.leases)),
            Lost: lambda each: self._leave(catalogue.LOST, each.leases),
            EnvironmentStarted: self._take_environment_started,
            EnvironmentEnded: self._take_environment_ended,
            PluginUnavailable: lambda each: self._count(catalogue.UNAVAILABLE, 1, each.part),
            AgentStarted: self._take_agent_started,
            AgentEnded: self._take_agent_ended,
        }

    def add(self, observations: Sequence[Observation]) -> None:
        for each in observations:
            take = self._takers.get(type(each))
            if take is not None:
                take(each)

    def _count(self, metric: Metric, number: int, label: str = "") -> None:
        self.counters[metric, label] += number

    def _take_received(self, received: Received) -> None:
        self._count(catalogue.RECEIVED, len(received.leases))
        self.buckets[catalogue.RECEIVE].add([received.seconds])
        if len(self._received) > _MOST_WAITING:
            self._received.clear()
        self._received.update(dict.fromkeys([lease.task.id for lease in received.leases], received.time))

    def _take_already_stored(self, stored: AlreadyStored) -> None:
        self._leave(catalogue.ALREADY_STORED, stored.leases)

    def _take_started(self, started: Started) -> None:
        take = self._received.pop
        times = [take(lease.task.id, None) for lease in started.leases]
        waits = [max(0.0, started.time - time) for time in times if time is not None]
        self.buckets[catalogue.WAIT].add_equal(waits)

    def _take_stored(self, stored: Stored) -> None:
        outcomes = [result.outcome for result in stored.results]
        failures = Counter([outcome.failure for outcome in outcomes])
        for failure, number in failures.items():
            self._count(catalogue.TASKS, number, _word(failure))
            if failure is not FailureKind.INVALID_EVENT:
                self._count(catalogue.ATTEMPTS, number, _word(failure))
        if FailureKind.INVALID_EVENT in failures:  # these never ran
            outcomes = [outcome for outcome in outcomes if outcome.failure is not FailureKind.INVALID_EVENT]
        durations = [outcome.duration_ms / 1000 for outcome in outcomes]
        self.seconds[catalogue.BUSY] += sum(durations)  # type: ignore[assignment]
        self.buckets[catalogue.DURATION].add(durations)
        self.buckets[catalogue.BILLED].add_equal([outcome.billed_ms for outcome in outcomes], 0.001)
        self.buckets[catalogue.MEMORY].add_equal([outcome.max_memory_mb for outcome in outcomes], 1 << 20)
        self.buckets[catalogue.PUT].add([stored.seconds])

    def _take_answered(self, answered: Answered) -> None:
        self._count(catalogue.CALLS, 1, _word(answered.result.outcome.failure))
        self.buckets[catalogue.CALL].add([answered.seconds])

    def _take_retried(self, retried: Retried) -> None:
        word = _word(retried.outcome.failure) if retried.outcome is not None else "unavailable"
        self._count(catalogue.RETRIES, len(retried.leases), word)
        self._count(catalogue.ATTEMPTS, len(retried.leases), word)
        if retried.outcome is not None:
            self.seconds[catalogue.BUSY] += retried.outcome.duration_ms / 1000  # type: ignore[assignment]

    def _leave(self, metric: Metric, leases: Sequence[Lease]) -> None:
        """These will not start here, at least not by the lease that they had."""
        self._count(metric, len(leases))
        for lease in leases:
            self._received.pop(lease.task.id, None)

    def _take_environment_started(self, started: EnvironmentStarted) -> None:
        self._count(catalogue.STARTED, 1)
        self.up.add(started.environment)

    def _take_environment_ended(self, ended: EnvironmentEnded) -> None:
        self._count(catalogue.ENDED, 1)
        self.up.discard(ended.environment)

    def _take_agent_started(self, started: AgentStarted) -> None:
        self.agents[started.figures] = None

    def _take_agent_ended(self, ended: AgentEnded) -> None:
        self.agents.pop(ended.figures, None)
        self.usage.add(ended.figures)


class Spent:
    """What agents have used of paid services."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.dollars: float | None = None

    def add(self, figures: AgentFigures) -> None:
        for usage in figures.usage():
            self.requests.update(usage.requests)
            if usage.dollars is not None:
                self.dollars = (self.dollars or 0.0) + usage.dollars

    def with_running(self, agents: Sequence[AgentFigures]) -> "Spent":
        """With what those use that have not ended."""
        whole = Spent()
        whole.requests.update(self.requests)
        whole.dollars = self.dollars
        for figures in agents:
            whole.add(figures)
        return whole


def _word(failure: FailureKind | None) -> str:
    return "succeeded" if failure is None else failure.value


_NOT_COUNTED = {catalogue.REQUESTS, catalogue.COST, catalogue.BUSY, catalogue.DROPPED}
_KINDS = [kind.value for kind in FailureKind]
_LABELS = {
    catalogue.TASKS: ["succeeded", *_KINDS],
    catalogue.CALLS: ["succeeded", *_KINDS],
    catalogue.ATTEMPTS: ["succeeded", *_KINDS, "unavailable"],
    catalogue.RETRIES: [*_KINDS, "unavailable"],
    catalogue.UNAVAILABLE: ["source", "plane", "sink"],
}


def _zeros() -> dict[Key, int]:
    """Counters are shown from the start, as 0: a rate needs a value from before the first task."""
    counted = [metric for metric in catalogue.METRICS if metric.kind == "counter" and metric not in _NOT_COUNTED]
    return {(metric, label): 0 for metric in counted for label in _LABELS.get(metric, [""])}
