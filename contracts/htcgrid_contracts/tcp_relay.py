"""A relay in front of a service, which breaks connections and answers in the service's place when a rule says so."""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from htcgrid.spi import Plugin
from pydantic import SecretStr

_AT_ONCE = 1 << 16
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/@]*@)?(?P<host>\[[^]]+\]|[^/:@]+)(:(?P<port>\d+))?(?P<rest>/.*)?$"
)
_PORTS = {"http": 80}
_ENCRYPTED = frozenset({"amqps", "ftps", "grpcs", "https", "ldaps", "mqtts", "rediss", "ssl", "tls", "wss"})
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset


class TcpRelay:
    """Forwards TCP connections from a port of this machine to `host` and `port`, until it is left."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._idle: set[socket.socket] = set()
        """The connections to the service that wait for no answer."""
        self._reply: bytes | None = None
        self._left: int | None = None
        self._delay = 0.0
        self._is_silent = False
        self.replies = 0
        """How many requests were answered by the relay itself."""

    def __enter__(self) -> Self:
        self.port = 0
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def cut(self) -> None:
        """Break every connection. New ones are forwarded."""
        with self._lock:
            for each in self._open:
                _break(each)

    def end_connections(self) -> None:
        """Close every connection in order, as a service does with those that are idle. New ones are forwarded."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_WR)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Break what is connected, and refuse connections."""
        self._end()
        try:
            yield
        finally:
            self._listen()

    @contextmanager
    def refusing_more(self) -> Iterator[None]:
        """Refuse connections, and break those that wait for no answer. What runs runs on."""
        self._close()
        with self._lock:
            for each in self._idle:
                _break(each)
        try:
            yield
        finally:
            self._listen()

    @contextmanager
    def answering(self, reply: bytes) -> Iterator[None]:
        """Answer each HTTP request with these bytes, and forward none."""
        self._reply = reply
        self.cut()
        try:
            yield
        finally:
            self._reply = None
            self.cut()

    @contextmanager
    def breaking_answers_after(self, size: int) -> Iterator[None]:
        """Break every connection once this many bytes have come from the service."""
        self._left = size
        try:
            yield
        finally:
            self._left = None

    @contextmanager
    def delaying_answers_by(self, seconds: float) -> Iterator[None]:
        """Hold what comes from the service for so long."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept connections, and forward nothing more, as a service does that is frozen; break them at the end."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False
            self.cut()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _end(self) -> None:
        self._close()
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the relay is closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._reply is not None:
            self._answer(client, self._reply)
            return
        with suppress(OSError), client, socket.create_connection(self._target) as service:
            with self._lock:
                self._open |= {client, service}
                self._idle.add(service)
            there = threading.Thread(target=self._forward, args=(client, service, False), daemon=True)
            there.start()
            self._forward(service, client, True)
            there.join()
            with self._lock:  # closed by this thread alone: a number may be that of another connection at once
                self._open -= {client, service}
                self._idle.discard(service)

    def _forward(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):  # the other end is gone, or `cut` was called
            while data := source.recv(_AT_ONCE):
                if self._is_silent:
                    continue
                with self._lock:
                    if is_answer:
                        self._idle.add(source)
                    else:
                        self._idle.discard(sink)
                if is_answer:
                    time.sleep(self._delay)
                if is_answer and self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        self.cut()
                        return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
            return
        _break(source)
        _break(sink)

    def _answer(self, client: socket.socket, reply: bytes) -> None:
        with suppress(OSError), client:
            request = b""
            while not _is_whole(request):
                data = client.recv(_AT_ONCE)
                if not data:
                    return
                request += data
                if b"expect: 100-continue" in request.lower() and request.endswith(b"\r\n\r\n"):
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.replies += 1
            client.sendall(reply)
            client.shutdown(socket.SHUT_WR)
            while client.recv(_AT_ONCE):
                pass


@dataclass(frozen=True)
class ServiceAddress:
    """Where a plugin's service is: `keys` of its config say so, each with its type and a text with `{host}` and `{port}`."""

    host: str
    port: int
    is_http: bool
    keys: Mapping[str, tuple[type, str]]

    def at(self, host: str, port: int) -> dict[str, Any]:
        """What these keys say of another host and port."""
        return {key: given(text.format(host=host, port=port)) for key, (given, text) in self.keys.items()}


def service_address(plugin: Plugin) -> ServiceAddress | None:
    """Where the plugin's service is, by an address in its config or the keys `host` and `port`; None where neither is there, or
    the connection is encrypted."""
    config: Any = plugin.config
    for key in type(config).model_fields:
        value = getattr(config, key)
        found = _URL.match(value.get_secret_value() if isinstance(value, SecretStr) else str(value))
        if found is None or found["scheme"] in _ENCRYPTED:
            continue
        port = int(found["port"] or _PORTS.get(found["scheme"], 0))
        if port:
            before, behind = (_literal(found[name]) for name in ("user", "rest"))
            address = f"{found['scheme']}://{before}{{host}}:{{port}}{behind}"
            given = SecretStr if isinstance(value, SecretStr) else str
            return ServiceAddress(found["host"].strip("[]"), port, found["scheme"] == "http", {key: (given, address)})
    name, number = getattr(config, "host", None), getattr(config, "port", None)
    if isinstance(name, str) and name and not name.startswith("/") and isinstance(number, int) and number > 0:
        return ServiceAddress(name, number, False, {"host": (str, "{host}"), "port": (int, "{port}")})
    return None


def _literal(text: str | None) -> str:
    """As a part of a format."""
    return (text or "").replace("{", "{{").replace("}", "}}")


def _is_whole(request: bytes) -> bool:
    """Whether this is an HTTP request with its body."""
    head, end, body = request.partition(b"\r\n\r\n")
    if not end:
        return False
    size = re.search(rb"(?im)^content-length: *(\d+)", head)
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= (int(size[1]) if size else 0)


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
