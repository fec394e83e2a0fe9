"""A plane elsewhere is a launcher only: here of containers beside a relay, as in a pod, and the engine knows how they end.

`eks` is made of the same parts; what is Kubernetes's own is tried in tests/kubernetes.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from htcgrid.planes import (
    Relay,
    RemoteInvoker,
    SidecarInvoker,
    SocketStream,
    Stream,
    UnexplainedExit,
    container_entry,
    exit_status,
    explained,
    this_python,
    variables,
)
from htcgrid.planes.relay import serve_socket
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Plugin, Task, Unavailable

HANDLER = """
import os, time

def handler(event, context):
    print("began", flush=True)
    if event == "exit":
        os._exit(3)
    time.sleep(event)
    return os.environ["CITY"]
"""
FOLDER, TASK_ROOT = "/run/htcgrid", "/var/task"


class Beside(RemoteInvoker):
    """A relay of this process, over a socket, and one container."""

    def __init__(self, function: Function, folder: Path, engine: docker.APIClient, image: str) -> None:
        super().__init__(Plugin.Config(), function)
        self._engine, self._image = engine, image
        self._folder = folder
        self._sidecar = SidecarInvoker(SidecarInvoker.Config(folder=folder, start_seconds=30), function)
        self._relay = Relay(lambda _wanted: self._sidecar, None)
        self.container = self._launched()

    def size(self) -> int:
        return 1

    def archive(self) -> bytes:
        return b""

    def connect(self, place: int) -> Stream:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
        threading.Thread(target=serve_socket, args=(self._relay, there), daemon=True).start()
        return SocketStream(here)

    def corrected(self, outcome: UnexplainedExit, place: int) -> Outcome:
        state = self._engine.wait(self.container) and self._engine.inspect_container(self.container)["State"]
        return explained(outcome, exit_status.of_shell(state["ExitCode"]), out_of_memory=state["OOMKilled"])

    def close(self) -> None:
        super().close()
        self._sidecar.close()
        self._engine.remove_container(self.container, force=True)

    def restart(self) -> None:
        self._engine.start(self.container)

    def _launched(self) -> str:
        (self._folder / "0").mkdir(exist_ok=True)
        entry, *arguments = container_entry.command(FOLDER, container_entry.program(self.function.handler, "http", 0))
        in_container = self.function.model_copy(update={"code": Path(TASK_ROOT)})
        made: dict[str, Any] = self._engine.create_container(
            self._image,
            entrypoint=[entry],
            command=arguments,
            working_dir=TASK_ROOT,
            environment=dict(variables(in_container, this_python())),
            host_config=self._engine.create_host_config(
                network_mode="host",
                binds=[f"{self._folder}/0:{FOLDER}", f"{self.function.code}:{TASK_ROOT}:ro"],
            ),
        )
        self._engine.start(made["Id"])
        return str(made["Id"])


@pytest.fixture
def plane(tmp_path: Path, engine: docker.APIClient, python_image: str) -> Iterator[Beside]:
    code, folder = tmp_path / "code", tmp_path / "run"
    code.mkdir()
    folder.mkdir()
    (code / "life.py").write_text(HANDLER)
    function = Function(handler="life.handler", code=code, timeout=30, environment={"CITY": "Zürich"})
    with Beside(function, folder, engine, python_image) as plane:
        yield plane


def call(plane: Beside, event: object) -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", json.dumps(event).encode()))], plane.function.timeout)
    assert isinstance(outcome, Outcome)
    return outcome


def test_containers_beside_a_relay_run_handlers_and_are_reused_after_an_exit(plane: Beside) -> None:
    outcome = call(plane, 0)
    assert (json.loads(outcome.payload), outcome.log_tail) == ("Zürich", b"began\n")
    ended = call(plane, "exit")
    assert ended.failure is FailureKind.EXIT
    assert json.loads(ended.payload)["errorMessage"].endswith("exit status 3")
    assert json.loads(call(plane, 0).payload) == "Zürich"


def test_a_container_that_ended_whole_is_explained_by_the_client_and_serves_again(plane: Beside) -> None:
    assert json.loads(call(plane, 0).payload) == "Zürich"
    threading.Timer(1.0, plane._engine.kill, [plane.container, "SIGKILL"]).start()
    outcome = call(plane, 20)
    assert outcome.failure is FailureKind.EXIT
    assert json.loads(outcome.payload)["errorMessage"].endswith("signal: killed")
    assert outcome.log_tail == b"began\n"
    plane.restart()
    deadline = time.monotonic() + 30
    while True:
        try:
            assert json.loads(call(plane, 0).payload) == "Zürich"
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            break


@pytest.mark.timing
def test_a_container_that_was_restarted_while_it_was_idle_does_not_delay_its_next_task(plane: Beside) -> None:
    assert json.loads(call(plane, 0).payload) == "Zürich"
    plane._engine.restart(plane.container, timeout=0)
    is_waiting = plane._engine.exec_create(
        plane.container, ["sh", "-c", "until [ -e /proc/1/fd/4 ]; do sleep 0.1; done"]
    )
    plane._engine.exec_start(is_waiting["Id"])
    began = time.monotonic()
    assert json.loads(call(plane, 0).payload) == "Zürich"
    assert time.monotonic() - began < 15  # a runtime that asks for nothing is given up after 40 s
