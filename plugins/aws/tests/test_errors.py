"""What the agent is told of AWS's errors, met on a real client whose answer is put in place of the service's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.s3 import S3Sink
from htcgrid_aws.sqs import SqsSource
from service_answers import answer

from htcgrid.spi import Function, HtcgridError, Outcome, Rejected, Result, Task, Unavailable

if TYPE_CHECKING:
    from conftest import Aws


def error_of(aws: Aws, operation: str, status: int, code: str, message: str = "no") -> HtcgridError:
    plugin: Any
    result = Result(Task("t", b""), Outcome("t", b"1", started=time.time()))
    if operation.startswith("sqs"):
        plugin = SqsSource(SqsSource.Config(queue=aws.queue(), endpoint_url=aws.url), Function())
    elif operation.startswith("dynamodb"):
        keys: Any = {"conditional": "late"} if operation.endswith("BatchWriteItem") else {}
        plugin = DynamodbSink(DynamodbSink.Config(table=aws.table(), endpoint_url=aws.url, **keys), Function())
    else:
        plugin = S3Sink(S3Sink.Config(bucket=aws.bucket(), endpoint_url=aws.url), Function())
    with plugin:
        answer(plugin, operation, status, code, message)
        with pytest.raises(HtcgridError) as caught:
            plugin.receive(1, 0) if operation.startswith("sqs") else plugin.put([result])
    return caught.value


RECEIVE, WRITE, STORE = "sqs.ReceiveMessage", "dynamodb.BatchWriteItem", "s3.PutObject"
WRITE_ONE = "dynamodb.PutItem"


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [
        (RECEIVE, 400, "RequestThrottled"),
        (RECEIVE, 400, "OverLimit"),
        (RECEIVE, 500, "InternalFailure"),
        (WRITE, 400, "ProvisionedThroughputExceededException"),
        (WRITE, 400, "ThrottlingException"),
        (WRITE_ONE, 400, "ThrottlingException"),
        (WRITE_ONE, 400, "TransactionConflictException"),
        (WRITE_ONE, 400, "ReplicatedWriteConflictException"),
        (WRITE, 503, "ServiceUnavailable"),
        (STORE, 503, "SlowDown"),
        (STORE, 500, "InternalError"),
    ],
)
def test_throttling_and_faults_of_aws_may_pass(aws: Aws, operation: str, status: int, code: str) -> None:
    error = error_of(aws, operation, status, code)
    assert isinstance(error, Unavailable)
    assert code in str(error)


@pytest.mark.parametrize(
    ("operation", "status", "code", "says"),
    [
        (RECEIVE, 403, "AccessDenied", "not permitted; allow sqs:ReceiveMessage on queue"),
        (RECEIVE, 400, "QueueDoesNotExist", "does not exist in this account and region; create it"),
        (RECEIVE, 400, "ExpiredToken", "credentials have expired; renew them"),
        (RECEIVE, 400, "InvalidClientTokenId", "AWS does not know these credentials"),
        (RECEIVE, 403, "SignatureDoesNotMatch", "this machine's clock is wrong \\(set it by NTP\\)"),
        (WRITE, 400, "AccessDeniedException", "allow dynamodb:BatchWriteItem on table"),
        (WRITE_ONE, 400, "AccessDeniedException", "allow dynamodb:PutItem on table"),
        (WRITE, 400, "ResourceNotFoundException", "table .* does not exist"),
        (WRITE, 400, "InvalidSignatureException", "clock is wrong"),
        (WRITE, 400, "UnrecognizedClientException", "does not know these credentials"),
        (STORE, 403, "AccessDenied", "allow s3:PutObject on s3://"),
        (STORE, 403, "RequestTimeTooSkewed", "clock is wrong"),
        (STORE, 301, "PermanentRedirect", "another region; set region"),
        (STORE, 400, "SomethingNew", "refused. AWS says SomethingNew: no"),
    ],
)
def test_what_cannot_pass_is_rejected_with_what_to_do(
    aws: Aws, operation: str, status: int, code: str, says: str
) -> None:
    error = error_of(aws, operation, status, code)
    assert isinstance(error, Rejected)
    with pytest.raises(Rejected, match=says):
        raise error


def test_a_canonical_request_with_its_session_token_is_not_shown(aws: Aws) -> None:
    message = "The request signature does not match.\n\nThe Canonical String was 'x-amz-security-token:SECRET-TOKEN'"
    assert "SECRET-TOKEN" not in str(error_of(aws, RECEIVE, 403, "SignatureDoesNotMatch", message))


def test_no_call_is_made_twice(aws: Aws) -> None:
    source = SqsSource(SqsSource.Config(queue=aws.queue(), endpoint_url=aws.url), Function())
    with source:
        answer(source, RECEIVE, 500, "InternalFailure", "no")
        with pytest.raises(Unavailable):
            source.receive(1, 0)
        assert source.usage().requests[RECEIVE] == 1


def test_nobody_at_the_address_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"queue tasks: AWS cannot be reached: .*127\.0\.0\.1:9"):
        SqsSource(SqsSource.Config(queue="tasks", endpoint_url="http://127.0.0.1:9"), Function()).open()


def test_no_credentials_are_a_clear_rejection(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    source = SqsSource(SqsSource.Config(queue="tasks", endpoint_url=aws.url), Function())
    with pytest.raises(Rejected, match=r"no AWS credentials are available .* Give the agent a role"), source:
        pass


def test_no_region_is_a_clear_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(Rejected, match="no AWS region is set; write region"):
        SqsSource(SqsSource.Config(queue="tasks"), Function()).open()


@pytest.mark.parametrize("address", ["nonsense", "http://a b"])
def test_a_wrong_endpoint_is_a_clear_rejection(address: str) -> None:
    with pytest.raises(Rejected, match=r"endpoint_url .*; write http:// or https://"):
        SqsSource(SqsSource.Config(queue="tasks", endpoint_url=address), Function()).open()


def test_an_unknown_profile_is_a_clear_rejection() -> None:
    with pytest.raises(Rejected, match="nobody"):
        SqsSource(SqsSource.Config(queue="tasks", profile="nobody"), Function()).open()
