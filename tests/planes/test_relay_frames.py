import socket

import pytest

from htcgrid.planes import UnexplainedExit, relay_frames
from htcgrid.planes.relay_frames import Frame
from htcgrid.spi import FailureKind, Lease, Outcome, Task, Unstarted

OUTCOMES = [
    Outcome("a", b'{"x": "\xc3\xa9"}', None, 1.5, 2.25, 3, 4, b"printed\n\xff", 5.5, "e"),
    Outcome("b", b"", FailureKind.EXIT),
    Unstarted("c"),
    UnexplainedExit("d", b"", FailureKind.EXIT),
]


def sent(frame: Frame) -> Frame:
    """The frame as it comes out at the other end of a socket."""
    here, there = socket.socketpair()
    with here, there, there.makefile("rb") as stream:
        here.sendall(bytes(frame))
        return relay_frames.read_frame(stream.read)


def test_a_batch_arrives_as_it_was_sent() -> None:
    batch = [
        Lease(Task("t-1", b'{"a": 1}', {"session_id": "s", "city": "Zürich"}), 3),
        Lease(Task("t-2", b""), 1),
        Lease(Task("t-3", b"[" * 70_000), 2),
    ]
    frame = sent(relay_frames.invoke_frame(batch, 7.5))
    assert relay_frames.leases_of(frame) == batch
    assert frame.head["timeout"] == 7.5


@pytest.mark.parametrize("report", OUTCOMES, ids=lambda report: report.task_id)
def test_a_report_arrives_as_it_was_sent(report: Outcome | Unstarted) -> None:
    assert relay_frames.report_of(sent(relay_frames.report_frame(report))) == report


def test_what_is_no_frame_is_an_error_of_the_connection() -> None:
    with pytest.raises(ConnectionError):
        relay_frames.read_frame(lambda size: b"HTTP/1.1"[:size])


@pytest.mark.parametrize("head", [b"[" * 4000, b"[1]", b'"say"', b"{}", b"\xff", b'{"say"'])
def test_a_head_that_is_none_is_an_error_of_the_connection(head: bytes) -> None:
    here, there = socket.socketpair()
    with here, there, there.makefile("rb") as stream:
        here.sendall(len(head).to_bytes(4, "big") + bytes(4) + head)
        with pytest.raises(ConnectionError):
            relay_frames.read_frame(stream.read)


@pytest.mark.parametrize(
    ("head", "body"), [(relay_frames.HELLO_BYTES + 1, 0), (2, relay_frames.HELLO_BYTES), (1 << 29, 1 << 28)]
)
def test_of_a_stranger_no_more_is_read_than_a_hello(head: int, body: int) -> None:
    def read(size: int) -> bytes:
        assert size == 8
        return head.to_bytes(4, "big") + body.to_bytes(4, "big")

    with pytest.raises(ConnectionError):
        relay_frames.read_frame(read, relay_frames.HELLO_BYTES)
