"""The figures of one pass, whose size is bounded."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import pytest
from made_results import BEGAN, result

from htcgrid.report.figures import Figures
from htcgrid.report.scales import Clock, Logarithmic
from htcgrid.spi import FailureKind


def test_bins_of_time_hold_every_task_however_the_span_grows_and_in_whatever_order_they_come() -> None:
    rng = random.Random(3)
    results = [result(n, at=rng.choice([0.01, 10.0, 86400.0, 3e7]) * rng.random()) for n in range(5000)]
    figures = Figures.of(results)
    assert len(figures.clock.bins) <= Clock.MOST
    assert sum(figures.succeeded_by_time.by_bin.values()) == 5000
    assert set(figures.succeeded_by_time.by_bin) <= set(figures.clock.bins)


def test_the_busy_time_of_an_environment_is_spread_over_the_bins_that_its_tasks_touch() -> None:
    figures = Figures.of([result(1, at=0, duration_ms=4000), result(2, at=9, duration_ms=1000)])
    [life] = figures.environments.ordered()
    assert life.by_time is not None
    assert sum(life.by_time.by_bin.values()) == pytest.approx(5.0)
    assert max(life.by_time.by_bin.values()) <= figures.clock.width * 1.0001
    assert life.idle_share == pytest.approx(0.5)
    idle = [place for place in figures.clock.bins if place not in life.by_time.by_bin]
    assert idle[0] * figures.clock.width == pytest.approx(BEGAN + 4, abs=2 * figures.clock.width)


def test_percentiles_are_right_to_two_percent() -> None:
    rng = random.Random(5)
    values = sorted(rng.lognormvariate(3, 2) for _ in range(20_000))
    scale = Logarithmic()
    scale.add(values)
    for share in (0.5, 0.9, 0.99):
        assert scale.percentile(share) == pytest.approx(values[int(share * len(values)) - 1], rel=0.021)
    assert sum(count for _, _, count in scale.columns()) == 20_000


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1e13, 1e300])
def test_times_that_cannot_be_are_left_out_and_the_result_is_counted(odd: float) -> None:
    figures = Figures.of([result(1), result(2, duration_ms=5), result(3, at=odd)])
    figures.add([replace(result(4), outcome=replace(result(4).outcome, duration_ms=odd))])
    assert figures.count == 4
    assert figures.seconds < 1


def test_the_slowest_and_those_tried_most_are_named() -> None:
    results = [result(n, duration_ms=n, attempt=1 + n % 7) for n in range(500)]
    random.Random(1).shuffle(results)
    figures = Figures.of(results)
    assert [each.task_id for each in figures.slowest.ordered()] == [f"task-{n}" for n in range(499, 479, -1)]
    assert {each.attempt for each in figures.most_tried.ordered()} == {7}
    assert figures.retried == sum(n % 7 for n in range(500))


@pytest.mark.slow
def test_the_memory_of_the_figures_does_not_grow_with_the_results() -> None:
    def many(count: int) -> int:
        kinds = list(FailureKind)
        made = (
            result(n, at=n * 0.01, environment=f"e{n}", memory=n, failure=kinds[n % 8] if n % 4 else None)
            for n in range(count)
        )
        tracemalloc.start()
        figures = Figures.of(made)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert figures.count == count
        return used

    assert many(24_000) < 1.2 * many(12_000)
