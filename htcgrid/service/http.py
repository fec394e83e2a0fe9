"""The HTTP side of the Invoke API (2015-03-31), on the standard library's server."""

import base64
import binascii
import json
import re
import socket
import sys
import threading
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from htcgrid.runtime import identity, limits
from htcgrid.runtime.reports import log_result
from htcgrid.service import errors
from htcgrid.service.function import ServedFunction

_PATH = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
_NAME = re.compile(r"(?:arn:[^:]+:lambda:[^:]*:)?(?:[0-9]{12}:)?(?:function:)?([A-Za-z0-9_-]+)(?::([A-Za-z0-9$_-]+))?")
_NOT_JSON = re.compile(r"text/|multipart/|image/|audio/|video/|application/(xml|pdf|zip)")
_ONLY = "function"  # the name that the emulator gives its one function


_DIGITS = {10: re.compile("[0-9]{1,15}"), 16: re.compile("[0-9A-Fa-f]{1,12}")}
_LINE_BYTES = 1000
_JSON = {"Content-Type": "application/json"}

_READ_OFF_BYTES = 64 * 2**20
"""Of a body that is too large so much is read and dropped, so that its sender gets to read the answer."""

_IDLE_SECONDS = 300.0
"""After how long without a request a connection is closed."""

_PIECE = 1 << 20


