"""The lines that Lambda writes into the log around an invocation."""

from htcgrid.runtime import identity
from htcgrid.spi import FAILURES, Outcome, limits


def log_lines(outcome: Outcome, memory: int) -> str:
    """START, what the handler printed, END and REPORT, as they stand in the log of AWS Lambda."""
    request = identity.request_id(outcome.task_id)
    printed = outcome.log_tail.decode("utf-8", "replace")
    if printed and not printed.endswith("\n"):
        printed += "\n"
    init = f"\tInit Duration: {outcome.init_ms:.2f} ms" if outcome.init_ms is not None else ""
    report = FAILURES[outcome.failure].report if outcome.failure else ""
    status = f"\t{report}" if report else ""
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
