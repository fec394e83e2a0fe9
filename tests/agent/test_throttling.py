from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from htcgrid.agent.throttling import CUT, ConcurrencyLimit

steps = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["full", "idle", "throttled"])), max_size=200)


def after(limit: ConcurrencyLimit, seconds: float, now: float = 0.0, ceiling: int = 300) -> ConcurrencyLimit:
    """The limit after `seconds` of full use, looked at ten times a second."""
    for tenth in range(1, round(seconds * 10) + 1):
        limit = limit.grown(now + tenth / 10, ceiling, full=True)
    return limit


@given(st.integers(1, 10_000), steps)
def test_at_least_one_and_never_more_than_the_ceiling(ceiling: int, story: list[tuple[float, str]]) -> None:
    now, limit = 0.0, ConcurrencyLimit()
    for step, event in story:
        now += step
        running = limit.allowed(ceiling)
        limit = (
            limit.throttled(now, running) if event == "throttled" else limit.grown(now, ceiling, full=event == "full")
        )
        assert 1 <= limit.allowed(ceiling) <= ceiling


def test_there_is_no_limit_before_the_first_throttle() -> None:
    assert after(ConcurrencyLimit(), 1.0).allowed(5000) == 5000


def test_a_throttle_cuts_what_ran_and_its_burst_cuts_once() -> None:
    cut = ConcurrencyLimit().throttled(5.0, running=100)
    assert cut.limit == 100 * CUT
    assert cut.throttled(5.2, running=100) == cut
    assert cut.throttled(5.3, running=100).limit == 100 * CUT * CUT


def test_throttles_that_go_on_halve_it_in_a_second() -> None:
    limit = ConcurrencyLimit()
    for hundredth in range(100):
        limit = limit.throttled(5.0 + hundredth / 100, running=300)
    assert limit.allowed(300) < 150


def test_it_rises_only_where_it_is_used() -> None:
    cut = ConcurrencyLimit().throttled(5.0, running=100)
    assert cut.grown(60.0, 300, full=False).limit == cut.limit


def test_after_a_cut_it_climbs_with_care_and_then_faster() -> None:
    cut = ConcurrencyLimit().throttled(5.0, running=100)
    first, second = after(cut, 1.0, now=5.0).limit - cut.limit, after(cut, 2.0, now=5.0).limit - cut.limit
    assert 7 < first < 9
    assert 29 < second < 33


def test_a_burst_of_seconds_is_forgotten_in_seconds() -> None:
    limit, now = ConcurrencyLimit(), 5.0
    for refusal in range(300):
        now = 5.0 + refusal / 100
        limit = limit.throttled(now, running=300)
    assert limit.allowed(300) < 30
    assert after(limit, 7.0, now).allowed(300) == 300
