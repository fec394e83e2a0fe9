"""The policies allow what is called, and nothing else: compared with the calls made when every path is taken."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from htcgrid_aws import iam
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.s3 import S3Sink
from htcgrid_aws.sqs import SqsSource

from htcgrid.failures.again import next_generation
from htcgrid.spi import FailureKind, Function, Outcome, Result, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Aws, HtcGrid

RESOURCES = iam.Resources(
    queues=("arn:aws:sqs:eu-west-1:1:tasks",),
    dead_letter_queues=("arn:aws:sqs:eu-west-1:1:dead",),
    table="arn:aws:dynamodb:eu-west-1:1:table/results",
    cancel_table="arn:aws:dynamodb:eu-west-1:1:table/cancelled",
    task_table="arn:aws:dynamodb:eu-west-1:1:table/tasks",
    bucket="arn:aws:s3:::data",
)
HTC = iam.Resources(
    queues=RESOURCES.queues,
    state_table="arn:aws:dynamodb:eu-west-1:1:table/states",
    data_bucket="arn:aws:s3:::grid",
)


def allowed(policy: dict[str, Any]) -> set[str]:
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def called(*plugins: Any) -> set[str]:
    """IAM's names of the calls: a batch is permitted by its single call in SQS, HeadBucket by ListBucket."""
    names = {name for plugin in plugins for name in plugin.usage().requests}
    single = {name.removesuffix("Batch") if name.startswith("sqs.") else name for name in names}
    return {name.replace("HeadBucket", "ListBucket").replace(".", ":") for name in single}


def result(task: Task, payload: bytes = b"1", failure: FailureKind | None = None) -> Result:
    return Result(task, Outcome(task.id, payload, failure))


def test_agent_submitter_and_reader_may_do_what_they_do_and_no_more(aws: Aws) -> None:
    queue, dead, bucket = aws.queue(MaximumMessageSize="2048"), aws.queue(), aws.bucket()
    shared = {"endpoint_url": aws.url, "bucket": bucket}
    config = SqsSource.Config(
        queue=queue, dead_letter_queue=dead, cancel_table=aws.table(), task_table=aws.table(), **shared
    )
    keys: dict[str, Any] = {"table": aws.table(), "inline_limit": 1024, "check_stored": True, **shared}
    user, source, looking = (SqsSource(config, Function()) for _ in range(3))
    sink, cancelling, reader = (DynamodbSink(DynamodbSink.Config(**keys), Function()) for _ in range(3))
    with user, source, looking, sink, cancelling, reader:
        user.put([Task("large", b'"%s"' % (b"x" * 3000)), Task("small", b"{}")])
        user.cancel(session_id="s", task_ids=["gone"])
        user.stats()
        first, second = source.receive(10, 1)
        sink.stored([first.task])
        sink.put([result(first.task), result(Task("f", b""), failure=FailureKind.EXIT)])
        sink.put([result(second.task, random.Random(1).randbytes(2000))])
        source.extend([first], 30)
        source.ack([first])
        source.dead_letter([second], "why")
        assert len(reader.get(["large", "small", "f"])) == 3
        assert [failure.task.id for failure in reader.failed()] == ["f"]
        assert [dead.task.id for dead in looking.dead_letters()] == [second.task.id]
        cancelling.put([result(Task("c", b""), failure=FailureKind.CANCELLED)])
        assert cancelling.get([second.task.id])
        assert {failure.task.id for failure in cancelling.failed()} == {"f", "c"}
        user.redrive([next_generation(dead.task) for dead in user.dead_letters()])
        assert called(source, sink) == allowed(iam.agent(RESOURCES))
        assert called(user, cancelling) == allowed(iam.submitter(RESOURCES))
        assert called(looking, reader) == allowed(iam.reader(RESOURCES))


def test_an_agent_on_htc_grid_may_do_what_it_does_and_no_more(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    grid.submit([{"n": 1}])
    keys: dict[str, Any] = {"config_file": grid.config_file, "endpoint_url": grid.aws.url}
    source, user, looking = (HtcGridSource(HtcGridSource.Config(**keys), Function()) for _ in range(3))
    sink, reader = (HtcGridSink(HtcGridSink.Config(**keys), Function()) for _ in range(2))
    with source, user, looking, sink, reader:
        source.nack(source.receive(1, 1))
        (lease,) = source.receive(1, 1)
        sink.put([result(lease.task)])
        sink.add_run(b"{}")
        source.ack([lease])
        source.ack([lease])
        assert len(reader.get([lease.task.id])) == 1
        assert len(list(reader.scan(lease.task.id.split("_")[0]))) == 1
        user.put([Task("s_0", b"{}", {"session_id": "s"})])
        user.put([Task("s_0", b"{}", {"session_id": "s"})])
        user.cancel("s")
        assert called(source, sink) == allowed(iam.agent(HTC))
        assert called(user) == allowed(iam.submitter(HTC))
        looking.stats()
        assert called(looking, reader) == allowed(iam.reader(HTC))


def test_rows_of_tasks_and_cancel_marks_may_share_a_table() -> None:
    source = SqsSource(SqsSource.Config(queue="q", task_table="tasks", region="eu-west-1"), Function())
    policies: Any = source.permissions()
    found = {
        use: {statement["Sid"]: statement for statement in policy["Statement"]} for use, policy in policies.items()
    }
    assert found["agent"]["RemoveRows"]["Action"] == ["dynamodb:BatchWriteItem"]
    of_table = ["FindTable", "SeeCancelled", "RemoveRows"]
    assert [sid for sid in found["agent"] if "table/tasks" in found["agent"][sid]["Resource"][0]] == of_table
    of_table = ["FindTable", "Cancel", "WriteRows", "FindTasksOfSession"]
    assert [sid for sid in found["submitter"] if "table/tasks" in found["submitter"][sid]["Resource"][0]] == of_table
    # `failures` and `status` open the queue, which looks at its table.
    assert [sid for sid in found["reader"] if "table/tasks" in found["reader"][sid]["Resource"][0]] == ["FindTable"]


def test_the_s3_sink_is_covered_by_the_buckets_statements(aws: Aws) -> None:
    with S3Sink(S3Sink.Config(bucket=aws.bucket(), endpoint_url=aws.url), Function()) as sink:
        sink.put([result(Task("t", b""))])
        assert called(sink) <= allowed(iam.agent(iam.Resources(bucket="arn:aws:s3:::data")))


def test_every_statement_names_its_resources_and_none_is_everything() -> None:
    for make in (iam.agent, iam.submitter, iam.reader):
        for resources in (RESOURCES, HTC, iam.Resources(keys=("arn:aws:kms:eu-west-1:1:key/k",))):
            policy = json.loads(json.dumps(make(resources)))
            sids = [statement["Sid"] for statement in policy["Statement"]]
            assert len(sids) == len(set(sids))
            for statement in policy["Statement"]:
                assert all(arn.startswith("arn:") for arn in statement["Resource"])
                assert not any(action.endswith("*") for action in statement["Action"])


def test_what_a_grid_has_not_is_not_in_its_policy() -> None:
    assert iam.agent(iam.Resources())["Statement"] == []
    services = {action.split(":")[0] for action in allowed(iam.agent(iam.Resources(queues=("arn:aws:sqs:r:1:q",))))}
    assert services == {"sqs"}
