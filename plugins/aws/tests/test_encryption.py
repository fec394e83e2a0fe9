"""What is put to S3 says how it is encrypted, as a bucket's policy may demand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.s3 import S3Sink
from htcgrid_aws.sqs import SqsSource
from pydantic import ValidationError

from htcgrid.spi import Function, Outcome, Result, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from conftest import Aws, HtcGrid

KEY = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
KINDS = [
    ({}, (None, None)),
    ({"encryption": "AES256"}, ("AES256", None)),
    ({"encryption": "aws:kms"}, ("aws:kms", None)),
    ({"kms_key": KEY}, ("aws:kms", KEY)),
]
LARGE = b'"%s"' % random.Random(1).randbytes(200_000).hex().encode()


def watched(plugin: Any) -> list[tuple[str | None, str | None]]:
    """The encryption headers of each put on the wire."""
    seen: list[tuple[str | None, str | None]] = []

    def text(value: bytes | str | None) -> str | None:
        return value.decode() if isinstance(value, bytes) else value

    def look(request: Any, **_: Any) -> None:
        name = "x-amz-server-side-encryption"
        seen.append((text(request.headers.get(name)), text(request.headers.get(f"{name}-aws-kms-key-id"))))

    for client in plugin._session.clients:
        client.meta.events.register("before-send.s3.PutObject", look)
    return seen


def result(payload: bytes = b"1") -> Result:
    return Result(Task("t", b""), Outcome("t", payload))


@pytest.mark.parametrize("kind", ["s3", "dynamodb", "sqs"])
@pytest.mark.parametrize(("keys", "headers"), KINDS)
def test_every_put_to_s3_says_the_encryption_that_is_set(
    aws: Aws, kind: str, keys: Mapping[str, Any], headers: tuple[str | None, str | None]
) -> None:
    given = {"bucket": aws.bucket(), "endpoint_url": aws.url, **keys}
    plugin: Any
    if kind == "s3":
        plugin = S3Sink(S3Sink.Config(**given), Function())
    elif kind == "dynamodb":
        plugin = DynamodbSink(DynamodbSink.Config(table=aws.table(), inline_limit=1024, **given), Function())
    else:
        plugin = SqsSource(SqsSource.Config(queue=aws.queue(MaximumMessageSize="262144"), **given), Function())
    with plugin:
        seen = watched(plugin)
        plugin.put([Task("t", LARGE)] if kind == "sqs" else [result(LARGE)])
        assert seen == [headers]
        allowed = [line["Resource"] for line in plugin.permissions()["agent"]["Statement"] if line["Sid"] == "UseKeys"]
    assert allowed == ([[KEY]] if "kms_key" in keys else [])


@pytest.mark.parametrize(
    ("keys", "headers"),
    [({}, ("aws:kms", KEY)), ({"encryption": "AES256"}, ("AES256", None))],
)
def test_htc_grid_encrypts_with_the_key_of_its_file_unless_told_otherwise(
    make_htc: Callable[..., HtcGrid], keys: Mapping[str, Any], headers: tuple[str | None, str | None]
) -> None:
    grid = make_htc("S3", s3_kms_key_id=KEY)
    config = HtcGridSink.Config(config_file=grid.config_file, endpoint_url=grid.aws.url, **keys)
    with HtcGridSink(config, Function()) as sink:
        seen = watched(sink)
        sink.data.put("x-output", b"1")
        assert seen == [headers]
        policy: Any = sink.permissions()["agent"]
        sids = [line["Sid"] for line in policy["Statement"]]
    assert ("UseKeys" in sids) == (headers[1] is not None)


@pytest.mark.parametrize(
    ("key", "arn"),
    [
        (KEY, KEY),
        ("1111-2222", "arn:aws:kms:eu-west-1:*:key/1111-2222"),
        ("alias/grid", "arn:aws:kms:eu-west-1:*:key/*"),
    ],
)
def test_the_policy_names_the_key(key: str, arn: str) -> None:
    config = S3Sink.Config(bucket="b", region="eu-west-1", kms_key=key)
    assert config.keys() == (arn,)


def test_a_kms_key_with_sse_s3_is_refused() -> None:
    with pytest.raises(ValidationError, match="remove one of the two keys"):
        S3Sink.Config(bucket="b", encryption="AES256", kms_key=KEY)
