from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from htcgrid_aws_lambda.concurrency import CUT, ConcurrencyLimit
from htcgrid_aws_lambda.limiter import ConcurrencyLimiter

steps = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["full", "idle", "throttled"])), max_size=200)


def after(limit: ConcurrencyLimit, seconds: float, now: float = 0.0) -> ConcurrencyLimit:
    """The limit after `seconds` of full use, looked at ten times a second."""
    for tenth in range(1, round(seconds * 10) + 1):
        limit = limit.grown(now + tenth / 10, full=True)
    return limit


@given(st.integers(1, 10_000), steps)
def test_at_least_one_and_never_more_than_the_ceiling(ceiling: int, story: list[tuple[float, str]]) -> None:
    now, limit = 0.0, ConcurrencyLimit.from_rest(ceiling, 0.0)
    for step, event in story:
        now += step
        limit = limit.throttled(now) if event == "throttled" else limit.grown(now, full=event == "full")
        assert 1 <= limit.allowed <= ceiling


def test_it_starts_low_and_doubles_four_times_a_second() -> None:
    limit = ConcurrencyLimit.from_rest(2000, 0.0)
    assert limit.allowed == 50
    assert after(limit, 1.0).allowed in (799, 800)
    assert after(limit, 2.0).allowed == 2000


def test_it_rises_only_where_it_is_used() -> None:
    assert ConcurrencyLimit.from_rest(1000, 0.0).grown(5.0, full=False).allowed == 50


def test_silence_is_not_taken_for_use() -> None:
    assert ConcurrencyLimit.from_rest(100_000, 0.0).grown(3600.0, full=True).allowed <= 800


def test_a_throttle_cuts_and_its_burst_cuts_once() -> None:
    limit = after(ConcurrencyLimit.from_rest(300, 0.0), 5.0)
    cut = limit.throttled(5.0)
    assert cut.limit == 300 * CUT
    assert cut.throttled(5.2) == cut
    assert cut.throttled(5.3).limit == 300 * CUT * CUT


def test_after_a_cut_it_climbs_with_care_and_then_faster() -> None:
    cut = after(ConcurrencyLimit.from_rest(300, 0.0), 5.0).throttled(5.0)
    first, second = after(cut, 1.0, now=5.0).limit - cut.limit, after(cut, 2.0, now=5.0).limit - cut.limit
    assert 7 < first < 9
    assert 29 < second < 33


def test_a_burst_of_seconds_is_forgotten_in_seconds() -> None:
    limit, now = after(ConcurrencyLimit.from_rest(300, 0.0), 5.0), 5.0
    for refusal in range(300):
        now = 5.0 + refusal / 100
        limit = limit.throttled(now)
    assert limit.allowed < 30
    assert after(limit, 7.0, now).allowed == 300


def test_a_full_gate_turns_away_who_will_not_wait() -> None:
    limiter = ConcurrencyLimiter(2, clock=lambda: 0.0)
    assert [limiter.acquire(0), limiter.acquire(0), limiter.acquire(0)] == [True, True, False]


def test_a_place_returned_is_taken_again() -> None:
    limiter = ConcurrencyLimiter(1, clock=lambda: 0.0)
    limiter.acquire(0)
    limiter.release()
    assert limiter.acquire(0)


def test_who_waits_gets_the_place_that_comes_free() -> None:
    limiter, entered = ConcurrencyLimiter(1), []
    limiter.acquire(0)
    waiter = Thread(target=lambda: entered.append(limiter.acquire(20)))
    waiter.start()
    limiter.release()
    waiter.join()
    assert entered == [True]


def test_a_throttle_closes_the_gate_to_fewer() -> None:
    now = [0.0]
    limiter = ConcurrencyLimiter(10, clock=lambda: now[0])
    for _ in range(10):
        limiter.acquire(0)
    limiter.release(throttled=True)
    assert (limiter.allowed, limiter.acquire(0)) == (8, False)
