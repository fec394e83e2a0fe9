"""The stream to a pod, on a socket of this machine in place of the API server's."""

import fcntl
import resource
import socket
from collections.abc import Iterator

import pytest
from websocket import WebSocket

from htcgrid_eks.cluster import Cluster
from htcgrid_eks.options import Options
from htcgrid_eks.port_forward import PortForward

BEYOND_SELECT = 1024


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; the first one's descriptor is above what `select` takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * BEYOND_SELECT)), hard))
    low, there = socket.socketpair()
    try:
        here = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, BEYOND_SELECT))
        with low, here, there:
            yield here, there
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def stream(ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> Iterator[PortForward]:
    monkeypatch.setattr(WebSocket, "connect", lambda self, *_, **__: setattr(self, "sock", ends[0]))
    cluster = Cluster(Options(image="i", namespace="grid"))
    cluster.settings.host = "http://api.example"
    stream = PortForward(cluster, "pod-1", 4275)
    yield stream
    stream.close()


def test_a_plane_may_have_more_connections_than_select_takes(
    stream: PortForward, ends: tuple[socket.socket, socket.socket]
) -> None:
    assert not stream.has_input()
    ends[1].sendall(b"x")
    assert stream.has_input()


def test_a_connection_that_is_closed_while_it_is_looked_at_has_broken(
    stream: PortForward, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[0].close()
    with pytest.raises(ConnectionError, match="closed"):
        stream.has_input()
