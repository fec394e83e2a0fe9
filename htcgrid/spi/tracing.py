"""The trace that an attempt belongs to, and the id of its span.

Both are computed from the task and the attempt alone. So the agent can give the id to the handler before the attempt begins,
and the observer that makes the span after its end computes the same id, in this process or another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha1

from htcgrid.spi.quick_init import quick_init
from htcgrid.spi.values import Lease, Task, generation_of

TRACEPARENT = "traceparent"
"""The attribute of a task that holds its caller's trace, in the form of W3C's Trace Context."""
_AWS_TRACE = "AWSTraceHeader"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])(-.*)?")
_AWS_ROOT = re.compile(r"(?:^|;)Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_AWS_PARENT = re.compile(r"(?:^|;)Parent=([0-9a-f]{16})(?:;|$)")
_NO_SPAN = "0" * 16


@quick_init
@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span in a trace, both in hexadecimal digits. `span_id` is sixteen zeros where only the trace is known."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"

    @property
    def has_span(self) -> bool:
        return self.span_id != _NO_SPAN


def caller_of(attributes: Mapping[str, str]) -> TraceContext | None:
    """The caller's span, from `AWSTraceHeader` or `traceparent`; None where a task has none that is valid."""
    header = attributes.get(_AWS_TRACE, "")
    if root := _AWS_ROOT.search(header):
        parent = _AWS_PARENT.search(header)
        return TraceContext(root[1] + root[2], parent[1] if parent else _NO_SPAN, ";Sampled=0" not in header)
    found = _TRACEPARENT.fullmatch(attributes.get(TRACEPARENT, ""))
    if found is None or found[1].strip("0") == "":
        return None
    return TraceContext(found[1], found[2], bool(int(found[3], 16) & 1))


def attempt_of(lease: Lease, caller: TraceContext) -> TraceContext:
    """The span of this attempt, with this caller; each attempt of each task has its own span."""
    task = lease.task
    text = f"{caller.trace_id}\0{task.id}\0{generation_of(task)}\0{lease.attempt}"
    digest = sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return TraceContext(caller.trace_id, digest[:16], caller.is_sampled)


def within_attempt(lease: Lease, run: TraceContext) -> Lease:
    """The lease as the handler sees it: its caller is the attempt. `run` is the trace of tasks without one.

    If the trace is not sampled, the attempt has no span, and the handler sees its task as it was sent.
    """
    task = lease.task
    caller = (caller_of(task.attributes) if task.attributes else None) or run
    if not caller.is_sampled:
        return lease
    span = attempt_of(lease, caller)
    changed = {**task.attributes, TRACEPARENT: span.traceparent}
    changed.pop(_AWS_TRACE, None)
    # Not by `dataclasses.replace`: this runs once a task.
    return Lease(Task(task.id, task.payload, changed), lease.attempt, lease.receipt, lease.invalid, lease.failure)
