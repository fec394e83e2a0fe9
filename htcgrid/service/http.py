"""The HTTP side of the Invoke API (2015-03-31), on the standard library's server."""

import base64
import binascii
import json
import re
import socket
import uuid
from collections.abc import Mapping
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


class InvokeServer(ThreadingHTTPServer):
    """Serves functions by name; a thread a connection."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], functions: Mapping[str, ServedFunction]) -> None:
        self.functions = functions
        super().__init__(address, _Handler)

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
    server: InvokeServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        try:
            payload = self._body()
            self._answer(payload)
        except errors.ServiceError as error:
            headers = {"x-amzn-ErrorType": error.kind, "Content-Type": "application/json"}
            if error.status == errors.TooManyRequests.status:
                headers["Retry-After"] = "1"
            self._reply(error.status, error.body(), headers)

    def do_GET(self) -> None:
        self._reply(404, errors.ResourceNotFound("There is nothing here but Invoke.").body(), {})

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

    def _body(self) -> bytes:
        """The whole request body; a body past the limit is read off, so that the caller reads our answer."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if length <= 2 * limits.REQUEST_BYTES:
            return self.rfile.read(length)
        self.close_connection = True
        raise errors.RequestTooLarge(f"Request must be smaller than {limits.REQUEST_BYTES} bytes.")

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        total = 0
        while size := int(self.rfile.readline(100).split(b";")[0], 16):
            total += size
            if total > 2 * limits.REQUEST_BYTES:
                self.close_connection = True
                raise errors.RequestTooLarge(f"Request must be smaller than {limits.REQUEST_BYTES} bytes.")
            parts.append(self.rfile.read(size))
            self.rfile.readline(100)
        self.rfile.readline(100)
        return b"".join(parts)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """In one piece: two writes would meet delayed acknowledgements."""
        lines = {"x-amzn-RequestId": str(uuid.uuid4()), **headers, "Content-Length": str(len(body))}
        if status == 204:
            del lines["Content-Length"]
        if self.close_connection:
            lines["Connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.wfile.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode("latin-1") + body)


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
