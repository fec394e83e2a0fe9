"""Requests and dollars, counted on the wire."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from htcgrid_aws_grid import prices
from htcgrid_aws_grid.dynamodb import DynamodbSink
from htcgrid_aws_grid.htc_sink import HtcGridSink
from htcgrid_aws_grid.htc_source import HtcGridSource
from htcgrid_aws_grid.sqs import SqsSource
from htcgrid_aws_grid.usage import Usage

from htcgrid.spi import Function, Outcome, Result, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from conftest import Aws, HtcGrid

TASKS = 1000
KILOBYTE = json.dumps({"prices": [round(100 + number / 7, 6) for number in range(90)]}).encode()


def test_a_thousand_small_tasks_take_a_third_of_a_request_each(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    queue, table = aws.queue(), aws.table()
    source = SqsSource(SqsSource.Config(queue=queue, endpoint_url=aws.url), Function())
    submitter = SqsSource(source.config, Function())
    sink = DynamodbSink(DynamodbSink.Config(table=table, endpoint_url=aws.url), Function())
    with submitter, source, sink:
        submitter.put([Task(f"7d2c8e64-44a1-4f1c-9b0e-{n:012}", KILOBYTE, {"session_id": "s-1"}) for n in range(TASKS)])
        done: list[Result] = []
        while len(done) < TASKS:
            leases = source.receive(10, 1)
            done += [Result(lease.task, Outcome(lease.task.id, KILOBYTE, None, 1.7e9, 2.5, 3, 60)) for lease in leases]
            if len(done) % 25 < 10:
                sink.put(done[-25:])
            source.ack(leases)
        assert aws.waiting(queue) == (0, 0)
        usage = submitter.usage() + source.usage() + sink.usage()
    with capsys.disabled():
        sys.stdout.write(f"\nsqs + dynamodb, {TASKS} tasks of 1 KB: {usage.summary(TASKS)}\n")
    assert usage.requests["sqs.SendMessageBatch"] == TASKS / 10
    assert usage.requests["sqs.DeleteMessageBatch"] == TASKS / 10
    assert usage.total / TASKS <= 1.4
    assert usage.dollars / TASKS * 1e6 <= 1.20


def test_htc_grids_protocol_counted(make_htc: Callable[..., HtcGrid], capsys: pytest.CaptureFixture[str]) -> None:
    grid = make_htc("S3")
    grid.submit([{"n": number} for number in range(100)])
    source = HtcGridSource(HtcGridSource.Config(config_file=grid.config_file, endpoint_url=grid.aws.url), Function())
    sink = HtcGridSink(HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url), Function())
    with source, sink:
        opened = (source.usage() + sink.usage()).total
        count = 0
        while count < 100:
            leases = source.receive(10, 1)
            sink.put([Result(lease.task, Outcome(lease.task.id, KILOBYTE)) for lease in leases])
            source.ack(leases)
            count += len(leases)
        usage = source.usage() + sink.usage()
    with capsys.disabled():
        sys.stdout.write(f"\nhtc_grid on S3, 100 tasks, the agent's part: {usage.summary(100)}\n")
    assert usage.total - opened == 420  # claim, input, output, finish; receive and delete in batches of ten


def test_sqs_charges_by_64_kib(aws: Aws) -> None:
    with SqsSource(SqsSource.Config(queue=aws.queue(), endpoint_url=aws.url), Function()) as source:
        before = source.usage().charged["sqs requests"]
        source.put([Task("t", b'"%s"' % (b"x" * 150_000))])
        sent = source.usage().charged["sqs requests"]
        assert sent - before == 3
        source.receive(1, 1)
        assert source.usage().charged["sqs requests"] - sent == 3


def test_usages_add_up_and_are_priced() -> None:
    one = Usage({"sqs.SendMessageBatch": 1}, {"sqs requests": 1_000_000})
    two = Usage({"sqs.SendMessageBatch": 2, "s3.PutObject": 1}, {"s3 writes": 1_000_000})
    both = one + two
    assert both.requests == {"sqs.SendMessageBatch": 3, "s3.PutObject": 1}
    assert both.dollars == 5.4
    assert prices.AS_OF in both.summary(10)
    assert "AWS requests: s3 1, sqs 3; 0.40 a task" in both.summary(10)
    assert "none" in Usage().summary(0)
