"""While AWS throttles, a message that no handler saw uses up none of its receives."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws import held_messages
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.htc_states import MOST_RETRIES
from htcgrid_aws.sqs import SqsSource
from service_answers import throttled

from htcgrid.spi import Function, Lease, Task, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Aws, HtcGrid

MAX_RECEIVES = 4
ROUNDS = 3 * MAX_RECEIVES
COUNT = 8
DELETE = "sqs.DeleteMessageBatch"
HIDE = "sqs.ChangeMessageVisibilityBatch"


def with_dead_letters(aws: Aws, queue: str) -> str:
    dead = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": str(MAX_RECEIVES)})
    aws.client("sqs").set_queue_attributes(QueueUrl=aws.queue_url(queue), Attributes={"RedrivePolicy": policy})
    return dead


def sqs_source(aws: Aws, queue: str, **keys: Any) -> SqsSource:
    return SqsSource(SqsSource.Config(endpoint_url=aws.url, queue=queue, **keys), Function())


def htc_source(grid: HtcGrid, **keys: Any) -> HtcGridSource:
    config = HtcGridSource.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False, **keys)
    return HtcGridSource(config, Function())


def large(aws: Aws, queue: str, bucket: str) -> list[str]:
    """Tasks whose inputs lie in S3."""
    ids = [f"t-{number}" for number in range(COUNT)]
    for task_id in ids:
        aws.client("s3").put_object(Bucket=bucket, Key=f"inputs/{task_id}-input", Body=b"{}")
        aws.send(queue, "{}", htcgrid=json.dumps({"id": task_id, "body": f"s3://{bucket}/inputs/{task_id}-input"}))
    return ids


def outlast(source: Any, *operations: str) -> list[Lease]:
    """What is leased in so many calls while these operations are refused."""
    leased: list[Lease] = []
    with throttled(source, *operations):
        for _ in range(ROUNDS):
            with suppress(Unavailable):
                leased += source.receive(10, 0)
    return leased


def rest(source: Any, count: int) -> list[Lease]:
    leased: list[Lease] = []
    deadline = time.monotonic() + 20
    while len(leased) < count and time.monotonic() < deadline:
        leased += source.receive(10, 1)
    return leased


def assert_each_once(leased: list[Lease], ids: list[str]) -> None:
    assert sorted((lease.task.id, lease.attempt, lease.invalid) for lease in leased) == [
        (task_id, 1, "") for task_id in sorted(ids)
    ]


@pytest.mark.parametrize(
    ("operations", "held_back"),
    [
        (("s3.GetObject",), True),
        (("dynamodb.BatchGetItem",), True),
        (("s3.GetObject", HIDE), True),
        (("dynamodb.BatchGetItem", HIDE), True),
        ((HIDE,), False),
        (("sqs.ReceiveMessage",), False),
    ],
)
def test_sqs_loses_no_task_while_aws_throttles(aws: Aws, operations: tuple[str, ...], held_back: bool) -> None:
    queue, bucket = aws.queue(), aws.bucket()
    dead, ids = with_dead_letters(aws, queue), large(aws, queue, bucket)
    with sqs_source(aws, queue, bucket=bucket, cancel_table=aws.table()) as source:
        leased = outlast(source, *operations)
        if held_back:
            assert not leased
            assert source.usage().requests["sqs.ReceiveMessage"] == 1
        leased += rest(source, COUNT - len(leased))
        source.ack(leased)
    assert_each_once(leased, ids)
    assert (aws.waiting(queue), aws.waiting(dead)) == ((0, 0), (0, 0))


def test_a_cancelled_tasks_message_that_cannot_be_deleted_costs_the_others_no_receive(aws: Aws) -> None:
    queue = aws.queue()
    dead = with_dead_letters(aws, queue)
    with sqs_source(aws, queue, cancel_table=aws.table()) as source:
        source.put([Task(f"t-{number}", b"{}") for number in range(COUNT)])
        source.cancel(task_ids=["t-0"])
        leased = outlast(source, "sqs.DeleteMessageBatch")
        leased += rest(source, COUNT - 1 - len(leased))
        source.ack(leased)
    assert_each_once(leased, [f"t-{number}" for number in range(1, COUNT)])
    assert (aws.waiting(queue), aws.waiting(dead)) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("operations", "held_back"),
    [
        (("dynamodb.UpdateItem",), True),
        (("s3.GetObject",), True),
        (("dynamodb.UpdateItem", HIDE), True),
        (("s3.GetObject", HIDE), True),
        ((HIDE,), False),
        (("sqs.ReceiveMessage",), False),
    ],
)
def test_htc_grid_loses_no_task_while_aws_throttles(
    make_htc: Callable[..., HtcGrid],
    operations: tuple[str, ...],
    held_back: bool,
) -> None:
    grid = make_htc("S3")
    queue, aws = grid.queues[0], grid.aws
    dead, ids = with_dead_letters(aws, queue), grid.submit([{"n": number} for number in range(COUNT)])
    with htc_source(grid) as source:
        leased = outlast(source, *operations)
        if held_back:
            assert not leased
            assert source.usage().requests["sqs.ReceiveMessage"] == 1
        leased += rest(source, COUNT - len(leased))
        assert {grid.state(task_id) for task_id in ids} == {"processing"}
        source.ack(leased)
    assert_each_once(leased, ids)
    assert {grid.read(task_id)["retries"] for task_id in ids} == {0}
    assert (aws.waiting(queue), aws.waiting(dead)) == ((0, 0), (0, 0))


def test_htc_grid_loses_no_task_while_redis_is_away(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("REDIS")
    dead, ids = with_dead_letters(grid.aws, grid.queues[0]), grid.submit([{"n": number} for number in range(COUNT)])
    with htc_source(grid) as source:
        read = source.data.get

        def down(key: str) -> bytes:
            raise Unavailable(f"Redis is away: {key}")

        source.data.get = down  # type: ignore[method-assign]
        for _ in range(ROUNDS):
            with pytest.raises(Unavailable, match="Redis is away"):
                source.receive(10, 0)
        source.data.get = read  # type: ignore[method-assign]
        leased = rest(source, COUNT)
        assert source.usage().requests["sqs.ReceiveMessage"] == 1
        source.ack(leased)
    assert_each_once(leased, ids)
    assert grid.aws.waiting(dead) == (0, 0)


def test_a_claim_that_could_not_be_returned_is_claimed_again_without_a_retry(
    make_htc: Callable[..., HtcGrid],
) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with htc_source(grid) as source:
        return_to_pending = source.states.return_to_pending

        def refused(*_: Any, **__: Any) -> bool:
            raise Unavailable("the table throttles too")

        source.states.return_to_pending = refused  # type: ignore[method-assign]
        outlast(source, "s3.GetObject")
        source.states.return_to_pending = return_to_pending  # type: ignore[method-assign]
        assert grid.state(task_id) == "processing"
        assert_each_once(rest(source, 1), [task_id])
    assert grid.read(task_id)["retries"] == 0


def test_a_heartbeat_that_is_throttled_keeps_its_message_hidden(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", lease=20, visibility=20)
    grid.submit([{"n": 1}])
    with htc_source(grid) as source:
        leases = rest(source, 1)
        assert HIDE not in source.usage().requests
        with throttled(source, "dynamodb.UpdateItem"), pytest.raises(Unavailable):
            source.extend(leases, 20)
        assert source.usage().requests[HIDE] == 1


def test_heartbeats_are_written_while_sqs_refuses_to_hide_messages(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", lease=20, visibility=20)
    (task_id,) = grid.submit([{"n": 1}])
    with htc_source(grid) as source:
        leases = rest(source, 1)
        with throttled(source, HIDE):
            assert not source.extend(leases, 300)
        assert grid.read(task_id)["heartbeat_expiration_timestamp"] > time.time() + 250
        assert source.usage().requests[HIDE] == 1
        source.extend(leases, 20)
        assert source.usage().requests[HIDE] == 2


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_heartbeat_deletes_the_messages_of_ended_tasks_in_one_request(
    make_htc: Callable[..., HtcGrid], is_refused: bool
) -> None:
    grid = make_htc("S3")
    ids = grid.submit([{"n": n} for n in range(COUNT)])
    with htc_source(grid) as source:
        leases = rest(source, COUNT)
        grid.cancel(ids[0].split("_")[0])
        with throttled(source, DELETE) if is_refused else nullcontext():
            assert set(source.extend(leases, 30)) == set(ids)
        assert source.usage().requests[DELETE] == 1


@pytest.mark.parametrize("retries", [0, MOST_RETRIES])
def test_the_tasks_of_a_dead_agent_are_read_and_their_messages_settled_in_one_request_each(
    make_htc: Callable[..., HtcGrid], retries: int
) -> None:
    grid = make_htc("S3")
    ids = grid.submit([{"n": n} for n in range(COUNT)])
    with htc_source(grid) as dead:
        rest(dead, COUNT)
        for task_id in ids:
            grid.write({**grid.read(task_id), "heartbeat_expiration_timestamp": 1, "retries": retries})
        with htc_source(grid, watchdog_seconds=3600) as source:
            assert len(source.receive(COUNT, 5)) == (0 if retries else COUNT)
            requests = source.usage().requests
    assert {grid.state(task_id) for task_id in ids} == {"failed" if retries else "processing"}
    assert (requests.get(HIDE, 0), requests.get(DELETE, 0)) == ((0, 1) if retries else (1, 0))
    assert requests["dynamodb.BatchGetItem"] == 1


@pytest.mark.parametrize("ending", ["extend", "nack"])
def test_a_table_that_throttles_for_longer_than_a_lease_leaves_its_row_to_its_agent(
    make_htc: Callable[..., HtcGrid], ending: str
) -> None:
    grid = make_htc("S3", lease=1)
    (task_id,) = grid.submit([{"n": 1}])
    with htc_source(grid) as source:
        leases = rest(source, 1)
        with throttled(source, "dynamodb.UpdateItem"):
            while time.time() <= grid.read(task_id)["heartbeat_expiration_timestamp"]:
                with pytest.raises(Unavailable):
                    source.extend(leases, 1)
                time.sleep(0.1)
        if ending == "extend":
            assert not source.extend(leases, 30)
            assert grid.read(task_id)["heartbeat_expiration_timestamp"] > time.time() + 20
        else:
            source.nack(leases)
            assert [lease.attempt for lease in rest(source, 1)] == [2]
    assert grid.read(task_id)["retries"] == 0


def test_messages_are_held_for_longer_than_the_lease_of_their_queue(aws: Aws) -> None:
    queue, bucket = aws.queue(1), aws.bucket()
    ids = large(aws, queue, bucket)
    with sqs_source(aws, queue, bucket=bucket) as source, sqs_source(aws, queue, bucket=bucket) as other:
        with throttled(source, "s3.GetObject"):
            with pytest.raises(Unavailable):
                source.receive(10, 0)
            assert not other.receive(10, 2)
        assert_each_once(rest(source, COUNT), ids)


def test_a_smaller_call_leases_some_of_what_is_held_and_the_next_the_others(aws: Aws) -> None:
    queue, bucket = aws.queue(), aws.bucket()
    ids = large(aws, queue, bucket)
    with sqs_source(aws, queue, bucket=bucket) as source:
        outlast(source, "s3.GetObject")
        first = source.receive(3, 0)
        assert len(first) == 3
        assert_each_once([*first, *source.receive(10, 0)], ids)
        assert source.usage().requests["sqs.ReceiveMessage"] == 1


@pytest.mark.parametrize("kind", ["sqs", "htc_grid"])
def test_what_is_held_at_close_is_shown_to_others_after_a_delay(
    aws: Aws, make_htc: Callable[..., HtcGrid], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(held_messages, "RELEASE_DELAY", 2)
    queue, bucket = aws.queue(), aws.bucket()
    first: Any
    other: Any
    if kind == "sqs":
        ids = large(aws, queue, bucket)
        first, other = (sqs_source(aws, queue, bucket=bucket) for _ in range(2))
    else:
        grid = make_htc("S3")
        ids = grid.submit([{"n": number} for number in range(COUNT)])
        first, other = (htc_source(grid, owner=owner) for owner in "ab")
    with other:
        with first, throttled(first, "s3.GetObject"), pytest.raises(Unavailable):
            first.receive(10, 0)
        assert not other.receive(10, 0)
        assert sorted(lease.task.id for lease in rest(other, COUNT)) == sorted(ids)
