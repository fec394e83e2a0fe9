"""Plugins around another that make it fail, as services do at times."""

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Any

from htcgrid.spi import Lease, Outcome, Result, Throttled, Unavailable, Unstarted

_RESIZED_SECONDS = 0.25


class _Before:
    """Passes every call on to the plugin behind it; a subclass changes one."""

    def __init__(self, plugin: Any) -> None:
        self._plugin = plugin
        self._calls = count(1)
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plugin, name)

    def _stumble(self, every: int, what: str) -> None:
        with self._lock:
            call = next(self._calls)
        if call % every == 0:
            kind = Throttled if call % 2 else Unavailable
            raise kind(f"The kit refuses {what} call {call}.", retry_after=0.01)


class FlakySource(_Before):
    """Refuses every third call."""

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        self._stumble(3, "receive")
        leases: Sequence[Lease] = self._plugin.receive(max_tasks, wait)
        return leases

    def ack(self, leases: Sequence[Lease]) -> None:
        self._stumble(3, "ack")
        self._plugin.ack(leases)


class FlakyInvoker(_Before):
    """Refuses every third call before anything has begun."""

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        self._stumble(3, "invoke")
        yield from self._plugin.invoke(batch, timeout)


class ResizingInvoker(_Before):
    """Changes its number of environments all the time, from one to all that the plane has."""

    @property
    def max_concurrency(self) -> int:
        most: int = self._plugin.max_concurrency
        return 1 + int(time.monotonic() / _RESIZED_SECONDS) % most


class FlakySink(_Before):
    """Every second call raises after it has stored the results, as when an answer was lost."""

    def put(self, results: Sequence[Result]) -> None:
        self._plugin.put(results)
        self._stumble(2, "put")


class SlowSink(_Before):
    """Waits before each `put`."""

    def put(self, results: Sequence[Result]) -> None:
        time.sleep(0.1)
        self._plugin.put(results)


class DoublingSource(_Before):
    """Delivers every task once more after its `ack`, as a standard queue of SQS may do."""

    def __init__(self, plugin: Any) -> None:
        super().__init__(plugin)
        self._again: list[Lease] = []
        self._doubled: set[str] = set()
        self._ended_twice: set[str] = set()

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        deadline = time.monotonic() + wait
        while True:
            with self._lock:
                again, self._again = self._again[:max_tasks], self._again[max_tasks:]
            left = deadline - time.monotonic()
            leases: Sequence[Lease] = again or self._plugin.receive(max_tasks, max(0.0, min(left, 0.05)))
            if leases or left <= 0:
                return leases

    def ack(self, leases: Sequence[Lease]) -> None:
        self._plugin.ack(leases)
        with self._lock:
            self._ended_twice.update(lease.task.id for lease in leases if lease.task.id in self._doubled)
            self._again += [lease for lease in leases if lease.task.id not in self._doubled]
            self._doubled.update(lease.task.id for lease in leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        self._plugin.nack(leases, delay)
        with self._lock:
            self._ended_twice.update(lease.task.id for lease in leases if lease.task.id in self._doubled)

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        gone: Collection[str] = self._plugin.extend(leases, seconds)
        with self._lock:  # the agent drops these
            self._ended_twice.update(task_id for task_id in gone if task_id in self._doubled)
        return gone

    @property
    def has_doubled(self) -> bool:
        """Whether every acked task was delivered once more and has ended again."""
        return bool(self._doubled) and not self._again and self._ended_twice >= self._doubled

    @property
    def exhausted(self) -> bool:
        return not self._again and self._plugin.exhausted
