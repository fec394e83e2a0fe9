"""`bench/simulate.py`: what limits thousands of agents first, and which settings avoid it."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest
from htcgrid_aws import prices
from htcgrid_aws.sqs_queue import BATCH, LONGEST_POLL, MOST_IN_FLIGHT

simulate: Any = importlib.import_module("simulate")


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(simulate, "EVENTS", 30_000)

    def of(*size: Any, **keys: Any) -> Any:
        random.seed(1)
        return simulate.simulate(simulate.Size(*size, pods_per_minute=20_000, **keys))

    return of


def test_agents_within_all_limits_are_busy_and_cost_some_requests_a_task(answer: Any) -> None:
    found = answer(100, 8, 1.0)
    assert found.busy > 0.95
    assert found.tasks == pytest.approx(800, rel=0.05)
    assert found.limit.startswith("nothing")
    per_task = found.requests / found.tasks
    assert 0.2 <= per_task <= 4
    dearest = prices.DOLLARS_PER_MILLION["sqs requests"] * per_task + prices.DOLLARS_PER_MILLION["dynamodb write units"]
    assert prices.DOLLARS_PER_MILLION["dynamodb write units"] < found.dollars <= dearest * 1.01


def test_more_environments_than_messages_in_flight_stay_idle_and_a_second_queue_mends_it(answer: Any) -> None:
    found = answer(10_000, 16, 60.0)
    assert found.limit == "messages in flight"
    assert found.in_flight <= MOST_IN_FLIGHT
    assert found.busy == pytest.approx(120_000 / 160_000, abs=0.03)
    assert answer(10_000, 16, 60.0, queues=2).busy > 0.95


def test_a_table_takes_no_more_than_its_write_units(answer: Any) -> None:
    found = answer(1_000, 8, 1.0, table=4_000)
    assert found.limit.startswith("a table that has not grown yet")
    assert found.tasks == pytest.approx(4_000, rel=0.1)
    assert answer(1_000, 8, 1.0, table=8_000).busy > 0.95


def test_a_session_of_htc_grid_takes_a_quarter_of_a_partitions_units(answer: Any) -> None:
    found = answer(100, 8, 1.0, "htc_grid")
    assert found.limit.startswith("one session's partition")
    assert found.tasks == pytest.approx(250, rel=0.1)


def test_the_published_limits_are_those_that_the_plugins_keep_to() -> None:
    limits = importlib.import_module("aws_limits")
    assert (limits.MOST_IN_FLIGHT, limits.SQS_BATCH, limits.LONGEST_POLL) == (MOST_IN_FLIGHT, BATCH, LONGEST_POLL)
