"""Python on the process plane: what holds on every transport, and where `rie` differs."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from htcgrid.spi import FailureKind, Lease, Outcome, Task, Unstarted, limits

CODE = Path(__file__).parent


@pytest.fixture(scope="module", params=["socket", "http", "rie"])
def transport(request: pytest.FixtureRequest) -> dict[str, Any]:
    name: str = request.param
    return {"transport": name, "rie": request.getfixturevalue("rie")} if name == "rie" else {"transport": name}


@pytest.fixture(scope="module")
def invoke(transport: dict[str, Any], plane: Callable[..., Any]) -> Any:
    return plane(function={"code": CODE, "handler": "several.doing", "timeout": 20}, **transport)


LOOKS_LIKE_AN_ERROR = {"errorType": "ValueError", "errorMessage": "no", "requestId": "", "stackTrace": []}


def test_a_dict_that_looks_like_an_error_document_is_an_answer_but_on_rie(
    invoke: Any, transport: dict[str, Any]
) -> None:
    outcome = invoke({"do": "answer", "value": LOOKS_LIKE_AN_ERROR})

    assert json.loads(outcome.payload) == LOOKS_LIKE_AN_ERROR
    expected = FailureKind.HANDLER_ERROR if transport["transport"] == "rie" else None
    assert outcome.failure is expected


def test_an_init_error_is_reported_at_once(transport: dict[str, Any], plane: Callable[..., Any]) -> None:
    missing = plane(function={"code": CODE, "handler": "several.missing", "timeout": 60}, **transport)

    began = time.monotonic()
    outcome = missing({})
    seconds = time.monotonic() - began

    assert outcome.failure is FailureKind.INIT_ERROR
    assert json.loads(outcome.payload)["errorType"] == "Runtime.HandlerNotFound"
    assert seconds < 30, "that is half of the timeout: nobody told of the error, it was waited for"
    print(f"init error on {transport['transport']}: {seconds:.3f} s")  # noqa: T201
    assert missing({}).failure is FailureKind.INIT_ERROR


def test_after_a_timeout_a_hundred_calls_succeed(invoke: Any) -> None:
    invoke({"do": "answer"})
    assert invoke({"do": "sleep", "seconds": 60}, timeout=0.2).failure is FailureKind.TIMEOUT

    assert [invoke.answer({"do": "answer", "value": number}) for number in range(100)] == list(range(100))


def test_an_event_past_the_limit_is_refused_before_it_is_sent(invoke: Any) -> None:
    environment = invoke({"do": "answer"}).environment

    outcome = invoke(b'"' + b"x" * (limits.REQUEST_BYTES - 1) + b'"')

    assert outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
    assert invoke({"do": "answer"}).environment == environment


def test_a_handler_past_its_memory_is_stopped(transport: dict[str, Any], plane: Callable[..., Any]) -> None:
    small = plane(function={"code": CODE, "handler": "several.doing", "timeout": 30, "memory": 128}, **transport)

    outcome = small({"do": "allocate", "mb": 300, "seconds": 20})

    assert outcome.failure is FailureKind.OUT_OF_MEMORY
    assert outcome.max_memory_mb > 128
    assert small({"do": "allocate", "mb": 20, "seconds": 0}).failure is None


def test_a_cancelled_task_is_stopped(invoke: Any) -> None:
    task = Task("cancel-me", json.dumps({"do": "sleep", "seconds": 60}).encode())
    has_ended = threading.Event()

    def cancel() -> None:
        while not has_ended.wait(0.3):  # the first may come before the task is here
            invoke.invoker.cancel(["cancel-me"])

    threading.Thread(target=cancel).start()
    try:
        (outcome,) = invoke.invoker.invoke([Lease(task)], 100)
    finally:
        has_ended.set()

    assert outcome.failure is FailureKind.CANCELLED
    assert invoke.answer({"do": "answer", "value": 1}) == 1


def test_tasks_behind_a_long_one_are_returned_before_it_is_done(invoke: Any) -> None:
    invoke({"do": "answer"})
    events = [{"do": "sleep", "seconds": 4}, *({"do": "answer"},) * 3]
    leases = [Lease(Task(str(number), json.dumps(event).encode())) for number, event in enumerate(events)]

    reported = [(type(each), each.task_id) for each in invoke.invoker.invoke(leases, 20)]

    assert sorted(reported[:3], key=str) == [(Unstarted, "1"), (Unstarted, "2"), (Unstarted, "3")]
    assert reported[3:] == [(Outcome, "0")]


def test_fifty_callers_on_two_environments_get_each_their_own_answer(
    transport: dict[str, Any], plane: Callable[..., Any]
) -> None:
    two = plane(function={"code": CODE, "handler": "several.echo", "timeout": 60}, **transport, workers=2)

    def call(caller: int) -> list[Any]:
        return [two.answer({"caller": caller, "call": number, "fill": "x" * caller * 100}) for number in range(10)]

    with ThreadPoolExecutor(50) as callers:
        answers = list(callers.map(call, range(50)))

    expected = [
        [{"caller": caller, "call": number, "fill": "x" * caller * 100} for number in range(10)] for caller in range(50)
    ]
    assert answers == expected


def test_an_environment_that_died_while_idle_is_replaced_before_it_is_used(
    invoke: Any, transport: dict[str, Any]
) -> None:
    before = invoke({"do": "answer"}).environment
    environment = invoke.invoker.at(0)
    environment._end()

    outcome = invoke({"do": "answer", "value": 1})

    assert outcome.payload == b"1"
    assert outcome.environment != before
    assert outcome.init_ms is not None
