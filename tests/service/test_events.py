"""Events on a plane that goes away or refuses."""

import threading
from collections.abc import Iterable, Sequence
from time import monotonic, sleep

import pytest

from htcgrid.agent.options import AgentOptions
from htcgrid.service import api_errors, events
from htcgrid.service.events import Events, event_options
from htcgrid.service.room import Room
from htcgrid.spi import (
    Capability,
    Function,
    HandlerOutput,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Rejected,
    Task,
    Unavailable,
    Unstarted,
)


class Plane(Invoker):
    def __init__(self) -> None:
        super().__init__(Plugin.Config(), Function(handler="a.b"))
        self.error: HtcgridError | None = None
        self.ran: list[str] = []

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        if self.error is not None:
            raise self.error
        for lease in batch:
            self.ran.append(lease.task.id)
            yield Outcome(lease.task.id, b"{}", log_tail=b"printed\n")


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setattr(events, "_AWAY_SECONDS", 0.01)
    return Plane()


def eventually(holds: object) -> None:
    deadline = monotonic() + 30
    while not holds():  # type: ignore[operator]
        assert monotonic() < deadline
        sleep(0.01)


def test_events_wait_for_a_plane_that_is_away_for_longer_than_an_agent_waits(plane: Plane) -> None:
    said: list[str] = []
    plane.error = Unavailable("the plane\x1b is away")
    queue = Events(plane, event_options(AgentOptions(unavailable_limit=0.05)), 10, Room(100), said.append)
    queue.put(Task("1", b"{}"))
    queue.start()
    eventually(lambda: any("Events wait: " in line for line in said))
    plane.error = None
    eventually(lambda: plane.ran == ["1"])
    assert queue.stop(10.0) == ""
    assert not any("\x1b" in line for line in said if line.startswith("Events wait"))


def test_events_are_refused_once_the_plane_refuses_one(plane: Plane) -> None:
    said: list[str] = []
    plane.error = Rejected("no such function")
    queue = Events(plane, event_options(AgentOptions()), 10, Room(100), said.append)
    queue.start()
    queue.put(Task("1", b"{}"))
    eventually(lambda: any("no longer runs events: no such function" in line for line in said))
    eventually(lambda: not any(thread.name == "events" for thread in threading.enumerate()))
    with pytest.raises(api_errors.ServiceError, match="no longer runs events"):
        queue.put(Task("2", b"{}"))
    assert queue.stop(10.0) == "events not run: 1"


def test_what_ran_makes_room(plane: Plane) -> None:
    room = Room(4)
    queue = Events(plane, event_options(AgentOptions()), 2, room, lambda _message: None)
    queue.put(Task("1", b"{}"))
    queue.put(Task("2", b"{}"))
    with pytest.raises(api_errors.TooManyRequests):
        queue.put(Task("3", b"{}"))
    queue.start()
    eventually(lambda: plane.ran == ["1", "2"])
    assert queue.stop(10.0) == ""
    room.take(4)


class Wanted(HandlerOutput):
    is_wanted = True

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = "") -> None:
        self.written.append((lease.task.id if lease else "", text))


def test_what_an_event_printed_is_written_on_a_plane_that_gives_only_log_tails(plane: Plane) -> None:
    plane.capabilities, plane.output = frozenset({Capability.LOGS}), (output := Wanted())
    queue = Events(plane, event_options(AgentOptions()), 10, Room(100), lambda _message: None)
    queue.put(Task("1", b"{}"))
    queue.start()
    assert queue.stop(10.0) == ""
    assert output.written == [("1", b"printed\n")]
