from __future__ import annotations

import base64
import contextlib
import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.s3 import S3Sink

from htcgrid.spi import FailureKind, Function, Outcome, Rejected, Result, Task, Unavailable

if TYPE_CHECKING:
    from conftest import Aws


def dynamodb(aws: Aws, **keys: Any) -> DynamodbSink:
    return DynamodbSink(DynamodbSink.Config(endpoint_url=aws.url, **keys), Function())


def s3(aws: Aws, **keys: Any) -> S3Sink:
    return S3Sink(S3Sink.Config(endpoint_url=aws.url, **keys), Function())


def result(task_id: str, payload: bytes = b"1.5", failure: FailureKind | None = None, log_tail: bytes = b"") -> Result:
    task = Task(task_id, b"{}", {"session_id": "s-1"})
    outcome = Outcome(task_id, payload, failure, int(time.time()) - 0.5, 12.25, 13, 64, log_tail, 3.5, "env-1")
    return Result(task, outcome, 2)


WHOLE = [
    result("answer", b'{"price": 1.50}'),
    result("not-utf8", b"\xff\xfe\x00"),
    result("empty", b""),
    result("failure", b'{"errorType": "E"}', FailureKind.TIMEOUT, b"printed \xff\n"),
    result("long", b'"' + b"abc " * 5000 + b'"', None, b"log " * 900),
]


@pytest.mark.parametrize("kind", ["dynamodb", "s3"])
def test_every_part_of_a_result_but_the_input_is_read_back(aws: Aws, kind: str) -> None:
    sink = dynamodb(aws, table=aws.table()) if kind == "dynamodb" else s3(aws, bucket=aws.bucket())
    with sink:
        sink.put(WHOLE)
        found = sink.get([each.task.id for each in WHOLE] + ["absent"])
    assert set(found) == {each.task.id for each in WHOLE}
    for each in WHOLE:
        again = found[each.task.id]
        assert again.outcome == each.outcome
        assert (again.attempt, dict(again.task.attributes)) == (2, {"session_id": "s-1"})


def test_an_s3_object_is_a_json_document_with_the_answer_in_it(aws: Aws) -> None:
    bucket = aws.bucket()
    with s3(aws, bucket=bucket, prefix="runs/7/") as sink:
        sink.put([result("a/b", b'{"price": 1.50}')])
    (key, body), *_ = aws.objects(bucket).items()
    assert key == "runs/7/a/b"
    assert json.loads(body)["payload"] == {"price": 1.5}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"key": "id"}, r"has the key id \(S\); htcgrid needs the partition key task_id \(S\)"),
        ({"kind": "N"}, r"has the key task_id \(N\)"),
        ({"sort": "session"}, r"has the key task_id \(S\) and session \(S\)"),
    ],
)
def test_a_table_with_the_wrong_key_is_rejected(aws: Aws, table: dict[str, str], says: str) -> None:
    with pytest.raises(Rejected, match=says):
        dynamodb(aws, table=aws.table(**table)).open()


@pytest.mark.parametrize("kind", ["table", "bucket"])
def test_what_is_missing_is_named_with_what_to_do(aws: Aws, kind: str) -> None:
    sink = dynamodb(aws, table="nowhere") if kind == "table" else s3(aws, bucket="nowhere")
    with pytest.raises(Rejected, match=rf"{kind} nowhere does not exist .*; create it"):
        sink.open()


def test_a_late_failure_never_replaces_an_answer(aws: Aws) -> None:
    """An agent that was stopped for long finds its task timed out when it goes on."""
    with dynamodb(aws, table=aws.table()) as sink:
        sink.put([result("t", b"1")])
        sink.put([result("t", b"{}", FailureKind.TIMEOUT)])
        assert sink.get(["t"])["t"].outcome.payload == b"1"


def test_an_answer_replaces_an_earlier_failure(aws: Aws) -> None:
    with dynamodb(aws, table=aws.table()) as sink:
        sink.put([result("t", b"{}", FailureKind.EXIT)])
        sink.put([result("t", b"1")])
        assert sink.get(["t"])["t"].outcome.failure is None


@pytest.mark.parametrize(("conditional", "stays"), [("failures", b"2"), ("always", b"1")])
def test_of_two_answers_one_stays_and_the_config_says_which(aws: Aws, conditional: str, stays: bytes) -> None:
    table = aws.table()
    with dynamodb(aws, table=table, conditional=conditional) as sink:
        sink.put([result("t", b"1")])
        sink.put([result("t", b"2")])
        assert sink.get(["t"])["t"].outcome.payload == stays
    assert len(aws.items(table)) == 1