class InvokeServer(ThreadingHTTPServer):
    """Serves functions by name; a thread a connection."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], functions: Mapping[str, ServedFunction]) -> None:
        self.functions = functions
        self.is_ending = False
        self.under_way = 0
        """Calls that are not answered to their end."""
        self._answered = threading.Condition()
        super().__init__(address, _Handler)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around a call, from its head to the end of its answer."""
        with self._answered:
            self.under_way += 1
        try:
            yield
        finally:
            with self._answered:
                self.under_way -= 1
                self._answered.notify_all()

    def end(self, seconds: float) -> None:
        """Take no more connections, and wait for so long until the calls under way are answered.

        Whatever they run on may be closed only then.
        """
        self.is_ending = True
        self.shutdown()
        with self._answered:
            self._answered.wait_for(lambda: not self.under_way, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet about callers that hang up; anything else is a bug and shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def function(self, name: str) -> ServedFunction:
        """The function of this name, ARN or partial ARN."""
        parts = _NAME.fullmatch(unquote(name))
        plain, qualifier = parts.groups() if parts else (name, None)
        if plain == _ONLY and len(self.functions) == 1:
            return next(iter(self.functions.values()))
        if plain not in self.functions or qualifier not in {None, identity.VERSION}:
            raise errors.ResourceNotFound(f"Function not found: {identity.function_arn(unquote(name))}")
        return self.functions[plain]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: InvokeServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        with self.server.answering():
            self.close_connection |= self.server.is_ending
            self._post()

    def _post(self) -> None:
        try:
            try:
                self._answer(self._body())
            except (errors.ServiceError, ConnectionError, TimeoutError):
                raise
            except Exception as error:
                traceback.print_exc()
                raise errors.ServiceError(f"A bug in htcgrid or in a plugin: {error!r}") from error
        except errors.ServiceError as error:
            self._refuse(error)

    def do_GET(self) -> None:
        self._refuse(errors.ResourceNotFound("There is nothing here but Invoke."))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library's parser refuses, in the service's own form."""
        self.close_connection = True
        phrase = message or HTTPStatus(code).phrase
        self._reply(code, errors.InvalidRequestContent(f"This is not a request: {phrase}").body(), _JSON)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Quiet: a line a call is the log's business."""

    def _answer(self, payload: bytes) -> None:
        url = urlsplit(self.path)
        match = _PATH.fullmatch(url.path)
        if match is None:
            raise errors.ResourceNotFound(f"There is nothing at {url.path}; calls go to {_PATH.pattern}.")
        function = self.server.function(match[1])
        qualifier = parse_qs(url.query).get("Qualifier", [identity.VERSION])[0]
        if qualifier != identity.VERSION:
            raise errors.ResourceNotFound(f"Function not found: {identity.function_arn(match[1])}:{qualifier}")
        if _NOT_JSON.match(self.headers.get("Content-Type", "").lower()):
            raise errors.UnsupportedMediaType(f"The event must be JSON, not {self.headers['Content-Type']}.")
        kind = self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        context = _client_context(self.headers.get("X-Amz-Client-Context", ""))
        if kind == "Event":
            function.queue(payload, context)
            self._reply(202, b"", {})
        elif kind == "DryRun":
            self._reply(204, b"", {})
        elif kind == "RequestResponse":
            self._invoke(function, payload, context)
        else:
            raise errors.InvalidParameterValue(f"{kind} is no invocation type: RequestResponse, Event, DryRun.")

    def _invoke(self, function: ServedFunction, payload: bytes, context: str) -> None:
        outcome = function.invoke(payload, context)
        headers = {"X-Amz-Executed-Version": identity.VERSION, "Content-Type": "application/json"}
        headers["x-amzn-RequestId"] = outcome.task_id
        if outcome.failure is not None:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if self.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(log_result(outcome, function.memory)).decode()
        self._reply(200, outcome.payload, headers)

    def _refuse(self, error: errors.ServiceError) -> None:
        headers = {**_JSON, "x-amzn-ErrorType": error.kind}
        if error.status == errors.TooManyRequests.status:
            headers["Retry-After"] = "1"
        self._reply(error.status, error.body(), headers)

    def _body(self) -> bytes:
        """The whole request body. Whatever is wrong with it, where the next request begins is not known any more."""
        closing, self.close_connection = self.close_connection, True
        coding = self.headers.get("Transfer-Encoding", "").lower()
        if coding not in {"", "chunked"}:
            raise errors.InvalidRequestContent(f"Transfer-Encoding: {coding} is not known here; chunked is.")
        body = self._chunks() if coding else self._sized()
        self.close_connection = closing
        return body

    def _sized(self) -> bytes:
        length = _number(self.headers.get("Content-Length", "0"), 10, "Content-Length")
        if length <= limits.REQUEST_BYTES:
            return self._read(length)
        self._drop(length)
        raise _too_large()

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        total = dropped = 0
        while size := _number(self._line().split(";")[0], 16, "The size of a chunk"):
            total += size
            if total <= limits.REQUEST_BYTES:
                parts.append(self._read(size))
            else:
                dropped += size
                self._drop(size, dropped)
            if self._line():
                raise errors.InvalidRequestContent("A chunk is longer than its size says.")
        while self._line():
            pass  # trailers
        if dropped:
            raise _too_large()
        return b"".join(parts)

    def _line(self) -> str:
        """A line of a chunked body, without its end."""
        line = self.rfile.readline(_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise errors.InvalidRequestContent("The chunked body breaks off, or a line of it is too long.")
        return line.decode("latin-1").strip()

    def _read(self, size: int) -> bytes:
        body = self.rfile.read(size)
        if len(body) < size:
            raise errors.InvalidRequestContent(f"The body breaks off: {len(body)} of {size} bytes came.")
        return body

    def _drop(self, size: int, total: int = 0) -> None:
        if max(size, total) > _READ_OFF_BYTES:
            raise _too_large()
        while size > 0 and (piece := self.rfile.read(min(size, _PIECE))):
            size -= len(piece)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """In one piece: two writes would meet delayed acknowledgements."""
        lines = {"x-amzn-RequestId": str(uuid.uuid4()), **headers, "Content-Length": str(len(body))}
        if status == 204:
            del lines["Content-Length"]
        if self.close_connection:
            lines["Connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.wfile.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode("latin-1") + body)


def _number(text: str, base: int, what: str) -> int:
    """Digits only: Python would take signs, spaces and underscores too."""
    if not _DIGITS[base].fullmatch(text.strip()):
        raise errors.InvalidRequestContent(f"{what} is {ascii(text)[:60]}; expected a number in base {base}.")
    return int(text, base)


def _too_large() -> errors.RequestTooLarge:
    return errors.RequestTooLarge(
        f"Request must be smaller than {limits.REQUEST_BYTES} bytes for the InvokeFunction operation"
    )


def _client_context(header: str) -> str:
    if not header:
        return ""
    try:
        text = base64.b64decode(header, validate=True).decode()
        if isinstance(json.loads(text), dict):
            return text
    except (binascii.Error, ValueError):
        pass
    raise errors.InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.")
