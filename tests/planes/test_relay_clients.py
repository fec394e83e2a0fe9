"""What a relay does with the tasks of a client that cancels them, or that has gone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence

import pytest

from htcgrid.planes import Relay, SocketStream, relay_frames
from htcgrid.planes.relay import serve_socket
from htcgrid.planes.relay_frames import Frame
from htcgrid.runtime.calls import Calls
from htcgrid.spi import SPI_VERSION, FailureKind, Function, Invoker, Lease, Outcome, Plugin, Task

LONG = 30.0
BATCH = [Lease(Task("t-1", b"1"))]


class Waiting(Invoker):
    """Its tasks run until they are cancelled."""

    def __init__(self) -> None:
        super().__init__(Plugin.Config(), Function())
        self.calls = Calls()
        self.begun = self.ended = 0
        self.may_open = threading.Event()
        self.may_open.set()
        self.changed = threading.Condition()

    def open(self) -> None:
        assert self.may_open.wait(LONG)

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        with self.calls.call() as cancelled:
            self._count(begun=1)
            try:
                while batch[0].task.id not in cancelled:
                    time.sleep(0.01)
            finally:
                self._count(ended=1)
            yield Outcome(batch[0].task.id, b"{}", FailureKind.CANCELLED)

    def cancel(self, task_ids: Collection[str]) -> None:
        self.calls.cancel(task_ids)

    def await_calls(self, *, begun: int, ended: int) -> None:
        with self.changed:
            came = self.changed.wait_for(lambda: (self.begun, self.ended) == (begun, ended), LONG)
            assert came, f"{self.begun} calls have begun and {self.ended} have ended, not {begun} and {ended}"

    def _count(self, begun: int = 0, ended: int = 0) -> None:
        with self.changed:
            self.begun += begun
            self.ended += ended
            self.changed.notify_all()


class Client:
    """A connection to the relay, whose frames a test sends itself."""

    def __init__(self, relay: Relay) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
        self.served = threading.Thread(target=serve_socket, args=(relay, there), daemon=True)
        self.served.start()
        self.stream = SocketStream(here)
        self.send(Frame("hello", {"token": ""}), Frame("open", {"spi": SPI_VERSION}))

    def send(self, *frames: Frame) -> None:
        self.stream.send(b"".join(map(bytes, frames)))

    def invoke(self) -> None:
        self.send(relay_frames.invoke_frame(BATCH, 5.0))

    def leave(self) -> None:
        """Close the connection, and return when the relay is done with it."""
        self.stream.close()
        self.served.join(LONG)
        assert not self.served.is_alive()

    def await_frame(self, say: str) -> Frame:
        while True:
            frame = relay_frames.read_frame(lambda size: self.stream.read(size, LONG))
            if frame.say == say:
                return frame


@pytest.fixture
def plane() -> Waiting:
    return Waiting()


@pytest.fixture
def relay(plane: Waiting) -> Relay:
    return Relay(lambda _: plane, None)


def cancel() -> Frame:
    return Frame("cancel", {"task_ids": ["t-1"]})


def test_a_task_is_cancelled_that_the_plane_has_not_begun_yet(relay: Relay, plane: Waiting) -> None:
    plane.may_open.clear()
    client = Client(relay)
    client.invoke()
    client.send(cancel(), Frame("credentials", {"variables": {"SEEN": "1"}, "left": None, "lifetime": None}))
    end = time.monotonic() + LONG
    while not relay.credentials.held.variables:  # then the cancel has come, too
        assert time.monotonic() < end
        time.sleep(0.01)
    plane.may_open.set()
    report = relay_frames.report_of(client.await_frame("outcome"))
    assert isinstance(report, Outcome)
    assert (report.task_id, report.failure) == ("t-1", FailureKind.CANCELLED)
    client.await_frame("done")
    client.invoke()  # the cancel was of the batch before
    plane.await_calls(begun=1, ended=0)
    client.leave()


def test_a_task_is_ended_whose_client_has_gone(relay: Relay, plane: Waiting) -> None:
    client = Client(relay)
    client.invoke()
    plane.await_calls(begun=1, ended=0)
    client.leave()
    plane.await_calls(begun=1, ended=1)


def test_a_task_that_is_sent_again_ends_the_run_of_before_and_not_its_own(relay: Relay, plane: Waiting) -> None:
    first, second = Client(relay), Client(relay)
    first.invoke()
    plane.await_calls(begun=1, ended=0)
    second.invoke()
    plane.await_calls(begun=2, ended=1)
    first.leave()
    plane.await_calls(begun=2, ended=1)
    second.leave()
    plane.await_calls(begun=2, ended=2)
