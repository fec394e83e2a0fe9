"""An HTTP server for `/metrics` that ends as soon as it is told to."""

import socket
import threading
from socketserver import TCPServer, ThreadingMixIn

from prometheus_client import CollectorRegistry, MetricsHandler

_LOOK_SECONDS = 0.05
_REQUEST_SECONDS = 10.0


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves a registry from a thread of its own. Raises `OSError` where it cannot listen."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        handler = MetricsHandler.factory(registry)
        handler.timeout = _REQUEST_SECONDS  # type: ignore[attr-defined]  # a client that sends nothing is not waited for any longer
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        super().__init__(address, handler)  # type: ignore[arg-type]
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_LOOK_SECONDS,), name="htcgrid-prometheus", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
