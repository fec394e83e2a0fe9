"""One test on any plane: `pytest --plane local,docker --grid htcgrid.toml`."""

import math

import pytest

EVENT = {"date": "2018-12-31", "spot": 2506.85, "volatility": 0.2542, "rate": 0.02, "days": 30}


def test_call_and_put_are_at_parity(lambda_function):
    answer = lambda_function(EVENT)
    forward = EVENT["spot"] * (1 - math.exp(-EVENT["rate"] * EVENT["days"] / 365))
    assert answer["call"] - answer["put"] == pytest.approx(forward, abs=1e-6)


def test_an_option_without_volatility_is_worth_no_less_than_its_discounted_gain(lambda_function):
    assert lambda_function({**EVENT, "volatility": 1e-9})["put"] == pytest.approx(0.0, abs=1e-6)
