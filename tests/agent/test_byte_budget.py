from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htcgrid.agent.byte_budget import ByteBudget, stored_bytes
from htcgrid.agent.options import AgentOptions
from htcgrid.spi import Lease, Outcome, Result, Task

if TYPE_CHECKING:
    from conftest import Rig

    Make = Callable[..., Rig]
    Until = Callable[[Callable[[], object]], None]

MB = 1 << 20


def leases(*sizes: int) -> list[Lease]:
    return [Lease(Task(str(number), bytes(size))) for number, size in enumerate(sizes)]


def answer(size: int) -> Result:
    return Result(Task("a", b""), Outcome("a", bytes(size)))


def test_as_many_tasks_are_asked_for_as_there_is_room_for_their_events_and_their_answers() -> None:
    budget = ByteBudget(1000)
    held = leases(100, 100)
    budget.hold(held)
    assert budget.room(2) == 3  # 200 are held, 200 will be answered; 200 a task
    budget.release(held[:1])
    assert budget.room(1) == 4


def test_small_answers_leave_room_for_more_tasks() -> None:
    budget = ByteBudget(1050)
    budget.hold(leases(100))
    assert budget.room(0) == 4
    for _ in range(50):
        budget.store([], 1)
    assert budget.room(0) == 9


@given(st.lists(st.integers(0, 10**7), max_size=20), st.integers(1, 10**8), st.integers(0, 1000))
def test_one_task_is_always_asked_for_however_large_they_are(sizes: list[int], limit: int, unfinished: int) -> None:
    budget = ByteBudget(limit)
    budget.hold(leases(*sizes))
    assert budget.room(unfinished) >= 1
    assert budget.number(4 * MB) >= 1
    assert budget.number_stored(5) >= 1


@given(st.lists(st.integers(0, 10**7), max_size=20))
def test_nothing_is_counted_once_nothing_is_held(sizes: list[int]) -> None:
    budget, held = ByteBudget(100), leases(*sizes)
    budget.hold(held)
    for size in sizes:
        budget.finish(answer(size))
    budget.release(held)
    budget.store([answer(size) for size in sizes], len(sizes))
    assert budget.held == 0


@given(st.integers(8 * MB, 1000 * MB), st.floats(0, 100), st.integers(1, 1000 * MB))
def test_results_are_stored_a_few_megabytes_at_a_time_and_more_where_the_sink_is_slow(
    now: int, seconds: float, limit: int
) -> None:
    after = stored_bytes(now, seconds, limit)
    assert 8 * MB <= after <= max(now, limit // 2)
    if seconds < 0.1:
        assert after <= now


def with_events(job: Rig, size: int) -> None:
    """Every event and every answer is as large as this."""
    job.source._tasks = {
        task_id: Lease(Task(task_id, b'"' + bytes(size) + b'"'), attempt=0) for task_id in job.source._tasks
    }


def test_a_slow_sink_slows_the_intake(rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    options = AgentOptions(linger=0.001, prefetch_bytes=200_000)
    job = rig(plans={str(number): [] for number in range(200)}, slots=2, rules=options)
    with_events(job, 10_000)
    put, stored, waits = job.sink.put, threading.Event(), threading.Event()

    def slow(results: Sequence[Any]) -> None:
        waits.set()
        assert stored.wait(20)
        put(results)

    monkeypatch.setattr(job.sink, "put", slow)
    job.start()
    assert waits.wait(10)
    budget = job.agent._leases.bytes
    until(lambda: not budget.has_room(job.agent._leases._unfinished))
    assert budget.held <= 200_000 + 2 * 10_002
    assert len(job.source._until) < 50  # so many were leased
    stored.set()
    job.finish()
    assert len(job.sink.results) == 200
    assert budget.held == 0


def test_tasks_larger_than_the_budget_run_one_after_the_other(rig: Make) -> None:
    job = rig(tasks=6, slots=2, rules=AgentOptions(linger=0.001, prefetch_bytes=1))
    with_events(job, 10_000)
    job.run()
    assert len(job.sink.results) == 6


def test_answers_that_the_sink_refuses_take_no_room_once_their_failure_is_stored(rig: Make) -> None:
    """Else the run stands still when so many were refused as fill the budget."""
    names = [str(number) for number in range(30)]
    job = rig(tasks=30, slots=2, refused=names, rules=AgentOptions(linger=0.001, prefetch_bytes=50_000))
    with_events(job, 10_000)
    job.run()
    assert len(job.sink.results) == 30
    assert job.agent._leases.bytes.held == 0
