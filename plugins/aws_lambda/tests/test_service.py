"""The whole way on AWS: deploy, open, invoke, undeploy.

With `--aws`, credentials and a region in the environment (cents). The same way on moto, which runs handlers in
containers, is among the tests of Docker: `tests/docker/test_moto_service.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

from htcgrid_aws_lambda import billing
from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

HANDLER = """
import os, sys, time

def handler(event, context):
    match event["do"]:
        case "answer":
            print("hello")
            return {"n": event["n"], "custom": context.client_context.custom}
        case "raise":
            raise ValueError("no")
        case "look like an error":
            return {"errorType": "Sandbox.Timedout", "errorMessage": "no"}
        case "sleep":
            time.sleep(30)
        case "exit":
            os._exit(3)
        case "eat":
            eaten = []
            while True:
                eaten.append(os.urandom(1 << 20))
        case "answer much":
            return "x" * 6_300_000
"""


def plane_at(folder: Path, handler: str = "told.handler", **options: Any) -> AwsLambdaInvoker:
    (folder / "told.py").write_text(HANDLER)
    name = f"htcgrid-test-{uuid4().hex[:8]}"
    function = Function(name=name, handler=handler, code=folder, timeout=3, memory=128)
    return AwsLambdaInvoker(AwsLambdaInvoker.Config(**options), function)


@pytest.fixture
def on_aws(tmp_path: Path) -> Iterator[AwsLambdaInvoker]:
    plane = plane_at(tmp_path)
    try:
        list(plane.deploy({}))
        with plane:
            yield plane
    finally:
        list(plane.undeploy())


def run(plane: AwsLambdaInvoker, **event: Any) -> Outcome:
    task = Task("t-1", json.dumps(event).encode(), {"session_id": "s-1", "desk": "fx"})
    (outcome,) = plane.invoke([Lease(task, attempt=2)], 3.0)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.aws
def test_aws_runs_the_handler_and_meters_it(on_aws: AwsLambdaInvoker) -> None:
    outcome = run(on_aws, do="answer", n=5)
    custom = {"task_id": "t-1", "session_id": "s-1", "attempt": 2, "desk": "fx"}
    assert json.loads(outcome.payload) == {"n": 5, "custom": custom}
    assert outcome.log_tail == b"hello\n"
    assert outcome.billed_ms > 0
    assert 0 < outcome.max_memory_mb <= 128
    assert on_aws.used().charged[billing.GB_SECONDS] > 0


@pytest.mark.aws
@pytest.mark.parametrize(
    ("do", "kind"),
    [
        ("look like an error", None),
        ("raise", FailureKind.HANDLER_ERROR),
        ("sleep", FailureKind.TIMEOUT),
        ("exit", FailureKind.EXIT),
        ("eat", FailureKind.OUT_OF_MEMORY),
        ("answer much", FailureKind.PAYLOAD_TOO_LARGE),
    ],
)
def test_aws_fails_in_the_kinds_that_are_read_from_it(
    on_aws: AwsLambdaInvoker, do: str, kind: FailureKind | None
) -> None:
    assert run(on_aws, do=do).failure is kind


@pytest.mark.aws
def test_aws_reports_a_missing_handler_as_init_error(tmp_path: Path) -> None:
    plane = plane_at(tmp_path, handler="told.missing")
    try:
        list(plane.deploy({}))
        with plane:
            assert run(plane, do="answer", n=1).failure is FailureKind.INIT_ERROR
    finally:
        list(plane.undeploy())
