"""What happens after each kind of failure, in one table.

`error_documents.py` has the document of each kind, the conformance kit a rule and the README a line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from htcgrid.spi.values import FailureKind


@dataclass(frozen=True, slots=True)
class Failure:
    """What is done about one kind of failure."""

    attempts: int = 1
    """How often a task may be tried in all, unless `[agent] attempts` says otherwise."""
    is_dead_letter: bool = False
    """Whether the task becomes a dead letter after the last try, where the source has those."""
    event_attempts: int = 1
    """As `attempts`, for an event that `htcgrid serve` has accepted: three, as on AWS Lambda."""
    report: str = ""
    """What the REPORT line of the log says of it, as on AWS Lambda."""


FAILURES: Mapping[FailureKind, Failure] = MappingProxyType(
    {
        FailureKind.HANDLER_ERROR: Failure(event_attempts=3),
        FailureKind.INIT_ERROR: Failure(),  # the agent has a rule of its own: `agent/init_errors.py`
        FailureKind.TIMEOUT: Failure(event_attempts=3, report="Status: timeout"),
        FailureKind.OUT_OF_MEMORY: Failure(
            attempts=2,
            is_dead_letter=True,
            event_attempts=3,
            report="Status: error\tError Type: Runtime.OutOfMemory",
        ),
        FailureKind.EXIT: Failure(
            attempts=3, is_dead_letter=True, event_attempts=3, report="Status: error\tError Type: Runtime.ExitError"
        ),
        FailureKind.PAYLOAD_TOO_LARGE: Failure(),
        FailureKind.CANCELLED: Failure(),
        FailureKind.INVALID_EVENT: Failure(),
    }
)
