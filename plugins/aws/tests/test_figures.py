"""Requests and dollars, counted on the wire."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TYPE_CHECKING

from htcgrid_aws import prices
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.sqs import SqsSource
from htcgrid_aws.usage import Usage

from htcgrid.agent.agent import Agent
from htcgrid.spi import Function, Invoker, Outcome, Result, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pytest
    from conftest import Aws, HtcGrid

    from htcgrid.spi import Lease

TASKS = 1000
KILOBYTE = json.dumps({"prices": [round(100 + number / 7, 6) for number in range(90)]}).encode()


class Answering(Invoker):
    """Answers each event with itself."""

    max_concurrency = 2
    max_batch = 1

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome]:
        for lease in batch:
            yield Outcome(lease.task.id, lease.task.payload, None, 1.7e9, 2.5, 3, 60)


def test_small_tasks_through_the_real_agent_keep_to_the_budget(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    queue, table = aws.queue(), aws.table()
    source = SqsSource(SqsSource.Config(queue=queue, endpoint_url=aws.url), Function())
    submitter = SqsSource(source.config, Function())
    sink = DynamodbSink(DynamodbSink.Config(table=table, endpoint_url=aws.url), Function())
    invoker = Answering(Answering.Config(), Function())
    with submitter, source, sink, invoker:
        submitter.put([Task(f"7d2c8e64-44a1-4f1c-9b0e-{n:012}", KILOBYTE, {"session_id": "s-1"}) for n in range(TASKS)])
        agent = Agent(source, invoker, sink)
        running = threading.Thread(target=agent.run)
        running.start()
        deadline = time.monotonic() + 100
        while agent.summary().succeeded < TASKS and time.monotonic() < deadline:
            running.join(0.05)
        agent.drain()
        running.join()
        usage = submitter.usage_counter.usage() + source.usage_counter.usage() + sink.usage_counter.usage()
    assert aws.waiting(queue) == (0, 0)
    assert aws.client("dynamodb").describe_table(TableName=table)["Table"]["ItemCount"] == TASKS
    with capsys.disabled():
        sys.stdout.write(f"\nsqs + dynamodb, {TASKS} tasks of 1 KB: {usage.summary(TASKS)}\n")
    assert usage.requests["sqs.SendMessageBatch"] == TASKS / 10
    assert usage.total / TASKS <= 1.4
    assert usage.dollars / TASKS * 1e6 <= 1.20


def test_htc_grids_protocol_counted(make_htc: Callable[..., HtcGrid], capsys: pytest.CaptureFixture[str]) -> None:
    grid = make_htc("S3")
    grid.submit([{"n": number} for number in range(100)])
    source = HtcGridSource(HtcGridSource.Config(config_file=grid.config_file, endpoint_url=grid.aws.url), Function())
    sink = HtcGridSink(HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url), Function())
    with source, sink:
        opened = (source.usage_counter.usage() + sink.usage_counter.usage()).total
        count = 0
        while count < 100:
            leases = source.receive(10, 1)
            sink.put([Result(lease.task, Outcome(lease.task.id, KILOBYTE)) for lease in leases])
            source.ack(leases)
            count += len(leases)
        usage = source.usage_counter.usage() + sink.usage_counter.usage()
    with capsys.disabled():
        sys.stdout.write(f"\nhtc_grid on S3, 100 tasks, the agent's part: {usage.summary(100)}\n")
    assert usage.total - opened == 420  # claim, input, output, finish; receive and delete in batches of ten


def test_sqs_charges_by_64_kib(aws: Aws) -> None:
    with SqsSource(SqsSource.Config(queue=aws.queue(), endpoint_url=aws.url), Function()) as source:
        before = source.usage_counter.usage().charged["sqs requests"]
        source.put([Task("t", b'"%s"' % (b"x" * 150_000))])
        sent = source.usage_counter.usage().charged["sqs requests"]
        assert sent - before == 3
        source.receive(1, 1)
        assert source.usage_counter.usage().charged["sqs requests"] - sent == 3


def test_usages_add_up_and_are_priced() -> None:
    one = Usage({"sqs.SendMessageBatch": 1}, {"sqs requests": 1_000_000})
    two = Usage({"sqs.SendMessageBatch": 2, "s3.PutObject": 1}, {"s3 writes": 1_000_000})
    both = one + two
    assert both.requests == {"sqs.SendMessageBatch": 3, "s3.PutObject": 1}
    assert both.dollars == 5.4
    assert prices.AS_OF in both.summary(10)
    assert "AWS requests: s3 1, sqs 3; 0.40 a task" in both.summary(10)
    assert "none" in Usage().summary(0)
