"""The plane against a fake service: what it sends, and what it makes of every answer."""

import json
import socket
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from fake_lambda import FakeLambda
from htcgrid.spi import FailureKind, Lease, Outcome, Task
from real_agent import Opener

from htcgrid_aws_lambda import billing
from htcgrid_aws_lambda.invoker import AwsLambdaInvoker


def run(plane: AwsLambdaInvoker, event: Any, **attributes: str) -> Outcome:
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    (outcome,) = plane.invoke([Lease(Task("t-1", payload, attributes), attempt=3)], 30.0)
    assert isinstance(outcome, Outcome)
    return outcome


def test_the_answer_comes_back_as_the_bytes_that_the_service_sent(opened: Opener) -> None:
    outcome = run(opened(), {"answer": {"price": 1.5}})
    assert (outcome.task_id, outcome.payload, outcome.failure) == ("t-1", b'{"price": 1.5}', None)


def test_a_call_goes_to_the_alias_with_task_session_and_attempt_in_its_client_context(
    opened: Opener, fake: FakeLambda
) -> None:
    run(opened(qualifier="blue"), {"x": 1}, session_id="s-9", desk="fx")
    (call,) = fake.calls
    assert call.path == "/2015-03-31/functions/pricing/invocations"
    assert call.query == "Qualifier=blue"
    assert call.event == {"x": 1}
    assert call.context["custom"] == {"task_id": "t-1", "session_id": "s-9", "attempt": 3, "desk": "fx"}


def test_the_trace_of_the_caller_goes_along(opened: Opener, fake: FakeLambda) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    plane = opened()
    run(plane, {}, AWSTraceHeader=trace)
    run(plane, {})
    assert [call.headers.get("x-amzn-trace-id") for call in fake.calls] == [trace, None]


def test_billing_and_memory_are_those_of_the_report_line(opened: Opener) -> None:
    outcome = run(opened(), {"billed_ms": 1200, "printed": "hello\n"})
    assert (outcome.duration_ms, outcome.billed_ms, outcome.max_memory_mb) == (1199.5, 1200, 81)
    assert outcome.log_tail == b"hello\n"


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (
            {"errorType": "ValueError", "errorMessage": "no", "requestId": "r", "stackTrace": []},
            FailureKind.HANDLER_ERROR,
        ),
        ({"errorType": "Runtime.MarshalError", "errorMessage": "set"}, FailureKind.HANDLER_ERROR),
        ({"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r Error: ..."}, FailureKind.TIMEOUT),
        ({"errorMessage": "2026-11-22T10:00:00Z r Task timed out after 3.00 seconds"}, FailureKind.TIMEOUT),
        ({"errorType": "Runtime.ExitError", "errorMessage": "exit status 3"}, FailureKind.EXIT),
        ({"errorType": "Runtime.ExitError", "errorMessage": "... signal: killed"}, FailureKind.EXIT),
        ({"errorType": "Runtime.OutOfMemory", "errorMessage": "... signal: killed"}, FailureKind.OUT_OF_MEMORY),
        ({"errorType": "Runtime.ImportModuleError", "errorMessage": "Unable to import"}, FailureKind.INIT_ERROR),
        ({"errorType": "Runtime.HandlerNotFound", "errorMessage": "missing"}, FailureKind.INIT_ERROR),
        ({"errorType": "Runtime.UserCodeSyntaxError", "errorMessage": "line 3"}, FailureKind.INIT_ERROR),
        ({"errorType": "KeyError", "errorMessage": "at import", "requestId": ""}, FailureKind.INIT_ERROR),
        ({"errorType": "Function.ResponseSizeTooLarge", "errorMessage": "..."}, FailureKind.PAYLOAD_TOO_LARGE),
        ("not even a document", FailureKind.HANDLER_ERROR),
    ],
)
def test_a_function_error_is_sorted_by_its_document(opened: Opener, document: Any, kind: FailureKind) -> None:
    outcome = run(opened(), {"answer": document, "failed": True})
    assert outcome.failure is kind
    assert json.loads(outcome.payload) == document


