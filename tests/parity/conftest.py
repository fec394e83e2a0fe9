"""The emulator as an oracle, called without anything of ours, and process planes beside it."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime.variables import this_python
from htcgrid.spi import Function, Lease, Outcome, Task

NOISE = re.compile(r"\d\d? \w{3} \d{4} [\d:,]+ \[\w+\] \(rapid\).*\n|(START|END|REPORT) RequestId: [0-9a-f-]{36}.*\n")
CLIENTS_FRAME = re.compile(
    r'  File "[^"]*(?:htcgrid/runtime/|awslambdaric/|runpy|<string>)[^"]*", line \d+, in .*\n(?:    .*\n)*'
)
"""In a traceback that the runtime client itself ends with, which Python prints whole."""
NAME = "parity"


@dataclass(frozen=True)
class Seen:
    """The result of one invocation, as far as it can be compared."""

    answer: str
    log: str
    kind: str = ""


class Oracle:
    """The emulator around awslambdaric, started as in AWS's images."""

    def __init__(self, rie: Path, code: Path, handler: str, timeout: int, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            self._port, api = one.getsockname()[1], two.getsockname()[1]
        image = {"LANG": "en_US.UTF-8", "TZ": ":/etc/localtime", "LAMBDA_TASK_ROOT": str(code)}
        configured = {
            # The client writes JSON by what this says; AWS's images of each version set it.
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{this_python()}",
            "AWS_LAMBDA_FUNCTION_NAME": NAME,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        }
        addresses = ["--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        addresses += ["--runtime-api-address", f"127.0.0.1:{api}"]
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [rie, *addresses, sys.executable, "-X", "utf8", "-m", "awslambdaric", handler],
                cwd=code,
                env={"PATH": os.environ["PATH"], **image, **configured},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._read = 0
        deadline = time.monotonic() + 20
        while not self._is_up():
            assert time.monotonic() < deadline, "the emulator does not start"
            time.sleep(0.01)

    def _is_up(self) -> bool:
        try:
            self._request("GET", "/", b"", {})
        except OSError:
            return False
        return True

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse().read()
        finally:
            connection.close()

    def invoke(self, payload: bytes, request_id: str, log_like: str) -> Seen:
        """`log_like` is the log to wait for, since the emulator writes it when it comes to it."""
        context = json.dumps({"custom": {"task_id": request_id, "session_id": "", "attempt": 1}}).encode()
        headers = {"X-Amzn-RequestId": request_id, "X-Amz-Client-Context": b64encode(context).decode()}
        body = self._request("POST", "/2015-03-31/functions/function/invocations", payload, headers)
        deadline = time.monotonic() + 0.5
        while (log := normal(self._new_log())) != log_like and time.monotonic() < deadline:
            time.sleep(0.01)
        self._read = self._log.stat().st_size
        return Seen(normal(body.decode(errors="surrogateescape")), log)

    def _new_log(self) -> str:
        return NOISE.sub("", self._log.read_bytes()[self._read :].decode(errors="replace"))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def normal(text: str) -> str:
    """Without what differs from one call or way to start to the next: addresses, ports, times, the client's frames."""
    text = CLIENTS_FRAME.sub("", text)
    text = re.sub(r"0x[0-9a-f]{6,}", "0x0", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "<time>", text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)


class Ours:
    """A process plane of one environment."""

    def __init__(self, plane: ProcessInvoker) -> None:
        self._plane = plane

    def invoke(self, payload: bytes, request_id: str) -> Seen:
        (outcome,) = self._plane.invoke([Lease(Task(request_id, payload))], self._plane.function.timeout)
        assert isinstance(outcome, Outcome), outcome
        log = outcome.log_tail.decode(errors="replace")
        return Seen(normal(outcome.payload.decode(errors="surrogateescape")), normal(log), outcome.failure or "")


@dataclass(frozen=True)
class Sides:
    """One function on the oracle and on the process plane, by each transport."""

    oracle: Oracle
    planes: dict[str, Ours]


@contextmanager
def sides(rie: Path, code: Path, handler: str, timeout: int, log: Path) -> Iterator[Sides]:
    with ExitStack() as stack:
        oracle = Oracle(rie, code, handler, timeout, log)
        stack.callback(oracle.close)
        function = Function(handler=handler, name=NAME, code=code, timeout=timeout)
        planes = {
            transport: Ours(
                stack.enter_context(
                    ProcessInvoker(ProcessInvoker.Config(workers=1, transport=transport, rie=rie), function)
                )
            )
            for transport in ("socket", "http", "rie")
        }
        yield Sides(oracle, planes)


@pytest.fixture(scope="session")
def start(rie: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Starts a function on all sides, once for each handler and timeout."""
    with ExitStack() as stack:
        started: dict[Any, Sides] = {}

        def get(code: Path, handler: str, timeout: int) -> Sides:
            key = (code, handler, timeout)
            if key not in started:
                log = tmp_path_factory.mktemp("rie") / "log"
                started[key] = stack.enter_context(sides(rie, code, handler, timeout, log))
            return started[key]

        yield get
