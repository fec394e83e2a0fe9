"""One call to AWS is refused for a while, as when AWS throttles: nothing is lost, and few requests are made meanwhile.

Time runs some thirty times as fast here, the back-off with it. `bench/outages.py` runs the same for 60 s and prints the table.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.aws_errors import service_error
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.function_credentials import FunctionCredentials
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.s3 import S3Sink
from htcgrid_aws.sqs import SqsSource
from outage_options import outage_seconds
from service_answers import throttled

from htcgrid.agent.agent import Agent
from htcgrid.agent.options import AgentOptions
from htcgrid.spi import (
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Result,
    ResultSink,
    TaskSource,
    Unstarted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Aws, HtcGrid

TASKS = 120
SLOTS = 4
MAX_RECEIVES = 4
TASK_SECONDS = 0.05
LEASE = 6
REAL_LEASE = 30
"""In real time: what SQS has unless something else is set."""
LONG = 0.4
"""Part of a lease that one task in thirty takes: it is extended."""
LARGE = json.dumps(base64.b64encode(random.Random(1).randbytes(15_000)).decode()).encode()
"""Does not deflate to less than what is kept in an item."""


class Plane(Invoker):
    """Sleeps as long as the event says. One task in ten fails."""

    max_concurrency = SLOTS

    def __init__(self, config: Any, function: Function) -> None:
        super().__init__(config, function)
        self.ran: Counter[str] = Counter()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        for lease in batch:
            self.credentials.current(timeout)
            event = json.loads(lease.task.payload)
            time.sleep(event["seconds"])
            self.ran[lease.task.id] += 1
            failure = FailureKind.HANDLER_ERROR if event["n"] % 10 == 0 else None
            answer = LARGE if event["n"] % 7 == 0 else b"1"
            yield Outcome(lease.task.id, answer, failure, duration_ms=event["seconds"] * 1000, started=time.time())


@dataclass
class Grid:
    """A source, a sink and what was submitted."""

    source: Any
    sink: Any
    queue: str
    dead: str
    ids: list[str]


def events(lease: int) -> list[dict[str, Any]]:
    return [{"n": n, "seconds": LONG * lease if n % 30 == 7 else TASK_SECONDS} for n in range(TASKS)]


def with_dead_letters(aws: Aws, queue: str) -> str:
    dead = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": str(MAX_RECEIVES)})
    aws.client("sqs").set_queue_attributes(QueueUrl=aws.queue_url(queue), Attributes={"RedrivePolicy": policy})
    return dead


def sqs_grid(aws: Aws, sink: str, lease: int, **keys: Any) -> Grid:
    queue, bucket, table = aws.queue(lease), aws.bucket(), aws.table()
    ids = [f"t-{n}" for n in range(TASKS)]
    for task_id, event in zip(ids, events(lease), strict=True):
        known, key = {"id": task_id}, f"inputs/{task_id}-input"
        if event["n"] % 5 == 0:
            aws.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(event).encode())
            known["body"] = f"s3://{bucket}/{key}"
        aws.send(queue, json.dumps(event), htcgrid=json.dumps(known))
    source = SqsSource.Config(endpoint_url=aws.url, queue=queue, bucket=bucket, cancel_table=table)
    to: ResultSink
    if sink == "s3":
        to = S3Sink(S3Sink.Config(endpoint_url=aws.url, bucket=bucket), Function())
    else:
        config = DynamodbSink.Config(endpoint_url=aws.url, table=table, bucket=bucket, inline_limit=8_000, **keys)
        to = DynamodbSink(config, Function())
    return Grid(SqsSource(source, Function()), to, queue, with_dead_letters(aws, queue), ids)


def htc_grid(make_htc: Callable[..., HtcGrid], aws: Aws, lease: int) -> Grid:
    grid = make_htc("S3", lease=lease, visibility=2 * lease)
    keys: dict[str, Any] = {"config_file": grid.config_file, "endpoint_url": aws.url, "redis_tls": False}
    return Grid(
        HtcGridSource(HtcGridSource.Config(**keys), Function()),
        HtcGridSink(HtcGridSink.Config(**keys), Function()),
        grid.queues[0],
        with_dead_letters(aws, grid.queues[0]),
        grid.submit(events(lease)),
    )


@pytest.fixture
def seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    return outage_seconds(request, monkeypatch)


SQS = ["sqs.ReceiveMessage", "sqs.DeleteMessageBatch", "sqs.ChangeMessageVisibilityBatch"]
CASES = [
    *(("sqs to dynamodb", call) for call in [*SQS, "s3.GetObject", "s3.PutObject"]),
    *(("sqs to dynamodb", f"dynamodb.{call}") for call in ("BatchGetItem", "BatchWriteItem", "PutItem")),
    *(("sqs to s3", call) for call in ("s3.PutObject",)),
    *(("htc_grid", call) for call in [*SQS, "dynamodb.UpdateItem", "s3.GetObject", "s3.PutObject"]),
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kind", "call"), CASES, ids=lambda each: each.replace(" ", "-"))
def test_no_task_is_lost_while_one_call_is_refused(
    aws: Aws, make_htc: Callable[..., HtcGrid], seconds: float, note: Callable[..., None], kind: str, call: str
) -> None:
    lease = LEASE if seconds < REAL_LEASE else REAL_LEASE
    keys = {"conditional": "late"} if call.endswith("BatchWriteItem") else {}
    grid = (
        htc_grid(make_htc, aws, lease) if kind == "htc_grid" else sqs_grid(aws, kind.rpartition(" ")[2], lease, **keys)
    )
    plane = Plane(Plane.Config(), Function())
    with grid.source, grid.sink, plane, running(grid.source, plane, grid.sink) as agent:
        wait_until(lambda: len(plane.ran) > TASKS // 10, "the agent runs nothing")
        before = requests(grid)
        with throttled(grid.source, call), throttled(grid.sink, call):
            time.sleep(seconds)
            made = requests(grid) - before
        ended = time.monotonic()
        wait_until(lambda: aws.waiting(grid.queue) == (0, 0) and agent.held == 0, "tasks are left in the queue")
        took = time.monotonic() - ended
    dead, stored = sum(aws.waiting(grid.dead)), stored_in(grid)
    lost = len(set(grid.ids) - stored.keys())
    note(kind, call, lost=lost, dead=dead, requests=made[call], all=made.total(), took=took, ran=plane.ran)
    assert dead == 0
    assert stored.keys() == set(grid.ids)
    assert made[call] <= most_requests(call)


def most_requests(call: str) -> int:
    """Of the call that is refused: the tries of each thread that makes it, for each of the tasks that it has in hand."""
    tries = 14  # 0.2 s, doubled up to 30 s, half of that at the least: up to 60 s
    if call in SQS:  # a slot looks once more before a task that has waited
        return 2 * tries + TASKS // 10
    return tries * {"s3.GetObject": 10, "dynamodb.UpdateItem": 42, "s3.PutObject": 64}.get(call, 25)


def stored_in(grid: Grid) -> dict[str, Result]:
    with grid.sink:
        found: dict[str, Result] = {}
        for start in range(0, len(grid.ids), 20):
            found |= grid.sink.get(grid.ids[start : start + 20])
    return found


def requests(grid: Grid) -> Counter[str]:
    return Counter(grid.source.usage().requests) + Counter(grid.sink.usage().requests)


@contextmanager
def running(source: TaskSource, plane: Invoker, sink: ResultSink) -> Iterator[Agent]:
    agent = Agent(source, plane, sink, AgentOptions())
    errors: list[BaseException] = []

    def run() -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield agent
    finally:
        agent.drain(0)
        thread.join()
        assert not errors, errors


def wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@pytest.fixture
def note(request: pytest.FixtureRequest, seconds: float) -> Callable[..., None]:
    """A line of the table, where one is wanted."""
    file: Path | None = request.config.getoption("--outage-table")

    def write(kind: str, call: str, *, ran: Counter[str], **figures: float) -> None:
        twice = sum(times > 1 for times in ran.values())
        line = {"kind": kind, "call": call, "seconds": seconds, "tasks": len(ran), "twice": twice, **figures}
        if file is not None:
            with file.open("a") as table:
                table.write(json.dumps(line) + "\n")

    return write


@pytest.mark.timeout(400)
def test_tasks_wait_while_no_role_can_be_assumed_for_them(
    aws: Aws, seconds: float, note: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
    grid = sqs_grid(aws, "dynamodb", LEASE)
    function = Function(credentials="role:arn:aws:iam::123456789012:role/pricing")
    plane = Plane(Plane.Config(), function)
    plane.credentials = FunctionCredentials(function)
    issue, refusal = (
        plane.credentials._issue,
        service_error("Throttling", 400, "Rate exceeded", "sts:AssumeRole", "a role"),
    )
    asked, is_out = 0, True

    def issued() -> Any:
        nonlocal asked
        asked += 1
        if is_out:
            raise refusal
        return issue()

    plane.credentials._issue = issued
    with grid.source, grid.sink, plane, running(grid.source, plane, grid.sink) as agent:
        time.sleep(seconds)
        refused, is_out, ended = asked, False, time.monotonic()
        wait_until(lambda: aws.waiting(grid.queue) == (0, 0) and agent.held == 0, "tasks are left in the queue")
        took = time.monotonic() - ended
    dead, stored = sum(aws.waiting(grid.dead)), stored_in(grid)
    lost = len(set(grid.ids) - stored.keys())
    note("role", "sts.AssumeRole", lost=lost, dead=dead, requests=refused, all=refused, took=took, ran=plane.ran)
    assert dead == 0
    assert stored.keys() == set(grid.ids)
    assert refused <= 14 * SLOTS
