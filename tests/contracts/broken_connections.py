"""Sinks that break the rules about connections. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import http.client
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import pytest
from htcgrid_contracts import contract_function
from htcgrid_contracts.network_rules import NetworkRules
from pydantic import Field

from htcgrid.spi import Outcome, Plugin, Result, ResultSink, Task, Unavailable


class Store(ThreadingHTTPServer):
    """A service that keeps the ids that are posted to it, and answers a GET with all of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.ids: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_POST(self) -> None:
        self.server.ids.update(self.rfile.read(int(self.headers["Content-Length"])).decode().split())
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(" ".join(self.server.ids).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *what: Any) -> None:
        pass


class RemoteSink(ResultSink):
    """A good sink, though one that keeps ids alone: each call has a connection of its own."""

    class Config(Plugin.Config):
        url: str = Field(pattern="^[^@]*$")

    config: Config
    max_batch = 10
    most_seconds: float | None = 3.0
    understood: tuple[type[Exception], ...] = (OSError, http.client.HTTPException)
    """What is taken for an outage."""

    def put(self, results: Sequence[Result]) -> None:
        self.asked("POST", " ".join(result.task.id for result in results).encode())

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        there = self.asked("GET").decode().split()
        return [task.id for task in tasks if task.id in there]

    def asked(self, method: str, body: bytes = b"") -> bytes:
        connection = self.connection()
        try:
            connection.request(method, "/", body)
            with connection.getresponse() as response:
                return response.read()
        except self.understood as error:
            raise Unavailable(f"The store cannot be reached: {error}") from None
        finally:
            self.left(connection)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.config.url).netloc, timeout=self.most_seconds)

    def left(self, connection: http.client.HTTPConnection) -> None:
        connection.close()


class Case(NetworkRules):
    breaks = ""
    says = ""
    broken: type[Any] = RemoteSink
    store: ClassVar[Store]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _served(cls) -> Iterator[None]:
        with Store() as cls.store:
            yield

    @pytest.fixture
    def plugin(self) -> ResultSink:
        sink: ResultSink = self.broken(self.broken.Config(url=self.store.url), contract_function())
        return sink

    def use(self, plugin: Plugin) -> None:
        assert isinstance(plugin, ResultSink)
        plugin.put([_result()])
        plugin.stored([_result().task])

    def calls_through(self, plugin: ResultSink) -> Mapping[str, Callable[[], object]]:
        return {"put": lambda: plugin.put([_result()]), "stored": lambda: plugin.stored([_result().task])}


def _result() -> Result:
    return Result(Task("t", b"1"), Outcome("t", b"2"))


class TestReference(Case):
    """Holds every rule."""


class KeepsItsConnection(RemoteSink):
    """One connection for all calls, which is made again once it has broken."""

    kept: http.client.HTTPConnection | None = None

    def connection(self) -> http.client.HTTPConnection:
        self.kept = self.kept or super().connection()
        return self.kept

    def left(self, connection: http.client.HTTPConnection) -> None:
        """It is kept."""

    def close(self) -> None:
        if self.kept is not None:
            self.kept.close()
            self.kept = None


class TestPassesTheLibrarysErrorOn(Case):
    breaks = "test_a_connection_that_broke_is_unavailable"
    says = "over a broken connection raised"

    class broken(KeepsItsConnection):
        understood = ()


class TestWaitsForEver(Case):
    breaks = "test_a_service_that_is_frozen_is_unavailable"
    says = "`put` had not ended after"

    class broken(RemoteSink):
        most_seconds = None


class TestTakesSilenceForAnError(Case):
    breaks = "test_a_service_that_is_frozen_is_unavailable"
    says = "`put` ended with TimeoutError"

    class broken(RemoteSink):
        understood = (ConnectionError, http.client.HTTPException)
