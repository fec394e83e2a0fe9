"""Which answers of the Runtime Interface Emulator are failures, and of which kind.

The emulator does not mark failures. As seen with the emulator of aws-sam-cli 1.170:

| what happened | status | body |
| --- | --- | --- |
| the handler answered | 200 | the answer |
| the handler raised | 200 | the runtime client's error document |
| the answer was too large | 200 | a document with `Function.ResponseSizeTooLarge` |
| timeout | 200 | `Task timed out after 2.00 seconds`, plain text |
| the process ended | 502 | a document with `Runtime.ExitError` |
| it ended between its answer and the next `next` | 502 | the answer |
| the runtime reported that it cannot start | 502 | the client's document, `requestId` `""` |
| it ended before that, or could not be started | 502 | nothing |
"""

import re
from typing import Any

from htcgrid.runtime.parsing import parsed
from htcgrid.spi import FailureKind, Unavailable, error_documents

_TIMED_OUT = re.compile(rb"Task timed out after [0-9]+\.[0-9]{2} seconds")
_ERROR_KEYS = frozenset(("errorMessage", "errorType", "requestId", "stackTrace", "trace", "cause"))
_NOISE = re.compile(
    rb"[0-9]{1,2} \w{3} [0-9]{4} [0-9:]{8},[0-9]{3} \[[A-Z]+\] \(rapid\) [^\n]*\n"
    rb"|(?:START|END|REPORT) RequestId: [0-9a-f-]{36}[^\n]*\n"
)


def classify(status: int, body: bytes, request_id: str, timeout: float) -> tuple[FailureKind | None, bytes]:
    """The kind of failure, None for an answer, and the document to report.

    An answer that looks like an error document, with both keys and no others than such documents have, counts as a
    handler error: the emulator does not say which it was. Raises `Unavailable` for a status that no invocation gets.
    """
    if status not in {200, 502}:
        text = body[:200].decode(errors="replace")
        raise Unavailable(f"The Runtime Interface Emulator answered with status {status}: {text!r}.")
    if status == 200 and _TIMED_OUT.fullmatch(body):
        return FailureKind.TIMEOUT, error_documents.timed_out(request_id, timeout)
    error = _error_document(body)
    if error is not None:
        return _kind(status, error), body
    if status == 502 and not body:
        return FailureKind.INIT_ERROR, error_documents.exited(request_id, 0)
    return None, body


def _kind(status: int, error: dict[str, Any]) -> FailureKind:
    if error["errorType"] == "Function.ResponseSizeTooLarge":
        return FailureKind.PAYLOAD_TOO_LARGE
    if status == 200:
        return FailureKind.HANDLER_ERROR
    return FailureKind.EXIT if error["errorType"] == "Runtime.ExitError" else FailureKind.INIT_ERROR


def _error_document(body: bytes) -> dict[str, Any] | None:
    if not body.lstrip().startswith(b"{") or b'"errorType"' not in body:
        return None
    try:
        error = parsed(body)
    except ValueError:
        return None
    is_error = isinstance(error.get("errorType"), str) and isinstance(error.get("errorMessage"), str)
    return error if is_error and error.keys() <= _ERROR_KEYS else None


def handlers_own(log: bytes) -> bytes:
    """The log without the lines that are the emulator's."""
    return _NOISE.sub(b"", log)
