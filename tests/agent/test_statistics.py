from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htcgrid.agent.statistics import Statistics
from htcgrid.histogram import Histogram
from htcgrid.spi import FailureKind, Outcome


@given(st.floats(0.001, 1e7))
def test_a_percentile_of_one_duration_is_that_duration_to_2_percent(milliseconds: float) -> None:
    durations = Histogram()
    durations.add([milliseconds])
    for share in (0.01, 0.5, 0.99, 1.0):
        assert durations.percentile(share) == pytest.approx(milliseconds, rel=0.02)


def test_percentiles_of_many_durations_are_in_their_places() -> None:
    durations = Histogram()
    for milliseconds in range(1, 1001):
        durations.add([milliseconds])
    assert durations.percentile(0.5) == pytest.approx(500, rel=0.02)
    assert durations.percentile(0.9) == pytest.approx(900, rel=0.02)
    assert durations.percentile(0.99) == pytest.approx(990, rel=0.02)


def test_there_is_no_percentile_of_nothing() -> None:
    assert Histogram().percentile(0.5) == 0.0


def test_a_summary_counts_by_status_and_kind() -> None:
    statistics = Statistics(2)
    statistics.begin()
    statistics.count([Outcome("a", b"1", duration_ms=10, billed_ms=10, max_memory_mb=30)])
    statistics.count([Outcome("b", b"1", duration_ms=10, billed_ms=11, max_memory_mb=90)])
    statistics.count([Outcome("c", b"{}", FailureKind.EXIT, duration_ms=10, max_memory_mb=50)])
    summary = statistics.summary(0, 0)
    assert (summary.succeeded, summary.failed, summary.finished) == (2, 1, 3)
    assert summary.failures == {"exit": 1}
    assert summary.max_memory_mb == 90
    assert summary.billed_ms == 21
    assert summary.tasks_per_second == pytest.approx(3 / summary.seconds)
    assert summary.busy_share == pytest.approx(0.030 / (2 * summary.seconds))


def test_a_summary_of_nothing_has_no_rate() -> None:
    summary = Statistics(2).summary(0, 0)
    assert (summary.finished, summary.tasks_per_second, summary.busy_share, summary.p99_ms) == (0, 0, 0, 0)
