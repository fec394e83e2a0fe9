"""An environment behind the Runtime Interface Emulator, which a small server stands for here."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from htcgrid.runtime.rie import EmulatorSandbox, RieEnvironment
from htcgrid.spi import Function, Lease, Outcome, Task

SELECT_TAKES = 1024
"""The descriptors from this number on are no longer taken by `select`."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disconnected = threading.Event()

    def finish(self) -> None:
        super().finish()
        self.disconnected.set()

    def do_GET(self) -> None:
        self.answer(404, b"")

    def do_POST(self) -> None:
        self.answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Emulator(EmulatorSandbox):
    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)

    def start(self, variables: Mapping[str, str]) -> None:
        """It runs already."""

    def has_ended(self) -> bool:
        return False

    def end(self) -> int:
        return 0

    def close(self) -> None:
        """It has nothing to close."""

    def log_tail(self) -> bytes:
        return b""


@pytest.fixture
def environment() -> Iterator[RieEnvironment]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        made = RieEnvironment(Function(), Emulator(server.server_port))
        try:
            yield made
        finally:
            made.close()
            server.shutdown()
            serving.join()


@contextmanager
def many_files_open() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2 * SELECT_TAKES:
        pytest.skip("this machine allows too few files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * SELECT_TAKES, before[1]))
    with ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        while held.enter_context(open(os.devnull, "rb")).fileno() < SELECT_TAKES:  # noqa: PTH123 - a thousand times
            pass
        yield


def test_tasks_run_one_after_the_other_where_many_environments_have_many_files_open(
    environment: RieEnvironment,
) -> None:
    with many_files_open():
        environment.start()
        for number in range(3):
            [outcome] = environment.invoke([Lease(Task(str(number), b'"event"'))], 20.0)
            assert isinstance(outcome, Outcome)
            assert (outcome.failure, outcome.payload) == (None, b'"event"')


def test_the_connection_to_an_emulator_is_closed_before_its_container_and_network_are_removed(
    environment: RieEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.start()
    assert len(list(environment.invoke([Lease(Task("0", b"1"))], 20.0))) == 1
    Answers.disconnected.clear()
    seen: list[bool] = []
    monkeypatch.setattr(environment.sandbox, "close", lambda: seen.append(Answers.disconnected.wait(5.0)))
    environment.close()
    assert seen[0]
