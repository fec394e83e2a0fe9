"""`[function] credentials`: the credentials for handlers, from the SDK's own chain, a profile, or a role that is assumed."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config as ClientConfig

from htcgrid.spi import CREDENTIAL_VARIABLES, Credentials, CredentialSource, Rejected
from htcgrid_aws.aws_errors import ErrorKind, translated_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from htcgrid.spi import Function

log = logging.getLogger("htcgrid.aws.function_credentials")

_ROLE_SECONDS = 3600
"""What is asked for, however late the clock makes the end appear. The longest time that every role allows; role chaining never gets more."""
_AGAIN_SHARE = 0.05
_AGAIN_SECONDS = 60.0
"""Credentials that do not last are renewed again only after this share of their lifetime or this time, the shorter one."""
_CONNECT_SECONDS = 10
_READ_SECONDS = 20


class FunctionCredentials(CredentialSource):
    """Gets credentials at the first call, and new ones when they would expire during an invocation."""

    def __init__(self, function: Function) -> None:
        kind, _, name = function.credentials.partition(":")
        self._issue: Callable[[], Credentials] = _Role(name, function) if kind == "role" else _Chain(name)
        self._role_arn = function.role_arn
        self._has_tags = function.session_tags
        self._lock = threading.Lock()
        self._held: Credentials | None = None
        self._ask_again = 0.0
        self._has_warned = False

    def current(self, timeout: float) -> Credentials:
        with self._lock:
            held = self._held
            if held is None or (not held.lasts(timeout) and time.monotonic() >= self._ask_again):
                held = self._held = self._issue()
                left = held.expires - time.monotonic()
                if left <= 0:
                    raise Rejected(_EXPIRED_ALREADY)
                self._ask_again = time.monotonic() + min(_AGAIN_SECONDS, _AGAIN_SHARE * held.lifetime)
                self._warn(held, timeout)
            return held

    def permissions(self) -> Mapping[str, Mapping[str, Any]]:
        if not self._role_arn:
            return {}
        actions = ["sts:AssumeRole", *(["sts:TagSession"] if self._has_tags else [])]
        statement = {"Sid": "FunctionRole", "Effect": "Allow", "Action": actions, "Resource": self._role_arn}
        return {"agent": {"Version": "2012-10-17", "Statement": [statement]}}

    def close(self) -> None:
        with self._lock:
            self._held = None

    def _warn(self, held: Credentials, timeout: float) -> None:
        if held.lifetime < timeout and not self._has_warned:
            self._has_warned = True
            log.warning(
                "The credentials of [function] credentials are valid for %.0f s, and an invocation may take %.0f s: a longer "
                "one fails when they expire. Get credentials with a longer lifetime, or write a shorter [function] timeout.",
                held.lifetime,
                timeout,
            )


class _Chain:
    """The credentials that the SDK finds in this process, or those of a profile."""

    def __init__(self, profile: str) -> None:
        self._what = f'of [function] credentials = "profile:{profile}"' if profile else "of the agent"
        self._profile = profile

    def __call__(self) -> Credentials:
        with translated_errors("", f"getting the credentials {self._what}"):
            # A new session each time: an old one renews them only 15 minutes before their end, and an invocation may take longer.
            found: Any = boto3.session.Session(profile_name=self._profile or None).get_credentials()
            if found is None:
                raise Rejected(
                    f"getting the credentials {self._what}: the SDK found none. Give the agent a role (IRSA, EC2, ECS), log in "
                    "(aws sso login, aws configure), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
                )
            try:
                keys = found.get_frozen_credentials()
            except RuntimeError as error:  # the SDK has no specific error for expired credentials
                raise Rejected(f"{_EXPIRED_ALREADY} The SDK says: {error}") from error
        # The SDK's public interface has the keys, but not when they expire.
        until = getattr(found, "_expiry_time", None)
        return _credentials(keys.access_key, keys.secret_key, keys.token, until)


class _Role:
    """A role that the agent assumes for the function."""

    def __init__(self, arn: str, function: Function) -> None:
        self._arn = arn
        self._function = function

    def __call__(self) -> Credentials:
        with translated_errors("sts:AssumeRole", self._arn, advice={ErrorKind.DENIED: _MAY_NOT_ASSUME}):
            client = self._client()
            try:
                issued = client.assume_role(**self._request())["Credentials"]
            finally:
                client.close()
        return _credentials(
            issued["AccessKeyId"],
            issued["SecretAccessKey"],
            issued["SessionToken"],
            issued["Expiration"],
            _ROLE_SECONDS,
        )

    def _client(self) -> Any:
        """A client of the endpoint that this machine's AWS settings name; if none, of the function's endpoint."""
        config = ClientConfig(
            connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"total_max_attempts": 1}
        )
        session = boto3.session.Session()
        client = session.client("sts", region_name=self._function.aws_region, config=config)
        if self._function.endpoint_url and ".amazonaws." in client.meta.endpoint_url:
            client.close()
            client = session.client(
                "sts",
                region_name=self._function.aws_region,
                config=config,
                endpoint_url=self._function.endpoint_url,
            )
        return client

    def _request(self) -> Mapping[str, Any]:
        function = self._function
        request: dict[str, Any] = {
            "RoleArn": self._arn,
            "RoleSessionName": re.sub(r"[^\w+=,.@-]", "-", f"htcgrid-{function.function_name}", flags=re.ASCII)[:64],
            "DurationSeconds": _ROLE_SECONDS,
        }
        if function.external_id:
            request["ExternalId"] = function.external_id
        if function.session_policy:
            request["Policy"] = function.session_policy
        if function.session_tags:
            name = re.sub(r"[^\w\s.:/=+@-]", "-", function.function_name)  # what STS allows in a tag
            request["Tags"] = [{"Key": "htcgrid:function", "Value": name}]
        return request


def _credentials(
    access: str, secret: str, token: str | None, until: datetime | None, longest: float = math.inf
) -> Credentials:
    values = dict(zip(CREDENTIAL_VARIABLES, (access, secret, token), strict=True))
    left = (until - datetime.now(UTC)).total_seconds() if until is not None else math.inf
    left = min(left, longest)
    given = {name: value for name, value in values.items() if value}
    return Credentials(given, time.monotonic() + left, left)


_MAY_NOT_ASSUME = (
    "The agent may not assume the role. Allow sts:AssumeRole on it in the agent's own policy, and name the agent in the role's "
    "trust policy, for sts:AssumeRole and sts:TagSession (or write session_tags = false in [function])."
)
_EXPIRED_ALREADY = (
    "The credentials of [function] credentials had expired when they were issued: this machine's clock is ahead (set it "
    "by NTP), or their issuer returns old ones."
)