@pytest.mark.parametrize(
    "damaged", [{"facts": {"S": "not JSON"}}, {"facts": {"S": "[1]"}}, {"packed": {"B": b"not deflated"}}, {}]
)
def test_an_item_that_is_not_a_result_is_named_and_the_others_are_read(aws: Aws, damaged: dict[str, Any]) -> None:
    table = aws.table()
    aws.client("dynamodb").put_item(TableName=table, Item={"task_id": {"S": "odd"}, **damaged})
    with dynamodb(aws, table=table) as sink:
        sink.put([result("t", b"1")])
        with pytest.raises(Rejected, match=f"the item of task odd in table {table} is not a result") as caught:
            sink.get(["t", "odd"])
        assert list(caught.value.task_ids) == ["odd"]
        assert sink.get(["t"])["t"].outcome.payload == b"1"


def test_an_object_that_is_not_a_result_is_named(aws: Aws) -> None:
    bucket = aws.bucket()
    with dynamodb(aws, table=aws.table(), bucket=bucket, inline_limit=1024) as sink:
        sink.put([result("t", json.dumps(random.Random(1).randbytes(9000).hex()).encode())])
        ((key, _),) = aws.objects(bucket).items()
        aws.client("s3").put_object(Bucket=bucket, Key=key, Body=b"not a result")
        with pytest.raises(Rejected, match=f"s3://{bucket}/{key} is not a result that htcgrid wrote"):
            sink.get(["t"])


def test_the_same_task_twice_in_one_put_leaves_one_result(aws: Aws) -> None:
    with dynamodb(aws, table=aws.table()) as sink:
        sink.put([result("t", b"1"), result("t", b"{}", FailureKind.EXIT), result("t", b"2")])
        assert sink.get(["t"])["t"].outcome.payload == b"2"


