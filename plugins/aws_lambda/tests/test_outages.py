"""Invoke is refused for a while, by throttling or by a fault of the service: every task has its answer in the end.

Time runs some thirty times as fast here, the back-off with it. `bench/outages.py` runs the same for 60 s and prints the table.
"""

import json
import threading
import time
from pathlib import Path

import pytest
from fake_lambda import FakeLambda, refusal
from htcgrid.agent.agent import Agent
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import Function, Task
from outage_options import outage_seconds
from real_agent import Opener

TASKS = 60
SLOTS = 4
REFUSALS = {
    "429": refusal(429, "TooManyRequestsException", "Rate Exceeded.", reason="CallerRateLimitExceeded"),
    "500": refusal(500, "ServiceException", "Internal error"),
    "503": refusal(503, "ServiceUnavailable", "Service Unavailable"),
}


@pytest.fixture
def seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    return outage_seconds(request, monkeypatch)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("status", REFUSALS)
def test_no_task_is_lost_while_invoke_is_refused(
    fake: FakeLambda, opened: Opener, seconds: float, status: str, request: pytest.FixtureRequest
) -> None:
    plane = opened(concurrency=SLOTS)
    source = MemorySource(MemorySource.Config(), Function())
    sink = MemorySink(MemorySink.Config(), Function())
    ids = [f"t-{number}" for number in range(TASKS)]
    source.put([Task(task_id, json.dumps({"seconds": 0.05, "answer": 1}).encode()) for task_id in ids])
    with source, sink:
        agent = Agent(source, plane, sink)
        thread = threading.Thread(target=agent.run)
        thread.start()
        while len(fake.calls) < TASKS // 10:
            time.sleep(0.01)
        refused = fake.refuse(REFUSALS[status])
        time.sleep(seconds)
        made, ended = refused.total(), time.monotonic()
        fake.refuse(None)
        thread.join(120)
        took = time.monotonic() - ended
        assert not thread.is_alive()
        results = sink.get(ids)
    failed = [each for each in results.values() if each.outcome.failure is not None]
    lost = len(set(ids) - results.keys()) + len(failed)
    if file := request.config.getoption("--outage-table"):
        note(file, call=f"lambda.Invoke, {status}", lost=lost, requests=made, took=took, twice=len(fake.calls) - TASKS)
    assert lost == 0
    assert made <= 14 * SLOTS


def note(file: Path, **figures: float | str) -> None:
    """A line of the table."""
    with file.open("a") as table:
        table.write(json.dumps({"kind": "aws_lambda", "dead": 0, "all": figures["requests"], **figures}) + "\n")
