"""The Invoke API (2015-03-31): reads a request and answers it."""

import base64
import binascii
import json
import re
import traceback
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import h11

from htcgrid.runtime import identity
from htcgrid.runtime.reports import log_result
from htcgrid.runtime.trace import AWS_TRACE, W3C_TRACE
from htcgrid.service import api_errors
from htcgrid.service.connection import BadRequest, Connection, HungUp, Stalled
from htcgrid.service.guard import Guard
from htcgrid.service.room import Room, Share
from htcgrid.service.served_function import ServedFunction

_PATH = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
_NAME = re.compile(r"(?:arn:[^:]+:lambda:[^:]*:)?(?:[0-9]{12}:)?(?:function:)?([A-Za-z0-9_-]+)(?::([A-Za-z0-9$_-]+))?")
_NOT_JSON = re.compile(r"text/|multipart/|image/|audio/|video/|application/(xml|pdf|zip)")
_ONLY = "function"  # the name that the emulator gives its one function
_KINDS = ("RequestResponse", "Event", "DryRun")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that may be run, without its event."""

    function: ServedFunction
    kind: str
    attributes: Mapping[str, str]
    wants_log: bool


class InvokeApi:
    """Answers the requests of any number of connections. `room` limits the bytes that they hold together."""

    def __init__(self, functions: Mapping[str, ServedFunction], guard: Guard, room: Room) -> None:
        self._functions = functions
        self._guard = guard
        self._room = room

    def serve(
        self,
        connection: Connection,
        under_way: Callable[[], AbstractContextManager[None]],
        may_go_on: Callable[[], bool],
    ) -> bool:
        """Answer the next request of this connection. Returns whether another may follow."""
        try:
            request = connection.head()
        except BadRequest as error:
            connection.reply(error.status, _numbered(_JSON), _malformed(error), keep=False)
            return connection.next()
        if request is None:
            return False
        with under_way(), Share(self._room) as share:
            try:
                answer = self._answered(connection, request, share)
            except BadRequest as error:
                answer = _Answer(error.status, _malformed(error), _JSON)
            except Stalled:
                answer = _refusal(api_errors.RequestTimeout("The body did not arrive in time."))
            share.take_held(len(answer.body))
            connection.reply(answer.status, _numbered(answer.headers), answer.body, keep=may_go_on())
        return connection.next()

    def _answered(self, connection: Connection, request: h11.Request, share: Share) -> _Answer:
        try:
            return self._answer(connection, request, share)
        except api_errors.ServiceError as error:
            return _refusal(error)
        except (BadRequest, HungUp):
            raise
        except Exception as error:  # noqa: BLE001 - a bug of htcgrid or of a plugin: it is shown here and to the caller
            traceback.print_exc()
            return _refusal(api_errors.ServiceError(f"A bug in htcgrid or in a plugin: {error!r}"))

    def _answer(self, connection: Connection, request: h11.Request, share: Share) -> _Answer:
        """The answer. If the head is reason enough to refuse a request, its body is not read."""
        headers = _headers(request)
        path, _, query = request.target.decode("latin-1").partition("?")
        signature = self._guard.check(headers)
        if request.method not in {b"POST", b"GET", b"HEAD"}:
            return _Answer(
                HTTPStatus.NOT_IMPLEMENTED, _bad("This method is not supported here; calls use POST."), _JSON
            )
        if request.method != b"POST":
            raise api_errors.ResourceNotFound("Only Invoke is served here.")

        def body() -> bytes:
            whole = connection.body(share)
            if signature is not None:
                signature.verify("POST", path, query, whole)
            return whole

        call = self._call(path, query, headers)
        if call.kind == "RequestResponse":
            return _outcome(call, body)
        payload = body()
        if call.kind == "Event":
            request_id = call.function.queue(payload, call.attributes)
            return _Answer(HTTPStatus.ACCEPTED, b"", {"x-amzn-RequestId": request_id})
        return _Answer(HTTPStatus.NO_CONTENT, b"", {})

    def _call(self, path: str, query: str, headers: Mapping[str, str]) -> _Call:
        match = _PATH.fullmatch(path)
        if match is None:
            raise api_errors.ResourceNotFound(f"There is nothing at {path}; calls go to {_PATH.pattern}.")
        function = self._function(match[1])
        qualifier = parse_qs(query).get("Qualifier", [identity.VERSION])[0]
        if qualifier != identity.VERSION:
            raise api_errors.ResourceNotFound(f"Function not found: {self._arn(match[1])}:{qualifier}")
        media = headers.get("content-type", "")
        if _NOT_JSON.match(media.lower()):
            raise api_errors.UnsupportedMediaType(f"The event must be JSON, not {media}.")
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        if kind not in _KINDS:
            raise api_errors.InvalidParameterValue(f"{kind} is not an invocation type: {', '.join(_KINDS)}.")
        context = _client_context(headers.get("x-amz-client-context", ""))
        given = {
            "client_context": context,
            AWS_TRACE: headers.get("x-amzn-trace-id", ""),
            W3C_TRACE: headers.get("traceparent", ""),
        }
        attributes = {name: text for name, text in given.items() if text}
        return _Call(function, kind, attributes, headers.get("x-amz-log-type") == "Tail")

    def _arn(self, name: str) -> str:
        """The ARN of a function that may not exist, in the region of those that do."""
        regions = [served.region for served in self._functions.values()]
        return identity.function_arn(name, (regions or ["us-east-1"])[0])

    def _function(self, name: str) -> ServedFunction:
        """The function of this name, ARN or partial ARN."""
        parts = _NAME.fullmatch(unquote(name))
        plain, qualifier = parts.groups() if parts else (name, None)
        if plain == _ONLY and len(self._functions) == 1:
            return next(iter(self._functions.values()))
        if plain not in self._functions or qualifier not in {None, identity.VERSION}:
            raise api_errors.ResourceNotFound(f"Function not found: {self._arn(unquote(name))}")
        return self._functions[plain]


def _outcome(call: _Call, body: Callable[[], bytes]) -> _Answer:
    outcome = call.function.invoke(body, call.attributes)
    headers = {**_JSON, "X-Amz-Executed-Version": identity.VERSION, "x-amzn-RequestId": outcome.task_id}
    if outcome.failure is not None:
        headers["X-Amz-Function-Error"] = "Unhandled"
    if call.wants_log:
        headers["X-Amz-Log-Result"] = base64.b64encode(log_result(outcome, call.function.memory)).decode()
    return _Answer(HTTPStatus.OK, outcome.payload, headers)


_JSON = {"Content-Type": "application/json"}


def _headers(request: h11.Request) -> Mapping[str, str]:
    """The headers by lower-case name; repeated ones are joined with commas, as HTTP and SigV4 require."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def _numbered(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {"x-amzn-RequestId": str(uuid.uuid4()), **headers}


def _malformed(error: BadRequest) -> bytes:
    return _bad(f"This is not a valid HTTP request: {error}")


def _bad(message: str) -> bytes:
    return api_errors.InvalidRequestContent(message).body()


def _refusal(error: api_errors.ServiceError) -> _Answer:
    headers = {**_JSON, "x-amzn-ErrorType": error.kind}
    if error.status == api_errors.TooManyRequests.status:
        headers["Retry-After"] = "1"
    return _Answer(error.status, error.body(), headers)


def _client_context(header: str) -> str:
    if not header:
        return ""
    try:
        text = base64.b64decode(header, validate=True).decode()
        if isinstance(json.loads(text), dict):
            return text
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise api_errors.InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.")
