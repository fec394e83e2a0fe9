"""A source, a plane and a sink that fail as they are told to, and keep a diary of what was asked of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from htcgrid.agent.agent import Agent
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.statistics import Summary
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import (
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Rejected,
    Result,
    Task,
    Unavailable,
    Unstarted,
)

LONG = 30.0
KINDS = frozenset(FailureKind)
QUICK = {"retry_delay": 0.0005, "retry_delay_limit": 0.002}


class Diary:
    """What happened, in order, across threads."""

    def __init__(self) -> None:
        self.invoked: dict[str, list[int]] = defaultdict(list)
        self.stored: set[str] = set()
        self.acked: list[str] = []
        self.acked_early: list[str] = []
        self.returned: list[str] = []
        self.dead: dict[str, str] = {}


class Source(MemorySource):
    """The reference queue; `faults` are what successive calls meet."""

    def __init__(self, diary: Diary, lease_seconds: float, faults: Sequence[str]) -> None:
        super().__init__(self.Config(lease_seconds=lease_seconds), Function())
        self.max_batch = 5
        self._diary = diary
        self._faults = iter(faults)

    def heal(self) -> None:
        """No call meets a fault from here on."""
        self._faults = iter(())

    def _meet_fault(self) -> None:
        fault = next(self._faults, "")
        if fault == "unavailable":
            raise Unavailable("the queue is away")
        if fault == "expire":
            with self._changed:
                for task_id in list(self._until)[:2]:
                    self._until[task_id] = 0.0
                self._changed.notify_all()

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        assert max_tasks <= self.max_batch
        self._meet_fault()
        return super().receive(max_tasks, wait)

    @property
    def exhausted(self) -> bool:
        self._meet_fault()
        return super().exhausted

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        assert len(leases) <= self.max_batch
        self._meet_fault()
        return super().extend(leases, seconds)

    def ack(self, leases: Sequence[Lease]) -> None:
        assert len(leases) <= self.max_batch
        self._meet_fault()
        self._diary.acked += [lease.task.id for lease in leases]
        self._diary.acked_early += [lease.task.id for lease in leases if lease.task.id not in self._diary.stored]
        super().ack(leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        assert len(leases) <= self.max_batch
        self._meet_fault()
        self._diary.returned += [lease.task.id for lease in leases]
        super().nack(leases, delay)


class DeadLetterSource(Source):
    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        self._diary.dead.update({lease.task.id: reason for lease in leases})
        MemorySource.ack(self, leases)


class Plane(Invoker):
    """Does to each task what its plan says, invocation by invocation; after the plan it answers."""

    def __init__(self, diary: Diary, plans: Mapping[str, Sequence[str]], slots: int, max_batch: int) -> None:
        super().__init__(self.Config(), Function(timeout=60))
        self.max_concurrency = slots
        self.max_batch = max_batch
        self.free = threading.Event()
        """Lets go of the tasks whose step is `hang`."""
        self.hanging = threading.Semaphore(0)
        self._diary = diary
        self._plans = {task_id: iter(plan) for task_id, plan in plans.items()}
        self._lock = threading.Lock()
        self._cancelled: set[str] = set()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        assert 1 <= len(batch) <= self.max_batch
        for lease in batch:
            step = next(self._plans.get(lease.task.id, iter(())), "ok")
            if step == "unavailable":
                raise Unavailable("the plane is away")
            if step == "unstarted":
                yield Unstarted(lease.task.id)
                continue
            with self._lock:
                self._diary.invoked[lease.task.id].append(lease.attempt)
            if step == "begun":
                raise Unavailable("the answer was lost", begun=[lease.task.id])
            if step == "rejected":
                raise Rejected("this plane is not for you")
            if step == "broken":
                raise ZeroDivisionError("a bug of the plane")
            yield self._outcome(lease, step)

    def _outcome(self, lease: Lease, step: str) -> Outcome:
        task_id = lease.task.id
        began = time.monotonic()
        if step == "hang":
            self.hanging.release()
        end = began + {"slow": 0.03, "hang": LONG}.get(step, 0.0)
        while time.monotonic() < end and task_id not in self._cancelled and not self.free.is_set():
            time.sleep(0.001)
        with self._lock:
            if task_id in self._cancelled:
                self._cancelled.discard(task_id)
                return Outcome(task_id, b"{}", FailureKind.CANCELLED)
        milliseconds = (time.monotonic() - began) * 1000
        if step in KINDS:
            return Outcome(task_id, b'{"errorType":"E"}', FailureKind(step), duration_ms=milliseconds)
        return Outcome(task_id, lease.task.payload, duration_ms=milliseconds)

    def cancel(self, task_ids: Collection[str]) -> None:
        with self._lock:
            self._cancelled.update(task_ids)


class Sink(MemorySink):
    """The reference store; `faults` are what successive puts meet, `refused` what it can never hold."""

    def __init__(self, diary: Diary, faults: Sequence[str], refused: Collection[str]) -> None:
        super().__init__(self.Config(), Function())
        self.max_batch = 7
        self._diary = diary
        self._faults = iter(faults)
        self._refused = refused

    def put(self, results: Sequence[Result]) -> None:
        assert 1 <= len(results) <= self.max_batch
        fault = next(self._faults, "")
        if fault == "unavailable":
            raise Unavailable("the store is away")
        if fault == "rejected":
            raise Rejected("this store is not for you")
        refused = [r.task.id for r in results if r.task.id in self._refused and r.outcome.failure is None]
        kept = [result for result in results if result.task.id not in refused]
        self._diary.stored.update(result.task.id for result in kept)
        super().put(kept)
        if refused:
            raise Rejected("too large for this store", refused)


@dataclass
class Rig:
    """An agent between these three, to be run with a plan for each task."""

    plans: Mapping[str, Sequence[str]]
    slots: int = 2
    batch: int = 1
    lease_seconds: float = 20.0
    source_faults: Sequence[str] = ()
    sink_faults: Sequence[str] = ()
    refused: Collection[str] = ()
    dead_letters: bool = False
    rules: AgentOptions = field(default_factory=lambda: AgentOptions(linger=0.001))

    def __post_init__(self) -> None:
        self.diary = Diary()
        kind = DeadLetterSource if self.dead_letters else Source
        self.source = kind(self.diary, self.lease_seconds, self.source_faults)
        self.plane = Plane(self.diary, self.plans, self.slots, self.batch)
        self.sink = Sink(self.diary, self.sink_faults, self.refused)
        self.said: list[str] = []
        self.rules = self.rules.model_copy(update=QUICK)
        self.source.put([Task(task_id, b'"%s"' % task_id.encode()) for task_id in self.plans])
        self.agent = Agent(self.source, self.plane, self.sink, self.rules, self.said.append)
        self._thread: threading.Thread | None = None
        self._before: set[threading.Thread] = set()
        self._summary: Summary | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        self._before = set(threading.enumerate())

        def work() -> None:
            try:
                self._summary = self.agent.run()
            except BaseException as error:  # noqa: BLE001 - raised again by `finish`
                self._error = error

        self._thread = threading.Thread(target=work, name="rig")
        self._thread.start()

    def finish(self) -> Summary:
        """Wait for the end; whatever the agent raised is raised. Faults that no call of the agent met are over."""
        assert self._thread is not None
        self._thread.join(LONG)
        assert not self._thread.is_alive(), "the agent does not end"
        self.source.heal()
        started = set(threading.enumerate()) - self._before
        left = [thread.name for thread in started if thread.name.startswith("htcgrid-")]
        assert left == [], "the agent left threads behind"
        if self._error is not None:
            raise self._error
        assert self._summary is not None
        return self._summary

    def run(self) -> Summary:
        self.start()
        return self.finish()

    def failures(self) -> dict[str, FailureKind | None]:
        return {task_id: result.outcome.failure for task_id, result in self.sink.results.items()}

    def waiting(self) -> set[str]:
        """Tasks that another agent could have at once."""
        found: set[str] = set()
        while leases := MemorySource.receive(self.source, 100, 0):
            found.update(lease.task.id for lease in leases)
        return found


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a second are right, and long for a test."""
    monkeypatch.setattr("htcgrid.agent.receiver._WAIT_SECONDS", 0.02)
    monkeypatch.setattr("htcgrid.agent.outcomes._SIGNAL_SECONDS", 0.001)
    monkeypatch.setattr("htcgrid.agent.agent._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("htcgrid.agent.backoff.back_off", lambda failures, _chance: min(0.0005 * failures, 0.005))


@pytest.fixture
def often_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are extended every 30 ms, though they last for 20 s: none is lost on a machine that stands still."""
    monkeypatch.setattr("htcgrid.agent.extender.extension_interval", lambda _seconds: 0.03)


@pytest.fixture
def rig() -> Callable[..., Rig]:
    """`rig(plans={"a": ["exit", "ok"]}, ...)`, or `rig(tasks=10)` where all succeed."""

    def make(tasks: int = 0, plans: Mapping[str, Sequence[str]] | None = None, **options: Any) -> Rig:
        return Rig(plans if plans is not None else {str(number): [] for number in range(tasks)}, **options)

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition, generously."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + LONG
        for _ in itertools.count():
            if condition():
                return
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.002)

    return wait
