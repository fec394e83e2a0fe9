"""A source, a plane and a sink in memory, used around the one plugin that is tested in the agent's loop."""

import json
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from htcgrid.spi import FailureKind, Function, Invoker, Lease, Outcome, Plugin, Result, ResultSink, Task, TaskSource

LEASE_SECONDS = 2.0


class KitSource(TaskSource):
    """A queue in memory whose leases expire. Each entry is a task, its attempts, and when it may be leased."""

    max_batch = 10
    lease_seconds = LEASE_SECONDS

    def __init__(self, config: Plugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._leases: dict[str, Lease] = {}

    def publish(self, tasks: Sequence[Task]) -> None:
        with self._changed:
            for task in tasks:
                self._due[task.id], self._leases[task.id] = 0.0, Lease(task, 0)

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        deadline = time.monotonic() + wait
        with self._changed:
            while not (due := [task_id for task_id, at in self._due.items() if at <= time.monotonic()]):
                if time.monotonic() >= deadline:
                    return ()
                self._changed.wait(0.02)
            return [self._take(task_id) for task_id in due[:max_tasks]]

    def ack(self, leases: Sequence[Lease]) -> None:
        with self._changed:
            for lease in leases:
                self._due.pop(lease.task.id, None)
                self._leases.pop(lease.task.id, None)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        with self._changed:
            self._due |= {lease.task.id: time.monotonic() + delay for lease in leases if self._is_ours(lease)}

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        with self._changed:
            ours = [lease.task.id for lease in leases if self._is_ours(lease)]
            self._due |= dict.fromkeys(ours, time.monotonic() + seconds)
            return {lease.task.id for lease in leases} - set(ours)

    def _take(self, task_id: str) -> Lease:
        before = self._leases[task_id]
        self._due[task_id] = time.monotonic() + LEASE_SECONDS
        self._leases[task_id] = Lease(before.task, before.attempt + 1)
        return self._leases[task_id]

    def _is_ours(self, lease: Lease) -> bool:
        held = self._leases.get(lease.task.id)
        return held is not None and held.attempt == lease.attempt


class KitInvoker(Invoker):
    """Runs, in the agent's own threads, the events of the kit's handler that the rules about the loop use."""

    max_batch = 4
    max_concurrency = 4

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        for lease in batch:
            event = json.loads(lease.task.payload)
            time.sleep(event.get("seconds", 0))
            if event["do"] == "end":
                document = b'{"errorType": "Runtime.ExitError", "errorMessage": "exit status 3"}'
                yield Outcome(lease.task.id, document, FailureKind.EXIT, time.time())
            else:
                yield Outcome(lease.task.id, json.dumps(event.get("value")).encode(), None, time.time())


class KitSink(ResultSink):
    """A dict. The first result of a task is kept."""

    max_batch = 10

    def __init__(self, config: Plugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self._results: dict[str, Result] = {}

    def put(self, results: Sequence[Result]) -> None:
        for result in results:
            self._results.setdefault(result.task.id, result)

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        return {task_id: self._results[task_id] for task_id in task_ids if task_id in self._results}
