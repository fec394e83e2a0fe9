"""A source and a sink in the memory of this process: for tests, and as the shortest examples to read."""

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from htcgrid.spi import Function, Lease, Plugin, QueueStats, Rejected, Result, ResultSink, States, Task, TaskSource


class MemorySource(TaskSource):
    """A queue with leases that expire. It is exhausted when all its tasks are acked, unless it is endless."""

    class Config(Plugin.Config):
        endless: bool = Field(False, description="whether the source waits for more tasks when it is empty")
        lease_seconds: float = Field(30.0, ge=0.01, le=31_536_000, description="seconds that a lease lasts")

    config: Config
    max_batch = 1000

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.lease_seconds = config.lease_seconds
        self._changed = threading.Condition()
        self._tasks: dict[str, Lease] = {}
        self._order = itertools.count()
        self._due: list[tuple[float, int, str]] = []
        self._until: dict[str, float] = {}

    def put(self, tasks: Sequence[Task]) -> None:
        with self._changed:
            known = [task.id for task in tasks if task.id in self._tasks and self._tasks[task.id].task != task]
            if known:
                raise Rejected(f"Other tasks already have these ids: {', '.join(known)}.", known)
            twice = [task_id for task_id, times in Counter(task.id for task in tasks).items() if times > 1]
            if twice:
                raise Rejected(f"These ids occur twice in one call: {', '.join(twice)}. Put each task once.", twice)
            for task in [task for task in tasks if task.id not in self._tasks]:
                self._tasks[task.id] = Lease(task, attempt=0)
                heapq.heappush(self._due, (0.0, next(self._order), task.id))
            self._changed.notify_all()

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        with self._changed:
            deadline = time.monotonic() + wait
            while not (leases := self._next_leases(min(max_tasks, self.max_batch))):
                left = deadline - time.monotonic()
                if left <= 0 or self.exhausted:
                    return ()
                self._changed.wait(min(left, self._until_next()))
            return leases

    def ack(self, leases: Sequence[Lease]) -> None:
        with self._changed:
            for lease in leases:
                if self._is_ours(lease):
                    del self._tasks[lease.task.id], self._until[lease.task.id]
            if self.exhausted:
                self._changed.notify_all()

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        with self._changed:
            for lease in leases:
                if self._is_ours(lease):
                    del self._until[lease.task.id]
                    heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), lease.task.id))
            self._changed.notify_all()

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        with self._changed:
            lost = [lease.task.id for lease in leases if not self._is_ours(lease)]
            until = time.monotonic() + seconds
            self._until.update({lease.task.id: until for lease in leases if lease.task.id not in lost})
            return lost

    def stats(self, *, brief: bool = False) -> QueueStats:
        with self._changed:
            now = time.monotonic()
            leased = sum(until > now for until in self._until.values())
            return QueueStats(States(waiting=len(self._tasks) - leased, leased=leased))

    def is_pending(self, session_id: str) -> bool:
        with self._changed:
            return any(lease.task.attributes.get("session_id", "") == session_id for lease in self._tasks.values())

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        with self._changed:
            chosen = [
                lease.task
                for lease in self._tasks.values()
                if lease.task.id in task_ids or session_id == lease.task.attributes.get("session_id", "")
            ]
            for task in chosen:
                del self._tasks[task.id]
                self._until.pop(task.id, None)
            self._due = [entry for entry in self._due if entry[2] in self._tasks]
            heapq.heapify(self._due)
            self._changed.notify_all()
            return chosen

    @property
    def exhausted(self) -> bool:
        return not self.config.endless and len(self._tasks) == len(self._until)

    def _is_ours(self, lease: Lease) -> bool:
        """Whether this very lease is still held."""
        held = self._tasks.get(lease.task.id)
        return held is not None and held.receipt == lease.receipt and lease.task.id in self._until

    def _next_leases(self, most: int) -> list[Lease]:
        now = time.monotonic()
        for task_id in [task_id for task_id, until in self._until.items() if until <= now]:
            del self._until[task_id]
            heapq.heappush(self._due, (now, next(self._order), task_id))
        leases: list[Lease] = []
        while self._due and self._due[0][0] <= now and len(leases) < most:
            _, number, task_id = heapq.heappop(self._due)
            if task_id in self._tasks:
                before = self._tasks[task_id]
                lease = replace(before, attempt=before.attempt + 1, receipt=number)
                self._tasks[task_id] = lease
                self._until[task_id] = now + self.config.lease_seconds
                leases.append(lease)
        return leases

    def _until_next(self) -> float:
        """Seconds until a delay or a lease ends."""
        ends = [*self._until.values(), *(due for due, _, _ in self._due[:1])]
        return max(0.001, min(ends, default=1.0) - time.monotonic())


class MemorySink(ResultSink):
    """Results by task id; the first result of a task is kept."""

    max_batch = 1000
    keeps_order = True

    def __init__(self, config: Plugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self.results: dict[str, Result] = {}
        self._lock = threading.Lock()

    def put(self, results: Sequence[Result]) -> None:
        with self._lock:
            for result in results:
                self.results.setdefault(result.task.id, result)

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        return [task.id for task in tasks if task.id in self.results]

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        return {task_id: self.results[task_id] for task_id in task_ids if task_id in self.results}

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        with self._lock:
            numbered = list(enumerate(self.results.values(), 1))
        for number, result in numbered[after:]:
            if session_id is None or result.task.attributes.get("session_id", "") == session_id:
                yield number, result
