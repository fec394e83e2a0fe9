"""`eks` from outside: which relay serves a place, pods that are replaced, and how a container ended, without a cluster."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid.planes import Relay, SocketStream, UnexplainedExit
from htcgrid.planes.relay import serve_socket
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Rejected,
    Task,
    Unavailable,
)

from htcgrid_eks import invoker
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.invoker import EksInvoker

if TYPE_CHECKING:
    from pathlib import Path

KILLED = {"exitCode": 137, "reason": "OOMKilled", "containerID": "docker://1"}


class Environments(Invoker):
    """The plane in a pod: an answer names its pod; "end" ends the whole container."""

    capabilities = frozenset({Capability.EXIT})

    def __init__(self, pod: str) -> None:
        super().__init__(Plugin.Config(), Function())
        self.pod = pod

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        for lease in batch:
            if lease.task.payload == b'"end"':
                yield UnexplainedExit(lease.task.id, b"{}", FailureKind.EXIT)
            else:
                yield Outcome(lease.task.id, self.pod.encode())


class Pods:
    """The pods of a run, each with a relay."""

    token = "the token"

    def __init__(self, *_: object) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.relays: dict[str, Relay] = {}
        self.channels: list[socket.socket] = []
        self.count = 0

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def keep_owner(self) -> None: ...

    def add(self) -> str:
        self.count += 1
        name = f"pod-{self.count}"
        containers = [{"name": "agent"}, {"name": "lambda-0"}, {"name": "lambda-1"}]
        statuses = [{"name": each["name"], "state": {"running": {}}} for each in containers]
        self.made[name] = {
            "metadata": {"name": name},
            "spec": {"containers": containers},
            "status": {"phase": "Running", "containerStatuses": statuses},
        }
        self.relays[name] = Relay(lambda _wanted: Environments(name), None, token=self.token)
        return name

    def await_running(self, names: Sequence[str]) -> None:
        assert set(names) <= self.made.keys()

    def find(self, name: str) -> Any:
        return self.made.get(name)

    def remove(self, name: str) -> None:
        self.made.pop(name, None)

    def forward(self, _cluster: object, name: str, _port: int) -> SocketStream:
        if name not in self.made:
            raise ConnectionError("no such pod")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
        self.channels.append(there)
        threading.Thread(target=serve_socket, args=(self.relays[name], there), daemon=True).start()
        return SocketStream(here)

    def cut(self) -> None:
        for channel in self.channels:
            if channel.fileno() >= 0:
                channel.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> Pods:
    pods = Pods()
    monkeypatch.setattr(invoker, "RunPods", lambda *_: pods)
    monkeypatch.setattr(invoker, "PortForward", pods.forward)
    monkeypatch.setattr(invoker, "require", lambda *_: None)
    monkeypatch.setattr("htcgrid_eks.cluster.Cluster.open", lambda _cluster: None)
    return pods


@pytest.fixture
def plane(pods: Pods, tmp_path: Path) -> Iterator[EksInvoker]:
    config = EksInvoker.Config(image="i", namespace="grid", pods=2, containers=2, start_seconds=5)
    with EksInvoker(config, Function(handler="a.b", code=tmp_path, timeout=5)) as plane:
        yield plane


def call(plane: EksInvoker, payload: bytes = b"1") -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", payload))], 5)
    assert isinstance(outcome, Outcome)
    return outcome


def test_each_container_of_each_pod_is_a_place(plane: EksInvoker, pods: Pods) -> None:
    assert plane.max_concurrency == 4
    assert list(pods.made) == ["pod-1", "pod-2"]
    assert [plane.relay_of(place) for place in range(4)] == ["pod-1", "pod-2", "pod-1", "pod-2"]
    assert plane.capabilities == {Capability.EXIT}
    assert call(plane).payload == b"pod-1"


def test_a_pod_that_has_gone_is_replaced_by_the_next_call(plane: EksInvoker, pods: Pods) -> None:
    assert call(plane).payload == b"pod-1"
    pods.made.pop("pod-1")
    pods.cut()
    assert call(plane).payload == b"pod-3"


def test_a_connection_that_broke_leads_to_the_same_pod_again(plane: EksInvoker, pods: Pods) -> None:
    assert call(plane).payload == b"pod-1"
    pods.cut()
    assert call(plane).payload == b"pod-1"


def test_a_pod_that_was_removed_while_it_starts_is_unavailable(plane: EksInvoker, pods: Pods) -> None:
    pods.made.pop("pod-2")
    with pytest.raises(Unavailable, match="pod-2 was removed"):
        plane.check(1)


def test_how_a_container_ended_whole_is_read_from_its_own_status(plane: EksInvoker, pods: Pods) -> None:
    statuses = pods.made["pod-1"]["status"]["containerStatuses"]
    statuses[1]["lastState"] = {"terminated": KILLED}  # lambda-0, which place 0 is
    assert call(plane, b'"end"').failure is FailureKind.OUT_OF_MEMORY


def test_without_a_word_of_kubernetes_it_stays_an_exit(
    plane: EksInvoker, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid_eks.own_pod.WAIT_SECONDS", 0.3)
    pods.made["pod-1"]["status"]["containerStatuses"][2]["lastState"] = {"terminated": KILLED}  # not of place 0
    assert call(plane, b'"end"').failure is FailureKind.EXIT


@pytest.mark.parametrize("error", [Unavailable("The API server answers 503."), Rejected("Not allowed to get pods.")])
def test_an_end_is_reported_although_kubernetes_cannot_be_asked_for_its_reason(
    plane: EksInvoker, pods: Pods, monkeypatch: pytest.MonkeyPatch, error: HtcgridError
) -> None:
    def find(_name: str) -> Any:
        raise error

    monkeypatch.setattr("htcgrid_eks.own_pod.WAIT_SECONDS", 0.3)
    monkeypatch.setattr(pods, "find", find)
    assert call(plane, b'"end"').failure is FailureKind.EXIT


def test_the_reason_of_an_end_is_asked_for_again_where_the_api_server_was_unavailable(
    plane: EksInvoker, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods.made["pod-1"]["status"]["containerStatuses"][1]["lastState"] = {"terminated": KILLED}
    answers = iter([Unavailable("The API server answers 429."), pods.made["pod-1"]])

    def find(_name: str) -> Any:
        answer = next(answers)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    monkeypatch.setattr(pods, "find", find)
    assert call(plane, b'"end"').failure is FailureKind.OUT_OF_MEMORY


@pytest.mark.parametrize("step", ["find", "await_running"])
def test_a_call_that_replaces_its_pod_is_unavailable_when_the_plane_is_closed(
    plane: EksInvoker, pods: Pods, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def wait(_name: object) -> None:
        begun.set()
        assert may_go_on.wait(30)

    pods.made.pop("pod-1")
    pods.cut()
    monkeypatch.setattr(pods, step, wait)
    said: list[str] = []

    def work() -> None:
        with pytest.raises(Unavailable) as caught:
            call(plane)
        said.append(str(caught.value))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert begun.wait(30)
    plane.close()
    may_go_on.set()
    thread.join(30)
    assert said == ["The plane is not open."]


def test_a_cluster_that_was_closed_during_a_call_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="not open"):
        Cluster(EksInvoker.Config(image="i", namespace="grid")).request("GET", "/version")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_port_forward_that_may_succeed_a_moment_later_is_tried_again(
    plane: EksInvoker, pods: Pods, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answers = iter([ApiError(status, "", "not now")])

    def forward(*where: Any) -> SocketStream:
        for error in answers:
            raise error
        return pods.forward(*where)

    monkeypatch.setattr(invoker, "PortForward", forward)
    with pytest.raises(ConnectionError, match="not now"):
        plane.connect(0)
    plane.connect(0).close()
