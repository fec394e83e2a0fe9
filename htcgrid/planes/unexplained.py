"""The end of an environment for a reason that only its engine or cluster knows."""

from dataclasses import dataclass, fields, replace

from htcgrid.runtime import identity
from htcgrid.spi import FailureKind, Outcome, error_documents


@dataclass(frozen=True, slots=True)
class UnexplainedExit(Outcome):
    """The outcome `exit` of an environment that a container engine, a cluster or a node has ended.

    A relay passes it on unchanged; a plane that can ask how the environment ended may then correct it (`corrected`).
    """

    @classmethod
    def of(cls, outcome: Outcome) -> "UnexplainedExit":
        return cls(**{each.name: getattr(outcome, each.name) for each in fields(outcome)})


def explained(outcome: Outcome, status: int, *, out_of_memory: bool) -> Outcome:
    """The outcome, corrected with how its environment ended: with this exit status, or out of memory."""
    request = identity.request_id(outcome.task_id)
    if out_of_memory:
        return replace(outcome, failure=FailureKind.OUT_OF_MEMORY, payload=error_documents.out_of_memory(request))
    return replace(outcome, payload=error_documents.exited(request, status))
