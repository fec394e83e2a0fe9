"""An htcgrid agent in HTC-Grid's place, seen from HTC-Grid's own client, cancel function and watchdog."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.message_leases import receipt_of

from htcgrid.spi import FailureKind, Function, Lease, Outcome, Rejected, Result, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conftest import HtcGrid

STORAGES = ["S3", "REDIS", "S3+REDIS"]


def source_of(grid: HtcGrid, **keys: Any) -> HtcGridSource:
    config = HtcGridSource.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False, **keys)
    return HtcGridSource(config, Function())


def sink_of(grid: HtcGrid, **keys: Any) -> HtcGridSink:
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, redis_tls=False, **keys)
    return HtcGridSink(config, Function())


def take(source: HtcGridSource, count: int) -> list[Lease]:
    leased: list[Lease] = []
    deadline = time.monotonic() + 20
    while len(leased) < count and time.monotonic() < deadline:
        leased += source.receive(10, 1)
    return leased


def run(lease: Lease) -> Result:
    """Doubles `n`; fails where there is none."""
    event = json.loads(lease.task.payload)
    if "n" in event:
        return Result(lease.task, Outcome(lease.task.id, json.dumps(event["n"] * 2).encode()), lease.attempt)
    error = Outcome(lease.task.id, b'{"errorType": "KeyError"}', FailureKind.HANDLER_ERROR)
    return Result(lease.task, error, lease.attempt)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_session_of_its_client_is_run_and_read(make_htc: Callable[..., HtcGrid], storage: str) -> None:
    grid = make_htc(storage)
    ids = grid.submit([{"n": number} for number in range(23)])
    session = ids[0].split("_")[0]
    with source_of(grid) as source, sink_of(grid) as sink:
        leases = take(source, 23)
        assert {grid.state(task_id) for task_id in ids} == {"processing"}
        assert leases[0].task.attributes == {"session_id": session, "priority": "0"}
        sink.put([run(lease) for lease in leases])
        source.ack(leases[:10])
        source.ack(leases[10:20])
        source.ack(leases[20:])
    results = grid.results(session)
    assert results["done"]
    assert results["outputs"] == {task_id: number * 2 for number, task_id in enumerate(ids)}
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)
    assert all(grid.read(task_id)["task_completion_timestamp"] > 1e12 for task_id in ids)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_failure_is_the_output_of_a_finished_task_as_htc_grids_own_agent_writes_it(
    make_htc: Callable[..., HtcGrid], storage: str
) -> None:
    grid = make_htc(storage)
    (task_id,) = grid.submit([{"wrong": 1}])
    with source_of(grid) as source, sink_of(grid) as sink:
        leases = take(source, 1)
        sink.put([run(leases[0])])
        source.ack(leases)
        assert sink.get([task_id])[task_id].outcome.failure is FailureKind.HANDLER_ERROR
    results = grid.results(task_id.split("_")[0])
    assert (results["done"], results["finished"]) == (True, [task_id])
    assert results["outputs"] == {task_id: {"errorType": "KeyError"}}


@pytest.mark.parametrize("answer", [b"BOOTSTRAP ERROR:no such file", b'"BOOTSTRAP ERROR:no such file"'])
def test_a_bootstrap_error_is_not_stored_as_an_answer(make_htc: Callable[..., HtcGrid], answer: bytes) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        sink.put([Result(lease.task, Outcome(task_id, answer))])
        source.ack([lease])
        assert sink.get([task_id])[task_id].outcome.failure is FailureKind.INIT_ERROR
    assert grid.results(task_id.split("_")[0])["failed"] == [task_id]
    assert "BOOTSTRAP ERROR:no such file" in grid.get(f"{task_id}-error")


def test_a_failure_does_not_replace_the_output_of_another_agent(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 2}])
    with source_of(grid, owner="a") as source, sink_of(grid, owner="a") as sink, sink_of(grid, owner="b") as late:
        (lease,) = take(source, 1)
        sink.put([run(lease)])
        late.put([Result(lease.task, Outcome(task_id, b"{}", FailureKind.EXIT))])
    assert grid.get(f"{task_id}-output") == "4"


def test_a_returned_task_has_one_more_attempt_and_no_more_retries(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid) as source:
        for attempt in range(1, 9):
            (lease,) = take(source, 1)
            assert lease.attempt == attempt
            source.nack([lease])
    assert grid.read(task_id)["retries"] == 0


def test_a_long_log_is_priced_at_the_write_units_of_its_row(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        log = random.Random(1).randbytes(4096)
        sink.put([Result(lease.task, Outcome(task_id, b"2", log_tail=log))])
        assert sink.usage_counter.usage().charged["dynamodb write units"] >= 6
        assert sink.get([task_id])[task_id].outcome.log_tail == log


@pytest.mark.parametrize("damaged", ["row", "output"])
def test_a_row_or_an_output_that_is_not_a_result_is_named(make_htc: Callable[..., HtcGrid], damaged: str) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        sink.put([Result(lease.task, Outcome(task_id, b"2"))])
        if damaged == "row":
            grid.write({**grid.read(task_id), "htcgrid": "not JSON"})
        else:
            grid.aws.client("s3").put_object(Bucket=grid.bucket, Key=f"{task_id}-output", Body=b"not base64!")
        with pytest.raises(Rejected, match=f"the row of task {task_id} in table {grid.table}, or its output, is not"):
            sink.get([task_id])


@pytest.mark.parametrize("storage", STORAGES)
def test_with_failures_error_a_handlers_failure_is_a_failed_row_and_not_an_output(
    make_htc: Callable[..., HtcGrid], storage: str
) -> None:
    grid = make_htc(storage)
    (task_id,) = grid.submit([{"wrong": 1}])
    with source_of(grid) as source, sink_of(grid, failures="error") as sink:
        leases = take(source, 1)
        sink.put([run(leases[0])])
        source.ack(leases)
        assert sink.get([task_id])[task_id].outcome.failure is FailureKind.HANDLER_ERROR
    results = grid.results(task_id.split("_")[0])
    assert (results["done"], results["failed"], results["finished"]) == (True, [task_id], [])
    assert grid.get(f"{task_id}-error") == '{"errorType": "KeyError"}'
    assert grid.read(task_id)["task_owner"] == "None"


def test_the_hybrid_reads_from_s3_what_redis_has_lost(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3+REDIS")
    (task_id,) = grid.submit([{"n": 1}])
    grid.redis.delete(f"{task_id}-input")
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        sink.put([run(lease)])
    assert json.loads(lease.task.payload) == {"n": 1}
    assert grid.redis.get(f"{task_id}-input") is not None
    assert f"{task_id}-output" in grid.aws.objects(grid.bucket)


def test_the_highest_priority_queue_is_served_first(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", priorities=3)
    ids = [grid.submit([{"n": priority}], priority)[0] for priority in (0, 2, 1)]
    with source_of(grid) as source:
        order = [source.receive(10, 1)[0].task for _ in range(3)]
    assert [task.id for task in order] == [ids[1], ids[2], ids[0]]
    assert [task.attributes["priority"] for task in order] == ["2", "1", "0"]


def test_a_claim_shows_owner_expiry_and_receipt_handle_to_the_watchdog(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", lease=30)
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid, owner="pod-7") as source:
        (lease,) = take(source, 1)
    row = grid.read(task_id)
    assert row["task_owner"] == "pod-7"
    assert row["sqs_handler_id"] == receipt_of(lease).handle
    assert 25 < int(row["heartbeat_expiration_timestamp"]) - time.time() < 32


def test_source_and_sink_of_one_process_have_the_same_owner(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    assert source_of(grid).owner == sink_of(grid).owner


def test_a_message_delivered_twice_is_claimed_once(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    grid.aws.send(grid.queues[0], json.dumps({"task_id": task_id, "task_priority": 0}))
    with source_of(grid, owner="a") as first, source_of(grid, owner="b") as second:
        assert len([*first.receive(10, 1), *second.receive(10, 1)]) == 1
        assert grid.aws.waiting(grid.queues[0]) == (0, 2), "the message of a task that runs elsewhere is kept"


@pytest.mark.parametrize("state", ["cancelled", "finished", "failed"])
def test_a_message_whose_task_is_over_is_deleted(make_htc: Callable[..., HtcGrid], state: str) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    grid.write(grid.row(task_id, task_id.split("_")[0], state))
    with source_of(grid) as source:
        assert not source.receive(10, 1)
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def test_a_cancelled_task_that_runs_is_found_by_the_heartbeat_and_its_message_deleted(
    make_htc: Callable[..., HtcGrid],
) -> None:
    grid = make_htc("S3")
    ids = grid.submit([{"n": 1}, {"n": 2}])
    with source_of(grid) as source, sink_of(grid) as sink:
        leases = take(source, 2)
        assert not source.extend(leases, 30)
        grid.cancel(ids[0].split("_")[0])
        assert set(source.extend(leases, 30)) == set(ids)
        sink.put([run(lease) for lease in leases])
    results = grid.results(ids[0].split("_")[0])
    assert (results["done"], sorted(results["cancelled"])) == (True, sorted(ids))
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def test_a_task_that_the_watchdog_took_back_is_lost_here_and_run_by_another(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", lease=1)
    (task_id,) = grid.submit([{"n": 4}])
    with (
        source_of(grid, owner="slow") as slow,
        source_of(grid, owner="fast") as fast,
        sink_of(grid, owner="slow") as late,
    ):
        old = take(slow, 1)
        deadline = time.monotonic() + 10
        while grid.state(task_id) == "processing" and time.monotonic() < deadline:
            grid.watchdog()
        late.put([run(old[0])])
        slow.ack(old)
        (new,) = take(fast, 1)
        assert (new.task.id, new.attempt) == (task_id, 2)
        assert set(slow.extend(old, 30)) == {task_id}
        assert grid.state(task_id) == "processing"
        with sink_of(grid, owner="fast") as sink:
            sink.put([run(new)])
        fast.ack([new])
    assert grid.results(task_id.split("_")[0])["outputs"] == {task_id: 8}
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def test_a_dead_agents_task_is_taken_over_without_a_watchdog(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", lease=1, visibility=1)
    (task_id,) = grid.submit([{"n": 4}])
    with source_of(grid, owner="dies") as dies:
        take(dies, 1)
    with source_of(grid, owner="lives") as lives:
        (lease,) = take(lives, 1)
    assert (lease.task.id, lease.attempt) == (task_id, 2)
    assert grid.read(task_id)["retries"] == 1


def test_what_is_returned_is_pending_again_for_anybody(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid, owner="a") as first, source_of(grid, owner="b") as second:
        leases = take(first, 1)
        first.nack(leases)
        row = grid.read(task_id)
        assert (grid.state(task_id), row["task_owner"], row["retries"]) == ("pending", "None", 0)
        assert take(second, 1)[0].attempt == 2


def test_what_is_returned_in_mid_heartbeat_keeps_its_delay(
    make_htc: Callable[..., HtcGrid], return_in_mid_extend: Callable[[Any, Sequence[Lease], float], list[float]]
) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid) as source:
        assert return_in_mid_extend(source, take(source, 1), 7) == [60, 7]
    assert grid.state(task_id) == "pending"


@pytest.mark.parametrize(
    "body",
    ["no JSON {", "[]", '{"hello": 1}', r'{"task_id": "s_\ud800"}', '{"task_id": "s_%s"}' % ("x" * 3000)],
    ids=lambda body: body[:25],
)
def test_a_message_that_is_not_htc_grids_is_invalid_and_its_failure_kept(
    make_htc: Callable[..., HtcGrid], body: str
) -> None:
    grid = make_htc("S3")
    message_id = grid.aws.send(grid.queues[0], body)
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        assert "is not HTC-Grid's" in lease.invalid
        failure = Outcome(lease.task.id, b'{"errorMessage": "no task"}', FailureKind.INVALID_EVENT)
        sink.put([Result(lease.task, failure)])
        source.ack([lease])
    assert grid.get(f"{message_id}-error") == '{"errorMessage": "no task"}'
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


def test_a_row_with_a_status_of_another_partition_is_invalid(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    grid.write({**grid.read(task_id), "task_status": "pending99"})
    with source_of(grid) as source:
        (lease,) = take(source, 1)
    assert "its row has the task_status 'pending99'" in lease.invalid


def test_a_message_without_its_row_is_invalid(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    grid.aws.send(grid.queues[0], json.dumps({"task_id": "gone_0"}))
    with source_of(grid) as source:
        (lease,) = take(source, 1)
    assert "task gone_0 has no row in table" in lease.invalid


def test_a_row_deleted_while_its_task_ran_is_told_and_the_output_kept(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 3}])
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        grid.aws.client("dynamodb").delete_item(TableName=grid.table, Key={"task_id": {"S": task_id}})
        with pytest.raises(Rejected, match="was deleted while it ran; its output is kept at s3://") as caught:
            sink.put([run(lease)])
        assert caught.value.task_ids == {task_id}
        failure = Outcome(task_id, b"{}", FailureKind.PAYLOAD_TOO_LARGE)
        sink.put([Result(lease.task, failure)])  # what the agent stores in place of a refused answer
        source.ack([lease])
    assert grid.get(f"{task_id}-output") == "6"
    assert grid.aws.waiting(grid.queues[0]) == (0, 0)


@pytest.mark.parametrize("body", [None, b"***", b"bm8gSlNPTg=="])
def test_an_input_that_is_gone_or_spoilt_is_invalid_and_its_row_failed(
    make_htc: Callable[..., HtcGrid], body: bytes | None
) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 3}])
    s3 = grid.aws.client("s3")
    if body is None:
        s3.delete_object(Bucket=grid.bucket, Key=f"{task_id}-input")
    else:
        s3.put_object(Bucket=grid.bucket, Key=f"{task_id}-input", Body=body)
    with source_of(grid) as source, sink_of(grid, failures="error") as sink:
        (lease,) = take(source, 1)
        assert f"its input s3://{grid.bucket}/{task_id}-input " in lease.invalid
        sink.put([Result(lease.task, Outcome(task_id, b"{}", FailureKind.INVALID_EVENT))])
    assert grid.results(task_id.split("_")[0])["failed"] == [task_id]


def test_a_heartbeat_in_time_keeps_a_task_from_the_watchdog(make_htc: Callable[..., HtcGrid]) -> None:
    lease = 5  # a busy machine holds a test up for seconds
    grid = make_htc("S3", lease=lease, visibility=lease)
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid, owner="a") as source, source_of(grid, owner="b") as other:
        leases = take(source, 1)
        deadline = time.monotonic() + 2 * lease
        while time.monotonic() < deadline:
            assert not source.extend(leases, lease)
            grid.watchdog()
            assert not other.receive(1, 0.3)
    assert grid.read(task_id)["task_owner"] == "a"
    assert grid.read(task_id)["retries"] == 0


def test_a_put_again_after_a_lost_answer_is_quiet(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 3}])
    with source_of(grid) as source, sink_of(grid) as sink:
        (lease,) = take(source, 1)
        sink.put([run(lease)])
        sink.put([run(lease)])
    assert grid.results(task_id.split("_")[0])["outputs"] == {task_id: 6}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"ddb_state_table": None}, "ddb_state_table"),
        ({"grid_storage_service": "EFS"}, "grid_storage_service: Input should be 'S3', 'REDIS' or 'S3\\+REDIS'"),
        ({"task_input_passed_via_external_storage": 0}, "task_input_passed_via_external_storage"),
        ({"s3_bucket": ""}, "set s3_bucket"),
    ],
)
def test_a_wrong_key_of_its_file_is_named(make_htc: Callable[..., HtcGrid], keys: dict[str, Any], says: str) -> None:
    grid = make_htc("S3", **keys)
    with pytest.raises(Rejected, match=says) as caught:
        source_of(grid).open()
    assert str(grid.config_file) in str(caught.value)


def test_a_file_that_is_not_json_is_named(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    grid.config_file.write_text("{,}")
    with pytest.raises(Rejected, match="not JSON"):
        source_of(grid).open()


def test_a_wrong_redis_password_is_rejected_without_showing_it(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("REDIS", redis_password="wrong-password")
    with pytest.raises(Rejected, match="check redis_password") as caught, source_of(grid):
        pass
    assert "wrong-password" not in str(caught.value)
    grid.config_file.write_text(json.dumps({"redis_password": "hidden-one"}))
    with pytest.raises(Rejected, match="region") as other:
        source_of(grid).open()
    assert "hidden-one" not in str(other.value)


def test_a_redis_that_does_not_answer_is_unavailable(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("REDIS", redis_url="127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"Redis at 127\.0\.0\.1:1"), source_of(grid):
        pass


def test_a_data_plane_that_is_down_is_unavailable_and_costs_no_retry(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3")
    (task_id,) = grid.submit([{"n": 1}])
    with source_of(grid) as source:
        read = source.data.get

        def down(key: str) -> bytes:
            raise Unavailable("S3 is down")

        source.data.get = down  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="S3 is down"):
            source.receive(1, 1)
        assert grid.state(task_id) == "pending"
        source.data.get = read  # type: ignore[method-assign]
        assert take(source, 1)[0].attempt == 1


def test_a_return_that_broke_off_is_finished_by_the_next(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("S3", visibility=600)
    grid.submit([{"n": 1}])
    with source_of(grid) as source:
        leases = take(source, 1)
        change_visibility = source._queues[0].change_visibility

        def down(seconds: Any) -> set[str]:
            raise Unavailable("SQS is down")

        source._queues[0].change_visibility = down  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            source.nack(leases)
        source._queues[0].change_visibility = change_visibility  # type: ignore[method-assign]
        source.nack(leases)
        assert take(source, 1)[0].attempt == 2


def test_htc_grids_keys_may_be_in_the_config_itself_so_that_no_file_is_needed(make_htc: Callable[..., HtcGrid]) -> None:
    grid = make_htc("REDIS")
    grid.submit([{"n": 21}])
    keys = json.loads(grid.config_file.read_text())
    password = keys.pop("redis_password")
    shared = {"grid": keys, "redis_password": password, "endpoint_url": grid.aws.url, "redis_tls": False}
    source = HtcGridSource(HtcGridSource.Config(**shared), Function())
    sink = HtcGridSink(HtcGridSink.Config(**shared), Function())
    with source, sink:
        (lease,) = take(source, 1)
        sink.put([run(lease)])
    assert grid.get(f"{lease.task.id}-output") == "42"


def test_a_password_among_the_keys_of_the_grid_is_refused_by_check_without_showing_it(tmp_path: Path) -> None:
    keys = '{ region = "eu-west-1", redis_password = "hidden-one" }'
    (tmp_path / "htcgrid.toml").write_text(
        f'[function]\nhandler = "a.b"\n[source]\nplugin = "htc_grid"\ngrid = {keys}\n[sink]\nplugin = "memory"\n'
    )
    command = [sys.executable, "-m", "htcgrid", "check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "write it beside grid" in done.stdout + done.stderr
    assert "hidden-one" not in done.stdout + done.stderr


@pytest.mark.parametrize("keys", [{}, {"config_file": __file__, "grid": {"region": "x"}}])
def test_htc_grids_keys_are_named_in_one_way(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="by config_file, or write its keys under grid"):
        HtcGridSource.Config(**keys)
