"""The listening side of the Lambda Runtime API: one socket for one execution environment."""

import select
import socket
import time
from collections.abc import Callable, Collection

from htcgrid.runtime.api_connection import Connection, Request

_CONNECTIONS = 32
"""How many connections an environment may have open at once. AWS's clients have one or two."""


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket for one environment's Runtime API; a port of 0 is any free one.

    To keep a port for several environments, one after the other, give each a `dup()` of the socket: a runtime that calls
    in between waits in the backlog.
    """
    return socket.create_server((host, port), backlog=_CONNECTIONS, reuse_port=False)


class ApiServer:
    """Accepts connections and receives their requests, in the thread that calls `pump`."""

    def __init__(self, listener: socket.socket, peers: Callable[[], Collection[str]]) -> None:
        host, port = listener.getsockname()[:2]
        self.address = f"{host}:{port}"
        self.ended = False
        self._listener = listener
        self._peers = peers
        self._ended_fd = -1
        self._connections: dict[int, Connection] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        listener.setblocking(False)

    def watch(self, ended_fd: int) -> None:
        """Return from `pump` and set `ended` once this descriptor is readable."""
        self._ended_fd = ended_fd
        if ended_fd >= 0:
            self._poll.register(ended_fd, select.POLLIN)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._listener.close()

    def pump(self, wait: float, awake: float = 0.0) -> tuple[list[tuple[Connection, Request]], bool]:
        """The requests that come within `wait` seconds, and whether anything was read or sent.

        For the first `awake` seconds it polls without sleep.
        """
        arrived: list[tuple[Connection, Request]] = []
        moved = False
        for fd, _ in self._ready(wait, awake):
            if fd == self._ended_fd:
                self.ended = True
                self._poll.unregister(fd)
                continue
            moved = True
            connection = self._connections.get(fd)
            if connection is None:
                self._accept()
            elif connection.is_sending:
                connection.flush()
                self._settle(connection)
            else:
                arrived += [(connection, request) for request in connection.receive()]
                if not connection.is_ready():
                    self._settle(connection)
        return arrived, moved

    def _ready(self, wait: float, awake: float) -> list[tuple[int, int]]:
        if awake:
            until = time.monotonic() + min(awake, wait)
            while time.monotonic() < until:
                if ready := self._poll.poll(0):
                    return ready
        return self._poll.poll(wait * 1000)

    def reply(self, connection: Connection, data: bytes, request: Request) -> None:
        """Answer a request; `pump` sends the rest of an answer that the client does not read at once."""
        connection.reply(data, request)
        if not connection.is_ready():
            self._settle(connection)

    def drop(self, connection: Connection) -> None:
        """Close the connection."""
        connection.close()
        self._settle(connection)

    def _accept(self) -> None:
        try:
            channel, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        if address[0] not in self._peers() or len(self._connections) >= _CONNECTIONS:
            channel.close()
            return
        self._connections[channel.fileno()] = Connection(channel)
        self._poll.register(channel.fileno(), select.POLLIN)

    def _settle(self, connection: Connection) -> None:
        """Poll for the next action of the connection: write, read, or nothing if it is closed."""
        if connection.is_open:
            self._poll.modify(connection.fd, select.POLLOUT if connection.is_sending else select.POLLIN)
        elif self._connections.pop(connection.fd, None) is not None:
            self._poll.unregister(connection.fd)
