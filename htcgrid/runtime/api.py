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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from htcgrid.runtime import identity, trace
from htcgrid.runtime.api_connection import ERROR_BODY, ERROR_TYPE, INVOCATION_ID, Connection, Request
from htcgrid.runtime.api_server import ApiServer, listen
from htcgrid.runtime.context import client_context
from htcgrid.runtime.environment import InitFailure, Running, State
from htcgrid.runtime.parsing import parsed
from htcgrid.runtime.sandbox import Sandbox, SandboxedEnvironment
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Unstarted, error_documents, limits

_ROOT = b"/2018-06-01/runtime/"
_NEXT = b"invocation/next"
_VERBS = frozenset((b"response", b"error"))
_RESTORE = b"restore/next"
_NOT_READY = frozenset((b"init/error", b"restore/error"))
_DRAIN_READS = 1000
_SOON_SECONDS = 0.0003
"""If the last wait was shorter and a processor is free, the thread polls without sleep: a wake-up takes much of this time."""


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


@dataclass(slots=True)
class _Attempt:
    """An invocation that the runtime gets or has; `started` in Unix seconds, `since` on the monotonic clock."""

    sequence: int
    lease: Lease
    timeout: float
    request_id: bytes
    invocation_id: bytes
    event: bytes
    started: float
    since: float


