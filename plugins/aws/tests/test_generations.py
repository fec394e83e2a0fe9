"""Results that come late, or at the same time, on S3 and DynamoDB: what a redrive has stored stays."""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.s3 import S3Sink

from htcgrid.spi import GENERATION, FailureKind, Function, Outcome, Result, Task, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import Aws
    from htcgrid_aws.dynamodb_table import Item

LARGE = json.dumps(random.Random(7).randbytes(20_000).hex())
"""As an answer it is past the `inline_limit` below, deflated too."""


def made(payload: str, generation: int = 0, failure: FailureKind | None = None, age: float = 3600) -> Result:
    task = Task("t", b'{"n": 1}', {GENERATION: str(generation)} if generation else {})
    return Result(task, Outcome("t", payload.encode(), failure, started=time.time() - age), 1)


def failed(generation: int = 0, message: str = "") -> Result:
    return made(json.dumps({"errorType": "E", "errorMessage": message}), generation, FailureKind.HANDLER_ERROR)


class Interrupted:
    """Has something happen between S3's answer to a read and the write that follows from it, a few times."""

    def __init__(self, sink: S3Sink, happens: Callable[[], object], times: int) -> None:
        self._read = sink._bucket.get_tagged
        self._happens = happens
        self.left = times

    def __call__(self, key: str) -> Any:
        answer = self._read(key)
        if self.left:
            self.left -= 1
            self._happens()
        return answer


@pytest.fixture
def two_sinks(aws: Aws) -> Any:
    bucket = aws.bucket()
    with ExitStack() as opened:
        yield [
            opened.enter_context(S3Sink(S3Sink.Config(bucket=bucket, endpoint_url=aws.url), Function()))
            for _ in range(2)
        ]


@pytest.mark.parametrize("late", [made("1"), failed(1)], ids=["an answer of before", "a failure of the same redrive"])
def test_what_another_agent_stores_between_a_read_and_a_write_stays(
    two_sinks: tuple[S3Sink, S3Sink], monkeypatch: pytest.MonkeyPatch, late: Result
) -> None:
    slow, quick = two_sinks
    quick.put([failed()])
    interrupted = Interrupted(slow, lambda: quick.put([made("2", generation=1)]), times=1)
    monkeypatch.setattr(slow._bucket, "get_tagged", interrupted)
    slow.put([late])
    assert interrupted.left == 0
    assert quick.get(["t"])["t"].outcome.payload == b"2"
    assert not quick.has_failed()


