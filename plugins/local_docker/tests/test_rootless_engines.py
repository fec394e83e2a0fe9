"""Podman and rootless engines, without one: where the Runtime API is, where events may go, and whose memory is counted."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from docker.errors import NotFound
from htcgrid.spi import Function, Rejected, Unavailable

from htcgrid_local_docker import container_spec, network, ownership
from htcgrid_local_docker.container_memory import ContainerMemory
from htcgrid_local_docker.engine import Engine, explained
from htcgrid_local_docker.images import Image
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.namespace_socket import listen_in
from htcgrid_local_docker.network import Network
from htcgrid_local_docker.options import Options
from htcgrid_local_docker.sandbox import ContainerSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = Image("base:1", "sha256:0", "amd64", (), ("app.handler",), frozenset())
STRANGER = "203.0.113.7"
CONTAINER = "0" * 64

# A process with a user and a network of its own, as that of a rootless container; it calls each port that it is told.
APART = """
import ctypes, fcntl, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000 | 0x40000000) == 0, ctypes.get_errno()
with socket.socket() as any_:
    fcntl.ioctl(any_, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS: up
print("ready", flush=True)
for line in sys.stdin:
    with socket.create_connection(("127.0.0.1", int(line))) as called:
        print(called.recv(100).decode(), flush=True)
"""


@pytest.fixture
def apart() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", APART]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_socket_of_this_process_serves_the_loopback_of_a_container(apart: subprocess.Popen[str]) -> None:
    assert apart.stdin
    assert apart.stdout
    with listen_in(apart.pid, "127.0.0.1", 0) as listener:
        apart.stdin.write(f"{listener.getsockname()[1]}\n")
        apart.stdin.flush()
        listener.settimeout(20)
        channel, (peer, _) = listener.accept()
        with channel:
            channel.sendall(b"an event\n")
        assert peer == "127.0.0.1"
        assert apart.stdout.readline() == "an event\n"


def test_nothing_on_this_machine_reaches_that_socket(apart: subprocess.Popen[str]) -> None:
    with listen_in(apart.pid, "127.0.0.1", 0) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname(), timeout=5)


def test_a_container_that_is_gone_is_unavailable() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    with pytest.raises(Unavailable, match="was gone before it was served"):
        listen_in(ended.pid, "127.0.0.1", 0)


class FakeEngine(Engine):
    """One that makes networks and nothing else."""

    def __init__(self, *components: str, host: str = "unix:///run/engine.sock") -> None:
        super().__init__(host)
        self._components = frozenset(components)
        self.made: list[str] = []

    @property
    def client(self) -> Any:
        return self

    def create_network(self, name: str, **_: object) -> None:
        self.made.append(name)

    def inspect_network(self, name: str) -> dict[str, Any]:
        if name == "missing":
            raise NotFound("no such network")
        return {"Name": name, "Driver": "bridge", "IPAM": {"Config": [{"Gateway": "203.0.113.1"}]}}


PODMAN = ("Podman Engine", "Conmon")


@pytest.mark.parametrize(("named", "joined"), [("", "none"), ("podman", "podman"), ("pasta", "pasta")])
def test_podman_is_served_inside_its_containers_whatever_their_network(named: str, joined: str) -> None:
    engine = FakeEngine(*PODMAN)
    found = network.join(engine, named, {}, "http")
    assert found == Network(joined, "127.0.0.1", own=False, is_inside=True)
    assert not engine.made
    network.check_reachable(engine, found)


def test_a_network_that_podman_does_not_have_is_refused() -> None:
    with pytest.raises(Rejected, match="there is no such Docker network"):
        network.join(FakeEngine(*PODMAN), "missing", {}, "http")


def test_docker_has_a_network_of_its_own_as_before() -> None:
    engine = FakeEngine("Engine", "containerd")
    found = network.join(engine, "", {}, "http")
    assert (found.gateway, found.own, found.is_inside) == ("203.0.113.1", True, False)
    assert engine.made == [found.name]


def test_a_rootless_docker_is_served_in_the_network_namespace_that_its_bridges_are_in(
    apart: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apart.stdin
    assert apart.stdout
    engine = FakeEngine("Engine", "rootlesskit")
    engine.is_rootless = True
    monkeypatch.setattr(engine, "process_id", lambda: apart.pid)
    found = network.join(engine, "host", {}, "http")
    assert found.is_of_engine
    network.check_reachable(engine, found)
    with network.listener(engine, found) as listener:
        apart.stdin.write(f"{listener.getsockname()[1]}\n")
        apart.stdin.flush()
        listener.settimeout(20)
        with listener.accept()[0] as channel:
            channel.sendall(b"an event\n")
        assert apart.stdout.readline() == "an event\n"


def test_the_process_of_an_engine_is_found_by_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(tmp_path / "s"))
        served.listen()
        assert FakeEngine(host=f"unix://{tmp_path}/s").process_id() == os.getpid()
    with pytest.raises(Rejected, match="must be reached by its Unix socket"):
        FakeEngine(host="tcp://127.0.0.1:2375").process_id()


def emulator(engine: Engine, net: Network, published: list[dict[str, str]] | None) -> tuple[str, int]:
    """Where the event of a container with the address of a stranger would be sent."""
    options = Options(image="base:1", transport="rie")
    sandbox = ContainerSandbox(engine, container_spec.spec_of(options, Function(), IMAGE, net))
    sandbox._container = CONTAINER
    ports = {f"{container_spec.RIE_PORT}/tcp": published}
    sandbox._look(
        {
            "NetworkSettings": {"Networks": {"n": {"IPAddress": STRANGER}}, "Ports": ports},
            "State": {"Pid": os.getpid(), "Running": True},
        }
    )
    return sandbox.address


BRIDGE = Network("n", "203.0.113.1", own=True)


@pytest.mark.parametrize("components", [PODMAN, ("Engine",)])
def test_no_event_is_sent_to_an_address_that_is_not_on_a_bridge_of_this_machine(components: tuple[str, ...]) -> None:
    with pytest.raises(Rejected, match="An event sent there would reach a stranger"):
        emulator(FakeEngine(*components), BRIDGE, None)


def test_an_event_is_sent_to_a_port_that_the_engine_publishes_on_loopback() -> None:
    assert emulator(FakeEngine(*PODMAN), BRIDGE, [{"HostIp": "127.0.0.1", "HostPort": "4711"}]) == ("127.0.0.1", 4711)


@pytest.mark.parametrize("host", ["tcp://192.0.2.9:2376", "ssh://me@192.0.2.9"])
def test_a_port_of_an_engine_on_another_machine_is_not_called_on_this_one(host: str) -> None:
    with pytest.raises(Rejected, match="An event sent there would reach a stranger"):
        emulator(FakeEngine(host=host), BRIDGE, [{"HostIp": "127.0.0.1", "HostPort": "4711"}])


def test_an_event_is_sent_onto_a_bridge_of_this_machine() -> None:
    loopback = Network("n", "127.0.0.1", own=True)
    network.check_is_ours(FakeEngine(), loopback, "127.0.0.1")


def test_that_memory_is_not_counted_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(*PODMAN)
    with caplog.at_level(logging.WARNING, logger="htcgrid"):
        for _ in range(3):
            emulator(engine, BRIDGE, [{"HostIp": "127.0.0.1", "HostPort": "4711"}])
    (said,) = caplog.records
    assert "memory in use is shown as 0" in said.getMessage()


def test_the_memory_of_a_whole_session_is_not_the_memory_of_a_container() -> None:
    """As with a rootless engine, whose containers stay in the control group that the engine is in."""
    memory = ContainerMemory(os.getpid(), CONTAINER)
    assert not memory.is_counted()
    assert memory.megabytes() == 0.0
    assert not memory.has_killed()


@pytest.mark.parametrize(
    "group",
    [f"/docker/{CONTAINER}", f"/system.slice/docker-{CONTAINER}.scope", f"/libpod_parent/libpod-{CONTAINER}/container"],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_containers_own_group_is_counted(
    group: str, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cgroup"
    folder = root / (f"memory{group}" if version == 1 else group.lstrip("/"))
    folder.mkdir(parents=True)
    name = "memory.usage_in_bytes" if version == 1 else "memory.current"
    (folder / name).write_text(str(5 << 20))
    (folder / "memory.stat").write_text(f"inactive_file {1 << 20}\n")
    proc = tmp_path / "proc" / "7"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(f"4:memory:{group}\n" if version == 1 else f"1:memory:/other\n0::{group}\n")
    monkeypatch.setattr("htcgrid_local_docker.container_memory._ROOT", root)
    monkeypatch.setattr("htcgrid_local_docker.container_memory._PROC", tmp_path / "proc")
    memory = ContainerMemory(7, CONTAINER)
    assert memory.is_counted()
    assert memory.megabytes() == 4.0


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("pull access denied for pricing, repository does not exist", "docker login"),
        ("denied: requested access to the resource is denied", "docker login"),
        ("statfs /root/data: permission denied", "check the folder's owner and mode"),
        ("crun: open `/data`: Permission denied: OCI permission denied", "check the folder's owner and mode"),
        (
            'container create: lookup init binary: exec: "catatonit": executable file not found in $PATH',
            "install catatonit",
        ),
        ('exec: "docker-init": executable file not found in $PATH', "install catatonit"),
    ],
)
def test_a_refusal_names_its_own_cure(said: str, advice: str) -> None:
    text = str(explained(said, "start a container"))
    assert advice in text
    assert ("docker login" in text) == (advice == "docker login")
    assert "The image has no such program" not in text


def test_gpus_that_podman_would_drop_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = LocalDockerInvoker(Options(image="base:1", gpus="all"), Function())
    engine = FakeEngine(*PODMAN)
    monkeypatch.setattr(engine, "open", lambda: None)
    plane._engine = cast("Engine", engine)
    with pytest.raises(Rejected, match="`gpus` reaches no container on Podman"):
        plane.open()
    plane.close()


@pytest.mark.parametrize("text", ["", "uninitialized"])
def test_a_machine_without_an_id_removes_what_dead_agents_have_left(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ownership._read
    monkeypatch.setattr(ownership, "_read", lambda path: text if path.name == "machine-id" else read(path))
    machine, boot, namespace, pid, start = ownership.labels(Function())[ownership.OWNER].split("/")
    assert machine == ""
    assert not ownership.is_left_behind(f"/{boot}/{namespace}/{pid}/{start}")
    assert ownership.is_left_behind(f"/{boot}/{namespace}/{pid}/1")
    assert not ownership.is_left_behind(f"/another-boot/{namespace}/{pid}/{start}"), "it may be another machine's"


@pytest.mark.parametrize(
    ("options", "version", "driver", "keeps"),
    [
        pytest.param(["name=rootless"], "2", "systemd", True, id="a user to whom systemd has handed control groups"),
        pytest.param(["name=rootless"], "2", "cgroupfs", False, id="a user without them, on Podman"),
        pytest.param(["name=rootless"], "2", "none", False, id="a user without them, on Docker"),
        pytest.param(["name=rootless"], "1", "cgroupfs", False, id="a user, with version 1"),
        pytest.param([], "2", "cgroupfs", True, id="root"),
    ],
)
def test_an_engine_keeps_limits_where_its_containers_have_control_groups(
    options: list[str], version: str, driver: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rootless Podman says it: `MemoryLimit` is true there whether it can keep one or not."""

    class Client:
        timeout = 0.0

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def version(self) -> dict[str, Any]:
            return {"Components": [{"Name": "Podman Engine"}]}

        def info(self) -> dict[str, Any]:
            return {
                "SecurityOptions": options,
                "MemoryLimit": True,
                "CgroupVersion": version,
                "CgroupDriver": driver,
            }

        def close(self) -> None:
            pass

    monkeypatch.setattr("docker.APIClient", Client)
    engine = Engine("unix:///nowhere.sock")
    engine.open()
    assert engine.keeps_limits is keeps
    engine.close()
