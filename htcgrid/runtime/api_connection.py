"""One connection of a Runtime API client: bytes in, whole requests out, replies back.

Nothing here waits, and nothing that a client sends makes it hold more than one body and some headers.
"""

import socket
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from htcgrid.spi import limits

_READ_BYTES = 1 << 16
"""How many bytes to read at once: allocating more costs more than reading a small request. A large one is read in larger parts."""
_LARGE_READ_BYTES = 1 << 18
_HEAD_BYTES = 1 << 21
"""How many bytes may come between two pieces of the body. AWS's Python client sends up to 1 MiB of X-Ray header."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

INVOCATION_ID = b"lambda-runtime-invocation-id"
ERROR_TYPE = b"lambda-runtime-function-error-type"
ERROR_BODY = b"lambda-runtime-function-error-body"
_EXPECT = b"expect"
_KEPT = frozenset((INVOCATION_ID, ERROR_TYPE, ERROR_BODY, _EXPECT))


@dataclass(slots=True)
class Request:
    """A request, as far as it was received; `headers` are those that are used, including trailers."""

    method: bytes = b""
    path: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    too_large: bool = False
    keep_alive: bool = True


class Connection:
    """An accepted connection. The parser calls `on_...`.

    `is_sending` says that a part of a reply waits until the client reads it; no request is read meanwhile.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.fd = channel.fileno()
        self.is_open = True
        self.is_sending = False
        self._channel = channel
        self._parser = HttpRequestParser(self)
        self._overhead = 0
        self._output = memoryview(b"")
        self._closing = False
        self._expects = False
        self._arrived: list[Request] = []
        self._familiar = (b"", Request())
        self.on_message_begin()
        self._is_between = True
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def is_ready(self) -> bool:
        """Whether the next action is to read."""
        return self.is_open and not self.is_sending

    def is_alive(self) -> bool:
        """Whether the client still has the connection open; for a client that has been waiting."""
        try:
            return self.is_open and self._channel.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self.is_open = False
        self._channel.close()

    # --- in ---

    def receive(self) -> list[Request]:
        """Read what has come; returns the requests that are complete now."""
        try:
            data = self._channel.recv(_READ_BYTES if self._is_between else _LARGE_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.close()
            return []
        if data == self._familiar[0] and self._is_between:
            return [self._familiar[1]]
        self._overhead += len(data)
        was_between = self._is_between
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._refuse(b"400 Bad Request")
            return []
        if self._overhead > _HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._expects:
            self._expects = False
            self._send(_CONTINUE)
        arrived, self._arrived = self._arrived, []
        if was_between and self._is_between and len(arrived) == 1 and arrived[0].method == b"GET":
            # One whole request: a client's next `next` has the same bytes, and need not be parsed.
            self._familiar = (data, arrived[0])
        return arrived

    def on_message_begin(self) -> None:
        self._is_between = False
        self._request = Request()
        self._body: bytes | bytearray = b""
        self._size = 0
        self._expects = False

    def on_url(self, part: bytes) -> None:
        self._request.path += part

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _KEPT:
            self._request.headers[name] = value

    def on_headers_complete(self) -> None:
        self._request.method = self._parser.get_method()
        self._expects = self._request.headers.pop(_EXPECT, b"").lower() == b"100-continue"

    def on_body(self, part: bytes) -> None:
        self._overhead = 0
        self._size += len(part)
        if self._size > limits.RESPONSE_BYTES:
            self._body = b""
            self._request.too_large = True
        elif self._size == len(part):
            self._body = part
        else:  # a list of many small pieces would take ten times their bytes
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part

    def on_message_complete(self) -> None:
        self._overhead = 0
        self._expects = False
        self._is_between = True
        self._request.body = bytes(self._body)
        self._request.keep_alive = self._parser.should_keep_alive()
        self._arrived.append(self._request)

    # --- out ---

    def reply(self, data: bytes, request: Request) -> None:
        """Send a whole reply, in one piece if the client reads it."""
        self._closing = not request.keep_alive
        self._send(data)

    def flush(self) -> None:
        """Send more of the waiting bytes."""
        self._send(b"")

    def _refuse(self, status: bytes) -> None:
        self._arrived.clear()
        self._closing = True
        self._send(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if not self.is_open:
            return
        output = memoryview(bytes(self._output) + data if self.is_sending else data)
        try:
            sent = self._channel.send(output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._output = output[sent:]
        self.is_sending = sent < len(output)
        if self._closing and not self.is_sending:
            self.close()
