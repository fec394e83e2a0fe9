"""What every plugin here shares: where AWS is, and clients that try once and are counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config as ClientConfig
from pydantic import Field

from htcgrid import spi
from htcgrid.spi import Plugin, Rejected
from htcgrid_aws.aws_errors import translated_errors
from htcgrid_aws.usage import UsageCounter

if TYPE_CHECKING:
    from htcgrid.spi import Function


class AwsConfig(Plugin.Config):
    """The keys that all plugins of this distribution take."""

    region: str = Field("", description="AWS region; if empty, the SDK's default")
    profile: str = Field("", description="profile of the AWS config file; if empty, the SDK's default")
    endpoint_url: str = Field("", description="another address than AWS's, such as LocalStack's or a VPC endpoint")
    connections: int = Field(32, ge=1, le=1000, description="connections kept to each service")
    threads: int = Field(10, ge=1, le=100, description="calls made side by side if a batch needs one for each task")


class AwsPlugin(Plugin):
    """Clients and threads from `open` to `close`. boto3's clients may be used by all threads at once."""

    config: AwsConfig

    def __init__(self, config: AwsConfig, function: Function) -> None:
        super().__init__(config, function)
        self.usage_counter = UsageCounter()
        self._session: Any = None
        self._clients: list[Any] = []
        self._pool: ThreadPoolExecutor | None = None

    def open(self) -> None:
        self._pool = ThreadPoolExecutor(self.config.threads, thread_name_prefix=type(self).__name__)

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        while self._clients:
            self._clients.pop().close()
        self._session = None

    def usage(self) -> spi.Usage:
        """Requests made to AWS by this plugin, and their list price."""
        counted = self.usage_counter.usage()
        return spi.Usage(counted.requests, counted.dollars, counted.basis)

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads for calls that cannot be batched."""
        if self._pool is None:
            raise RuntimeError(f"{type(self).__name__} is used before open() or after close()")
        return self._pool

    def client(self, service: str, *, region: str = "", endpoint_url: str = "") -> Any:
        """A client without retries of its own: the agent retries."""
        settings = ClientConfig(
            retries={"total_max_attempts": 1},
            max_pool_connections=self.config.connections,
            connect_timeout=10,
            read_timeout=60,
            tcp_keepalive=True,
        )
        address = self.config.endpoint_url or endpoint_url or None
        try:
            with translated_errors("connecting", f"the {service} service"):
                if self._session is None:
                    self._session = boto3.session.Session(
                        profile_name=self.config.profile or None, region_name=self.config.region or region or None
                    )
                client = self._session.client(service, endpoint_url=address, config=settings)
        except ValueError as error:
            raise Rejected(f"endpoint_url {address!r}: {error}; write http:// or https://, host and port") from error
        self.usage_counter.attach(client)
        self._clients.append(client)
        return client
