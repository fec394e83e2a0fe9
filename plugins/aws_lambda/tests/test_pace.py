from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from htcgrid_aws_lambda.gate import Gate
from htcgrid_aws_lambda.pace import CUT, Pace

steps = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["full", "idle", "throttled"])), max_size=200)


def after(pace: Pace, seconds: float, now: float = 0.0) -> Pace:
    """The pace after `seconds` of use to the full, looked at ten times a second."""
    for tenth in range(1, round(seconds * 10) + 1):
        pace = pace.grown(now + tenth / 10, full=True)
    return pace


@given(st.integers(1, 10_000), steps)
def test_at_least_one_and_never_more_than_the_ceiling(ceiling: int, story: list[tuple[float, str]]) -> None:
    now, pace = 0.0, Pace.from_rest(ceiling, 0.0)
    for step, event in story:
        now += step
        pace = pace.throttled(now) if event == "throttled" else pace.grown(now, full=event == "full")
        assert 1 <= pace.allowed <= ceiling


def test_it_starts_low_and_doubles_four_times_a_second() -> None:
    pace = Pace.from_rest(2000, 0.0)
    assert pace.allowed == 50
    assert after(pace, 1.0).allowed in (799, 800)
    assert after(pace, 2.0).allowed == 2000


def test_it_rises_only_where_it_is_used() -> None:
    assert Pace.from_rest(1000, 0.0).grown(5.0, full=False).allowed == 50


def test_silence_is_not_taken_for_use() -> None:
    assert Pace.from_rest(100_000, 0.0).grown(3600.0, full=True).allowed <= 800


def test_a_throttle_cuts_and_its_burst_cuts_once() -> None:
    pace = after(Pace.from_rest(300, 0.0), 5.0)
    cut = pace.throttled(5.0)
    assert cut.limit == 300 * CUT
    assert cut.throttled(5.2) == cut
    assert cut.throttled(5.3).limit == 300 * CUT * CUT


def test_after_a_cut_it_climbs_with_care_and_then_faster() -> None:
    cut = after(Pace.from_rest(300, 0.0), 5.0).throttled(5.0)
    first, second = after(cut, 1.0, now=5.0).limit - cut.limit, after(cut, 2.0, now=5.0).limit - cut.limit
    assert 7 < first < 9
    assert 29 < second < 33


def test_a_burst_of_seconds_is_forgotten_in_seconds() -> None:
    pace, now = after(Pace.from_rest(300, 0.0), 5.0), 5.0
    for refusal in range(300):
        now = 5.0 + refusal / 100
        pace = pace.throttled(now)
    assert pace.allowed < 30
    assert after(pace, 7.0, now).allowed == 300


def test_a_full_gate_turns_away_who_will_not_wait() -> None:
    gate = Gate(2, clock=lambda: 0.0)
    assert [gate.enter(0), gate.enter(0), gate.enter(0)] == [True, True, False]


def test_a_place_given_back_is_taken_again() -> None:
    gate = Gate(1, clock=lambda: 0.0)
    gate.enter(0)
    gate.leave()
    assert gate.enter(0)


def test_who_waits_gets_the_place_that_comes_free() -> None:
    gate, entered = Gate(1), []
    gate.enter(0)
    waiter = Thread(target=lambda: entered.append(gate.enter(20)))
    waiter.start()
    gate.leave()
    waiter.join()
    assert entered == [True]


def test_a_throttle_closes_the_gate_to_fewer() -> None:
    now = [0.0]
    gate = Gate(10, clock=lambda: now[0])
    for _ in range(10):
        gate.enter(0)
    gate.leave(throttled=True)
    assert (gate.allowed, gate.enter(0)) == (8, False)
