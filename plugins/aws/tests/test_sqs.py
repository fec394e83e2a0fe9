from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.message_leases import MessageLease
from htcgrid_aws.sqs import SqsSource
from htcgrid_aws.sqs_queue import BATCH, Message, Unsent
from pydantic import ValidationError
from service_answers import throttled

from htcgrid.spi import FailureKind, Function, Lease, Rejected, States, Task, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conftest import Aws


def source_of(aws: Aws, **keys: Any) -> SqsSource:
    return SqsSource(SqsSource.Config(endpoint_url=aws.url, **keys), Function())


def tasks(count: int, **attributes: str) -> list[Task]:
    return [Task(f"t-{number}", b'{"n": %d}' % number, attributes) for number in range(count)]


def take(source: SqsSource, count: int) -> list[Lease]:
    leased: list[Lease] = []
    deadline = time.monotonic() + 20
    while len(leased) < count and time.monotonic() < deadline:
        leased += source.receive(10, 1)
    return leased


@contextmanager
def too_long_for(source: SqsSource, limit: int) -> Iterator[None]:
    """The dead-letter queue refuses what is longer, as SQS does and moto does not."""
    (dead,) = source._dead.values()
    send = dead.send

    def refuse(messages: Sequence[Message]) -> None:
        if any(message.size > limit for message in messages):
            raise Unsent(f"Reason: Message must be shorter than {limit} bytes.", {0}, for_good=True)
        send(messages)

    dead.send = refuse  # type: ignore[method-assign]
    yield


def test_a_plain_json_message_of_anybody_is_a_task(aws: Aws) -> None:
    queue = aws.queue()
    message_id = aws.send(queue, ' {"spot": 100.50}', session_id="s-9")
    with source_of(aws, queue=queue) as source:
        (lease,) = source.receive(10, 1)
    assert lease.task == Task(message_id, b' {"spot": 100.50}', {"session_id": "s-9"})
    assert not lease.invalid


def test_the_senders_trace_is_the_tasks(aws: Aws) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    queue = aws.queue()
    url = aws.client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]
    system = {"AWSTraceHeader": {"StringValue": trace, "DataType": "String"}}
    aws.client("sqs").send_message(QueueUrl=url, MessageBody="{}", MessageSystemAttributes=system)
    with source_of(aws, queue=queue) as source:
        (lease,) = source.receive(10, 1)
    assert lease.task.attributes["AWSTraceHeader"] == trace


@pytest.mark.parametrize("body", ["not JSON", "[" * 100_000, "{"])
def test_a_body_that_is_not_json_is_an_invalid_lease_with_its_bytes(aws: Aws, body: str) -> None:
    queue = aws.queue()
    message_id = aws.send(queue, body)
    with source_of(aws, queue=queue) as source:
        (lease,) = source.receive(10, 1)
    assert message_id in lease.invalid
    assert "not a JSON document" in lease.invalid
    assert lease.task.payload == body.encode()


@pytest.mark.parametrize(
    "mark",
    [
        "no JSON",
        "[]",
        '{"attributes": {}}',
        '{"id": "x", "body": "base64"}',
        '{"id": 5}',
        '{"id": ""}',
        r'{"id": "\ud800"}',
        '{"id": "x", "attributes": {"session_id": 5}}',
        r'{"id": "x", "attributes": {"a": "\ud800"}}',
        '{"id": ' + "[" * 100_000,
    ],
    ids=lambda mark: mark[:50],
)
def test_a_message_with_a_broken_mark_is_an_invalid_lease(aws: Aws, mark: str) -> None:
    queue = aws.queue()
    aws.send(queue, "{}!", htcgrid=mark)
    with source_of(aws, queue=queue) as source:
        (lease,) = source.receive(10, 1)
    assert "htcgrid" in lease.invalid


@pytest.mark.parametrize(
    "payload", [b"", b'"\xff\xfe"', '{"a": "\ufffe"}'.encode(), '{"a": 1}'.encode("utf-16"), b"\x00"]
)
def test_bytes_that_sqs_cannot_carry_arrive_all_the_same(aws: Aws, payload: bytes) -> None:
    with source_of(aws, queue=aws.queue()) as source:
        source.put([Task("t", payload)])
        (lease,) = source.receive(10, 1)
    assert lease.task.payload == payload


def test_a_body_of_htcgrids_own_messages_is_the_event_itself(aws: Aws) -> None:
    queue = aws.queue()
    with source_of(aws, queue=queue) as source:
        source.put([Task("t", b'{"a": 1}', {"session_id": "s"})])
    (message,) = aws.messages(queue)
    assert message["Body"] == '{"a": 1}'
    assert json.loads(message["MessageAttributes"]["htcgrid"]["StringValue"])["id"] == "t"