class ApiEnvironment(SandboxedEnvironment):
    """A sandbox that is served one invocation after the other, on a port of its own.

    `listener` comes from `api_server.listen`, bound to an address that the sandbox can reach; it is
    closed with the environment. Without one a free port of 127.0.0.1 is taken. `has_spare_processor`
    says whether a processor is idle while the runtime works: then this thread does not sleep during short waits.
    """

    def __init__(
        self,
        function: Function,
        sandbox: Sandbox,
        listener: socket.socket | None = None,
        has_spare_processor: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(function, sandbox)
        self._has_spare_processor = has_spare_processor
        self._waits = {True: 0.0, False: 0.0}
        """How long the last wait was: for a handler's answer, and for anything else."""
        self._server = ApiServer(listener or listen(), lambda: self.sandbox.peers)
        self._traces = trace.NewTraces()
        self._arn = identity.function_arn(function.function_name, function.aws_region, function.role_arn)
        self._queue: deque[tuple[int, Lease, float]] = deque()
        self._waiting: tuple[Connection, Request] | None = None
        self._prepared: _Attempt | None = None
        self._attempt: _Attempt | None = None
        self._now: Running | None = None  # the attempt, as the supervision reads it
        self._answered = b""
        self._refused = False
        self._failure: InitFailure | None = None

    def start(self) -> None:
        self._start({"AWS_LAMBDA_RUNTIME_API": self._server.address})
        self._server.watch(self.sandbox.ended_fd)

    def close(self) -> None:
        super().close()
        self._server.close()

    # --- the transport ---

    def _submit(self, timeout: float) -> None:
        self._queue.extend((sequence, lease, timeout) for sequence, lease in self._pending.items())

    def _collect(self, wait: float) -> Sequence[Outcome | Unstarted]:
        outcomes: list[Outcome] = []
        if self._queue:
            self._hand_out()
            self._prepare()  # while the runtime is at work, not while it waits for this
        self._take_in(wait, outcomes)
        if self._refused:
            self.sandbox.end()
        if self._ended:
            for _ in range(_DRAIN_READS):
                if not self._take_in(0, outcomes):
                    break
        return outcomes

    def _take_in(self, wait: float, outcomes: list[Outcome]) -> bool:
        is_running, began = self._attempt is not None, time.monotonic()
        is_soon = wait > 0 and self._waits[is_running] < _SOON_SECONDS and self._has_spare_processor()
        requests, moved = self._server.pump(wait, _SOON_SECONDS if is_soon else 0.0)
        if wait > 0:
            self._waits[is_running] = time.monotonic() - began
        for connection, request in requests:
            self._route(connection, request, outcomes)
        return moved

    def _has_ended(self) -> bool:
        # While it is served, `pump` checks `ended_fd` each time.
        return self._ended if self.state is State.BUSY else self.sandbox.has_ended()

    @property
    def _ended(self) -> bool:
        is_told = self._server.ended or self.sandbox.ended_fd < 0
        return self._refused or (is_told and self.sandbox.has_ended())

    def _recall(self, running: Running) -> None:
        self._queue.clear()
        self._prepared = None

    def _init_failure(self) -> InitFailure | None:
        return self._failure

    def _running(self) -> Running | None:
        return self._now

    # --- the API ---

    def _route(self, connection: Connection, request: Request, outcomes: list[Outcome]) -> None:
        if self._waiting is not None and connection is self._waiting[0]:
            # Two requests at once on one connection could not be answered in order.
            self._waiting = None
            self._server.drop(connection)
            return
        path = request.path[len(_ROOT) :] if request.path.startswith(_ROOT) else b""
        parts = path.split(b"/")
        is_answer = len(parts) == 3 and parts[0] == b"invocation" and parts[2] in _VERBS
        if path == _NEXT and request.method == b"GET":
            reply = self._next(connection, request)
        elif is_answer and request.method == b"POST":
            outcome = self._answer(connection, parts, request)
            if outcome is not None:
                outcomes.append(outcome)
            return
        elif path in _NOT_READY and request.method == b"POST":
            reply = self._not_ready(request)
        elif path == _RESTORE and request.method == b"GET":
            reply = _RESTORED
        else:
            reply = _BAD_METHOD if is_answer or path in {_NEXT, _RESTORE, *_NOT_READY} else _NOT_FOUND
        if reply is not None:
            self._server.reply(connection, reply, request)

    def _next(self, connection: Connection, request: Request) -> bytes | None:
        """The reply with the next event; None if it is sent later."""
        if self._failure is not None:
            return _BAD_STATE
        if self._attempt is not None:
            return self._attempt.event  # asked again, for example after a lost connection: the same event
        if self._waiting is not None and self._waiting[0].is_alive():
            return _BAD_STATE
        if self._init_ms is None:
            self._init_ms = (time.monotonic() - self._created) * 1000
        self._waiting = (connection, request)
        self._hand_out()
        return None

    def _prepare(self) -> None:
        """Prepare the next event, without its deadline."""
        if self._prepared is not None or not self._queue:
            return
        sequence, lease, timeout = self._queue[0]
        request_id = identity.request_id(lease.task.id)
        invocation_id = f"{self.id}-{sequence}"
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(lease.task.payload)}\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
            f"Lambda-Runtime-Invocation-Id: {invocation_id}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {self._arn}\r\n"
            f"Lambda-Runtime-Trace-Id: {trace.given(lease.task.attributes) or self._traces.next()}\r\n"
            f"Lambda-Runtime-Client-Context: {client_context(lease)}\r\n"
            "Lambda-Runtime-Deadline-Ms: "
        )
        self._prepared = _Attempt(
            sequence, lease, timeout, request_id.encode(), invocation_id.encode(), head.encode(), 0.0, 0.0
        )

    def _hand_out(self) -> None:
        if not self._queue or self._waiting is None or self._ended:
            return
        if not self._waiting[0].is_alive():
            # It asked and closed the connection, perhaps because it has ended: a task that it never got must not fail.
            self._waiting = None
            return
        self._prepare()
        attempt, self._prepared = self._prepared, None
        assert attempt is not None  # noqa: S101 - there is a queue
        self._queue.popleft()
        (connection, request), self._waiting = self._waiting, None
        self._begins(attempt.lease)
        attempt.started = time.time()
        attempt.since = time.monotonic()
        deadline = b"%d\r\n\r\n" % int((attempt.started + attempt.timeout) * 1000)
        attempt.event = b"".join((attempt.event, deadline, attempt.lease.task.payload))
        self._attempt = attempt
        self._now = Running(attempt.sequence, attempt.since)
        self._server.reply(connection, attempt.event, request)

    def _answer(self, connection: Connection, path: list[bytes], request: Request) -> Outcome | None:
        """`response` or `error`: the runtime gets the reply first, and continues while the outcome is made."""
        _, request_id, verb = path
        attempt = self._attempt
        refusal = self._refusal(attempt, request_id, request)
        if attempt is None or refusal is not None:
            self._server.reply(connection, refusal or _BAD_STATE, request)
            return None
        elapsed = time.monotonic() - attempt.since
        self._attempt = self._now = None
        self._answered = attempt.request_id
        if not request.too_large:
            self._server.reply(connection, _ACCEPTED, request)
        outcome = None
        lease = self._pending.pop(attempt.sequence, None)
        if lease is not None:
            kind, payload = _verdict(verb, request)
            outcome = self._measured(lease, kind, payload, attempt.started, elapsed)
        if request.too_large:
            # AWS's clients log this and end the runtime, some sooner than others, so the environment is ended here.
            self._refused = True
            self._server.reply(connection, _TOO_LARGE, request)
        return outcome

    def _refusal(self, attempt: _Attempt | None, request_id: bytes, request: Request) -> bytes | None:
        if attempt is None:
            return _BAD_STATE if request_id == self._answered else _BAD_ID
        if request.headers.get(INVOCATION_ID, attempt.invocation_id) != attempt.invocation_id:
            return _LATE
        return None if request_id == attempt.request_id else _BAD_ID

    def _not_ready(self, request: Request) -> bytes:
        """`init/error` and `restore/error`: the runtime says that it will not become ready."""
        if self._init_ms is not None or self._failure is not None:
            return _BAD_STATE
        self._failure = InitFailure(_error_document(request.headers.get(ERROR_TYPE, b""), request.body))
        return _ACCEPTED


def _verdict(verb: bytes, request: Request) -> tuple[FailureKind | None, bytes]:
    """The kind of failure, None for an answer, and the document."""
    if request.too_large:
        return FailureKind.PAYLOAD_TOO_LARGE, error_documents.response_too_large()
    error_type = request.headers.get(ERROR_TYPE, b"")
    if verb == b"error":
        return FailureKind.HANDLER_ERROR, _error_document(error_type, request.body)
    if error_type and ERROR_BODY in request.headers:  # trailers of an interrupted stream
        return FailureKind.HANDLER_ERROR, _error_document(error_type, _decoded(request.headers[ERROR_BODY]))
    return None, request.body


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Base64Error:
        return text


def _error_document(error_type: bytes, body: bytes) -> bytes:
    """The runtime's error document, or one made from the header if the runtime sent none."""
    try:
        if isinstance(parsed(body), dict):
            return body
    except ValueError:
        pass
    return error_documents.document(error_type.decode("latin-1") or "Runtime.Unknown", body.decode(errors="replace"))
