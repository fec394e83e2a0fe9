"""A served function on a plane that grows, and on one that throttles."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from htcgrid.service.api_errors import TooManyRequests
from htcgrid.service.events import Events
from htcgrid.service.served_function import ServedFunction
from htcgrid.spi import Function, Invoker, Lease, Outcome, Throttled


class Plane(Invoker):
    """Holds each call until it is told to go on."""

    max_concurrency = 1

    def __init__(self) -> None:
        super().__init__(self.Config(), Function())
        self.running = 0
        self.go_on = threading.Event()
        self.throttles = False

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        if self.throttles:
            raise Throttled("There are too many invocations.")
        self.running += 1
        assert self.go_on.wait(30)
        yield Outcome(batch[0].task.id, b"1")


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def served(plane: Plane) -> ServedFunction:
    events = Events.__new__(Events)  # no call of these tests is an event
    return ServedFunction(plane, waiting=5, events=events)


def test_calls_that_wait_run_as_soon_as_the_plane_has_grown(plane: Plane, served: ServedFunction) -> None:
    callers = [threading.Thread(target=served.invoke, args=(lambda: b"1", {})) for _ in range(3)]
    for caller in callers:
        caller.start()
    _until(lambda: plane.running == 1)
    plane.max_concurrency = 3
    _until(lambda: plane.running == 3)
    plane.go_on.set()
    for caller in callers:
        caller.join()


def test_a_call_that_the_plane_throttles_is_429(plane: Plane, served: ServedFunction) -> None:
    plane.throttles = True
    with pytest.raises(TooManyRequests, match="too many invocations"):
        served.invoke(lambda: b"1", {})


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
