"""The Lambda Runtime API as a runtime sees it, well-mannered or not: rude.py does what is asked of it."""

import json
import math
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.api_server import ApiServer, listen
from htcgrid.runtime.sandbox import Sandbox
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task, Unstarted, limits

RUDE = {"code": Path(__file__).parent, "command": (sys.executable, "rude.py"), "timeout": 20}


@pytest.fixture(scope="module")
def invoke(plane: Callable[..., Any]) -> Any:
    return plane(function=RUDE)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("asks_next_twice", True),
        ("answers_another", 400),
        ("answers_for_an_attempt_that_is_over", 410),
        ("reports_an_init_error_when_it_is_up", 403),
        ("asks_for_what_is_not_there", [404, 405, 405, 405, 404, 404, 404]),
        ("restores", [200, 403]),
        ("sends_garbage", [400, 400, 400, 400, 400]),
        ("sends_a_header_without_end", "stopped"),
        ("sends_trailers_without_end", "stopped"),
        ("hangs_up_half_way", None),
        ("leaves_half_a_request_open", None),
        ("opens_many_connections", None),
        ("sends_byte_by_byte", 404),
        ("asks_much_and_reads_nothing", "held back"),
        ("speaks_http_1_0", [404, True]),
    ],
)
def test_a_client_that(invoke: Any, what: str, told: Any) -> None:
    assert invoke.answer({"do": what}) == told
    environments = {invoke({"do": "nothing"}).environment for _ in range(3)}
    assert len(environments) == 1


@pytest.mark.parametrize(
    ("what", "answer", "told"),
    [
        ("answers_twice", "first", [202, 403, 403]),
        ("answers_in_chunks", [7] * 1000, 202),
        ("answers_when_told_to_go_on", "ok", [100, 202]),
    ],
)
def test_an_answer_counts_when_it(invoke: Any, what: str, answer: Any, told: Any) -> None:
    assert invoke.answer({"do": what}) == answer
    assert invoke.answer({"do": "tell"}) == told


def test_an_answer_past_the_limit_is_refused_and_the_environment_replaced(invoke: Any) -> None:
    before = invoke({"do": "nothing"}).environment

    outcome = invoke({"do": "answers_too_much"})

    assert outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
    assert json.loads(outcome.payload)["errorType"] == "Function.ResponseSizeTooLarge"
    assert invoke({"do": "nothing"}).environment != before


def test_a_stream_that_breaks_off_is_an_error_with_the_document_of_its_trailer(invoke: Any) -> None:
    outcome = invoke({"do": "breaks_a_stream_off"})

    assert outcome.failure is FailureKind.HANDLER_ERROR
    assert json.loads(outcome.payload) == {"errorType": "Stream.Broken"}
    assert invoke.answer({"do": "tell"}) == 202


def test_an_error_without_a_document_gets_one(invoke: Any) -> None:
    outcome = invoke({"do": "fails_without_a_document"})

    assert outcome.failure is FailureKind.HANDLER_ERROR
    assert json.loads(outcome.payload) == {"errorType": "My.Error", "errorMessage": "no document"}
    assert invoke.answer({"do": "tell"}) == 202


def test_an_event_of_the_largest_size_arrives_at_a_slow_reader(invoke: Any) -> None:
    frame = json.dumps({"do": "reads_slowly", "text": ""}).encode()
    event = frame[:-2] + b"x" * (limits.REQUEST_BYTES - len(frame)) + frame[-2:]

    assert invoke.answer(event) == limits.REQUEST_BYTES


def test_an_answer_holds_though_the_runtime_ends_after_it(invoke: Any) -> None:
    for _ in range(3):
        assert invoke.answer({"do": "answers_and_ends"}) == "last words"
        lease = Lease(Task("t", b'{"do": "nothing"}'))
        # It may be seen to have ended before the task is given to it, or not: the task is lost in no case.
        while [type(each) for each in invoke.invoker.invoke([lease], 20)] == [Unstarted]:
            pass


def test_a_runtime_that_asks_for_no_more_work_is_replaced(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke.answer({"do": "answers_and_asks_no_more"}) == "idle"
    monkeypatch.setattr(limits, "INIT_SECONDS", 0.1)

    (outcome,) = invoke.invoker.invoke([Lease(Task("t", b'{"do": "nothing"}'))], 0.1)

    assert outcome == Unstarted("t")
    assert invoke.answer({"do": "nothing"}) is None


class EndsUnnoticed(Sandbox):
    """Its end is told late, as a Docker Engine may: only the connection shows it at first."""

    looks_left: float = math.inf
    variables: Mapping[str, str]

    def start(self, variables: Mapping[str, str]) -> None:
        self.variables = variables

    def has_ended(self) -> bool:
        self.looks_left -= 1
        return self.looks_left < 0

    def end(self) -> int:
        return -15

    def close(self) -> None:
        pass

    def log_tail(self) -> bytes:
        return b""


def answers_once_and_asks_again(address: str) -> None:
    """A runtime's first invocation, and the `next` after it, which it does not live to hear the answer of."""
    host, _, port = address.rpartition(":")
    ask = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as channel:
        channel.sendall(ask)
        request_id = re.search(rb"Aws-Request-Id: (\S+)", channel.recv(1 << 16))
        assert request_id
        path = b"/2018-06-01/runtime/invocation/%s/response" % request_id[1]
        channel.sendall(b"POST %s HTTP/1.1\r\nContent-Length: 1\r\n\r\n1" % path)
        assert b"202" in channel.recv(1 << 16)
        channel.sendall(ask)


def test_a_task_is_not_blamed_on_a_runtime_that_asked_for_it_and_then_ended() -> None:
    sandbox = EndsUnnoticed()
    environment = ApiEnvironment(Function(**RUDE), sandbox)
    environment.start()
    runtime = threading.Thread(
        target=answers_once_and_asks_again, args=[sandbox.variables["AWS_LAMBDA_RUNTIME_API"]], daemon=True
    )
    runtime.start()
    (first,) = environment.invoke([Lease(Task("first", b"{}"))], 20)
    assert isinstance(first, Outcome)
    assert first.payload == b"1"
    runtime.join()
    sandbox.looks_left = 50

    assert list(environment.invoke([Lease(Task("second", b"{}"))], 20)) == [Unstarted("second")]
    environment.close()


def test_an_answer_before_the_first_event_is_refused_and_so_is_what_follows_a_next(plane: Callable[..., Any]) -> None:
    assert b"before the first event: 400 0\n" in plane(function=RUDE)({"do": "nothing"}).log_tail


def test_a_caller_from_another_address_is_not_answered() -> None:
    server = ApiServer(listen(), lambda: ["10.1.2.3"])
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as channel:
        channel.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n")
        server.pump(10)
        with pytest.raises(ConnectionError):  # noqa: PT012 - closed, or reset for what it had sent
            if not channel.recv(1):
                raise ConnectionError
    server.close()


def test_the_api_listens_on_loopback_only(invoke: Any) -> None:
    listening = {
        line.split()[1].partition(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[9] in _own_sockets()
    }
    assert listening <= {"0100007F"}
    assert listening


def _own_sockets() -> set[str]:
    links = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_socket()]
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
