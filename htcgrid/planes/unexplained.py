"""The end of an environment whose cause only something outside of it knows."""

from dataclasses import dataclass, fields, replace

from htcgrid.runtime import identity
from htcgrid.spi import FailureKind, Outcome, error_documents


@dataclass(frozen=True, slots=True)
class UnexplainedExit(Outcome):
    """The outcome `exit` of an environment that something outside has ended: a container engine, a cluster, a node.

    A relay passes it on as it is, so that a plane that can ask how the environment ended may correct it (`corrected`).
    """

    @classmethod
    def of(cls, outcome: Outcome) -> "UnexplainedExit":
        return cls(**{each.name: getattr(outcome, each.name) for each in fields(outcome)})


def explained(outcome: Outcome, status: int, *, out_of_memory: bool) -> Outcome:
    """The outcome once it is known how its environment ended: with this exit status, or at its memory limit."""
    request = identity.request_id(outcome.task_id)
    if out_of_memory:
        return replace(outcome, failure=FailureKind.OUT_OF_MEMORY, payload=error_documents.out_of_memory(request))
    return replace(outcome, payload=error_documents.exited(request, status))
