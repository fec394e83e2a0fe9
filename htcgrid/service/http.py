"""The sockets of the service: one thread for each connection, a limit on connections, an end that waits for answers."""

import contextlib
import resource
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Protocol

from htcgrid.service.connection import Connection, HungUp

MOST_CONNECTIONS = 1000
_NO_FILES_SECONDS = 0.05
_KERNEL_BYTES = 1 << 16
_SEGMENT_BYTES = 1448  # as on Ethernet


class Api(Protocol):
    """What answers the requests of any number of connections."""

    def serve(
        self,
        connection: Connection,
        under_way: Callable[[], AbstractContextManager[None]],
        may_go_on: Callable[[], bool],
    ) -> bool:
        """Answer the next request of this connection. Returns whether another may follow."""


class InvokeServer(ThreadingTCPServer):
    """Serves the Invoke API, or a page, on an address that `socket.getaddrinfo` gave."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, family: int, address: Any, api: Api, report: Callable[[str], None]) -> None:
        self.address_family = family
        self._report = report
        self.api = api
        self.is_ending = False
        self.under_way = 0
        """How many calls have not been answered completely."""
        self._answered = threading.Condition()
        self._most = _most_connections()
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The kernel holds what a caller sends until it is read; on the loopback device that would be 4 MB or more.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        super().server_bind()

    @contextmanager
    def connected(self, connection: Connection) -> Iterator[None]:
        """Count a connection while the block runs."""
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a call while the block runs: from its head to the end of its answer."""
        with self._answered:
            self.under_way += 1
        try:
            yield
        finally:
            with self._answered:
                self.under_way -= 1
                self._answered.notify_all()

    def end(self, seconds: float) -> None:
        """Accept no more connections, and wait at most `seconds` for the answers to running calls.

        The plane may be closed only after this.
        """
        self.is_ending = True
        self.shutdown()
        with self._answered:
            self._answered.wait_for(lambda: not self.under_way, seconds)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """If there are too many connections, close the one that has waited longest without a request; if none waits, the new one."""
        with self._lock:
            if len(self._connections) < self._most:
                return True
            idle = [(since, each) for each in self._connections if (since := each.waiting_since) is not None]
            if not idle:
                return False
            _, longest = min(idle, key=lambda pair: pair[0])
            self._connections.discard(longest)
        longest.hang_up()
        return True

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(_NO_FILES_SECONDS)  # without a free file descriptor, `accept` would be called again at once
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show nothing if the caller has hung up; every other error is a bug and is shown."""
        error = sys.exception()
        if isinstance(error, RuntimeError) and "thread" in str(error):
            self._report(f"A connection was closed: {error}. Raise ulimit -u.")
        elif not isinstance(error, OSError):
            traceback.print_exc()


def _most_connections() -> int:
    """Half of the number of files that may be open; the plane needs the others."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, max(8, files // 2))


class _Handler(BaseRequestHandler):
    server: InvokeServer
    request: socket.socket

    def handle(self) -> None:
        connection = Connection(self.request)
        with self.server.connected(connection), contextlib.suppress(HungUp):
            while self._one(connection):
                pass

    def _one(self, connection: Connection) -> bool:
        server = self.server
        return server.api.serve(connection, server.answering, lambda: not server.is_ending)
