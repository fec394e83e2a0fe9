"""The error documents that htcgrid writes itself: AWS Lambda's own texts, and texts for failures that Lambda does not have.

A handler's own errors are documents of the runtime client and pass through untouched.
"""

import json
import signal

from htcgrid.spi import limits

# How Go's os.Signal prints these, since it is AWS's supervisor that writes the sentence on the service.
_SIGNALS = {
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGHUP: "hangup",
    signal.SIGILL: "illegal instruction",
    signal.SIGINT: "interrupt",
    signal.SIGKILL: "killed",
    signal.SIGPIPE: "broken pipe",
    signal.SIGQUIT: "quit",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGTERM: "terminated",
    signal.SIGTRAP: "trace/breakpoint trap",
}


def document(error_type: str, message: str) -> bytes:
    """An error document of two keys."""
    return json.dumps({"errorType": error_type, "errorMessage": message}, separators=(",", ":")).encode()


def timed_out(request_id: str, seconds: float) -> bytes:
    """The function's timeout passed."""
    return document("Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {seconds:.2f} seconds")


def exited(request_id: str, status: int) -> bytes:
    """The process ended without an answer; `status` as `subprocess` has it, a signal being negative."""
    return document("Runtime.ExitError", f"RequestId: {request_id} Error: {_reason(status)}")


def impossible_answer(request_id: str) -> bytes:
    """The process sent what cannot be an answer, and was ended. AWS Lambda has no text for this."""
    message = f"RequestId: {request_id} Error: The worker was ended, since what it sent cannot be an answer."
    return document("Runtime.ExitError", message)


def _reason(status: int) -> str:
    if status < 0:
        name = _SIGNALS.get(-status, f"signal {-status}")  # type: ignore[call-overload]
        return f"Runtime exited with error: signal: {name}"
    if status > 0:
        return f"Runtime exited with error: exit status {status}"
    return "Runtime exited without providing a reason"


def out_of_memory(request_id: str) -> bytes:
    """The environment was stopped because it used more than the function's memory."""
    return document("Runtime.OutOfMemory", f"RequestId: {request_id} Error: Runtime exited with error: signal: killed")


def response_too_large() -> bytes:
    """The answer is larger than the limit."""
    limit = limits.RESPONSE_BYTES
    return document(
        "Function.ResponseSizeTooLarge",
        f"Response payload size exceeded maximum allowed payload size ({limit} bytes).",
    )


def request_too_large(size: int) -> bytes:
    """The event is larger than the limit; the handler was not called."""
    limit = limits.REQUEST_BYTES
    return document("RequestTooLargeException", f"The event has {size} bytes; at most {limit} can be sent.")


def cancelled(reason: str = "The task was cancelled.") -> bytes:
    """The user cancelled the task. AWS Lambda cannot do that, so it has no text for it."""
    return document("Htcgrid.Cancelled", reason)


def invalid_event(reason: str) -> bytes:
    """What the source found is not a task. The type is that of AWS's runtime client for such events."""
    return document("Runtime.UnmarshalError", reason)


def not_storable(reason: str) -> bytes:
    """The sink can never store this answer."""
    return document("Htcgrid.ResultRejected", reason)


def never_begun(attempts: int, reason: str) -> bytes:
    """The plane has not begun this task in many tries over a long time."""
    message = f"The plane did not begin this task in {attempts} tries, each of them long; the last time: {reason}"
    return document("Htcgrid.NotBegun", message)


def cancelled_unasked(attempts: int) -> bytes:
    """The plane stopped it several times, though nobody asked for that."""
    message = f"The plane reported this task as cancelled {attempts} times, though nobody cancelled it."
    return document("Htcgrid.CancelledUnasked", message)


def lost_with_its_plane(attempts: int, reason: str) -> bytes:
    """The plane was lost each time this task ran."""
    message = f"The plane was lost {attempts} times while this task ran, the last time so: {reason}"
    return document("Htcgrid.PlaneLost", message)
