"""Converts a result to one JSON document, and back; the bytes of its payload do not change.

`payload` is the last key, and its length is written before it, so that its exact bytes can be read. Bytes that are not
JSON text are written as `payload_base64`. The other keys are those of htcgrid's `Result` and `Outcome`.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from htcgrid.spi import FailureKind, Outcome, Rejected, Result, Task


@contextmanager
def read_from(place: str, task_id: str) -> Iterator[None]:
    """Raises `Rejected`, with the place, if what is read there within the block is not a result."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, zlib.error) as error:
        message = (
            f"{place} is not a result that htcgrid wrote ({type(error).__name__}: {error}); "
            "remove it, or name another place for results"
        )
        raise Rejected(message, [task_id]) from error


def metadata(result: Result) -> dict[str, Any]:
    """Everything in a result except payload and log, without empty values."""
    outcome = result.outcome
    every = {
        "failure": str(outcome.failure) if outcome.failure else None,
        "attempt": result.attempt,
        "started": outcome.started,
        "duration_ms": outcome.duration_ms,
        "billed_ms": outcome.billed_ms,
        "max_memory_mb": outcome.max_memory_mb,
        "init_ms": outcome.init_ms,
        "environment": outcome.environment,
        "attributes": dict(result.task.attributes),
    }
    return {name: value for name, value in every.items() if value or (name == "init_ms" and value is not None)}


def result(task_id: str, metadata: dict[str, Any], payload: bytes, log_tail: bytes, event: bytes = b"") -> Result:
    """The result with this metadata. Its task has a payload only if the event was kept, as with failures."""
    metadata = dict(metadata)
    task = Task(task_id, event, metadata.pop("attributes", {}))
    attempt = int(metadata.pop("attempt", 1))
    failure = metadata.pop("failure", None)
    kind = FailureKind(failure) if failure else None
    return Result(task, Outcome(task_id, payload, kind, log_tail=log_tail, **metadata), attempt)


def write(result: Result) -> bytes:
    """The document of a result."""
    outcome = result.outcome
    head: dict[str, Any] = {"task_id": result.task.id, **metadata(result)}
    if outcome.log_tail:
        head["log_tail"] = base64.b64encode(outcome.log_tail).decode()
    if outcome.failure is not None and result.task.payload:
        head["event"] = base64.b64encode(result.task.payload).decode()
    if not _is_json(outcome.payload):
        head["payload_base64"] = base64.b64encode(outcome.payload).decode()
        return json.dumps(head).encode()
    head["payload_bytes"] = len(outcome.payload)
    return json.dumps(head).encode()[:-1] + b', "payload": ' + outcome.payload + b"}"


def read(document: bytes) -> Result:
    """The result of a document. Raises ValueError or KeyError if the document is not a result."""
    whole = json.loads(document)
    log_tail = base64.b64decode(whole.pop("log_tail", ""))
    event = base64.b64decode(whole.pop("event", ""))
    task_id = whole.pop("task_id")
    whole.pop("payload", None)
    if "payload_base64" in whole:
        payload = base64.b64decode(whole.pop("payload_base64"))
    else:
        payload = document[-1 - whole.pop("payload_bytes") : -1]
    return result(task_id, whole, payload, log_tail, event)


def _is_json(payload: bytes) -> bool:
    try:
        payload.decode()
        json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return True