def incompressible(size: int) -> bytes:
    return json.dumps(random.Random(7).randbytes(size // 2).hex()).encode()


def test_a_result_above_the_item_limit_goes_to_s3_by_reference(aws: Aws) -> None:
    table, bucket = aws.table(), aws.bucket()
    large = result("large", incompressible(1_000_000))
    with dynamodb(aws, table=table, bucket=bucket) as sink:
        sink.put([large, result("small")])
        assert sink.get(["large"])["large"].outcome == large.outcome
    assert set(aws.objects(bucket)) == {"results/large"}
    assert aws.items(table)["large"]["s3"]["S"] == f"s3://{bucket}/results/large"
    with dynamodb(aws, table=table) as reader, pytest.raises(Rejected, match="set bucket and prefix here"):
        reader.get(["large"])


def test_a_result_above_the_item_limit_without_a_bucket_is_rejected_and_the_others_are_stored(aws: Aws) -> None:
    table = aws.table()
    with dynamodb(aws, table=table) as sink, pytest.raises(Rejected, match="set bucket to an S3 bucket") as caught:
        sink.put([result("a"), result("large", incompressible(1_000_000)), result("b", b"{}", FailureKind.EXIT)])
    assert caught.value.task_ids == {"large"}
    assert set(aws.items(table)) == {"a", "b"}


def test_items_that_a_throttled_table_leaves_are_unavailable_and_the_others_stored(aws: Aws) -> None:
    table = aws.table()
    with dynamodb(aws, table=table, conditional="late") as sink:
        client = sink._table._client
        write = client.batch_write_item

        def throttled(RequestItems: Any) -> Any:  # noqa: N803 - boto3's word
            taken, left = RequestItems[table][:3], RequestItems[table][3:]
            return {**write(RequestItems={table: taken}), "UnprocessedItems": {table: left}}

        client.batch_write_item = throttled
        results = [result(f"t-{number}") for number in range(5)]
        with pytest.raises(Unavailable, match="did not store 2 of 5 results"):
            sink.put(results)
        assert len(aws.items(table)) == 3
        client.batch_write_item = write
        sink.put(results)
        assert len(aws.items(table)) == 5


def test_keys_that_dynamodb_leaves_unread_are_asked_for_again(aws: Aws) -> None:
    """An answer of more than 16 MB, and one of a busy table, comes in parts."""
    table = aws.table()
    with dynamodb(aws, table=table) as sink:
        results = [result(f"t-{number}") for number in range(7)]
        sink.put(results)
        client = sink._table._client
        read = client.batch_get_item

        def in_parts(RequestItems: Any) -> Any:  # noqa: N803 - boto3's word
            request = RequestItems[table]
            keys, left = request["Keys"][:3], request["Keys"][3:]
            unread = {table: {**request, "Keys": left}} if left else {}
            return {**read(RequestItems={table: {**request, "Keys": keys}}), "UnprocessedKeys": unread}

        client.batch_get_item = in_parts
        assert set(sink.get([each.task.id for each in results])) == {each.task.id for each in results}


def test_a_page_without_a_failure_is_not_the_end_of_the_table(aws: Aws) -> None:
    """DynamoDB filters what it has read of a page: of a megabyte of answers nothing is left."""
    table = aws.table()
    with dynamodb(aws, table=table) as sink:
        sink.put([result("good"), result("bad", b"{}", FailureKind.EXIT)])
        client = sink._table._client
        read = client.scan

        def page_by_page(**arguments: Any) -> Any:
            if "ExclusiveStartKey" in arguments:
                return read(**{name: value for name, value in arguments.items() if name != "ExclusiveStartKey"})
            last = {"task_id": {"S": "good"}}
            return {"Items": [], "LastEvaluatedKey": last, "ConsumedCapacity": {"CapacityUnits": 1.0}}

        client.scan = page_by_page
        assert [each.task.id for each in sink.failed()] == ["bad"]
        assert sink.has_failed()


@pytest.mark.parametrize("conditional", ["failures", "always", "late"])
def test_results_that_a_throttled_table_took_are_not_written_again(aws: Aws, conditional: str) -> None:
    table = aws.table()
    with dynamodb(aws, table=table, conditional=conditional) as sink:
        results = [result(f"t-{number}") for number in range(8)]
        client = sink._table._client
        written: list[Any] = []
        refused: set[str] = set()
        batch, single = client.batch_write_item, client.put_item

        def throttled_batch(RequestItems: Any) -> Any:  # noqa: N803 - boto3's word
            taken, left = RequestItems[table][:3], RequestItems[table][3:]
            written.extend(taken)
            return {**batch(RequestItems={table: taken}), "UnprocessedItems": {table: left}}

        def throttled_item(**arguments: Any) -> Any:
            task_id = arguments["Item"]["task_id"]["S"]
            if task_id > "t-4" and task_id not in refused:
                refused.add(task_id)
                raise Unavailable("throttled")
            written.append(arguments["Item"])
            return single(**arguments)

        client.batch_write_item, client.put_item = throttled_batch, throttled_item
        puts = 0
        while puts < 10:
            puts += 1
            with contextlib.suppress(Unavailable):
                sink.put(results)
                break
        assert puts < 10
        assert len(written) == len(aws.items(table)) == 8
        sink.put([result("t-0", b"7")])
        assert len(written) == 9


def test_objects_that_a_throttled_bucket_took_are_not_written_again(aws: Aws) -> None:
    with s3(aws, bucket=aws.bucket()) as sink:
        results = [result(f"t-{number}") for number in range(6)]
        put = sink._bucket.put_where
        keys: list[str] = []

        def throttled(key: str, body: bytes, etag: str | None) -> bool:
            if key.endswith(("4", "5")) and keys.count(key) == 0:
                keys.append(key)
                raise Unavailable("slow down")
            written = put(key, body, etag)
            keys.extend([key] if written else ())
            return written

        sink._bucket.put_where = throttled  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            sink.put(results)
        sink.put(results)
        assert len(keys) == 8
        assert set(sink.get([each.task.id for each in results])) == {each.task.id for each in results}
        sink.put(results)
        assert len(keys) == 14


KILOBYTES = {
    "numbers": json.dumps({"prices": [round(100 + number / 7, 6) for number in range(92)]}).encode(),
    "random bytes in base64": json.dumps(base64.b64encode(random.Random(1).randbytes(765)).decode()).encode(),
}


@pytest.mark.parametrize("kind", KILOBYTES)
def test_a_result_of_one_kilobyte_costs_one_write_unit(aws: Aws, kind: str) -> None:
    assert 1000 <= len(KILOBYTES[kind]) <= 1100
    results = [result(f"3f0c9a52-7f7a-4b7e-9d59-{number:012}", KILOBYTES[kind]) for number in range(25)]
    with dynamodb(aws, table=aws.table()) as sink:
        sink.put(results)
        assert sink.usage_counter.usage().charged["dynamodb write units"] == 25
        assert sink.get([results[7].task.id])[results[7].task.id].outcome == results[7].outcome


def test_stored_is_asked_only_where_the_config_says_so(aws: Aws) -> None:
    table = aws.table()
    with dynamodb(aws, table=table) as sink:
        sink.put([result("t")])
        assert not sink.stored([Task("t", b"")])
    with dynamodb(aws, table=table, check_stored=True) as sink:
        assert set(sink.stored([Task("t", b""), Task("u", b"")])) == {"t"}


def test_an_id_too_long_for_s3_is_rejected_by_name(aws: Aws) -> None:
    with s3(aws, bucket=aws.bucket()) as sink, pytest.raises(Rejected, match="use shorter ids") as caught:
        sink.put([result("x" * 1100), result("t")])
    assert caught.value.task_ids == {"x" * 1100}
