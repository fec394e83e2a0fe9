"""The plugin keeps the rules of htcgrid, against a real server that only these tests use."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis
from htcgrid.spi import Outcome, Plugin, Result, Task, Unavailable
from htcgrid_contracts import ResultSinkContract, TaskSourceContract, contract_function

from htcgrid_redis.sink import RedisSink
from htcgrid_redis.source import RedisSource

PASSWORD = "contract-password"


class Server:
    """A redis-server on a port of its own."""

    def __init__(self, folder: Path, *, outlives: bool = False) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{port}"
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        self._command = [*command, "--appendonly", "yes" if outlives else "no", "--requirepass", PASSWORD]
        self.client = redis.Redis(port=port, password=PASSWORD)
        self.start()

    def start(self) -> None:
        """Come up, again with what it had where it `outlives`."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._is_ready():
            assert time.monotonic() < deadline, "redis-server did not come up"
            assert self._process.poll() is None, "redis-server ended"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # it is not there yet, or is loading
            return False

    def stop(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One for all rules; a rule that takes the server away has its own."""
    if not any(what in request.node.name for what in ("went_away", "came_back")):
        shared_server.client.flushall()
        yield shared_server
        return
    own = Server(tmp_path, outlives=True)
    yield own
    own.stop()


class TestRedisSource(TaskSourceContract):
    server: Server

    @pytest.fixture
    def source(self, server: Server) -> RedisSource:
        self.server = server
        config = RedisSource.Config(url=server.url, stream="tasks", create=True, lease_seconds=3)
        return RedisSource(config, contract_function())

    @pytest.fixture
    def missing(self, server: Server) -> Plugin:
        return RedisSource(RedisSource.Config(url=server.url, stream="no-such-stream"), contract_function())

    def publish(self, source: RedisSource, tasks: Sequence[Task]) -> None:
        for task in tasks:
            attributes = json.dumps(dict(task.attributes))
            self.server.client.xadd("tasks", {"id": task.id, "payload": task.payload, "attributes": attributes})

    def publish_invalid(self, source: RedisSource) -> None:
        self.server.client.xadd("tasks", {"id": "no-task", "payload": "1", "attributes": "not JSON {"})

    def take_away(self, source: RedisSource) -> None:
        self.server.stop()

    def bring_back(self, source: RedisSource) -> None:
        self.server.start()


class TestRedisSink(ResultSinkContract):
    failures_have_events = True
    server: Server
    too_large = 3_000_001

    @pytest.fixture
    def sink(self, server: Server) -> RedisSink:
        self.server = server
        return RedisSink(RedisSink.Config(url=server.url, max_bytes=3_000_000), contract_function())

    @pytest.fixture
    def missing(self) -> Plugin:
        return RedisSink(RedisSink.Config(url="no-address"), contract_function())

    def read_back(self, sink: RedisSink, task_ids: Sequence[str]) -> Sequence[Result]:
        with RedisSink(sink.config, sink.function) as other:
            return list(other.get(task_ids).values())

    def take_away(self, sink: RedisSink) -> None:
        self.server.stop()

    def bring_back(self, sink: RedisSink) -> None:
        self.server.start()

    def throttle(self, sink: RedisSink) -> None:
        self.server.client.config_set("maxmemory", 1)

    def end_throttle(self, sink: RedisSink) -> None:
        self.server.client.config_set("maxmemory", 0)


def test_what_ran_is_kept_in_order_and_is_no_result(server: Server) -> None:
    with RedisSink(RedisSink.Config(url=server.url), contract_function()) as sink:
        for number in range(3):
            sink.add_run(b"%d" % number)
        assert list(sink.runs()) == [b"0", b"1", b"2"]
        assert not sink.has_failed()
    assert not list(server.client.scan_iter(f"{sink.config.prefix}*"))


@pytest.mark.parametrize(("setting", "value"), [("min-replicas-to-write", 1), ("maxmemory", 1)])
def test_a_server_that_takes_no_writes_now_is_waited_for(server: Server, setting: str, value: int) -> None:
    sink = RedisSink(RedisSink.Config(url=server.url), contract_function())
    result = Result(Task("t", b"1"), Outcome("t", b"2", started=1.0))
    with sink:
        server.client.config_set(setting, value)
        try:
            with pytest.raises(Unavailable, match="takes no writes now"):
                sink.put([result])
        finally:
            server.client.config_set(setting, 0)
        sink.put([result])