def test_a_result_that_was_removed_between_a_read_and_a_write_is_stored_anew(
    two_sinks: tuple[S3Sink, S3Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = two_sinks
    quick.put([failed()])
    client = quick.client("s3")
    remove = lambda: client.delete_object(Bucket=quick.config.bucket, Key="results/t")  # noqa: E731
    monkeypatch.setattr(slow._bucket, "get_tagged", Interrupted(slow, remove, times=1))
    slow.put([made("2", generation=1)])
    assert quick.get(["t"])["t"].outcome.payload == b"2"


def test_a_result_that_others_write_all_the_time_is_put_again_later(
    two_sinks: tuple[S3Sink, S3Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = two_sinks
    quick.put([failed()])
    numbers = iter(range(2, 100))
    interrupted = Interrupted(slow, lambda: quick.put([failed(next(numbers))]), times=20)
    monkeypatch.setattr(slow._bucket, "get_tagged", interrupted)
    with pytest.raises(Unavailable, match="is being changed by other agents; put again"):
        slow.put([made("2", generation=50)])
    interrupted.left = 0
    slow.put([made("2", generation=50)])
    assert quick.get(["t"])["t"].outcome.payload == b"2"


@pytest.fixture
def table(aws: Aws) -> Any:
    config = DynamodbSink.Config(table=aws.table(), bucket=aws.bucket(), endpoint_url=aws.url, inline_limit=4096)
    with DynamodbSink(config, Function()) as sink:
        yield sink


@pytest.mark.parametrize("late", [made(LARGE), failed(message=LARGE)], ids=["answer", "failure"])
def test_a_large_result_that_comes_late_leaves_the_large_one_of_a_redrive(table: DynamodbSink, late: Result) -> None:
    newer = made(LARGE.replace("7", "8"), generation=1)
    table.put([failed()])
    table.put([newer])
    table.put([late])
    assert table.get(["t"])["t"].outcome == newer.outcome
    assert not list(table.failed())


def test_a_large_failure_leaves_the_large_answer_of_another_run_of_the_task(table: DynamodbSink) -> None:
    answer = made(LARGE)
    table.put([answer])
    table.put([failed(message=LARGE)])
    assert table.get(["t"])["t"].outcome == answer.outcome


def test_a_put_that_broke_off_between_bucket_and_table_is_completed(
    table: DynamodbSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document of the redrive is in S3, and the table says that the task failed. The redriven task runs again."""
    newer = made(LARGE, generation=1)
    table.put([failed()])
    with monkeypatch.context() as broken:
        broken.setattr(table._table, "write_where", lambda *_: (_ for _ in ()).throw(Unavailable("gone")))
        with pytest.raises(Unavailable):
            table.put([newer])
    assert [each.task.id for each in table.failed()] == ["t"]
    table.put([made(LARGE.replace("7", "8"), generation=1)])
    assert table.get(["t"])["t"].outcome == newer.outcome
    assert not list(table.failed())


@pytest.mark.parametrize("payload", ["1", LARGE], ids=["small", "large"])
def test_an_answer_whose_agent_was_suspended_as_it_was_sent_leaves_that_of_a_redrive(
    aws: Aws, table: DynamodbSink, payload: str
) -> None:
    """However young the answer is."""
    meanwhile = [failed(), made("2", generation=1)]
    with DynamodbSink(table.config, Function()) as slow:

        def suspended(**_: Any) -> None:
            while meanwhile:
                table.put([meanwhile.pop(0)])

        slow._table._client.meta.events.register("before-send.dynamodb", suspended)
        slow.put([made(payload, age=0)])
    assert not meanwhile
    assert table.get(["t"])["t"].outcome.payload == b"2"
    assert not table.has_failed()


def test_the_last_answer_of_before_a_redrive_stays(table: DynamodbSink) -> None:
    table.put([made("1", age=0)])
    table.put([made("2", age=0)])
    assert table.get(["t"])["t"].outcome.payload == b"2"


def test_what_is_young_is_judged_by_a_clock_that_nobody_sets(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, table: DynamodbSink
) -> None:
    started = time.time()
    with DynamodbSink(table.config.model_copy(update={"conditional": "late"}), Function()) as late:
        monkeypatch.setattr(time, "clock_gettime", lambda clock, gettime=time.clock_gettime: gettime(clock) + 30)
        table.put([made("2", generation=1)])
        late.put([Result(Task("t", b""), Outcome("t", b"1", started=started), 1)])
    assert table.get(["t"])["t"].outcome.payload == b"2"


def test_with_late_young_answers_go_many_a_request_and_others_by_themselves(
    table: DynamodbSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.config = table.config.model_copy(update={"conditional": "late"})
    requests: list[int] = []
    write = table._table.write_batch

    def counted(items: Sequence[Item]) -> list[str]:
        requests.append(len(items))
        return write(items)

    monkeypatch.setattr(table._table, "write_batch", counted)
    results = [made("1", age=age) for age in (1, 2, 3, 60, -60)]
    results = [
        Result(Task(f"t-{n}", b""), Outcome(f"t-{n}", b"1", started=each.outcome.started), 1)
        for n, each in enumerate(results)
    ]
    table.put(results)
    assert requests == [3]
    assert len(table.get([each.task.id for each in results])) == 5
