"""The values that cross the plugin interface: a task, its lease, the outcome of one invocation, the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from htcgrid.spi.quick_init import quick_init


class FailureKind(StrEnum):
    """What kind of failure ended an invocation. The number of attempts is set for each kind.

    Each has an error document: a JSON object with the texts `errorType` and `errorMessage`. If the plane writes
    it, not the handler's runtime, `htcgrid.spi.error_documents` has it as AWS Lambda writes it.
    """

    HANDLER_ERROR = "handler_error"
    """The handler raised, or returned a value that JSON cannot hold. The `errorType` is the name of the exception's class, or
    `Runtime.MarshalError`; `stackTrace`, a list of texts, stands beside it."""
    INIT_ERROR = "init_error"
    """The module or the handler could not be loaded, or the runtime could not be started."""
    TIMEOUT = "timeout"
    """It was still running at the timeout and was stopped: `Sandbox.Timedout`."""
    OUT_OF_MEMORY = "out_of_memory"
    """It used more than the function's memory and was stopped."""
    EXIT = "exit"
    """The process ended, or was ended by a signal, without an answer: `Runtime.ExitError`. The `errorMessage` says how, as
    Lambda does: `exit status 3`, `signal: killed`, or `without providing a reason` where the status is 0."""
    PAYLOAD_TOO_LARGE = "payload_too_large"
    """The event or the answer is larger than the plane's limit."""
    CANCELLED = "cancelled"
    """The user cancelled the task."""
    INVALID_EVENT = "invalid_event"
    """The source found that this is not a task: not JSON, no id, an id used before. It never ran."""


@quick_init
@dataclass(frozen=True, slots=True)
class Task:
    """One call of the handler.

    `id` is a text of 1 to 200 characters without control characters. Ids that differ in one character, or in its case, are
    different ids. `payload` is the event, one JSON document. `attributes` are text about the task, shown to the handler
    in `context.client_context.custom`; `session_id`, `priority` and `generation` are the names that htcgrid itself uses.
    An attribute may be any text of JSON, also a NUL or half of a surrogate pair. What a queue or a sink cannot keep is `Rejected`.
    `priority` is a whole number, 0 by default: the highest first, if the source has priorities. One that the source cannot
    keep, or that is not a number, is `Rejected` or ignored.
    """

    id: str
    payload: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@quick_init
@dataclass(frozen=True, slots=True)
class Lease:
    """A task that a source has handed out for a limited time. It is acked, returned, extended or lost.

    `attempt` counts how often the task was handed out, this time included: 1 at first. `receipt` identifies
    this lease for the source, and is of any type; only the source reads it. `invalid` says why this must
    not run: what the source found is not a task, or the task was cancelled. Such a lease is never
    invoked; a failure of the kind `failure` is stored, and it is acked.
    """

    task: Task
    attempt: int = 1
    receipt: object = None
    invalid: str = ""
    failure: FailureKind = FailureKind.INVALID_EVENT


@quick_init
@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one invocation.

    `payload` is the handler's answer as it came, or the Lambda error document where `failure` is set.
    `started` is in Unix seconds; `duration_ms` is the handler's own time. `init_ms` is set on the first
    invocation of an execution environment. `max_memory_mb` is the most that environment has used.
    `log_tail` is the end of what the handler printed, 4 KB at most, without START, END and REPORT.
    `environment` names the execution environment; one that replaces another has another name.
    """

    task_id: str
    payload: bytes
    failure: FailureKind | None = None
    started: float = 0.0
    duration_ms: float = 0.0
    billed_ms: int = 0
    max_memory_mb: int = 0
    log_tail: bytes = b""
    init_ms: float | None = None
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Unstarted:
    """The plane did not begin this task and will not: another environment runs it. This is not counted as an attempt."""

    task_id: str


@quick_init
@dataclass(frozen=True, slots=True)
class Result:
    """A final outcome with its task: what a sink stores."""

    task: Task
    outcome: Outcome
    attempt: int = 1


class Capability(StrEnum):
    """What an invoker says that it can do, so that the conformance kit knows which rules to test."""

    TIMEOUT = "timeout"
    """A handler past its timeout is stopped, with the processes that it has started, and reported as `timeout`."""
    MEMORY = "memory"
    """A handler past its memory is stopped and reported as `out_of_memory`."""
    EXIT = "exit"
    """The end of the handler's process is seen at once and reported as `exit`."""
    ERRORS = "errors"
    """A failure is distinguished from an answer that looks like an error document."""
    LOGS = "logs"
    """`Outcome.log_tail` holds what the handler printed, flushed or not, also where it was stopped."""
    OUTPUT = "output"
    """`Invoker.output`, if wanted, receives everything that handlers print, each line once and with its task."""
    CONTEXT = "context"
    """`client_context.custom` holds `task_id`, `session_id` ("" where there is none), `attempt`, which is a number, and the
    task's other attributes. An attribute of one of these names is not shown, so that a task cannot claim the id of another.
    The variable `_X_AMZN_TRACE_ID` is the task's trace."""
    CANCEL = "cancel"
    """`cancel` stops a running handler."""
    METERING = "metering"
    """Durations and memory are measured."""
    IDENTITY = "identity"
    """Only handlers find the credentials of `Invoker.credentials`, and these do not expire while they run."""


GENERATION = "generation"
"""The attribute of a task that `htcgrid redrive` runs again: "1" the first time, then "2", and so on."""


def generation_of(task: Task) -> int:
    """How often the task was run again by a redrive; 0 for a task that never was."""
    text = task.attributes.get(GENERATION) if task.attributes else None
    # Others may put tasks with an attribute of that name, which is then not ours.
    return int(text) if text is not None and len(text) < 10 and text.isdecimal() else 0
