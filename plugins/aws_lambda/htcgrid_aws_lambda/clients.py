"""boto3's clients, set up for what each is for."""

import socket
from typing import Any

import boto3
from botocore.config import Config

from htcgrid_aws_lambda.options import Options

# AWS's load balancers and NAT gateways forget a silent connection after 350 s; a handler may take 900.
_KEEPALIVE_SECONDS = 60
_CONNECT_SECONDS = 10
_CONTROL_READ_SECONDS = 60


class Clients:
    """One boto3 session, and the clients made from it. The chain that finds credentials is boto3's own."""

    def __init__(self, options: Options) -> None:
        self._endpoint = options.endpoint_url or None
        self._session = boto3.Session(
            region_name=options.region or None,
            profile_name=options.profile or None,
        )

    @property
    def region(self) -> str:
        """The region that calls go to; empty where none is set anywhere."""
        return self._session.region_name or ""

    def once(self, service: str) -> Any:
        """A client that tries once: for `open`, which the agent repeats."""
        return self._client(service, retries={"total_max_attempts": 1})

    def patient(self, service: str) -> Any:
        """A client with the SDK's own retries: for `deploy` and its kin, whose calls may be repeated."""
        return self._client(service, retries={"mode": "standard", "total_max_attempts": 5})

    def invoking(self, connections: int, read_seconds: float) -> Any:
        """A client for Invoke alone: no retries, since one could run a handler twice."""
        client = self._client(
            "lambda",
            retries={"total_max_attempts": 1},
            max_pool_connections=connections,
            read_timeout=read_seconds,
            tcp_keepalive=True,
            parameter_validation=False,  # the parameters are ours; this is a tenth of a call's cost
        )
        # botocore can switch keep-alive on but not say how often; Linux's two hours are too late. The list is
        # the one that connections are made with; test_invoke holds this to the sockets themselves.
        client._endpoint.http_session._socket_options += [  # noqa: SLF001
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS),
        ]
        return client

    def _client(self, service: str, **settings: Any) -> Any:
        config = Config(**{"connect_timeout": _CONNECT_SECONDS, "read_timeout": _CONTROL_READ_SECONDS} | settings)
        return self._session.client(service, endpoint_url=self._endpoint, config=config)
