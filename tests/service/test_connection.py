"""Callers that are slow at each step: every wait has its end."""

import socket
import struct
from collections.abc import Iterator

import pytest

from htcgrid.service import connection as module
from htcgrid.service.connection import Connection, HungUp, Stalled
from htcgrid.service.room import Room, Share

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, Connection]]:
    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "STALL_SECONDS"):
        monkeypatch.setattr(module, name, 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=30)
        channel, _ = listener.accept()
        with client, channel:
            yield client, Connection(channel)


@pytest.mark.parametrize("sent", [b"", b"P", HEAD[:-2]])
def test_a_head_that_does_not_end(ends: tuple[socket.socket, Connection], sent: bytes) -> None:
    ends[0].sendall(sent)
    with pytest.raises(Stalled):
        ends[1].head()


def test_a_connection_that_stays_idle_after_an_answer(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    client.sendall(HEAD + b"x" * 10)
    assert connection.head() is not None
    with Share(Room(10)) as share:
        assert connection.body(share) == b"x" * 10
    connection.reply(200, {}, b"", keep=True)
    assert connection.next()
    with pytest.raises(Stalled):
        connection.head()
    assert connection.waiting_since is not None


def test_a_body_that_does_not_end_and_what_it_held_is_returned(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    room = Room(10)
    client.sendall(HEAD + b"x")
    assert connection.head() is not None
    with pytest.raises(Stalled), Share(room) as share:
        connection.body(share)
    room.take(10)


def test_an_answer_that_is_not_taken(ends: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    client, connection = ends
    monkeypatch.setattr(module, "BYTES_PER_SECOND", 1 << 40)
    client.sendall(HEAD + b"x" * 10)
    assert connection.head() is not None
    with Share(Room(10)) as share:
        connection.body(share)
    with pytest.raises(Stalled):
        connection.reply(200, {}, b"x" * (64 << 20), keep=True)


def test_a_wait_for_a_head_ends_when_the_server_hangs_up(ends: tuple[socket.socket, Connection]) -> None:
    ends[1].hang_up()
    assert ends[1].head() is None


def test_an_answer_to_a_caller_that_has_hung_up(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    client.sendall(HEAD + b"x" * 10)
    assert connection.head() is not None
    with Share(Room(10)) as share:
        connection.body(share)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(HungUp):
        connection.reply(200, {}, b"x" * (64 << 20), keep=True)
