"""Results as a sink gives them."""

from __future__ import annotations

import json

from htcgrid.spi import FailureKind, Outcome, Result, Task

BEGAN = 1_780_000_000.0


def result(
    number: int,
    *,
    at: float = 0.0,
    duration_ms: float = 10.0,
    memory: int = 50,
    environment: str = "one",
    failure: FailureKind | None = None,
    message: str = "bad",
    attempt: int = 1,
    task_id: str = "",
    init_ms: float | None = None,
    log: bytes = b"",
) -> Result:
    task = Task(task_id or f"task-{number}", b"{}")
    payload = json.dumps({"errorType": "ValueError", "errorMessage": message} if failure else number).encode()
    outcome = Outcome(
        task.id,
        payload,
        failure,
        started=BEGAN + at,
        duration_ms=duration_ms,
        billed_ms=int(duration_ms) + 1,
        max_memory_mb=memory,
        log_tail=log,
        init_ms=init_ms,
        environment=environment,
    )
    return Result(task, outcome, attempt)
