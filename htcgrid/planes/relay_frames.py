"""The frames between a plane and its relay: the lengths of both parts, a head of JSON, and a body of bytes."""

import json
import math
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from htcgrid.planes.unexplained import UnexplainedExit
from htcgrid.runtime.parsing import parsed
from htcgrid.spi import Credentials, FailureKind, Lease, Outcome, Task, Unstarted

_LENGTHS = struct.Struct("!II")
_MOST_BYTES = 1 << 30

HELLO_BYTES = 1 << 12
"""The most bytes that are read from a client that has not sent the token yet, such as another container of the pod."""

_FOREIGN = "the data received is not a frame of htcgrid's relay"

Read = Callable[[int], bytes]
"""Returns exactly this many bytes, or raises `ConnectionError`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`say` names the kind of frame; the other keys of the head depend on it."""

    say: str
    head: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def __bytes__(self) -> bytes:
        head = json.dumps({"say": self.say, **self.head}).encode()
        return _LENGTHS.pack(len(head), len(self.body)) + head + self.body


def read_frame(read: Read, most: int = _MOST_BYTES) -> Frame:
    """The next frame. Raises `ConnectionError` if the connection ends, or if the data is not a frame."""
    head_size, body_size = _LENGTHS.unpack(read(_LENGTHS.size))
    if head_size + body_size > most:
        raise ConnectionError(_FOREIGN)
    try:
        head = parsed(read(head_size))
        say = head.pop("say")
    except (ValueError, AttributeError, TypeError, KeyError):
        raise ConnectionError(_FOREIGN) from None
    return Frame(say, head, read(body_size) if body_size else b"")


def invoke_frame(batch: Sequence[Lease], timeout: float) -> Frame:
    leases = [
        {
            "id": lease.task.id,
            "attributes": dict(lease.task.attributes),
            "attempt": lease.attempt,
            "size": len(lease.task.payload),
        }
        for lease in batch
    ]
    return Frame("invoke", {"timeout": timeout, "leases": leases}, b"".join(lease.task.payload for lease in batch))


def credentials_frame(credentials: Credentials) -> Frame:
    """The expiry is sent as the seconds that are left, since the clocks of the two ends differ."""
    expires = None if credentials.expires == math.inf else credentials.expires - time.monotonic()
    lifetime = None if credentials.lifetime == math.inf else credentials.lifetime
    return Frame("credentials", {"variables": dict(credentials.variables), "left": expires, "lifetime": lifetime})


def credentials_of(frame: Frame) -> Credentials:
    head = frame.head
    left = math.inf if head["left"] is None else head["left"]
    lifetime = math.inf if head["lifetime"] is None else head["lifetime"]
    return Credentials(head["variables"], time.monotonic() + left, lifetime)


def leases_of(frame: Frame) -> list[Lease]:
    return list(_leases(frame))


def _leases(frame: Frame) -> Iterator[Lease]:
    at = 0
    for lease in frame.head["leases"]:
        end = at + lease["size"]
        yield Lease(Task(lease["id"], frame.body[at:end], lease["attributes"]), lease["attempt"])
        at = end


def output_frame(lease: Lease | None, environment: str, text: bytes, stream: str) -> Frame:
    """What a handler has printed; the client finds the lease by its task's id."""
    task_id = lease.task.id if lease is not None else None
    return Frame("output", {"task_id": task_id, "environment": environment, "stream": stream}, text)


def report_frame(report: Outcome | Unstarted) -> Frame:
    if isinstance(report, Unstarted):
        return Frame("unstarted", {"task_id": report.task_id})
    head = {
        "task_id": report.task_id,
        "failure": report.failure,
        "started": report.started,
        "duration_ms": report.duration_ms,
        "billed_ms": report.billed_ms,
        "max_memory_mb": report.max_memory_mb,
        "init_ms": report.init_ms,
        "environment": report.environment,
        "unexplained": isinstance(report, UnexplainedExit),
    }
    return Frame("outcome", {**head, "size": len(report.payload)}, report.payload + report.log_tail)


def report_of(frame: Frame) -> Outcome | Unstarted:
    if frame.say == "unstarted":
        return Unstarted(frame.head["task_id"])
    head = dict(frame.head)
    size, failure = head.pop("size"), head.pop("failure")
    make = UnexplainedExit if head.pop("unexplained") else Outcome
    kind = FailureKind(failure) if failure is not None else None
    return make(**head, failure=kind, payload=frame.body[:size], log_tail=frame.body[size:])
