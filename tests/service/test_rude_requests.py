"""Requests that are none: a clean answer, and the server lives on."""

import base64
import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from served import Service

PATH = b"/2015-03-31/functions/pricing/invocations"
POST = b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def _lives_on(service: Service) -> Iterator[None]:
    yield
    assert service.call({"n": 1}).json == {"n": 1}


def answer(service: Service, request: bytes, *, finish: bool = False) -> tuple[int, bytes]:
    """The status and body of the first answer; 0 where the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as caller:
        with contextlib.suppress(
            BrokenPipeError
        ):  # refused and closed before all of it was sent: the answer is here already
            caller.sendall(request)
        if finish:
            with contextlib.suppress(OSError):  # it may have been refused and closed already
                caller.shutdown(socket.SHUT_WR)
        head, _, body = _until_closed_or_whole(caller).partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def _until_closed_or_whole(caller: socket.socket) -> bytes:
    received = b""
    while piece := caller.recv(65536):
        received += piece
        head, blank, body = received.partition(b"\r\n\r\n")
        length = [
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        ]
        if blank and length and len(body) >= length[0]:
            break
    return received


@pytest.mark.parametrize("length", [b"many", b"-1", b"+5", b"1_0", b"5 5", b"0x10", b"9" * 30, b"\xc2\xb2"])
def test_a_content_length_that_is_no_number_is_400(service: Service, length: bytes) -> None:
    status, body = answer(service, POST + b"Content-Length: " + length + b"\r\n\r\n{}")
    assert status == 400
    assert "Content-Length" in json.loads(body)["Message"]


@pytest.mark.parametrize("size", [b"zz", b"-2", b"", b"1_0", b"0x2", b"f" * 40])
def test_a_chunk_size_that_is_no_number_is_400(service: Service, size: bytes) -> None:
    status, body = answer(service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n{}\r\n0\r\n\r\n")
    assert status == 400
    assert "chunk" in json.loads(body)["Message"]


@pytest.mark.parametrize(
    "chunks", [b"2\r\n{}}}\r\n0\r\n\r\n", b"5\r\n{}", b"2\r\n{}\r\n", b"2" + b";x" * 9000 + b"\r\n{}\r\n0\r\n\r\n"]
)
def test_a_chunked_body_that_breaks_off_or_runs_over_is_400(service: Service, chunks: bytes) -> None:
    status, _ = answer(service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, finish=True)
    assert status == 400


def test_a_body_that_breaks_off_is_400(service: Service) -> None:
    status, _ = answer(service, POST + b'Content-Length: 100\r\n\r\n{"n": 1}', finish=True)
    assert status == 400


def test_an_unknown_transfer_encoding_is_400(service: Service) -> None:
    assert answer(service, POST + b"Transfer-Encoding: gzip\r\n\r\n{}")[0] == 400


def test_a_huge_header_line_is_431_and_too_many_headers_too(service: Service) -> None:
    assert answer(service, POST + b"X: " + b"x" * 100_000 + b"\r\n\r\n")[0] == 431
    assert answer(service, POST + b"X: x\r\n" * 500 + b"\r\n")[0] == 431


def test_a_request_line_that_is_none_is_refused(service: Service) -> None:
    status, body = answer(service, b"\x16\x03\x01 TLS where HTTP is spoken\r\n\r\n", finish=True)
    assert status == 400
    assert json.loads(body)["Type"] == "User"
    assert answer(service, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 404
    assert answer(service, b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 501
    assert answer(service, b"POST / HTTP/9.9\r\nHost: x\r\n\r\n")[0] == 505
    assert answer(service, b"POST /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n")[0] == 414


def test_a_caller_that_says_nothing_holds_nobody_up(service: Service) -> None:
    callers = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    assert service.call({"n": 7}).json == {"n": 7}
    for caller in callers:
        caller.close()


def test_a_chunked_event_is_read_whole(service: Service) -> None:
    chunks = b'5\r\n{"n":\r\n3;note=x\r\n 1}\r\n0\r\nTrailer: x\r\n\r\n'
    assert answer(service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) == (200, b'{"n": 1}')


def test_a_chunked_event_past_the_limit_is_413(service: Service) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    status, _ = answer(service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 7 + b"0\r\n\r\n")
    assert status == 413


def test_many_requests_on_one_connection_are_answered_in_turn(service: Service) -> None:
    requests = b"".join(POST + b"Content-Length: 8\r\n\r\n" + b'{"n": %d}' % n for n in range(5))
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as caller:
        caller.sendall(requests)
        caller.shutdown(socket.SHUT_WR)
        received = b""
        while piece := caller.recv(65536):
            received += piece
    assert [received.count(b'{"n": %d}' % n) for n in range(5)] == [1] * 5


# --- One request is one request ----------------------------------------------------------------------

SMUGGLED = POST + b"Content-Length: 8\r\n\r\n" + b'{"n": 9}'


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
        b"HEAD " + PATH + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
        POST + b"Content-Length: 2\r\nContent-Length: %d\r\n\r\n{}" % (len(SMUGGLED) + 2),
        POST + b"Content-Length: 2, %d\r\n\r\n{}" % (len(SMUGGLED) + 2),
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"Content-Length : %d\r\n\r\n" % len(SMUGGLED),
        POST + b"X: y\rContent-Length: 0\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    ],
)
def test_no_framing_smuggles_in_a_second_request(service: Service, request_: bytes) -> None:
    answers = service.send(request_ + SMUGGLED, finish=True)
    assert answers.count(b"x-amzn-RequestId: ") == 1
    assert answers.startswith(b"HTTP/1.1 4")
    assert b'{"n": 9}' not in answers


def test_trailers_have_an_end(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as caller:
        caller.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - reset, or broken pipe
            _send_for_ever(caller, b"A: b\r\n" * 1000)


def _send_for_ever(caller: socket.socket, data: bytes) -> None:
    while True:
        caller.sendall(data)


def test_chunks_that_are_mostly_extensions_have_an_end(service: Service) -> None:
    chunks = (b"1;" + b"x" * 5000 + b"\r\n \r\n") * 100
    assert answer(service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)[0] == 400


def test_a_chunk_announced_too_large_is_413_before_it_has_come(service: Service) -> None:
    assert answer(service, POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffff\r\n{}")[0] == 413


# --- What HTTP has besides ---------------------------------------------------------------------------


def test_http_1_0_is_answered_and_closed(service: Service) -> None:
    received = service.send(b"POST " + PATH + b' HTTP/1.0\r\nContent-Length: 8\r\n\r\n{"n": 1}')
    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(b'\r\n\r\n{"n": 1}')


def test_an_answer_to_head_has_no_body(service: Service) -> None:
    received = service.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 404")
    assert received.endswith(b"\r\n\r\n")


def test_a_caller_that_expects_100_continue_is_told_to_go_on_and_a_refused_one_is_not(service: Service) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: 8\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as caller:
        caller.sendall(head)
        assert caller.recv(100).startswith(b"HTTP/1.1 100")
        caller.sendall(b'{"n": 1}')
        assert _until_closed_or_whole(caller).endswith(b'{"n": 1}')
    refused = service.send(head.replace(b"pricing", b"none"), finish=True)
    assert refused.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("name", [b"pricing%0d%0aX-Y:1", b"%1b%5d0;title%07", b"..%2fpricing", b"%00", b"%ff%fe"])
def test_a_name_of_strange_characters_is_404_and_none_of_them_is_in_the_answers_head(
    service: Service, name: bytes
) -> None:
    received = service.send(b"POST " + PATH.replace(b"pricing", name) + b" HTTP/1.1\r\nHost: x\r\n\r\n", finish=True)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert b"\nX-Y" not in head
    assert body.isascii()
    assert b"\x1b" not in body
    assert b"\n" not in body


# --- Documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000, b"[NaN]", b"Infinity"]
)
@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_a_document_that_no_handler_could_read_is_400(service: Service, event: bytes, kind: str) -> None:
    reply = service.call(event, x_amz_invocation_type=kind)
    assert (reply.status, reply.kind) == (400, "InvalidRequestContentException")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_document_in_another_encoding_is_400(service: Service, encoding: str) -> None:
    assert service.call('{"n": 1}'.encode(encoding)).status == 400


def test_a_client_context_with_line_breaks_is_one_header_and_reaches_the_handler(service: Service) -> None:
    text = '{"custom":\r\n\r\n{"desk":\t"r\u00e4tes \x7f"},\n"env": {}}'
    context = base64.b64encode(text.encode()).decode()
    reply = service.call({"context": True}, x_amz_client_context=context)
    assert reply.json["custom"]["desk"] == "r\u00e4tes \x7f"


def test_a_deep_client_context_is_400(service: Service) -> None:
    context = base64.b64encode(b"[" * 5000).decode()
    assert service.call({}, x_amz_client_context=context).status == 400
