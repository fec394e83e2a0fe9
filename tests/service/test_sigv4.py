"""Signatures as AWS's own signer makes them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from htcgrid.service import api_errors
from htcgrid.service.sigv4 import Signature

auth = pytest.importorskip("botocore.auth", reason="AWS's signer is the client: pip install boto3")
from botocore.awsrequest import AWSRequest  # noqa: E402
from botocore.credentials import Credentials  # noqa: E402

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SECRETS = {KEY: SECRET}
PATH = "/2015-03-31/functions/pricing/invocations"
HOST = "127.0.0.1:9001"


def signed(
    path: str = PATH, body: bytes = b"{}", *, secret: str = SECRET, service: str = "lambda", **headers: str
) -> dict[str, str]:
    request = AWSRequest("POST", f"http://{HOST}{path}", {k.replace("_", "-"): v for k, v in headers.items()}, body)
    auth.SigV4Auth(Credentials(KEY, secret), service, "eu-west-1").add_auth(request)
    return {"host": HOST} | {name.lower(): value for name, value in request.headers.items()}


def verify(headers: Mapping[str, str], path: str = PATH, body: bytes = b"{}", **more: Any) -> None:
    target, _, query = path.partition("?")
    now = more.get("now") or datetime.now(UTC)
    Signature(headers, more.get("secrets") or SECRETS, now).verify(more.get("method", "POST"), target, query, body)


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        f"{PATH}?Qualifier=%24LATEST",
        f"{PATH}?b=2&a=1&a=0&empty=&c",
        f"{PATH}?x=%C3%A4%20%2B~",
        PATH.replace("pricing", "arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Apricing"),
        PATH.replace("pricing", "a%2Fb~c-d_e.f"),
    ],
)
@pytest.mark.parametrize("body", [b"{}", b"", b"\xff" * 1000])
def test_what_botocore_signs_is_right(path: str, body: bytes) -> None:
    headers = signed(path, body, X_Amz_Log_Type="Tail", X_Amz_Client_Context="  e30=   x ", Content_Type="a/b")
    verify(headers, path, body)


def test_a_temporary_key_with_its_session_token_is_right() -> None:
    verify(signed(X_Amz_Security_Token="token+/="))


def test_another_secret_body_path_method_or_header_is_wrong() -> None:
    headers = signed(X_Amz_Invocation_Type="DryRun")
    verify(headers)
    calls: list[Callable[[], None]] = [
        lambda: verify(signed(secret="another")),
        lambda: verify(headers, body=b"[]"),
        lambda: verify(headers, f"{PATH}?Qualifier=1"),
        lambda: verify(headers, PATH.replace("pricing", "other")),
        lambda: verify(headers, method="GET"),
        lambda: verify(headers | {"x-amz-invocation-type": "Event"}),
        lambda: verify(headers | {"host": "evil.example"}),
        lambda: verify(headers | {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}),
        lambda: verify(signed(service="s3")),
    ]
    for wrong in calls:
        with pytest.raises(api_errors.InvalidSignature):
            wrong()


def test_a_header_that_is_added_and_not_signed_is_refused() -> None:
    with pytest.raises(api_errors.InvalidSignature, match="x-amz-invocation-type"):
        verify(signed() | {"x-amz-invocation-type": "Event"})


def test_a_key_that_is_not_known_is_refused_before_the_body_is_read() -> None:
    with pytest.raises(api_errors.UnrecognizedClient):
        Signature(signed(), {"AKIDOTHER": SECRET}, datetime.now(UTC))


@pytest.mark.parametrize("minutes", [-6, 6, 60 * 24])
def test_a_signature_of_another_time_is_refused(minutes: int) -> None:
    with pytest.raises(api_errors.InvalidSignature, match="5 minutes"):
        verify(signed(), now=datetime.now(UTC) + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Signature=", "Signature=z"),
        ("host;", ""),
        (f"Credential={KEY}/", "Credential="),
        ("/lambda/", "/../"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 x"),
    ],
)
def test_a_signature_of_another_form_is_refused(old: str, new: str) -> None:
    headers = signed()
    headers["authorization"] = headers["authorization"].replace(old, new)
    with pytest.raises(api_errors.ServiceError):
        verify(headers)


def test_a_date_of_another_form_is_refused() -> None:
    for date in ("", "now", "20260101T000000", "99999999T999999Z"):
        with pytest.raises(api_errors.InvalidSignature):
            verify(signed() | {"x-amz-date": date})