def test_more_attributes_than_sqs_allows_arrive(aws: Aws) -> None:
    attributes = {f"name {number}": f"value {number}" for number in range(25)}
    with source_of(aws, queue=aws.queue()) as source:
        source.put([Task("t", b"{}", attributes)])
        (lease,) = source.receive(10, 1)
    assert dict(lease.task.attributes) == attributes


def test_large_tasks_are_split_into_requests_by_size(aws: Aws) -> None:
    queue = aws.queue(MaximumMessageSize="262144")
    large = [Task(f"t-{number}", b'"%s"' % (b"x" * 100_000)) for number in range(5)]
    with source_of(aws, queue=queue) as source:
        source.put(large)
        assert source.usage().requests["sqs.SendMessageBatch"] == 3
        assert len(take(source, 5)) == 5


def test_an_input_above_the_queues_limit_goes_to_s3_and_comes_back(aws: Aws) -> None:
    queue, bucket = aws.queue(MaximumMessageSize="262144"), aws.bucket()
    task = Task("large", b'"%s"' % (b"x" * 300_000), {"session_id": "s"})
    with source_of(aws, queue=queue, bucket=bucket) as source:
        source.put([task])
        assert aws.objects(bucket) == {"inputs/large-input": task.payload}
        (lease,) = source.receive(10, 1)
    assert lease.task == task


def test_an_input_above_the_limit_without_a_bucket_is_rejected_and_nothing_is_sent(aws: Aws) -> None:
    queue = aws.queue(MaximumMessageSize="262144")
    with source_of(aws, queue=queue) as source, pytest.raises(Rejected, match="set bucket to an S3 bucket") as caught:
        source.put([Task("small", b"{}"), Task("large", b'"%s"' % (b"x" * 300_000))])
    assert caught.value.task_ids == {"large"}
    assert aws.waiting(queue) == (0, 0)


def test_a_reference_to_another_bucket_is_not_followed(aws: Aws) -> None:
    queue, ours, other = aws.queue(), aws.bucket(), aws.bucket()
    aws.client("s3").put_object(Bucket=other, Key="inputs/secret", Body=b'"secret"')
    aws.send(queue, "{}", htcgrid=json.dumps({"id": "t", "body": f"s3://{other}/inputs/secret"}))
    with source_of(aws, queue=queue, bucket=ours) as source:
        (lease,) = source.receive(10, 1)
    assert "set the same bucket and prefix everywhere" in lease.invalid
    assert b"secret" not in lease.task.payload


def test_an_input_that_is_gone_from_s3_is_an_invalid_lease(aws: Aws) -> None:
    queue, bucket = aws.queue(), aws.bucket()
    aws.send(queue, "{}", htcgrid=json.dumps({"id": "t", "body": f"s3://{bucket}/inputs/t-input"}))
    with source_of(aws, queue=queue, bucket=bucket) as source:
        (lease,) = source.receive(10, 1)
    assert "does not exist" in lease.invalid


def test_the_highest_priority_is_served_first(aws: Aws) -> None:
    queues = [aws.queue() for _ in range(3)]
    with source_of(aws, queues=queues) as source:
        source.put([Task(f"t-{priority}", b"{}", {"priority": str(priority)}) for priority in (0, 2, 1)])
        assert [source.receive(10, 1)[0].task.id for _ in range(3)] == ["t-2", "t-1", "t-0"]


def test_a_message_of_anybody_has_the_priority_of_its_queue(aws: Aws) -> None:
    queues = [aws.queue(), aws.queue()]
    aws.send(queues[1], "{}", city="Z\u00fcrich")
    with source_of(aws, queues=queues) as source:
        (lease,) = source.receive(1, 1)
    assert dict(lease.task.attributes) == {"city": "Z\u00fcrich", "priority": "1"}


@pytest.mark.parametrize("priority", ["3", "-1", "high", ""])
def test_a_priority_without_a_queue_is_rejected(aws: Aws, priority: str) -> None:
    with source_of(aws, queues=[aws.queue(), aws.queue()]) as source, pytest.raises(Rejected, match="has no queue"):
        source.put([Task("t", b"{}", {"priority": priority})])


