"""AWS's own SDK against `htcgrid serve`."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Service, encoded

boto3 = pytest.importorskip("boto3", reason="AWS's SDK is a client of `serve`: pip install boto3")


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    config = boto3.session.Config(retries={"total_max_attempts": 1}, read_timeout=60)
    client = boto3.client(
        "lambda",
        endpoint_url=service.url,
        region_name="eu-west-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=config,
    )
    yield client
    client.close()


def test_an_answer(client: Any) -> None:
    reply = client.invoke(FunctionName="pricing", Payload=b'{"n": 1}')
    assert (reply["StatusCode"], reply["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in reply
    assert json.loads(reply["Payload"].read()) == {"n": 1}


def test_a_function_error_with_its_log_tail(client: Any) -> None:
    reply = client.invoke(FunctionName="pricing", Payload=b'{"raise": true, "print": "here"}', LogType="Tail")
    assert (reply["StatusCode"], reply["FunctionError"]) == (200, "Unhandled")
    assert json.loads(reply["Payload"].read())["errorType"] == "ValueError"
    assert "\nhere\n" in base64.b64decode(reply["LogResult"]).decode()


def test_a_timeout(client: Any) -> None:
    reply = client.invoke(FunctionName="pricing", Payload=b'{"sleep": 30}')
    assert reply["FunctionError"] == "Unhandled"
    assert json.loads(reply["Payload"].read())["errorMessage"].endswith("Task timed out after 2.00 seconds")


def test_the_services_errors_are_the_sdks_exceptions(client: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="none")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="pricing", Qualifier="7")
    with pytest.raises(client.exceptions.RequestTooLargeException):
        client.invoke(FunctionName="pricing", Payload=b'"%s"' % (b"x" * 6_291_456))
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="pricing", Payload=b"{")


def test_an_event_and_a_dry_run(client: Any, tmp_path: Path) -> None:
    assert client.invoke(FunctionName="pricing", InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    assert client.invoke(FunctionName="pricing", InvocationType="DryRun")["StatusCode"] == 204


def test_context_and_qualified_names(client: Any) -> None:
    context = encoded({"custom": {"desk": "rates"}})
    reply = client.invoke(FunctionName="pricing", ClientContext=context, Payload=b'{"context": true}')
    assert json.loads(reply["Payload"].read())["custom"]["desk"] == "rates"
    for name in ("other", "arn:aws:lambda:eu-west-1:123456789012:function:other"):
        reply = client.invoke(FunctionName=name, Qualifier="$LATEST")
        assert json.loads(reply["Payload"].read()) == "other"
