"""Makes all boto3 clients. boto3 itself finds the credentials."""

from __future__ import annotations

import socket
from typing import Any

import boto3
from botocore.config import Config as ClientConfig
from botocore.parsers import ResponseParserError
from pydantic import Field, field_validator

from htcgrid.spi import Plugin, Rejected

CONNECT_SECONDS = 10
READ_SECONDS = 25
"""More than SQS lets a receive wait, 20 s. Where nothing answers, an agent learns of it after this."""
DEPLOY_READ_SECONDS = 60
"""Some calls of a deployment take long: a function is made once its archive was unpacked."""
# AWS's load balancers and NAT gateways drop an idle connection after 350 s; a handler may take 900 s.
KEEPALIVE_SECONDS = 60


class SessionConfig(Plugin.Config):
    """The keys for AWS's region, endpoint and credentials."""

    region: str = Field(
        "", description="AWS region; if empty, the region of the profile or of AWS_REGION", examples=["eu-west-1"]
    )
    profile: str = Field(
        "", description="profile of ~/.aws/config; if empty, the SDK looks for credentials in its usual places"
    )
    endpoint_url: str = Field(
        "",
        description="address of a service with AWS's API, in place of AWS's own: a VPC endpoint, LocalStack, moto, `htcgrid serve`",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        if "@" in url.partition("?")[0]:  # no address of AWS's has one
            raise ValueError("an address without a user and a password: the SDK finds credentials in its usual places")
        return url


def _require_aws(http_response: Any, parsed: Any, model: Any, **_: Any) -> None:
    """A proxy or a wrong server may answer with a page and status 200, which the SDK takes for an answer without content."""
    if http_response.status_code >= 300:
        return
    start = b""
    if model.service_model.resolved_protocol == "json":
        start = http_response.content.lstrip()[:60]
        is_aws = not start or start.startswith(b"{")
    else:
        is_aws = model.name not in ("PutObject", "GetObject") or "ETag" in parsed
    if not is_aws:
        if "Body" in parsed:
            parsed["Body"].close()
        text = f"the answer is not AWS's {start.decode(errors='replace')!r}; check endpoint_url and proxies"
        raise ResponseParserError(text)


class AwsSession:
    """One boto3 session, made with the first client, and the clients made from it. Close it once."""

    def __init__(self, config: SessionConfig, region: str = "") -> None:
        self._config = config
        self._region = config.region or region
        self._session: Any = None
        self._clients: list[Any] = []

    @property
    def region(self) -> str:
        """The region that calls go to; empty if none is set anywhere."""
        return str(self._boto().region_name or "")

    def client(self, service: str, *, endpoint_url: str = "", connections: int = 10) -> Any:
        """A client that tries once, since the agent retries. It is closed with the session."""
        return self._made(
            service,
            endpoint_url,
            retries={"total_max_attempts": 1},
            max_pool_connections=connections,
            tcp_keepalive=True,
        )

    def retrying_client(self, service: str) -> Any:
        """A client with the SDK's own retries: for commands such as `deploy`, whose calls may be repeated."""
        return self._made(
            service, "", retries={"mode": "standard", "total_max_attempts": 5}, read_timeout=DEPLOY_READ_SECONDS
        )

    def invoke_client(self, connections: int, read_seconds: float) -> Any:
        """A client only for Invoke: it waits as long as a handler may take, and its connections are kept alive."""
        client = self._made(
            "lambda",
            "",
            retries={"total_max_attempts": 1},  # another try could run a handler twice
            max_pool_connections=connections,
            read_timeout=read_seconds,
            tcp_keepalive=True,
            parameter_validation=False,  # we make the parameters ourselves; to check them is a tenth of a call's cost
        )
        # botocore can enable keep-alive but not set its interval; Linux's two hours are too long. Connections are made with
        # the options of this list; a test checks the sockets themselves.
        client._endpoint.http_session._socket_options += [  # noqa: SLF001
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS),
        ]
        return client

    def close(self) -> None:
        while self._clients:
            self._clients.pop().close()
        self._session = None

    @property
    def clients(self) -> tuple[Any, ...]:
        """The connections that are open."""
        return tuple(self._clients)

    def _made(self, service: str, endpoint_url: str, **settings: Any) -> Any:
        address = self._config.endpoint_url or endpoint_url or None
        config = ClientConfig(**{"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS} | settings)
        session = self._boto()
        session.get_credentials()  # not below: the ValueError of a program that prints none is not one of the address
        try:
            client = session.client(service, endpoint_url=address, config=config)
        except ValueError as error:
            raise Rejected(f"endpoint_url {address!r}: {error}; write http:// or https://, host and port") from error
        client.meta.events.register("after-call", _require_aws)
        self._clients.append(client)
        return client

    def _boto(self) -> Any:
        if self._session is None:
            self._session = boto3.session.Session(
                profile_name=self._config.profile or None, region_name=self._region or None
            )
        return self._session
