"""A container that ends by itself just as it is killed."""

import os
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from docker.errors import APIError
from htcgrid.spi import Rejected

from htcgrid_local_docker import ownership
from htcgrid_local_docker.container_spec import ContainerSpec
from htcgrid_local_docker.engine import Engine
from htcgrid_local_docker.sandbox import ContainerSandbox


class Refuses(Engine):
    """An engine that will not kill a container."""

    def __init__(self, status: int) -> None:
        super().__init__("unix:///run/engine.sock")
        self._status = status

    @property
    def client(self) -> Any:
        return self

    def kill(self, _: str) -> None:
        response = requests.Response()
        response.status_code = self._status
        raise APIError("crun kill failed", response)


class Ended:
    """The engine's answer to a `wait`: on a pipe, as long as its end is unread."""

    def __init__(self) -> None:
        self.fd, self._written = os.pipe()
        self.raw = SimpleNamespace(fileno=lambda: self.fd, read1=lambda: os.read(self.fd, 100))

    def write(self) -> None:
        os.write(self._written, b'{"StatusCode": 3}')

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._written)


def sandbox_of(status: int, end: Ended) -> ContainerSandbox:
    sandbox = ContainerSandbox(Refuses(status), cast("ContainerSpec", None))
    sandbox._end, sandbox.ended_fd = end, end.fd
    return sandbox


@pytest.mark.parametrize("status", [409, 500], ids=["docker", "podman"])
def test_one_that_has_ended_by_itself_has_its_own_status(status: int) -> None:
    end = Ended()
    threading.Timer(0.05, end.write).start()
    assert sandbox_of(status, end).end() == 3
    end.close()


def test_one_that_still_runs_is_said_to_be_refused() -> None:
    end = Ended()
    with pytest.raises(Rejected, match="could not end a container"):
        sandbox_of(500, end).end()
    end.close()


def test_one_that_is_closed_has_ended_for_a_call_that_still_waits_for_it() -> None:
    sandbox = sandbox_of(409, Ended())
    assert not sandbox.has_ended()
    sandbox.close()
    assert sandbox.has_ended()


class Removes(Refuses):
    """An engine whose container is removed at this moment, as Podman says it."""

    def inspect_container(self, container: str) -> Any:
        response = requests.Response()
        response.status_code = self._status
        said = f"no container with ID {container} found in database: no such container"
        raise APIError("500 Server Error", response, said)

    remove_container = kill = lambda self, container, **_: self.inspect_container(container)


@pytest.mark.parametrize("status", [404, 500], ids=["docker", "podman"])
def test_one_that_is_removed_meanwhile_ends_no_call(status: int) -> None:
    """Its task has begun: `Rejected` would stop the agent."""
    end = Ended()
    sandbox = ContainerSandbox(Removes(status), cast("ContainerSpec", None))
    sandbox._end, sandbox.ended_fd = end, end.fd
    end.write()
    assert sandbox.end() == 3
    sandbox._status = -9
    assert not sandbox.was_out_of_memory()
    assert not ownership.remove(Removes(status), "c")
    end.close()
