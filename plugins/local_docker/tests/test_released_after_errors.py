"""What is released where the engine refuses something in the middle."""

import subprocess
from typing import Any, cast

import pytest
from htcgrid.planes import EnvironmentPool
from htcgrid.spi import Function, Rejected, Unavailable

from htcgrid_local_docker import namespace_socket, network
from htcgrid_local_docker.engine import Engine
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options
from htcgrid_local_docker.sandbox import ContainerSandbox


class NetworksOnly(Engine):
    """An engine that makes networks, and does not say what they are."""

    def __init__(self) -> None:
        super().__init__("unix:///run/engine.sock")
        self.networks: set[str] = set()

    @property
    def client(self) -> Any:
        return self

    def create_network(self, name: str, **_: object) -> None:
        self.networks.add(name)

    def inspect_network(self, _: str) -> dict[str, Any]:
        raise TimeoutError

    def remove_network(self, name: str) -> None:
        self.networks.remove(name)


class Left:
    """A container that was left when the engine was away."""

    def __init__(self, *, is_refused: bool) -> None:
        self.is_left = True
        self._is_refused = is_refused

    def close(self) -> None:
        if self._is_refused:
            raise Rejected("The Docker Engine could not remove a container: device or resource busy.")
        self.is_left = False


def plane_with(*left: Left) -> LocalDockerInvoker:
    plane = LocalDockerInvoker(Options(image="base:1"), Function())
    plane._left = cast("list[ContainerSandbox]", list(left))
    return plane


def test_a_network_that_was_made_is_removed_where_the_engine_does_not_describe_it() -> None:
    engine = NetworksOnly()
    with pytest.raises(Unavailable):
        network.join(engine, "", {}, "http")
    assert not engine.networks


def test_a_container_that_cannot_be_removed_does_not_make_the_plane_forget_the_others() -> None:
    refused, other = Left(is_refused=True), Left(is_refused=False)
    plane = plane_with(refused, other)
    both = {id(refused), id(other)}
    with pytest.raises(Rejected, match="busy"):
        plane._remove_what_is_left()
    assert {id(each) for each in plane._left} == both


def test_the_network_is_left_though_a_container_cannot_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: EnvironmentPool) -> None:
        raise Rejected("The Docker Engine could not remove a container: device or resource busy.")

    monkeypatch.setattr(EnvironmentPool, "close", refuse)
    plane = plane_with()
    released: list[str] = []
    plane._opened.callback(released.append, "network")
    with pytest.raises(Rejected, match="busy"):
        plane.close()
    assert released


def test_a_container_that_is_not_joined_in_time_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 20.0)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(Unavailable, match="too busy"):
        namespace_socket.listen_in(1, "127.0.0.1", 0)


def test_to_close_a_plane_again_is_quiet_though_a_container_was_left() -> None:
    left = Left(is_refused=True)
    plane = plane_with(left)
    plane.close()
    assert len(plane._left) == 1
