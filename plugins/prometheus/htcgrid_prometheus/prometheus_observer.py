"""The observer: adds up what it is told, and serves the sums to Prometheus."""

import importlib.metadata
import ipaddress
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from htcgrid.spi import Function, Observation, Observer, Plugin, Rejected
from prometheus_client import CollectorRegistry, ProcessCollector, write_to_textfile
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from pydantic import Field, field_validator

from htcgrid_prometheus import catalogue, exposition
from htcgrid_prometheus.metrics_server import MetricsServer
from htcgrid_prometheus.queue_asker import QueueAsker
from htcgrid_prometheus.tally import Tally

log = logging.getLogger("htcgrid.prometheus")


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class PrometheusObserver(Observer):
    """Metrics over HTTP at an address, and into a file at the end."""

    class Config(Plugin.Config):
        address: str = Field(
            "127.0.0.1:9464",
            max_length=300,
            description="address and port that metrics are read at, under /metrics; port 0 takes a free one. "
            "Whoever reaches the address can read them",
        )
        textfile: Path | None = Field(
            None,
            description="a file that the metrics are written to at the end, for the textfile collector of node_exporter",
        )
        queue_seconds: float = Field(
            10.0, ge=1, le=86_400, description="the source is asked how much it holds at most once in so many seconds"
        )

        @field_validator("address")
        @classmethod
        def _is_an_address(cls, value: str) -> str:
            host, _, port = value.rpartition(":")
            if not host or not _can_be_looked_up(host) or not port.isdecimal() or int(port) > 65_535:
                raise ValueError('write an address and a port, as in "127.0.0.1:9464" or "[::1]:9464"')
            return value

    config: Config

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._host, self._port = _parts(config.address)
        self.scrape_port = self._port if self._port and not _is_loopback(self._host) else None
        self._lock = threading.Lock()
        self._tally = Tally()
        self._asker = QueueAsker(config.queue_seconds)
        self._registry: CollectorRegistry | None = None
        self._server: MetricsServer | None = None

    @property
    def port(self) -> int:
        """The port that it listens on while it is open."""
        return self._server.port if self._server is not None else self._port

    def open(self) -> None:
        with self._lock:
            self._tally, self._asker = Tally(), QueueAsker(self.config.queue_seconds)
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(self))
        ProcessCollector(registry=self._registry)
        try:
            self._server = MetricsServer(self._host, self._port, self._registry)
        except OSError as error:
            raise Rejected(
                f"[observers] address = {self.config.address!r}: metrics cannot be served there: {error.strerror or error}. "
                "Another program, such as another agent on this machine, may have the port. Choose another port, or 0 for "
                "a free one."
            ) from None
        log.info("Metrics are at http://%s:%d/metrics", self._host, self.port)

    def close(self) -> None:
        server, self._server = self._server, None
        registry, self._registry = self._registry, None
        if server is not None:
            server.end()
            self._asker.close()
        if server is not None and registry is not None and self.config.textfile is not None:
            write_to_textfile(str(self.config.textfile), registry)

    def observe(self, observations: Sequence[Observation]) -> None:
        with self._lock:
            self._tally.add(observations)

    def advise(self, attempts: int) -> Iterable[str]:
        if not _is_loopback(self._host):
            yield (
                f"address = {self.config.address!r}: other machines may reach this address, and whoever does can read the "
                "metrics. They have no password; let a firewall or a network policy allow the Prometheus server alone."
            )

    def families(self) -> Iterator[Family]:
        """All metrics, for one scrape."""
        with self._lock:
            found = [*exposition.counted(self._tally), *exposition.asked(self._tally)]
            agents = list(self._tally.agents)
        found += exposition.queues(self._asker.answers(agents))
        found.append(exposition.family(catalogue.DROPPED, {"": self.dropped}))
        found.append(exposition.information(self.function.function_name, importlib.metadata.version("htcgrid")))
        yield from found


class _Collected(Collector):
    def __init__(self, observer: PrometheusObserver) -> None:
        self._observer = observer

    def collect(self) -> Iterator[Family]:
        yield from self._observer.families()


def _can_be_looked_up(host: str) -> bool:
    """Whether it is written as a host's name or address is: a part of a name has 1 to 63 characters."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
