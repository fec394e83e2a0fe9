"""`htcgrid submit`, `cancel`, `results` and the watchdog's work on HTC-Grid's queue, without its front."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource

from htcgrid.spi import FailureKind, Function, Lease, Outcome, Rejected, Result, Task, error_documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import HtcGrid


def source_of(grid: HtcGrid, **keys: Any) -> HtcGridSource:
    config = HtcGridSource.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False, **keys)
    return HtcGridSource(config, Function())


def sink_of(grid: HtcGrid, **keys: Any) -> HtcGridSink:
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False, **keys)
    return HtcGridSink(config, Function())


def tasks(session: str, count: int, **attributes: str) -> list[Task]:
    given = {"session_id": session, **attributes}
    return [Task(f"{session}_{n}", json.dumps({"n": n}).encode(), given) for n in range(count)]


@pytest.mark.parametrize("storage", ["S3", "REDIS", "S3+REDIS"])
def test_submitted_tasks_have_the_rows_inputs_and_messages_of_htc_grids_own(
    make_htc: Callable[..., HtcGrid], storage: str
) -> None:
    grid = make_htc(storage)
    with source_of(grid) as source:
        source.put(tasks("s", 1))
    row = grid.read("s_0")
    assert {**row, "submission_timestamp": 0} == {**grid.row("s_0", "s", "pending"), "submission_timestamp": 0}
    assert time.time() - int(row["submission_timestamp"]) / 1000 < 60
    assert grid.get("s_0-input") == '{"n": 0}'
    (message,) = grid.aws.messages(grid.queues[0])
    body = json.loads(message["Body"])
    assert body["task_id"] == "s_0"
    assert set(body["stats"]["stage3_agent_01_task_acquired_sqs_tstmp"]) == {"label", "tstmp"}


def test_a_session_is_submitted_run_and_listed(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    with source_of(grid) as source, sink_of(grid) as sink:
        source.put(tasks("s", 12))
        assert source.is_pending("s")
        assert list(sink.scan("s")) == []
        for _ in range(12):
            (lease,) = source.receive(1, 5)
            sink.put([Result(lease.task, Outcome(lease.task.id, lease.task.payload))])
            source.ack([lease])
        assert not source.is_pending("s")
        found = dict(sink.scan("s"))
        assert [found[number].task.id for number in sorted(found)] == [f"s_{n}" for n in range(12)]
        assert [number for number, _ in sink.scan("s", after=10)] == [11, 12]


def test_priorities_go_to_their_queues(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", priorities=3)
    with source_of(grid) as source:
        source.put(tasks("low", 1) + tasks("high", 1, priority="2"))
        assert [source.receive(1, 1)[0].task.attributes["priority"] for _ in range(2)] == ["2", "0"]
        with pytest.raises(Rejected, match="priority '3': this grid has the priorities 0 to 2"):
            source.put(tasks("other", 1, priority="3"))


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Task("s_0", b"{}", {"session_id": "another"}), "its session is 'another'"),
        (Task("s_0", b"{}", {"color": "red"}), "attributes color"),
        (Task("_0", b"{}"), "before the first underscore"),
    ],
)
def test_what_htc_grid_cannot_hold_is_rejected_and_nothing_is_put(
    make_htc: Callable[..., HtcGrid], task: Task, says: str
) -> None:
    grid = make_htc("S3")
    with source_of(grid) as source, pytest.raises(Rejected, match=says):
        source.put([*tasks("good", 1), task])
    assert grid.aws.items(grid.table) == {}
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def test_a_submit_that_was_cut_off_is_completed_by_giving_it_again(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    given = tasks("s", 3)
    with source_of(grid, owner="a") as source:
        source.put(given[:1])
        source.states.add(given[1].id, 0)  # its message was never sent
        source.data.put(f"{given[1].id}-input", b"eyJuIjogMX0=")
        source.put(given)
        leased: list[Lease] = []
        while leases := source.receive(10, 1):
            leased += leases
    assert sorted(lease.task.id for lease in leased) == [task.id for task in given]


def test_cancelled_tasks_that_wait_never_run_and_the_client_sees_them(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    with source_of(grid) as source, sink_of(grid) as sink:
        source.put(tasks("s", 3))
        (running,) = source.receive(1, 5)
        for _ in range(2):  # the second completes a first that was cut off
            cancelled = source.cancel("s")
            assert sorted(task.id for task in cancelled) == ["s_0", "s_1", "s_2"]
            failure = FailureKind.CANCELLED
            sink.put([Result(task, Outcome(task.id, error_documents.cancelled(), failure)) for task in cancelled])
        assert source.extend([running], 30) == {running.task.id}
        assert source.receive(10, 1) == []
        assert {result.outcome.failure for result in sink.get(["s_0", "s_1", "s_2"]).values()} == {
            FailureKind.CANCELLED
        }
    assert {grid.state(f"s_{n}") for n in range(3)} == {"cancelled"}
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def expired(grid: HtcGrid, source: HtcGridSource, retries: int) -> str:
    """A task that an agent has claimed and died with."""
    source.put(tasks("s", 1))
    (lease,) = source.receive(1, 5)
    grid.write({**grid.read(lease.task.id), "heartbeat_expiration_timestamp": 1, "retries": retries})
    return lease.task.id


def test_the_watchdog_of_an_agent_returns_what_a_dead_agent_held(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    with source_of(grid, owner="dead") as dead:
        task_id = expired(grid, dead, retries=4)
        with source_of(grid, owner="alive", watchdog_seconds=3600) as source:
            (lease,) = source.receive(1, 5)
    assert (lease.task.id, lease.attempt, grid.read(task_id)["retries"]) == (task_id, 6, 5)


@pytest.mark.parametrize("watchdog_seconds", [0, 3600])
def test_a_task_whose_heartbeat_expires_a_sixth_time_has_failed(
    make_htc: Callable[..., HtcGrid], watchdog_seconds: int
) -> None:
    grid = make_htc("S3", lease=1, visibility=1)
    with source_of(grid, owner="dead") as dead:
        task_id = expired(grid, dead, retries=5)
        with source_of(grid, owner="alive", watchdog_seconds=watchdog_seconds) as source:
            deadline = time.monotonic() + 20
            while grid.state(task_id) == "processing" and time.monotonic() < deadline:
                assert source.receive(1, 1) == []
    assert grid.state(task_id) == "failed"
    assert grid.read(task_id)["retries"] == 5
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def test_a_task_whose_input_of_that_id_is_not_base64_is_another_task(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    with source_of(grid) as source:
        source.put(tasks("s", 1))
        grid.aws.client("s3").put_object(Bucket=grid.bucket, Key="s_0-input", Body=b"not base64!")
        with pytest.raises(Rejected, match="with another event"):
            source.put(tasks("s", 1))
