from hypothesis import given
from hypothesis import strategies as st

from htcgrid_aws_lambda.ramp import Ramp

steps = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["begin", "end", "throttled"])), max_size=200)


class Used:
    """A ramp that is used to the full, looked at ten times a second."""

    def __init__(self, ceiling: int) -> None:
        self.now, self.in_flight = 0.0, 0
        self.ramp = Ramp(ceiling, lambda: self.now)

    def fill(self) -> int:
        allowed = self.ramp.allowed
        while self.in_flight < allowed:
            self.ramp.begin()
            self.in_flight += 1
        return allowed

    def after(self, seconds: float) -> int:
        for _ in range(round(seconds * 10)):
            self.fill()
            self.now += 0.1
        return self.fill()


@given(st.integers(1, 10_000), steps)
def test_at_least_one_and_never_more_than_the_ceiling(ceiling: int, story: list[tuple[float, str]]) -> None:
    used = Used(ceiling)
    for step, event in story:
        used.now += step
        if event == "begin":
            used.ramp.begin()
        else:
            used.ramp.end(throttled=event == "throttled")
        assert 1 <= used.ramp.allowed <= ceiling


def test_it_starts_low_and_doubles_four_times_a_second() -> None:
    used = Used(2000)
    assert used.fill() == 50
    assert 700 <= used.after(1.0) <= 800
    assert used.after(1.0) == 2000


def test_it_rises_only_where_it_is_used() -> None:
    used = Used(1000)
    used.now = 5.0
    assert used.ramp.allowed == 50


def test_silence_is_not_taken_for_use() -> None:
    used = Used(100_000)
    used.fill()
    used.now = 3600.0
    assert used.ramp.allowed <= 800


def test_it_is_over_a_while_after_the_first_throttle() -> None:
    used = Used(2000)
    used.fill()
    used.ramp.end(throttled=True)
    used.now = 0.9
    assert used.ramp.allowed == 50
    used.now = 1.1
    assert used.ramp.allowed == 2000
