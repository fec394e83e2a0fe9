"""A stream of bytes to a port on a pod's loopback, through the API server (`kubectl port-forward`'s protocol).

The kubernetes package has such a stream too, but it needs a thread for each connection, and its reader is lost when the
connection breaks. This stream has no thread: its user reads and writes it.
"""

import select
import socket
import ssl
import threading
from contextlib import suppress

import certifi
from htcgrid.planes import Stream
from kubernetes.stream.ws_client import get_websocket_url
from websocket import ABNF, WebSocket, WebSocketException
from websocket import WebSocketBadStatusException as BadStatus

from htcgrid_eks.cluster import ApiError, Cluster

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_CHUNK = 1 << 18
_CONNECT_SECONDS = 5.0
_CLOSED = "the connection to the pod is closed"
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]


class PortForward(Stream):
    """Open from the start. Raises `ApiError` where the server refuses, `ConnectionError` for all else that fails."""

    def __init__(self, cluster: Cluster, pod: str, port: int) -> None:
        path = cluster.namespaced("pods", pod) + "/portforward"
        url = get_websocket_url(cluster.server + path, [("ports", str(port))])
        headers = [f"Authorization: {cluster.authorization}"] if cluster.authorization else []
        self._socket = WebSocket(sslopt=_tls(cluster), sockopt=_KEEP_ALIVE, skip_utf8_validation=True)
        self._socket.settimeout(_CONNECT_SECONDS)
        self._buffer = bytearray()
        self._greetings = 2
        self._sending = threading.Lock()
        try:
            self._socket.connect(url, header=headers, subprotocols=[_PROTOCOL], suppress_origin=True)
        except BadStatus as error:
            body = (error.resp_body or b"").decode(errors="replace")
            raise ApiError(error.status_code, "", body or str(error)) from None
        except (OSError, WebSocketException) as error:
            raise ConnectionError(str(error)) from None

    def send(self, data: bytes) -> None:
        """From any thread."""
        view = memoryview(data)
        with self._sending, _as_connection_errors():
            for at in range(0, len(view), _CHUNK):
                self._socket.send(bytes((_DATA,)) + bytes(view[at : at + _CHUNK]), ABNF.OPCODE_BINARY)

    def read(self, size: int, timeout: float) -> bytes:
        """Exactly so many bytes; raises if none arrives for `timeout` seconds."""
        while len(self._buffer) < size:
            with _as_connection_errors():
                self._socket.settimeout(timeout)
                opcode, data = self._socket.recv_data()
            if opcode == ABNF.OPCODE_CLOSE:
                raise ConnectionError("the API server has closed the connection to the pod")
            if self._greetings:
                self._greetings -= 1  # each channel says its port first
            elif data[0] == _ERROR:
                raise ConnectionError(data[1:].decode(errors="replace"))
            else:
                self._buffer += memoryview(data)[1:]
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def has_input(self) -> bool:
        """Whether bytes have arrived that were not read yet."""
        channel = self._socket.sock
        if channel is None:
            raise ConnectionError(_CLOSED)
        poll = select.poll()  # `select` takes no descriptor above 1023
        with _as_connection_errors():
            pending = isinstance(channel, ssl.SSLSocket) and channel.pending() > 0
            try:
                poll.register(channel, select.POLLIN)
            except ValueError:
                raise ConnectionError(_CLOSED) from None
            return bool(self._buffer) or pending or bool(poll.poll(0))

    def close(self) -> None:
        """Close the connection, from any thread; a read that waits then ends."""
        with suppress(OSError, WebSocketException):
            if self._socket.sock is not None:
                self._socket.sock.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, WebSocketException):
            self._socket.shutdown()


class _as_connection_errors:  # noqa: N801 - it reads as a word
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, WebSocketException)) and not isinstance(error, ConnectionError):
            raise ConnectionError(f"the connection to the pod broke: {error}") from None


def _tls(cluster: Cluster) -> dict[str, object]:
    settings = cluster.settings
    if not settings.verify_ssl:
        return {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
    options: dict[str, object] = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": settings.ssl_ca_cert or certifi.where()}
    if settings.cert_file:
        options |= {"certfile": settings.cert_file, "keyfile": settings.key_file}
    if settings.tls_server_name:
        options["server_hostname"] = settings.tls_server_name
    return options
