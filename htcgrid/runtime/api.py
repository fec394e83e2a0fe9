"""An execution environment whose runtime speaks the Lambda Runtime API (2018-06-01).

The thread that calls `invoke` serves the API; between two calls what the runtime sends waits in the
kernel. Requests that do not fit the state are refused with AWS's statuses and change nothing.
"""

import json
import socket
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from htcgrid.runtime import documents, identity, limits
from htcgrid.runtime.api_connection import ERROR_BODY, ERROR_TYPE, INVOCATION_ID, Connection, Request
from htcgrid.runtime.api_server import ApiServer, listen
from htcgrid.runtime.context import client_context
from htcgrid.runtime.environment import InitFailure, Running
from htcgrid.runtime.sandbox import Sandbox, SandboxedEnvironment
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Unstarted

_ROOT = b"/2018-06-01/runtime/"
_NEXT = b"invocation/next"
_DRAIN_READS = 1000


def _reply(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _refusal(status: str, error_type: str, message: str) -> bytes:
    return _reply(status, json.dumps({"errorMessage": message, "errorType": error_type}).encode())


_ACCEPTED = _reply("202 Accepted", b'{"status":"OK"}')
_RESTORED = _reply("200 OK", b"")
_BAD_ID = _refusal("400 Bad Request", "InvalidRequestID", "Invalid request ID")
_BAD_STATE = _refusal("403 Forbidden", "InvalidStateTransition", "Transition from the current state is not allowed")
_NOT_FOUND = _refusal("404 Not Found", "NotFound", "There is no such path in the Runtime API 2018-06-01")
_BAD_METHOD = _refusal("405 Method Not Allowed", "MethodNotAllowed", "The path is there, but not for this method")
_LATE = _refusal("410 Gone", "InvocationGone", "That attempt is over; its answer is not wanted any more")
_TOO_LARGE = _refusal(
    "413 Request Entity Too Large",
    "RequestEntityTooLarge",
    f"Exceeded maximum allowed payload size ({limits.RESPONSE_BYTES} bytes).",
)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The invocation that the runtime has and has not answered."""

    sequence: int
    lease: Lease
    request_id: bytes
    invocation_id: bytes
    started: float
    since: float
    event: bytes


class ApiEnvironment(SandboxedEnvironment):
    """A sandbox that is served one invocation after the other, on a port of its own.

    `listener` comes from `api_server.listen`, bound to an address that the sandbox can reach; it is
    closed with the environment. Without one a free port of 127.0.0.1 is taken.
    """

    def __init__(self, function: Function, sandbox: Sandbox, listener: socket.socket | None = None) -> None:
        super().__init__(function, sandbox)
        self._server = ApiServer(listener or listen(), lambda: self._sandbox.peers)
        self._arn = identity.function_arn(function.function_name)
        self._queue: deque[tuple[int, Lease, float]] = deque()
        self._waiting: tuple[Connection, Request] | None = None
        self._attempt: _Attempt | None = None
        self._answered = b""
        self._refused = False
        self._failure: InitFailure | None = None

    def start(self) -> None:
        self._sandbox.start(self._variables() | {"AWS_LAMBDA_RUNTIME_API": self._server.address})
        self._server.watch(self._sandbox.ended_fd)

    def close(self) -> None:
        self._sandbox.close()
        self._server.close()

    # --- the transport ---

    def _submit(self, sequence: int, lease: Lease, timeout: float) -> None:
        self._queue.append((sequence, lease, timeout))

    def _collect(self, wait: float) -> Sequence[Outcome | Unstarted]:
        outcomes: list[Outcome] = []
        if self._queue and self._waiting and not self._waiting[0].is_alive():
            self._waiting = None
        self._hand_out()
        self._take_in(wait, outcomes)
        if self._refused:
            self._sandbox.end()
        if self._ended:
            for _ in range(_DRAIN_READS):
                if not self._take_in(0, outcomes):
                    break
        return outcomes

    def _take_in(self, wait: float, outcomes: list[Outcome]) -> bool:
        requests, moved = self._server.pump(wait)
        for connection, request in requests:
            self._route(connection, request, outcomes)
        return moved

    @property
    def _ended(self) -> bool:
        return self._refused or self._server.ended or (self._sandbox.ended_fd < 0 and self._sandbox.has_ended())

    def _recall(self, running: Running) -> None:
        self._queue.clear()

    def _init_failure(self) -> InitFailure | None:
        return self._failure

    def _running(self) -> Running | None:
        attempt = self._attempt
        return Running(attempt.sequence, attempt.since) if attempt is not None else None

    # --- the API ---

    def _route(self, connection: Connection, request: Request, outcomes: list[Outcome]) -> None:
        if self._waiting is not None and connection is self._waiting[0]:
            # Two requests at once on one connection could only be answered out of turn.
            self._waiting = None
            self._server.drop(connection)
            return
        if not request.path.startswith(_ROOT):
            reply: bytes | None = _NOT_FOUND
        elif (path := request.path[len(_ROOT) :]) == _NEXT:
            reply = self._next(connection, request) if request.method == b"GET" else _BAD_METHOD
        else:
            reply = self._post(path.split(b"/"), request, outcomes)
        if reply is not None:
            self._server.reply(connection, reply, request)

    def _post(self, path: list[bytes], request: Request, outcomes: list[Outcome]) -> bytes:
        match path:
            case [b"restore", b"next"]:
                return _RESTORED if request.method == b"GET" else _BAD_METHOD
            case [b"invocation", request_id, b"response" | b"error" as verb]:
                if request.method != b"POST":
                    return _BAD_METHOD
                return self._answer(request_id, verb, request, outcomes)
            case [b"init" | b"restore", b"error"]:
                return self._not_ready(request) if request.method == b"POST" else _BAD_METHOD
        return _NOT_FOUND

    def _next(self, connection: Connection, request: Request) -> bytes | None:
        """Give out an event now or, by saying None, later."""
        if self._failure is not None:
            return _BAD_STATE
        if self._attempt is not None:
            return self._attempt.event  # asked again, as after a lost connection: the same one again
        if self._waiting is not None and self._waiting[0].is_alive():
            return _BAD_STATE
        if self._init_ms is None:
            self._init_ms = (time.monotonic() - self._created) * 1000
        self._waiting = (connection, request)
        self._hand_out()
        return None

    def _hand_out(self) -> None:
        if not self._queue or self._waiting is None or self._ended:
            return
        connection, request = self._waiting
        self._waiting = None
        sequence, lease, timeout = self._queue.popleft()
        request_id = identity.request_id(lease.task.id)
        invocation_id = f"{self.id}-{sequence}"
        payload = lease.task.payload
        started = time.time()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
            f"Lambda-Runtime-Invocation-Id: {invocation_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int((started + timeout) * 1000)}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {self._arn}\r\n"
            f"Lambda-Runtime-Client-Context: {client_context(lease)}\r\n\r\n"
        )
        event = head.encode() + payload
        self._attempt = _Attempt(
            sequence, lease, request_id.encode(), invocation_id.encode(), started, time.monotonic(), event
        )
        self._server.reply(connection, event, request)

    def _answer(self, request_id: bytes, verb: bytes, request: Request, outcomes: list[Outcome]) -> bytes:
        attempt = self._attempt
        if attempt is None:
            return _BAD_STATE if request_id == self._answered else _BAD_ID
        if request.headers.get(INVOCATION_ID, attempt.invocation_id) != attempt.invocation_id:
            return _LATE
        if request_id != attempt.request_id:
            return _BAD_ID
        kind, payload = _verdict(verb, request)
        elapsed = time.monotonic() - attempt.since
        self._attempt = None
        self._answered = attempt.request_id
        lease = self._pending.pop(attempt.sequence, None)
        if lease is not None:
            outcomes.append(self._measured(lease, kind, payload, attempt.started, elapsed))
        # AWS's clients end the runtime when they are told so; not all at the same moment, so we see to it.
        self._refused = kind is FailureKind.PAYLOAD_TOO_LARGE
        return _TOO_LARGE if self._refused else _ACCEPTED

    def _not_ready(self, request: Request) -> bytes:
        """`init/error` and `restore/error`: the runtime says that it will not come up."""
        if self._init_ms is not None or self._failure is not None:
            return _BAD_STATE
        self._failure = InitFailure(_error_document(request.headers.get(ERROR_TYPE, b""), request.body))
        return _ACCEPTED


def _verdict(verb: bytes, request: Request) -> tuple[FailureKind | None, bytes]:
    """What an answer says: whether it is one, and its document."""
    if request.too_large:
        return FailureKind.PAYLOAD_TOO_LARGE, documents.response_too_large()
    error_type = request.headers.get(ERROR_TYPE, b"")
    if verb == b"error":
        return FailureKind.HANDLER_ERROR, _error_document(error_type, request.body)
    if error_type and ERROR_BODY in request.headers:  # trailers of a stream that broke off
        return FailureKind.HANDLER_ERROR, _error_document(error_type, _decoded(request.headers[ERROR_BODY]))
    return None, request.body


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Base64Error:
        return text


def _error_document(error_type: bytes, body: bytes) -> bytes:
    """The runtime's own document; one made from the header where it sent none."""
    try:
        if isinstance(json.loads(body), dict):
            return body
    except ValueError:
        pass
    return documents.document(error_type.decode("latin-1") or "Runtime.Unknown", body.decode(errors="replace"))
