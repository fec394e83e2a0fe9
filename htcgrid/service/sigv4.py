"""Verifies AWS's Signature Version 4, with which every AWS SDK signs requests."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from htcgrid.service import api_errors

_ALGORITHM = "AWS4-HMAC-SHA256"
_FIELDS = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<key>[^/,\s]+)/(?P<day>[0-9]{8})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)"
    r"/aws4_request\s*,\s*SignedHeaders=(?P<headers>[a-z0-9;_-]+)\s*,\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_SKEW = timedelta(minutes=5)
_SERVICE = "lambda"


def is_signed(authorization: str) -> bool:
    """Whether this `Authorization` header is a signature of this version."""
    return authorization.startswith(_ALGORITHM)


class Signature:
    """The signature of one request. The constructor checks everything that does not need the body."""

    def __init__(self, headers: Mapping[str, str], secrets: Mapping[str, str], now: datetime) -> None:
        """`headers` are by lower-case name, `secrets` by access key id."""
        fields = _FIELDS.fullmatch(headers.get("authorization", "").strip())
        if fields is None:
            raise api_errors.InvalidSignature(f"The Authorization header is not a complete {_ALGORITHM} signature.")
        self._fields = fields
        self._headers = headers
        self._names = fields["headers"].split(";")
        unsigned = sorted({"host", *(name for name in headers if name.startswith("x-amz-"))} - set(self._names))
        if unsigned:
            raise api_errors.InvalidSignature(f"These headers must be signed: {', '.join(unsigned)}.")
        if fields["service"] != _SERVICE:
            raise api_errors.InvalidSignature(f"Credential should be scoped to correct service: '{_SERVICE}'.")
        self._time = _time_of(headers, fields["day"], now)
        if fields["key"] not in secrets:
            raise api_errors.UnrecognizedClient("The security token included in the request is invalid.")
        self._secret = secrets[fields["key"]]

    def verify(self, method: str, path: str, query: str, body: bytes) -> None:
        """Raises `InvalidSignature` unless the owner of the secret signed exactly this request."""
        digest = hashlib.sha256(body).hexdigest()
        if self._headers.get("x-amz-content-sha256", digest) != digest:
            raise api_errors.InvalidSignature("x-amz-content-sha256 is not the SHA-256 of the body.")
        lines = [f"{name}:{' '.join(self._headers.get(name, '').split())}" for name in self._names]
        # Every service except S3 encodes the path of the request a second time.
        request = "\n".join(
            (method, quote(path, safe="/~"), _canonical(query), *lines, "", ";".join(self._names), digest)
        )
        fields = self._fields
        scope = f"{fields['day']}/{fields['region']}/{fields['service']}/aws4_request"
        text = "\n".join((_ALGORITHM, self._time, scope, hashlib.sha256(request.encode("latin-1")).hexdigest()))
        key = f"AWS4{self._secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        if not hmac.compare_digest(key.hex(), fields["signature"]):
            raise api_errors.InvalidSignature(
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method."
            )


def _time_of(headers: Mapping[str, str], day: str, now: datetime) -> str:
    text = headers.get("x-amz-date", "")
    try:
        time = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise api_errors.InvalidSignature("X-Amz-Date is missing or does not have the form 20260131T235959Z.") from None
    if not text.startswith(day):
        raise api_errors.InvalidSignature("The date in Credential differs from the date in X-Amz-Date.")
    if abs(now - time) > _SKEW:
        raise api_errors.InvalidSignature(
            f"Signature expired or not yet current: {text} is more than 5 minutes from {now:%Y%m%dT%H%M%SZ}."
        )
    return text


def _canonical(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return "&".join(f"{name}={value}" for name, value in sorted((_coded(n), _coded(v)) for n, _, v in pairs))


def _coded(text: str) -> str:
    return quote(unquote(text, errors="surrogateescape").encode(errors="surrogateescape"), safe="-_.~")
