import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from htcgrid.runtime.api_connection import Connection, Request

POST = b"POST /2018-06-01/runtime/invocation/x/response HTTP/1.1\r\nHost: x\r\n"
SECOND = POST + b"Content-Length: 2\r\n\r\n99"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Connection]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=30)
        channel, _ = listener.accept()
        with client, channel:
            yield client, Connection(channel)


def taken(ends: tuple[socket.socket, Connection], data: bytes) -> list[Request]:
    client, connection = ends
    client.sendall(data)
    return connection.receive()


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: %d\r\n\r\n{}" % (len(SECOND) + 2),
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"Content-Length : %d\r\n\r\n" % len(SECOND),
        b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_an_answer_framed_twice_is_refused_whole(ends: tuple[socket.socket, Connection], framing: bytes) -> None:
    assert taken(ends, POST + framing + SECOND) == []
    assert ends[0].recv(100).startswith(b"HTTP/1.1 400")


def test_what_is_the_body_of_a_get_is_not_a_request(ends: tuple[socket.socket, Connection]) -> None:
    head = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SECOND)
    assert [request.body for request in taken(ends, head + SECOND)] == [SECOND]


def test_a_body_of_many_small_chunks_takes_its_size_and_not_ten_times_that(
    ends: tuple[socket.socket, Connection],
) -> None:
    taken(ends, POST + b"Transfer-Encoding: chunked\r\n\r\n")
    chunks = 400
    tracemalloc.start()
    try:
        for _ in range(100):
            assert taken(ends, b"2\r\nxy\r\n" * chunks) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300_000
    (request,) = taken(ends, b"0\r\n\r\n")
    assert request.body == b"xy" * chunks * 100
