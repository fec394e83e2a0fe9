"""A row for each task: what the contract does not ask of `task_table`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.sqs import SqsSource
from htcgrid_aws.task_index import LONGEST_ID

from htcgrid.spi import Function, Rejected, Task, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conftest import Aws

    from htcgrid.spi import Lease


@pytest.fixture
def open_source(aws: Aws) -> Iterator[Callable[[], SqsSource]]:
    """Call it for a source, opened, each time another one of the same config."""
    config = SqsSource.Config(queue=aws.queue(), endpoint_url=aws.url, task_table=aws.table())
    opened: list[SqsSource] = []

    def make() -> SqsSource:
        opened.append(SqsSource(config, Function()))
        opened[-1].open()
        return opened[-1]

    yield make
    for source in opened:
        source.close()


def tasks(count: int, **attributes: str) -> list[Task]:
    return [Task(f"t-{number}", b'{"n": %d}' % number, attributes) for number in range(count)]


def take(source: SqsSource, count: int) -> list[Lease]:
    leased: list[Lease] = []
    while len(leased) < count and (more := source.receive(10, 1)):
        leased += more
    return leased


def ids(found: Sequence[Lease]) -> list[str]:
    return sorted(lease.task.id for lease in found)


def die_before_sending(source: SqsSource, put: Sequence[Task]) -> None:
    """The rows are there and the messages are not."""

    def dies(**arguments: Any) -> Any:
        raise KeyboardInterrupt

    source._queues[0]._client.send_message_batch = dies
    with pytest.raises(KeyboardInterrupt):
        source.put(put)


@pytest.mark.parametrize("again", [tasks(20), tasks(30), tasks(5)], ids=["the same", "more", "fewer"])
def test_what_a_submitter_left_that_died_before_its_messages_can_be_put_again(
    aws: Aws, open_source: Callable[[], SqsSource], again: list[Task]
) -> None:
    dead, source = open_source(), open_source()
    assert source.config.task_table
    die_before_sending(dead, tasks(20))
    assert len(aws.items(source.config.task_table)) == 21  # and the item of the put
    source.put(again)
    source.put(again)  # they are there, with this very content
    with pytest.raises(Rejected, match="already in the queue"):
        source.put([replace(task, payload=b"another") for task in again])
    leases = take(source, len(again))
    assert ids(leases) == sorted(task.id for task in again)
    assert aws.waiting(source.config.queue) == (0, len(again))


def test_rows_go_with_their_messages_and_their_ids_are_free_again(
    aws: Aws, open_source: Callable[[], SqsSource]
) -> None:
    source = open_source()
    source.put(tasks(30, session_id="s"))
    rows = aws.items(source.config.task_table)
    assert sorted(rows) == sorted(f"task#{task.id}" for task in tasks(30))
    assert all(int(row["expires"]["N"]) > 0 for row in rows.values())
    leases = take(source, 30)
    source.dead_letter(leases[:1], "why")
    source.ack(leases)
    assert aws.items(source.config.task_table) == {}
    assert source.cancel("s", [lease.task.id for lease in leases]) == []
    source.put(tasks(30))


def test_a_task_that_ends_while_it_is_put_again_is_not_refused(
    open_source: Callable[[], SqsSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, agent = open_source(), open_source()
    source.put(tasks(3))
    leases = take(agent, 3)
    assert source._index
    table = source._index._table
    read = table.read

    def read_after_an_ack(*arguments: Any, **options: Any) -> Any:
        agent.ack(leases)
        return read(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(table, "read", read_after_an_ack)
        with pytest.raises(Unavailable, match="3 of these tasks ended while they were put; put them again"):
            source.put(tasks(5))
    source.put(tasks(5))
    assert ids(take(agent, 5)) == [task.id for task in tasks(5)]


def test_a_put_that_is_refused_leaves_nothing_behind(aws: Aws, open_source: Callable[[], SqsSource]) -> None:
    source, other = open_source(), open_source()
    other.put(tasks(7))
    before = aws.items(source.config.task_table)
    for _ in range(2):
        with pytest.raises(Rejected, match=r"t-0, t-1, t-2, t-3, t-4 and 2 more") as caught:
            source.put([replace(task, payload=b"another") for task in tasks(40)])
        assert caught.value.task_ids == {task.id for task in tasks(7)}
    assert aws.items(source.config.task_table) == before
    assert aws.waiting(source.config.queue) == (7, 0)


def test_an_id_is_refused_where_an_earlier_refusal_broke_off(open_source: Callable[[], SqsSource]) -> None:
    source, dead = open_source(), open_source()
    source.put(tasks(2))
    assert dead._index
    dead._index.begin(tasks(2))
    with pytest.raises(Rejected, match="already in the queue"):
        source.put([replace(task, payload=b"another") for task in tasks(2)])


def test_rows_that_a_throttled_table_took_are_not_written_again(aws: Aws, open_source: Callable[[], SqsSource]) -> None:
    source = open_source()
    assert source._index
    client = source._index._table._client
    write, failing = client.put_item, {f"task#t-{number}" for number in range(10, 20)}

    def throttled(**arguments: Any) -> Any:
        if arguments["Item"]["task_id"]["S"] in failing:
            raise Unavailable("throttled")
        return write(**arguments)

    client.put_item = throttled
    with pytest.raises(Unavailable):
        source.put(tasks(20))
    assert aws.waiting(source.config.queue) == (0, 0)
    failing.clear()
    before = source.usage().requests["dynamodb.PutItem"]
    source.put(tasks(20))
    assert source.usage().requests["dynamodb.PutItem"] - before == 11  # with the item of the put
    assert ids(take(source, 20)) == sorted(task.id for task in tasks(20))


def test_rows_of_tasks_that_are_over_do_not_come_back_with_the_rest_of_a_put(
    aws: Aws, open_source: Callable[[], SqsSource]
) -> None:
    source = open_source()
    client = source._queues[0]._client
    send, calls = client.send_message_batch, []

    def flaky(**arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise Unavailable("the network is down")
        return send(**arguments)

    client.send_message_batch = flaky
    with pytest.raises(Unavailable):
        source.put(tasks(20))
    source.ack(take(source, 10))
    source.put(tasks(20))
    leases = take(source, 10)
    assert len(leases) == 10
    assert sorted(aws.items(source.config.task_table)) == [f"task#{task_id}" for task_id in ids(leases)]


def test_a_cancelled_task_is_named_and_refused_after_its_message_is_gone(
    aws: Aws, open_source: Callable[[], SqsSource]
) -> None:
    source, user = open_source(), open_source()
    stopped = tasks(4, session_id="s")
    user.put(stopped)
    leases = take(source, 4)
    source.nack([lease for lease in leases if lease.task.id == "t-0"])
    running = [lease for lease in leases if lease.task.id != "t-0"]
    without_payload = [Task(task.id, b"", {"session_id": "s"}) for task in stopped]
    assert sorted(user.cancel("s"), key=lambda task: task.id) == without_payload
    assert set(source.extend(running, 30)) == {"t-1", "t-2", "t-3"}
    assert source.receive(10, 1) == []
    assert aws.waiting(source.config.queue) == (0, 0)
    assert sorted(user.cancel("s"), key=lambda task: task.id) == without_payload
    with pytest.raises(Rejected, match="t-0"):  # its mark would stop it
        user.put(stopped[:1])


def test_a_message_of_anybody_has_no_row_and_is_stopped_with_its_session(
    aws: Aws, open_source: Callable[[], SqsSource]
) -> None:
    source = open_source()
    aws.send(source.config.queue, "{}", session_id="s")
    assert source.cancel("s") == []
    (lease,) = source.receive(1, 1)
    assert "was cancelled with its session s" in lease.invalid


def test_a_session_is_found_in_a_table_of_several_megabytes(aws: Aws, open_source: Callable[[], SqsSource]) -> None:
    source = open_source()
    for number in range(6):
        result = {"task_id": {"S": f"result-{number}"}, "payload": {"S": "x" * 390_000}}
        aws.client("dynamodb").put_item(TableName=source.config.task_table, Item=result)
    source.put(tasks(3, session_id="s"))
    assert len(source.cancel("s")) == 3
    assert source.usage().requests["dynamodb.Scan"] > 1


def test_an_id_without_room_for_its_marks_is_rejected(open_source: Callable[[], SqsSource]) -> None:
    source = open_source()
    source.put([Task("x" * LONGEST_ID, b"{}")])
    assert len(source.receive(1, 1)) == 1
    with pytest.raises(Rejected, match="use shorter ids") as caught:
        source.put([Task("y" * (LONGEST_ID + 1), b"{}")])
    assert caught.value.task_ids == {"y" * (LONGEST_ID + 1)}


def test_a_row_costs_two_write_units(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    queue, count = aws.queue(), 1000
    plain = SqsSource.Config(queue=queue, endpoint_url=aws.url, cancel_table=aws.table())
    totals = []
    for config in (plain, plain.model_copy(update={"task_table": aws.table()})):
        with SqsSource(config, Function()) as source:
            many = [Task(f"7d2c8e64-44a1-4f1c-9b0e-{n:012}", b"{}", {"session_id": "s-1"}) for n in range(count)]
            source.put(many[:500])
            source.put(many[500:])
            for _ in range(count // 10):
                source.ack(source.receive(10, 1))
            totals.append(source.usage_counter.usage())
    assert aws.waiting(queue) == (0, 0)
    without, with_rows = totals
    dollars = (with_rows.dollars - without.dollars) / count * 1e6
    requests = (with_rows.total - without.total) / count
    with capsys.disabled():
        sys.stdout.write(f"\ntask_table: {requests:.2f} requests a task and ${dollars:.2f} per million tasks more\n")
    units = with_rows.charged["dynamodb write units"]
    assert units == 2 * count + 2 * 2  # and two for each put
    assert dollars == pytest.approx(1.25, abs=0.01)
    assert requests == pytest.approx(1.1, abs=0.01)
