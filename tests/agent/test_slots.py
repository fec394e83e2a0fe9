"""The number of slots follows the plane: up, down, and by what it throttles."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from htcgrid.agent.agent import Agent
from htcgrid.agent.init_errors import InitErrors
from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.outcomes import Outcomes
from htcgrid.agent.shared import Shared
from htcgrid.agent.shutdown import Shutdown
from htcgrid.agent.statistics import Statistics, Summary
from htcgrid.agent.suspects import Suspects
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import Function, Invoker, Lease, Outcome, Task, Throttled, Unavailable

Until = Callable[[Callable[[], object]], None]


class Plane(Invoker):
    """Runs each task until it may end; more than `takes` at once are throttled."""

    def __init__(self, slots: int, takes: int = 1000) -> None:
        super().__init__(self.Config(), Function(timeout=60))
        self.max_concurrency = slots
        self.takes = takes
        self.running: set[str] = set()
        self.most = 0
        self.throttles = 0
        self.attempts: list[int] = []
        self.may_end: Callable[[str], bool] = lambda _task_id: False
        self._lock = threading.Lock()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        (lease,) = batch
        with self._lock:
            if len(self.running) >= self.takes:
                self.throttles += 1
                raise Throttled("There are too many invocations.")
            self.running.add(lease.task.id)
            self.attempts.append(lease.attempt)
            self.most = max(self.most, len(self.running))
        while not self.may_end(lease.task.id):
            time.sleep(0.001)
        with self._lock:
            self.running.remove(lease.task.id)
        yield Outcome(lease.task.id, b"1")


class Running:
    """An agent at work on so many tasks."""

    def __init__(self, plane: Plane, tasks: int, **options: float) -> None:
        self.plane = plane
        self.sink = MemorySink(MemorySink.Config(), plane.function)
        source = MemorySource(MemorySource.Config(), plane.function)
        source.put([Task(str(number), b"1") for number in range(tasks)])
        self.agent = Agent(source, plane, self.sink, AgentOptions.model_validate({"linger": 0.001, **options}))
        self._before = set(threading.enumerate())
        self._ended: list[Summary | BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ended.append(self.agent.run())
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            self._ended.append(error)

    def slots(self) -> int:
        threads = set(threading.enumerate()) - self._before
        return sum(thread.name.startswith("htcgrid-slot-") for thread in threads)

    def finish(self) -> Summary:
        self.plane.may_end = lambda _task_id: True
        self._thread.join(30)
        (ended,) = self._ended
        if isinstance(ended, BaseException):
            raise ended
        return ended


def test_a_plane_that_grows_is_used_to_the_full(until: Until) -> None:
    run = Running(Plane(1), tasks=4)
    until(lambda: len(run.plane.running) == 1)
    run.plane.max_concurrency = 4
    until(lambda: len(run.plane.running) == 4)
    assert run.finish().succeeded == 4


def test_a_plane_that_cannot_say_now_how_much_it_can_run_has_as_many_slots_as_before(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Running(Plane(2), tasks=4)
    until(lambda: len(run.plane.running) == 2)
    asked = threading.Event()

    def away(_plane: Plane) -> int:
        asked.set()
        raise Unavailable("the plane is away")

    monkeypatch.setattr(Plane, "max_concurrency", property(away), raising=False)
    assert asked.wait(10)
    assert run.finish().succeeded == 4
    assert run.plane.most == 2


def test_a_plane_that_shrinks_loses_its_idle_slots_and_interrupts_nothing(until: Until) -> None:
    run = Running(Plane(4), tasks=2)
    until(lambda: len(run.plane.running) == 2 and run.slots() == 4)
    run.plane.max_concurrency = 1
    until(lambda: run.slots() == 2)
    assert len(run.plane.running) == 2
    assert run.finish().succeeded == 2


def test_a_busy_slot_of_a_plane_that_shrank_ends_after_its_batch(until: Until) -> None:
    run = Running(Plane(3), tasks=9)
    until(lambda: len(run.plane.running) == 3)
    run.plane.max_concurrency = 1
    time.sleep(0.1)  # what must not happen has time to
    first = sorted(run.plane.running)
    assert len(first) == 3
    run.plane.may_end = lambda task_id: task_id in first
    until(lambda: run.slots() == 1 and len(run.plane.running) == 1)
    run.plane.most = 0
    assert run.finish().succeeded == 9
    assert run.plane.most <= 1


def test_a_plane_that_grows_and_shrinks_all_the_time_loses_no_task(until: Until) -> None:
    plane = Plane(1)
    plane.may_end = lambda _task_id: True
    run = Running(plane, tasks=2000)
    sizes = iter(range(10**9))

    def is_done() -> bool:
        plane.max_concurrency = 1 + next(sizes) % 7
        return len(run.sink.results) == 2000

    until(is_done)
    assert run.finish().succeeded == 2000
    assert len(plane.attempts) == 2000


def test_the_busy_share_goes_by_the_slots_that_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("htcgrid.agent.statistics.time.monotonic", lambda: now[0])
    statistics = Statistics(2)
    statistics.begin()
    now[0] += 10
    statistics.resize(8)
    now[0] += 5
    statistics.count([Outcome("a", b"1", duration_ms=30_000)])
    assert statistics.summary(0, 0).busy_share == 30 / (2 * 10 + 8 * 5)
    now[0] += 50  # nothing ends: the clock stands
    statistics.resize(1)
    assert statistics.summary(0, 0).busy_share == 30 / (2 * 10 + 8 * 5)


# --- throttling ---


def test_a_plane_that_throttles_is_given_less_at_a_time_and_no_attempt_is_counted(until: Until) -> None:
    run = Running(Plane(16, takes=3), tasks=40)
    until(lambda: run.plane.throttles > 0 and run.slots() <= 4)
    throttles = run.plane.throttles
    assert run.finish().succeeded == 40
    assert run.plane.attempts == [1] * 40
    assert run.plane.throttles - throttles < 40


def test_a_plane_that_throttles_no_more_is_used_to_the_full_again(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.agent.throttling.CLIMB", 5.0)
    run = Running(Plane(6, takes=2), tasks=20)
    until(lambda: run.plane.throttles > 0 and run.slots() < 6)
    run.plane.takes = 1000
    until(lambda: len(run.plane.running) == 6)
    assert run.finish().succeeded == 20


def test_a_task_that_is_throttled_for_longer_than_the_plane_may_be_unavailable_has_not_failed() -> None:
    shared = Shared(AgentOptions(unavailable_limit=0), Shutdown(), Statistics(1), print, print)
    leases = LeaseTable(1)
    outcomes = Outcomes(leases, Suspects(), InitErrors(leases, shared), shared)
    slot, lease = leases.new_slot(), Lease(Task("a", b"1"), attempt=1_000_000)
    leases.offer(leases.add([lease]))
    for _ in range(50):
        assert list(leases.take(slot)) == ["a"]
        outcomes.unavailable(lease, Throttled("There are too many invocations."))


def test_a_plane_that_only_throttles_ends_the_run_at_last() -> None:
    run = Running(Plane(2, takes=0), tasks=3, unavailable_limit=0.05)
    with pytest.raises(Unavailable, match="too many"):
        run.finish()
