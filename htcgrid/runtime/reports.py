"""The lines that Lambda writes into the log around an invocation."""

from htcgrid.runtime import identity, limits
from htcgrid.spi import FailureKind, Outcome


def log_lines(outcome: Outcome, memory: int) -> str:
    """START, what the handler printed, END and REPORT, as they stand in the log of AWS Lambda."""
    request = identity.request_id(outcome.task_id)
    printed = outcome.log_tail.decode("utf-8", "replace")
    if printed and not printed.endswith("\n"):
        printed += "\n"
    init = f"\tInit Duration: {outcome.init_ms:.2f} ms" if outcome.init_ms is not None else ""
    status = _STATUS.get(outcome.failure, "") if outcome.failure else ""
    return (
        f"START RequestId: {request} Version: {identity.VERSION}\n"
        f"{printed}"
        f"END RequestId: {request}\n"
        f"REPORT RequestId: {request}\tDuration: {outcome.duration_ms:.2f} ms\tBilled Duration: {outcome.billed_ms} ms\t"
        f"Memory Size: {memory} MB\tMax Memory Used: {outcome.max_memory_mb} MB{init}{status}\n"
    )


def log_result(outcome: Outcome, memory: int) -> bytes:
    """The last 4 KB of those lines: what AWS returns, in base64, for `LogType=Tail`."""
    return log_lines(outcome, memory).encode()[-limits.LOG_TAIL_BYTES :]


_STATUS = {
    FailureKind.TIMEOUT: "\tStatus: timeout",
    FailureKind.EXIT: "\tStatus: error\tError Type: Runtime.ExitError",
    FailureKind.OUT_OF_MEMORY: "\tStatus: error\tError Type: Runtime.OutOfMemory",
}