def test_an_answer_that_looks_like_an_error_is_an_answer(opened: Opener) -> None:
    assert run(opened(), {"answer": {"errorType": "Sandbox.Timedout", "errorMessage": "no"}}).failure is None


def test_a_kill_with_the_memory_full_is_out_of_memory(opened: Opener) -> None:
    report = (
        "REPORT RequestId: r\tDuration: 9 ms\tBilled Duration: 9 ms\tMemory Size: 512 MB\tMax Memory Used: {} MB\t\n"
    )
    killed = {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: signal: killed"}
    plane = opened()
    full = run(plane, {"answer": killed, "failed": True, "log": report.format(512)})
    half = run(plane, {"answer": killed, "failed": True, "log": report.format(256)})
    assert (full.failure, half.failure) == (FailureKind.OUT_OF_MEMORY, FailureKind.EXIT)


def test_an_event_over_the_limit_is_refused_before_the_call(opened: Opener, fake: FakeLambda) -> None:
    outcome = run(opened(), b'"' + b"x" * 6_291_455 + b'"')
    assert outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
    assert "6291456" in json.loads(outcome.payload)["errorMessage"]
    assert fake.calls == []


def test_an_event_of_just_the_limit_is_sent(opened: Opener, fake: FakeLambda) -> None:
    assert run(opened(), b'"' + b"x" * 6_291_454 + b'"').failure is None
    assert len(fake.calls) == 1


def test_attributes_past_the_client_context_are_refused_before_the_call(opened: Opener, fake: FakeLambda) -> None:
    outcome = run(opened(), {}, note="x" * 3000)
    assert outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
    assert "3583" in json.loads(outcome.payload)["errorMessage"]
    assert fake.calls == []


def test_a_run_says_what_it_used_and_what_that_costs(opened: Opener) -> None:
    plane = opened(region="us-east-1")
    for _ in range(4):
        run(plane, {"billed_ms": 500})
    assert plane.used().charged[billing.GB_SECONDS] == pytest.approx(1.0)
    assert plane.usage().shown == {
        "requests": "4",
        "GB-seconds": "1.000",
        "price": "$0.000017 (us-east-1, x86_64, list price of 2025-10-01, without free tier or discounts)",
    }


def test_a_region_without_a_price_says_so(opened: Opener) -> None:
    plane = opened(region="us-gov-west-1")
    assert plane.usage().shown["price"] == "not known: the price table has no x86_64 in us-gov-west-1"


def test_a_cancelled_call_is_released_at_once_and_still_billed(opened: Opener, fake: FakeLambda) -> None:
    plane, outcomes = opened(), []
    waiting = Thread(target=lambda: outcomes.append(run(plane, {"held": True})))
    waiting.start()
    eventually(lambda: fake.in_flight == 1)
    plane.cancel(["t-1", "nobody"])
    waiting.join()
    assert outcomes[0].failure is FailureKind.CANCELLED
    assert fake.in_flight == 1, "cancel waited for the handler"
    fake.release()
    eventually(lambda: plane.used().charged.get(billing.REQUESTS) == 1)


def test_a_call_can_be_cancelled_from_its_very_beginning(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = opened()

    class CancelledAsItStarts(Thread):
        def start(self) -> None:
            plane.cancel(["t-1"])
            super().start()

    monkeypatch.setattr("htcgrid_aws_lambda.call_threads.Thread", CancelledAsItStarts)
    assert run(plane, {}).failure is FailureKind.CANCELLED
    eventually(lambda: plane.used().charged.get(billing.REQUESTS) == 1)  # the service has run it all the same


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_connections_say_that_they_live_while_a_handler_runs_for_minutes(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    connect = socket.socket.connect

    def spy(self: socket.socket, address: Any) -> None:
        made.append(self)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", spy)
    run(opened(), {})
    kept_alive = [
        open_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        for open_socket in made
        if open_socket.fileno() != -1 and open_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    ]
    assert kept_alive == [60]