def test_dead_letters_keep_task_and_reason(aws: Aws) -> None:
    dead = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": "100"})
    queue = aws.queue(RedrivePolicy=policy)
    with source_of(aws, queue=queue) as source:
        source.put([Task("killer", b'{"a": 1}', {"session_id": "s"})])
        source.dead_letter(source.receive(1, 1), "exit at attempt 3: \x00 signal: killed")
        assert source.stats(brief=True).states == States(waiting=0, delayed=0, leased=0, dead=1)
    (message,) = aws.messages(dead)
    assert message["Body"] == '{"a": 1}'
    assert message["MessageAttributes"]["htcgrid.reason"]["StringValue"] == "exit at attempt 3: ? signal: killed"


def test_a_dead_letter_can_be_received_as_a_task_again(aws: Aws) -> None:
    dead = aws.queue()
    with source_of(aws, queue=aws.queue(), dead_letter_queue=dead) as source:
        source.put(tasks(1, session_id="s"))
        (lease,) = source.receive(1, 1)
        source.dead_letter([lease], "why")
    with source_of(aws, queue=dead) as again:
        assert again.receive(1, 1)[0].task == lease.task


def test_a_redrive_leaves_the_dead_letter_of_the_run_that_it_has_started(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"queue": aws.queue(), "dead_letter_queue": aws.queue()}
    with source_of(aws, **config) as source, source_of(aws, **config) as agent:
        source.put([Task("t", b"{}")])
        agent.dead_letter(take(agent, 1), "the first run")
        send = source._submission.send

        def send_and_run(tasks: Sequence[Task]) -> None:
            send(tasks)
            agent.dead_letter(take(agent, 1), "the second run")

        monkeypatch.setattr(source._submission, "send", send_and_run)
        source.redrive([Task("t", b"{}", {"generation": "1"})])
        assert [letter.reason for letter in source.dead_letters()] == ["the second run"]


