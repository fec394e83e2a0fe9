"""One caller's connection: h11 reads and writes HTTP; this module limits its time and its bytes."""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus

import h11

from htcgrid.service import api_errors
from htcgrid.service.room import Share
from htcgrid.spi import limits

HEAD_SECONDS = 20.0
"""How long a request's head may take: the first from the start of the connection, each later one from its first byte."""

IDLE_SECONDS = 120.0
"""How long a connection stays open without a request."""

STALL_SECONDS = 20.0
BYTES_PER_SECOND = 50_000
"""A body or an answer may take `STALL_SECONDS`, and one second more for each `BYTES_PER_SECOND` bytes."""

_HEAD_BYTES = 1 << 14
_HEADERS = 100
_PIECE = 1 << 16
_HEAD_PIECE = 1 << 13
_FRAME_BYTES = 16
"""The most bytes of framing for each byte of a body, besides `_HEAD_BYTES`: a chunk of one byte has five."""


_READ_OFF_BYTES = 64 * 2**20
"""How much of a refused body is read and dropped, so that its sender can read the answer."""

_READ_OFF_GARBAGE = 1 << 16
"""How much is read and dropped if the framing is broken, so that the end of the body is not known."""


class BadRequest(Exception):
    """The data is not HTTP, or too large. The start of the next request is not known, so the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HungUp(Exception):
    """The caller has closed the connection."""


class Stalled(HungUp):
    """The caller sends or reads too slowly."""


class Connection:
    """Reads requests and sends answers, one after the other. `waiting_since` is None while a request is handled."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._last = b""
        self._read_off = _READ_OFF_BYTES
        self._is_first = True
        self._is_head = self._is_cut = False
        self._announced = self._received = 0
        self.waiting_since: float | None = time.monotonic()
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def head(self) -> h11.Request | None:
        """The next request without its body; None at the end of the connection."""
        self.waiting_since = now = time.monotonic()
        has_begun = bool(self._http.trailing_data[0])
        deadline = now + (HEAD_SECONDS if has_begun or self._is_first else IDLE_SECONDS)
        while True:
            event = self._event("head")
            if isinstance(event, h11.Request):
                self._is_first, self.waiting_since = False, None
                self._check(event)
                return event
            if event is not h11.NEED_DATA:
                return None
            self._receive(deadline, _HEAD_PIECE)
            if not has_begun:
                has_begun = True
                deadline = min(deadline, time.monotonic() + HEAD_SECONDS)

    def body(self, share: Share) -> bytes:
        """The body of the request. Its bytes are counted in `share`."""
        announced = self._announced
        if announced > limits.REQUEST_BYTES:
            raise _too_large()
        share.take(announced)
        if self._http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        whole = bytearray()  # a list of small pieces would need several times their bytes
        size, began = 0, time.monotonic()
        before = self._taken
        while True:
            event = self._event("body")
            if isinstance(event, h11.Data):
                size += len(event.data)
                if size > announced:
                    share.take(size - announced)
                    announced = size
                whole += event.data
            elif self._taken - before - size > _HEAD_BYTES + size * _FRAME_BYTES:
                self._read_off = _READ_OFF_GARBAGE
                raise BadRequest(400, "The chunked body is mostly extensions and trailers.")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(whole)
            if size + self._promised_by_the_chunk() > limits.REQUEST_BYTES:
                raise _too_large()
            if event is h11.NEED_DATA:
                self._receive(began + STALL_SECONDS + size / BYTES_PER_SECOND, _PIECE)

    def reply(self, status: int, headers: Mapping[str, str], body: bytes, *, keep: bool) -> None:
        """Send an answer in one write: after the first of two, TCP may wait for a delayed acknowledgement."""
        is_whole = self._http.their_state is h11.DONE
        lines = dict(headers)
        if status != HTTPStatus.NO_CONTENT:
            lines["Content-Length"] = str(len(body))
        if not (keep and is_whole):
            lines["Connection"] = "close"
        reason = HTTPStatus(status).phrase.encode()
        answer = h11.Response(status_code=status, headers=list(lines.items()), reason=reason)
        is_bodiless = self._is_head or status == HTTPStatus.NO_CONTENT
        self._send(answer, *([] if is_bodiless or not body else [h11.Data(data=body)]), h11.EndOfMessage())
        self._is_cut = not is_whole

    def next(self) -> bool:
        """Prepare for another request; False if the connection is at its end."""
        if self._is_cut:
            self._drop_the_rest()
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def hang_up(self) -> None:
        """Wake up the thread that waits for this connection. Any thread may call it."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    # --- within ---

    @property
    def _taken(self) -> int:
        """Bytes that were received and are not waiting to be read."""
        return self._received - len(self._http.trailing_data[0])

    def _event(self, where: str) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._read_off = _READ_OFF_GARBAGE
            raise BadRequest(self._status(error, where), str(error)) from error

    def _status(self, error: h11.RemoteProtocolError, where: str) -> int:
        if where == "body":
            return HTTPStatus.BAD_REQUEST
        if self._last.count(b"\n") > _HEADERS:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            is_one_line = b"\n" not in self._http.trailing_data[0]
            return HTTPStatus.REQUEST_URI_TOO_LONG if is_one_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return HTTPStatus.BAD_REQUEST

    def _check(self, request: h11.Request) -> None:
        """Refuse requests that h11 accepts though they are ambiguous, or have more headers than any client sends."""
        self._is_head = request.method == b"HEAD"
        names = [name for name, _ in request.headers]
        lengths = [int(value) for name, value in request.headers if name == b"content-length"]
        self._announced = lengths[0] if lengths else 0
        if not request.http_version.startswith(b"1."):
            raise BadRequest(505, f"HTTP/{request.http_version.decode()} is not supported here. Use HTTP/1.1.")
        if len(names) > _HEADERS:
            raise BadRequest(431, f"There are {len(names)} headers; at most {_HEADERS} are accepted.")
        if b"transfer-encoding" in names and (lengths or request.http_version == b"1.0"):
            raise BadRequest(400, "Transfer-Encoding needs HTTP/1.1, and a request without Content-Length.")

    def _promised_by_the_chunk(self) -> int:
        # h11 knows the length of the chunk that it reads, but has no public name for it.
        return int(getattr(self._http._reader, "_bytes_in_chunk", 0))  # noqa: SLF001

    def _receive(self, deadline: float, most: int) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Stalled
        with _network():
            self._channel.settimeout(left)
            self._last = self._channel.recv(most)
        self._received += len(self._last)
        self._http.receive_data(self._last)

    def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        with _network():
            self._channel.settimeout(STALL_SECONDS + len(data) / BYTES_PER_SECOND)
            self._channel.sendall(data)

    def _drop_the_rest(self) -> None:
        """Read what the caller still sends: if the connection were closed with bytes unread, the caller would lose the answer."""
        self.waiting_since = time.monotonic()
        deadline = self.waiting_since + STALL_SECONDS
        dropped = 0
        with _network():
            self._channel.shutdown(socket.SHUT_WR)
            while dropped < self._read_off and (left := deadline - time.monotonic()) > 0:
                self._channel.settimeout(left)
                piece = self._channel.recv(_PIECE)
                if not piece:
                    return
                dropped += len(piece)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Stalled from error
    except OSError as error:
        raise HungUp from error


def _too_large() -> api_errors.RequestTooLarge:
    return api_errors.RequestTooLarge(
        f"Request must be smaller than {limits.REQUEST_BYTES} bytes for the InvokeFunction operation"
    )
