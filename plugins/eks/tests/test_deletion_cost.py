"""A busy pod says so, so that scaling in takes idle ones first."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from htcgrid.planes import State
from htcgrid.spi import Function, Lease, Task, Unavailable, Unstarted

from htcgrid_eks import cluster, deletion_cost
from htcgrid_eks.cluster import ApiError
from htcgrid_eks.deletion_cost import DeletionCost
from htcgrid_eks.sidecar import EksSidecarInvoker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from conftest import Manifests
    from htcgrid.planes import ExecutionEnvironment

LOOK = 0.01


class Server:
    """What the API server was asked; `refuse` holds what it answers with first."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, str]] = []
        self.refuse: list[Exception] = []

    @property
    def costs(self) -> list[str]:
        return [body["metadata"]["annotations"][deletion_cost.ANNOTATION] for _, _, body, _ in self.asked]

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        if self.refuse:
            raise self.refuse.pop()
        self.asked.append((method, path, body, content_type))
        return {}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(cluster.Cluster, "open", lambda self: setattr(self, "namespace", "grid"))
    monkeypatch.setattr(cluster.Cluster, "request", lambda _, *given, **named: server.request(*given, **named))
    monkeypatch.setattr(deletion_cost, "_LOOK_SECONDS", LOOK)
    return server


@pytest.fixture
def busy(server: Server) -> Iterator[list[int]]:
    """How many environments are busy: change its one member."""
    count = [0]
    cost = DeletionCost(lambda: count[0])
    cost.start()
    yield count
    cost.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(LOOK)


def test_a_pod_is_marked_while_it_is_busy(server: Server, busy: list[int]) -> None:
    busy[0] = 2
    until(lambda: server.costs == ["1"])
    busy[0] = 0
    until(lambda: server.costs == ["1", "0"])
    method, path, _, content = server.asked[0]
    assert (method, path) == ("PATCH", f"/api/v1/namespaces/grid/pods/{socket.gethostname()}/status")
    assert content == "application/merge-patch+json"


def test_a_pod_that_pauses_between_two_tasks_is_written_once(server: Server) -> None:
    looks = iter([1, 0, 0, 1, 0, 1, 0, 0, 0, 1] * 5)
    done = threading.Event()

    def busy() -> int:
        count = next(looks, None)
        if count is None:
            done.set()
        return 1 if count is None else count

    cost = DeletionCost(busy)
    cost.start()
    assert done.wait(20)
    cost.close()
    assert server.costs == ["1"]


def test_an_api_server_that_is_away_is_asked_again(server: Server, busy: list[int]) -> None:
    server.refuse = [Unavailable("away"), Unavailable("away")]
    busy[0] = 1
    until(lambda: server.costs == ["1"])


def test_a_worker_without_the_right_says_so_once(
    server: Server, busy: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    server.refuse = [ApiError(403, "Forbidden", "cannot patch pods/status")]
    with caplog.at_level(logging.INFO, logger="htcgrid"):
        busy[0] = 1
        until(lambda: bool(caplog.records))
    (said,) = caplog.records
    assert "cannot patch pods/status. Deploy again, or write idle_first = false." in said.getMessage()
    assert server.costs == []


class Environment:
    """One in which a handler runs as long as the test wants it to."""

    id = "e-1"
    state = State.IDLE

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def start(self) -> None: ...

    def close(self) -> None: ...

    def invoke(self, batch: Sequence[Lease], *_: object) -> Iterator[Unstarted]:
        assert self.may_end.wait(20)
        yield from (Unstarted(lease.task.id) for lease in batch)


class Plane(EksSidecarInvoker):
    """The sidecar plane beside a Lambda container that is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(self.Config(folder=folder, idle_first=True), Function(handler="job.handler", code=folder))
        self.only = Environment()

    def _await_containers(self) -> None: ...

    def environment(self, place: int) -> ExecutionEnvironment:
        return cast("ExecutionEnvironment", self.only)


def test_a_pod_is_marked_by_the_plane_while_a_handler_runs(server: Server, tmp_path: Path) -> None:
    plane = Plane(tmp_path)
    plane.open()
    running = threading.Thread(target=lambda: list(plane.invoke([Lease(Task("1", b"{}"))], 20)))
    try:
        running.start()
        until(lambda: server.costs == ["1"])
        plane.only.may_end.set()
        until(lambda: server.costs == ["1", "0"])
        running.join()
    finally:
        plane.only.may_end.set()
        plane.close()


def rules(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(*rule["resources"], *rule["verbs"]) for rule in found["Role"]["rules"]]


def test_workers_may_mark_pods_and_change_nothing_that_they_run(manifests: Manifests) -> None:
    assert rules(manifests()) == [("pods", "get"), ("pods/status", "patch")]
    assert "idle_first = true" in manifests()["ConfigMap"]["data"]["htcgrid.toml"]


def test_workers_have_no_more_rights_than_were_asked_for(manifests: Manifests) -> None:
    assert rules(manifests(pod_status=False)) == [("pods/status", "patch")]
    assert rules(manifests(idle_first=False)) == [("pods", "get")]
    without = manifests(pod_status=False, idle_first=False)
    assert "Role" not in without
    assert "account" not in str(without["Deployment"]["spec"]["template"]["spec"]["volumes"])