def test_without_a_dead_letter_queue_the_log_says_what_was_deleted(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    queue = aws.queue()
    with source_of(aws, queue=queue) as source:
        source.put(tasks(1))
        source.dead_letter(source.receive(1, 1), "exit at attempt 3")
        assert source.stats(brief=True).states == States(waiting=0, delayed=0, leased=0, dead=None)
    assert "task t-0 is deleted because there is no dead-letter queue: exit at attempt 3" in caplog.text


def test_a_cancelled_task_that_runs_is_found_by_extend_and_deleted(aws: Aws) -> None:
    queue, table = aws.queue(), aws.table()
    with (
        source_of(aws, queue=queue, cancel_table=table) as source,
        source_of(aws, queue=queue, cancel_table=table) as user,
    ):
        user.put(tasks(2))
        leases = take(source, 2)
        assert [task.id for task in user.cancel(task_ids=["t-0"])] == ["t-0"]
        assert set(source.extend(leases, 30)) == {"t-0"}
        assert aws.waiting(queue) == (0, 1)


def test_tasks_of_a_cancelled_session_never_run_and_still_get_a_result(aws: Aws) -> None:
    queue, table = aws.queue(), aws.table()
    with source_of(aws, queue=queue, cancel_table=table) as source:
        source.put([Task("runs", b"{}", {"session_id": "s-1"}), Task("other", b"{}", {"session_id": "s-2"})])
        leases = take(source, 2)
        source.put([Task("waits", b"{}", {"session_id": "s-1"})])
        source.cancel(session_id="s-1")
        assert set(source.extend(leases, 30)) == {"runs"}
        leases = take(source, 2)
        assert {lease.failure for lease in leases} == {FailureKind.CANCELLED}
        stopped = {lease.task.id: lease.invalid for lease in leases}
    assert set(stopped) == {"runs", "waits"}
    assert all("was cancelled with its session s-1" in reason for reason in stopped.values())


def test_cancel_without_a_table_says_what_sqs_cannot_do(aws: Aws) -> None:
    with source_of(aws, queue=aws.queue()) as source, pytest.raises(Rejected, match="cancel needs cancel_table"):
        source.cancel(session_id="s")


def test_a_put_that_failed_half_way_sends_only_the_rest_when_put_again(aws: Aws) -> None:
    queue = aws.queue()
    with source_of(aws, queue=queue) as source:
        send, calls = source._queues[0]._client.send_message_batch, []

        def flaky(**arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                arguments["Entries"], lost = arguments["Entries"][:4], arguments["Entries"][4:]
                failed = [{"Id": entry["Id"], "Code": "InternalError", "SenderFault": False} for entry in lost]
                return {**send(**arguments), "Failed": failed}
            return send(**arguments)

        source._queues[0]._client.send_message_batch = flaky
        many = tasks(30)
        with pytest.raises(Unavailable, match="6 of 10 tasks were not sent"):
            source.put(many)
        source.put(many)
        assert sorted(lease.task.id for lease in take(source, 30)) == sorted(task.id for task in many)
        assert aws.waiting(queue) == (0, 30)


def test_a_redrive_that_failed_at_the_dead_letters_sends_nothing_twice(aws: Aws) -> None:
    queue = aws.queue()
    again = tasks(15, generation="1")
    with source_of(aws, queue=queue, dead_letter_queue=aws.queue()) as source:
        with throttled(source, "sqs.ReceiveMessage"), pytest.raises(Unavailable):
            source.redrive(again)
        source.redrive(again)
        assert aws.waiting(queue) == (15, 0)
        source.redrive(again)
        assert aws.waiting(queue) == (30, 0)


def test_a_redriven_task_is_sent_though_a_put_that_failed_had_sent_its_first_run(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    with source_of(aws, queue=aws.queue()) as source:
        send = source._queues[0].send

        def send_only_the_first(messages: Sequence[Message]) -> None:
            send(messages[:1])
            raise Unsent("throttled", set(range(1, len(messages))))

        with monkeypatch.context() as patch:
            patch.setattr(source._queues[0], "send", send_only_the_first)
            with pytest.raises(Unavailable):
                source.put(tasks(2))
        (first,) = take(source, 1)
        source.ack([first])
        source.redrive(tasks(1, generation="1"))
        assert [lease.task for lease in take(source, 1)] == tasks(1, generation="1")


def test_a_task_that_is_throttled_beside_one_that_is_refused_is_not_refused(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    with source_of(aws, queue=aws.queue()) as source:
        client = source._queues[0]._client
        failed = [
            {"Id": "0", "SenderFault": True, "Code": "InvalidMessageContents"},
            {"Id": "1", "SenderFault": True, "Code": "RequestThrottled"},
        ]
        with monkeypatch.context() as patch:
            patch.setattr(client, "send_message_batch", lambda **_: {"Failed": failed})
            with pytest.raises(Unavailable, match="2 of 2 tasks were not sent"):
                source.put(tasks(2))
            failed.pop()
            with pytest.raises(Rejected) as caught:
                source.put(tasks(2))
        assert caught.value.task_ids == {"t-0"}


def test_two_tasks_of_one_id_in_one_put_are_rejected(aws: Aws) -> None:
    with source_of(aws, queue=aws.queue()) as source, pytest.raises(Rejected, match="twice in one put: t-0"):
        source.put([*tasks(2), *tasks(1)])


def test_a_lease_can_be_extended_to_twelve_hours_and_no_further(aws: Aws) -> None:
    now = time.monotonic()
    message_lease = MessageLease("t", 0, "handle", now - 43_000, now + 10)
    assert message_lease.at_most(30) == 30
    # SQS counts from when it sent the message, which was up to a second before it arrived.
    assert message_lease.at_most(600) in (198, 199)
    with source_of(aws, queue=aws.queue()) as source:
        source.put(tasks(1))
        (lease,) = source.receive(1, 1)
        (held,) = source._leases.of([lease])
        source._leases.add([MessageLease("t-0", 0, held.handle, now - 43_200, held.until)])
        assert set(source.extend([lease], 30)) == {"t-0"}


def test_a_lease_that_expired_unnoticed_is_lost_and_its_new_holder_undisturbed(aws: Aws) -> None:
    queue = aws.queue(1)
    with source_of(aws, queue=queue) as slow, source_of(aws, queue=queue, visibility_timeout=60) as fast:
        slow.put(tasks(1))
        old = slow.receive(1, 1)
        new = take(fast, 1)
        assert new[0].attempt == 2
        slow.nack(old)
        assert set(slow.extend(old, 60)) == {"t-0"}
        assert not slow.receive(1, 0), "the give-back of a lost lease showed another's message"
        assert not fast.extend(new, 60)


def test_what_is_returned_while_its_lease_is_extended_keeps_its_delay(
    aws: Aws, return_in_mid_extend: Callable[[Any, Sequence[Lease], float], list[float]]
) -> None:
    with source_of(aws, queue=aws.queue()) as source:
        source.put(tasks(1))
        assert return_in_mid_extend(source, take(source, 1), 7) == [60, 7]


def test_the_lease_is_the_queues_own_visibility_timeout_unless_set(aws: Aws) -> None:
    queue = aws.queue(77)
    with source_of(aws, queue=queue) as source:
        assert source.lease_seconds == 77
    with source_of(aws, queue=queue, visibility_timeout=5) as source:
        assert source.lease_seconds == 5


def test_a_queue_is_found_by_url_and_by_arn(aws: Aws) -> None:
    name = aws.queue()
    for written in (aws.queue_url(name), aws.queue_arn(name)):
        with source_of(aws, queue=written) as source:
            source.put(tasks(1))
            source.ack(source.receive(1, 1))


def test_a_fifo_queue_is_rejected(aws: Aws) -> None:
    with pytest.raises(Rejected, match="needs a standard one"):
        source_of(aws, queue="tasks.fifo").open()


def test_a_missing_queue_is_named_with_what_to_do(aws: Aws) -> None:
    with pytest.raises(Rejected, match="queue nowhere does not exist in this account and region; create it"):
        source_of(aws, queue="nowhere").open()


@pytest.mark.parametrize("keys", [{}, {"queue": "a", "queues": ["b"]}])
def test_queues_are_named_in_one_way(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="write either queue"):
        SqsSource.Config(**keys)


def test_a_message_whose_input_cannot_available_now_comes_again(aws: Aws) -> None:
    queue, bucket = aws.queue(), aws.bucket()
    with source_of(aws, queue=queue, bucket=bucket) as source:
        aws.send(queue, "{}", htcgrid=json.dumps({"id": "by-ref", "body": f"s3://{bucket}/inputs/x"}))
        assert source._bucket
        down: Sequence[bytes] = []

        def unavailable(key: str) -> bytes:
            if not down:
                raise Unavailable("S3 is down")
            return b"{}"

        source._bucket.get = unavailable  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="S3 is down"):
            source.receive(1, 1)
        down = [b"up"]
        assert [lease.task.id for lease in take(source, 1)] == ["by-ref"]


def test_a_dead_letter_at_the_queues_limit_has_its_reason_cut(aws: Aws) -> None:
    dead, queue = aws.queue(MaximumMessageSize="2048"), aws.queue(MaximumMessageSize="2048")
    with source_of(aws, queue=queue, dead_letter_queue=dead) as source:
        source.put([Task("t", b'"%s"' % (b"x" * 1900))])
        source.dead_letter(source.receive(1, 1), "reason " * 100)
    (message,) = aws.messages(dead)
    assert message["MessageAttributes"]["htcgrid.reason"]["StringValue"].startswith("reason")


def test_a_dead_letter_larger_than_its_queue_accepts_ends_its_task_all_the_same(
    aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    dead, queue = aws.queue(MaximumMessageSize="2048"), aws.queue()
    with source_of(aws, queue=queue, dead_letter_queue=dead) as source, too_long_for(source, 2048):
        source.put([Task("t", b'"%s"' % (b"x" * 3000))])
        source.dead_letter(source.receive(1, 1), "exit at attempt 3")
    assert aws.waiting(queue) == aws.waiting(dead) == (0, 0)
    assert f"queue {dead} accepts at most 2048 (raise its MaximumMessageSize): exit at attempt 3" in caplog.text


def test_a_dead_letter_whose_lease_was_lost_still_names_its_input_in_s3(aws: Aws) -> None:
    dead, queue, bucket = aws.queue(MaximumMessageSize="2048"), aws.queue(MaximumMessageSize="2048"), aws.bucket()
    with (
        source_of(aws, queue=queue, dead_letter_queue=dead, bucket=bucket) as source,
        too_long_for(source, 2048),
    ):
        source.put([Task("t", b'"%s"' % (b"x" * 3000))])
        leases = source.receive(1, 1)
        source._leases.extend(source._leases.known(leases)[0], 0)
        assert source.extend(leases, 30) == {"t"}
        source.dead_letter(leases, "exit at attempt 3")
        (letter,) = source.dead_letters()
    assert (letter.task.payload, letter.reason) == (leases[0].task.payload, "exit at attempt 3")


@pytest.mark.parametrize(("size", "most"), [(100, 2 * BATCH), (100_000, BATCH)])
def test_small_events_come_two_batches_at_a_time_and_large_ones_one(aws: Aws, size: int, most: int) -> None:
    queue = aws.queue()
    with source_of(aws, queue=queue) as source:
        source.put([Task(f"t-{number}", b'"%s"' % (b"x" * size)) for number in range(4 * BATCH)])
        received = [len(source.receive(source.max_batch, 5)) for _ in range(2)]
        assert received == [BATCH, most]
        leases = source.receive(source.max_batch, 5)
        source.ack(leases)
        assert sum(aws.waiting(queue)) == 4 * BATCH - len(leases)
