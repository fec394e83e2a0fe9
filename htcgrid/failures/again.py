"""Reads a finite source again for the tasks that failed."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from htcgrid.spi import GENERATION, Lease, QueueStats, Result, States, Task, TaskSource, generation_of


def next_generation(task: Task) -> Task:
    """The task with its next generation, to be run again."""
    return replace(task, attributes={**task.attributes, GENERATION: str(generation_of(task) + 1)})


class Again(TaskSource):
    """Those of another source's tasks that failed, each with its next generation; the other source is open.

    With `others` the tasks that did not fail come too, unchanged.
    """

    def __init__(self, source: TaskSource, failures: Iterable[Result], *, others: bool = False) -> None:
        super().__init__(source.config, source.function)
        self._source = source
        self._others = others
        self._wanted = {result.task.id: generation_of(result.task) + 1 for result in failures}
        self._missing = set(self._wanted)
        self.max_batch = source.max_batch
        self.lease_seconds = source.lease_seconds

    def __len__(self) -> int:
        """How many failed."""
        return len(self._wanted)

    @property
    def missing(self) -> Sequence[str]:
        """Failed tasks that were not received; when the source is exhausted, it does not have their events."""
        return sorted(self._missing)

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        deadline = time.monotonic() + wait
        while True:
            leases = self._source.receive(max_tasks, max(0.0, deadline - time.monotonic()))
            wanted = [self._again(lease) for lease in leases if self._others or lease.task.id in self._wanted]
            if wanted or not leases or time.monotonic() >= deadline:
                return wanted

    def ack(self, leases: Sequence[Lease]) -> None:
        self._source.ack(leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        self._source.nack(leases, delay)

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        return self._source.extend(leases, seconds)

    @property
    def exhausted(self) -> bool:
        return self._source.exhausted

    def stats(self, *, brief: bool = False) -> QueueStats:
        """How many were not received yet, as other sources count."""
        return self._source.stats(brief=brief) if self._others else QueueStats(States(waiting=len(self._missing)))

    def _again(self, lease: Lease) -> Lease:
        generation = self._wanted.get(lease.task.id)
        if generation is None:
            return lease
        self._missing.discard(lease.task.id)
        attributes = {**lease.task.attributes, GENERATION: str(generation)}
        return replace(lease, task=replace(lease.task, attributes=attributes))
