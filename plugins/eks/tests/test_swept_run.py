"""A run whose pods have all ended, and whose owner another start of the same function has removed."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid.planes import Relay, SocketStream
from htcgrid.planes.relay import serve_socket
from htcgrid.spi import Function, Invoker, Lease, Outcome, Plugin, Task, Unavailable

from htcgrid_eks import invoker, run_pods
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.invoker import EksInvoker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Echo(Invoker):
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        for lease in batch:
            yield Outcome(lease.task.id, lease.task.payload)


class ApiServer:
    """Keeps objects, starts pods at once, and collects what has no owner any more, as a cluster does."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.relays: dict[str, Relay] = {}
        self.channels: list[socket.socket] = []
        self._uids = itertools.count()

    def request(self, method: str, path: str, body: Any = None, query: Any = None, **_: object) -> Any:
        if method == "POST":
            return self._make(f"{path}/{body['metadata']['name']}", body)
        if method == "GET" and query is not None:
            return {"items": [each for name, each in self.objects.items() if _matches(name, each, path, query)]}
        if path not in self.objects:
            raise ApiError(404, "NotFound", "not found")
        if method == "GET":
            return self.objects[path]
        del self.objects[path]
        self._collect()
        return {}

    def end_pods(self) -> None:
        """End each pod, as its relay does where no client has been connected for a while."""
        for each in self.named("pods"):
            each["status"] = {"phase": "Succeeded"}
        for channel in self.channels:
            if channel.fileno() >= 0:
                channel.shutdown(socket.SHUT_RDWR)

    def named(self, resource: str) -> list[Any]:
        return [each for path, each in self.objects.items() if f"/{resource}/" in path]

    def forward(self, _cluster: object, name: str, _port: int) -> SocketStream:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
        self.channels.append(there)
        threading.Thread(target=serve_socket, args=(self.relays[name], there), daemon=True).start()
        return SocketStream(here)

    def _make(self, path: str, body: Any) -> Any:
        if path in self.objects:
            raise ApiError(409, "AlreadyExists", f"{path} already exists")
        body["metadata"] |= {"uid": str(next(self._uids)), "creationTimestamp": datetime.now(UTC).isoformat()}
        if body["kind"] == "Pod":
            statuses = [{"name": each["name"], "state": {"running": {}}} for each in body["spec"]["containers"]]
            body["status"] = {"phase": "Running", "containerStatuses": statuses}
            token = re.search('"token": "([0-9a-f]+)"', body["spec"]["containers"][0]["command"][-1])
            assert token is not None
            self.relays[body["metadata"]["name"]] = Relay(
                lambda _: Echo(Plugin.Config(), Function()), None, token=token[1]
            )
        self.objects[path] = body
        self._collect()
        return body

    def _collect(self) -> None:
        uids = {each["metadata"]["uid"] for each in self.objects.values()}
        for path, each in list(self.objects.items()):
            owners = each["metadata"].get("ownerReferences", ())
            if owners and not uids & {owner["uid"] for owner in owners}:
                del self.objects[path]


def _matches(name: str, found: Any, path: str, query: Any) -> bool:
    labels = found["metadata"]["labels"]
    wanted = [part.partition("=") for part in query["labelSelector"].split(",")]
    return name.startswith(f"{path}/") and all(
        key in labels and (not sign or labels[key] == value) for key, sign, value in wanted
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    server = ApiServer()
    monkeypatch.setattr(Cluster, "open", lambda _cluster: None)
    monkeypatch.setattr(Cluster, "request", server.request)
    monkeypatch.setattr(invoker, "require", lambda *_: None)
    monkeypatch.setattr(invoker, "PortForward", server.forward)
    monkeypatch.setattr(run_pods, "_LOOK_SECONDS", 0.01)
    return server


def plane(code: Path, **environment: str) -> EksInvoker:
    config = EksInvoker.Config(image="i", namespace="grid", start_seconds=0.5)
    return EksInvoker(config, Function(handler="a.b", code=code, timeout=5, environment=environment))


def call(plane: EksInvoker) -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", b"1"))], 5)
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_run_that_another_start_has_swept_gets_pods_again(server: ApiServer, tmp_path: Path) -> None:
    with plane(tmp_path, CITY="Zürich") as first:
        assert call(first).payload == b"1"
        server.end_pods()  # while it had no tasks
        with plane(tmp_path, CITY="Zürich"):
            assert call(first).payload == b"1"
            assert len(server.named("secrets")) == 2
    assert not server.objects


def test_a_pod_that_is_replaced_keeps_the_owner_of_its_run(server: ApiServer, tmp_path: Path) -> None:
    with plane(tmp_path) as only:
        (owner,) = server.named("configmaps")
        server.end_pods()
        assert call(only).payload == b"1"
        assert server.named("configmaps") == [owner]


def test_after_the_end_of_a_run_nothing_is_made_for_a_late_call(server: ApiServer, tmp_path: Path) -> None:
    with plane(tmp_path) as only:
        runs = only._run_pods
    with pytest.raises(Unavailable, match="not open"):
        runs.keep_owner()
    assert not server.objects
