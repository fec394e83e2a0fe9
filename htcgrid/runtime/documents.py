"""The error documents that only a supervisor can write, word for word as AWS Lambda has them.

A handler's own errors are documents of the runtime client and pass through untouched.
"""

import json
import signal

from htcgrid.runtime import limits

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
    """The process sent what cannot be an answer, and was ended; the words are ours."""
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
    """The environment was stopped at the function's memory."""
    return document("Runtime.OutOfMemory", f"RequestId: {request_id} Error: Runtime exited with error: signal: killed")


def response_too_large() -> bytes:
    """The answer is past the limit."""
    limit = limits.RESPONSE_BYTES
    return document(
        "Function.ResponseSizeTooLarge",
        f"Response payload size exceeded maximum allowed payload size ({limit} bytes).",
    )


def request_too_large(size: int) -> bytes:
    """The event is past the limit; the handler was not called."""
    limit = limits.REQUEST_BYTES
    return document("RequestTooLargeException", f"The event has {size} bytes; at most {limit} can be sent.")


def cancelled(request_id: str) -> bytes:
    """The user cancelled the task. The service has no such thing, so the words are ours."""
    return document("Htcgrid.Cancelled", f"RequestId: {request_id} Error: the task was cancelled")
