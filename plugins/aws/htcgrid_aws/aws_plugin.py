"""The base of the sources and sinks here: clients that try once and count requests, and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pydantic import Field

from htcgrid import spi
from htcgrid.spi import Plugin
from htcgrid_aws.aws_errors import translated_errors
from htcgrid_aws.session import AwsSession, SessionConfig
from htcgrid_aws.usage import UsageCounter

if TYPE_CHECKING:
    from htcgrid.spi import Function


class AwsConfig(SessionConfig):
    """The keys that all sources and sinks of this distribution take."""

    connections: int = Field(32, ge=1, le=1000, description="connections kept to each service")
    threads: int = Field(10, ge=1, le=100, description="calls made side by side if a batch needs one for each task")


class AwsPlugin(Plugin):
    """Has clients and threads from `open` to `close`. All threads may use boto3's clients at the same time."""

    config: AwsConfig

    def __init__(self, config: AwsConfig, function: Function) -> None:
        super().__init__(config, function)
        self.usage_counter = UsageCounter()
        self._session: AwsSession | None = None
        self._pool: ThreadPoolExecutor | None = None

    def open(self) -> None:
        self._pool = ThreadPoolExecutor(self.config.threads, thread_name_prefix=type(self).__name__)

    def close(self) -> None:
        if self._pool:
            # It does not wait: a call runs only if the run was interrupted and the service does not answer.
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        if self._session:
            self._session.close()
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
        """A client without retries of its own, whose requests are counted."""
        with translated_errors("connecting", f"the {service} service"):
            if self._session is None:
                self._session = AwsSession(self.config, region)
            client = self._session.client(service, endpoint_url=endpoint_url, connections=self.config.connections)
        self.usage_counter.attach(client)
        return client
