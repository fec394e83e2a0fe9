"""The outcome of an answer of Invoke."""

import re
from dataclasses import dataclass
from typing import Any

from htcgrid.planes import parsed
from htcgrid.spi import FailureKind, Outcome

from htcgrid_aws_lambda.report_lines import Report, read

_KINDS = {
    "Sandbox.Timedout": FailureKind.TIMEOUT,
    "Runtime.OutOfMemory": FailureKind.OUT_OF_MEMORY,
    "Runtime.ExitError": FailureKind.EXIT,
    "Function.ResponseSizeTooLarge": FailureKind.PAYLOAD_TOO_LARGE,
    "Runtime.ImportModuleError": FailureKind.INIT_ERROR,
    "Runtime.HandlerNotFound": FailureKind.INIT_ERROR,
    "Runtime.UserCodeSyntaxError": FailureKind.INIT_ERROR,
    "Runtime.MalformedHandlerName": FailureKind.INIT_ERROR,
    "Runtime.InvalidEntrypoint": FailureKind.INIT_ERROR,
    "Runtime.InvalidWorkingDir": FailureKind.INIT_ERROR,
    "Runtime.InvalidTaskConfig": FailureKind.INIT_ERROR,
    "Runtime.InitError": FailureKind.INIT_ERROR,
    "Extension.InitError": FailureKind.INIT_ERROR,
    "Extension.LaunchError": FailureKind.INIT_ERROR,
    "Extension.Crash": FailureKind.INIT_ERROR,
}
# How the service wrote a timeout before it named a type; some regions and clones still do.
_OLD_TIMEOUT = re.compile(r"Task timed out after [\d.]+ seconds\s*$")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one Invoke.

    `failed` says that the header `X-Amz-Function-Error` was there: the handler's document cannot set it, so an
    answer that looks like an error stays an answer. `started` is in Unix seconds, `waited_ms` is the time from
    request to answer as seen from here.
    """

    payload: bytes
    failed: bool
    tail: bytes
    started: float
    waited_ms: float


def outcome(task_id: str, answer: Answer) -> tuple[Outcome, Report | None]:
    """The outcome of a call, and the service's report on it where there was one."""
    log = read(answer.tail)
    report = log.report
    failure = _kind(answer.payload, report, log.init_failed) if answer.failed else None
    measured = report or Report(duration_ms=answer.waited_ms)
    return (
        Outcome(
            task_id,
            answer.payload,
            failure,
            started=answer.started,
            duration_ms=measured.duration_ms,
            billed_ms=measured.billed_ms,
            max_memory_mb=measured.max_memory_mb,
            log_tail=log.printed,
            init_ms=measured.init_ms,
        ),
        report,
    )


def _kind(payload: bytes, report: Report | None, init_failed: bool) -> FailureKind:
    document = _document(payload)
    message = str(document.get("errorMessage", ""))
    kind = _KINDS.get(str(document.get("errorType", "")))
    if kind is FailureKind.EXIT and message.endswith("signal: killed") and _at_the_limit(report):
        return FailureKind.OUT_OF_MEMORY
    if kind is not None:
        return kind
    if "errorType" not in document and _OLD_TIMEOUT.search(message):
        return FailureKind.TIMEOUT
    # A module that raises at import keeps its own error type; Python's client leaves the request id empty then.
    if init_failed or document.get("requestId") == "":
        return FailureKind.INIT_ERROR
    return FailureKind.HANDLER_ERROR


def _document(payload: bytes) -> dict[str, Any]:
    try:
        document = parsed(payload)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _at_the_limit(report: Report | None) -> bool:
    return report is not None and 0 < report.memory_mb <= report.max_memory_mb
