"""What is advised, and when nothing is."""

from __future__ import annotations

from made_results import result

from htcgrid.report.advice import Limits, advice
from htcgrid.report.figures import Figures
from htcgrid.spi import FailureKind, Result


def advised(*results: Result, memory: float | None = 128, timeout: float | None = 30) -> str:
    return "\n".join(advice(Figures.of(results), Limits(memory, timeout)))


def busy(count: int = 100, memory: int = 50) -> list[Result]:
    return [result(n, at=n * 0.01, memory=memory) for n in range(count)]


def test_a_run_that_fits_its_limits_gets_no_advice() -> None:
    assert advised(*busy()) == ""


def test_memory_that_nobody_uses_is_named_with_what_would_do() -> None:
    said = advised(*busy(memory=61), memory=512)
    assert "Memory 512 MB, the most used is 61 MB: [function] memory = 128 would be enough." in said


def test_memory_that_is_nearly_used_up_is_named() -> None:
    assert "Memory 128 MB, the most used is 120 MB" in advised(*busy(memory=120))


def test_a_task_that_is_a_large_part_of_the_run_is_named() -> None:
    said = advised(*busy(), result(7, task_id="long", at=0, duration_ms=400), result(8, at=0.99))
    assert "One task, long, is 40% of the whole run" in said


def test_workers_that_waited_are_told() -> None:
    assert "Workers waited for tasks 90% of their time" in advised(*[result(n, at=n * 0.1) for n in range(101)])


def test_waiting_is_not_told_where_environments_are_unknown() -> None:
    assert "waited" not in advised(*[result(n, at=n * 0.1, environment="") for n in range(101)])


def test_tasks_past_a_limit_are_counted_with_what_to_run_again() -> None:
    said = advised(
        *busy(),
        result(1, at=0.5, failure=FailureKind.OUT_OF_MEMORY),
        result(2, at=0.5, failure=FailureKind.TIMEOUT),
    )
    assert "1 task ran out of memory: raise [function] memory of 128 MB" in said
    assert "htcgrid redrive --kind out_of_memory" in said
    assert "1 task took longer than the timeout of 30 s" in said


def test_a_success_near_the_timeout_is_told() -> None:
    assert "Timeout 0.012 s, the longest task that succeeded took" in advised(*busy(), timeout=0.012)


def test_retries_are_told_when_they_are_many() -> None:
    assert "Attempts beyond the first: 10 for 110 tasks" in advised(
        *busy(), *[result(n, at=n * 0.1, attempt=2) for n in range(10)]
    )


def test_starts_that_cost_much_are_told() -> None:
    starts = [result(n, at=n, duration_ms=900, environment=str(n), init_ms=900.0) for n in range(4)]
    assert "4 starts of environments took 50% of all computing time" in advised(*starts)


def test_tiny_tasks_are_told() -> None:
    assert "put several into one event" in advised(*[result(n, at=n * 1e-4, duration_ms=0.1) for n in range(1000)])


def test_without_limits_nothing_is_said_of_them() -> None:
    assert advised(*busy(memory=5), memory=None, timeout=None) == ""
